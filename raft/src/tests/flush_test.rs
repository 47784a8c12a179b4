//! What a flush has reached, and what may be purged for it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use callboard_machine::partition::Response;
use callboard_storage::{Error, Pair, StateBatch, StateDb, StateView, Table};
use openraft::storage::RaftLogStorage;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::*;

/// Enough for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A state store whose flush, when asked to, returns late: everything of before is on disk, and time passes.
struct Late {
    db: Arc<dyn StateDb>,
    late: Arc<AtomicBool>,
    /// Told of the flush that has been done; it returns when the answer is dropped.
    flushed: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl StateView for Late {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.db.get(table, key)
    }

    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        self.db.scan(table, range, limit)
    }

    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        self.db.scan_back(table, range, limit)
    }
}

impl StateDb for Late {
    fn write(&self, batch: StateBatch) -> Result<(), Error> {
        self.db.write(batch)
    }

    fn flush(&self) -> Result<(), Error> {
        self.db.flush()?;
        if self.late.swap(false, Ordering::SeqCst) {
            let (go, gone) = oneshot::channel();
            self.flushed.send(go).expect("the test waits for the flush");
            let _ = gone.blocking_recv();
        }
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.db.unflushed_bytes()
    }

    fn view(&self) -> Result<Box<dyn StateView>, Error> {
        self.db.view()
    }

    fn ingest(&self, table: Table, pairs: &mut dyn Iterator<Item = Result<Pair, Error>>) -> Result<(), Error> {
        self.db.ingest(table, pairs)
    }
}

async fn write(partition: &Partition, tenure: &Tenure, keys: Range<u64>) {
    for key in keys {
        let write = command(tenure.epoch(), actor("tom"), vec![upsert(&key.to_string(), "fish")]);
        assert_eq!(partition.propose(write).await.unwrap(), Response::Done);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_during_a_flush_is_not_taken_for_flushed() {
    let (memory, late) = (Memory::new(), Arc::new(AtomicBool::new(false)));
    let (flushed, mut flushes) = mpsc::unbounded_channel();
    let Stores { log, state, paired } = memory.open();
    let state = Arc::new(Late { db: state, late: late.clone(), flushed });
    let groups = start(Stores { log, state, paired }, 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    write(&partition, &tenure, 0..10).await;
    let before = partition.applied_index();
    late.store(true, Ordering::SeqCst);
    let flush = {
        let groups = groups.clone();
        tokio::spawn(async move { groups.flush().await })
    };
    let go = timeout(PATIENCE, flushes.recv()).await.expect("the store is flushed").unwrap();
    write(&partition, &tenure, 10..20).await;
    drop(go);
    flush.await.unwrap().unwrap();
    assert_eq!(partition.durable_index(), before);
    // With the log purged behind the flush, a crash loses nothing.
    memory.crash();
    let groups = start_in(&memory, 1).await;
    let reader = first(&groups).reader();
    for key in 0..20 {
        assert_eq!(reader.state(&actor("tom"), &key.to_string(), NOW).unwrap(), Some(value("fish")), "{key}");
    }
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_keeps_what_was_not_flushed_whoever_asks_for_a_purge() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    write(&partition, &tenure, 0..10).await;
    groups.flush().await.unwrap();
    write(&partition, &tenure, 10..20).await;
    let applied = partition.replica().state.applied().last.expect("something is applied");
    assert!(partition.durable_index() < applied.index);
    let mut log = partition.replica().log.clone();
    log.purge(applied).await.unwrap();
    assert_eq!(log.purged().map(|purged| purged.index), Some(partition.durable_index()));
    groups.shutdown().await;
}
