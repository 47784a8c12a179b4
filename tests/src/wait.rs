//! Waiting for what must happen, and watching that something does not.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Long enough never to be the thing that fails on a busy machine, where the specification gives no bound.
pub const PATIENCE: Duration = Duration::from_secs(30);

const STEP: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives a value, at most `within`; returns it, or panics naming `what`.
pub async fn eventually<T>(within: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// Asks `probe` for as long as `during` and panics as soon as it gives another value than `expected`.
pub async fn stays<T: PartialEq + Debug>(during: Duration, what: &str, expected: T, mut probe: impl AsyncFnMut() -> T) {
    let begun = Instant::now();
    while begun.elapsed() < during {
        let seen = probe().await;
        assert!(seen == expected, "after {:?} {what} is {seen:?}, not {expected:?}", begun.elapsed());
        tokio::time::sleep(STEP).await;
    }
}

/// Being slow, as an app may be or a caller: how long is what the test is about, and nothing waits for it to be over.
pub async fn busy(during: Duration) {
    tokio::time::sleep(during).await;
}

/// A door in an app's handler: those who enter wait until the test lets them through.
#[derive(Debug)]
pub struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self::closed()
    }
}

impl Gate {
    pub const fn closed() -> Self {
        Self(Semaphore::const_new(0))
    }

    /// Waits to be let through; each [`Gate::let_through`] serves one.
    pub async fn enter(&self) {
        self.0.acquire().await.expect("a gate is never closed for good").forget();
    }

    pub fn let_through(&self, count: usize) {
        self.0.add_permits(count);
    }

    /// Lets everyone through from here on.
    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}
