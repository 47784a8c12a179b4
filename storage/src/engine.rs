//! What a store must do, whether RocksDB or the in-memory one does it. `conformance` holds both to it.

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
    Append { entries: Vec<LogEntry> },
    SetSlot { slot: LogSlot, bytes: Bytes },
    /// Removes every entry at `from` and above.
    Truncate { from: u64 },
    /// Removes every entry up to and including `up_to`, and sets [`LogSlot::Purged`] to `marker`.
    Purge { up_to: u64, marker: Bytes },
    /// The group leaves this node: entries and slots go.
    RemoveGroup,
}

/// The log store. Calls block; `commit` is called by [`LogWriter`](crate::LogWriter)'s thread alone.
pub trait LogDb: Send + Sync + 'static {
    /// All writes, in order, as one atomic batch, on disk when this returns. A failure must end the process.
    fn commit(&self, writes: &[(GroupId, LogWrite)]) -> Result<(), Error>;
    /// Entries of `range` in order, stopping early (after at least one) once `max_bytes` is reached.
    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error>;
    fn last(&self, group: GroupId) -> Result<Option<LogEntry>, Error>;
    fn slot(&self, group: GroupId, slot: LogSlot) -> Result<Option<Bytes>, Error>;
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

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// Writes of the state store that take effect together.
#[derive(Debug, Clone, Default)]
pub struct StateBatch {
    pub puts: Vec<(Table, Bytes, Bytes)>,
    pub deletes: Vec<(Table, Bytes)>,
    /// Key ranges to empty, applied before the puts.
    pub delete_ranges: Vec<(Table, Range<Bytes>)>,
}

/// Reads of the state store at one moment.
pub trait StateView: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error>;
    /// Pairs of `range` in key order, at most `limit`.
    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error>;
}

/// The state store: unsynced, atomically flushed.
pub trait StateDb: StateView + 'static {
    /// Atomic, visible at once, durable at the next [`StateDb::flush`].
    fn write(&self, batch: StateBatch) -> Result<(), Error>;
    /// Everything written before the call is durable when it returns.
    fn flush(&self) -> Result<(), Error>;
    /// A consistent view that later writes do not change.
    fn view(&self) -> Result<Box<dyn StateView>, Error>;
    /// Loads sorted pairs in bulk (a received snapshot). Not atomic: the caller loads under an unreferenced
    /// incarnation, flushes, then switches to it.
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
