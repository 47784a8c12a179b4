//! What is announced is heard as it was said; what cannot be read is not heard, and nothing exceeds a datagram.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

/// A value and its key, as the gossip library counts them against the datagram.
const FITS: usize = 40_000;

fn sample() -> Announcement {
    Announcement {
        name: "shop-1".into(),
        zone: "eu-a".into(),
        role: Role::Storage,
        phase: Phase::Serving,
        namespace: "default".into(),
        cluster: Some(ClusterId(0xC1)),
        recovery: 2,
        peer: vec!["10.0.0.1:50002".into(), "[fd00::1]:50002".into()],
        app: Some(App { id: "shop".into(), healthy: true }),
        types: BTreeMap::from([("Cat".into(), 0x1F), ("Dog/Σ".into(), u64::MAX)]),
        owned: BTreeMap::from([(PartitionId(0), Epoch(7)), (PartitionId(12), Epoch(1))]),
    }
}

fn heard(keys: &Keys) -> Option<Announcement> {
    Announcement::decode(keys.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn keys(pairs: &[(&str, &str)]) -> Keys {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Nodes of several versions gossip with each other: what one writes, another reads.
#[test]
fn the_keys_are_those_of_every_other_build() {
    let me = concat!(
        r#"{"name":"shop-1","zone":"eu-a","role":"storage","phase":"serving","namespace":"default","#,
        r#""cluster":"000000000000000000000000000000c1","recovery":2,"#,
        r#""peer":["10.0.0.1:50002","[fd00::1]:50002"],"#,
        r#""app":{"id":"shop","healthy":true}}"#,
    );
    let written = keys(&[("me", me), ("own", "0=7 12=1"), ("t/Cat", "1f"), ("t/Dog/Σ", "ffffffffffffffff")]);
    assert_eq!(sample().encode(), Encoded { keys: written, left_out: 0 });
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    let me = r#"{"name":"a","role":"witness","phase":"sleeping","namespace":"","peer":[],"new":[1],"recovery":1}"#;
    let said = heard(&keys(&[("me", me), ("other", "x"), ("t2/Cat", "1")])).unwrap();
    let wanted = Announcement { name: "a".into(), phase: Phase::Other, recovery: 1, ..Announcement::default() };
    assert_eq!(said, wanted);
    assert_eq!(said.role, Role::Gateway);
}

#[test]
fn a_node_whose_main_value_is_missing_or_broken_is_not_known() {
    let whole = sample().encode().keys;
    let mut without = whole.clone();
    without.remove("me");
    assert_eq!(heard(&without), None);
    let good = &whole["me"];
    for broken in [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        good[..good.len() - 1].to_owned(),
        good.replace("000000000000000000000000000000c1", "cat"),
        good.replace("\"recovery\":2", "\"recovery\":-2"),
        "[".repeat(50_000),
    ] {
        let mut keys = whole.clone();
        keys.insert("me".into(), broken.clone());
        assert_eq!(heard(&keys), None, "{}", &broken[..broken.len().min(80)]);
    }
}

#[test]
fn a_broken_type_or_partition_costs_only_itself() {
    let mut keys = sample().encode().keys;
    keys.insert("t/Bird".into(), "no digest".into());
    keys.insert("own".into(), "0=7 x=1 3= =3 5 99999999999=1 4=-1  12=1".into());
    assert_eq!(heard(&keys), Some(sample()));
}

#[test]
fn types_beyond_the_limit_are_left_out_and_counted() {
    let named = |names: &mut dyn Iterator<Item = String>| {
        let types: BTreeMap<Arc<str>, u64> = names.map(|name| (name.into(), 1)).collect();
        Announcement { types, ..sample() }
    };
    let many = named(&mut (0..MAX_TYPES + 7).map(|n| format!("T{n:05}")));
    assert_eq!(many.encode().left_out, 7);
    assert_eq!(heard(&many.encode().keys).unwrap().types.len(), MAX_TYPES);
    let long = named(&mut (0..100).map(|n| format!("{n:02}{}", "x".repeat(998))));
    let encoded = long.encode();
    assert_eq!(encoded.left_out, 100 - MAX_TYPES_BYTES / 1_000);
    let too_long = named(&mut ["x".repeat(MAX_TYPE + 1), "Cat".into()].into_iter());
    assert_eq!(too_long.encode().left_out, 1);
}

#[test]
fn a_node_that_is_heard_saying_too_much_is_cut_short() {
    let mut keys = sample().encode().keys;
    keys.extend((0..3 * MAX_TYPES).map(|n| (format!("t/{n}"), "1".to_owned())));
    keys.insert("own".into(), (0..1_000).map(|n| format!("{n}=1")).collect::<Vec<_>>().join(" "));
    let heard = heard(&keys).unwrap();
    assert_eq!((heard.types.len(), heard.owned.len()), (MAX_TYPES, MAX_PARTITIONS));
}

#[test]
fn whatever_is_said_each_value_fits_a_datagram() {
    let worst = "\u{1}".repeat(5_000);
    let said = Announcement {
        name: worst.as_str().into(),
        zone: worst.as_str().into(),
        peer: vec![worst.as_str().into(); 20],
        app: Some(App { id: worst.as_str().into(), healthy: true }),
        namespace: worst.as_str().into(),
        owned: (0..1_000).map(|n| (PartitionId(u32::MAX - n), Epoch(u64::MAX))).collect(),
        types: (0..40).map(|n| (format!("{n}{}", "x".repeat(MAX_TYPE - 2)).into(), u64::MAX)).collect(),
        ..sample()
    };
    for (key, value) in said.encode().keys {
        assert!(key.len() + value.len() < FITS, "{} bytes under {}", value.len(), &key[..key.len().min(9)]);
    }
    assert!(heard(&said.encode().keys).is_some());
}

#[test]
fn names_of_nodes_are_their_ids_and_nothing_else() {
    for id in [0, 1, u64::MAX] {
        assert_eq!(node_of(&node_text(NodeId(id))), Some(NodeId(id)));
    }
    for text in ["", "1", "+000000000000001", "000000000000000G", "00000000000000AB", "00000000000000001"] {
        assert_eq!(node_of(text), None, "{text}");
    }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof!["[a-z0-9:.-]{0,20}", "\\PC{0,40}", Just("\"\\\u{0}\n".to_owned())].prop_map(Arc::from)
}

fn announcement() -> impl Strategy<Value = Announcement> {
    let app = (text(), any::<bool>()).prop_map(|(id, healthy)| App { id, healthy });
    let who = (text(), text(), text(), prop_oneof![Just(Role::Storage), Just(Role::Gateway)]);
    let phase = prop_oneof![
        Just(Phase::Starting),
        Just(Phase::Serving),
        Just(Phase::Draining),
        Just(Phase::Leaving),
        Just(Phase::Other)
    ];
    let what = (btree_map(text(), any::<u64>(), 0..20), btree_map(0u32..200, any::<u64>(), 0..20));
    (who, phase, option::of(any::<u128>()), any::<u64>(), vec(text(), 0..5), option::of(app), what).prop_map(
        |((name, zone, namespace, role), phase, cluster, recovery, peer, app, (types, owned))| Announcement {
            name,
            zone,
            role,
            phase,
            namespace,
            cluster: cluster.map(ClusterId),
            recovery,
            peer,
            app,
            types,
            owned: owned.into_iter().map(|(partition, epoch)| (PartitionId(partition), Epoch(epoch))).collect(),
        },
    )
}

proptest! {
    #[test]
    fn what_is_said_is_heard(said in announcement()) {
        prop_assert_eq!(heard(&said.encode().keys), Some(said));
    }

    #[test]
    fn whatever_is_heard_does_not_panic(pairs in vec(("(me|own|t/.*|.*)", "\\PC*"), 0..20)) {
        heard(&pairs.into_iter().collect());
    }

    #[test]
    fn a_changed_main_value_does_not_panic(at in any::<prop::sample::Index>(), byte in 0u8..128) {
        let mut keys = sample().encode().keys;
        let mut me = keys["me"].clone().into_bytes();
        let at = at.index(me.len());
        me[at] = byte;
        keys.insert("me".into(), String::from_utf8(me).unwrap());
        heard(&keys);
    }
}
