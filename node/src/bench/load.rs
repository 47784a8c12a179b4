//! Offers requests to a server and times the answers.
//!
//! *Closed loop*: each connection sends its next request when the last was answered. It finds the throughput a number of
//! callers gets, and says little about latency: while the server stalls, nobody asks.
//!
//! *Open loop*: requests are due at a fixed rate, whatever the server does, and each latency counts from the instant the
//! request was *due*. A stall of a second thereby costs every request that was due in it, as it does with real callers
//! (this is what "coordinated omission" leaves out). Requests that could not be sent until the end are counted with the
//! time they have waited.
//!
//! One thread with a timer of its own drives all connections: ticks come from a `timerfd`, since the runtime's timer is
//! a thousand times too coarse. Each connection is one task that writes prepared bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::http::Connection;
use super::stats::Latencies;

/// An exchange that takes longer has failed.
const EXCHANGE: Duration = Duration::from_secs(30);
/// Time the open loop has to catch up with its schedule after its end.
const CATCH_UP: Duration = Duration::from_secs(10);
/// The open loop releases what is due at most this often.
const TICK: Duration = Duration::from_micros(50);
/// A connection that cannot be opened is tried again after this long.
const RETRY: Duration = Duration::from_millis(20);

/// What to offer.
#[derive(Debug, Clone)]
pub struct Plan {
    pub to: SocketAddr,
    /// Sent in turn, each connection starting elsewhere. Not empty.
    pub requests: Arc<[Bytes]>,
    pub connections: usize,
    pub arrival: Arrival,
    /// Offered before anything is counted.
    pub warm_up: Duration,
    pub duration: Duration,
    pub repeat: Repeat,
}

/// How often each request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Again and again, until the time is over.
    Forever,
    /// Once each; the closed loop ends with the last one, or when the time is over.
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    Closed,
    /// Requests per second.
    Open(f64),
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Of answers with a 2xx status, and of what was due and never answered.
    pub latencies: Latencies,
    /// Other statuses, and how often.
    pub refused: BTreeMap<u16, u64>,
    /// Exchanges without an answer.
    pub broken: u64,
    /// Due in the open loop and not answered until the end.
    pub unsent: u64,
    /// From the end of the warm-up to the last answer that counts.
    pub elapsed: Duration,
}

impl Outcome {
    pub fn errors(&self) -> u64 {
        self.broken + self.unsent + self.refused.values().sum::<u64>()
    }

    /// Good answers per second.
    pub fn throughput(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.latencies.len().saturating_sub(self.unsent) as f64 / seconds } else { 0.0 }
    }
}

/// Runs a plan on this thread.
///
/// # Errors
///
/// No runtime or timer can be made.
pub fn run(plan: &Plan) -> io::Result<Outcome> {
    assert!(!plan.requests.is_empty(), "a plan has requests");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match plan.arrival {
            Arrival::Closed => Ok(closed(plan).await),
            Arrival::Open(rate) => open(plan, rate).await,
        }
    })
}

/// The instants of one run.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: Instant,
    /// From here on answers count.
    counted: Instant,
    end: Instant,
}

impl Span {
    fn of(plan: &Plan) -> Self {
        let start = Instant::now();
        let counted = start + plan.warm_up;
        Self { start, counted, end: counted + plan.duration }
    }
}

type Shared = Rc<RefCell<Outcome>>;

async fn closed(plan: &Plan) -> Outcome {
    let span = Span::of(plan);
    let outcome: Shared = Rc::default();
    let taken = Rc::new(RefCell::new(0));
    let mut callers = JoinSet::new();
    for number in 0..plan.connections {
        let (plan, outcome, taken) = (plan.clone(), Rc::clone(&outcome), Rc::clone(&taken));
        callers.spawn_local(async move {
            let mut caller = Caller::new(&plan, number);
            loop {
                let sent = Instant::now();
                if plan.repeat == Repeat::Once {
                    caller.at = taken.replace_with(|taken| *taken + 1);
                }
                if sent >= span.end || (plan.repeat == Repeat::Once && caller.at >= plan.requests.len()) {
                    return;
                }
                let answer = caller.exchange(&plan).await;
                if sent >= span.counted {
                    count(&outcome, &answer, sent.elapsed());
                }
            }
        });
    }
    while callers.join_next().await.is_some() {}
    let elapsed = span.counted.elapsed();
    Outcome { elapsed, ..outcome.take() }
}

async fn open(plan: &Plan, rate: f64) -> io::Result<Outcome> {
    let total = (rate * (plan.warm_up + plan.duration).as_secs_f64()).floor() as u64;
    let timer = Timer::new()?;
    let span = Span::of(plan);
    let due = move |number: u64| span.start + Duration::from_secs_f64(number as f64 / rate);
    let outcome: Shared = Rc::default();
    let next = Rc::new(RefCell::new(0_u64));
    let released = Rc::new(Semaphore::new(0));
    // What each connection waits for, to be counted if it never comes.
    let waiting: Rc<RefCell<Vec<Option<Instant>>>> = Rc::new(RefCell::new(vec![None; plan.connections]));
    let mut callers = JoinSet::new();
    for number in 0..plan.connections {
        let (plan, outcome) = (plan.clone(), Rc::clone(&outcome));
        let (next, released, waiting) = (Rc::clone(&next), Rc::clone(&released), Rc::clone(&waiting));
        callers.spawn_local(async move {
            let mut caller = Caller::new(&plan, number);
            // Closed when everything due has been handed out.
            while let Ok(permit) = released.acquire().await {
                permit.forget();
                let due = due(next.replace_with(|number| *number + 1));
                waiting.borrow_mut()[number] = Some(due);
                let answer = caller.exchange(&plan).await;
                waiting.borrow_mut()[number] = None;
                if due >= span.counted {
                    count(&outcome, &answer, due.elapsed());
                }
            }
        });
    }
    let mut handed_out = 0;
    while handed_out < total {
        let now = Instant::now();
        let is_due = ((now - span.start).as_secs_f64() * rate) as u64 + 1;
        let is_due = is_due.min(total);
        released.add_permits(usize::try_from(is_due - handed_out).unwrap_or(0));
        handed_out = is_due;
        timer.wait(due(handed_out).saturating_duration_since(now).max(TICK)).await?;
    }
    let deadline = span.end + CATCH_UP;
    while released.available_permits() > 0 && Instant::now() < deadline {
        timer.wait(Duration::from_millis(1)).await?;
    }
    released.close();
    let give_up = tokio::time::Instant::from_std(deadline.max(Instant::now()));
    while let Ok(Some(_)) = tokio::time::timeout_at(give_up, callers.join_next()).await {}
    let elapsed = span.counted.elapsed();
    callers.abort_all();
    let mut outcome = outcome.take();
    // Neither sent nor answered: what they have waited so far is the least they will.
    let never_sent = (*next.borrow()..total).map(due);
    let never_answered = waiting.take().into_iter().flatten();
    for due in never_sent.chain(never_answered).filter(|due| *due >= span.counted) {
        outcome.latencies.record(due.elapsed());
        outcome.unsent += 1;
    }
    Ok(Outcome { elapsed, ..outcome })
}

fn count(outcome: &Shared, answer: &io::Result<u16>, latency: Duration) {
    let mut outcome = outcome.borrow_mut();
    match answer {
        Ok(200..300) => outcome.latencies.record(latency),
        Ok(status) => *outcome.refused.entry(*status).or_default() += 1,
        Err(_) => outcome.broken += 1,
    }
}

/// One connection, opened again when it breaks.
struct Caller {
    connection: Option<Connection>,
    /// The request that is sent next.
    at: usize,
}

impl Caller {
    fn new(plan: &Plan, number: usize) -> Self {
        Self { connection: None, at: number * plan.requests.len() / plan.connections.max(1) }
    }

    async fn exchange(&mut self, plan: &Plan) -> io::Result<u16> {
        let request = &plan.requests[self.at % plan.requests.len()];
        self.at = self.at.wrapping_add(1);
        let connection = match self.connection.as_mut().filter(|connection| connection.is_usable()) {
            Some(connection) => connection,
            None => match Connection::open(plan.to).await {
                Ok(connection) => self.connection.insert(connection),
                Err(error) => {
                    // A server that refuses connections must not be asked in a tight loop.
                    tokio::time::sleep(RETRY).await;
                    return Err(error);
                }
            },
        };
        let answer = tokio::time::timeout(EXCHANGE, connection.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

/// A timer as fine as the kernel's.
struct Timer(AsyncFd<std::os::fd::OwnedFd>);

impl Timer {
    fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // Sound for a descriptor that the value owns; the replacement is an unsafe function.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    async fn wait(&self, time: Duration) -> io::Result<()> {
        let value = Timespec::try_from(time).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut fired = [0; 8];
            if let Ok(result) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut fired)?)) {
                return result.map(drop);
            }
        }
    }
}

#[cfg(test)]
#[path = "load_test.rs"]
mod load_test;
