//! What becomes of an occurrence that the app fails: asked for by a registration, kept with the reminder, and applied by
//! the owner. How attempts are counted is `callboard_engine::reminder`'s.

/// What happens when the app fails an occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// One attempt.
    Drop,
    /// `interval_micros` between attempts; `max_retries: None` retries without end.
    Constant { interval_micros: u64, max_retries: Option<u32> },
}

impl Default for FailurePolicy {
    /// Three retries, one second apart (`specs`: reminders, failure policy not set).
    fn default() -> Self {
        FailurePolicy::Constant { interval_micros: 1_000_000, max_retries: Some(3) }
    }
}
