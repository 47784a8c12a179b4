//! The stores on disk: two RocksDB instances in one data directory, and who may open it.
//!
//! `log/` and `state/` are the instances. `FORMAT` holds the number of the disk format as text; it is read before
//! anything else, so that a directory of a newer program is refused with a sentence instead of whatever RocksDB says
//! about a column family it does not know. `LOCK` is locked for as long as any handle lives, and names the process.
//!
//! Both instances hold one random **pairing id**, written when the directory is made. When they differ, one of them was
//! replaced or lost, and what the log says was applied is not what the state holds: [`Stores::paired`] is false.
//!
//! Invariants: no RocksDB call is made without the lock; nothing is created in a directory of an unknown format.
//! Absent on purpose: repair. A replica that cannot be trusted is rebuilt from its group, never patched.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;

use crate::{Error, StateBatch, StateDb, StateView, Stores, Table, keyspace};

mod directory;
mod log;
mod options;
mod state;
mod view;

use directory::Directory;
pub use directory::FORMAT;
use log::RocksLog;
use state::RocksState;

/// How the stores are opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Wall clock of the node in microseconds since 1970, kept current by the node; `i64::MIN` until it is first set. Only
    /// decides which long expired rows a compaction drops: reads never rely on it.
    pub wall_clock: Arc<AtomicI64>,
    /// Memory of the block cache that both instances share.
    pub cache_bytes: usize,
    /// **Unsafe**: false lets a commit return before it is on disk, so a power cut loses acknowledged writes. Exists only
    /// so that a test can show that the sync matters.
    #[doc(hidden)]
    pub sync: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { wall_clock: Arc::new(AtomicI64::new(i64::MIN)), cache_bytes: 128 << 20, sync: true }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall_clock, cache_bytes, sync } = self;
        f.debug_struct("OpenOptions")
            .field("wall_clock", wall_clock)
            .field("cache_bytes", cache_bytes)
            .field("sync", sync)
            .finish()
    }
}

/// Opens the stores of `dir`, making them if there are none. Blocks: recovery reads the whole write-ahead log.
pub fn open(dir: &Path, options: &OpenOptions) -> Result<Stores, Error> {
    let directory = Arc::new(Directory::claim(dir)?);
    if !options.sync {
        tracing::warn!(dir = %dir.display(), "the log is not synced: a power cut loses acknowledged writes");
    }
    let cache = rocksdb::Cache::new_lru_cache(options.cache_bytes);
    let log = RocksLog::open(directory.clone(), &cache, options)?;
    let state = RocksState::open(directory.clone(), &cache, options)?;
    directory.sync()?;
    let paired = pair(&log, &state)?;
    if !paired {
        tracing::error!(dir = %dir.display(), "log and state store are not of one making: one of them was replaced");
    }
    Ok(Stores { log: Arc::new(log), state: Arc::new(state), paired })
}

/// Compares the pairing ids; writes one where neither store holds anything, which is also how a creation that was cut off
/// looks.
fn pair(log: &RocksLog, state: &RocksState) -> Result<bool, Error> {
    let of_log = log.pairing()?;
    let of_state = state.get(Table::System, &keyspace::state_pairing())?;
    if of_log.is_some() && of_log == of_state {
        return Ok(true);
    }
    if !log.is_empty()? || !state.is_empty()? {
        return Ok(false);
    }
    let id = Bytes::copy_from_slice(&rand::random::<[u8; 16]>());
    let mut batch = StateBatch::default();
    batch.put(Table::System, keyspace::state_pairing(), id.clone());
    state.write(batch)?;
    state.flush()?;
    log.set_pairing(&id)?;
    Ok(true)
}

#[cfg(test)]
#[path = "rocks/rocks_test.rs"]
mod tests;
