//! openraft's own suite for storage, on the log and the state store over both engines.

use std::sync::Arc;

use callboard_storage::{LogWriter, Memory, Stores, WriterConfig, rocks};
use callboard_types::{GroupId, PartitionId};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::Seen;
use crate::group_state::{Applied, GroupState};
use crate::incarnations::Incarnations;
use crate::log_store::{LogMeter, LogShared, LogStore};
use crate::rules::{Live, PartitionRules, Rules};
use crate::state_store::StateStore;
use crate::tail::TailBudget;
use crate::type_config::{StoredMembership, TypeConfig, log_id};

/// One replica over `stores`, with no memory to spare for what is on disk.
fn replica(stores: Stores, tail_bytes: usize) -> (LogStore, StateStore) {
    let partition = PartitionId(0);
    let incarnations = Arc::new(Incarnations::open(stores.state.clone()).unwrap());
    let incarnation = incarnations.allocate().unwrap();
    let state = GroupState::new(GroupId::Partition(partition), 1, incarnation, Applied::default());
    let state = Arc::new(state);
    // The suite purges logs whose entries it never applies.
    state.set_durable(Applied { last: Some(log_id(u64::MAX, u64::MAX)), membership: StoredMembership::default() });
    let shared = LogShared {
        db: stores.log.clone(),
        writer: LogWriter::start(stores.log, WriterConfig::default()).unwrap(),
        budget: Arc::new(TailBudget::new(tail_bytes)),
        meter: Arc::new(LogMeter::new(u64::MAX)),
    };
    let rules = Rules::Partition(PartitionRules::new(partition, Live::new(), Arc::new(Seen::default())));
    let log = LogStore::open(shared, state.clone()).unwrap();
    (log, StateStore::open(stores.state, incarnations, state, rules).unwrap())
}

struct InMemory {
    tail_bytes: usize,
}

impl StoreBuilder<TypeConfig, LogStore, StateStore> for InMemory {
    async fn build(&self) -> Result<((), LogStore, StateStore), StorageError<TypeConfig>> {
        let (log, state) = replica(Memory::new().open(), self.tail_bytes);
        Ok(((), log, state))
    }
}

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateStore, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateStore), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let options = rocks::OpenOptions { cache_bytes: 1 << 20, ..rocks::OpenOptions::default() };
        let (log, state) = replica(rocks::open(dir.path(), &options).unwrap(), 0);
        Ok((dir, log, state))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_pass_the_suite_from_memory() {
    Suite::test_all(InMemory { tail_bytes: 1 << 20 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_pass_the_suite_when_every_synced_entry_is_read_from_the_log() {
    Suite::test_all(InMemory { tail_bytes: 0 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_pass_the_suite_on_disk() {
    Suite::test_all(OnDisk).await.unwrap();
}
