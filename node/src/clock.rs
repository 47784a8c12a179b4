//! The only reader of clocks.

use std::sync::OnceLock;
use std::time::{Instant as StdInstant, SystemTime};

use callboard_engine::Instant;
use callboard_types::Timestamp;

/// The wall clock.
#[allow(clippy::disallowed_methods)] // the one place that reads it
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The monotonic clock, from the first reading in this process.
pub fn monotonic() -> Instant {
    Instant(u64::try_from(start().elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The runtime's clock, for deadlines of its timers; tests can pause it.
pub fn runtime() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[allow(clippy::disallowed_methods)] // the one place that reads it
fn start() -> StdInstant {
    static START: OnceLock<StdInstant> = OnceLock::new();
    *START.get_or_init(StdInstant::now)
}
