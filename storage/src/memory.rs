//! The stores in memory, with a power switch: for tests and the simulator, which ask what is left after a crash.
//!
//! [`Memory`] is the disk of one machine. It outlives the stores opened on it, as a disk outlives a process. The state
//! store keeps what was written and, apart from it, what was flushed; [`Memory::crash`] forgets the difference and
//! cuts every handle off, so that a task of the crashed process that still runs can neither read nor write. The log is
//! synced by each commit; [`Memory::hold_commits`] keeps a commit from reaching the disk, so that a crash falls between
//! submission and commit, and [`CommitFault`]s make a chosen commit fail.
//!
//! Absent on purpose: time (an expired row stays until it is deleted), bounds on memory, and torn batches: RocksDB's
//! batches are atomic, and its conformance is tested on RocksDB.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use callboard_types::GroupId;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{Error, LogDb, LogEntry, LogSlot, LogWrite, Pair, StateBatch, StateDb, StateView, Stores, Table};

/// What goes wrong at a commit of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitFault {
    /// The sync fails, and nothing of the batch is on disk.
    SyncFailsLost,
    /// The sync fails, and all of the batch is on disk nevertheless.
    SyncFailsKept,
    /// The machine stops before the batch is on disk.
    CrashBefore,
    /// The machine stops when the batch is on disk, before anybody learns of it.
    CrashAfter,
}

/// Which commits fail, by their number since the disk was made; the first one is 1.
pub type FaultPlan = BTreeMap<u64, CommitFault>;

/// The disk of one simulated machine. Clones share it.
#[derive(Clone, Default)]
pub struct Memory {
    disk: Arc<Disk>,
}

#[derive(Default)]
struct Disk {
    data: Mutex<Data>,
    /// Signalled when a commit begins, when commits are let go, and at a crash.
    changed: Condvar,
}

/// How often the machine crashed: a handle of an earlier count is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Crashes(u64);

#[derive(Default)]
struct Data {
    crashes: Crashes,
    commits: u64,
    faults: FaultPlan,
    held: Held,
    log: HashMap<GroupId, Group>,
    state: Tables,
    flushed: Tables,
    unflushed_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Held {
    #[default]
    Flowing,
    Holding,
}

#[derive(Default)]
struct Group {
    entries: BTreeMap<u64, Bytes>,
    slots: HashMap<LogSlot, Bytes>,
}

/// Cheap to clone: a table is copied when it is next written.
#[derive(Clone, Default)]
struct Tables {
    state: Arc<BTreeMap<Bytes, Bytes>>,
    reminder: Arc<BTreeMap<Bytes, Bytes>>,
    system: Arc<BTreeMap<Bytes, Bytes>>,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a process on this disk: its stores are good until the next crash.
    pub fn open(&self) -> Stores {
        let crashes = self.disk.data.lock().crashes;
        let handle = Arc::new(Handle { disk: self.disk.clone(), crashes });
        Stores { log: handle.clone(), state: handle, paired: true }
    }

    /// Power off: what no sync or flush has reached is gone, and every open handle fails from here on.
    pub fn crash(&self) {
        self.disk.data.lock().crash();
        self.disk.changed.notify_all();
    }

    /// Commits wait, with nothing on disk, until [`Memory::release_commits`] or a crash.
    pub fn hold_commits(&self) {
        self.disk.data.lock().held = Held::Holding;
    }

    pub fn release_commits(&self) {
        self.disk.data.lock().held = Held::Flowing;
        self.disk.changed.notify_all();
    }

    /// Blocks until commit `number` has begun; it may be held or done.
    pub fn await_commit(&self, number: u64) {
        let mut data = self.disk.data.lock();
        while data.commits < number {
            self.disk.changed.wait(&mut data);
        }
    }

    /// Lets commits fail as planned; replaces an earlier plan.
    pub fn plan_faults(&self, plan: FaultPlan) {
        self.disk.data.lock().faults = plan;
    }

    /// Commits begun since the disk was made, failed ones included.
    pub fn commits(&self) -> u64 {
        self.disk.data.lock().commits
    }
}

impl Data {
    fn crash(&mut self) {
        self.crashes.0 += 1;
        self.held = Held::Flowing;
        self.state = self.flushed.clone();
        self.unflushed_bytes = 0;
    }

    fn apply_log(&mut self, writes: &[(GroupId, LogWrite)]) {
        for (group, write) in writes {
            let log = self.log.entry(*group).or_default();
            match write {
                LogWrite::Append { entries } => {
                    log.entries.extend(entries.iter().map(|entry| (entry.index, entry.bytes.clone())));
                }
                LogWrite::SetSlot { slot, bytes } => drop(log.slots.insert(*slot, bytes.clone())),
                LogWrite::Truncate { from } => drop(log.entries.split_off(from)),
                LogWrite::Purge { up_to, marker } => {
                    log.entries =
                        up_to.checked_add(1).map_or_else(BTreeMap::new, |first| log.entries.split_off(&first));
                    log.slots.insert(LogSlot::Purged, marker.clone());
                }
                LogWrite::RemoveGroup => drop(self.log.remove(group)),
            }
        }
    }
}

impl Tables {
    fn table(&self, table: Table) -> &BTreeMap<Bytes, Bytes> {
        match table {
            Table::State => &self.state,
            Table::Reminder => &self.reminder,
            Table::System => &self.system,
        }
    }

    fn table_mut(&mut self, table: Table) -> &mut BTreeMap<Bytes, Bytes> {
        Arc::make_mut(match table {
            Table::State => &mut self.state,
            Table::Reminder => &mut self.reminder,
            Table::System => &mut self.system,
        })
    }

    fn write(&mut self, batch: StateBatch) {
        for (table, range) in batch.delete_ranges {
            let doomed: Vec<Bytes> = self.range(table, range).map(|(key, _)| key.clone()).collect();
            let rows = self.table_mut(table);
            doomed.iter().for_each(|key| drop(rows.remove(key)));
        }
        for (table, key) in batch.deletes {
            self.table_mut(table).remove(&key);
        }
        for (table, key, value) in batch.puts {
            self.table_mut(table).insert(key, value);
        }
    }

    /// An empty or inverted range holds nothing.
    fn range(&self, table: Table, range: Range<Bytes>) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        let end = range.end.max(range.start.clone());
        self.table(table).range((Bound::Included(range.start), Bound::Excluded(end)))
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        self.table(table).get(key).cloned()
    }

    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Vec<Pair> {
        self.range(table, range).take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Vec<Pair> {
        self.range(table, range).rev().take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Both stores, as one process sees them.
struct Handle {
    disk: Arc<Disk>,
    crashes: Crashes,
}

impl Handle {
    fn data(&self, action: &'static str) -> Result<MutexGuard<'_, Data>, Error> {
        let data = self.disk.data.lock();
        if data.crashes == self.crashes { Ok(data) } else { Err(crashed(action)) }
    }
}

fn crashed(action: &'static str) -> Error {
    Error::io(action, "the simulated machine has crashed")
}

impl LogDb for Handle {
    fn commit(&self, writes: &[(GroupId, LogWrite)]) -> Result<(), Error> {
        const ACTION: &str = "sync the log";
        let failed = || Err(Error::io(ACTION, "injected sync error"));
        let mut data = self.data(ACTION)?;
        data.commits += 1;
        let number = data.commits;
        self.disk.changed.notify_all();
        while data.held == Held::Holding && data.crashes == self.crashes {
            self.disk.changed.wait(&mut data);
        }
        if data.crashes != self.crashes {
            return Err(crashed(ACTION));
        }
        match data.faults.remove(&number) {
            None => {
                data.apply_log(writes);
                Ok(())
            }
            Some(CommitFault::SyncFailsLost) => failed(),
            Some(CommitFault::SyncFailsKept) => {
                data.apply_log(writes);
                failed()
            }
            Some(CommitFault::CrashBefore) => {
                data.crash();
                Err(crashed(ACTION))
            }
            Some(CommitFault::CrashAfter) => {
                data.apply_log(writes);
                data.crash();
                Err(crashed(ACTION))
            }
        }
    }

    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error> {
        let data = self.data("read log entries")?;
        let mut found = Vec::new();
        let mut bytes = 0;
        let entries = data.log.get(&group).filter(|_| range.start < range.end);
        for (&index, entry) in entries.into_iter().flat_map(|log| log.entries.range(range.clone())) {
            found.push(LogEntry { index, bytes: entry.clone() });
            bytes += entry.len();
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(found)
    }

    fn last(&self, group: GroupId) -> Result<Option<LogEntry>, Error> {
        let data = self.data("read the last log entry")?;
        let last = data.log.get(&group).and_then(|log| log.entries.last_key_value());
        Ok(last.map(|(&index, bytes)| LogEntry { index, bytes: bytes.clone() }))
    }

    fn slot(&self, group: GroupId, slot: LogSlot) -> Result<Option<Bytes>, Error> {
        let data = self.data("read a log slot")?;
        Ok(data.log.get(&group).and_then(|log| log.slots.get(&slot).cloned()))
    }

    fn groups(&self) -> Result<Vec<GroupId>, Error> {
        let data = self.data("list the groups of the log")?;
        let mut groups: Vec<GroupId> = data
            .log
            .iter()
            .filter(|(_, log)| !log.entries.is_empty() || !log.slots.is_empty())
            .map(|(group, _)| *group)
            .collect();
        groups.sort_unstable();
        Ok(groups)
    }
}

impl StateView for Handle {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.data("read state")?.state.get(table, key))
    }

    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        Ok(self.data("scan state")?.state.scan(table, range, limit))
    }

    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        Ok(self.data("scan state")?.state.scan_back(table, range, limit))
    }
}

impl StateDb for Handle {
    fn write(&self, batch: StateBatch) -> Result<(), Error> {
        let mut data = self.data("write state")?;
        data.unflushed_bytes += batch.bytes();
        data.state.write(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let mut data = self.data("flush state")?;
        data.flushed = data.state.clone();
        data.unflushed_bytes = 0;
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.disk.data.lock().unflushed_bytes
    }

    fn view(&self) -> Result<Box<dyn StateView>, Error> {
        Ok(Box::new(View(self.data("take a view of the state")?.state.clone())))
    }

    fn ingest(&self, table: Table, pairs: &mut dyn Iterator<Item = Result<Pair, Error>>) -> Result<(), Error> {
        let mut batch = StateBatch::default();
        for pair in pairs {
            let (key, value) = pair?;
            if batch.puts.last().is_some_and(|(_, last, _)| *last >= key) {
                return Err(Error::corrupt("ingested pairs", "keys that do not rise"));
            }
            batch.put(table, key, value);
        }
        self.data("ingest state")?.state.write(batch);
        Ok(())
    }
}

/// The state as it was; a crash does not change memory that a process could only have read before it.
struct View(Tables);

impl StateView for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.get(table, key))
    }

    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        Ok(self.0.scan(table, range, limit))
    }

    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        Ok(self.0.scan_back(table, range, limit))
    }
}

#[cfg(test)]
#[path = "memory/memory_test.rs"]
mod tests;
