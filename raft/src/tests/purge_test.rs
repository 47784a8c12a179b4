//! Logs go only as far as the flushed state, and a state without its log starts again.

use callboard_machine::partition::Response;
use callboard_storage::LogSlot;
use callboard_types::GroupId;

use super::*;
use crate::convert::Storable;
use crate::type_config::LogId;

const GROUP: GroupId = GroupId::Partition(PartitionId(0));

async fn write(partition: &Partition, tenure: &Tenure, keys: std::ops::Range<u64>) {
    for key in keys {
        let write = command(tenure.epoch(), actor("tom"), vec![upsert(&key.to_string(), "fish")]);
        assert_eq!(partition.propose(write).await.unwrap(), Response::Done);
    }
}

/// Waits for the purge that a flush has asked for.
async fn purged(stores: &Stores, upto: u64) -> u64 {
    loop {
        let slot = stores.log.slot(GROUP, LogSlot::Purged).unwrap();
        let purged = slot.map_or(0, |slot| LogId::decode(&slot).unwrap().index);
        if purged >= upto {
            return purged;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_never_passes_the_flushed_state() {
    let memory = Memory::new();
    let groups = start_in(&memory, 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    write(&partition, &tenure, 0..50).await;
    assert_eq!(partition.durable_index(), 0);
    groups.flush().await.unwrap();
    let flushed = partition.durable_index();
    assert_eq!(flushed, partition.applied_index());
    write(&partition, &tenure, 50..80).await;
    // openraft is asked to purge everything it has applied; what was not flushed stays.
    let raft = &partition.replica().raft;
    raft.trigger().snapshot().await.unwrap();
    raft.trigger().purge_log(partition.applied_index()).await.unwrap();
    let stores = memory.open();
    assert_eq!(purged(&stores, flushed).await, flushed);
    assert_eq!(partition.durable_index(), flushed);
    memory.crash();
    let groups = start_in(&memory, 1).await;
    let reader = first(&groups).reader();
    for key in 0..80 {
        assert_eq!(reader.state(&actor("tom"), &key.to_string(), NOW).unwrap(), Some(value("fish")), "{key}");
    }
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_log_goes_on_after_a_restart() {
    let memory = Memory::new();
    for round in 0..3 {
        let groups = start_in(&memory, 1).await;
        let partition = first(&groups);
        let tenure = claim(&partition).await;
        assert_eq!(tenure.epoch(), Epoch(round + 1));
        write(&partition, &tenure, round * 10..round * 10 + 10).await;
        groups.flush().await.unwrap();
        purged(&memory.open(), partition.durable_index()).await;
        groups.shutdown().await;
    }
    let groups = start_in(&memory, 1).await;
    assert_eq!(first(&groups).reader().scan_state(None, None, 99, NOW).unwrap().len(), 30);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_bytes_of_log_bring_a_flush() {
    let memory = Memory::new();
    let mut config = config();
    config.flush_bytes = 4_096;
    let groups = open_with(config, memory.open()).await.unwrap();
    groups.bootstrap(settings(1), node_record(), NOW).await.unwrap();
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    write(&partition, &tenure, 0..200).await;
    // Two hundred writes are several times the bytes: a flush has come, and the log was let go behind it.
    assert!(purged(&memory.open(), 1).await > 0);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_what_the_state_needs_is_quarantined() {
    let memory = Memory::new();
    let groups = start_in(&memory, 1).await;
    let partition = first(&groups);
    let applied = partition.applied_index();
    groups.shutdown().await;
    // As if the state had been put back to an older copy.
    let marker = crate::type_config::log_id(1, applied + 10).encode();
    let purge = callboard_storage::LogWrite::Purge { up_to: applied + 10, marker };
    memory.open().log.commit(&[(GROUP, purge)]).unwrap();
    let refused = open_with(config(), memory.open()).await.err();
    assert!(matches!(refused, Some(crate::StartError::Quarantined(_))), "{refused:?}");
}
