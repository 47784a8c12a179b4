//! The group-commit writer: one thread, one batch, one sync for every group of the node.

use std::sync::Arc;

use callboard_types::GroupId;

use crate::{Error, LogDb, LogWrite};

/// Bounds of the writer.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    /// Bytes waiting or being written; a further submission waits.
    pub max_queued_bytes: usize,
    /// Bytes of one batch.
    pub max_batch_bytes: usize,
}

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

/// Called on the writer's thread, in order of submission, when the write is on disk.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Handle of the writer's thread; clones share it.
#[derive(Clone)]
pub struct LogWriter {}

impl LogWriter {
    pub fn start(_db: Arc<dyn LogDb>, _config: WriterConfig) -> Result<Self, Error> {
        todo!("the storage helper writes this")
    }

    /// Queues a write behind all earlier ones; waits while the queue is full. `done` is always called, exactly once.
    pub async fn submit(&self, _group: GroupId, _write: LogWrite, _done: Done) {
        todo!("the storage helper writes this")
    }

    pub fn stats(&self) -> WriterStats {
        todo!("the storage helper writes this")
    }
}
