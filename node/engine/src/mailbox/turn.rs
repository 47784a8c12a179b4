//! The words of the mailbox: what is asked of it, and what it answers.
//!
//! Values only. Every enum is closed; a caller that matches one learns at compile time of each case that it must meet.

use std::time::Duration;

use callboard_types::{Activation, ActorKey, Class, ClusterId, Epoch, FencingToken, NodeId, PartitionId};
use smallvec::SmallVec;

use super::reentrancy::{Reentrancy, ReentrancyId};
use crate::Instant;
use crate::activation::EndReason;

/// One request to the mailboxes. The shell numbers them; unique among the live calls of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// One entry into a turn: what a caller holds between its start and its end. Never reused, so a stale one matches
/// nothing and every verb given it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnId {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

/// What all fencing tokens of one table have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochToken {
    pub cluster: ClusterId,
    pub generation: u64,
    pub partition: PartitionId,
    pub epoch: Epoch,
}

impl EpochToken {
    /// The fencing token of one activation of this epoch.
    pub const fn token(&self, activation: Activation) -> FencingToken {
        FencingToken {
            cluster: self.cluster,
            generation: self.generation,
            partition: self.partition,
            epoch: self.epoch,
            activation,
        }
    }
}

/// Bounds of one table. What would exceed one is refused, never queued elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Actors in the table: active ones, and those with only a waiter or an unresolved write.
    pub activations: usize,
    /// Calls that wait for one actor.
    pub mailbox: usize,
    /// Calls that wait in the whole table.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { activations: 1_000_000, mailbox: 1_024, waiting: 65_536 }
    }
}

/// What the mailbox needs to know of an actor type. The latest one given counts, for running activations too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeConfig {
    /// [`Duration::MAX`]: never idle.
    pub idle_timeout: Duration,
    pub reentrancy: Reentrancy,
}

impl Default for TypeConfig {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(60 * 60), reentrancy: Reentrancy::default() }
    }
}

/// What a caller may ask a turn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// A method call; the only kind that can be part of a call chain.
    Call,
    Reminder,
    Timer,
    /// A write from outside the app (actor delete, import): needs the actor to be at rest and ends its activation.
    Exclusive,
}

/// What a turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnKind {
    Call,
    Reminder,
    Timer,
    Exclusive,
    /// The `DELETE` that ends an activation.
    Deactivate,
}

impl From<RequestKind> for TurnKind {
    fn from(kind: RequestKind) -> Self {
        match kind {
            RequestKind::Call => TurnKind::Call,
            RequestKind::Reminder => TurnKind::Reminder,
            RequestKind::Timer => TurnKind::Timer,
            RequestKind::Exclusive => TurnKind::Exclusive,
        }
    }
}

/// A request for a turn.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub actor: &'a ActorKey,
    pub call: CallId,
    pub kind: RequestKind,
    /// The reentrancy id that came with the call. Looked at only for calls to types with reentrancy on.
    pub chain: Option<&'a ReentrancyId>,
    pub config: TypeConfig,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Run it at once, then call `finish`.
    Start(Start),
    /// It waits behind `position` others. Exactly one of these follows: an [`Effect::Start`] with its call id; its
    /// `cancel`; its call id among those that `take_parked` or `end_all` return.
    Queued { position: usize },
    /// It never runs, and left nothing behind.
    Refused(Refusal),
}

/// Leave to run one entry of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub turn: TurnId,
    pub activation: Activation,
    /// The app is not known to have this activation. Every dispatch carries it to the guard. For an exclusive turn it
    /// says that there is nothing to `DELETE`. True until an entry of the activation has ended other than
    /// [`TurnEnd::NotDispatched`], so that the entries of one chain that start together may reach the host in any order.
    pub opens: bool,
    /// Where the activation lives; `None` until `assign_host`.
    pub host: Option<NodeId>,
    pub kind: TurnKind,
    /// The reentrancy id to send to the app; `None`: send none.
    pub chain: Option<ReentrancyId>,
    /// When the activation becomes idle if nothing else reaches it. Goes to the host with the dispatch.
    pub idle_deadline: Instant,
}

/// How an entry of a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    /// The app answered, whatever it said.
    Done,
    /// Provably no byte of the request reached the app.
    NotDispatched,
    /// The host or its app was lost with the request in flight: a handler may still run. The activation ends.
    Lost,
}

/// Why a started call must run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopen {
    /// The host's guard refused the token: nothing reached the app, and the activation is not there.
    HostRefused,
    /// The drain time of a moving host is over: the request was cancelled. `DELETE` comes first, then the call again.
    Cut,
}

/// How a write that was reported with `write_started` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Applied or refused for its content; the app knows which.
    Definite,
    /// The log has passed the point where it could take effect; whether it did is not known.
    Unknown,
    /// Refused under a superseded epoch or token.
    Fenced,
}

/// What the shell has to do after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A waiting call has its turn.
    Start { call: CallId, start: Start },
    /// Run a deactivation.
    Deactivate(Deactivation),
    /// The table was asked to quiesce, and its last turn and write have ended. Once per `quiesce`.
    Drained,
}

/// Effects of one event. Most events have none, and nearly all others one: no allocation.
pub type Effects = SmallVec<[Effect; 1]>;

/// A turn that ends an activation: send `DELETE` to its host, wait for the answer, `finish` the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deactivation {
    pub actor: ActorKey,
    pub turn: TurnId,
    pub activation: Activation,
    pub host: Option<NodeId>,
    pub reason: EndReason,
}

/// Why a request gets no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("maximum stack depth exceeded")]
    StackDepth,
    #[error("the actor's mailbox is full")]
    MailboxFull,
    #[error("too many calls wait in this partition")]
    TooManyWaiting,
    #[error("too many active actors in this partition")]
    TooManyActivations,
    /// Only for exclusive requests.
    #[error("the actor has a turn running or waiting")]
    TurnRunning,
    /// The call belongs to a turn whose activation is superseded.
    #[error("the calling turn belongs to a superseded activation")]
    Superseded,
    #[error("this node no longer owns the actor's partition")]
    EpochOver,
}

impl Refusal {
    pub const fn class(self) -> Class {
        match self {
            Refusal::StackDepth | Refusal::TurnRunning => Class::Rejected,
            Refusal::MailboxFull | Refusal::TooManyWaiting | Refusal::TooManyActivations => Class::Busy,
            Refusal::Superseded => Class::Fenced,
            Refusal::EpochOver => Class::Redirected,
        }
    }
}
