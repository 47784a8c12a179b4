//! The table's bounds, its stillness, and how little it moves.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn member(node: u64, zone: &str, standing: Standing) -> Member {
    Member { node: NodeId(node), zone: zone.into(), weight: 1, standing }
}

fn nodes(ids: impl IntoIterator<Item = u64>) -> Vec<Member> {
    ids.into_iter().map(|id| member(id, "", Standing::Live)).collect()
}

/// Node `n` in zone `n mod zones`.
fn zoned(count: u64, zones: u64) -> Vec<Member> {
    (0..count).map(|id| member(id, &format!("z{}", id % zones), Standing::Live)).collect()
}

fn fresh(members: &[Member], partitions: u32, replication_factor: u32) -> Table {
    propose(members, &Table::default(), partitions, replication_factor)
}

fn rows(table: &Table) -> impl Iterator<Item = &Row> {
    table.rows.iter().map(|row| row.as_ref().expect("every partition is placed"))
}

/// ceil(1.1 total / nodes)
fn bound(total: u32, nodes: usize) -> u32 {
    (total * 11).div_ceil(nodes as u32 * 10)
}

fn seats(table: &Table) -> BTreeSet<(usize, NodeId)> {
    let of_row = |(partition, row): (usize, &Row)| -> Vec<_> {
        row.replicas.iter().map(|replica| (partition, replica.node)).collect()
    };
    rows(table).enumerate().flat_map(of_row).collect()
}

fn moved(before: &Table, after: &Table) -> usize {
    seats(after).difference(&seats(before)).count()
}

fn leaders_moved(before: &Table, after: &Table) -> usize {
    rows(before).zip(rows(after)).filter(|(before, after)| before.leader != after.leader).count()
}

fn assert_sound(table: &Table, members: &[Member], partitions: u32, replication_factor: u32) {
    let storage: BTreeSet<_> =
        members.iter().filter(|member| member.standing != Standing::Out).map(|member| member.node).collect();
    assert_eq!(table.rows.len(), partitions as usize);
    for row in rows(table) {
        let held: BTreeSet<_> = row.replicas.iter().map(|replica| replica.node).collect();
        assert_eq!(held.len(), row.replicas.len(), "no two on one node");
        assert_eq!(held.len(), storage.len().min(replication_factor as usize));
        assert!(held.is_subset(&storage));
        assert_eq!(row.voters().count(), voter_count(storage.len(), replication_factor));
        assert_eq!(row.voters().count() % 2, 1);
        assert_eq!(row.replicas[0], Replica { node: row.leader, role: ReplicaRole::Voter });
        assert!(row.replicas.is_sorted_by_key(|replica| replica.role), "voters first");
    }
}

#[test]
fn voters_are_odd_and_follow_the_registered_nodes() {
    let counts = |factor| [1, 2, 3, 4, 5, 6, 9].map(|nodes| voter_count(nodes, factor));
    assert_eq!(counts(1), [1; 7]);
    assert_eq!(counts(3), [1, 1, 3, 3, 3, 3, 3]);
    assert_eq!(counts(5), [1, 1, 3, 3, 5, 5, 5]);
}

#[test]
fn the_second_node_holds_learners_and_half_of_the_votes() {
    let table = fresh(&nodes(1..=2), 16, 3);
    for row in rows(&table) {
        assert_eq!((row.voters().count(), row.learners().count()), (1, 1));
    }
    assert_eq!([1, 2].map(|node| table.holds(NodeId(node))), [16, 16]);
    assert_eq!([1, 2].map(|node| table.leads(NodeId(node)) <= 9), [true, true]);
}

#[test]
fn without_a_storage_node_the_table_stays() {
    let table = fresh(&nodes(1..=3), 4, 3);
    let gone: Vec<_> = (1..=3).map(|node| member(node, "", Standing::Out)).collect();
    assert_eq!(propose(&gone, &table, 4, 3), table);
    assert_eq!(propose(&[], &Table::default(), 4, 3), Table::default());
}

#[test]
fn gateways_and_leaving_nodes_hold_nothing() {
    let mut members = nodes(1..=5);
    let before = fresh(&members, 16, 3);
    members[2].standing = Standing::Out;
    let after = propose(&members, &before, 16, 3);
    assert_eq!((after.holds(NodeId(3)), after.leads(NodeId(3))), (0, 0));
    assert_sound(&after, &members, 16, 3);
}

#[test]
fn a_silent_node_keeps_what_it_holds_and_is_given_nothing() {
    let mut members = nodes(1..=5);
    let before = fresh(&members, 16, 3);
    members[2].standing = Standing::Down;
    assert_eq!(propose(&members, &before, 16, 3), before);

    // To a node that comes it gives like the others.
    let held = before.holds(NodeId(3));
    let with_newcomer: Vec<_> = members.iter().cloned().chain(nodes([6])).collect();
    let after = propose(&with_newcomer, &before, 16, 3);
    assert!(after.holds(NodeId(3)) >= 8 && after.holds(NodeId(6)) >= 7, "of a share of 8");
    members[0].standing = Standing::Out;
    let after = propose(&members, &before, 16, 3);
    assert!(after.holds(NodeId(3)) <= held);
    assert!(seats(&after).iter().filter(|(_, node)| *node == NodeId(3)).all(|seat| seats(&before).contains(seat)));
}

#[test]
fn a_lost_node_is_replaced_where_there_is_room_and_counts_on() {
    let mut members = nodes(1..=4);
    let before = fresh(&members, 16, 3);
    members[2].standing = Standing::Lost;
    let after = propose(&members, &before, 16, 3);
    assert_eq!(after.holds(NodeId(3)), 0);
    assert_sound(&after, &members, 16, 3);
    assert_eq!(moved(&before, &after) as u32, before.holds(NodeId(3)), "only what it held moves");

    // Three registered, one lost: there is nowhere to go, and the voters stay three.
    let mut members = nodes(1..=3);
    let before = fresh(&members, 16, 3);
    members[2].standing = Standing::Lost;
    let after = propose(&members, &before, 16, 3);
    assert_eq!(seats(&after), seats(&before));
    assert_sound(&after, &members, 16, 3);
    assert_eq!(after.leads(NodeId(3)), 0, "but nobody prefers it as a leader");
}

#[test]
fn a_zone_of_which_all_is_lost_counts_no_more() {
    let mut members = zoned(6, 3);
    let before = fresh(&members, 16, 3);
    for lost in [2, 5] {
        members[lost].standing = Standing::Lost;
    }
    let after = propose(&members, &before, 16, 3);
    assert_eq!([2, 5].map(|node| after.holds(NodeId(node))), [0, 0]);
    assert_sound(&after, &members, 16, 3);
}

#[test]
fn what_is_placed_at_all_is_placed_evenly() {
    let table = fresh(&nodes(1..=10), 16, 3);
    for node in (1..=10).map(NodeId) {
        assert!((4..=5).contains(&table.holds(node)) && (1..=2).contains(&table.leads(node)), "{node}");
    }
}

#[test]
fn a_node_that_returns_gets_its_share_back() {
    let mut members = nodes(1..=5);
    let before = fresh(&members, 32, 3);
    members[4].standing = Standing::Lost;
    let without = propose(&members, &before, 32, 3);
    members[4].standing = Standing::Live;
    let after = propose(&members, &without, 32, 3);
    assert!(after.holds(NodeId(5)) >= 17, "{}", after.holds(NodeId(5)));
    assert!(after.leads(NodeId(5)) >= 5, "{}", after.leads(NodeId(5)));
}

#[test]
fn a_small_zone_bears_its_replica_of_every_row() {
    // One node alone in each of two zones: spreading wins over the mean, and the rest stay even.
    let mut members = nodes(3..=10);
    members.extend([member(1, "a", Standing::Live), member(2, "b", Standing::Live)]);
    let table = fresh(&members, 16, 3);
    assert_eq!([1, 2].map(|node| table.holds(NodeId(node))), [16, 16]);
    assert!((3..=10).all(|node| (1..=3).contains(&table.holds(NodeId(node)))));
}

#[test]
fn a_heavier_node_holds_and_leads_more() {
    let mut members = nodes(1..=6);
    members[0].weight = 3;
    let table = fresh(&members, 64, 3);
    assert!((57..=64).contains(&table.holds(NodeId(1))), "its share of 72 is more than one of each row");
    assert!((21..=27).contains(&table.leads(NodeId(1))), "{}", table.leads(NodeId(1)));
}

#[test]
fn a_hundred_nodes_move_little_more_than_the_share_of_the_one_that_comes_or_goes() {
    const P: u32 = 128;
    for zones in [1, 4] {
        let before = fresh(&zoned(100, zones), P, 3);
        let (most, led) = (0..100)
            .map(|node| (before.holds(NodeId(node)), before.leads(NodeId(node))))
            .fold((0, 0), |(held, led), (holds, leads)| (held.max(holds), led.max(leads)));
        assert!(most <= bound(3 * P, 100) && led <= bound(P, 100));

        let joined = propose(&zoned(101, zones), &before, P, 3);
        let ideal = f64::from(3 * P) / 101.0;
        let (seats, leaders) = (moved(&before, &joined), leaders_moved(&before, &joined));
        println!(
            "{zones} zones, 100 nodes and one more: {seats} of {} replicas move (ideal {ideal:.1}), {leaders} of {P} leaders (ideal {:.1})",
            3 * P,
            f64::from(P) / 101.0
        );
        assert!(seats as f64 <= 1.5 * ideal && leaders as f64 <= 2.0);
        assert!(joined.holds(NodeId(100)) >= 3 && joined.leads(NodeId(100)) >= 1);

        let (mut worst, mut worst_leaders) = (0, 0);
        for gone in (0..100).step_by(20) {
            let mut members = zoned(100, zones);
            members.remove(gone);
            let after = propose(&members, &before, P, 3);
            assert_sound(&after, &members, P, 3);
            let seats = moved(&before, &after);
            worst = worst.max(seats);
            worst_leaders = worst_leaders.max(leaders_moved(&before, &after));
        }
        println!(
            "{zones} zones, 100 nodes and one less: {worst} replicas move at worst (ideal {:.2}), {worst_leaders} leaders (ideal {:.2})",
            f64::from(3 * P) / 100.0,
            f64::from(P) / 100.0
        );
        assert!(worst as f64 <= 1.5 * f64::from(3 * P) / 100.0);
    }
}

#[test]
fn the_golden_table_of_four_nodes_holds() {
    let mut zones = nodes(1..=4);
    zones[3].zone = "other".into();
    let table = fresh(&zones, 8, 3);
    let text: Vec<_> =
        rows(&table).map(|row| row.replicas.iter().map(|replica| replica.node.0).collect::<Vec<_>>()).collect();
    assert_eq!(text, GOLDEN);
}

const GOLDEN: [[u64; 3]; 8] = [[3, 4, 2], [2, 4, 1], [4, 2, 3], [3, 1, 4], [1, 3, 4], [4, 1, 2], [2, 4, 3], [1, 2, 4]];

#[derive(Debug, Clone)]
struct Change {
    node: u64,
    standing: Standing,
}

fn change() -> impl Strategy<Value = Change> {
    let standing = prop_oneof![
        4 => Just(Standing::Live), 1 => Just(Standing::Down), 1 => Just(Standing::Lost), 2 => Just(Standing::Out)
    ];
    (0..12_u64, standing).prop_map(|(node, standing)| Change { node, standing })
}

#[test]
fn long_churn_never_asks_for_much_more_than_the_share() {
    let mut random = 7_u64;
    let mut next_random = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    let mut ids: Vec<u64> = (0..20).collect();
    let mut table = fresh(&nodes(ids.iter().copied()), 128, 3);
    for newcomer in 20..80 {
        let before = ids.len();
        if before > 24 || (before > 16 && next_random() % 2 == 0) {
            ids.remove(next_random() % before);
        } else {
            ids.push(newcomer);
        }
        let after = propose(&nodes(ids.iter().copied()), &table, 128, 3);
        let share = 384.0 / before.max(ids.len()) as f64;
        let moved = moved(&table, &after) as f64;
        assert!(moved <= 1.5 * share, "{before} to {} nodes: {moved} moved, the share is {share:.1}", ids.len());
        table = after;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_is_sound_and_its_own_answer_whatever_happened_before(
        partitions in 1..24_u32,
        replication_factor in prop::sample::select(vec![1_u32, 3, 5, 7]),
        zones in 1..5_u64,
        weights in prop::collection::vec(1..4_u32, 12),
        changes in prop::collection::vec(change(), 1..10),
    ) {
        let mut members: BTreeMap<u64, Member> = BTreeMap::new();
        let mut table = Table::default();
        for change in changes {
            let zone = format!("z{}", change.node % zones);
            let weight = weights[change.node as usize];
            members.insert(change.node, Member { weight, ..member(change.node, &zone, change.standing) });
            let list: Vec<_> = members.values().cloned().collect();
            let after = propose(&list, &table, partitions, replication_factor);
            if list.iter().any(|member| member.standing != Standing::Out) {
                assert_sound(&after, &list, partitions, replication_factor);
            }
            prop_assert_eq!(&propose(&list, &after, partitions, replication_factor), &after, "a fixpoint");
            let backwards: Vec<_> = members.values().rev().cloned().collect();
            prop_assert_eq!(&propose(&backwards, &table, partitions, replication_factor), &after);
            table = after;
        }
    }

    #[test]
    fn bounds_and_zones_hold_whenever_all_nodes_live(
        partitions in 1..64_u32,
        replication_factor in prop::sample::select(vec![1_u32, 3, 5]),
        per_zone in 1..4_u64,
        zones in 1..6_u64,
        gone in prop::collection::btree_set(0..20_u64, 0..4),
    ) {
        let all = zoned(per_zone * zones, zones);
        let before = fresh(&all, partitions, replication_factor);
        // First as many nodes in each zone; then some leave and come back.
        let without: Vec<_> = all.iter().filter(|member| !gone.contains(&member.node.0)).cloned().collect();
        let between = propose(&without, &before, partitions, replication_factor);
        for table in [&before, &propose(&all, &between, partitions, replication_factor)] {
            let replicas = (all.len() as u32).min(replication_factor);
            for node in all.iter().map(|member| member.node) {
                prop_assert!(table.holds(node) <= bound(partitions * replicas, all.len()));
                prop_assert!(table.leads(node) <= bound(partitions, all.len()), "{} leads", table.leads(node));
            }
            for row in rows(table) {
                let mut seats: BTreeMap<u64, u64> = BTreeMap::new();
                for replica in &row.replicas {
                    *seats.entry(replica.node.0 % zones).or_default() += 1;
                }
                let most = seats.values().copied().max().expect("some");
                prop_assert!(most <= u64::from(replicas).div_ceil(zones), "{seats:?}");
            }
        }
    }

    #[test]
    fn a_node_that_joins_or_leaves_moves_about_its_share(
        partitions in 16..129_u32, count in 3..30_u64, gone in any::<prop::sample::Index>(),
    ) {
        let members = nodes(1..=count);
        let before = fresh(&members, partitions, 3);
        let joined = propose(&nodes(1..=count + 1), &before, partitions, 3);
        let share = |nodes: u64| f64::from(3 * partitions) / nodes as f64;
        prop_assert!(moved(&before, &joined) as f64 <= 1.1 * share(count + 1) + 1.0);

        let gone = gone.index(members.len());
        let mut left = members;
        left.remove(gone);
        let after = propose(&left, &before, partitions, 3);
        prop_assert!(moved(&before, &after) as f64 <= 1.1 * share(count) + 1.0);
    }
}
