//! What a store must do, whether RocksDB or the in-memory one does it. `conformance` holds both to it.
//!
//! Two traits, because the two stores promise different things: [`LogDb`] is durable at each commit, [`StateDb`] at each
//! flush. Neither knows what its bytes mean; `keyspace` and `codec` do. Absent on purpose: transactions across the two
//! (the log is replayed instead) and iterators that outlive a call (a scan is bounded and paged by its caller).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use callboard_types::GroupId;

use crate::Error;

/// One encoded Raft log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub bytes: Bytes,
}

/// Small durable facts of a group beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogSlot {
    Vote,
    Committed,
    /// The last purged log id.
    Purged,
}

/// One change of a group's log. Applied strictly in the order of submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogWrite {
    Append {
        entries: Vec<LogEntry>,
    },
    SetSlot {
        slot: LogSlot,
        bytes: Bytes,
    },
    /// Removes every entry at `from` and above.
    Truncate {
        from: u64,
    },
    /// Removes every entry up to and including `up_to`, and sets [`LogSlot::Purged`] to `marker`.
    Purge {
        up_to: u64,
        marker: Bytes,
    },
    /// The group leaves this node: entries and slots go.
    RemoveGroup,
}

/// The log store. Calls block; `commit` is called by [`LogWriter`](crate::LogWriter)'s thread alone.
pub trait LogDb: Send + Sync + 'static {
    /// All writes, in order, as one atomic batch, on disk when this returns. A failure must end the process.
    fn commit(&self, writes: &[(GroupId, LogWrite)]) -> Result<(), Error>;
    /// Entries of `range` in order, stopping early (after at least one) once `max_bytes` is reached.
    ///
    /// A gap ends nothing: what is there is returned, and whether it follows on is the caller's check.
    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error>;
    fn last(&self, group: GroupId) -> Result<Option<LogEntry>, Error>;
    fn slot(&self, group: GroupId, slot: LogSlot) -> Result<Option<Bytes>, Error>;
    /// Every group that has entries or slots here, in order. A removed group is absent.
    fn groups(&self) -> Result<Vec<GroupId>, Error>;
}

/// The column families of the state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Actor state by (incarnation, actor, key).
    State,
    /// Reminders by (incarnation, actor, name), and their index by (incarnation, due, actor, name).
    Reminder,
    /// Applied ids, membership, ownership, clocks, last writes, dropped firings, meta rows.
    System,
}

impl Table {
    pub const ALL: [Table; 3] = [Table::State, Table::Reminder, Table::System];
}

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// Writes of the state store that take effect together: first the ranges are emptied, then the deletes, then the puts.
///
/// Batches that touch one incarnation are written by one writer at a time: a range may be emptied key by key as it was
/// found when the batch came in.
#[derive(Debug, Clone, Default)]
pub struct StateBatch {
    pub puts: Vec<(Table, Bytes, Bytes)>,
    pub deletes: Vec<(Table, Bytes)>,
    /// Key ranges to empty, applied before the puts.
    pub delete_ranges: Vec<(Table, Range<Bytes>)>,
}

impl StateBatch {
    pub fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.puts.push((table, key, value));
    }

    pub fn delete(&mut self, table: Table, key: Bytes) {
        self.deletes.push((table, key));
    }

    pub fn delete_range(&mut self, table: Table, range: Range<Bytes>) {
        self.delete_ranges.push((table, range));
    }

    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty() && self.delete_ranges.is_empty()
    }

    /// Key and value bytes carried; what [`StateDb::unflushed_bytes`] rises by.
    pub fn bytes(&self) -> u64 {
        let puts = self.puts.iter().map(|(_, key, value)| key.len() + value.len());
        let deletes = self.deletes.iter().map(|(_, key)| key.len());
        let ranges = self.delete_ranges.iter().map(|(_, range)| range.start.len() + range.end.len());
        puts.chain(deletes).chain(ranges).map(|bytes| bytes as u64).sum()
    }
}

/// Reads of the state store at one moment.
pub trait StateView: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error>;
    /// Pairs of `range` in key order, at most `limit`.
    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error>;
    /// Pairs of `range` in descending key order, at most `limit`.
    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error>;
}

/// The state store: unsynced, atomically flushed.
pub trait StateDb: StateView + 'static {
    /// Atomic, visible at once, durable at the next [`StateDb::flush`].
    fn write(&self, batch: StateBatch) -> Result<(), Error>;
    /// Everything written before the call is durable when it returns, all tables as of one moment. A failure must end
    /// the process, as that of [`LogDb::commit`].
    fn flush(&self) -> Result<(), Error>;
    /// Bytes written since the last completed [`StateDb::flush`]; what a flush policy goes by. The store may have
    /// written some of them to disk by itself, so it is an upper bound.
    fn unflushed_bytes(&self) -> u64;
    /// A consistent view that later writes do not change, except that rows expired over an hour ago may go.
    fn view(&self) -> Result<Box<dyn StateView>, Error>;
    /// Loads pairs in bulk (a received snapshot); their keys must rise strictly. Not atomic: the caller loads under an
    /// unreferenced incarnation, flushes, then switches to it.
    fn ingest(&self, table: Table, pairs: &mut dyn Iterator<Item = Result<Pair, Error>>) -> Result<(), Error>;
}

/// The two stores of a node.
#[derive(Clone)]
pub struct Stores {
    pub log: Arc<dyn LogDb>,
    pub state: Arc<dyn StateDb>,
    /// Both instances hold the same pairing id. False: one of them was replaced, and every replica of this node is
    /// quarantined.
    pub paired: bool,
}
