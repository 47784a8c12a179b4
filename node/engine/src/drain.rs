//! How long a move waits for running turns.
//!
//! Dapr lets calls in flight run for `drainOngoingCallTimeout` (2 s when the app says nothing) before it moves their
//! actors, or cancels them at once where the app sets `drainRebalancedActors` to false. It bounds the timeout by its own
//! round of placement; there is no such round here, so the bound is what the one who drains can afford: a node that
//! stops has its shutdown grace, a partition that moves has [`MAX_DRAIN`].
//!
//! The verdict is asked for whenever a turn ends and when the time is over. A turn that outlives it is cut: its request
//! cancelled, its token dead, its actor deleted, and the call run again at the new place.

use std::time::Duration;

use crate::Instant;

/// When the app's configuration says nothing.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(2);

/// No move waits longer, whatever the app's configuration says.
pub const MAX_DRAIN: Duration = Duration::from_secs(60);

/// The app's wishes for one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainConfig {
    /// `drainOngoingCallTimeout`.
    pub timeout: Duration,
    /// `drainRebalancedActors`.
    pub rebalanced: RebalancedActors,
}

/// What a rebalance does to turns in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalancedActors {
    /// It waits for them.
    Drain,
    /// It cuts them at once.
    Cut,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { timeout: DEFAULT_DRAIN, rebalanced: RebalancedActors::Drain }
    }
}

impl DrainConfig {
    /// From the app's answer; what it leaves out is the default.
    pub fn new(timeout: Option<Duration>, drain_rebalanced_actors: Option<bool>) -> Self {
        let rebalanced = match drain_rebalanced_actors {
            Some(false) => RebalancedActors::Cut,
            Some(true) | None => RebalancedActors::Drain,
        };
        Self { timeout: timeout.unwrap_or(DEFAULT_DRAIN).min(MAX_DRAIN), rebalanced }
    }
}

/// Why turns have to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainCause {
    /// The actors get another host.
    HostMove,
    /// The partition gets another owner; the hosts stay.
    OwnerMove,
    /// The node stops, and must have stopped after `grace`.
    Shutdown { grace: Duration },
}

/// One drain under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainPlan {
    until: Instant,
}

/// What to do with the turns that still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainVerdict {
    /// There are none: go on with the move.
    Done,
    /// Ask again when one has ended, and at `until`.
    Wait { until: Instant },
    /// Cut them.
    Cut,
}

impl DrainPlan {
    pub fn new(now: Instant, config: DrainConfig, cause: DrainCause) -> Self {
        let timeout = config.timeout.min(MAX_DRAIN);
        let span = match (cause, config.rebalanced) {
            (DrainCause::HostMove, RebalancedActors::Cut) => Duration::ZERO,
            (DrainCause::HostMove, RebalancedActors::Drain)
            | (DrainCause::OwnerMove, RebalancedActors::Drain | RebalancedActors::Cut) => timeout,
            (DrainCause::Shutdown { grace }, RebalancedActors::Drain | RebalancedActors::Cut) => timeout.min(grace),
        };
        Self { until: now.saturating_add(span) }
    }

    pub fn verdict(&self, now: Instant, running: usize) -> DrainVerdict {
        if running == 0 {
            DrainVerdict::Done
        } else if now < self.until {
            DrainVerdict::Wait { until: self.until }
        } else {
            DrainVerdict::Cut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn until(config: DrainConfig, cause: DrainCause) -> u64 {
        DrainPlan::new(Instant(0), config, cause).until.0
    }

    #[test]
    fn the_drain_time_is_the_apps_within_what_the_cause_affords() {
        let minute = DrainConfig::new(Some(Duration::from_secs(60)), None);
        let hour = DrainConfig::new(Some(Duration::from_secs(3_600)), None);
        let cut = DrainConfig::new(Some(Duration::from_secs(60)), Some(false));
        let grace = Duration::from_secs(5);
        for (config, cause, seconds) in [
            (DrainConfig::default(), DrainCause::HostMove, 2),
            (DrainConfig::new(None, Some(true)), DrainCause::OwnerMove, 2),
            (DrainConfig::new(Some(Duration::from_secs(1)), None), DrainCause::HostMove, 1),
            (minute, DrainCause::HostMove, 60),
            (hour, DrainCause::HostMove, 60),
            (cut, DrainCause::HostMove, 0),
            (cut, DrainCause::OwnerMove, 60),
            (minute, DrainCause::Shutdown { grace }, 5),
            (DrainConfig::default(), DrainCause::Shutdown { grace }, 2),
        ] {
            assert_eq!(until(config, cause), seconds * SECOND, "{config:?} {cause:?}");
        }
    }

    #[test]
    fn turns_are_waited_for_until_the_time_is_over_and_then_cut() {
        let plan = DrainPlan::new(Instant(10), DrainConfig::default(), DrainCause::HostMove);
        let until = Instant(10 + 2 * SECOND);
        assert_eq!(plan.verdict(Instant(10), 0), DrainVerdict::Done);
        assert_eq!(plan.verdict(Instant(until.0 - 1), 3), DrainVerdict::Wait { until });
        assert_eq!(plan.verdict(until, 3), DrainVerdict::Cut);
        assert_eq!(plan.verdict(until, 0), DrainVerdict::Done);
    }
}
