//! Instants of the wall clock, as commands and records carry them.
//!
//! Microseconds since the Unix epoch in an `i64`: sub-millisecond due times are kept, and the year 2552 of the Dapr
//! examples fits (nanoseconds would end in 2262). Reading a clock is the shell's business.

use std::time::Duration;

/// A wall-clock instant: microseconds since 1970-01-01T00:00:00Z, negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Later by `span`, rounded up to a whole microsecond so that an instant is never early; saturates.
    pub fn saturating_add(self, span: Duration) -> Self {
        let micros = span.as_nanos().div_ceil(1_000);
        Self(self.0.saturating_add(i64::try_from(micros).unwrap_or(i64::MAX)))
    }

    /// How long until `self`, seen from `earlier`; zero when it has passed.
    pub fn saturating_since(self, earlier: Timestamp) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_rounds_up_so_that_an_instant_is_never_early() {
        assert_eq!(Timestamp(5).saturating_add(Duration::from_nanos(1)), Timestamp(6));
        assert_eq!(Timestamp(5).saturating_add(Duration::from_micros(1)), Timestamp(6));
        assert_eq!(Timestamp::MAX.saturating_add(Duration::from_secs(1)), Timestamp::MAX);
    }

    #[test]
    fn the_time_since_a_later_instant_is_zero() {
        assert_eq!(Timestamp(5).saturating_since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).saturating_since(Timestamp(5)), Duration::from_micros(4));
    }
}
