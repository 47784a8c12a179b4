//! What went along the road of actor calls, counted: how long turns took, what was forwarded, what mailboxes refused.

use std::sync::atomic::{AtomicU64, Ordering};

use callboard_engine::Instant;
use callboard_engine::mailbox::Refusal;

use crate::calls::Ask;
use crate::clock;
use crate::owner::Error as OwnerError;
use crate::telemetry::histogram::Histogram;

/// Of this node's callers, except where it says otherwise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Turns with an answer of the app, from the moment they were asked for.
    pub turns: Histogram,
    forwarded: AtomicU64,
    taken: AtomicU64,
    refusals: [AtomicU64; REASONS.len()],
}

/// Why mailboxes refuse, as the metrics name it.
const REASONS: [&str; 6] =
    ["stack_depth", "mailbox_full", "too_many_waiting", "too_many_activations", "turn_running", "superseded"];

/// The place of a refusal among [`REASONS`]. An epoch that is over refuses nothing: it is asked for again elsewhere.
const fn reason(refusal: Refusal) -> Option<usize> {
    match refusal {
        Refusal::StackDepth => Some(0),
        Refusal::MailboxFull => Some(1),
        Refusal::TooManyWaiting => Some(2),
        Refusal::TooManyActivations => Some(3),
        Refusal::TurnRunning => Some(4),
        Refusal::Superseded => Some(5),
        Refusal::EpochOver => None,
    }
}

impl Counters {
    /// What was asked for at `asked` has an answer.
    pub(super) fn answered(&self, ask: &Ask, asked: Instant) {
        if let Ask::Turn { .. } = ask {
            self.turns.count(clock::monotonic().saturating_since(asked));
        }
    }

    pub(super) fn failed(&self, error: &OwnerError) {
        if let OwnerError::Refused(refusal) = error
            && let Some(reason) = reason(*refusal)
        {
            self.refusals[reason].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn forwarded(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Asked of owners on other nodes, repeats included.
    pub fn asked_of_others(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// Asked by other nodes of the owners here.
    pub fn asked_by_others(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// What mailboxes refused, by reason.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.refusals.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_counted_under_its_own_reason() {
        let counters = Counters::default();
        for error in
            [OwnerError::Refused(Refusal::MailboxFull), OwnerError::Refused(Refusal::EpochOver), OwnerError::Fenced]
        {
            counters.failed(&error);
        }
        let counted: Vec<_> = counters.refusals().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("mailbox_full", 1)]);
    }
}
