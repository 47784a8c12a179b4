//! What of a log is kept for replicas that are being sent a snapshot.
//!
//! A snapshot stands at one index, and its receiver needs the entries after it. If they went while the snapshot is on its
//! way, the receiver would need another snapshot, and under load one more after that. So the log is kept from there on
//! until the receiver has had time to follow. A pin has an end whatever happens: a receiver that is too slow for that
//! must not let the log grow without bound.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The longest way of a snapshot that the log waits for.
const ON_THE_WAY: Duration = Duration::from_secs(600);
/// For the entries after a snapshot that has arrived.
const TO_FOLLOW: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Pins {
    by_target: Mutex<BTreeMap<u64, Pin>>,
}

#[derive(Clone, Copy)]
struct Pin {
    index: u64,
    until: Instant,
}

impl Pins {
    /// A snapshot at `index` is sent to `target`.
    pub fn sent(&self, target: u64, index: u64, now: Instant) {
        self.by_target.lock().insert(target, Pin { index, until: now + ON_THE_WAY });
    }

    /// It has arrived.
    pub fn arrived(&self, target: u64, now: Instant) {
        if let Some(pin) = self.by_target.lock().get_mut(&target) {
            pin.until = now + TO_FOLLOW;
        }
    }

    /// It has not, and the next one will stand at another index.
    pub fn given_up(&self, target: u64) {
        self.by_target.lock().remove(&target);
    }

    /// The lowest index that the log is kept after.
    pub fn lowest(&self, now: Instant) -> Option<u64> {
        let mut pins = self.by_target.lock();
        pins.retain(|_, pin| pin.until > now);
        pins.values().map(|pin| pin.index).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_log_is_kept_for_the_slowest_receiver() {
        let (pins, now) = (Pins::default(), Instant::now());
        assert_eq!(pins.lowest(now), None);
        pins.sent(2, 70, now);
        pins.sent(3, 50, now);
        assert_eq!(pins.lowest(now), Some(50));
        pins.given_up(3);
        assert_eq!(pins.lowest(now), Some(70));
        // A later snapshot takes the place of the former.
        pins.sent(2, 90, now);
        assert_eq!(pins.lowest(now), Some(90));
    }

    #[test]
    fn a_pin_outlives_the_way_for_a_while_and_nothing_for_ever() {
        let (pins, now) = (Pins::default(), Instant::now());
        pins.sent(2, 70, now);
        pins.arrived(2, now + SECOND);
        assert_eq!(pins.lowest(now + TO_FOLLOW), Some(70));
        assert_eq!(pins.lowest(now + TO_FOLLOW + SECOND), None);
        pins.sent(2, 70, now);
        assert_eq!(pins.lowest(now + ON_THE_WAY), None);
    }
}
