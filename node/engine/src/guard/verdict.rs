//! The words of the guard: what is asked of it, and what it answers.

use callboard_types::{ActorKey, FencingToken, WriteNumber};

use super::session::SessionId;
use crate::Instant;
use crate::mailbox::ReentrancyId;

/// Bounds of one guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardLimits {
    /// Instances in the app, and those that are being removed.
    pub activations: usize,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { activations: 1_000_000 }
    }
}

/// What a dispatch says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Dispatch<'a> {
    pub token: FencingToken,
    /// The app is not known to have the activation.
    pub opens: bool,
    /// The session it came in; `None`: from an owner on this node.
    pub session: Option<SessionId>,
    /// The call chain of the turn, for the report to the next owner.
    pub chain: Option<&'a ReentrancyId>,
    pub idle_deadline: Instant,
}

/// The answer to a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Dispatch it, then call `ended` with the pass.
    Go {
        pass: Pass,
        /// The app has no instance of the actor: write its name to the list of opened actors before the dispatch.
        record: bool,
    },
    /// There is no instance, and the dispatch does not open one: the owner opens another activation.
    NotActive,
    /// Superseded: nothing was or will be done.
    Fenced,
    /// An older instance stands in the way, and the caller carries out its removal, then asks again.
    Seal(Removal),
    /// As `Seal`, but another caller removes it: wait for that, ask again.
    Sealed,
    /// The limit is reached.
    Full,
}

/// Leave to run one turn in the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pass {
    pub(super) serial: u64,
}

/// An instance that has to go. Its carrier waits until nothing of it is in flight, asks
/// [`still_removing`](super::Guard::still_removing), sends `DELETE` if so, and says
/// [`removed`](super::Guard::removed) whatever became of it. Nobody else touches the instance meanwhile, so a carrier
/// that leaves before would block the actor: it is run to its end, whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    pub id: RemovalId,
    /// `None`: it is of an earlier life of this process.
    pub previous: Option<FencingToken>,
    /// At 0 there is nothing to wait for; else each `ended` that says `Quiet` or `Gone` is a reason to look again.
    pub in_flight: usize,
}

/// One removal. Never used twice, so that a carrier that is late changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemovalId {
    pub(super) serial: u64,
}

/// What still runs of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    Running(usize),
    /// The last turn has ended: a removal that waits goes on.
    Quiet,
    /// The instance has gone before.
    Gone,
}

/// Whether the app answered a `DELETE`; what it answered does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteAnswer {
    Answered,
    NoAnswer,
}

/// The answer to the owner's wish to end an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The caller carries out the removal. The handler of the `DELETE` may write under the token meanwhile.
    Delete(Removal),
    /// There is no such instance: closed already.
    NotActive,
    Fenced,
    /// Another caller removes it: wait for that, ask again.
    Sealed,
}

/// The token for a write that the app makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteToken {
    Token(FencingToken, WriteNumber),
    /// The app has no instance of the actor.
    Missing,
    /// The instance is superseded or in doubt: its writes are refused.
    Sealed,
}

/// What a host answers to the claim of a new owner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealReport {
    pub activations: Vec<SealedActivation>,
    pub running: Vec<SealedTurn>,
}

/// An instance of an older epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedActivation {
    pub actor: ActorKey,
    /// `None`: of an earlier life of the host's process.
    pub token: Option<FencingToken>,
    pub idle_deadline: Instant,
}

/// A turn of an older epoch that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedTurn {
    pub actor: ActorKey,
    pub chain: Option<ReentrancyId>,
}
