//! How far a peer's wall clock is from the own one.
//!
//! A round trip bounds it: the peer read its clock somewhere between the moment the question left and the moment the
//! answer came, so the offset is that of the middle, give or take half the trip. Of the last few trips the tightest
//! bound counts, each widened by what two clocks may drift apart since. Trips that contradict the latest one were taken
//! before either clock was set, and are dropped.

use std::collections::VecDeque;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_types::Timestamp;

/// Round trips that are remembered.
const SAMPLES: usize = 8;
/// Microseconds that two clocks may part from each other in a second.
const DRIFT_PER_SECOND: u64 = 200;

/// A peer's wall clock less the own one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// Microseconds; positive when the peer's clock is ahead.
    pub micros: i64,
    /// The true offset is within this of `micros`.
    pub error: Duration,
}

/// One round trip.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoundTrip {
    /// Own wall clock when the question left.
    pub asked_wall: Timestamp,
    /// Own monotonic clock at the two ends.
    pub asked: Instant,
    pub answered: Instant,
    /// The peer's wall clock.
    pub theirs: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    micros: i64,
    error: u64,
    at: Instant,
}

impl Sample {
    fn of(trip: RoundTrip) -> Self {
        let half = trip.answered.0.saturating_sub(trip.asked.0).div_ceil(2);
        let middle = trip.asked_wall.saturating_add(Duration::from_micros(half));
        Self { micros: trip.theirs.as_micros().saturating_sub(middle.as_micros()), error: half, at: trip.answered }
    }

    /// How far off it may be at `now`.
    fn error(&self, now: Instant) -> u64 {
        let age = now.0.saturating_sub(self.at.0);
        self.error.saturating_add((age / 1_000).saturating_mul(DRIFT_PER_SECOND) / 1_000)
    }

    fn contradicts(&self, other: &Sample, now: Instant) -> bool {
        self.micros.abs_diff(other.micros) > self.error(now).saturating_add(other.error(now))
    }
}

#[derive(Debug, Default)]
pub(super) struct Offsets {
    samples: VecDeque<Sample>,
}

impl Offsets {
    pub fn add(&mut self, trip: RoundTrip) {
        let latest = Sample::of(trip);
        self.samples.retain(|sample| !sample.contradicts(&latest, latest.at));
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(latest);
    }

    pub fn best(&self, now: Instant) -> Option<ClockOffset> {
        let best = self.samples.iter().min_by_key(|sample| sample.error(now))?;
        Some(ClockOffset { micros: best.micros, error: Duration::from_micros(best.error(now)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trip of `rtt` that left at `at` (both clocks of this node say the same), with a peer `ahead`.
    fn trip(at: u64, rtt: u64, ahead: i64) -> RoundTrip {
        let wall = i64::try_from(at).unwrap();
        let theirs = wall + ahead + i64::try_from(rtt / 2).unwrap();
        RoundTrip {
            asked_wall: Timestamp(wall),
            asked: Instant(at),
            answered: Instant(at + rtt),
            theirs: Timestamp(theirs),
        }
    }

    #[test]
    fn the_offset_is_that_of_the_middle_of_the_trip() {
        let mut offsets = Offsets::default();
        assert_eq!(offsets.best(Instant(0)), None);
        offsets.add(trip(1_000, 400, -70_000));
        let expected = ClockOffset { micros: -70_000, error: Duration::from_micros(200) };
        assert_eq!(offsets.best(Instant(1_400)), Some(expected));
    }

    #[test]
    fn the_shortest_of_the_last_trips_counts() {
        let mut offsets = Offsets::default();
        for rtt in [10_000, 300, 9_000, 8_000] {
            offsets.add(trip(0, rtt, 50));
        }
        assert_eq!(offsets.best(Instant(10_000)).unwrap().error, Duration::from_micros(151));
        for _ in 0..SAMPLES {
            offsets.add(trip(20_000, 5_000, 50));
        }
        assert_eq!(offsets.best(Instant(25_000)).unwrap().error, Duration::from_micros(2_500));
    }

    #[test]
    fn an_estimate_is_less_certain_the_older_it_is() {
        let mut offsets = Offsets::default();
        offsets.add(trip(0, 100, 0));
        let error = |at| offsets.best(Instant(at)).unwrap().error;
        assert_eq!(error(100), Duration::from_micros(50));
        assert_eq!(error(10_000_100), Duration::from_micros(50 + 10 * DRIFT_PER_SECOND));
    }

    #[test]
    fn trips_from_before_a_clock_was_set_are_dropped() {
        let mut offsets = Offsets::default();
        offsets.add(trip(0, 100, 0));
        offsets.add(trip(1_000_000, 5_000, 3_600_000_000));
        let best = offsets.best(Instant(1_005_000)).unwrap();
        assert_eq!(best, ClockOffset { micros: 3_600_000_000, error: Duration::from_micros(2_500) });
    }

    #[test]
    fn clocks_at_the_ends_of_their_range_do_no_harm() {
        let mut offsets = Offsets::default();
        let at = |theirs| RoundTrip {
            asked_wall: Timestamp(0),
            asked: Instant(9),
            answered: Instant(3),
            theirs: Timestamp(theirs),
        };
        for theirs in [i64::MAX, i64::MIN, i64::MIN, i64::MAX] {
            offsets.add(at(theirs));
            assert_eq!(offsets.best(Instant(u64::MAX)).unwrap().micros, theirs);
        }
    }
}
