//! Call chains: which calls share a turn, and how deep they may nest.
//!
//! A call chain is named by the id in `Dapr-Reentrancy-Id`. The app hands it on with the calls that it makes while it
//! handles one, so a call that arrives with the id of the turn that runs is part of that turn: letting it wait would be
//! a deadlock. Everybody else waits.
//!
//! A turn with no chain (reentrancy off, reminder, timer, exclusive, deactivation) is joined by nobody: `None` equals no
//! id. The id is not a secret and not checked; whoever sends a running turn's id is let into it, as in Dapr.
//!
//! Depth is the number of entries of one chain that are in one actor's turn at once. It is the length of a list of
//! entries and not a counter beside it: a refused entry was never in the list, so there is nothing to give back.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::turn::{CallId, TurnKind};

/// The name of a call chain. Its length is bounded by the shell's limit on header size.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReentrancyId(pub Arc<str>);

impl ReentrancyId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for ReentrancyId {
    fn from(id: T) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for ReentrancyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reentrancy of one actor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reentrancy {
    pub enabled: bool,
    /// Entries of one chain in one actor at once; 0 counts as 1, since a turn is an entry.
    pub max_depth: u32,
}

impl Default for Reentrancy {
    fn default() -> Self {
        Self { enabled: false, max_depth: 32 }
    }
}

impl Reentrancy {
    /// Whether a chain that has `entries` in the actor may have one more.
    pub fn allows_another(&self, entries: usize) -> bool {
        u32::try_from(entries).is_ok_and(|entries| entries < self.max_depth.max(1))
    }

    /// The chain that a call belongs to under this setting. An empty id is none.
    pub(super) fn chain_of<'a>(&self, kind: TurnKind, given: Option<&'a ReentrancyId>) -> Option<&'a ReentrancyId> {
        given.filter(|id| self.applies_to(kind) && !id.as_str().is_empty())
    }

    /// Whether turns of this kind belong to a call chain at all.
    pub(super) fn applies_to(&self, kind: TurnKind) -> bool {
        match kind {
            TurnKind::Call => self.enabled,
            TurnKind::Reminder | TurnKind::Timer | TurnKind::Exclusive | TurnKind::Deactivate => false,
        }
    }
}

/// The turn that holds an actor's lock. It ends when its last entry has ended.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) kind: TurnKind,
    pub(super) chain: Option<ReentrancyId>,
    pub(super) entries: SmallVec<[Entry; 1]>,
}

/// One call inside a turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) serial: u64,
    /// `None`: the table's own, a deactivation.
    pub(super) call: Option<CallId>,
    /// It came in while the chain held the lock: its caller is a handler of this very turn.
    pub(super) nested: bool,
}

impl Holder {
    pub(super) fn new(kind: TurnKind, chain: Option<ReentrancyId>) -> Self {
        Self { kind, chain, entries: SmallVec::new() }
    }

    /// Whether a call of `chain` belongs to this turn.
    pub(super) fn is_of(&self, chain: &ReentrancyId) -> bool {
        self.chain.as_ref() == Some(chain)
    }
}
