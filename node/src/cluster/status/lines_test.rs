//! What a survey says of clusters in several states.

use std::sync::Arc;

use callboard_engine::view::{Role as SeenRole, View};
use callboard_machine::meta::{MetaState, Placement, Settings};
use callboard_types::PartitionId;

use super::super::Survey;
use super::*;
use crate::calls::report::Member;

const P0: GroupId = GroupId::Partition(PartitionId(0));

fn record(node: u64) -> NodeRecord {
    NodeRecord {
        name: format!("n{node}"),
        role: Role::Storage,
        zone: String::new(),
        incarnation: 1,
        address: format!("10.0.0.{node}:50002"),
        leaving: false,
    }
}

fn heard(node: u64, presence: Presence) -> Arc<NodeReport> {
    Arc::new(NodeReport {
        node: NodeId(node),
        generation: 1,
        presence,
        name: format!("n{node}").into(),
        zone: "".into(),
        role: SeenRole::Storage,
        peer: format!("10.0.0.{node}:50002").into(),
        namespace: "default".into(),
        app: Some(App { id: "shop".into(), healthy: true }),
        types: BTreeMap::from([("Cat".into(), 7)]),
        recovery: 0,
        owns: BTreeMap::new(),
    })
}

/// Replica ids are ten times the nodes'.
fn placed(voters: &[u64], learners: &[u64]) -> Vec<Placement> {
    let place = |learner| move |node: &u64| Placement { node: NodeId(*node), replica: ReplicaId(node * 10), learner };
    voters.iter().map(place(false)).chain(learners.iter().map(place(true))).collect()
}

fn row(version: u64, settled: u64, replicas: Vec<Placement>) -> PartitionRecord {
    PartitionRecord { version, replicas, initialized: true, settled }
}

fn members(voters: &[u64], learners: &[u64]) -> Vec<Member> {
    let member =
        |votes| move |node: &u64| Member { replica: ReplicaId(node * 10), node: NodeId(*node), votes, incoming: false };
    voters.iter().map(member(true)).chain(learners.iter().map(member(false))).collect()
}

fn replica(node: u64, role: ReplicaRole, members: Vec<Member>) -> GroupReport {
    let leads = role == ReplicaRole::Leader;
    GroupReport {
        group: P0,
        replica: ReplicaId(node * 10),
        role,
        term: 1,
        last_log: 100,
        applied: 100 - node,
        epoch: leads.then_some(Epoch(5)),
        quorum_ack: leads.then_some(Duration::from_millis(3)),
        members,
        is_joint: false,
    }
}

/// Three storage nodes of which 1 leads partition 0; `meta` is nowhere.
fn three() -> Survey {
    let settings = Settings {
        name: "test".into(),
        partitions: 1,
        replicas: 3,
        hash_version: 1,
        ring_version: 1,
        host_lease_ms: 600,
        max_clock_offset_ms: 1_000,
        ephemeral: false,
    };
    let state = MetaState {
        settings: Some(settings),
        nodes: (1..=3).map(|node| (NodeId(node), record(node))).collect(),
        partitions: BTreeMap::from([(PartitionId(0), row(4, 4, placed(&[1, 2, 3], &[])))]),
        meta: row(2, 2, placed(&[1, 2, 3], &[])),
        ..MetaState::default()
    };
    let report = |node| {
        let role = if node == 1 { ReplicaRole::Leader } else { ReplicaRole::Follower };
        let groups = vec![replica(node, role, members(&[1, 2, 3], &[]))];
        (NodeId(node), Report { version: "1".into(), groups })
    };
    Survey {
        me: NodeId(1),
        state: Arc::new(state),
        view: Arc::new(View::new(1, 1, (1..=3).map(|node| heard(node, Presence::Up)))),
        reports: (1..=3).map(report).collect(),
        silent: BTreeSet::new(),
        since: BTreeMap::new(),
    }
}

fn down(mut survey: Survey, nodes: &[u64]) -> Survey {
    let presence = |node: &u64| if nodes.contains(node) { Presence::Down } else { Presence::Up };
    survey.view = Arc::new(View::new(2, 1, (1..=3).map(|node| heard(node, presence(&node)))));
    nodes.iter().for_each(|node| drop(survey.reports.remove(&NodeId(*node))));
    survey
}

fn change(survey: &mut Survey, change: impl FnOnce(&mut MetaState)) {
    let mut state = (*survey.state).clone();
    change(&mut state);
    survey.state = Arc::new(state);
}

#[test]
fn a_healthy_cluster_of_three_may_lose_one_and_has_nothing_to_say() {
    let survey = three();
    let summary = survey.summary();
    assert_eq!((summary.storage, summary.up, summary.down, summary.may_fail), (3, 3, 0, 1));
    assert_eq!(survey.notes(&summary), Vec::<String>::new());
    assert_eq!(survey.moves(), []);
    let nodes = survey.nodes();
    let this: Vec<_> = nodes.iter().map(|line| (line.name.as_str(), line.is_this, line.leads, line.holds)).collect();
    assert_eq!(this, [("n1", true, 1, 1), ("n2", false, 0, 1), ("n3", false, 0, 1)]);
    assert_eq!((nodes[1].types.as_slice(), nodes[1].version.as_deref()), (&["Cat".to_owned()][..], Some("1")));
    let partition = &survey.partitions()[0];
    assert_eq!(
        (partition.owner, partition.leader, partition.epoch),
        (Some(NodeId(1)), Some(NodeId(1)), Some(Epoch(5)))
    );
    assert_eq!((partition.applied, partition.lease_age), (Some(99), Some(Duration::from_millis(3))));
    let replicas: Vec<_> = partition.replicas.iter().map(|one| (one.node.0, one.seat, one.applied)).collect();
    assert_eq!(replicas, [1, 2, 3].map(|node| (node, Some(Seat::Voter), Some(100 - node))));
}

#[test]
fn with_one_of_three_down_none_more_may_fail_and_with_two_down_the_majority_is_lost() {
    let one = down(three(), &[3]).summary();
    assert_eq!((one.may_fail, one.down, one.without_quorum.as_slice()), (0, 1, &[][..]));
    let mut survey = down(three(), &[1, 3]);
    survey.me = NodeId(2);
    let two = survey.summary();
    assert_eq!((two.may_fail, two.without_quorum.as_slice()), (0, &[GroupId::Meta, P0][..]));
    assert_eq!(two.unowned, [P0], "its owner is down and nobody else claims it");
    let notes = survey.notes(&two).join("\n");
    assert!(notes.contains("no majority is up of: meta, 0") && notes.contains("known to own: 0"), "{notes}");
}

#[test]
fn below_three_storage_nodes_it_is_said_what_is_missing() {
    let mut survey = three();
    change(&mut survey, |state| {
        state.nodes.remove(&NodeId(3));
        state.partitions.insert(PartitionId(0), row(4, 4, placed(&[1], &[2])));
        state.meta = row(2, 2, placed(&[1], &[2]));
    });
    survey.reports.clear();
    let summary = survey.summary();
    assert_eq!((summary.storage, summary.may_fail, summary.fewest_voters), (2, 0, 1));
    let notes = survey.notes(&summary).join("\n");
    assert!(notes.contains("second disk") && notes.contains("begin at three storage nodes"), "{notes}");
}

#[test]
fn a_leaving_node_is_not_counted_as_one_that_stores() {
    let mut survey = three();
    change(&mut survey, |state| {
        state.nodes.insert(NodeId(2), NodeRecord { leaving: true, ..record(2) });
    });
    let summary = survey.summary();
    assert_eq!((summary.storage, summary.up, summary.leaving), (2, 2, 1));
    let states: Vec<_> = survey.nodes().iter().map(|line| line.state).collect();
    assert_eq!(states, [NodeState::Up, NodeState::Leaving, NodeState::Up]);
}

#[test]
fn a_move_names_what_the_group_has_and_what_the_row_wants() {
    let mut survey = three();
    survey.since.insert(P0, Timestamp::from_secs(9));
    // From 1, 2, 3 to 1 and 2, with 2 without a vote.
    change(&mut survey, |state| drop(state.partitions.insert(PartitionId(0), row(5, 4, placed(&[1], &[2])))));
    let moves = survey.moves();
    let nodes = |ids: &[(u64, Seat)]| Some(ids.iter().map(|(node, seat)| (NodeId(*node), *seat)).collect::<Vec<_>>());
    assert_eq!(
        moves,
        [MoveLine {
            group: P0,
            version: 5,
            settled: 4,
            from: nodes(&[(2, Seat::Voter), (3, Seat::Voter)]),
            to: nodes(&[(2, Seat::Learner)]),
            since: Some(Timestamp::from_secs(9)),
        }]
    );
    assert_eq!(survey.partitions()[0].replicas[2].wanted, None, "the third is to go");
    survey.reports.remove(&NodeId(1));
    assert_eq!(survey.moves()[0].from, None, "without a word of the leader it is not known");
}

#[test]
fn of_two_that_say_they_lead_the_later_term_counts() {
    let mut survey = three();
    let second =
        GroupReport { term: 2, epoch: Some(Epoch(6)), ..replica(2, ReplicaRole::Leader, members(&[1, 2, 3], &[])) };
    survey.reports.insert(NodeId(2), Report { version: "1".into(), groups: vec![second] });
    let line = &survey.partitions()[0];
    assert_eq!((line.leader, line.owner, line.epoch), (Some(NodeId(2)), Some(NodeId(2)), Some(Epoch(6))));
}

#[test]
fn of_a_silent_node_gossip_says_what_it_owns() {
    let mut survey = three();
    survey.reports.remove(&NodeId(1));
    survey.silent.insert(NodeId(1));
    let owning = NodeReport { owns: BTreeMap::from([(PartitionId(0), Epoch(8))]), ..(*heard(1, Presence::Up)).clone() };
    let reports = [Arc::new(owning), heard(2, Presence::Up), heard(3, Presence::Up)];
    survey.view = Arc::new(View::new(2, 1, reports));
    let line = &survey.partitions()[0];
    assert_eq!((line.owner, line.epoch, line.leader), (Some(NodeId(1)), Some(Epoch(8)), None));
    let summary = survey.summary();
    assert_eq!(summary.may_fail, 1, "who votes is then taken from the row");
    assert!(survey.notes(&summary).join("\n").contains("silent when asked what they hold: n1"));
}

#[test]
fn while_voters_change_both_sets_need_their_majority() {
    let set = |nodes: &[u64]| nodes.iter().map(|node| NodeId(*node)).collect::<BTreeSet<_>>();
    let up = set(&[1, 2, 3]);
    let of = |sets: &[&[u64]]| tolerance(&[(P0, sets.iter().map(|nodes| set(nodes)).collect())], &up);
    assert_eq!(of(&[&[1, 2, 3]]), (1, vec![]));
    assert_eq!(of(&[&[1, 2, 3], &[3, 4, 5]]), (0, vec![P0]), "of the later set one of three is up");
    assert_eq!(of(&[&[1, 2, 3], &[2]]), (0, vec![]));
    assert_eq!(of(&[&[1, 2, 3, 4, 5]]), (0, vec![]));
    assert_eq!(tolerance(&[], &up), (0, vec![]));
}
