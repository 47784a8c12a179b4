//! Times, counted by how long they were: one relaxed addition each, no lock.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds.
const BUCKETS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), micros: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub fn count(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The lines of a Prometheus histogram, of one set of labels: `route="invoke"`, or none. Nothing while nothing was
    /// counted.
    pub fn render(&self, out: &mut String, name: &str, labels: &str) {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return;
        }
        let (with, alone) = match labels {
            "" => (String::new(), String::new()),
            labels => (format!("{labels},"), format!("{{{labels}}}")),
        };
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String does not fail.
            let _ = writeln!(out, "{line}");
        };
        let mut below = 0;
        for (count, bound) in counts.iter().zip(BUCKETS) {
            below += count;
            let bound = bound as f64 / 1e6;
            line(format_args!("{name}_bucket{{{with}le=\"{bound}\"}} {below}"));
        }
        line(format_args!("{name}_bucket{{{with}le=\"+Inf\"}} {total}"));
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        line(format_args!("{name}_sum{alone} {seconds}"));
        line(format_args!("{name}_count{alone} {total}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_without_labels_has_no_braces_but_those_of_its_bounds() {
        let histogram = Histogram::default();
        let mut out = String::new();
        histogram.render(&mut out, "h", "");
        assert_eq!(out, "", "nothing was counted");
        histogram.count(Duration::from_micros(251));
        histogram.render(&mut out, "h", "");
        for line in ["h_bucket{le=\"0.00025\"} 0", "h_bucket{le=\"0.0005\"} 1", "h_sum 0.000251", "h_count 1"] {
            assert!(out.lines().any(|found| found == line), "{line}\n{out}");
        }
    }
}
