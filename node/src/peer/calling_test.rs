//! Calls over real links: each gets its answer, many share a message, large ones hold up nobody.

#![allow(clippy::disallowed_methods)] // the other side, and callers, which are no nodes

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use callboard_types::{Class, NodeId};
use futures_util::future::{join_all, poll_immediate};

use super::rig_test::*;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_calls_at_once_gets_its_own_answer() {
    let (a, b) = pair(echo());
    let calls = (0..1_000_u32).map(|n| {
        let (a, b) = (&a, &b);
        async move {
            let body = Bytes::copy_from_slice(&n.to_be_bytes());
            assert_eq!(a.ask(b, body.clone()).await, Ok(body));
        }
    });
    join_all(calls).await;
    assert_eq!(a.peers.counters().links_dialled, 1);
    assert_eq!(b.peers.counters().links_accepted, 1);
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn both_nodes_call_each_other() {
    let (a, b) = (Node::new(1, echo()), Node::new(2, echo()));
    a.knows(&b);
    b.knows(&a);
    let (there, back) = tokio::join!(a.ask(&b, "there"), b.ask(&a, "back"));
    assert_eq!((there.unwrap(), back.unwrap()), (Bytes::from("there"), Bytes::from("back")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_lane_begin_in_the_order_in_which_they_were_made() {
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let noted = seen.clone();
    let (a, b) = pair(Handlers::new().on(Kind::Ask, move |call: Call| {
        let noted = noted.clone();
        async move {
            noted.lock().unwrap().push(u32::from_be_bytes(call.body[..].try_into().unwrap()));
            // Some are ready at once, others are not.
            if call.body[3].is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
            Ok(Bytes::new())
        }
    }));
    a.ask(&b, Bytes::copy_from_slice(&0_u32.to_be_bytes())).await.unwrap();
    // They are made in this order, as each is begun before the next.
    for answer in join_all((1..5_000_u32).map(|n| a.ask(&b, Bytes::copy_from_slice(&n.to_be_bytes())))).await {
        answer.unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), (0..5_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_waits_together_goes_in_one_message() {
    let (a, b) = pair(echo());
    a.ask(&b, "first").await.unwrap();
    let before = (a.peers.counters(), b.peers.counters());
    // Nobody else runs on this thread until all have been made.
    for answer in join_all((0..200).map(|_| a.ask(&b, "body"))).await {
        answer.unwrap();
    }
    let after = (a.peers.counters(), b.peers.counters());
    assert_eq!(after.0.frames_sent - before.0.frames_sent, 200);
    assert_eq!(after.0.batches_sent - before.0.batches_sent, 1);
    assert_eq!(after.1.frames_sent - before.1.frames_sent, 200);
    assert_eq!(after.1.batches_sent - before.1.batches_sent, 1);
    assert_eq!(after.0.frames_received - before.0.frames_received, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_any_length_arrive_as_they_were() {
    let (a, b) = pair(echo());
    let part = super::outbox::PART;
    let lengths = [0, 1, part - 1, part, part + 1, 2 * part, 3 * part + 7, 5 << 20];
    let calls = lengths.iter().map(|length| {
        let (a, b) = (&a, &b);
        async move { assert_eq!(a.ask(b, bytes(*length)).await, Ok(bytes(*length)), "{length}") }
    });
    join_all(calls).await;
}

#[tokio::test]
async fn small_calls_pass_large_ones_in_both_directions() {
    let (a, b) = pair(echo());
    a.ask(&b, "first").await.unwrap();
    let mut large = Box::pin(a.ask(&b, bytes(48 << 20)));
    assert!(poll_immediate(&mut large).await.is_none());
    let received = || b.peers.counters().bytes_received;
    let mut small = 0;
    // While the request is on its way there, and then while the answer is on its way back.
    while received() < 40 << 20 || b.peers.counters().bytes_sent < 20 << 20 {
        tokio::select! {
            biased;
            answer = a.ask(&b, "small") => assert_eq!(answer.unwrap(), "small"),
            _ = &mut large => panic!("the large one was first"),
        }
        small += 1;
    }
    assert!(small > 10, "{small}");
    assert_eq!(large.await.unwrap(), bytes(48 << 20));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_sent() {
    let (a, b) = pair(echo());
    let answer = a.peers.call(b.id(), Lane::Bulk, Kind::Ask, bytes((8 << 20) + 1), LONG).await;
    let Err(PeerError::Refused(failure)) = answer else { panic!("{answer:?}") };
    assert_eq!((failure.class, failure.code), (Class::Rejected, TRANSPORT));
    assert_eq!(a.peers.counters().frames_sent, 0);
}

#[tokio::test]
async fn a_body_beyond_the_other_sides_limit_is_refused_by_it() {
    let mut small = config();
    small.calls.max_body = 1_000;
    let (a, b) = (Node::new(1, echo()), Node::with(identity(2), small.clone(), echo()));
    a.knows(&b);
    for length in [1_001, 1 << 20] {
        let answer = a.ask(&b, bytes(length)).await;
        let Err(PeerError::Refused(failure)) = answer else { panic!("{answer:?}") };
        assert_eq!(failure.class, Class::Rejected);
    }
    assert_eq!(a.ask(&b, bytes(1_000)).await, Ok(bytes(1_000)));
    // The other way round, it is the answer that cannot be taken: what was asked has been done.
    let (c, d) = (Node::with(identity(3), small, echo()), Node::new(4, large_answers()));
    c.knows(&d);
    let answer = c.ask(&d, "x").await;
    assert!(matches!(answer, Err(PeerError::Lost(_))), "{answer:?}");
    assert_eq!(c.ask(&d, "small").await, Ok(Bytes::from("small")));
}

/// Answers "x" at length, and all else as it is.
fn large_answers() -> Handlers {
    Handlers::new()
        .on(Kind::Ask, |call: Call| async move { if call.body == "x" { Ok(bytes(1 << 20)) } else { Ok(call.body) } })
}

#[tokio::test]
async fn failures_arrive_whole() {
    let failure = Failure { class: Class::Redirected, code: 9, text: "over there".to_owned(), detail: bytes(200_000) };
    let given = failure.clone();
    let (a, b) = pair(Handlers::new().on(Kind::Ask, move |_: Call| {
        let failure = given.clone();
        async move { Err(failure) }
    }));
    assert_eq!(a.ask(&b, "x").await, Err(PeerError::Refused(failure)));
}

#[tokio::test]
async fn the_handler_sees_who_calls_and_how_long_they_wait() {
    let seen: Arc<Mutex<Option<Call>>> = Arc::default();
    let noted = seen.clone();
    let (a, b) = pair(Handlers::new().on(Kind::Seal, move |call: Call| {
        *noted.lock().unwrap() = Some(call);
        async { Ok(Bytes::new()) }
    }));
    a.peers.call(b.id(), Lane::Raft, Kind::Seal, Bytes::new(), Duration::from_millis(1_234)).await.unwrap();
    let call = seen.lock().unwrap().take().unwrap();
    let from = PeerId { node: NodeId(1), name: "node-1".to_owned(), cluster: Some(CLUSTER), generation: 1 };
    assert_eq!((&*call.from, call.kind), (&from, Kind::Seal));
    assert!(call.timeout <= Duration::from_millis(1_234) && call.timeout > Duration::from_millis(500));
}

#[tokio::test]
async fn each_lane_has_a_connection_of_its_own_made_when_it_is_needed() {
    let (a, b) = pair(echo());
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    for (lane, made) in [(Lane::Calls, 1), (Lane::Calls, 1), (Lane::Raft, 2), (Lane::Bulk, 3), (Lane::Raft, 3)] {
        a.peers.call(b.id(), lane, Kind::Ask, Bytes::new(), LONG).await.unwrap();
        assert_eq!(wire.made(), made, "{lane:?}");
        assert!(a.peers.is_connected(b.id(), lane));
    }
}

#[tokio::test]
async fn a_kind_that_nobody_serves_is_rejected() {
    let (a, b) = pair(echo());
    let answer = a.peers.call(b.id(), Lane::Calls, Kind::Admin, Bytes::new(), LONG).await;
    let Err(PeerError::Refused(failure)) = answer else { panic!("{answer:?}") };
    assert_eq!(failure.class, Class::Rejected);
}

#[tokio::test]
async fn a_node_does_not_call_itself_nor_one_it_does_not_know() {
    let a = Node::new(1, echo());
    a.knows(&a);
    for (to, text) in [(a.id(), "itself"), (NodeId(9), "not known")] {
        let answer = a.peers.call(to, Lane::Calls, Kind::Ask, Bytes::new(), LONG).await;
        let Err(PeerError::NotSent(why)) = answer else { panic!("{answer:?}") };
        assert!(why.contains(text), "{why}");
    }
}

#[tokio::test]
async fn an_address_alone_is_enough_for_one_call() {
    let (a, b) = pair(echo());
    let address = b.address.to_string();
    let (peer, answer) = a.peers.call_address(&address, Kind::Ask, bytes(100_000), LONG).await.unwrap();
    assert_eq!((peer.node, answer), (b.id(), bytes(100_000)));
    // Its link does not outlive it.
    a.peers.close(LONG).await;
    tokio::time::timeout(LONG, b.peers.close(LONG)).await.unwrap();
    assert_eq!(a.peers.counters().links_lost, 0);
}

#[tokio::test]
async fn an_address_of_its_own_or_of_nobody_is_not_called() {
    let a = Node::new(1, echo());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [a.address.to_string(), free.to_string(), "no address".to_owned(), String::new()] {
        let answer = a.peers.call_address(&address, Kind::Ask, Bytes::new(), LONG).await;
        assert!(matches!(answer, Err(PeerError::NotSent(_))), "{address}: {answer:?}");
    }
}

#[tokio::test]
async fn the_clocks_of_two_nodes_of_one_machine_agree() {
    let (a, b) = pair(echo());
    assert_eq!(a.peers.clock_offset(b.id()), None);
    a.peers.call(b.id(), Lane::Raft, Kind::Ask, Bytes::new(), LONG).await.unwrap();
    let first = a.peers.clock_offset(b.id()).unwrap();
    // The pings are tighter than the exchange of hellos, or as tight.
    until("a ping's answer", || a.peers.counters().frames_received >= 2).await;
    let second = a.peers.clock_offset(b.id()).unwrap();
    for offset in [first, second] {
        assert!(u128::from(offset.micros.unsigned_abs()) <= offset.error.as_micros() + 1, "{offset:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_many_tasks_do_not_mix() {
    let sum = Arc::new(AtomicU64::new(0));
    let (a, b) = pair(echo());
    let (a, b) = (Arc::new(a), Arc::new(b));
    let mut tasks = Vec::new();
    for task in 0..16_u64 {
        let (a, b, sum) = (a.clone(), b.clone(), sum.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0..200_u64 {
                let body = Bytes::from(vec![task as u8; (n * 37 % 3_000) as usize]);
                assert_eq!(a.ask(&b, body.clone()).await.unwrap(), body);
                sum.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(sum.load(Ordering::Relaxed), 3_200);
}
