//! The check of a hello, as a table: what differs, who refuses, and why.

use super::*;

const CLUSTER: ClusterId = ClusterId(0x1111_2222_3333_4444_5555_6666_7777_8888);

fn identity(node: u64) -> Identity {
    Identity {
        cluster: Some(CLUSTER),
        cluster_name: "default".to_owned(),
        generation: 3,
        node: NodeId(node),
        node_name: format!("node-{node}"),
    }
}

fn said(by: &Identity, expects: Option<u64>) -> wire::Hello {
    hello(by, Lane::Calls, expects.map(NodeId), Timestamp(77))
}

fn reason(own: &Identity, expected: Option<u64>, theirs: &wire::Hello) -> Option<Reason> {
    check(own, expected.map(NodeId), theirs).err().map(|refusal| refusal.reason)
}

#[test]
fn a_member_is_known_by_what_it_says() {
    let (own, peer) = (identity(1), identity(2));
    let known = check(&own, Some(NodeId(2)), &said(&peer, Some(1))).unwrap();
    let expected = PeerId { node: NodeId(2), name: "node-2".to_owned(), cluster: Some(CLUSTER), generation: 3 };
    assert_eq!(known, Introduction { peer: expected, lane: Lane::Calls, wall: Timestamp(77) });
}

#[test]
fn strangers_are_refused_each_for_its_reason() {
    let own = identity(1);
    let peer = |change: fn(&mut Identity)| {
        let mut peer = identity(2);
        change(&mut peer);
        said(&peer, Some(1))
    };
    let said_with = |change: fn(&mut wire::Hello)| {
        let mut hello = said(&identity(2), Some(1));
        change(&mut hello);
        hello
    };
    for (hello, refused) in [
        (peer(|_| {}), None),
        (peer(|peer| peer.generation = 4), None),
        (peer(|peer| peer.generation = 2), Some(Reason::Generation)),
        (peer(|peer| peer.cluster = Some(ClusterId(5))), Some(Reason::ClusterId)),
        (peer(|peer| peer.cluster = None), None),
        (peer(|peer| (peer.cluster, peer.generation) = (None, 0)), None),
        (peer(|peer| peer.cluster_name = "other".to_owned()), Some(Reason::ClusterName)),
        (peer(|peer| peer.node = NodeId(1)), Some(Reason::SameNode)),
        (peer(|peer| peer.node = NodeId(9)), Some(Reason::WrongNode)),
        (peer(|peer| peer.node_name = "x".repeat(NAME + 1)), Some(Reason::Malformed)),
        (said_with(|hello| hello.version = 0), Some(Reason::Version)),
        (said_with(|hello| hello.version = VERSION + 1), Some(Reason::Version)),
        (said_with(|hello| hello.expects = Some(9)), Some(Reason::WrongNode)),
        (said_with(|hello| hello.expects = None), None),
        (said_with(|hello| hello.lane = 0), Some(Reason::Malformed)),
        (said_with(|hello| hello.lane = 99), Some(Reason::Malformed)),
        (wire::Hello::default(), Some(Reason::Version)),
    ] {
        assert_eq!(reason(&own, Some(2), &hello), refused, "{hello:?}");
    }
}

#[test]
fn a_node_in_no_cluster_passes_for_one_of_any_cluster_of_its_name() {
    let mut own = identity(1);
    own.cluster = None;
    own.generation = 0;
    assert_eq!(reason(&own, None, &said(&identity(2), None)), None);
    own.cluster_name = "other".to_owned();
    assert_eq!(reason(&own, None, &said(&identity(2), None)), Some(Reason::ClusterName));
}

#[test]
fn only_a_member_of_the_own_cluster_shows_a_generation() {
    let own = identity(1);
    let seen = GenerationSeen::new(own.generation);
    let mut peer = check(&own, None, &said(&identity(2), None)).unwrap().peer;
    peer.generation = 9;
    peer.cluster = None;
    seen.note_peer(&own, &peer);
    assert_eq!(*seen.subscribe().borrow(), 3);
    peer.cluster = Some(CLUSTER);
    seen.note_peer(&own, &peer);
    seen.note(4);
    assert_eq!(*seen.subscribe().borrow(), 9);
}

#[test]
fn a_refusal_survives_the_wire_and_its_text_is_bounded() {
    let refusal = Refusal { reason: Reason::ClusterId, text: "é".repeat(NAME), generation: 7 };
    let back = Refusal::from_wire(&refusal.to_wire());
    assert_eq!((back.reason, back.generation, back.text.len()), (Reason::ClusterId, 7, NAME));
}
