//! How calls end: by an answer, by their caller, or with the link.

use callboard_proto::peer::{Part, Ping, Response};
use callboard_types::Class;

use super::super::config::PeerConfig;
use super::*;

type Named = Calls<&'static str>;

const KIND: i32 = 6;

fn limits() -> LaneLimits {
    PeerConfig::default().calls
}

fn calls() -> Named {
    Calls::new(limits())
}

fn body(length: usize) -> Bytes {
    (0..length).map(|n| n as u8).collect()
}

fn submit(calls: &mut Named, who: &'static str, length: usize) -> u64 {
    calls.submit(KIND, 1_000, body(length), who).unwrap()
}

fn answer(length: usize, sent: usize) -> Content {
    Content::Response(Response { failure: None, length: length as u64, body: body(length).slice(..sent) })
}

fn sent(calls: &mut Named) -> Vec<Frame> {
    std::iter::from_fn(|| calls.next_batch()).flat_map(|batch| batch.frames).collect()
}

#[test]
fn each_answer_goes_to_its_own_call() {
    let mut calls = calls();
    let (first, second) = (submit(&mut calls, "a", 1), submit(&mut calls, "b", 1));
    sent(&mut calls);
    assert_eq!(calls.on_frame(second, answer(2, 2)), Ok(Some(("b", Ok(body(2))))));
    assert_eq!(calls.on_frame(first, answer(3, 3)), Ok(Some(("a", Ok(body(3))))));
    assert_eq!(calls.on_frame(first, answer(3, 3)), Ok(None));
    assert_eq!(calls.pending(), 0);
}

#[test]
fn an_answer_in_parts_is_put_together() {
    let mut calls = calls();
    let call = submit(&mut calls, "a", 1);
    sent(&mut calls);
    let part = |range| Content::Part(Part { body: body(100_000).slice(range) });
    assert_eq!(calls.on_frame(call, answer(100_000, 60_000)), Ok(None));
    assert_eq!(calls.on_frame(call, part(60_000..80_000)), Ok(None));
    assert_eq!(calls.on_frame(call, part(80_000..100_000)), Ok(Some(("a", Ok(body(100_000))))));
}

#[test]
fn a_failure_is_a_refusal_with_its_detail() {
    let mut calls = calls();
    let call = submit(&mut calls, "a", 1);
    sent(&mut calls);
    let failure = Failure { class: Class::Redirected, code: 3, text: "there".to_owned(), detail: body(2) };
    let content = Content::Response(Response { failure: Some(failure.to_wire()), length: 2, body: body(2) });
    assert_eq!(calls.on_frame(call, content), Ok(Some(("a", Err(PeerError::Refused(failure))))));
}

#[test]
fn an_answer_that_is_too_large_leaves_the_outcome_open() {
    let mut calls = Calls::new(LaneLimits { max_body: 10, ..limits() });
    let call = submit(&mut calls, "a", 1);
    sent(&mut calls);
    let Ok(Some(("a", Err(PeerError::Lost(_))))) = calls.on_frame(call, answer(11, 5)) else { panic!("not lost") };
    assert_eq!(calls.on_frame(call, Content::Part(Part { body: body(6) })), Ok(None));
}

#[test]
fn a_call_is_unsent_until_its_first_byte_was_given_out() {
    let mut calls = calls();
    submit(&mut calls, "sent", 10);
    submit(&mut calls, "large, begun", 200_000);
    calls.next_batch().unwrap();
    submit(&mut calls, "small", 10);
    submit(&mut calls, "large", 200_000);
    let mut ended = calls.end();
    ended.sort_by_key(|(who, _)| *who);
    assert_eq!(
        ended,
        [
            ("large", Reached::Unsent),
            ("large, begun", Reached::Stream),
            ("sent", Reached::Stream),
            ("small", Reached::Unsent),
        ]
    );
    assert_eq!(calls.next_batch(), None);
    assert!(calls.has_sent_all());
    assert_eq!(calls.submit(KIND, 1, Bytes::new(), "late"), Err(NotTaken::Closed));
}

#[test]
fn who_leaves_before_the_call_was_sent_takes_it_back() {
    let mut calls = calls();
    let (first, second) = (submit(&mut calls, "a", 10), submit(&mut calls, "b", 200_000));
    assert_eq!(calls.leave(first), Some(Reached::Unsent));
    assert_eq!(calls.leave(second), Some(Reached::Unsent));
    assert_eq!(sent(&mut calls), []);
    assert_eq!(calls.pending(), 0);
}

#[test]
fn who_leaves_later_has_the_peer_told() {
    let mut calls = calls();
    let call = submit(&mut calls, "a", 200_000);
    calls.next_batch().unwrap();
    assert_eq!(calls.leave(call), Some(Reached::Stream));
    assert_eq!(sent(&mut calls), [Frame { call, content: Some(Content::Cancel(Cancel {})) }]);
    assert_eq!(calls.leave(call), None);
    assert_eq!(calls.on_frame(call, answer(1, 1)), Ok(None));
}

#[test]
fn who_leaves_after_the_answer_came_leaves_nothing_behind() {
    let mut calls = calls();
    let call = submit(&mut calls, "a", 1);
    sent(&mut calls);
    assert!(calls.on_frame(call, answer(1, 1)).unwrap().is_some());
    assert_eq!(calls.leave(call), None);
    assert_eq!(sent(&mut calls), []);
}

#[test]
fn a_bound_that_is_reached_is_named() {
    let few = |change: fn(&mut LaneLimits)| {
        let mut limits = limits();
        change(&mut limits);
        let mut calls: Named = Calls::new(limits);
        submit(&mut calls, "a", 100);
        submit(&mut calls, "b", 100);
        calls.submit(KIND, 1, body(1), "c").map(|_| ())
    };
    assert_eq!(few(|limits| limits.queued_calls = 2), Err(NotTaken::Full("calls in the queue")));
    assert_eq!(few(|limits| limits.queued_bytes = 200), Err(NotTaken::Full("bytes in the queue")));
    assert_eq!(few(|limits| limits.pending_calls = 2), Err(NotTaken::Full("calls in flight")));
    assert_eq!(few(|limits| limits.queued_bytes = 201), Ok(()));
}

#[test]
fn what_was_sent_leaves_room_in_the_queue_but_not_in_flight() {
    let mut calls = Calls::new(LaneLimits { queued_calls: 1, pending_calls: 2, ..limits() });
    submit(&mut calls, "a", 1);
    assert!(calls.submit(KIND, 1, body(1), "b").is_err());
    sent(&mut calls);
    submit(&mut calls, "b", 1);
    sent(&mut calls);
    assert_eq!(calls.submit(KIND, 1, body(1), "c"), Err(NotTaken::Full("calls in flight")));
}

#[test]
fn a_single_body_is_taken_by_an_empty_queue_whatever_its_size() {
    let mut calls = Calls::new(LaneLimits { queued_bytes: 10, ..limits() });
    submit(&mut calls, "a", 1_000);
    assert_eq!(calls.submit(KIND, 1, body(1), "b"), Err(NotTaken::Full("bytes in the queue")));
}

#[test]
fn a_retired_link_takes_no_calls_and_brings_its_own_to_their_end() {
    let mut calls = calls();
    let call = submit(&mut calls, "a", 1);
    calls.retire();
    assert_eq!(calls.submit(KIND, 1, body(1), "b"), Err(NotTaken::Closed));
    assert!(!calls.has_sent_all());
    assert_eq!(sent(&mut calls).len(), 1);
    assert!(calls.has_sent_all());
    assert_eq!(calls.on_frame(call, answer(1, 1)), Ok(Some(("a", Ok(body(1))))));
}

#[test]
fn frames_that_only_this_side_sends_are_violations() {
    for content in [
        Content::Ping(Ping { number: 1 }),
        Content::Cancel(Cancel {}),
        Content::Request(callboard_proto::peer::Request::default()),
        Content::Hello(callboard_proto::peer::Hello::default()),
    ] {
        assert!(calls().on_frame(1, content.clone()).is_err(), "{content:?}");
    }
}

#[test]
fn an_answer_to_a_call_that_was_not_sent_is_a_violation() {
    let mut calls = calls();
    let call = submit(&mut calls, "a", 1);
    assert!(calls.on_frame(call, answer(1, 1)).is_err());
    assert_eq!(calls.end(), [("a", Reached::Unsent)]);
}
