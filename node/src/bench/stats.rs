//! Latencies, counted in a histogram of fixed size and relative precision.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart from longer ones.
const MAX: Duration = Duration::from_secs(120);
/// Significant decimal digits of each latency.
const DIGITS: u8 = 3;

/// A set of latencies.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let max = u64::try_from(MAX.as_nanos()).unwrap_or(u64::MAX);
        Self(Histogram::new_with_bounds(1, max, DIGITS).expect("the bounds are in order"))
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub fn len(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn summary(&self) -> Summary {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile: f64| micros(self.0.value_at_quantile(quantile));
        Summary {
            count: self.0.len(),
            mean: self.0.mean() / 1e3,
            min: if self.0.is_empty() { 0.0 } else { micros(self.0.min()) },
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
        }
    }
}

/// What is told of a set of latencies, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct Summary {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        for ms in 1..=1_000 {
            latencies.record(Duration::from_millis(ms));
        }
        let summary = latencies.summary();
        let near = |got: f64, ms: f64| (got / (ms * 1e3) - 1.0).abs() < 0.002;
        assert!(near(summary.p50, 500.0) && near(summary.p90, 900.0), "{summary:?}");
        assert!(near(summary.p99, 990.0) && near(summary.p999, 999.0) && near(summary.max, 1_000.0), "{summary:?}");
        assert!(near(summary.mean, 500.5), "{summary:?}");
        assert_eq!(summary.count, 1_000);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(10_000));
        assert!(latencies.summary().max >= 119e6);
    }

    #[test]
    fn merging_is_the_same_as_recording_in_one() {
        let (mut a, mut b, mut both) = (Latencies::default(), Latencies::default(), Latencies::default());
        for ms in 1..100 {
            a.record(Duration::from_millis(ms));
            b.record(Duration::from_millis(ms * 7));
            both.record(Duration::from_millis(ms));
            both.record(Duration::from_millis(ms * 7));
        }
        a.merge(&b);
        assert_eq!(a.summary(), both.summary());
    }

    #[test]
    fn nothing_recorded_is_all_zero() {
        assert_eq!(Latencies::default().summary(), Summary::default());
    }
}
