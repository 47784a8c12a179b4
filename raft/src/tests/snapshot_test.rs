//! A snapshot carries a group's whole state from store to store, or nothing.

use callboard_machine::partition::Response;
use callboard_storage::{StateDb, Table, keyspace, rocks};
use callboard_types::GroupId;
use openraft::storage::RaftStateMachine;

use super::*;
use crate::convert::{Chunk, Storable};
use crate::group_state::{Applied, GroupState};
use crate::incarnations::Incarnations;
use crate::rules::{Live, PartitionRules, Rules};
use crate::snapshot::{self, SnapshotChunks};
use crate::state_store::StateStore;
use crate::type_config::{LogId, SnapshotMeta};

/// A partition with two actors, a reminder, and a value too large for one chunk.
async fn filled(stores: Stores) -> Groups {
    let groups = start(stores, 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    for n in 0..600 {
        let write = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("key-{n:04}"), "fish")]);
        assert_eq!(partition.propose(write).await.unwrap(), Response::Done);
    }
    let large = vec![upsert("large", vec![7; 3 << 20]), put_reminder("feed", NOW)];
    assert_eq!(partition.propose(command(tenure.epoch(), actor("kim"), large)).await.unwrap(), Response::Done);
    groups
}

struct Target {
    db: Arc<dyn StateDb>,
    state: Arc<GroupState>,
    store: StateStore,
}

fn target(stores: Stores) -> Target {
    let incarnations = Arc::new(Incarnations::open(stores.state.clone()).unwrap());
    let group = GroupId::Partition(PartitionId(0));
    let state = Arc::new(GroupState::new(group, 9, incarnations.allocate().unwrap(), Applied::default()));
    let rules = Rules::Partition(PartitionRules::new(PartitionId(0), Live::new(), Arc::new(Seen::default())));
    let store = StateStore::open(stores.state.clone(), incarnations, state.clone(), rules).unwrap();
    Target { db: stores.state, state, store }
}

fn export(groups: &Groups, stores: &Stores) -> (Applied, Vec<Bytes>) {
    let incarnation = first(groups).replica().state.incarnation();
    let export = snapshot::export(&*stores.state, incarnation).unwrap();
    (export.applied, export.chunks.map(|chunk| chunk.unwrap()).collect())
}

fn chunks(chunks: Vec<Bytes>) -> SnapshotChunks {
    SnapshotChunks::new(chunks.into_iter().map(Ok))
}

fn rows(db: &dyn StateDb, incarnation: u64) -> Vec<(Table, Bytes, Bytes)> {
    let mut rows = Vec::new();
    for table in Table::ALL {
        let range = keyspace::incarnation_range(incarnation);
        for (key, value) in db.scan(table, range, usize::MAX).unwrap() {
            let (_, within) = keyspace::split_incarnation(&key).unwrap();
            rows.push((table, key.slice_ref(within), value));
        }
    }
    rows
}

async fn install(target: &mut Target, last: Option<LogId>, data: SnapshotChunks) -> Result<(), std::io::Error> {
    let meta = SnapshotMeta { last_log_id: last, last_membership: Default::default() };
    target.store.install_snapshot(&meta, data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_memory_is_the_same_state_on_disk_and_back() {
    let (memory, back) = (Memory::new(), Memory::new());
    let groups = filled(memory.open()).await;
    let (applied, exported) = export(&groups, &memory.open());
    assert!(exported.len() > 4, "{} chunks", exported.len());
    let dir = tempfile::tempdir().unwrap();
    let disk = rocks::open(dir.path(), &rocks::OpenOptions::default()).unwrap();
    let mut on_disk = target(disk);
    install(&mut on_disk, applied.last, chunks(exported)).await.unwrap();
    assert_eq!((on_disk.state.applied(), on_disk.state.durable()), (applied.clone(), applied.clone()));
    let source = first(&groups).replica().state.incarnation();
    let expected = rows(&*memory.open().state, source);
    assert_eq!(rows(&*on_disk.db, on_disk.state.incarnation()), expected);

    let again = on_disk.store.get_current_snapshot().await.unwrap().expect("an installed snapshot is the current one");
    let mut returned = target(back.open());
    returned.store.install_snapshot(&again.meta, again.snapshot).await.unwrap();
    // What was switched to is on disk before the install has answered.
    let incarnation = returned.state.incarnation();
    back.crash();
    assert_eq!(rows(&*back.open().state, incarnation), expected);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installed_snapshot_replaces_what_was_there() {
    let memory = Memory::new();
    let groups = filled(memory.open()).await;
    let (applied, exported) = export(&groups, &memory.open());
    let mut target = target(Memory::new().open());
    for _ in 0..2 {
        let before = target.state.incarnation();
        install(&mut target, applied.last, chunks(exported.clone())).await.unwrap();
        assert_ne!(target.state.incarnation(), before);
        assert_eq!(rows(&*target.db, before), []);
    }
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_snapshot_changes_nothing() {
    let memory = Memory::new();
    let groups = filled(memory.open()).await;
    let (applied, whole) = export(&groups, &memory.open());
    let mut target = target(Memory::new().open());
    let incarnation = target.state.incarnation();

    let mut cut = whole.clone();
    cut.pop();
    let mut flipped = whole.clone();
    let mut bytes = flipped[1].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    flipped[1] = bytes.into();
    let mut missing = whole.clone();
    missing.remove(1);
    let mut swapped = whole.clone();
    swapped.swap(0, 1);
    let mut backwards = whole.clone();
    let system = backwards.len() - 2;
    backwards.swap(0, system);
    let endless = vec![Chunk::End { rows: 1 }.encode()];
    for (what, broken) in [
        ("cut off", cut),
        ("flipped", flipped),
        ("missing", missing),
        ("swapped", swapped),
        ("backwards", backwards),
        ("miscounted", endless),
        ("empty", Vec::new()),
    ] {
        let refused = install(&mut target, applied.last, chunks(broken)).await;
        assert!(refused.is_err(), "{what}");
        assert!(keyspace::incarnations(&*target.db).unwrap().is_empty(), "{what}: rows are left");
        assert_eq!((target.state.incarnation(), target.state.applied()), (incarnation, Applied::default()), "{what}");
    }
    let of_another_id = install(&mut target, Some(crate::type_config::log_id(9, 9)), chunks(whole)).await;
    assert!(of_another_id.is_err());
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_of_one_moment() {
    let memory = Memory::new();
    let groups = filled(memory.open()).await;
    let partition = first(&groups);
    let incarnation = partition.replica().state.incarnation();
    let expected = rows(&*memory.open().state, incarnation);
    let export = snapshot::export(&*memory.open().state, incarnation).unwrap();
    let tenure = claim(&partition).await;
    let later = command(tenure.epoch(), actor("zoe"), vec![upsert("food", "fish")]);
    partition.propose(later).await.unwrap();
    let mut target = target(Memory::new().open());
    install(&mut target, export.applied.last, export.chunks).await.unwrap();
    assert_eq!(rows(&*target.db, target.state.incarnation()), expected);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_no_replica_are_dropped_at_start() {
    let memory = Memory::new();
    let groups = filled(memory.open()).await;
    let held = first(&groups).replica().state.incarnation();
    groups.shutdown().await;
    let stores = memory.open();
    let stray = Incarnations::open(stores.state.clone()).unwrap().allocate().unwrap();
    let mut batch = callboard_storage::StateBatch::default();
    batch.put(Table::State, keyspace::actor_state(stray, &actor("tom"), "food"), Bytes::from_static(b"x"));
    stores.state.write(batch).unwrap();
    stores.state.flush().unwrap();
    let groups = start_in(&memory, 1).await;
    assert_eq!(rows(&*stores.state, stray), []);
    assert!(!rows(&*stores.state, held).is_empty());
    groups.shutdown().await;
}
