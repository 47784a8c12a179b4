//! The group-commit writer: one thread, one batch, one sync for every group of the node.
//!
//! A sync costs the same for one write as for a thousand, so the thread takes whatever has queued up while the last sync
//! ran, up to a bound, and commits it as one batch. There is no timer: the running sync is the batching window. Votes,
//! truncations and purges go the same way as appends, so nothing overtakes anything.
//!
//! **A failed commit ends the process**, here and nowhere else. After a failed sync nobody knows what is on disk, and a
//! second sync may succeed without having written what the first one lost; so nothing is retried, nothing drains, and no
//! `done` is called before the end. A test passes its own [`OnFatal`]; the writer then refuses everything after it.
//!
//! Invariants: `done` is called exactly once per submission, in order of submission for those that reach the disk; the
//! bytes queued or being written never exceed the bound. Absent on purpose: priorities, and any knowledge of what an
//! entry means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use callboard_types::GroupId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Error, LogDb, LogWrite};

/// Bounds of the writer.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    /// Bytes waiting or being written; a further submission waits.
    pub max_queued_bytes: usize,
    /// Bytes of one batch.
    pub max_batch_bytes: usize,
    /// Under load, batches begin at least this far apart: each sync costs processor time whatever it carries, and on a
    /// disk that syncs in a tenth of a millisecond batches would otherwise stay small. A writer on its own never waits.
    pub gather: Duration,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { max_queued_bytes: 64 << 20, max_batch_bytes: 2 << 20, gather: Duration::from_micros(1_200) }
    }
}

/// Writes of one batch, whatever their size: bounds the time in which no `done` is called.
const MAX_BATCH_WRITES: usize = 4_096;

/// A batch of this many writes means load: the next one gathers.
const LOAD: usize = 4;

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriterStats {
    pub syncs: u64,
    pub writes: u64,
    pub entries: u64,
    pub bytes: u64,
    /// Total time of the synced commits, in microseconds.
    pub sync_micros: u64,
}

/// Called on the writer's thread, in order of submission, when the write is on disk. Must be quick: the next batch waits
/// for it.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Called on the writer's thread with the error of a failed commit. The default does not return.
pub type OnFatal = Box<dyn FnOnce(&Error) + Send>;

/// Handle of the writer's thread; clones share it. The thread ends with [`LogWriter::shutdown`], or, unattended, after
/// the last handle has gone and the queue is written.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
}

struct Shared {
    /// Bytes that may still be queued; closed when nothing more is accepted.
    room: Arc<Semaphore>,
    capacity: usize,
    stats: Stats,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Stats {
    syncs: AtomicU64,
    writes: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    sync_micros: AtomicU64,
}

enum Message {
    Job(Job),
    /// Write what stands before this and end.
    End,
}

struct Job {
    group: GroupId,
    write: LogWrite,
    bytes: usize,
    answer: Answer,
    room: OwnedSemaphorePermit,
}

/// Calls `done` once: with the outcome, or with [`Error::Stopped`] when it is dropped on the way.
struct Answer(Option<Done>);

impl Answer {
    fn give(mut self, outcome: Result<(), Error>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(Error::Stopped));
        }
    }
}

impl LogWriter {
    /// Starts the thread. A failed commit prints why and aborts the process.
    pub fn start(db: Arc<dyn LogDb>, config: WriterConfig) -> Result<Self, Error> {
        Self::start_with(db, config, Box::new(abort))
    }

    /// As [`LogWriter::start`], with another end: for tests, which outlive a failed commit.
    pub fn start_with(db: Arc<dyn LogDb>, config: WriterConfig, on_fatal: OnFatal) -> Result<Self, Error> {
        // A permit counts a byte, and one call acquires at most u32::MAX of them.
        let capacity = config.max_queued_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let (queue, jobs) = mpsc::channel();
        let shared = Arc::new(Shared {
            room: Arc::new(Semaphore::new(capacity)),
            capacity,
            stats: Stats::default(),
            thread: Mutex::new(None),
        });
        let worker =
            Worker { db, jobs, shared: shared.clone(), max_batch_bytes: config.max_batch_bytes, gather: config.gather };
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || worker.run(on_fatal))
            .map_err(|error| Error::io("start the log writer's thread", error))?;
        *shared.thread.lock() = Some(thread);
        Ok(Self { shared, queue })
    }

    /// Queues a write behind all earlier ones; waits while the queue is full. `done` is always called, exactly once: with
    /// [`Error::Stopped`] when the writer has ended or this future is dropped before it could queue the write.
    pub async fn submit(&self, group: GroupId, write: LogWrite, done: Done) {
        let answer = Answer(Some(done));
        let bytes = write.cost();
        let permits = u32::try_from(bytes.min(self.shared.capacity)).expect("the capacity fits");
        let Ok(room) = self.shared.room.clone().acquire_many_owned(permits).await else {
            return;
        };
        // On a closed channel the job comes back, and with it the answer, which speaks when it is dropped.
        drop(self.queue.send(Message::Job(Job { group, write, bytes, answer, room })));
    }

    /// [`LogWriter::submit`], and waits until the write is on disk.
    pub async fn write(&self, group: GroupId, write: LogWrite) -> Result<(), Error> {
        let (told, outcome) = oneshot::channel();
        // The receiver is gone when the caller gave up waiting; the write goes on without it.
        let done = Box::new(move |result| drop(told.send(result)));
        self.submit(group, write, done).await;
        outcome.await.unwrap_or(Err(Error::Stopped))
    }

    pub fn stats(&self) -> WriterStats {
        let Stats { syncs, writes, entries, bytes, sync_micros } = &self.shared.stats;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriterStats {
            syncs: read(syncs),
            writes: read(writes),
            entries: read(entries),
            bytes: read(bytes),
            sync_micros: read(sync_micros),
        }
    }

    /// Accepts nothing more, writes what is queued, calls its `done`s and joins the thread. Blocks; further calls return
    /// at once. Not to be called from a `done`.
    pub fn shutdown(&self) {
        self.shared.room.close();
        // A closed channel means that the thread has ended by itself.
        drop(self.queue.send(Message::End));
        let thread = self.shared.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log writer's thread panicked");
        }
    }
}

struct Worker {
    db: Arc<dyn LogDb>,
    jobs: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    max_batch_bytes: usize,
    gather: Duration,
}

/// What stands after a batch was gathered.
enum Next {
    Go,
    End,
}

impl Worker {
    fn run(self, on_fatal: OnFatal) {
        // Whatever ends the thread, a panicking `done` included: nothing waits for room that never comes.
        let _close = CloseOnDrop(self.shared.room.clone());
        let mut gather_until = None;
        while let Some((jobs, next)) = self.gather(gather_until) {
            let start = Instant::now();
            gather_until = (jobs.len() >= LOAD).then(|| start + self.gather);
            let batch = Batch::new(jobs);
            if let Err(error) = self.db.commit(&batch.writes) {
                // The batch outlives the call: no `done` is told anything before the end.
                on_fatal(&error);
                return;
            }
            self.shared.stats.count(&batch, start);
            batch.acknowledge();
            match next {
                Next::Go => {}
                Next::End => return,
            }
        }
    }

    /// Waits for one job, then takes what else is there or comes until `until`, up to the bounds of a batch. `None`:
    /// nothing will come.
    fn gather(&self, until: Option<Instant>) -> Option<(Vec<Job>, Next)> {
        let first = match self.jobs.recv() {
            Ok(Message::Job(job)) => job,
            Ok(Message::End) | Err(mpsc::RecvError) => return None,
        };
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while bytes < self.max_batch_bytes && jobs.len() < MAX_BATCH_WRITES {
            let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            match self.jobs.recv_timeout(left) {
                Ok(Message::Job(job)) => {
                    bytes = bytes.saturating_add(job.bytes);
                    jobs.push(job);
                }
                Ok(Message::End) => return Some((jobs, Next::End)),
                Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        Some((jobs, Next::Go))
    }
}

/// What one commit writes, and who waits for it.
struct Batch {
    writes: Vec<(GroupId, LogWrite)>,
    answers: Vec<(Answer, OwnedSemaphorePermit)>,
    bytes: u64,
}

impl Batch {
    fn new(jobs: Vec<Job>) -> Self {
        let bytes = jobs.iter().map(|job| job.bytes as u64).sum();
        let (writes, answers) = jobs.into_iter().map(|job| ((job.group, job.write), (job.answer, job.room))).unzip();
        Self { writes, answers, bytes }
    }

    /// Tells everybody, in order, and makes room as it goes.
    fn acknowledge(self) {
        for (answer, room) in self.answers {
            answer.give(Ok(()));
            drop(room);
        }
    }
}

impl Stats {
    fn count(&self, batch: &Batch, start: Instant) {
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let entries: usize = batch.writes.iter().map(|(_, write)| write.entries()).sum();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(batch.writes.len() as u64, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes, Ordering::Relaxed);
        self.sync_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl LogWrite {
    /// What a write costs beside its payload: its place in the queue and its keys.
    const OVERHEAD: usize = 64;

    /// Bytes that a write takes of the writer's bounds.
    fn cost(&self) -> usize {
        let payload = match self {
            LogWrite::Append { entries } => entries.iter().map(|entry| entry.bytes.len() + Self::OVERHEAD).sum(),
            LogWrite::SetSlot { bytes, .. } => bytes.len(),
            LogWrite::Purge { marker, .. } => marker.len(),
            LogWrite::Truncate { .. } | LogWrite::RemoveGroup => 0,
        };
        payload + Self::OVERHEAD
    }

    fn entries(&self) -> usize {
        match self {
            LogWrite::Append { entries } => entries.len(),
            LogWrite::SetSlot { .. } | LogWrite::Purge { .. } | LogWrite::Truncate { .. } | LogWrite::RemoveGroup => 0,
        }
    }
}

struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The end of a process whose disk failed. Standard error first: the log's sink may be on the same disk.
fn abort(error: &Error) {
    eprintln!("callboard: fatal: the log could not be synced, so what is on disk is unknown: {error}");
    tracing::error!(%error, "fatal: the log could not be synced, so what is on disk is unknown");
    std::process::abort();
}

#[cfg(test)]
#[path = "writer/writer_test.rs"]
mod tests;

#[cfg(test)]
#[path = "writer/gather_test.rs"]
mod gather_tests;
