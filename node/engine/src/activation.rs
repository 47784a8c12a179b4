//! One activation's life: the owner's knowledge of an actor's instance in an app.
//!
//! A life begins with a number that no other life of the partition and epoch has, before anything has reached the app.
//! It is *opened* once something may have: from then on only a `DELETE` (or proof that the app is gone) ends it. An
//! unopened life ends without a trace, so a call that finds no host leaves nothing to deactivate.
//!
//! The idle deadline is the start of the last turn plus the type's idle timeout. It is a deadline for an actor at rest
//! only: while a turn runs or waits it does not count, so a turn longer than the timeout is never hit by it; such an
//! activation is idle the moment that turn ends. Timers and reminders are turns, and so keep an activation alive.
//!
//! Absent on purpose: whether a turn runs. The mailbox knows that, and asks here only of an actor at rest.

use std::time::Duration;

use callboard_types::{Activation, NodeId};

use crate::Instant;

/// Why an activation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndReason {
    /// Its idle deadline passed.
    Idle,
    /// Somebody asked for it.
    Requested,
    /// The host no longer hosts the type.
    Withdrawn,
    /// The app's process is gone or its health failed.
    AppGone,
    /// The node stops.
    Shutdown,
    /// The activation moves to another host.
    Moved,
    /// The host or its app was lost with a turn in flight.
    HostLost,
    /// A write of it ended without a known outcome: what the app believes may not be what is stored.
    WriteUnknown,
    /// A write of it was refused as superseded.
    WriteFenced,
    /// The host does not have it: nothing to delete.
    Superseded,
}

impl EndReason {
    /// Whether the instance's calls count for nothing already: they are refused and not let into the turn.
    pub const fn is_fenced(self) -> bool {
        match self {
            EndReason::WriteFenced | EndReason::Superseded => true,
            EndReason::Idle
            | EndReason::Requested
            | EndReason::Withdrawn
            | EndReason::AppGone
            | EndReason::Shutdown
            | EndReason::Moved
            | EndReason::HostLost
            | EndReason::WriteUnknown => false,
        }
    }
}

/// One activation, seen from its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub number: Activation,
    /// Where it lives. Chosen by the shell after the first start.
    pub host: Option<NodeId>,
    /// Something of it may have reached the app.
    pub opened: bool,
    /// When its last turn, or entry of one, started.
    pub last_start: Instant,
    /// It ends as soon as the running turn has ended, for this reason. The first reason stays, unless a later one fences.
    pub ending: Option<EndReason>,
}

impl Life {
    pub const fn begin(number: Activation, now: Instant) -> Self {
        Self { number, host: None, opened: false, last_start: now, ending: None }
    }

    /// When it is idle if no other turn starts.
    pub fn idle_deadline(&self, idle_timeout: Duration) -> Instant {
        self.last_start.saturating_add(idle_timeout)
    }

    /// Dooms it: it ends with its turn, or at once when none runs.
    pub fn end_for(&mut self, reason: EndReason) {
        match self.ending {
            None => self.ending = Some(reason),
            Some(first) if reason.is_fenced() && !first.is_fenced() => self.ending = Some(reason),
            Some(_) => {}
        }
    }

    /// Whether what nests in its turn is refused.
    pub fn is_fenced(&self) -> bool {
        self.ending.is_some_and(EndReason::is_fenced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_deadline_counts_from_the_start_of_the_last_turn() {
        let mut life = Life::begin(Activation(1), Instant(10));
        assert_eq!(life.idle_deadline(Duration::from_micros(5)), Instant(15));
        life.last_start = Instant(30);
        assert_eq!(life.idle_deadline(Duration::from_micros(5)), Instant(35));
        assert_eq!(life.idle_deadline(Duration::MAX), Instant::MAX);
    }

    #[test]
    fn the_first_reason_to_end_stays_unless_a_later_one_fences() {
        let mut life = Life::begin(Activation(1), Instant(0));
        life.end_for(EndReason::Withdrawn);
        life.end_for(EndReason::WriteUnknown);
        assert_eq!(life.ending, Some(EndReason::Withdrawn));
        assert!(!life.is_fenced());
        life.end_for(EndReason::WriteFenced);
        assert_eq!(life.ending, Some(EndReason::WriteFenced));
        assert!(life.is_fenced());
        life.end_for(EndReason::Superseded);
        assert_eq!(life.ending, Some(EndReason::WriteFenced));
    }
}
