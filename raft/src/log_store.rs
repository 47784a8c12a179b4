//! A group's log: openraft's storage trait over the node's log store and its one writer.
//!
//! Everything that changes the log goes through the writer's queue: votes, appends, truncations and purges reach the disk
//! in the order in which openraft asked for them, many groups at one sync. An append returns as soon as its entries are
//! readable from the [`Tail`] and queued; openraft hears of the sync from the writer's thread.
//!
//! The committed id is not worth a sync of its own: before each append it would cost one. It is kept in memory and written
//! by [`LogStore::persist_committed`] before a purge and at the end: after a crash it may be old, and the log says the
//! rest.
//!
//! Invariants: a vote is on disk before [`RaftLogStorage::save_vote`] returns; the log is never purged beyond what the
//! flushed state holds, whatever is asked for.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use callboard_storage::{Done, Error, LogDb, LogEntry, LogSlot, LogWrite, LogWriter};
use callboard_types::GroupId;
use futures_util::{Stream, TryStreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, RaftTypeConfig};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::convert::{Storable, corrupt};
use crate::group_state::GroupState;
use crate::tail::{Tail, TailBudget, next};
use crate::type_config::{Entry, LogId, TypeConfig, Vote};

/// Bytes of one read from the disk.
const READ_BYTES: usize = 1 << 20;
/// Entries of one step of a stream.
const STREAM_ENTRIES: u64 = 512;
/// Times a read begins again because a truncation came between.
const READ_ATTEMPTS: usize = 8;

/// Counts the bytes appended by every group, and wakes the flusher at each `every` of them.
pub struct LogMeter {
    every: u64,
    since_flush: AtomicU64,
    full: Notify,
}

impl LogMeter {
    pub fn new(every: u64) -> Self {
        Self { every: every.max(1), since_flush: AtomicU64::new(0), full: Notify::new() }
    }

    fn add(&self, bytes: u64) {
        let before = self.since_flush.fetch_add(bytes, Ordering::Relaxed);
        if before < self.every && before + bytes >= self.every {
            self.full.notify_one();
        }
    }

    /// Begins to count anew.
    pub fn reset(&self) {
        self.since_flush.store(0, Ordering::Relaxed);
    }

    /// Resolves when a flush is due.
    pub async fn full(&self) {
        self.full.notified().await;
    }
}

/// What the logs of a node share.
#[derive(Clone)]
pub struct LogShared {
    pub db: Arc<dyn LogDb>,
    pub writer: LogWriter,
    pub budget: Arc<TailBudget>,
    pub meter: Arc<LogMeter>,
}

/// The log of one group. Clones are handles of the same log.
#[derive(Clone)]
pub struct LogStore {
    shared: LogShared,
    group: GroupId,
    state: Arc<GroupState>,
    tail: Arc<Mutex<Tail>>,
}

impl LogStore {
    /// Reads where the log stands.
    pub fn open(shared: LogShared, state: Arc<GroupState>) -> Result<Self, Error> {
        let group = state.group;
        let slot = |slot| shared.db.slot(group, slot);
        let purged = slot(LogSlot::Purged)?.map(|record| LogId::decode(&record)).transpose()?;
        let last = shared.db.last(group)?.map(|entry| decode(&entry)).transpose()?.map(|entry| entry.log_id);
        let first = shared.db.entries(group, 0..u64::MAX, 1)?.first().map_or(0, |entry| entry.index);
        let mut tail = Tail::new(shared.budget.clone(), first, last, purged);
        tail.vote = slot(LogSlot::Vote)?.map(|record| Vote::decode(&record)).transpose()?;
        tail.committed = slot(LogSlot::Committed)?.map(|record| LogId::decode(&record)).transpose()?;
        tail.saved_committed = tail.committed;
        Ok(Self { shared, group, state, tail: Arc::new(Mutex::new(tail)) })
    }

    pub fn purged(&self) -> Option<LogId> {
        self.tail.lock().purged()
    }

    /// It has given a vote, or acknowledged a leader.
    pub fn has_voted(&self) -> bool {
        self.tail.lock().vote.is_some()
    }

    /// Writes the committed id, if the disk has an older one, and waits for it.
    pub async fn persist_committed(&self) -> Result<(), Error> {
        match self.unsaved_committed() {
            Some(bytes) => {
                let write = LogWrite::SetSlot { slot: LogSlot::Committed, bytes };
                self.shared.writer.write(self.group, write).await
            }
            None => Ok(()),
        }
    }

    /// The committed id to be written, once.
    fn unsaved_committed(&self) -> Option<Bytes> {
        let mut tail = self.tail.lock();
        let committed = tail.committed.filter(|committed| tail.saved_committed.as_ref() != Some(committed))?;
        tail.saved_committed = Some(committed);
        Some(committed.encode())
    }

    async fn submit(&self, write: LogWrite) {
        let group = self.group;
        let done: Done = Box::new(move |outcome| {
            if let Err(error) = outcome {
                tracing::error!(%group, %error, "a write of the log is lost");
            }
        });
        self.shared.writer.submit(group, write, done).await;
    }

    /// Entries of `range` that the log holds, as many as `max_bytes` of disk reads allow, at least one.
    async fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        for _ in 0..READ_ATTEMPTS {
            let found = self.tail.lock().find(range.clone());
            if found.on_disk.is_empty() {
                return Ok(found.entries);
            }
            let mut entries = self.read_disk(found.on_disk.clone(), max_bytes).await?;
            let (generation, first) = {
                let tail = self.tail.lock();
                (tail.generation(), tail.first())
            };
            if generation != found.generation {
                continue;
            }
            entries.retain(|entry| entry.log_id.index >= first);
            if next(entries.last().map(|entry| entry.log_id)) == found.on_disk.end {
                entries.extend(found.entries);
            }
            let start = found.on_disk.start.max(first);
            check_contiguous(&entries, start)?;
            if entries.is_empty() && first < found.on_disk.end {
                return Err(corrupt("log", format!("entry {start} is missing")));
            }
            return Ok(entries);
        }
        Err(corrupt("log", "truncated again and again during one read"))
    }

    async fn read_disk(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        let (db, group) = (self.shared.db.clone(), self.group);
        let read = tokio::task::spawn_blocking(move || {
            let stored = db.entries(group, range, max_bytes)?;
            stored.iter().map(decode).collect::<Result<Vec<_>, _>>()
        });
        read.await.map_err(|_| Error::Stopped)?
    }

    /// Every entry of `range` that the log holds.
    async fn read_all(&self, range: Range<u64>) -> Result<Vec<Entry>, Error> {
        let mut all = self.read(range.clone(), READ_BYTES).await?;
        while let Some(last) = all.last().map(|entry| entry.log_id.index) {
            let more = self.read(last + 1..range.end, READ_BYTES).await?;
            if more.is_empty() {
                break;
            }
            all.extend(more);
        }
        Ok(all)
    }
}

fn decode(stored: &LogEntry) -> Result<Entry, Error> {
    let entry = Entry::decode(&stored.bytes)?;
    if entry.log_id.index != stored.index {
        return Err(corrupt("log entry", format!("entry {} is stored as {}", entry.log_id.index, stored.index)));
    }
    Ok(entry)
}

/// A hole is never taken for the end of the log.
fn check_contiguous(entries: &[Entry], start: u64) -> Result<(), Error> {
    match entries.iter().zip(start..).find(|(entry, index)| entry.log_id.index != *index) {
        Some((_, missing)) => Err(corrupt("log", format!("entry {missing} is missing"))),
        None => Ok(()),
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read_all(bounds(&range)).await.map_err(io::Error::other)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_BYTES).await.map_err(io::Error::other)
    }

    /// In steps: what is committed at once after a long absence does not have to fit into memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let state = (self.clone(), bounds(&range));
        stream::try_unfold(state, |(log, range)| async move {
            let step = range.start..range.end.min(range.start.saturating_add(STREAM_ENTRIES));
            if step.is_empty() {
                return Ok(None);
            }
            let entries = log.read(step, READ_BYTES).await.map_err(io::Error::other)?;
            let Some(last) = entries.last().map(|entry| entry.log_id.index) else { return Ok(None) };
            Ok::<_, io::Error>(Some((stream::iter(entries.into_iter().map(Ok)), (log, last + 1..range.end))))
        })
        .try_flatten()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let write = LogWrite::SetSlot { slot: LogSlot::Vote, bytes: vote.encode() };
        self.shared.writer.write(self.group, write).await.map_err(io::Error::other)?;
        self.tail.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.tail.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.tail.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <TypeConfig as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded: Vec<(Entry, Bytes)> = entries
            .into_iter()
            .map(|entry| {
                let bytes = entry.encode();
                (entry, bytes)
            })
            .collect();
        let mut written = Vec::with_capacity(encoded.len());
        let mut size = 0;
        let (upto, generation) = {
            let mut tail = self.tail.lock();
            for (entry, bytes) in encoded {
                size += bytes.len() as u64;
                written.push(LogEntry { index: entry.log_id.index, bytes: bytes.clone() });
                tail.push(entry, bytes.len());
            }
            (next(tail.last()), tail.generation())
        };
        let tail = self.tail.clone();
        let done: Done = Box::new(move |outcome| {
            if outcome.is_ok() {
                tail.lock().synced(upto, generation);
            }
            callback.io_completed(outcome.map_err(io::Error::other));
        });
        self.shared.writer.submit(self.group, LogWrite::Append { entries: written }, done).await;
        self.shared.meter.add(size);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.tail.lock().truncate(last_log_id);
        self.submit(LogWrite::Truncate { from: next(last_log_id) }).await;
        Ok(())
    }

    /// What the flushed state does not hold stays, whoever asks: a crash would lose it.
    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let Some(durable) = self.state.durable().last else { return Ok(()) };
        let upto = if durable.index < log_id.index { durable } else { log_id };
        if self.purged().is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        self.tail.lock().purge(upto);
        self.submit(LogWrite::Purge { up_to: upto.index, marker: upto.encode() }).await;
        Ok(())
    }
}
