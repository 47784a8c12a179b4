//! The dialled end: how much it works on at a time, and when work ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::{Frame, Frames, Request};
use callboard_types::Class;
use futures_util::future::{join_all, poll_immediate};

use super::rig_test::*;
use super::*;

fn few_handlers(handlers: usize) -> PeerConfig {
    let mut config = config();
    config.calls.handlers = handlers;
    config
}

/// So long that no call ends by itself.
const FOREVER: Duration = Duration::from_secs(10_000);

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

#[tokio::test]
async fn one_call_too_many_is_refused_at_once_and_the_others_go_on() {
    let gate = Gate::default();
    let handlers = Handlers::new().on(Kind::Ask, gate.handler()).on(Kind::Seal, |_: Call| async { Ok(Bytes::new()) });
    let (a, b) = (Node::new(1, Handlers::new()), Node::with(identity(2), few_handlers(4), handlers));
    a.knows(&b);
    a.peers.call(b.id(), Lane::Calls, Kind::Seal, Bytes::new(), LONG).await.unwrap();
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(a.ask(&b, "x"))).collect();
    for call in &mut waiting {
        assert!(poll_immediate(call).await.is_none());
    }
    gate.begun(4).await;
    for kind in [Kind::Ask, Kind::Seal] {
        let outcome = a.peers.call(b.id(), Lane::Calls, kind, Bytes::new(), LONG).await;
        let Err(PeerError::Refused(failure)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((failure.class, failure.code), (Class::Busy, TRANSPORT));
    }
    // Other lanes have places of their own.
    a.peers.call(b.id(), Lane::Raft, Kind::Seal, Bytes::new(), LONG).await.unwrap();
    gate.open();
    for outcome in join_all(waiting).await {
        outcome.unwrap();
    }
    assert_eq!(a.peers.call(b.id(), Lane::Calls, Kind::Ask, Bytes::new(), LONG).await, Ok(Bytes::new()));
    assert_eq!((count(&gate.begun), b.peers.counters().calls_busy), (5, 2));
}

#[tokio::test]
async fn work_that_was_registered_so_is_dropped_when_its_caller_leaves() {
    let (kept, cancelled) = (Gate::default(), Gate::default());
    let handlers = Handlers::new().on(Kind::Ask, kept.handler()).on_cancellable(Kind::Meta, cancelled.handler());
    let (a, b) = pair(handlers);
    let call = |kind| Box::pin(a.peers.call(b.id(), Lane::Calls, kind, Bytes::new(), FOREVER));
    let (mut to_kept, mut to_cancelled) = (call(Kind::Ask), call(Kind::Meta));
    tokio::select! {
        () = async { kept.begun(1).await; cancelled.begun(1).await } => {}
        _ = &mut to_kept => panic!("answered"),
        _ = &mut to_cancelled => panic!("answered"),
    }
    drop((to_kept, to_cancelled));
    until("the cancelled one's end", || count(&cancelled.dropped) == 1).await;
    assert_eq!((count(&cancelled.finished), count(&kept.dropped)), (0, 0));
    kept.open();
    until("the kept one's end", || count(&kept.finished) == 1).await;
}

#[tokio::test]
async fn work_that_was_registered_so_is_dropped_when_its_time_is_up() {
    let (kept, cancelled) = (Gate::default(), Gate::default());
    let handlers = Handlers::new().on(Kind::Ask, kept.handler()).on_cancellable(Kind::Meta, cancelled.handler());
    let (a, b) = pair(handlers);
    let call = |kind| a.peers.call(b.id(), Lane::Calls, kind, Bytes::new(), Duration::from_millis(100));
    let outcomes = tokio::join!(call(Kind::Ask), call(Kind::Meta));
    assert_eq!(outcomes, (Err(PeerError::TimedOut), Err(PeerError::TimedOut)));
    until("the cancelled one's end", || count(&cancelled.dropped) == 1).await;
    assert_eq!((count(&cancelled.finished), count(&kept.dropped)), (0, 0));
    kept.open();
    until("the kept one's end", || count(&kept.finished) == 1).await;
}

#[tokio::test]
async fn work_ends_by_its_own_time_even_when_the_caller_says_nothing() {
    let cancelled = Gate::default();
    let b = Node::new(2, Handlers::new().on_cancellable(Kind::Meta, cancelled.handler()));
    let raw = Raw::member(1, &b).await;
    let request = Request { kind: Kind::Meta.into(), timeout_ms: 50, length: 0, body: Bytes::new() };
    raw.say.send(one_frame(1, Content::Request(request))).await.unwrap();
    until("its end", || count(&cancelled.dropped) == 1).await;
    assert_eq!(count(&cancelled.finished), 0);
}

#[tokio::test]
async fn work_that_was_registered_so_is_dropped_when_the_link_is_lost() {
    let (kept, cancelled) = (Gate::default(), Gate::default());
    let handlers = Handlers::new().on(Kind::Ask, kept.handler()).on_cancellable(Kind::Meta, cancelled.handler());
    let (a, b) = pair(handlers);
    let wire = Wire::to(b.address).await;
    a.knows_at(&b, wire.address);
    let call = |kind| a.peers.call(b.id(), Lane::Calls, kind, Bytes::new(), FOREVER);
    let cut = async {
        kept.begun(1).await;
        cancelled.begun(1).await;
        wire.cut();
    };
    let (one, other, ()) = tokio::join!(call(Kind::Ask), call(Kind::Meta), cut);
    for outcome in [one, other] {
        assert!(matches!(outcome, Err(PeerError::Lost(_))), "{outcome:?}");
    }
    until("the cancelled one's end", || count(&cancelled.dropped) == 1).await;
    assert_eq!((count(&cancelled.finished), count(&kept.dropped)), (0, 0));
    kept.open();
    until("the kept one's end", || count(&kept.finished) == 1).await;
}

#[tokio::test]
async fn a_handler_that_panics_leaves_its_outcome_open_and_the_link_whole() {
    let (a, b) = pair(
        echo()
            .on(Kind::Seal, |_: Call| -> std::future::Ready<Result<Bytes, Failure>> { panic!("at once") })
            .on(Kind::Meta, |_: Call| async { panic!("at the first step") })
            .on(Kind::Join, |_: Call| async {
                tokio::task::yield_now().await;
                panic!("later")
            }),
    );
    for kind in [Kind::Seal, Kind::Meta, Kind::Join] {
        let outcome = a.peers.call(b.id(), Lane::Calls, kind, Bytes::new(), LONG).await;
        let Err(PeerError::Refused(failure)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(failure.class, Class::Unknown);
    }
    assert_eq!(a.ask(&b, "x").await.unwrap(), "x");
    assert_eq!(a.peers.counters().links_dialled, 1);
}

fn requests(from: u64, count: u64) -> Frames {
    let request = || Request { kind: Kind::Ask.into(), timeout_ms: 60_000, length: 1_000, body: bytes(1_000) };
    let frames = (from..from + count).map(|call| Frame { call, content: Some(Content::Request(request())) });
    Frames { frames: frames.collect() }
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_listen_is_worked_for_no_further_than_its_places() {
    const ANSWER: usize = 64 << 10;
    const PLACES: usize = 16;
    let worked = Arc::new(AtomicUsize::new(0));
    let counted = worked.clone();
    let handlers = Handlers::new().on(Kind::Ask, move |_: Call| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::task::yield_now().await;
            Ok(bytes(ANSWER))
        }
    });
    let b = Node::with(identity(2), few_handlers(PLACES), handlers);
    let mut raw = Raw::member(1, &b).await;
    let mut asked = 0;
    // It is not even listened to when what waits for it is too much.
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(500), raw.say.send(requests(asked + 1, 100))).await
    {
        sent.unwrap();
        asked += 100;
        assert!(asked < 1_000_000, "everything was read");
    }
    let received = b.peers.counters().frames_received;
    assert!(received < asked, "{received} of {asked}");
    // What was worked for fits into the window, the one or two that wait for it, and the places.
    let most = (1 << 20) / ANSWER + 4 + PLACES;
    assert!(count(&worked) <= most, "{} of {most}", count(&worked));
    // As soon as it listens, it gets an answer to everything.
    let Raw { say, hear, .. } = &mut raw;
    let mut answered = 0;
    let listening = async {
        while answered < asked {
            let message = hear.message().await.unwrap().unwrap();
            answered +=
                message.frames.iter().filter(|frame| matches!(frame.content, Some(Content::Response(_)))).count()
                    as u64;
        }
    };
    let all = tokio::time::timeout(LONG, listening).await.is_ok();
    assert!(all, "{answered} of {asked} {:?}", b.peers.counters());
    drop(say.clone());
}

#[tokio::test]
async fn a_peer_that_says_no_more_is_still_answered_and_then_the_link_ends() {
    let gate = Gate::default();
    let b = Node::new(2, Handlers::new().on(Kind::Ask, gate.handler()));
    let mut raw = Raw::member(1, &b).await;
    raw.say.send(requests(1, 3)).await.unwrap();
    gate.begun(3).await;
    raw.say = tokio::sync::mpsc::channel(1).0;
    gate.open();
    let (heard, ended) = raw.rest().await;
    assert_eq!(heard.len(), 3);
    ended.unwrap();
}

#[tokio::test]
async fn a_node_that_closes_begins_no_call_and_answers_those_it_has() {
    let gate = Gate::default();
    let b = Node::new(2, Handlers::new().on(Kind::Ask, gate.handler()));
    let mut raw = Raw::member(1, &b).await;
    raw.say.send(requests(1, 1)).await.unwrap();
    gate.begun(1).await;
    let mut closing = Box::pin(b.peers.close(LONG));
    assert!(poll_immediate(&mut closing).await.is_none());
    let heard = raw.heard().await;
    assert!(matches!(heard.frames[0].content, Some(Content::Refusal(_))), "{heard:?}");
    raw.say.send(requests(2, 1)).await.unwrap();
    let heard = raw.heard().await;
    let [Frame { call: 2, content: Some(Content::Response(response)) }] = &heard.frames[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(response.failure.as_ref().unwrap().class(), callboard_proto::peer::Class::Busy);
    gate.open();
    let heard = raw.heard().await;
    let [Frame { call: 1, content: Some(Content::Response(response)) }] = &heard.frames[..] else {
        panic!("{heard:?}")
    };
    assert_eq!((&response.failure, count(&gate.begun)), (&None, 1));
    raw.say = tokio::sync::mpsc::channel(1).0;
    raw.rest().await.1.unwrap();
    tokio::time::timeout(LONG, closing).await.unwrap();
}

#[tokio::test]
async fn large_bodies_that_are_too_many_at_once_are_refused() {
    let mut config = config();
    (config.calls.max_body, config.calls.gathered_bytes) = (1 << 20, 1 << 20);
    let b = Node::with(identity(2), config, echo());
    let mut raw = Raw::member(1, &b).await;
    let begun = |length| Request { kind: Kind::Ask.into(), timeout_ms: 60_000, length, body: Bytes::new() };
    raw.say.send(one_frame(1, Content::Request(begun(1 << 20)))).await.unwrap();
    raw.say.send(one_frame(2, Content::Request(begun(1)))).await.unwrap();
    let heard = raw.heard().await;
    let [Frame { call: 2, content: Some(Content::Response(response)) }] = &heard.frames[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(response.failure.as_ref().unwrap().class(), callboard_proto::peer::Class::Busy);
    // The first one leaves, and there is room.
    raw.say.send(one_frame(1, Content::Cancel(callboard_proto::peer::Cancel {}))).await.unwrap();
    raw.say.send(requests(3, 1)).await.unwrap();
    let heard = raw.heard().await;
    assert_eq!(heard.frames[0].call, 3);
}
