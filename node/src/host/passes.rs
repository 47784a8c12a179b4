//! What is under way at the app: values that give back what they hold when they end, however they end.

use callboard_engine::guard::{DeleteAnswer, InFlight, Pass, Removal};
use callboard_types::ActorKey;

use super::Host;

/// Whether a turn's request reached the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// Provably not.
    No,
    Perhaps,
}

/// A pass of the guard. Given back when the request is over, or dropped, which only a panic does.
pub(super) struct InFlightTurn<'a> {
    pub(super) host: &'a Host,
    pub(super) actor: &'a ActorKey,
    pub(super) pass: Option<Pass>,
    /// The turn put the actor on the list of opened ones.
    pub(super) record: bool,
}

impl InFlightTurn<'_> {
    pub(super) fn over(mut self, reached: Reached) {
        self.give_back(reached);
    }

    fn give_back(&mut self, reached: Reached) {
        let Some(pass) = self.pass.take() else { return };
        let mut table = self.host.table();
        let left = match reached {
            Reached::No => table.guard.not_dispatched(self.actor, pass),
            Reached::Perhaps => table.guard.ended(self.actor, pass),
        };
        if reached == Reached::No && self.record && left == InFlight::Gone && !table.guard.knows(self.actor) {
            self.host.inner.opened.remove(self.actor);
        }
        let watched = table.is_watched_end(self.actor, left);
        drop(table);
        if watched {
            self.host.inner.quiet.notify_waiters();
        }
    }
}

impl Drop for InFlightTurn<'_> {
    fn drop(&mut self) {
        self.give_back(Reached::Perhaps);
    }
}

/// A removal under way. Dropped before its end, which only a panic does, it has no answer.
pub(super) struct Unfinished<'a> {
    pub(super) host: &'a Host,
    pub(super) actor: &'a ActorKey,
    pub(super) removal: Removal,
    pub(super) answer: DeleteAnswer,
}

impl Unfinished<'_> {
    pub(super) fn end(mut self, answer: DeleteAnswer) {
        self.answer = answer;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let mut table = self.host.table();
        // Struck off before the actor is free: from then on somebody may open it again.
        if self.answer == DeleteAnswer::Answered && table.guard.still_removing(self.actor, self.removal.id) {
            self.host.inner.opened.remove(self.actor);
        }
        table.guard.removed(self.actor, self.removal.id, self.answer);
        drop(table);
        self.host.inner.removed.notify_waiters();
    }
}
