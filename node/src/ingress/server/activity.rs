//! Counting what is open, and knowing what a connection is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use callboard_engine::Instant;

use super::ServerLimits;

/// A bounded number of things that are open; each holds a [`Count`] until its end.
#[derive(Debug)]
pub struct Counter {
    open: AtomicUsize,
    most: usize,
    none_left: Notify,
}

/// One of the things that are open.
#[derive(Debug)]
pub struct Count(Arc<Counter>);

impl Counter {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), most, none_left: Notify::new() })
    }

    /// Counts one more, unless that would be too many.
    pub fn take(self: &Arc<Self>) -> Option<Count> {
        if self.open.fetch_add(1, Ordering::AcqRel) < self.most {
            return Some(Count(self.clone()));
        }
        self.release();
        None
    }

    pub fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Resolves when nothing is open.
    pub async fn ended(&self) {
        loop {
            let mut told = std::pin::pin!(self.none_left.notified());
            // Registered before looking, so that an end in between is not missed.
            told.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            told.await;
        }
    }

    fn release(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none_left.notify_waiters();
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// What one connection is doing: how many requests are in flight, and since when it waits for what.
#[derive(Debug)]
pub struct Activity {
    in_flight: AtomicU32,
    /// When the first byte of a head came that is not whole yet; 0 = none.
    head_since: AtomicU64,
    /// When the last request ended.
    idle_since: AtomicU64,
}

/// A request in flight on a connection.
#[derive(Debug)]
pub struct InFlight(Arc<Activity>);

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Nothing asked of it for too long: close it in order.
    Idle,
    /// Its request does not come to an end.
    Stuck,
}

impl Activity {
    /// A connection that was just accepted counts as one whose head has begun.
    pub fn new(now: Instant) -> Arc<Self> {
        let (head_since, idle_since) = (AtomicU64::new(now.0.max(1)), AtomicU64::new(now.0));
        Arc::new(Self { in_flight: AtomicU32::new(0), head_since, idle_since })
    }

    /// Bytes came in.
    pub fn on_read(&self, now: impl FnOnce() -> Instant) {
        let waiting = self.in_flight.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0;
        if waiting {
            self.head_since.store(now().0.max(1), Ordering::Relaxed);
        }
    }

    /// A request's head is whole.
    pub fn on_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        InFlight(self.clone())
    }

    fn on_end(&self, now: Instant) {
        self.idle_since.store(now.0, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// `heads` says whether an unfinished head can be told from other traffic, which only HTTP/1.1 allows.
    pub fn verdict(&self, now: Instant, limits: &ServerLimits, heads: Heads) -> Verdict {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Verdict::Keep;
        }
        let over = |since: u64, span: Duration| now.saturating_since(Instant(since)) >= span;
        let head_since = self.head_since.load(Ordering::Relaxed);
        if heads == Heads::Visible && head_since != 0 {
            return if over(head_since, limits.head_time) { Verdict::Stuck } else { Verdict::Keep };
        }
        if over(self.idle_since.load(Ordering::Relaxed), limits.idle) { Verdict::Idle } else { Verdict::Keep }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    Visible,
    Hidden,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.on_end(crate::clock::monotonic());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ServerLimits =
        ServerLimits { connections: 1, head: 1, head_time: Duration::from_secs(10), idle: Duration::from_secs(60) };

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000)
    }

    #[test]
    fn a_counter_refuses_one_more_and_forgets_the_refused() {
        let counter = Counter::new(2);
        let (first, second) = (counter.take().unwrap(), counter.take().unwrap());
        assert!(counter.take().is_none());
        assert_eq!(counter.count(), 2);
        drop(first);
        assert!(counter.take().is_some());
        drop(second);
        assert_eq!(counter.count(), 0);
    }

    #[test]
    fn a_silent_stranger_and_an_unfinished_head_are_stuck_after_the_head_time() {
        let activity = Activity::new(at(1));
        assert_eq!(activity.verdict(at(10), &LIMITS, Heads::Visible), Verdict::Keep);
        assert_eq!(activity.verdict(at(11), &LIMITS, Heads::Visible), Verdict::Stuck);
        activity.on_request();
        activity.idle_since.store(at(20).0, Ordering::Relaxed);
        activity.on_read(|| at(50));
        activity.on_read(|| at(58));
        assert_eq!(activity.verdict(at(59), &LIMITS, Heads::Visible), Verdict::Keep);
        assert_eq!(activity.verdict(at(60), &LIMITS, Heads::Visible), Verdict::Stuck);
    }

    #[test]
    fn a_request_in_flight_may_take_for_ever() {
        let activity = Activity::new(at(1));
        let request = activity.on_request();
        activity.on_read(|| at(2));
        assert_eq!(activity.verdict(at(100_000), &LIMITS, Heads::Visible), Verdict::Keep);
        drop(request);
        assert_eq!(activity.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn between_requests_a_connection_idles_for_the_idle_time() {
        let activity = Activity::new(at(1));
        drop(activity.on_request());
        activity.idle_since.store(at(5).0, Ordering::Relaxed);
        assert_eq!(activity.verdict(at(64), &LIMITS, Heads::Visible), Verdict::Keep);
        assert_eq!(activity.verdict(at(65), &LIMITS, Heads::Visible), Verdict::Idle);
    }

    #[test]
    fn other_traffic_of_http2_is_no_unfinished_head() {
        let activity = Activity::new(at(1));
        drop(activity.on_request());
        activity.idle_since.store(at(5).0, Ordering::Relaxed);
        activity.on_read(|| at(6));
        assert_eq!(activity.verdict(at(20), &LIMITS, Heads::Hidden), Verdict::Keep);
        assert_eq!(activity.verdict(at(65), &LIMITS, Heads::Hidden), Verdict::Idle);
    }
}
