//! Instants of the monotonic clock, as decisions take them.
//!
//! The shell reads the clock; a decision gets the reading as an argument, so that a test moves time by hand and a
//! simulation by seed. Distinct from [`callboard_types::Timestamp`], which is of the wall clock and travels between
//! nodes: an `Instant` means nothing outside the process that read it.

use std::time::Duration;

/// Microseconds of a clock that never goes back and does not advance while the machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    pub const ZERO: Instant = Instant(0);
    /// "Never": no clock reaches it.
    pub const MAX: Instant = Instant(u64::MAX);

    /// Later by `span`, rounded up to a whole microsecond so that nothing is due early; saturates at [`Instant::MAX`].
    pub fn saturating_add(self, span: Duration) -> Self {
        let micros = span.as_nanos().div_ceil(1_000);
        Self(u64::try_from(micros).map_or(u64::MAX, |micros| self.0.saturating_add(micros)))
    }

    /// Earlier by `span`; saturates at [`Instant::ZERO`].
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(u64::try_from(span.as_micros()).map_or(0, |micros| self.0.saturating_sub(micros)))
    }

    /// How long from `earlier` to `self`; zero when `earlier` is the later one.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_rounds_up_and_saturates() {
        assert_eq!(Instant(5).saturating_add(Duration::from_nanos(1)), Instant(6));
        assert_eq!(Instant(5).saturating_add(Duration::from_micros(2)), Instant(7));
        assert_eq!(Instant(5).saturating_add(Duration::MAX), Instant::MAX);
        assert_eq!(Instant::MAX.saturating_add(Duration::from_secs(1)), Instant::MAX);
    }

    #[test]
    fn the_time_since_a_later_instant_is_zero() {
        assert_eq!(Instant(5).saturating_since(Instant(9)), Duration::ZERO);
        assert_eq!(Instant(9).saturating_since(Instant(5)), Duration::from_micros(4));
    }
}
