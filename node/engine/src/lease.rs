//! Whether an owner may still act as one: a pure check of ages.
//!
//! Picture a night watchman with a key that changes hands only after he has been silent for an hour. He cannot see
//! whether somebody else has the key by now. But he can look at his own watch: as long as less than an hour has passed
//! since the house last heard him, nobody can. He must count from the moment he *spoke*, not from when the answer came:
//! the house may have heard him at once, and its answer may have been slow. And he must stop a little early, because
//! his watch and the house's do not run alike.
//!
//! So with a leader: a quorum that answered a heartbeat elects nobody else for `lease` after it was sent. The owner
//! keeps acting while the age of that sending is below the lease, shortened by the drift that two clocks may have
//! against each other in that span.
//!
//! Two cases break the picture. *Sleep:* the monotonic clock stands still while the machine is suspended, and the others'
//! does not. The shell therefore reads, beside the clock, how far the boot-time clock is ahead of it; that grows by just
//! the time slept, and a lease whose reading differs from the one at its last answer is void until the next answer.
//! *A pause between the check and what it permits:* no check can close that gap. It is made immediately before each
//! dispatch, after each read and before each reply, and what slips through is refused by guards and epochs.
//!
//! Absent on purpose: renewing (the group's heartbeats do), and a grace for a lost lease: an epoch that ended stays so.

use std::time::Duration;

use crate::Instant;

/// Spans of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseConfig {
    /// For how long a quorum that heard the leader elects nobody else.
    pub lease: Duration,
    /// How much faster one node's clock may run than another's, in parts per million.
    pub drift_ppm: u32,
    /// By how much two readings of the suspend offset may differ without a suspend: the two clocks are read one after
    /// the other.
    pub suspend_tolerance: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { lease: Duration::from_millis(400), drift_ppm: 1_000, suspend_tolerance: Duration::from_millis(5) }
    }
}

/// The last sign of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// When the heartbeat was *sent* that a quorum has answered.
    pub sent: Instant,
    /// Boot-time clock minus monotonic clock, read then.
    pub suspend_offset: Duration,
}

/// What the holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Act, and ask again before anything done after `until`.
    Held { until: Instant },
    /// No quorum has ever answered: do not act yet.
    Never,
    /// Too long ago: somebody else may be the owner. The epoch's mailboxes end.
    Expired,
    /// The machine slept since: as `Expired`.
    Suspended,
    /// Given up for good, by a transfer or a lost claim.
    Ended,
}

/// The lease of one epoch.
#[derive(Debug, Clone)]
pub struct Lease {
    config: LeaseConfig,
    held: Held,
}

#[derive(Debug, Clone, Copy)]
enum Held {
    Never,
    Since(Ack),
    Ended,
}

impl Lease {
    pub const fn new(config: LeaseConfig) -> Self {
        Self { config, held: Held::Never }
    }

    /// A quorum has answered a heartbeat. An older one than known changes nothing.
    pub fn acked(&mut self, ack: Ack) {
        match self.held {
            Held::Never => self.held = Held::Since(ack),
            Held::Since(last) if ack.sent > last.sent => self.held = Held::Since(ack),
            Held::Since(_) | Held::Ended => {}
        }
    }

    /// A transfer was sent, or the epoch is superseded: nothing revives the lease.
    pub const fn end(&mut self) {
        self.held = Held::Ended;
    }

    /// Whether the holder may act at `now`.
    pub fn check(&self, now: Instant, suspend_offset: Duration) -> LeaseState {
        let ack = match self.held {
            Held::Never => return LeaseState::Never,
            Held::Ended => return LeaseState::Ended,
            Held::Since(ack) => ack,
        };
        if suspend_offset.abs_diff(ack.suspend_offset) > self.config.suspend_tolerance {
            return LeaseState::Suspended;
        }
        // Rounded down: the span is the one thing here that must not become longer.
        let span = shorter_by_drift(self.config.lease, self.config.drift_ppm);
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let until = Instant(ack.sent.0.saturating_add(micros));
        if now < until { LeaseState::Held { until } } else { LeaseState::Expired }
    }
}

const MILLION: u32 = 1_000_000;

/// What is left of a span on a clock that may be slow by the drift.
pub fn shorter_by_drift(span: Duration, drift_ppm: u32) -> Duration {
    span.saturating_sub(drift_of(span, drift_ppm))
}

/// How long to wait, on a clock that may be fast by the drift, to be sure that the span is over elsewhere.
pub fn longer_by_drift(span: Duration, drift_ppm: u32) -> Duration {
    span.saturating_add(drift_of(span, drift_ppm))
}

fn drift_of(span: Duration, drift_ppm: u32) -> Duration {
    let nanos = span.as_nanos().saturating_mul(u128::from(drift_ppm)).div_ceil(u128::from(MILLION));
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: LeaseConfig = LeaseConfig {
        lease: Duration::from_micros(1_000),
        drift_ppm: 10_000,
        suspend_tolerance: Duration::from_micros(5),
    };
    const AWAKE: Duration = Duration::from_secs(3);

    fn acked_at(sent: u64) -> Lease {
        let mut lease = Lease::new(CONFIG);
        lease.acked(Ack { sent: Instant(sent), suspend_offset: AWAKE });
        lease
    }

    #[test]
    fn a_lease_is_not_held_before_the_first_answer() {
        assert_eq!(Lease::new(CONFIG).check(Instant(0), AWAKE), LeaseState::Never);
    }

    #[test]
    fn a_lease_ends_early_by_the_drift() {
        let lease = acked_at(100);
        for now in [0, 100, 1_089] {
            assert_eq!(lease.check(Instant(now), AWAKE), LeaseState::Held { until: Instant(1_090) });
        }
        for now in [1_090, 1_100, u64::MAX] {
            assert_eq!(lease.check(Instant(now), AWAKE), LeaseState::Expired);
        }
    }

    #[test]
    fn a_later_answer_extends_it_and_an_older_one_changes_nothing() {
        let mut lease = acked_at(100);
        lease.acked(Ack { sent: Instant(500), suspend_offset: AWAKE });
        lease.acked(Ack { sent: Instant(200), suspend_offset: AWAKE });
        assert_eq!(lease.check(Instant(1_489), AWAKE), LeaseState::Held { until: Instant(1_490) });
    }

    #[test]
    fn sleep_voids_it_until_an_answer_from_after_the_sleep() {
        let mut lease = acked_at(100);
        let slept = AWAKE + Duration::from_micros(6);
        assert_eq!(
            lease.check(Instant(101), AWAKE + Duration::from_micros(5)),
            LeaseState::Held { until: Instant(1_090) }
        );
        assert_eq!(lease.check(Instant(101), slept), LeaseState::Suspended);
        lease.acked(Ack { sent: Instant(110), suspend_offset: slept });
        assert_eq!(lease.check(Instant(111), slept), LeaseState::Held { until: Instant(1_100) });
    }

    #[test]
    fn nothing_revives_a_lease_that_was_given_up() {
        let mut lease = acked_at(100);
        lease.end();
        lease.acked(Ack { sent: Instant(101), suspend_offset: AWAKE });
        assert_eq!(lease.check(Instant(102), AWAKE), LeaseState::Ended);
    }

    #[test]
    fn a_holder_has_stopped_before_a_successor_on_a_faster_clock_begins() {
        // The successor waits for the whole lease from when it heard the heartbeat, on a clock that is fast by the drift.
        for sent in (0..10_000_u64).step_by(777) {
            let heard = sent;
            let successor_begins = heard + 1_000 * 1_000_000 / 1_010_000;
            assert_eq!(acked_at(sent).check(Instant(successor_begins), AWAKE), LeaseState::Expired);
        }
    }

    #[test]
    fn extreme_spans_saturate() {
        assert_eq!(longer_by_drift(Duration::MAX, u32::MAX), Duration::MAX);
        assert_eq!(shorter_by_drift(Duration::MAX, u32::MAX), Duration::ZERO);
        assert_eq!(shorter_by_drift(Duration::from_secs(1), 0), Duration::from_secs(1));
    }
}
