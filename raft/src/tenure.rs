//! "This node owns the partition at this epoch", and the cheap question whether that still holds.
//!
//! A tenure is over for good when the term ended, a later claim was applied, or the owner gave it up (a transfer). It
//! lapses while a quorum has not answered within the lease. A replica that is the only voter answers itself: its lease
//! cannot run out, however idle it is. [`Tenure::check`] reads a watched value and two clocks; it never waits.
//!
//! # Suspended machines
//!
//! The lease is measured on the monotonic clock, which stands still while a machine is suspended, so a lease could look
//! young after an hour of sleep. The boot clock does not stand still: when the two have moved apart since the last look,
//! no acknowledgement sent before this moment counts any more ([`Wakefulness`]). That may void acknowledgements that
//! came after the sleep; the next heartbeat replaces them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callboard_types::{Epoch, PartitionId};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft_rt_tokio::{TokioInstant, TokioWatchReceiver};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::error::NotOwner;
use crate::replica::{Replica, is_sole_voter};
use crate::rules::Live;
use crate::type_config::TypeConfig;

type Metrics = TokioWatchReceiver<openraft::RaftMetrics<TypeConfig>>;

/// What is left of the lease after the drift of two clocks: a quorum may measure it a quarter shorter than this node.
const fn usable(lease: Duration) -> Duration {
    lease.saturating_mul(3).checked_div(4).expect("four is not zero")
}

/// Between two looks for a lease that comes back.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How far the boot clock may move from the monotonic one between two readings without a sleep: far above the time
/// between the two clock calls, far below a sleep that matters to a lease.
const MAX_CLOCK_JITTER: Duration = Duration::from_millis(10);
/// Readings that are tried until one was not interrupted.
const CLOCK_ATTEMPTS: usize = 4;

/// Parts of a partition that its tenures watch.
pub struct Tenancy {
    pub partition: PartitionId,
    pub replica: Arc<Replica>,
    pub live: Arc<Live>,
    /// The highest epoch that its owner gave up.
    resigned: AtomicU64,
    resigned_told: tokio::sync::Notify,
    wakefulness: Mutex<Wakefulness>,
}

impl Tenancy {
    pub fn new(partition: PartitionId, replica: Arc<Replica>, live: Arc<Live>) -> Arc<Self> {
        Arc::new(Self {
            partition,
            replica,
            live,
            resigned: AtomicU64::new(0),
            resigned_told: tokio::sync::Notify::new(),
            wakefulness: Mutex::new(Wakefulness::new(sleep_time())),
        })
    }
}

/// "This node owns the partition at this epoch."
#[derive(Clone)]
pub struct Tenure {
    tenancy: Arc<Tenancy>,
    metrics: Metrics,
    term: u64,
    epoch: Epoch,
}

impl Tenure {
    pub(crate) fn new(tenancy: Arc<Tenancy>, term: u64, epoch: Epoch) -> Self {
        let metrics = tenancy.replica.raft.metrics();
        Self { tenancy, metrics, term, epoch }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn partition(&self) -> PartitionId {
        self.tenancy.partition
    }

    /// Same term, no transfer under way, no later claim, and the last quorum ack younger than the lease less drift.
    pub fn check(&self) -> Result<(), NotOwner> {
        let over = NotOwner { partition: self.tenancy.partition, epoch: self.epoch };
        if self.is_superseded() {
            return Err(over);
        }
        let acked = {
            let metrics = self.metrics.borrow_watched();
            if !self.is_of_term(&metrics) {
                return Err(over);
            }
            if is_sole_voter(&metrics, self.tenancy.replica.state.replica) {
                return Ok(());
            }
            metrics.last_quorum_acked
        };
        let lease = usable(self.tenancy.replica.timing.election_max);
        let valid = acked.is_some_and(|acked| {
            let acked = acked.into_inner();
            let awake = self.tenancy.wakefulness.lock().counts(acked, TokioInstant::now(), sleep_time());
            awake && acked.elapsed() < lease
        });
        if valid { Ok(()) } else { Err(over) }
    }

    /// As [`Tenure::check`]; where only the lease has lapsed, the next answer of a quorum is waited for, `limit` at most.
    /// The same term and epoch with a fresh lease mean that nobody else has owned the partition in between.
    pub async fn confirmed(&self, limit: Duration) -> Result<(), NotOwner> {
        let until = TokioInstant::now() + limit;
        loop {
            let checked = self.check();
            let is_over = self.is_superseded() || !self.is_of_term(&self.metrics.borrow_watched());
            if checked.is_ok() || is_over || TokioInstant::now() >= until {
                return checked;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A later claim was applied, or this epoch or the leadership it was claimed in was given up.
    fn is_superseded(&self) -> bool {
        let resigned = self.tenancy.resigned.load(Ordering::Acquire);
        resigned >= self.epoch.0
            || self.tenancy.live.epoch() != self.epoch
            || self.tenancy.replica.has_given_up(self.term)
    }

    fn is_of_term(&self, metrics: &openraft::RaftMetrics<TypeConfig>) -> bool {
        metrics.running_state.is_ok() && metrics.state.is_leader() && metrics.current_term == self.term
    }

    /// Ends the tenure before its term does: the step before leadership is handed to another replica, after which
    /// nothing may be done under this epoch, even if the hand-over fails.
    pub fn resign(&self) {
        self.tenancy.resigned.fetch_max(self.epoch.0, Ordering::AcqRel);
        self.tenancy.resigned_told.notify_waiters();
    }

    /// Resolves when the tenure has ended for good (not for a mere lapse of the lease).
    pub async fn ended(&self) {
        let mut ownership = self.tenancy.live.watch();
        let mut given_up = self.tenancy.replica.given_up();
        let mut server = self.tenancy.replica.raft.server_metrics();
        loop {
            let resigned = self.tenancy.resigned_told.notified();
            let same_term = {
                // Of the watch that is waited for: another one may not have been told yet.
                let server = server.borrow_watched();
                server.state.is_leader() && server.vote.leader_id.term == self.term
            };
            if self.is_superseded() || !same_term {
                return;
            }
            tokio::select! {
                biased;
                () = resigned => {}
                changed = ownership.changed() => if changed.is_err() { return },
                changed = given_up.changed() => if changed.is_err() { return },
                changed = server.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Notices that the machine was suspended.
#[derive(Debug)]
struct Wakefulness {
    /// Time slept since boot, at the last look.
    slept: Duration,
    /// Acknowledgements sent before do not count.
    void_before: Option<TokioInstant>,
}

impl Wakefulness {
    fn new(slept: Duration) -> Self {
        Self { slept, void_before: None }
    }

    /// Whether an acknowledgement sent at `acked` counts at `now`.
    fn counts(&mut self, acked: TokioInstant, now: TokioInstant, slept: Duration) -> bool {
        if slept.abs_diff(self.slept) > MAX_CLOCK_JITTER {
            self.slept = slept;
            self.void_before = Some(now);
        }
        self.void_before.is_none_or(|void| acked >= void)
    }
}

/// By how much the boot clock is ahead of the monotonic one. A reading that was interrupted in the middle is repeated; if
/// all were, the last one is taken, and at worst a sleep is seen that was none.
fn sleep_time() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        let secs = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::from_secs(secs) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
    };
    let mut slept = Duration::ZERO;
    for _ in 0..CLOCK_ATTEMPTS {
        let before = read(ClockId::Monotonic);
        slept = read(ClockId::Boottime).saturating_sub(before);
        if read(ClockId::Monotonic).saturating_sub(before) < MAX_CLOCK_JITTER / 2 {
            break;
        }
    }
    slept
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_acknowledgement_of_before_a_sleep_does_not_count() {
        let start = TokioInstant::now();
        let mut wakefulness = Wakefulness::new(SECOND);
        assert!(wakefulness.counts(start, start + SECOND, SECOND));
        // Slept for an hour, of which the monotonic clock knows nothing.
        assert!(!wakefulness.counts(start, start + SECOND, SECOND * 3_600));
        assert!(!wakefulness.counts(start + SECOND / 2, start + SECOND, SECOND * 3_600));
        assert!(wakefulness.counts(start + SECOND, start + SECOND * 2, SECOND * 3_600));
    }

    #[test]
    fn jitter_between_two_clock_calls_is_no_sleep() {
        let start = TokioInstant::now();
        let mut wakefulness = Wakefulness::new(SECOND);
        assert!(wakefulness.counts(start, start, SECOND + Duration::from_millis(9)));
        assert!(wakefulness.counts(start, start, SECOND - Duration::from_millis(9)));
    }

    #[test]
    fn the_clocks_of_this_machine_are_read_together() {
        assert!(sleep_time().abs_diff(sleep_time()) < MAX_CLOCK_JITTER);
    }

    #[test]
    fn a_quarter_of_the_lease_is_left_to_drift() {
        assert_eq!(usable(Duration::from_millis(700)), Duration::from_millis(525));
    }
}

#[cfg(test)]
#[path = "tenure/check_test.rs"]
mod check_tests;
