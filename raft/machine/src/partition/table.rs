//! The tables of a partition, as the machine sees them: typed rows behind a trait that the shell implements.
//!
//! The trait says what a row is and what a write means; how rows are encoded, indexed and made durable is the shell's.
//! Expired values are rows like any other until the shell removes them: they may be overwritten and deleted, and only
//! reads hide them, by [`visible`].

use bytes::Bytes;
use callboard_types::{Activation, ActorKey, Epoch, FailurePolicy, NodeId, ReplicaId, Timestamp, WriteNumber};

use super::command::Response;

/// One state key of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateValue {
    pub value: Bytes,
    /// Invisible from this instant on.
    pub expires_at: Option<Timestamp>,
}

/// Whether a read may return `value`; `clock` is the reader's, and never below the partition's stored one, so that what
/// has expired once stays expired.
pub fn visible(value: &StateValue, clock: Timestamp) -> bool {
    value.expires_at.is_none_or(|end| clock < end)
}

/// What a caller asked for when registering a reminder. Texts are kept as given: answers echo them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReminderSpec {
    /// JSON text handed to the app; `None`: no `data` was given (not the same as `null`).
    pub data: Option<Bytes>,
    pub due_time: String,
    /// The owner parses it again to compute the occurrence after next.
    pub period: String,
    pub ttl: String,
    /// Total number of firings, the first one included; `None`: no limit.
    pub repeats: Option<u64>,
    /// No occurrence is due after this instant (inclusive).
    pub expires_at: Option<Timestamp>,
    pub policy: FailurePolicy,
}

/// A reminder as stored: the request and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reminder {
    pub spec: ReminderSpec,
    /// Log index of the entry that created it; tells a re-registered reminder from its predecessor.
    pub generation: u64,
    /// The occurrence that is due next; the first one is 1.
    pub occurrence: u64,
    /// When that occurrence is due.
    pub due: Timestamp,
    /// Wall clock of the proposer at creation.
    pub registered: Timestamp,
    /// How many occurrences were given up by the failure policy.
    pub dropped: u64,
}

/// An occurrence given up by its failure policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedFiring {
    pub actor: ActorKey,
    pub name: String,
    pub generation: u64,
    pub occurrence: u64,
    pub due: Timestamp,
    pub dropped_at: Timestamp,
    pub reason: String,
}

/// Who owns the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    pub epoch: Epoch,
    pub node: NodeId,
    pub replica: ReplicaId,
    pub nonce: u64,
}

/// The last write of an actor, for the exact answer to its repeat. Its response is `Done` or `Rejected`, never another.
#[derive(Debug, Clone, PartialEq)]
pub struct LastWrite {
    pub epoch: Epoch,
    pub activation: Activation,
    pub number: WriteNumber,
    pub response: Response,
}

/// Reads and writes of one partition within one apply batch. Reads see the batch's earlier writes.
///
/// The due-time index of reminders is the implementation's: it follows `put_reminder` and `delete_reminder`.
pub trait Tables {
    /// Disk failure: the batch is abandoned and the node ends.
    type Error;

    fn ownership(&self) -> Result<Option<Ownership>, Self::Error>;
    fn set_ownership(&mut self, ownership: Ownership) -> Result<(), Self::Error>;

    /// The highest proposer clock seen, by which expiry is decided; the Unix epoch where none was.
    fn clock(&self) -> Result<Timestamp, Self::Error>;
    fn set_clock(&mut self, clock: Timestamp) -> Result<(), Self::Error>;

    fn state(&self, actor: &ActorKey, key: &str) -> Result<Option<StateValue>, Self::Error>;
    fn put_state(&mut self, actor: &ActorKey, key: &str, value: StateValue) -> Result<(), Self::Error>;
    fn delete_state(&mut self, actor: &ActorKey, key: &str) -> Result<(), Self::Error>;
    /// Every state key of the actor goes; bounded work for the machine, whatever their number.
    fn delete_all_state(&mut self, actor: &ActorKey) -> Result<(), Self::Error>;

    fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Option<Reminder>, Self::Error>;
    /// All reminders of the actor, by name.
    fn reminders(&self, actor: &ActorKey) -> Result<Vec<(String, Reminder)>, Self::Error>;
    fn put_reminder(&mut self, actor: &ActorKey, name: &str, reminder: Reminder) -> Result<(), Self::Error>;
    fn delete_reminder(&mut self, actor: &ActorKey, name: &str) -> Result<(), Self::Error>;

    fn last_write(&self, actor: &ActorKey) -> Result<Option<LastWrite>, Self::Error>;
    fn set_last_write(&mut self, actor: &ActorKey, write: LastWrite) -> Result<(), Self::Error>;
    fn delete_last_write(&mut self, actor: &ActorKey) -> Result<(), Self::Error>;

    /// Number of dropped firings kept. Asked only by a command that drops one.
    fn dropped_len(&self) -> Result<u64, Self::Error>;
    /// Keyed by log index and position within the command, so that the oldest is found first.
    fn push_dropped(&mut self, index: u64, position: u32, firing: DroppedFiring) -> Result<(), Self::Error>;
    fn pop_oldest_dropped(&mut self) -> Result<(), Self::Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_invisible_from_its_expiry_on() {
        let value = |expires_at| StateValue { value: Bytes::new(), expires_at };
        assert!(visible(&value(None), Timestamp::MAX));
        assert!(visible(&value(Some(Timestamp(10))), Timestamp(9)));
        assert!(!visible(&value(Some(Timestamp(10))), Timestamp(10)));
        assert!(!visible(&value(Some(Timestamp(10))), Timestamp(11)));
    }
}
