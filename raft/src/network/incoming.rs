//! A snapshot on its way in: chunk by chunk into rows that nothing refers to, and only whole into Raft.
//!
//! One thread reads the chunks of one transfer out of a short queue and stages them; a chunk is acknowledged when it has
//! a place in there, so the sender goes as fast as the disk. A group takes one snapshot at a time: a later transfer ends
//! the former, whose sender has given up. A transfer that falls silent ends by itself. Whatever ends before its end
//! leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_storage::{Error, StateDb};
use callboard_types::GroupId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::ReceiveError;
use crate::convert::corrupt;
use crate::convert::peer::Received;
use crate::incarnations::Incarnations;
use crate::snapshot::{self, SnapshotChunks, Staged};
use crate::type_config::{Raft, Snapshot, SnapshotMeta, Vote};

/// Chunks that wait for the thread.
const QUEUE: usize = 2;
/// A transfer without a chunk for this long is over.
const SILENCE: Duration = Duration::from_secs(30);
/// Snapshots that a node takes at once, over all its groups.
pub const AT_ONCE: usize = 4;

/// What snapshots need to be staged.
#[derive(Clone)]
pub struct Staging {
    pub db: Arc<dyn StateDb>,
    pub incarnations: Arc<Incarnations>,
    pub places: Arc<Semaphore>,
}

/// Where one replica receives a snapshot.
pub struct Incoming {
    group: GroupId,
    staging: Staging,
    transfer: tokio::sync::Mutex<Option<Transfer>>,
}

struct Transfer {
    id: u64,
    vote: Vote,
    meta: SnapshotMeta,
    next: u64,
    chunks: mpsc::Sender<Bytes>,
    staged: JoinHandle<Result<Staged, Error>>,
}

impl Transfer {
    /// Ends it before its end, and waits until nothing is left of it.
    async fn abort(self) {
        drop(self.chunks);
        // An error is what it ends with.
        drop(self.staged.await);
    }
}

impl Incoming {
    pub fn new(group: GroupId, staging: Staging) -> Self {
        Self { group, staging, transfer: tokio::sync::Mutex::new(None) }
    }

    fn busy(&self, why: &str) -> ReceiveError {
        ReceiveError::Busy(format!("a snapshot of {}: {why}", self.group))
    }

    /// `current` is the vote of this replica.
    pub async fn begin(
        &self,
        id: u64,
        vote: Vote,
        meta: SnapshotMeta,
        current: Vote,
    ) -> Result<Received, ReceiveError> {
        let mut slot = self.transfer.lock().await;
        // Of two leaders the later one counts. Raft itself asks again when the rows are here.
        if current > vote {
            return Ok(Received::Vote(current));
        }
        if let Some(former) = slot.take() {
            former.abort().await;
        }
        let place = self.staging.places.clone().try_acquire_owned();
        let place = place.map_err(|_| self.busy("as many as this node takes are on their way"))?;
        let (chunks, mut queue) = mpsc::channel(QUEUE);
        let (staging, expected) = (self.staging.clone(), meta.last_log_id);
        let runtime = tokio::runtime::Handle::current();
        let staged = tokio::task::spawn_blocking(move || {
            let _place = place;
            let chunks = std::iter::from_fn(|| {
                let chunk = async { tokio::time::timeout(SILENCE, queue.recv()).await };
                match runtime.block_on(chunk) {
                    Ok(chunk) => chunk.map(Ok),
                    Err(_) => Some(Err(corrupt("snapshot", "its sender has fallen silent"))),
                }
            });
            snapshot::stage(staging.db, &staging.incarnations, expected, chunks)
        });
        *slot = Some(Transfer { id, vote, meta, next: 0, chunks, staged });
        Ok(Received::GoOn)
    }

    pub async fn chunk(&self, id: u64, sequence: u64, chunk: Bytes) -> Result<Received, ReceiveError> {
        let mut slot = self.transfer.lock().await;
        let transfer = slot.as_mut().filter(|transfer| transfer.id == id && transfer.next == sequence);
        let transfer = transfer.ok_or_else(|| self.busy("no such transfer"))?;
        if transfer.chunks.send(chunk).await.is_ok() {
            transfer.next += 1;
            return Ok(Received::GoOn);
        }
        let Some(transfer) = slot.take() else { return Err(self.busy("no such transfer")) };
        Err(self.broken(transfer.staged.await))
    }

    /// The rows are all here: Raft takes them, or has a reason not to.
    pub async fn end(&self, id: u64, chunks: u64, raft: &Raft) -> Result<Received, ReceiveError> {
        let mut slot = self.transfer.lock().await;
        if slot.as_ref().is_none_or(|transfer| transfer.id != id || transfer.next != chunks) {
            return Err(self.busy("no such transfer"));
        }
        let Some(transfer) = slot.take() else { return Err(self.busy("no such transfer")) };
        drop(transfer.chunks);
        let staged = match transfer.staged.await {
            Ok(Ok(staged)) => staged,
            broken => return Err(self.broken(broken)),
        };
        let snapshot = Snapshot { meta: transfer.meta, snapshot: SnapshotChunks::Staged(staged) };
        let installed = raft.install_full_snapshot(transfer.vote, snapshot).await;
        installed
            .map(|response| Received::Vote(response.vote))
            .map_err(|error| ReceiveError::Stopped(error.to_string()))
    }

    /// The replica leaves.
    pub async fn close(&self) {
        if let Some(transfer) = self.transfer.lock().await.take() {
            transfer.abort().await;
        }
    }

    fn broken<T>(&self, staged: Result<Result<T, Error>, tokio::task::JoinError>) -> ReceiveError {
        match staged {
            Ok(Ok(_)) => self.busy("it has ended already"),
            Ok(Err(error)) => ReceiveError::Malformed(error.to_string()),
            Err(error) => ReceiveError::Stopped(error.to_string()),
        }
    }
}
