//! The calls that wait for one actor, in the order in which they came.
//!
//! A place in the queue belongs to a chain, not to a call: calls of a chain that already waits join its place and enter
//! the turn together when it comes. A place leaves the queue from the front when its turn begins, or from wherever it
//! is when its last member has gone; in neither case do the others change their order.

use std::collections::VecDeque;

use smallvec::{SmallVec, smallvec};

use super::reentrancy::ReentrancyId;
use super::turn::{CallId, TurnKind};

/// One call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) call: CallId,
    /// Order of arrival within the table.
    pub(super) serial: u64,
}

/// One place in the queue.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: TurnKind,
    pub(super) chain: Option<ReentrancyId>,
    /// Never empty.
    pub(super) members: SmallVec<[Member; 1]>,
}

impl Place {
    pub(super) fn new(kind: TurnKind, chain: Option<ReentrancyId>, member: Member) -> Self {
        Self { kind, chain, members: smallvec![member] }
    }
}

/// The waiting places of one actor.
#[derive(Debug, Default)]
pub(super) struct Queue {
    places: VecDeque<Place>,
    /// Members of all places.
    waiting: usize,
}

impl Queue {
    /// How many calls wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where a call of `chain` joins, and how many members are there.
    pub(super) fn find_chain(&self, chain: &ReentrancyId) -> Option<(usize, usize)> {
        let at = self.places.iter().position(|place| place.chain.as_ref() == Some(chain))?;
        Some((at, self.places[at].members.len()))
    }

    /// Joins the place at `at`; returns how many calls stand before that place's end.
    pub(super) fn join(&mut self, at: usize, member: Member) -> usize {
        let before = self.places.iter().take(at + 1).map(|place| place.members.len()).sum();
        self.places[at].members.push(member);
        self.waiting += 1;
        before
    }

    /// Takes a place at the end; returns how many calls stand before it.
    pub(super) fn push_back(&mut self, place: Place) -> usize {
        let before = self.waiting;
        self.waiting += place.members.len();
        self.places.push_back(place);
        before
    }

    /// Puts a call that had started back before all others; with those of its own chain that are there already.
    pub(super) fn push_front(&mut self, place: Place) {
        self.waiting += place.members.len();
        if let Some(front) = self.places.front_mut()
            && place.chain.is_some()
            && front.chain == place.chain
        {
            front.members.extend(place.members);
            return;
        }
        self.places.push_front(place);
    }

    pub(super) fn pop_front(&mut self) -> Option<Place> {
        let place = self.places.pop_front()?;
        self.waiting -= place.members.len();
        Some(place)
    }

    /// Takes one call out; the order of the others stays. False: it does not wait here.
    pub(super) fn remove(&mut self, call: CallId) -> bool {
        let found = self.places.iter().enumerate().find_map(|(at, place)| {
            place.members.iter().position(|member| member.call == call).map(|member| (at, member))
        });
        let Some((at, member)) = found else { return false };
        self.places[at].members.remove(member);
        self.waiting -= 1;
        if self.places[at].members.is_empty() {
            self.places.remove(at);
        }
        true
    }

    /// Empties the queue.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Place> + '_ {
        self.waiting = 0;
        self.places.drain(..)
    }
}
