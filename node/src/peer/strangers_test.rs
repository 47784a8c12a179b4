//! Who is refused, by which side, and what is learned from it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::{Frame, Reason};
use callboard_types::{ClusterId, NodeId};

use super::hello::VERSION;
use super::rig_test::*;
use super::*;

fn node(number: u64, change: impl FnOnce(&mut Identity)) -> Node {
    let mut identity = identity(number);
    change(&mut identity);
    Node::with(identity, config(), echo())
}

fn not_sent(outcome: Outcome) -> String {
    match outcome {
        Err(PeerError::NotSent(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn members_of_other_clusters_do_not_talk_whoever_dials() {
    let a = node(1, |_| {});
    for other in [
        node(2, |identity| identity.cluster = Some(ClusterId(0xD))),
        node(2, |identity| identity.cluster_name = "other".to_owned()),
    ] {
        a.knows(&other);
        other.knows(&a);
        for why in [not_sent(a.ask(&other, "x").await), not_sent(other.ask(&a, "x").await)] {
            assert!(why.contains("cluster"), "{why}");
        }
        assert_eq!(other.peers.counters().links_accepted, 0);
    }
    assert_eq!(a.peers.counters().links_accepted, 0);
    assert!(a.peers.counters().strangers >= 4);
}

#[tokio::test]
async fn a_lower_generation_is_refused_and_told_of_the_higher_one() {
    let (old, recovered) = (node(1, |_| {}), node(2, |identity| identity.generation = 7));
    old.knows(&recovered);
    recovered.knows(&old);
    let mut seen = old.peers.generation_seen();
    assert_eq!(*seen.borrow_and_update(), 1);
    let why = not_sent(old.ask(&recovered, "x").await);
    assert!(why.contains("generation 1"), "{why}");
    tokio::time::timeout(LONG, seen.changed()).await.unwrap().unwrap();
    assert_eq!(*seen.borrow_and_update(), 7);
    // The recovered side refuses, too, when it is the one that dials; the old side would not.
    not_sent(recovered.ask(&old, "x").await);
    assert_eq!(*recovered.peers.generation_seen().borrow(), 7);
    // Having caught up, it is a member again.
    old.peers.identify(Identity { generation: 7, ..identity(1) });
    assert_eq!(old.ask(&recovered, "x").await.unwrap(), "x");
    assert_eq!(recovered.ask(&old, "x").await.unwrap(), "x");
}

#[tokio::test]
async fn somebody_else_at_an_address_is_not_called_and_the_address_is_forgotten() {
    let (a, b, c) = (node(1, |_| {}), node(2, |_| {}), node(3, |_| {}));
    a.peers.directory().set(b.id(), vec![c.address.to_string(), b.address.to_string()]);
    assert_eq!(a.ask(&b, "x").await.unwrap(), "x");
    assert_eq!(c.peers.counters().links_accepted, 0);
    assert_eq!(a.peers.directory().addresses(b.id()), [b.address.to_string()]);
    // An address of its own is no better.
    a.peers.directory().set(c.id(), vec![a.address.to_string()]);
    not_sent(a.ask(&c, "x").await);
    assert_eq!(a.peers.directory().addresses(c.id()), [""; 0]);
}

#[tokio::test]
async fn the_dialled_side_refuses_for_the_reason_that_it_gives() {
    let b = node(2, |_| {});
    for (reason, change) in [
        (Reason::Version, (|hello| hello.version = VERSION + 1) as fn(&mut callboard_proto::peer::Hello)),
        (Reason::ClusterId, |hello| hello.cluster_low = 0xD),
        (Reason::ClusterName, |hello| hello.cluster_name.clear()),
        (Reason::Generation, |hello| hello.generation = 0),
        (Reason::WrongNode, |hello| hello.expects = Some(3)),
        (Reason::SameNode, |hello| hello.node = 2),
        (Reason::Malformed, |hello| hello.lane = 0),
    ] {
        let mut hello = raw_hello(1);
        change(&mut hello);
        let mut raw = Raw::open(b.address, &b.tasks, one_frame(0, Content::Hello(hello))).await.unwrap();
        let (heard, ended) = raw.rest().await;
        let [Frame { content: Some(Content::Refusal(refusal)), .. }] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((refusal.reason(), refusal.generation), (reason, 1));
        ended.unwrap();
    }
    assert_eq!(b.peers.counters().links_accepted, 0);
    assert_eq!(b.peers.counters().strangers, 7);
}

#[tokio::test]
async fn too_many_links_are_refused_for_a_while_only() {
    let mut few = config();
    few.accepted_links = 1;
    let b = Node::with(identity(2), few, echo());
    let first = Raw::member(7, &b).await;
    let a = node(1, |_| {});
    a.knows(&b);
    let why = not_sent(a.ask(&b, "x").await);
    assert!(why.contains("too many links"), "{why}");
    drop(first);
    until("a free place", || !why.is_empty() && b.peers.counters().links_too_many > 0).await;
    assert_eq!(retry(&a, &b).await, "x");
    assert_eq!(a.peers.counters().strangers, 0);
}

/// The place of a link that has ended is free a moment later.
async fn retry(a: &Node, b: &Node) -> Bytes {
    loop {
        if let Ok(answer) = a.ask(b, "x").await {
            return answer;
        }
    }
}

#[tokio::test]
async fn who_joins_becomes_known_as_a_member_without_losing_a_call() {
    let seen: Arc<Mutex<Vec<Option<ClusterId>>>> = Arc::default();
    let (noted, gate) = (seen.clone(), Gate::default());
    let b = Node::new(
        2,
        Handlers::new().on(Kind::Seal, gate.handler()).on(Kind::Ask, move |call: Call| {
            noted.lock().unwrap().push(call.from.cluster);
            async move { Ok(call.body) }
        }),
    );
    let a = node(1, |identity| (identity.cluster, identity.generation) = (None, 0));
    a.knows(&b);
    a.ask(&b, "x").await.unwrap();
    let mut under_way = Box::pin(a.peers.call(b.id(), Lane::Calls, Kind::Seal, Bytes::from("y"), LONG));
    tokio::select! {
        () = gate.begun(1) => {}
        answer = &mut under_way => panic!("{answer:?}"),
    }
    a.peers.identify(identity(1));
    until("the other link", || a.peers.counters().links_dialled == 2).await;
    a.ask(&b, "x").await.unwrap();
    gate.open();
    assert_eq!(under_way.await.unwrap(), "y");
    assert_eq!(*seen.lock().unwrap(), [None, Some(CLUSTER)]);
    assert_eq!(a.peers.counters().links_lost, 0);
}

#[tokio::test]
async fn who_joins_another_cluster_becomes_a_stranger() {
    let (a, b) = (node(1, |_| {}), node(2, |identity| identity.cluster = None));
    a.knows(&b);
    a.ask(&b, "x").await.unwrap();
    b.peers.identify(Identity { cluster: Some(ClusterId(0xD)), ..identity(2) });
    until("the farewell", || !a.peers.is_connected(b.id(), Lane::Calls)).await;
    let why = not_sent(a.ask(&b, "x").await);
    assert!(why.contains("cluster"), "{why}");
}

#[tokio::test]
async fn a_node_without_a_cluster_may_call_and_is_seen_as_such() {
    let b = node(2, |_| {});
    let joining = node(9, |identity| (identity.cluster, identity.generation) = (None, 0));
    let address = b.address.to_string();
    let (peer, _) = joining.peers.call_address(&address, Kind::Ask, Bytes::new(), LONG).await.unwrap();
    assert_eq!((peer.cluster, peer.node), (Some(CLUSTER), NodeId(2)));
    let other = node(9, |identity| {
        identity.cluster = None;
        identity.cluster_name = "other".to_owned();
    });
    let outcome = other.peers.call_address(&address, Kind::Ask, Bytes::new(), LONG).await;
    assert!(matches!(outcome, Err(PeerError::NotSent(_))), "{outcome:?}");
}
