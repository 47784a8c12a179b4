//! The state store in RocksDB.
//!
//! Every write skips the write-ahead log; an atomic flush of all column families makes it durable. A range is emptied key by
//! key when few keys are in it: a range tombstone costs every later read of the table until a compaction takes it, and
//! actors are deleted one by one, in numbers.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{Cache, ColumnFamily, DB, SstFileWriter, WriteBatch};

use super::directory::Directory;
use super::view::Moment;
use super::{OpenOptions, options};
use crate::{Error, Pair, StateBatch, StateDb, StateView, Table, keyspace};

/// A range of up to this many keys is emptied key by key.
const POINT_DELETES: usize = 256;
/// Bytes of one ingested file.
const INGEST_FILE_BYTES: u64 = 64 << 20;

pub struct RocksState {
    inner: Arc<Inner>,
    cache: Cache,
    directory: Arc<Directory>,
    unflushed: AtomicU64,
    /// One flush at a time, so that each takes its own bytes off the count.
    flushing: Mutex<()>,
    ingests: AtomicU64,
}

/// What a view keeps alive. The database closes before the directory's lock goes.
pub struct Inner {
    pub db: DB,
    _directory: Arc<Directory>,
}

impl Inner {
    pub fn family(&self, table: Table) -> &ColumnFamily {
        let name = match table {
            Table::State => options::STATE,
            Table::Reminder => options::REMINDERS,
            Table::System => options::SYSTEM,
        };
        self.db.cf_handle(name).expect("every column family is opened with the database")
    }
}

impl RocksState {
    pub fn open(directory: Arc<Directory>, cache: &Cache, open: &OpenOptions) -> Result<Self, Error> {
        let families = options::state_families(cache, &open.wall_clock);
        let db = DB::open_cf_descriptors(&options::state_db(), directory.state(), families)
            .map_err(|error| Error::io("open the state store", error))?;
        Ok(Self {
            inner: Arc::new(Inner { db, _directory: directory.clone() }),
            cache: cache.clone(),
            directory,
            unflushed: AtomicU64::new(0),
            flushing: Mutex::new(()),
            ingests: AtomicU64::new(0),
        })
    }

    /// Nothing is there but rows of the node itself, which any start may have written.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let pointers = self.scan(Table::System, keyspace::pointers_range(), 1)?;
        Ok(pointers.is_empty() && keyspace::incarnations(self)?.is_empty())
    }

    fn empty_range(&self, batch: &mut WriteBatch, table: Table, range: Range<Bytes>) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let family = self.inner.family(table);
        let keys = self.scan(table, range.clone(), POINT_DELETES + 1)?;
        if keys.len() <= POINT_DELETES {
            keys.iter().for_each(|(key, _)| batch.delete_cf(family, key));
        } else {
            batch.delete_range_cf(family, range.start, range.end);
        }
        Ok(())
    }

    /// Writes the pairs into files that can be moved into the store.
    fn write_files(
        &self,
        dir: &Path,
        pairs: &mut dyn Iterator<Item = Result<Pair, Error>>,
    ) -> Result<Vec<PathBuf>, Error> {
        let failed = |error| Error::io("write a file to ingest", error);
        let format = options::state_family(&self.cache);
        let mut files = Vec::new();
        let mut last: Option<Bytes> = None;
        let mut pairs = pairs.peekable();
        while pairs.peek().is_some() {
            let path = dir.join(format!("{}.sst", files.len()));
            let mut file = SstFileWriter::create(&format);
            file.open(&path).map_err(failed)?;
            while file.file_size() < INGEST_FILE_BYTES
                && let Some(pair) = pairs.next()
            {
                let (key, value) = pair?;
                if last.as_ref().is_some_and(|last| *last >= key) {
                    return Err(Error::corrupt("ingested pairs", "keys that do not rise"));
                }
                file.put(&key, &value).map_err(failed)?;
                last = Some(key);
            }
            file.finish().map_err(failed)?;
            files.push(path);
        }
        Ok(files)
    }
}

impl StateView for RocksState {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        self.inner.scan(table, range, limit)
    }

    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        self.inner.scan_back(table, range, limit)
    }
}

impl StateDb for RocksState {
    fn write(&self, batch: StateBatch) -> Result<(), Error> {
        let bytes = batch.bytes();
        let mut writes = WriteBatch::default();
        for (table, range) in batch.delete_ranges {
            self.empty_range(&mut writes, table, range)?;
        }
        for (table, key) in batch.deletes {
            writes.delete_cf(self.inner.family(table), key);
        }
        for (table, key, value) in batch.puts {
            writes.put_cf(self.inner.family(table), key, value);
        }
        self.inner.db.write_opt(writes, &options::state_write()).map_err(|error| Error::io("write state", error))?;
        self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let _flushing = self.flushing.lock();
        let before = self.unflushed.load(Ordering::Relaxed);
        let families = Table::ALL.map(|table| self.inner.family(table));
        self.inner
            .db
            .flush_cfs_opt(&families, &options::flush())
            .map_err(|error| Error::io("flush the state store", error))?;
        // Only what was written before: a write during the flush may be in the next one.
        self.unflushed.fetch_sub(before, Ordering::Relaxed);
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    fn view(&self) -> Result<Box<dyn StateView>, Error> {
        Ok(Box::new(Moment::take(self.inner.clone())))
    }

    fn ingest(&self, table: Table, pairs: &mut dyn Iterator<Item = Result<Pair, Error>>) -> Result<(), Error> {
        let dir = self.directory.ingest().join(self.ingests.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(&dir).map_err(|error| Error::io("make the ingest directory", error))?;
        let loaded = self.write_files(&dir, pairs).and_then(|files| match files.is_empty() {
            true => Ok(()),
            false => self
                .inner
                .db
                .ingest_external_file_cf_opts(self.inner.family(table), &options::ingest(), files)
                .map_err(|error| Error::io("ingest state", error)),
        });
        // Emptied at the next start at the latest.
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(%error, dir = %dir.display(), "remove an ingest directory");
        }
        loaded
    }
}

#[cfg(test)]
impl RocksState {
    /// Lets the compaction filter see every row of actor state.
    pub fn compact(&self) {
        let mut options = rocksdb::CompactOptions::default();
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        self.inner.db.compact_range_cf_opt(self.inner.family(Table::State), None::<&[u8]>, None::<&[u8]>, &options);
    }
}
