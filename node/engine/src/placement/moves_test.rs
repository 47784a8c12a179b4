//! The gate: who passes first, and how many.

use std::collections::BTreeMap;

use super::*;
use crate::Instant;

const LIMITS: MoveLimits = MoveLimits { moves: 3, per_node: 2, transfers: 2, caught_up: 10 };

fn row(nodes: [u64; 3]) -> Row {
    let replicas = nodes.map(|node| Replica { node: NodeId(node), role: ReplicaRole::Voter });
    Row { replicas: replicas.into(), leader: NodeId(nodes[0]) }
}

fn group(voters: [u64; 3], learners: &[u64]) -> Group {
    let members: Vec<_> = voters.iter().chain(learners).copied().map(NodeId).collect();
    Group {
        voters: voters.map(NodeId).into(),
        learners: learners.iter().copied().map(NodeId).collect(),
        leader: Some(NodeId(voters[0])),
        behind: members.iter().map(|node| (*node, 0)).collect(),
        holders: members,
        ..Group::default()
    }
}

fn lagging(mut group: Group, node: u64) -> Group {
    group.behind.insert(NodeId(node), 11);
    group
}

/// The steps for groups and the rows they are to become, as (partition, step). Nodes are 1 to 30 without the silent.
fn admitted(groups: &[(Group, [u64; 3])], silent: &[u64]) -> Vec<(u32, Step)> {
    let mut nodes = Liveness::new(LivenessConfig::default());
    nodes.observe(Instant(0), (1..=30).map(NodeId), |node| !silent.contains(&node.0));
    let table = Table { rows: groups.iter().map(|(_, wanted)| Some(row(*wanted))).collect() };
    let groups = (0..).map(PartitionId).zip(groups.iter().map(|(group, _)| group.clone())).collect();
    let moves = moves::next(&table, &groups, &nodes, &LIMITS, Instant(1));
    moves.into_iter().map(|one| (one.partition.0, one.step)).collect()
}

fn partitions(steps: &[(u32, Step)]) -> Vec<u32> {
    steps.iter().map(|(partition, _)| *partition).collect()
}

fn add(node: u64) -> Step {
    Step::AddLearner(NodeId(node))
}

#[test]
fn no_more_groups_move_than_the_limit() {
    // Each between nodes of its own.
    let groups: Vec<_> =
        (0..6).map(|n| (group([4 * n + 1, 4 * n + 2, 4 * n + 3], &[]), [4 * n + 1, 4 * n + 2, 4 * n + 4])).collect();
    assert_eq!(admitted(&groups, &[]), [(0, add(4)), (1, add(8)), (2, add(12))]);
}

#[test]
fn what_is_under_way_takes_a_place_and_gives_it_back_when_its_node_is_silent() {
    let filling = |n: u64| (lagging(group([n, n + 1, n + 2], &[n + 3]), n + 3), [n, n + 1, n + 3]);
    let begun = (Group { begun: Some(add(4)), ..group([1, 2, 3], &[]) }, [1, 2, 4]);
    let uncommitted = (Group { uncommitted: true, ..group([25, 26, 27], &[]) }, [25, 26, 28]);
    let waiting = (group([17, 18, 19], &[]), [17, 18, 20]);
    let all = [begun, filling(5), uncommitted, waiting];
    assert_eq!(admitted(&all, &[]), []);
    assert_eq!(admitted(&all, &[8]), [(3, add(20))]);
    assert_eq!(admitted(&all, &[5]), [(3, add(20))], "a group without a leader waits outside");
}

#[test]
fn votes_come_before_removals_before_copies_and_those_who_can_bear_least_first() {
    let copy = (group([1, 2, 3], &[]), [1, 2, 4]);
    let removal = (group([5, 6, 7], &[8]), [5, 6, 7]);
    let vote = (group([9, 10, 11], &[12]), [9, 10, 12]);
    assert_eq!(partitions(&admitted(&[copy.clone(), removal.clone(), vote.clone()], &[])), [2, 1, 0]);

    let weak = (group([13, 14, 15], &[]), [13, 14, 16]);
    assert_eq!(partitions(&admitted(&[copy.clone(), weak.clone()], &[15])), [1, 0]);
    assert_eq!(partitions(&admitted(&[copy, weak], &[3])), [0, 1]);
}

#[test]
fn a_node_sends_and_receives_no_more_copies_than_the_limit() {
    let to_one = |n: u64| (group([n, n + 1, n + 2], &[]), [n, n + 1, 30]);
    assert_eq!(partitions(&admitted(&[to_one(1), to_one(4), to_one(7)], &[])), [0, 1]);
    let from_one = |to: u64| (group([1, 2, 3], &[]), [1, 2, to]);
    assert_eq!(partitions(&admitted(&[from_one(10), from_one(11), from_one(12)], &[])), [0, 1]);
    let filled = (lagging(group([1, 2, 3], &[13]), 13), [1, 2, 13]);
    assert_eq!(partitions(&admitted(&[from_one(10), filled, from_one(12)], &[])), [0]);
}

#[test]
fn a_few_leaders_are_moved_for_balance_where_nothing_else_is_to_do() {
    let elsewhere = (group([1, 2, 3], &[]), [2, 1, 3]);
    let lead = |partition| (partition, Step::TransferLeader(NodeId(2)));
    assert_eq!(admitted(&vec![elsewhere.clone(); 4], &[]), [lead(0), lead(1)]);
    let vote = (group([9, 10, 11], &[12]), [9, 10, 12]);
    let steps = admitted(&[elsewhere.clone(), vote.clone(), vote.clone(), vote, elsewhere], &[]);
    assert_eq!(partitions(&steps), [1, 2, 3], "it counts as a move");
}

#[test]
fn groups_that_are_not_in_the_table_are_left_alone() {
    let mut nodes = Liveness::new(LivenessConfig::default());
    nodes.observe(Instant(0), (1..=4).map(NodeId), |_| true);
    let groups = BTreeMap::from([(PartitionId(3), group([1, 2, 3], &[4]))]);
    assert_eq!(moves::next(&Table::default(), &groups, &nodes, &LIMITS, Instant(1)), []);
}
