//! The log store in RocksDB.
//!
//! Bounds of each group (first index that counts, last index, how far bytes are really deleted) are kept in memory, so that
//! no iterator starts below the first index: what lies there is range tombstones, which an iterator would walk through.
//! A purge moves the first index at once and deletes bytes only when [`PURGE_ENTRIES`] have gathered, by one range
//! tombstone. The first index is a row of its own, because what the *purged* slot holds is not this crate's to read.
//!
//! Invariant: the bounds change only after the batch is on disk, and only by `commit`, which one thread calls.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use callboard_types::GroupId;
use parking_lot::RwLock;
use rocksdb::{Cache, ColumnFamily, DB, DBRawIterator, WriteBatch, WriteOptions};

use super::directory::Directory;
use super::{OpenOptions, options};
use crate::{Error, LogDb, LogEntry, LogSlot, LogWrite, keyspace};

/// Purged entries that are deleted together; also how many a truncation deletes one by one.
const PURGE_ENTRIES: u64 = 1_024;

pub struct RocksLog {
    db: DB,
    write: WriteOptions,
    groups: RwLock<BTreeMap<GroupId, Bounds>>,
    /// Unlocked after the database has closed.
    _directory: Arc<Directory>,
}

/// What is known of a group that has rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Bounds {
    /// Entries below it are purged.
    first: u64,
    /// Bytes of entries below it are deleted; at most `first`.
    deleted: u64,
    last: Option<u64>,
    slots: Slots,
}

/// Whether `meta` holds rows of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Slots {
    #[default]
    None,
    Some,
}

impl Bounds {
    fn has_rows(&self) -> bool {
        self.last.is_some() || self.slots == Slots::Some
    }
}

impl RocksLog {
    pub fn open(directory: Arc<Directory>, cache: &Cache, open: &OpenOptions) -> Result<Self, Error> {
        let db = DB::open_cf_descriptors(&options::log_db(), directory.log(), options::log_families(cache))
            .map_err(|error| Error::io("open the log store", error))?;
        let log = Self { db, write: options::log_write(open.sync), groups: RwLock::default(), _directory: directory };
        *log.groups.write() = log.recover()?;
        Ok(log)
    }

    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.groups.read().is_empty())
    }

    pub fn pairing(&self) -> Result<Option<Bytes>, Error> {
        self.get(self.meta(), &keyspace::log_pairing())
    }

    /// Durable when it returns.
    pub fn set_pairing(&self, id: &[u8]) -> Result<(), Error> {
        self.db
            .put_cf_opt(self.meta(), keyspace::log_pairing(), id, &options::log_write(true))
            .map_err(|error| Error::io("write the pairing id", error))
    }

    /// Bounds of every group with slots, then of every group with entries only: each is found by its last entry, one
    /// step per group.
    fn recover(&self) -> Result<BTreeMap<GroupId, Bounds>, Error> {
        let mut groups = BTreeMap::new();
        let mut rows = self.iterate(self.meta(), &keyspace::log_meta_range());
        while let Some(key) = rows.key() {
            if let Some(group) = keyspace::parse_log_meta(key)? {
                groups.entry(group).or_insert(Bounds { slots: Slots::Some, ..Bounds::default() });
            }
            rows.next();
        }
        finish(&rows)?;
        self.groups_with_entries(&mut groups)?;
        for (group, bounds) in &mut groups {
            bounds.first = self.first_index(*group)?;
            bounds.last = self.last_entry(*group, bounds.first)?.map(|entry| entry.index);
        }
        Ok(groups)
    }

    fn groups_with_entries(&self, groups: &mut BTreeMap<GroupId, Bounds>) -> Result<(), Error> {
        let mut all = keyspace::log_meta_range();
        loop {
            let rows = self.iterate(self.log(), &all);
            let Some(key) = rows.key() else {
                return finish(&rows);
            };
            let (group, _) = keyspace::parse_log_entry(key)?;
            groups.entry(group).or_default();
            all.start = keyspace::log_group_range(group).end;
        }
    }

    fn first_index(&self, group: GroupId) -> Result<u64, Error> {
        let Some(row) = self.get(self.meta(), &keyspace::log_first_index(group))? else {
            return Ok(0);
        };
        match row.first_chunk() {
            Some(index) if row.len() == 8 => Ok(u64::from_be_bytes(*index)),
            Some(_) | None => Err(Error::corrupt("first index of a log", format!("{} bytes", row.len()))),
        }
    }

    /// What the store itself holds last, at `first` or above.
    fn last_entry(&self, group: GroupId, first: u64) -> Result<Option<LogEntry>, Error> {
        let range = keyspace::log_range_from(group, first);
        let mut rows = self.db.raw_iterator_cf_opt(self.log(), options::bounded(&range.start, &range.end));
        rows.seek_to_last();
        let last = rows.item().map(|(key, value)| entry(key, value)).transpose()?;
        finish(&rows)?;
        Ok(last)
    }

    fn log(&self) -> &ColumnFamily {
        self.db.cf_handle(options::LOG).expect("every column family is opened with the database")
    }

    fn meta(&self) -> &ColumnFamily {
        self.db.cf_handle(options::META).expect("every column family is opened with the database")
    }

    fn get(&self, family: &ColumnFamily, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let row = self.db.get_cf(family, key).map_err(|error| Error::io("read the log store", error))?;
        Ok(row.map(Bytes::from))
    }

    /// An iterator at the first row of `range`.
    fn iterate(&self, family: &ColumnFamily, range: &Range<Bytes>) -> DBRawIterator<'_> {
        let mut rows = self.db.raw_iterator_cf_opt(family, options::bounded(&range.start, &range.end));
        rows.seek(&range.start);
        rows
    }

    fn bounds(&self, group: GroupId) -> Bounds {
        self.groups.read().get(&group).copied().unwrap_or_default()
    }

    /// Adds one write to the batch and returns the group's bounds after it; `None`: the group is gone.
    fn add(&self, batch: &mut WriteBatch, group: GroupId, bounds: Bounds, write: &LogWrite) -> Option<Bounds> {
        match write {
            LogWrite::Append { entries } => Some(self.append(batch, group, bounds, entries)),
            LogWrite::SetSlot { slot, bytes } => {
                batch.put_cf(self.meta(), keyspace::log_slot(group, *slot), bytes);
                Some(Bounds { slots: Slots::Some, ..bounds })
            }
            LogWrite::Truncate { from } => Some(self.truncate(batch, group, bounds, *from)),
            LogWrite::Purge { up_to, marker } => Some(self.purge(batch, group, bounds, *up_to, marker)),
            LogWrite::RemoveGroup => {
                let all = keyspace::log_group_range(group);
                batch.delete_range_cf(self.log(), &all.start, &all.end);
                batch.delete_range_cf(self.meta(), &all.start, &all.end);
                None
            }
        }
    }

    fn append(&self, batch: &mut WriteBatch, group: GroupId, mut bounds: Bounds, entries: &[LogEntry]) -> Bounds {
        for entry in entries {
            batch.put_cf(self.log(), keyspace::log_entry(group, entry.index), &entry.bytes);
            bounds.last = bounds.last.max(Some(entry.index));
        }
        bounds
    }

    fn truncate(&self, batch: &mut WriteBatch, group: GroupId, mut bounds: Bounds, from: u64) -> Bounds {
        let Some(last) = bounds.last.filter(|last| *last >= from) else {
            return bounds;
        };
        if last - from < PURGE_ENTRIES {
            (from..=last).for_each(|index| batch.delete_cf(self.log(), keyspace::log_entry(group, index)));
        } else {
            let range = keyspace::log_range_from(group, from);
            batch.delete_range_cf(self.log(), range.start, range.end);
        }
        bounds.last = from.checked_sub(1).filter(|last| *last >= bounds.first);
        bounds
    }

    fn purge(&self, batch: &mut WriteBatch, group: GroupId, mut bounds: Bounds, up_to: u64, marker: &Bytes) -> Bounds {
        batch.put_cf(self.meta(), keyspace::log_slot(group, LogSlot::Purged), marker);
        let first = up_to.saturating_add(1).max(bounds.first);
        bounds.first = first;
        bounds.slots = Slots::Some;
        bounds.last = bounds.last.filter(|last| *last >= first);
        batch.put_cf(self.meta(), keyspace::log_first_index(group), first.to_be_bytes());
        if first - bounds.deleted >= PURGE_ENTRIES {
            let range = keyspace::log_range(group, bounds.deleted..first);
            batch.delete_range_cf(self.log(), range.start, range.end);
            bounds.deleted = first;
        }
        bounds
    }
}

impl LogDb for RocksLog {
    fn commit(&self, writes: &[(GroupId, LogWrite)]) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        let mut after: BTreeMap<GroupId, Option<Bounds>> = BTreeMap::new();
        for (group, write) in writes {
            let before = match after.get(group) {
                Some(bounds) => bounds.unwrap_or_default(),
                None => self.bounds(*group),
            };
            after.insert(*group, self.add(&mut batch, *group, before, write));
        }
        self.db.write_opt(batch, &self.write).map_err(|error| Error::io("sync the log", error))?;
        let mut groups = self.groups.write();
        for (group, bounds) in after {
            match bounds {
                Some(bounds) if bounds.has_rows() => drop(groups.insert(group, bounds)),
                Some(_) | None => drop(groups.remove(&group)),
            }
        }
        Ok(())
    }

    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error> {
        let bounds = self.bounds(group);
        let start = range.start.max(bounds.first);
        // Above the last one may be the tombstone of a truncation.
        let end = range.end.min(bounds.last.map_or(0, |last| last.saturating_add(1)));
        let mut found = Vec::new();
        if start >= end {
            return Ok(found);
        }
        let mut bytes = 0;
        let mut rows = self.iterate(self.log(), &keyspace::log_range(group, start..end));
        while let Some((key, value)) = rows.item() {
            found.push(entry(key, value)?);
            bytes += value.len();
            if bytes >= max_bytes {
                break;
            }
            rows.next();
        }
        finish(&rows)?;
        Ok(found)
    }

    fn last(&self, group: GroupId) -> Result<Option<LogEntry>, Error> {
        let bounds = self.bounds(group);
        let Some(index) = bounds.last else {
            return Ok(None);
        };
        match self.get(self.log(), &keyspace::log_entry(group, index))? {
            Some(bytes) => Ok(Some(LogEntry { index, bytes })),
            // A commit has taken it away and not yet moved the bounds.
            None => self.last_entry(group, bounds.first),
        }
    }

    fn slot(&self, group: GroupId, slot: LogSlot) -> Result<Option<Bytes>, Error> {
        self.get(self.meta(), &keyspace::log_slot(group, slot))
    }

    fn groups(&self) -> Result<Vec<GroupId>, Error> {
        Ok(self.groups.read().keys().copied().collect())
    }
}

fn entry(key: &[u8], value: &[u8]) -> Result<LogEntry, Error> {
    let (_, index) = keyspace::parse_log_entry(key)?;
    Ok(LogEntry { index, bytes: Bytes::copy_from_slice(value) })
}

fn finish(rows: &DBRawIterator<'_>) -> Result<(), Error> {
    rows.status().map_err(|error| Error::io("scan the log store", error))
}
