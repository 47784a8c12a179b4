//! Links that are lost: what becomes of the calls, and how the next link is made.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, poll_immediate};

use super::rig_test::*;
use super::*;

#[tokio::test]
async fn a_call_that_was_sent_is_lost_with_its_link_and_one_in_the_queue_was_not_sent() {
    let gate = Gate::default();
    let (a, b) = pair(Handlers::new().on(Kind::Ask, gate.handler()));
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    let mut first = Box::pin(a.ask(&b, "first"));
    tokio::select! {
        () = gate.begun(1) => {}
        answer = &mut first => panic!("{answer:?}"),
    }
    // More than any window takes goes before the last one.
    wire.hold();
    let mut calls: Vec<_> = (0..200).map(|_| Box::pin(a.ask(&b, bytes(60 << 10)))).collect();
    for call in &mut calls {
        assert!(poll_immediate(call).await.is_none());
    }
    until("what the link takes", || a.peers.counters().frames_sent > 10).await;
    wire.cut();
    let first = first.await;
    assert!(matches!(first, Err(PeerError::Lost(_))), "{first:?}");
    let outcomes = join_all(calls).await;
    let unsent = |outcome: &Outcome| matches!(outcome, Err(PeerError::NotSent(_)));
    assert!(unsent(outcomes.last().unwrap()), "{:?}", outcomes.last());
    // What was handed to the stream is lost, however far it came: as many as were counted, the hello aside.
    let lost = outcomes.iter().filter(|outcome| !unsent(outcome)).count() as u64;
    assert_eq!(lost + 2, a.peers.counters().frames_sent);
    gate.open();
}

/// The promise itself: what a caller was told was not sent, no handler has ever seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_was_never_seen_there() {
    let seen: Arc<Mutex<HashSet<u64>>> = Arc::default();
    let noted = seen.clone();
    let a = Node::new(1, Handlers::new());
    let b = Node::new(
        2,
        Handlers::new().on(Kind::Ask, move |call: Call| {
            noted.lock().unwrap().insert(u64::from_be_bytes(call.body[..8].try_into().unwrap()));
            async move {
                tokio::task::yield_now().await;
                Ok(call.body)
            }
        }),
    );
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    let (mut answered, mut lost, mut unsent) = (0, 0, 0);
    for round in 0..25_u64 {
        let calls = (0..500_u64).map(|n| {
            let (a, b) = (&a, &b);
            let number = round * 1_000 + n;
            let mut body = number.to_be_bytes().to_vec();
            body.resize(8 + (n as usize * 997) % 20_000, 0);
            async move { (number, a.peers.call(b.id(), Lane::Calls, Kind::Ask, Bytes::from(body), LONG).await) }
        });
        // Cut at another moment each time, measured in what was sent.
        let sent = a.peers.counters().bytes_sent + 150_000 * round;
        let cutting = async {
            until("bytes", || a.peers.counters().bytes_sent > sent).await;
            wire.cut();
        };
        let (outcomes, ()) = tokio::join!(join_all(calls), cutting);
        let seen = seen.lock().unwrap();
        for (number, outcome) in outcomes {
            match outcome {
                Ok(_) => {
                    assert!(seen.contains(&number));
                    answered += 1;
                }
                Err(PeerError::NotSent(why)) => {
                    assert!(!seen.contains(&number), "{number} was seen: {why}");
                    unsent += 1;
                }
                Err(PeerError::Lost(_)) => lost += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(answered > 0 && lost > 0 && unsent > 0, "{answered} {lost} {unsent}");
}

#[tokio::test]
async fn a_link_that_falls_silent_is_dead_within_about_a_second() {
    let gate = Gate::default();
    let (a, b) = pair(Handlers::new().on(Kind::Ask, gate.handler()));
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    let mut call = Box::pin(a.ask(&b, "x"));
    tokio::select! {
        () = gate.begun(1) => {}
        answer = &mut call => panic!("{answer:?}"),
    }
    let held = tokio::time::Instant::now();
    wire.hold();
    let outcome = call.await;
    assert!(matches!(outcome, Err(PeerError::Lost(_))), "{outcome:?}");
    let noticed = held.elapsed();
    assert!(noticed < Duration::from_secs(3), "{noticed:?}");
    // A call made meanwhile is not sent into the silence.
    let outcome = a.ask(&b, "x").await;
    assert!(matches!(outcome, Err(PeerError::NotSent(_))), "{outcome:?}");
    gate.open();
    wire.release();
    wire.cut();
    until("the partition's end", || a.peers.is_connected(b.id(), Lane::Calls)).await;
    assert_eq!(a.ask(&b, "x").await.unwrap(), "x");
}

#[tokio::test]
async fn an_idle_link_outlives_many_signs_of_life() {
    let mut config = config();
    config.keep_alive = Duration::from_millis(20);
    let a = Node::with(identity(1), config.clone(), Handlers::new());
    let b = Node::with(identity(2), config, echo());
    a.knows(&b);
    a.ask(&b, "x").await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    a.ask(&b, "x").await.unwrap();
    assert_eq!((a.peers.counters().links_dialled, a.peers.counters().links_lost), (1, 0));
}

#[tokio::test]
async fn a_node_that_returns_at_its_port_is_found_again() {
    let (a, b) = pair(echo());
    let address = b.address.to_string();
    a.ask(&b, "x").await.unwrap();
    b.end().await;
    until("the loss", || !a.peers.is_connected(identity(2).node, Lane::Calls)).await;
    let gone = a.peers.call(identity(2).node, Lane::Calls, Kind::Ask, Bytes::new(), LONG).await;
    assert!(matches!(gone, Err(PeerError::NotSent(_))), "{gone:?}");
    let b = Node::at(&address, identity(2), config(), echo());
    // Nobody has to call for it.
    until("the return", || a.peers.is_connected(b.id(), Lane::Calls)).await;
    assert_eq!(a.ask(&b, "x").await.unwrap(), "x");
    let counters = a.peers.counters();
    assert_eq!((counters.links_lost, counters.reconnects, counters.links_dialled), (1, 1, 2));
    assert!(counters.dials_failed > 0);
}

#[tokio::test]
async fn a_link_that_was_cut_is_made_again_at_once() {
    let (a, b) = pair(echo());
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    for round in 1..=3 {
        assert_eq!(a.ask(&b, "x").await.unwrap(), "x");
        wire.cut();
        until("the loss", || a.peers.counters().links_lost >= round).await;
    }
    assert_eq!(a.ask(&b, "x").await.unwrap(), "x");
    assert_eq!((a.peers.counters().reconnects, wire.made()), (3, 4));
}

#[tokio::test]
async fn a_call_waits_for_a_link_but_not_for_long() {
    let a = Node::new(1, Handlers::new());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    a.peers.directory().set(identity(2).node, vec![address.clone()]);
    let call = |timeout| a.peers.call(identity(2).node, Lane::Calls, Kind::Ask, Bytes::from("x"), timeout);
    // The shorter of the two patiences counts.
    for (timeout, most) in [(LONG, config().connect_wait), (Duration::from_millis(50), Duration::from_millis(50))] {
        let begun = tokio::time::Instant::now();
        let outcome = call(timeout).await;
        let Err(PeerError::NotSent(why)) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("refused"), "{why}");
        assert!(begun.elapsed() >= most && begun.elapsed() < most * 5, "{:?}", begun.elapsed());
    }
    let waiting = call(LONG);
    let late = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Node::at(&address, identity(2), config(), echo())
    };
    let (outcome, _b) = tokio::join!(waiting, late);
    assert_eq!(outcome.unwrap(), "x");
}

#[tokio::test]
async fn a_call_whose_time_ends_in_the_queue_was_not_sent_and_one_on_the_way_timed_out() {
    let gate = Gate::default();
    let mut patient = config();
    patient.keep_alive = LONG;
    let a = Node::with(identity(1), patient.clone(), Handlers::new());
    let b = Node::with(identity(2), patient, Handlers::new().on(Kind::Ask, gate.handler()));
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    let call = |body| a.peers.call(b.id(), Lane::Calls, Kind::Ask, body, Duration::from_millis(300));
    assert_eq!(call(Bytes::from("x")).await, Err(PeerError::TimedOut));
    wire.hold();
    let outcomes = join_all((0..200).map(|_| call(bytes(60 << 10)))).await;
    assert_eq!(outcomes[0], Err(PeerError::TimedOut));
    let last = outcomes.last().unwrap();
    assert!(matches!(last, Err(PeerError::NotSent(_))), "{last:?}");
    gate.open();
    wire.release();
    // The others were taken back: none of them is there when the wire is free again.
    let timed_out = outcomes.iter().filter(|outcome| **outcome == Err(PeerError::TimedOut)).count();
    a.ask(&b, "last").await.unwrap();
    assert_eq!(gate.begun.load(std::sync::atomic::Ordering::SeqCst), 1 + timed_out + 1);
}

#[tokio::test]
async fn the_queue_is_bounded_and_a_full_one_is_an_error_at_once() {
    let mut config = config();
    config.calls.queued_bytes = 1 << 20;
    config.keep_alive = LONG;
    let a = Node::with(identity(1), config, Handlers::new());
    let b = Node::new(2, echo());
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    a.ask(&b, "x").await.unwrap();
    wire.hold();
    let mut taken = Vec::new();
    let refused = loop {
        let mut call = Box::pin(a.ask(&b, bytes(60 << 10)));
        match poll_immediate(&mut call).await {
            Some(outcome) if taken.len() > 20 => break outcome,
            Some(outcome) => panic!("{outcome:?} after {}", taken.len()),
            None => taken.push(call),
        }
        // The stream takes what it can.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(taken.len() < 200, "there is no bound");
    };
    let Err(PeerError::NotSent(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("bytes in the queue"), "{why}");
    wire.release();
    for outcome in join_all(taken).await {
        assert_eq!(outcome.unwrap().len(), 60 << 10);
    }
}

#[tokio::test]
async fn a_node_that_leaves_the_directory_is_called_no_more_but_answers_what_it_was_asked() {
    let gate = Gate::default();
    let (a, b) = pair(Handlers::new().on(Kind::Ask, gate.handler()));
    let mut asked = Box::pin(a.ask(&b, "x"));
    tokio::select! {
        () = gate.begun(1) => {}
        answer = &mut asked => panic!("{answer:?}"),
    }
    a.peers.directory().remove(b.id());
    let outcome = a.ask(&b, "y").await;
    assert!(matches!(outcome, Err(PeerError::NotSent(_))), "{outcome:?}");
    gate.open();
    assert_eq!(asked.await.unwrap(), "x");
    // And it may come back.
    a.knows(&b);
    assert_eq!(a.ask(&b, "z").await.unwrap(), "z");
}

#[tokio::test]
async fn a_node_that_nobody_calls_any_more_is_dialled_no_longer() {
    let a = Node::with(identity(1), PeerConfig { redial_for: Duration::from_millis(300), ..config() }, Handlers::new());
    let idle = a.tasks.count();
    let b = Node::new(2, echo());
    let (id, address) = (b.id(), b.address.to_string());
    a.knows(&b);
    a.ask(&b, "x").await.unwrap();
    b.end().await;
    until("the keeper's end", || a.tasks.count() == idle).await;
    let dialled = a.peers.counters().dials_failed;
    assert!(dialled > 0);
    let b = Node::at(&address, identity(2), config(), echo());
    assert!(!a.peers.is_connected(id, Lane::Calls));
    assert_eq!(a.ask(&b, "x").await.unwrap(), "x");
}

#[tokio::test]
async fn closing_lets_calls_end_and_takes_no_more() {
    let gate = Gate::default();
    let (a, b) = pair(Handlers::new().on(Kind::Ask, gate.handler()));
    let mut asked = Box::pin(a.ask(&b, "x"));
    tokio::select! {
        () = gate.begun(1) => {}
        answer = &mut asked => panic!("{answer:?}"),
    }
    let mut closing = Box::pin(b.peers.close(LONG));
    assert!(poll_immediate(&mut closing).await.is_none());
    until("the farewell", || !a.peers.is_connected(b.id(), Lane::Calls)).await;
    let outcome = a.ask(&b, "y").await;
    let Err(PeerError::NotSent(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("stops") || why.contains("refused"), "{why}");
    gate.open();
    assert_eq!(asked.await.unwrap(), "x");
    tokio::time::timeout(LONG, closing).await.unwrap();
    assert_eq!(a.peers.counters().links_lost, 0);
    // The same at the other end.
    a.peers.close(Duration::ZERO).await;
    let outcome = a.ask(&b, "y").await;
    assert!(matches!(outcome, Err(PeerError::NotSent(_))), "{outcome:?}");
    b.end().await;
    a.end().await;
}

#[tokio::test]
async fn a_close_that_takes_too_long_cuts() {
    let gate = Gate::default();
    let (a, b) = pair(Handlers::new().on(Kind::Ask, gate.handler()));
    let mut asked = Box::pin(a.ask(&b, "x"));
    tokio::select! {
        () = gate.begun(1) => {}
        answer = &mut asked => panic!("{answer:?}"),
    }
    b.peers.close(Duration::from_millis(50)).await;
    let outcome = asked.await;
    assert!(matches!(outcome, Err(PeerError::Lost(_))), "{outcome:?}");
    gate.open();
}
