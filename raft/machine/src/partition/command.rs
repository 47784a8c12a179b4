//! What stands in a partition's log, and what applying it answers.
//!
//! Commands carry all they need: the time they were made, the epoch they speak for, and absolute instants instead of
//! spans. Nothing here decides; the rules are in [`apply`](super::apply()) and the draft it commits.

use bytes::Bytes;
use callboard_types::{Activation, ActorKey, Epoch, NodeId, ReplicaId, Timestamp, WriteNumber};

use super::table::{Reminder, ReminderSpec};

/// One entry of a partition's log.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// "I own this partition": carries no number; applying it makes the next epoch (DESIGN 2.2).
    Claim(Claim),
    /// One actor's change of state and reminders, all or nothing.
    Actor(ActorCommand),
    /// Proves that the log moves; changes nothing.
    Noop { epoch: Epoch },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub node: NodeId,
    pub replica: ReplicaId,
    /// Tells two claims of one replica apart, so that each proposal learns its own epoch.
    pub nonce: u64,
    /// Wall clock of the proposer.
    pub now: Timestamp,
    /// How far ahead of `now` the stored clock may be before this claim lowers it, in microseconds (`max_clock_offset`).
    pub max_clock_offset_micros: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ActorCommand {
    pub epoch: Epoch,
    pub actor: ActorKey,
    /// The activation and write number this command belongs to; a repeat of the last one is answered with the first
    /// outcome. `None`: the owner's own commands (reminder outcomes, admin), which are never repeated blindly.
    pub write: Option<(Activation, WriteNumber)>,
    /// Wall clock of the proposer. Relative times were made absolute with it.
    pub now: Timestamp,
    /// In order; the first that is rejected rejects the whole command and nothing is written.
    pub ops: Vec<ActorOp>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ActorOp {
    /// `expires_at: None` clears any earlier expiry.
    Upsert { key: String, value: Bytes, expires_at: Option<Timestamp> },
    /// Deleting an absent key is no error.
    Delete { key: String },
    /// Creates or replaces a reminder; its generation is the log index of this entry.
    PutReminder { name: String, spec: ReminderSpec, due: Timestamp, overwrite: bool },
    /// Deleting an absent reminder is no error.
    DeleteReminder { name: String },
    /// One occurrence was answered by the app. `next`: when the one after is due; `None` ends the reminder.
    /// On another generation or occurrence it does nothing.
    ReminderFired { name: String, generation: u64, occurrence: u64, next: Option<Timestamp> },
    /// One occurrence was given up by its failure policy; counted and shown. Otherwise as `ReminderFired`.
    ReminderDropped { name: String, generation: u64, occurrence: u64, next: Option<Timestamp>, reason: String },
    /// Everything of the actor: state, reminders, and the record of its last write.
    DeleteActor,
}

/// What a proposal is answered with after its entry has been applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// To a `Claim`: the epoch it made.
    Claimed { epoch: Epoch },
    /// The command took effect; for a repeated write, the first time.
    Done,
    /// The command's epoch is not the current one. Nothing was written.
    Fenced { current: Epoch },
    /// The content is not acceptable. None of its operations took effect.
    Rejected(Rejection),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("actor reminder already exists: {name}")]
    ReminderExists { name: String },
    /// A write number below the last applied one of the same activation: a stray repeat.
    #[error("write {given} is older than the last write {last}")]
    StaleWrite { given: u64, last: u64 },
}

/// What the shell learns from an applied entry, beside the response. The same on every replica.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A claim was applied.
    Claimed { claim: Claim, epoch: Epoch },
    /// A reminder exists in this form: created, replaced, or moved to its next occurrence.
    ReminderSet { actor: ActorKey, name: String, reminder: Reminder },
    /// A reminder is gone.
    ReminderGone { actor: ActorKey, name: String, generation: u64 },
    /// A claim lowered the stored clock, which was ahead by this many microseconds: alarmed and counted.
    ClockLowered { by_micros: u64 },
}

/// All that applying one entry produces; its writes went to the [`Tables`](super::Tables).
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub response: Response,
    pub effects: Vec<Effect>,
}
