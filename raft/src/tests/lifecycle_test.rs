//! Forming, restarting, crashing.

use std::collections::BTreeMap;

use callboard_machine::meta::{MetaCommand, MetaResponse};
use callboard_machine::partition::Response;
use callboard_storage::{CommitFault, FaultPlan, rocks};

use super::*;
use crate::StartError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_holds_no_groups_until_a_cluster_is_made() {
    let groups = open(Memory::new().open()).await;
    assert!(groups.is_empty() && groups.partitions().is_empty());
    groups.bootstrap(settings(4), node_record(), NOW).await.unwrap();
    assert!(!groups.is_empty());
    assert_eq!(groups.partitions().iter().map(Partition::id).collect::<Vec<_>>(), [0, 1, 2, 3].map(PartitionId));
    assert!(groups.partitions().iter().all(|partition| *partition.leading().borrow()));
    let meta = groups.meta().watch().borrow().clone();
    assert_eq!(meta.settings, Some(settings(4)));
    assert_eq!(meta.nodes[&NODE], node_record());
    assert!(meta.partitions.values().all(|record| record.initialized && record.version == 1));
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_state_epoch_and_cluster_as_they_were() {
    let memory = Memory::new();
    let groups = start_in(&memory, 2).await;
    let cluster = groups.meta().watch().borrow().cluster;
    let tenure = claim(&first(&groups)).await;
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("food", "fish"), put_reminder("feed", NOW)]);
    assert_eq!(first(&groups).propose(write).await.unwrap(), Response::Done);
    groups.shutdown().await;

    let groups = start_in(&memory, 2).await;
    assert!(!groups.is_empty());
    assert_eq!(groups.meta().watch().borrow().cluster, cluster);
    let reader = first(&groups).reader();
    assert_eq!(reader.state(&actor("tom"), "food", NOW).unwrap(), Some(value("fish")));
    assert_eq!(reader.scan_due(None, 9).unwrap().len(), 1);
    let next = claim(&first(&groups)).await;
    assert_eq!((tenure.epoch(), next.epoch()), (Epoch(1), Epoch(2)));
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_from_disk_finds_state_and_epoch_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let stores = || {
        let options = rocks::OpenOptions { cache_bytes: 1 << 20, ..rocks::OpenOptions::default() };
        rocks::open(dir.path(), &options).unwrap()
    };
    let groups = start(stores(), 2).await;
    let tenure = claim(&first(&groups)).await;
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("food", "fish")]);
    assert_eq!(first(&groups).propose(write).await.unwrap(), Response::Done);
    drop(tenure);
    groups.shutdown().await;

    let groups = start(stores(), 2).await;
    assert_eq!(first(&groups).reader().state(&actor("tom"), "food", NOW).unwrap(), Some(value("fish")));
    assert_eq!(claim(&first(&groups)).await.epoch(), Epoch(2));
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_keeps_every_acknowledged_write_flushed_or_not() {
    let memory = Memory::new();
    let mut written = BTreeMap::new();
    for round in 1..=6_u64 {
        let groups = start_in(&memory, 3).await;
        for partition in groups.partitions() {
            let tenure = claim(&partition).await;
            assert_eq!(tenure.epoch(), Epoch(round));
            for n in 0..20 {
                let key = format!("{round}-{n}");
                let write = command(tenure.epoch(), actor("tom"), vec![upsert(&key, key.clone())]);
                assert_eq!(partition.propose(write).await.unwrap(), Response::Done);
                written.insert((partition.id(), key.clone()), key);
                if n == 10 && round % 2 == 0 {
                    groups.flush().await.unwrap();
                }
            }
        }
        memory.crash();
    }
    let groups = start_in(&memory, 3).await;
    for ((partition, key), expected) in &written {
        let reader = groups.partition(*partition).unwrap().reader();
        let found = reader.state(&actor("tom"), key, NOW).unwrap().map(|value| value.value);
        assert_eq!(found, Some(Bytes::from(expected.clone())), "{partition} {key}");
    }
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_among_concurrent_writes_keeps_the_acknowledged_and_halves_none() {
    let (mut cut_off, mut written) = (0, 0);
    for cut in [45, 60, 61, 80, 111, 150] {
        let memory = Memory::new();
        let fault = if cut % 2 == 0 { CommitFault::CrashBefore } else { CommitFault::CrashAfter };
        memory.plan_faults(FaultPlan::from([(cut, fault)]));
        let groups = start_in(&memory, 2).await;
        let mut writers = tokio::task::JoinSet::new();
        for partition in groups.partitions() {
            let epoch = claim(&partition).await.epoch();
            for writer in 0..8 {
                let partition = partition.clone();
                writers.spawn(async move {
                    let mut acknowledged = Vec::new();
                    for n in 0..1_000 {
                        let key = format!("{writer}-{n}");
                        let pair = vec![upsert(&format!("{key}-a"), "x"), upsert(&format!("{key}-b"), "x")];
                        match partition.propose(command(epoch, actor("tom"), pair)).await {
                            Ok(response) => assert_eq!(response, Response::Done),
                            Err(_) => break,
                        }
                        acknowledged.push((partition.id(), key));
                    }
                    acknowledged
                });
            }
        }
        let acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
        cut_off += usize::from(memory.commits() >= cut);
        written += acknowledged.len();
        drop(groups);
        memory.crash();
        memory.plan_faults(FaultPlan::new());
        let groups = start_in(&memory, 2).await;
        let has = |partition: PartitionId, key: &str| {
            let reader = groups.partition(partition).unwrap().reader();
            reader.state(&actor("tom"), key, NOW).unwrap().is_some()
        };
        for (partition, key) in &acknowledged {
            assert!(has(*partition, &format!("{key}-a")), "cut at {cut}: {key}");
        }
        for partition in [0, 1].map(PartitionId) {
            for n in 0..1_000 {
                for writer in 0..8 {
                    let halves = [format!("{writer}-{n}-a"), format!("{writer}-{n}-b")];
                    assert_eq!(has(partition, &halves[0]), has(partition, &halves[1]), "cut at {cut}: {halves:?}");
                }
            }
        }
        groups.shutdown().await;
    }
    assert_eq!(cut_off, 6, "every cut fell among the writes");
    assert!(written > 100, "{written} writes were acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_no_sync_reached_is_not_acknowledged_and_may_be_gone() {
    let memory = Memory::new();
    let groups = start_in(&memory, 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    memory.hold_commits();
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("food", "fish")]);
    let (writer, commits) = (partition.clone(), memory.commits());
    let proposal = tokio::spawn(async move { writer.propose(write).await });
    // The commit has begun and stands still.
    let waiting = memory.clone();
    tokio::task::spawn_blocking(move || waiting.await_commit(commits + 1)).await.unwrap();
    assert!(!proposal.is_finished());
    assert_eq!(partition.reader().state(&actor("tom"), "food", NOW).unwrap(), None);
    proposal.abort();
    memory.release_commits();
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_that_a_crash_cut_off_is_continued() {
    let whole = Memory::new();
    start_in(&whole, 2).await.shutdown().await;
    for cut in 1..=whole.commits() {
        let fault = if cut % 2 == 0 { CommitFault::CrashBefore } else { CommitFault::CrashAfter };
        let memory = Memory::new();
        memory.plan_faults(FaultPlan::from([(cut, fault)]));
        let forming = open(memory.open()).await;
        tokio::select! {
            _ = forming.bootstrap(settings(2), node_record(), NOW) => {}
            _ = forming.failed() => {}
        }
        drop(forming);
        memory.crash();
        // A cut that lies behind the last step falls away.
        memory.plan_faults(FaultPlan::new());
        let groups = start_in(&memory, 2).await;
        assert!(!groups.is_empty(), "cut at {cut}");
        let meta = groups.meta().watch().borrow().clone();
        assert!(meta.partitions.values().all(|record| record.version == 1 && record.replicas.len() == 1));
        for partition in groups.partitions() {
            assert_eq!(claim(&partition).await.epoch(), Epoch(1));
        }
        groups.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_name_is_refused() {
    let memory = Memory::new();
    let groups = start_in(&memory, 1).await;
    let other = Settings { name: "other".to_owned(), ..settings(1) };
    let refused = groups.bootstrap(other, node_record(), NOW).await;
    assert!(matches!(refused, Err(StartError::Mismatch(_))), "{refused:?}");
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_are_not_of_one_making_are_quarantined() {
    let stores = Stores { paired: false, ..Memory::new().open() };
    let refused = open_with(config(), stores).await.err();
    assert!(matches!(refused, Some(StartError::Quarantined(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_its_state_is_quarantined() {
    let (memory, empty) = (Memory::new(), Memory::new());
    start_in(&memory, 1).await.shutdown().await;
    let stores = Stores { state: empty.open().state, ..memory.open() };
    let refused = open_with(config(), stores).await.err();
    assert!(matches!(refused, Some(StartError::Quarantined(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_meta_group_remembers_what_it_was_told() {
    let memory = Memory::new();
    let groups = start_in(&memory, 1).await;
    let types = vec!["cat".to_owned(), "dog".to_owned()];
    let register = MetaCommand::RegisterTypes { namespace: "default".to_owned(), app_id: "zoo".to_owned(), types };
    let mut watch = groups.meta().watch();
    watch.mark_unchanged();
    assert_eq!(groups.meta().propose(register).await.unwrap(), MetaResponse::Done);
    assert!(watch.has_changed().unwrap());
    memory.crash();
    let groups = start_in(&memory, 1).await;
    let types = groups.meta().watch().borrow().types.clone();
    assert_eq!(types[&("default".to_owned(), "cat".to_owned())], "zoo");
    groups.shutdown().await;
}
