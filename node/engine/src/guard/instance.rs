//! One actor in the guard: an instance in the app, or the place of one.

use callboard_types::{ActorKey, FencingToken};
use smallvec::SmallVec;

use super::session::SessionId;
use super::verdict::RemovalId;
use crate::Instant;
use crate::mailbox::ReentrancyId;

/// Where an instance is between its first dispatch and its `DELETE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the app, and its calls count.
    Live,
    /// Its owner ends it in order: its writes still count, until `DELETE` is answered.
    Closing(RemovalId),
    /// In doubt: its calls count for nothing. Nobody is removing it.
    Sealed,
    /// As `Sealed`, and somebody waits for its turns and its `DELETE`.
    Removing(RemovalId),
    /// Not in the app. Kept for `highest`, which waited for the removal.
    Vacant,
}

impl State {
    /// The removal under way.
    pub(super) const fn removal(self) -> Option<RemovalId> {
        match self {
            State::Closing(removal) | State::Removing(removal) => Some(removal),
            State::Live | State::Sealed | State::Vacant => None,
        }
    }
}

/// A turn that was dispatched and has not ended.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) serial: u64,
    pub(super) chain: Option<ReentrancyId>,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) actor: ActorKey,
    pub(super) state: State,
    /// Under which it was opened. `None`: by an earlier life of this process, or vacant.
    pub(super) token: Option<FencingToken>,
    /// The highest seen for the actor; never below `token`.
    pub(super) highest: Option<FencingToken>,
    /// In which its last dispatch came.
    pub(super) session: Option<SessionId>,
    pub(super) in_flight: SmallVec<[Flight; 1]>,
    pub(super) idle_deadline: Instant,
    /// A turn of it has reached the app.
    pub(super) given: bool,
}

impl Instance {
    pub(super) fn live(actor: ActorKey, token: FencingToken) -> Self {
        Self { state: State::Live, token: Some(token), highest: Some(token), given: false, ..Self::listed(actor) }
    }

    /// Of an earlier life of this process.
    pub(super) fn listed(actor: ActorKey) -> Self {
        Self {
            actor,
            state: State::Sealed,
            token: None,
            highest: None,
            session: None,
            in_flight: SmallVec::new(),
            idle_deadline: Instant::ZERO,
            given: true,
        }
    }

    /// Lives on, or again, under another token.
    pub(super) fn occupy(&mut self, token: FencingToken) {
        self.state = State::Live;
        self.token = Some(token);
        self.highest = Some(token);
    }

    /// Gone from the app; `highest` is expected.
    pub(super) fn vacate(&mut self) {
        self.state = State::Vacant;
        self.token = None;
        self.given = false;
        self.in_flight.clear();
    }

    /// A token asked for the actor that is not the one of the instance.
    pub(super) fn is_waited_for(&self) -> bool {
        self.highest.is_some() && self.highest != self.token
    }
}
