//! The ring against its golden vectors, its spread, and a model that walks without shortcuts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn ring(ids: impl IntoIterator<Item = u64>) -> Ring<NodeId> {
    Ring::new(ids.into_iter().map(|id| (NodeId(id), 1)))
}

/// (id, number of the card, position).
const CARDS: &[(u64, u32, u64)] = &[
    (0, 0, 0xfe44_68fe_11bf_f73d),
    (0, 1, 0x3ac6_a395_d923_1935),
    (1, 0, 0xf79a_d865_fc3f_fe3d),
    (1, 127, 0xf29b_73e3_ff72_e6d2),
    (u64::MAX, 0, 0x8e54_fd44_25e0_72fa),
    (0x0123_4567_89ab_cdef, 2047, 0xa8ca_0047_d823_8857),
];

/// (key, walk over nodes 1..=5).
const WALKS: &[(&[u8], [u64; 5])] = &[
    (b"", [4, 3, 2, 5, 1]),
    (b"a", [3, 4, 5, 2, 1]),
    (b"user-1", [4, 5, 2, 3, 1]),
    (b"user-2", [4, 2, 5, 1, 3]),
    (b"0123456789abcdef0", [4, 3, 5, 2, 1]),
    (&[0xff; 16], [2, 5, 3, 1, 4]),
    (&[7; 150], [1, 4, 2, 5, 3]),
    (&[7; 500], [3, 1, 2, 5, 4]),
];

/// (partition, walk over nodes 1..=5).
const PARTITIONS: &[(u32, [u64; 5])] = &[
    (0, [3, 4, 5, 2, 1]),
    (1, [5, 4, 2, 1, 3]),
    (2, [4, 2, 3, 1, 5]),
    (3, [5, 3, 2, 1, 4]),
    (4, [1, 2, 3, 5, 4]),
    (5, [4, 1, 2, 5, 3]),
    (6, [2, 5, 4, 3, 1]),
    (7, [1, 2, 5, 3, 4]),
    (8, [5, 2, 1, 4, 3]),
    (9, [4, 2, 1, 3, 5]),
    (10, [5, 2, 4, 3, 1]),
    (11, [3, 2, 5, 4, 1]),
    (12, [3, 1, 5, 2, 4]),
    (13, [3, 4, 2, 5, 1]),
    (14, [5, 2, 4, 3, 1]),
    (15, [5, 1, 4, 3, 2]),
];

#[test]
fn golden_vectors_hold() {
    for &(id, number, position) in CARDS {
        assert_eq!(card_position(id, number), position, "card {number} of {id:x}");
    }
    let ring = ring(1..=5);
    for &(key, walk) in WALKS {
        assert_eq!(ring.walk(key).map(|node| node.0).collect::<Vec<_>>(), walk, "{key:?}");
    }
    for &(partition, walk) in PARTITIONS {
        let key = partition_key(PartitionId(partition));
        assert_eq!(ring.walk(&key).map(|node| node.0).collect::<Vec<_>>(), walk, "p{partition}");
    }
    assert_eq!((CARDS.len(), WALKS.len(), PARTITIONS.len()), (6, 8, 16));
}

#[test]
fn an_empty_ring_has_no_member_for_a_key() {
    let ring = ring([]);
    assert_eq!((ring.one(b"k"), ring.len(), ring.is_empty()), (None, 0, true));
    assert_eq!(ring.distinct(b"k", 3), []);
    assert_eq!(Ring::new([(NodeId(1), 0)]), ring);
}

#[test]
fn the_order_and_repeats_of_the_members_do_not_matter() {
    let a = Ring::new([(NodeId(3), 1), (NodeId(1), 2), (NodeId(2), 1)]);
    let b = Ring::new([(NodeId(1), 1), (NodeId(2), 1), (NodeId(1), 2), (NodeId(3), 1), (NodeId(2), 1)]);
    assert_eq!(a, b);
    assert_eq!(Ring::new([(NodeId(1), MAX_WEIGHT)]), Ring::new([(NodeId(1), u32::MAX)]));
}

#[test]
fn a_card_on_the_keys_own_place_is_the_first() {
    let position = xxh3_64_with_seed(b"k", KEY_SEED);
    let ring = Ring { members: vec![NodeId(1), NodeId(2)], cards: vec![(position, 1), (position + 1, 0)] };
    assert_eq!(ring.distinct(b"k", 2), [NodeId(2), NodeId(1)]);
}

#[test]
fn equal_positions_are_ordered_by_id() {
    let ring = Ring { members: vec![NodeId(1), NodeId(2)], cards: vec![(7, 0), (7, 1)] };
    let positions: Vec<_> = ring.walk(b"any").collect();
    assert_eq!(positions, [NodeId(1), NodeId(2)]);
}

fn counts(ring: &Ring<NodeId>, keys: u32) -> BTreeMap<NodeId, u32> {
    let mut counts = BTreeMap::new();
    for key in 0..keys {
        *counts.entry(ring.one(&key.to_be_bytes()).expect("not empty")).or_default() += 1;
    }
    counts
}

/// The bounds are those measured for 128 cards, with a little room.
#[test]
fn keys_spread_over_the_members() {
    const KEYS: u32 = 100_000;
    for (nodes, most, least) in
        [(3_u64, 1.12, 0.88), (5, 1.18, 0.84), (10, 1.25, 0.75), (30, 1.30, 0.72), (100, 1.35, 0.65)]
    {
        let counts = counts(&ring(1..=nodes), KEYS);
        let mean = f64::from(KEYS) / nodes as f64;
        let max = f64::from(*counts.values().max().expect("some")) / mean;
        let min = f64::from(*counts.values().min().expect("some")) / mean;
        assert_eq!(counts.len() as u64, nodes);
        assert!(max <= most && min >= least, "{nodes} nodes: {min:.2} to {max:.2} of the mean");
    }
}

#[test]
fn a_heavier_member_gets_its_multiple() {
    let ring = Ring::new([(NodeId(1), 1), (NodeId(2), 1), (NodeId(3), 4)]);
    let counts = counts(&ring, 60_000);
    let heavy = f64::from(counts[&NodeId(3)]) / 60_000.0;
    assert!((0.60..0.73).contains(&heavy), "weight 4 of 6 got {heavy}");
}

fn model_walk(ring: &Ring<NodeId>, key: &[u8]) -> Vec<NodeId> {
    let position = xxh3_64_with_seed(key, KEY_SEED);
    let (before, after): (Vec<_>, Vec<_>) = ring.cards.iter().partition(|(card, _)| *card < position);
    let mut order = Vec::new();
    for (_, member) in after.into_iter().chain(before) {
        let node = ring.members[member as usize];
        if !order.contains(&node) {
            order.push(node);
        }
    }
    order
}

proptest! {
    #[test]
    fn a_walk_names_every_member_once_in_clockwise_order(
        ids in prop::collection::btree_set(any::<u64>(), 1..90),
        key in prop::collection::vec(any::<u8>(), 0..40),
        n in 0..8_usize,
    ) {
        let ring = ring(ids.iter().copied());
        let walk: Vec<_> = ring.walk(&key).collect();
        prop_assert_eq!(&walk, &model_walk(&ring, &key));
        prop_assert_eq!(walk.iter().map(|node| node.0).collect::<BTreeSet<_>>(), ids);
        prop_assert_eq!(ring.one(&key), walk.first().copied());
        prop_assert_eq!(ring.distinct(&key, n), &walk[..n.min(walk.len())]);
    }

    #[test]
    fn a_member_that_comes_or_goes_changes_no_order_between_the_others(
        ids in prop::collection::btree_set(any::<u64>(), 2..20),
        gone in any::<prop::sample::Index>(),
        key in any::<[u8; 8]>(),
    ) {
        let gone = *gone.get(&ids.iter().copied().collect::<Vec<_>>());
        let with: Vec<_> = ring(ids.iter().copied()).walk(&key).filter(|node| node.0 != gone).collect();
        let without: Vec<_> = ring(ids.iter().copied().filter(|id| *id != gone)).walk(&key).collect();
        prop_assert_eq!(with, without);
    }
}
