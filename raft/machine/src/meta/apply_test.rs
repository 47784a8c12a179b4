//! The rules of the meta group, one by one, and its rows over random logs.

use callboard_types::{ClusterId, GroupId, NodeId, PartitionId, ReplicaId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::limits::{MAX_META_NAME_BYTES, MAX_PLACEMENTS, MAX_REPLICAS};

fn settings() -> Settings {
    Settings {
        name: "default".to_owned(),
        partitions: 4,
        replicas: 3,
        hash_version: 1,
        ring_version: 1,
        host_lease_ms: 600,
        max_clock_offset_ms: 1_000,
        ephemeral: false,
    }
}

fn bootstrap(settings: Settings) -> MetaCommand {
    MetaCommand::Bootstrap { cluster: ClusterId(9), settings, now: Timestamp(0) }
}

fn put_node(node: u64, role: Role) -> MetaCommand {
    let (name, zone, address) = (format!("node-{node}"), String::new(), format!("10.0.0.{node}:50002"));
    let record = NodeRecord { name, role, zone, incarnation: 1, address, leaving: false };
    MetaCommand::PutNode { node: NodeId(node), record }
}

fn place(partition: u32, version: u64, replicas: &[(u64, u64)]) -> MetaCommand {
    let replicas = replicas.iter().map(|&(node, replica)| voter(node, replica)).collect();
    MetaCommand::Place { partition: PartitionId(partition), version, replicas }
}

fn place_meta(version: u64, replicas: &[(u64, u64)]) -> MetaCommand {
    let replicas = replicas.iter().map(|&(node, replica)| voter(node, replica)).collect();
    MetaCommand::PlaceMeta { version, replicas }
}

fn settled(group: GroupId, version: u64) -> MetaCommand {
    MetaCommand::Settled { group, version }
}

fn voter(node: u64, replica: u64) -> Placement {
    Placement { node: NodeId(node), replica: ReplicaId(replica), learner: false }
}

fn learner(node: u64, replica: u64) -> Placement {
    Placement { learner: true, ..voter(node, replica) }
}

fn register(app_id: &str, types: &[&str]) -> MetaCommand {
    let types = types.iter().map(|&actor_type| actor_type.to_owned()).collect();
    MetaCommand::RegisterTypes { namespace: "default".to_owned(), app_id: app_id.to_owned(), types }
}

/// A cluster with storage nodes 1 to 3 and gateway 4.
fn cluster() -> MetaState {
    let mut state = MetaState::default();
    accept(&mut state, &bootstrap(settings()));
    for node in 1..=3 {
        accept(&mut state, &put_node(node, Role::Storage));
    }
    accept(&mut state, &put_node(4, Role::Gateway));
    state
}

#[track_caller]
fn accept(state: &mut MetaState, command: &MetaCommand) -> Vec<MetaKey> {
    let (response, dirty) = state.apply(command);
    assert_eq!(response, MetaResponse::Done, "{command:?}");
    dirty
}

#[track_caller]
fn refuse(state: &mut MetaState, command: &MetaCommand) -> MetaRejection {
    let before = state.clone();
    let (response, dirty) = state.apply(command);
    assert_eq!(*state, before, "{command:?} wrote");
    assert_eq!(dirty, [], "{command:?} named rows");
    match response {
        MetaResponse::Rejected(rejection) => rejection,
        MetaResponse::Done => panic!("{command:?} was accepted"),
    }
}

#[test]
fn bootstrap_makes_every_partition_without_replicas() {
    let mut state = MetaState::default();
    let dirty = accept(&mut state, &bootstrap(settings()));
    assert_eq!((state.cluster, state.settings.as_ref()), (Some(ClusterId(9)), Some(&settings())));
    let records: Vec<_> = state.partitions.iter().map(|(partition, record)| (partition.0, record)).collect();
    let empty = PartitionRecord { version: 0, replicas: vec![], initialized: false, settled: 0 };
    assert_eq!(records, [(0, &empty), (1, &empty), (2, &empty), (3, &empty)]);
    assert_eq!(state.next_replica, 1);
    let partitions = (0..4).map(|partition| MetaKey::Partition(PartitionId(partition)));
    assert_eq!(dirty, Vec::from_iter(std::iter::once(MetaKey::Cluster).chain(partitions)));
}

#[test]
fn a_cluster_is_made_once() {
    let mut state = cluster();
    let again = MetaCommand::Bootstrap { cluster: ClusterId(10), settings: settings(), now: Timestamp(0) };
    for command in [bootstrap(settings()), again] {
        assert_eq!(refuse(&mut state, &command), MetaRejection::AlreadyBootstrapped);
    }
}

#[test]
fn nothing_is_accepted_before_there_is_a_cluster() {
    for command in [
        put_node(1, Role::Storage),
        MetaCommand::RemoveNode { node: NodeId(1) },
        place(0, 1, &[(1, 1)]),
        register("app", &["cat"]),
        MetaCommand::GroupInitialized { partition: PartitionId(0) },
        place_meta(1, &[(1, 1)]),
        settled(GroupId::Meta, 0),
        MetaCommand::RaiseGeneration { generation: 1 },
    ] {
        assert_eq!(refuse(&mut MetaState::default(), &command), MetaRejection::NotBootstrapped);
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        bootstrap(settings)
    };
    for command in [
        with(&|s| s.partitions = 0),
        with(&|s| s.partitions = 129),
        with(&|s| s.partitions = u32::MAX),
        with(&|s| s.replicas = 0),
        with(&|s| s.replicas = 2),
        with(&|s| s.replicas = MAX_REPLICAS + 2),
        with(&|s| s.host_lease_ms = 0),
        with(&|s| s.host_lease_ms = u64::MAX),
        with(&|s| s.max_clock_offset_ms = 0),
    ] {
        assert!(matches!(refuse(&mut MetaState::default(), &command), MetaRejection::InvalidSetting(_)));
    }
    for command in [with(&|s| s.name.clear()), with(&|s| s.name = "x".repeat(MAX_META_NAME_BYTES + 1))] {
        assert!(matches!(refuse(&mut MetaState::default(), &command), MetaRejection::InvalidName { .. }));
    }
    for command in [with(&|s| s.partitions = 1), with(&|s| s.partitions = 128), with(&|s| s.replicas = 1)] {
        accept(&mut MetaState::default(), &command);
    }
}

#[test]
fn a_node_is_added_updated_and_removed() {
    let mut state = cluster();
    let mut record = state.nodes[&NodeId(2)].clone();
    record.incarnation = 2;
    let update = MetaCommand::PutNode { node: NodeId(2), record: record.clone() };
    assert_eq!(accept(&mut state, &update), [MetaKey::Node(NodeId(2))]);
    assert_eq!(accept(&mut state, &update), []);
    assert_eq!(state.nodes[&NodeId(2)], record);
    let remove = MetaCommand::RemoveNode { node: NodeId(2) };
    assert_eq!(accept(&mut state, &remove), [MetaKey::Node(NodeId(2))]);
    assert_eq!(accept(&mut state, &remove), []);
    assert!(!state.nodes.contains_key(&NodeId(2)));
}

#[test]
fn a_node_that_holds_a_replica_is_not_removed() {
    let mut state = cluster();
    accept(&mut state, &place(2, 1, &[(1, 1), (2, 2)]));
    let rejection = refuse(&mut state, &MetaCommand::RemoveNode { node: NodeId(2) });
    let in_use = |group| MetaRejection::NodeInUse { node: NodeId(2), group };
    assert_eq!(rejection, in_use(GroupId::Partition(PartitionId(2))));
    accept(&mut state, &place(2, 2, &[(1, 1)]));
    accept(&mut state, &place_meta(1, &[(2, 3)]));
    assert_eq!(refuse(&mut state, &MetaCommand::RemoveNode { node: NodeId(2) }), in_use(GroupId::Meta));
    accept(&mut state, &place_meta(2, &[(1, 4)]));
    accept(&mut state, &MetaCommand::RemoveNode { node: NodeId(2) });
}

#[test]
fn the_first_row_of_the_meta_group_names_the_replica_that_formed_it() {
    let mut state = cluster();
    // Some ids have been handed out since: an older cluster gets its row late.
    accept(&mut state, &place(0, 1, &[(1, 1)]));
    let dirty = accept(&mut state, &place_meta(1, &[(1, FIRST_META_REPLICA.0)]));
    assert_eq!((dirty, state.next_replica), (vec![MetaKey::Meta], 2));
    assert_eq!(state.row_of(GroupId::Meta).map(|row| (row.version, row.settled)), Some((1, 0)));
    // It is kept like any other, and not given twice.
    accept(&mut state, &place_meta(2, &[(1, FIRST_META_REPLICA.0), (2, 2)]));
    let again = refuse(&mut state, &place_meta(3, &[(3, FIRST_META_REPLICA.0), (2, 2)]));
    assert_eq!(again, MetaRejection::ReplicaNotFresh { given: FIRST_META_REPLICA, next: 3 });
    assert_eq!(refuse(&mut state, &place_meta(5, &[(1, 1)])), MetaRejection::StaleTable { given: 5, stored: 2 });
}

#[test]
fn a_replica_changes_between_voter_and_learner_under_its_id() {
    let mut state = cluster();
    accept(&mut state, &place(0, 1, &[(1, 1)]));
    let partition = PartitionId(0);
    let with_learner = vec![voter(1, 1), learner(2, 2)];
    accept(&mut state, &MetaCommand::Place { partition, version: 2, replicas: with_learner });
    accept(&mut state, &place(0, 3, &[(1, 1), (2, 2)]));
    assert_eq!((state.partitions[&partition].voters().count(), state.next_replica), (2, 3));
    let unheard = vec![learner(1, 1), learner(2, 2)];
    let without_voter = MetaCommand::Place { partition, version: 4, replicas: unheard };
    assert_eq!(refuse(&mut state, &without_voter), MetaRejection::NoVoter);
}

#[test]
fn a_row_settles_up_to_its_version_and_never_back() {
    let mut state = cluster();
    let group = GroupId::Partition(PartitionId(1));
    let not_placed = |group, given, stored| MetaRejection::NotPlaced { group, given, stored };
    assert_eq!(refuse(&mut state, &settled(group, 1)), not_placed(group, 1, 0));
    accept(&mut state, &place(1, 1, &[(1, 1)]));
    assert!(!state.partitions[&PartitionId(1)].is_settled());
    assert_eq!(accept(&mut state, &settled(group, 1)), [MetaKey::Partition(PartitionId(1))]);
    assert_eq!(accept(&mut state, &settled(group, 1)), []);
    accept(&mut state, &place(1, 2, &[(2, 2)]));
    assert!(!state.partitions[&PartitionId(1)].is_settled());
    accept(&mut state, &settled(group, 2));
    assert_eq!(accept(&mut state, &settled(group, 1)), []);
    assert!(state.partitions[&PartitionId(1)].is_settled());
    accept(&mut state, &place_meta(1, &[(1, 3)]));
    assert_eq!(accept(&mut state, &settled(GroupId::Meta, 1)), [MetaKey::Meta]);
    let unknown = PartitionId(4);
    let rejection = refuse(&mut state, &settled(GroupId::Partition(unknown), 0));
    assert_eq!(rejection, MetaRejection::UnknownPartition(unknown));
}

#[test]
fn the_recovery_generation_only_rises() {
    let mut state = cluster();
    let raise = |generation| MetaCommand::RaiseGeneration { generation };
    assert_eq!(accept(&mut state, &raise(3)), [MetaKey::Cluster]);
    assert_eq!(accept(&mut state, &raise(3)), []);
    assert_eq!(refuse(&mut state, &raise(2)), MetaRejection::GenerationFalls { given: 2, stored: 3 });
    assert_eq!(state.generation, 3);
}

#[test]
fn a_placement_follows_the_stored_version_by_one() {
    let mut state = cluster();
    assert_eq!(accept(&mut state, &place(0, 1, &[(1, 1)])), [MetaKey::Partition(PartitionId(0)), MetaKey::Cluster]);
    for version in [0, 1, 3, u64::MAX] {
        let rejection = refuse(&mut state, &place(0, version, &[(1, 1)]));
        assert_eq!(rejection, MetaRejection::StaleTable { given: version, stored: 1 });
    }
    assert_eq!(accept(&mut state, &place(0, 2, &[(1, 1)])), [MetaKey::Partition(PartitionId(0))]);
    assert_eq!(state.partitions[&PartitionId(0)].version, 2);
}

#[test]
fn a_placement_names_known_partitions_and_distinct_known_nodes() {
    let mut state = cluster();
    let unknown = PartitionId(4);
    assert_eq!(refuse(&mut state, &place(4, 1, &[(1, 1)])), MetaRejection::UnknownPartition(unknown));
    assert_eq!(refuse(&mut state, &place(0, 1, &[(1, 1), (7, 2)])), MetaRejection::UnknownNode(NodeId(7)));
    assert_eq!(refuse(&mut state, &place(0, 1, &[(1, 1), (1, 2)])), MetaRejection::NodeTwice(NodeId(1)));
    let counted = |given| MetaRejection::ReplicaCount { given, max: MAX_PLACEMENTS };
    assert_eq!(refuse(&mut state, &place(0, 1, &[])), counted(0));
    let many: Vec<_> = (1..=MAX_PLACEMENTS as u64 + 1).map(|n| (n, n)).collect();
    assert_eq!(refuse(&mut state, &place(0, 1, &many)), counted(MAX_PLACEMENTS + 1));
}

#[test]
fn a_replica_id_is_never_handed_out_again() {
    let mut state = cluster();
    let not_fresh = |given, next| MetaRejection::ReplicaNotFresh { given: ReplicaId(given), next };
    assert_eq!(refuse(&mut state, &place(0, 1, &[(1, 0)])), not_fresh(0, 1));
    assert_eq!(refuse(&mut state, &place(0, 1, &[(1, 1), (2, 1)])), not_fresh(1, 1));
    // Ids may be skipped, and count upwards in any order.
    accept(&mut state, &place(0, 1, &[(1, 5), (2, 3)]));
    assert_eq!(state.next_replica, 6);
    // Neither one that is held, nor one that was skipped, nor one on another node or partition.
    for replicas in [[(1, 5), (3, 4)], [(1, 5), (3, 3)], [(1, 3), (2, 5)]] {
        assert!(matches!(refuse(&mut state, &place(0, 2, &replicas)), MetaRejection::ReplicaNotFresh { .. }));
    }
    assert_eq!(refuse(&mut state, &place(1, 1, &[(1, 5)])), not_fresh(5, 6));
    // One that was given up does not come back.
    accept(&mut state, &place(0, 2, &[(1, 5)]));
    assert_eq!(refuse(&mut state, &place(0, 3, &[(1, 5), (2, 3)])), not_fresh(3, 6));
    // A node whose disk was wiped takes its place again under a fresh one.
    accept(&mut state, &place(0, 3, &[(1, 6), (2, 7)]));
    assert_eq!(state.next_replica, 8);
    assert_eq!(refuse(&mut state, &place(0, 4, &[(1, u64::MAX)])), not_fresh(u64::MAX, 8));
}

#[test]
fn a_gateway_is_given_no_replica_but_keeps_those_it_has() {
    let mut state = cluster();
    assert_eq!(refuse(&mut state, &place(0, 1, &[(4, 1)])), MetaRejection::NotStorage(NodeId(4)));
    accept(&mut state, &place(0, 1, &[(1, 1), (2, 2)]));
    accept(&mut state, &put_node(2, Role::Gateway));
    accept(&mut state, &place(0, 2, &[(1, 1), (2, 2), (3, 3)]));
}

#[test]
fn the_first_app_to_register_a_type_names_it() {
    let mut state = cluster();
    let key = |actor_type: &str| MetaKey::Type { namespace: "default".to_owned(), actor_type: actor_type.to_owned() };
    assert_eq!(accept(&mut state, &register("zoo", &["cat", "dog", "cat"])), [key("cat"), key("dog")]);
    assert_eq!(accept(&mut state, &register("farm", &["dog", "cow"])), [key("cow")]);
    assert_eq!(accept(&mut state, &register("zoo", &["cat"])), []);
    let types: Vec<_> = state.types.iter().map(|((_, actor_type), app)| (actor_type.as_str(), app.as_str())).collect();
    assert_eq!(types, [("cat", "zoo"), ("cow", "farm"), ("dog", "zoo")]);
}

#[test]
fn a_registration_with_one_bad_type_registers_none() {
    let mut state = cluster();
    assert!(matches!(refuse(&mut state, &register("zoo", &["cat", ""])), MetaRejection::InvalidName { .. }));
    assert!(matches!(refuse(&mut state, &register("", &["cat"])), MetaRejection::InvalidName { .. }));
}

#[test]
fn an_initialised_group_stays_so_through_placements() {
    let mut state = cluster();
    let command = MetaCommand::GroupInitialized { partition: PartitionId(1) };
    assert_eq!(accept(&mut state, &command), [MetaKey::Partition(PartitionId(1))]);
    assert_eq!(accept(&mut state, &command), []);
    accept(&mut state, &place(1, 1, &[(1, 1)]));
    assert!(state.partitions[&PartitionId(1)].initialized);
    // One that is initialised where it is placed has the membership of its row.
    accept(&mut state, &place(2, 1, &[(1, 2)]));
    accept(&mut state, &MetaCommand::GroupInitialized { partition: PartitionId(2) });
    assert!(state.partitions[&PartitionId(2)].is_settled());
    let unknown = MetaCommand::GroupInitialized { partition: PartitionId(4) };
    assert_eq!(refuse(&mut state, &unknown), MetaRejection::UnknownPartition(PartitionId(4)));
}

fn any_command() -> impl Strategy<Value = MetaCommand> {
    let role = prop_oneof![3 => Just(Role::Storage), 1 => Just(Role::Gateway)];
    let replicas = || proptest::collection::vec((1..5u64, 1..30u64), 0..4);
    prop_oneof![
        1 => Just(bootstrap(settings())),
        3 => (1..5u64, role).prop_map(|(node, role)| put_node(node, role)),
        1 => (1..5u64).prop_map(|node| MetaCommand::RemoveNode { node: NodeId(node) }),
        6 => (0..3u32, 1..4u64, replicas())
            .prop_map(|(partition, version, replicas)| place(partition, version, &replicas)),
        3 => (1..4u64, replicas()).prop_map(|(version, replicas)| place_meta(version, &replicas)),
        2 => (0..4u32, 0..4u64).prop_map(|(group, version)| settled(GroupId::from_u32(group), version)),
        1 => (0..3u64).prop_map(|generation| MetaCommand::RaiseGeneration { generation }),
        2 => (0..3usize, "[a-c]").prop_map(|(app, actor_type)| register(["x", "y", ""][app], &[&actor_type])),
        1 => (0..5u32).prop_map(|partition| MetaCommand::GroupInitialized { partition: PartitionId(partition) }),
    ]
}

proptest! {
    #[test]
    fn writing_the_rows_of_dirty_keys_stores_the_whole_state(commands in proptest::collection::vec(any_command(), 0..40)) {
        let mut state = MetaState::default();
        let mut disk = std::collections::BTreeMap::new();
        for command in std::iter::once(&bootstrap(settings())).chain(&commands) {
            let before = state.clone();
            let (response, dirty) = state.apply(command);
            if response != MetaResponse::Done {
                prop_assert_eq!(&state, &before);
            }
            prop_assert_eq!(dirty.is_empty(), state == before);
            for key in dirty {
                match state.row(&key) {
                    Some(row) => {
                        prop_assert_eq!(row.key(), key.clone());
                        disk.insert(key, row)
                    }
                    None => disk.remove(&key),
                };
            }
            prop_assert_eq!(&disk.values().cloned().collect::<Vec<_>>(), &state.rows().collect::<Vec<_>>());
            prop_assert_eq!(&MetaState::load(disk.values().rev().cloned()), &state);
        }
    }

    #[test]
    fn no_two_placements_ever_share_a_replica_id(commands in proptest::collection::vec(any_command(), 0..40)) {
        let mut state = cluster();
        let mut holder = std::collections::BTreeMap::new();
        for command in &commands {
            state.apply(command);
            for (group, record) in state.placement_rows() {
                prop_assert!(record.settled <= record.version);
                for placed in &record.replicas {
                    prop_assert!(state.nodes.contains_key(&placed.node));
                    if group == GroupId::Meta && placed.replica == FIRST_META_REPLICA {
                        continue;
                    }
                    let first = *holder.entry(placed.replica).or_insert((group, placed.node));
                    prop_assert_eq!(first, (group, placed.node));
                    prop_assert!(placed.replica.0 < state.next_replica);
                }
            }
        }
    }
}
