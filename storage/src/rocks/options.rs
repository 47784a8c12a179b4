//! How the two RocksDB instances are set up, and why.
//!
//! *Log*: the write-ahead log is on and synced by the commit call. After a crash everything up to the first torn record
//! counts (`PointInTime`): nothing behind it was acknowledged. No compression: entries are short-lived.
//!
//! *State*: no write-ahead log, so a flush is what makes rows durable; it is atomic over the column families, because one
//! batch spans them. LZ4, bloom filters, and a cache shared with the other instance.
//!
//! `unordered_write` and pipelined writes stay off: the first breaks snapshots, the second brings nothing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, CompactionDecision, DBCompressionType, DBRecoveryMode,
    FlushOptions, IngestExternalFileOptions, Options, ReadOptions, WriteOptions,
};

use crate::codec;

pub const LOG: &str = "log";
pub const META: &str = "meta";
pub const STATE: &str = "state";
pub const REMINDERS: &str = "reminders";
pub const SYSTEM: &str = "sys";

const MIB: usize = 1 << 20;
const BACKGROUND_JOBS: i32 = 2;
const LOG_WRITE_BUFFER: usize = 64 * MIB;
const LOG_WRITE_BUFFERS: i32 = 3;
/// Slots are few and overwritten for ever.
const META_WRITE_BUFFER: usize = 4 * MIB;
const STATE_WRITE_BUFFER: usize = 32 * MIB;
const STATE_WRITE_BUFFERS: i32 = 4;
/// The memtables of rarely written groups of columns are flushed when the log grows beyond this.
const MAX_WAL: u64 = 256 * MIB as u64;
const BYTES_PER_SYNC: u64 = MIB as u64;
/// RocksDB's own text logs: this many files of this size.
const TEXT_LOGS: usize = 4;
const TEXT_LOG_BYTES: usize = 16 * MIB;
const BLOCK_BYTES: usize = 16 << 10;
const BLOOM_BITS: f64 = 10.0;
/// A row is dropped by a compaction only when it expired longer ago than this, in microseconds.
pub const EXPIRY_GRACE_MICROS: i64 = 3_600 * 1_000_000;

fn common() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    options.set_max_open_files(-1);
    options.set_keep_log_file_num(TEXT_LOGS);
    options.set_max_log_file_size(TEXT_LOG_BYTES);
    options.set_paranoid_checks(true);
    options
}

fn blocks(cache: &Cache) -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks
}

pub fn log_db() -> Options {
    let mut options = common();
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_total_wal_size(MAX_WAL);
    options
}

pub fn log_families(cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let family = |name, buffer, buffers| {
        let mut options = Options::default();
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(buffer);
        options.set_max_write_buffer_number(buffers);
        options.set_block_based_table_factory(&blocks(cache));
        ColumnFamilyDescriptor::new(name, options)
    };
    vec![family(LOG, LOG_WRITE_BUFFER, LOG_WRITE_BUFFERS), family(META, META_WRITE_BUFFER, 2)]
}

pub fn state_db() -> Options {
    let mut options = common();
    options.set_atomic_flush(true);
    options
}

/// Options of one column family of the state store; also those of the files that are ingested into it.
pub fn state_family(cache: &Cache) -> Options {
    let mut blocks = blocks(cache);
    blocks.set_bloom_filter(BLOOM_BITS, false);
    let mut options = Options::default();
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(STATE_WRITE_BUFFER);
    options.set_max_write_buffer_number(STATE_WRITE_BUFFERS);
    options.set_block_based_table_factory(&blocks);
    options
}

pub fn state_families(cache: &Cache, wall_clock: &Arc<AtomicI64>) -> Vec<ColumnFamilyDescriptor> {
    let mut state = state_family(cache);
    let clock = wall_clock.clone();
    state.set_compaction_filter("callboard.expired", move |_level, _key: &[u8], row: &[u8]| {
        match is_long_expired(row, clock.load(Ordering::Relaxed)) {
            true => CompactionDecision::Remove,
            false => CompactionDecision::Keep,
        }
    });
    vec![
        ColumnFamilyDescriptor::new(STATE, state),
        ColumnFamilyDescriptor::new(REMINDERS, state_family(cache)),
        ColumnFamilyDescriptor::new(SYSTEM, state_family(cache)),
    ]
}

/// A row that nobody can see any more, on any replica. One that cannot be read is kept: deciding about it is for a reader,
/// who can fail.
pub fn is_long_expired(row: &[u8], now_micros: i64) -> bool {
    match codec::state_value_expiry(row) {
        Ok(Some(at)) => at.as_micros() < now_micros.saturating_sub(EXPIRY_GRACE_MICROS),
        Ok(None) | Err(_) => false,
    }
}

/// Of a commit of the log.
pub fn log_write(sync: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    options
}

/// Of every write of the state store.
pub fn state_write() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

pub fn flush() -> FlushOptions {
    let mut options = FlushOptions::default();
    options.set_wait(true);
    options
}

pub fn ingest() -> IngestExternalFileOptions {
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    options
}

/// Of an iterator: never without both bounds, so that it never walks through the tombstones of a neighbour.
pub fn bounded(start: &[u8], end: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_range(start.to_vec()..end.to_vec());
    options
}
