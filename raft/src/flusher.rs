//! Makes the state of all groups durable, and only then lets their logs go.
//!
//! One flush serves every group of the node, since they share one store: after so many bytes of log, or after so long.
//! The order is the point. What each group has applied is noted *before* the flush; after it, exactly that is known to
//! be on disk; only that becomes openraft's snapshot; only up to there the log is purged. A crash at any moment leaves
//! the log reaching down to where the state stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard_storage::{Error, StateDb};
use tokio::sync::watch;

use crate::log_store::LogMeter;
use crate::replica::Replica;

/// When the state is flushed, and what is left of a log.
#[derive(Debug, Clone, Copy)]
pub struct FlushPolicy {
    pub every: Duration,
    /// Entries behind the flushed one that stay for other replicas to catch up from. A replica without others keeps none.
    pub keep_entries: u64,
    /// Fewer entries than this are not worth a purge.
    pub min_purge: u64,
}

impl FlushPolicy {
    pub fn new(every: Duration) -> Self {
        Self { every, keep_entries: 5_000, min_purge: 1_024 }
    }
}

/// How long a built snapshot may take to be heard of: building one copies nothing.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Flusher {
    pub db: Arc<dyn StateDb>,
    pub meter: Arc<LogMeter>,
    pub policy: FlushPolicy,
    pub replicas: watch::Receiver<Vec<Arc<Replica>>>,
    /// One round at a time.
    pub round: tokio::sync::Mutex<()>,
}

impl Flusher {
    /// Flushes until it fails. A failed flush ends the node: what the store holds is not known any more.
    pub async fn run(self: Arc<Self>) -> Error {
        loop {
            tokio::select! {
                biased;
                () = self.meter.full() => {}
                () = tokio::time::sleep(self.policy.every) => {}
            }
            if let Err(error) = self.round().await {
                return error;
            }
        }
    }

    /// One flush, and the purge it allows.
    pub async fn round(&self) -> Result<(), Error> {
        let _one = self.round.lock().await;
        self.meter.reset();
        let replicas = self.replicas.borrow().clone();
        self.flush(&replicas).await?;
        for replica in &replicas {
            self.purge(replica).await;
        }
        Ok(())
    }

    async fn flush(&self, replicas: &[Arc<Replica>]) -> Result<(), Error> {
        let applied: Vec<_> = replicas.iter().map(|replica| replica.state.applied()).collect();
        let db = self.db.clone();
        tokio::task::spawn_blocking(move || db.flush()).await.map_err(|_| Error::Stopped)??;
        for (replica, applied) in replicas.iter().zip(applied) {
            replica.state.set_durable(applied);
        }
        Ok(())
    }

    /// Tells openraft of the flushed state and purges behind it. A group that has stopped needs neither.
    async fn purge(&self, replica: &Replica) {
        let Some(durable) = replica.state.durable().last else { return };
        let keep = if replica.is_alone() { 0 } else { self.policy.keep_entries };
        let Some(upto) = durable.index.checked_sub(keep) else { return };
        let upto = replica.pins.lowest(Instant::now()).map_or(upto, |pinned| upto.min(pinned));
        let purged = replica.log.purged().map_or(0, |purged| purged.index);
        if upto.saturating_sub(purged) < self.policy.min_purge {
            return;
        }
        let outcome = async {
            replica.log.persist_committed().await.map_err(|error| error.to_string())?;
            replica.raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
            let wait = replica.raft.wait(Some(SNAPSHOT_TIMEOUT));
            let built = wait.metrics(|metrics| metrics.snapshot >= Some(durable), "the flushed state is the snapshot");
            built.await.map_err(|error| error.to_string())?;
            replica.raft.trigger().purge_log(upto).await.map_err(|error| error.to_string())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(group = %replica.group, upto, %error, "the log is not purged");
        }
    }
}
