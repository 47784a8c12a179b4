//! What goes into which message, and what can still be taken back.

use std::collections::BTreeMap;

use callboard_proto::peer::Cancel;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const SMALL: Head = Head::Answer;

fn body(length: usize) -> Bytes {
    Bytes::from(vec![7; length])
}

fn cancel(call: u64) -> Frame {
    Frame { call, content: Some(Content::Cancel(Cancel {})) }
}

/// Calls of a message's frames, in order.
fn calls(batch: Option<Frames>) -> Vec<u64> {
    batch.map(|batch| batch.frames.iter().map(|frame| frame.call).collect()).unwrap_or_default()
}

#[test]
fn all_that_waits_goes_into_one_message_in_order() {
    let mut outbox = Outbox::default();
    for call in 1..=100 {
        outbox.push(call, SMALL, body(100));
    }
    outbox.push_control(cancel(900));
    assert_eq!((outbox.calls(), outbox.bytes()), (100, 10_000));
    assert_eq!(calls(outbox.next_batch()), std::iter::once(900).chain(1..=100).collect::<Vec<_>>());
    assert!(outbox.is_empty());
    assert_eq!(outbox.bytes(), 0);
    assert_eq!(outbox.next_batch(), None);
}

#[test]
fn a_large_body_goes_in_parts_between_the_small_ones() {
    let mut outbox = Outbox::default();
    outbox.push(1, SMALL, body(3 * PART + 1));
    for call in 2..=5 {
        outbox.push(call, SMALL, body(10));
        assert_eq!(calls(outbox.next_batch()), [1, call]);
    }
    assert!(outbox.is_empty());
    assert_eq!(outbox.bytes(), 0);
}

#[test]
fn a_few_large_bodies_take_turns_and_others_wait() {
    let mut outbox = Outbox::default();
    for call in 1..=6 {
        outbox.push(call, SMALL, body(2 * PART));
    }
    let order: Vec<_> = std::iter::from_fn(|| outbox.next_batch()).flat_map(|batch| calls(Some(batch))).collect();
    assert_eq!(order, [1, 2, 3, 4, 1, 5, 2, 6, 3, 4, 5, 6]);
}

#[test]
fn small_ones_do_not_hold_up_a_large_body() {
    let mut outbox = Outbox::default();
    for call in 1..=10_000 {
        outbox.push(call, SMALL, body(100));
    }
    outbox.push(10_001, SMALL, body(2 * PART));
    assert_eq!(calls(outbox.next_batch()).first(), Some(&10_001));
    assert_eq!(calls(outbox.next_batch()).first(), Some(&10_001));
    assert!(outbox.calls() > 9_000);
}

#[test]
fn what_was_not_given_out_can_be_taken_back() {
    let mut outbox = Outbox::default();
    for call in 1..=4 {
        outbox.push(call, SMALL, body(100));
    }
    outbox.push(5, SMALL, body(PART + 1));
    outbox.push(6, SMALL, body(PART + 1));
    assert!(outbox.is_unsent(2) && outbox.is_unsent(6) && !outbox.is_unsent(7));
    assert!(outbox.take_back(2) && !outbox.take_back(2));
    assert!(outbox.take_back(6) && !outbox.take_back(6));
    assert_eq!((outbox.calls(), outbox.bytes()), (4, 300 + PART + 1));
    assert_eq!(calls(outbox.next_batch()), [5, 1, 3, 4]);
    for call in 1..=6 {
        assert!(!outbox.is_unsent(call) && !outbox.take_back(call), "{call}");
    }
    assert_eq!((outbox.calls(), outbox.bytes()), (1, 1));
    outbox.drop_rest(5);
    outbox.drop_rest(5);
    assert_eq!((outbox.calls(), outbox.bytes(), outbox.next_batch()), (0, 0, None));
}

#[test]
fn calls_that_were_taken_back_leave_no_places_behind() {
    let mut outbox = Outbox::default();
    for call in 1..=100_000 {
        outbox.push(call, SMALL, body(1));
        assert!(outbox.take_back(call));
    }
    assert!(outbox.small.len() <= SWEEP + 1, "{}", outbox.small.len());
    outbox.push(100_001, SMALL, body(1));
    assert_eq!(calls(outbox.next_batch()), [100_001]);
    assert!(outbox.is_empty());
}

#[test]
fn frames_beside_the_calls_are_bounded() {
    let mut outbox = Outbox::default();
    for call in 0..10 * CONTROL as u64 {
        outbox.push_control(cancel(call));
    }
    assert_eq!(outbox.control.len(), CONTROL);
}

#[test]
fn a_failure_goes_with_its_detail_as_the_body() {
    let mut outbox = Outbox::default();
    let failure = Failure { class: 3, code: 7, text: "busy".to_owned() };
    outbox.push(1, Head::Failure(failure.clone()), body(2));
    let response = Response { failure: Some(failure), length: 2, body: body(2) };
    let frames = vec![Frame { call: 1, content: Some(Content::Response(response)) }];
    assert_eq!(outbox.next_batch(), Some(Frames { frames }));
}

/// What may be done to an outbox.
#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Control,
    TakeBack(u64),
    DropRest(u64),
    Send,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..=2_000_usize).prop_map(Step::Push),
        2 => (0..=5 * PART).prop_map(Step::Push),
        1 => Just(Step::Control),
        2 => (1..40_u64).prop_map(Step::TakeBack),
        1 => (1..40_u64).prop_map(Step::DropRest),
        2 => Just(Step::Send),
    ]
}

proptest! {
    /// Against the simplest model: lengths that are still to come, by call.
    #[test]
    fn no_byte_is_lost_or_sent_twice_and_no_message_is_too_long(steps in prop::collection::vec(step(), 1..200)) {
        let mut outbox = Outbox::default();
        let (mut unsent, mut rest) = (BTreeMap::<u64, usize>::new(), BTreeMap::<u64, usize>::new());
        let mut last = 0;
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Send, 1_000)) {
            match step {
                Step::Push(length) => {
                    last += 1;
                    outbox.push(last, Head::Failure(Failure { text: "x".repeat(1_000), ..Failure::default() }), body(length));
                    unsent.insert(last, length);
                }
                Step::Control => outbox.push_control(cancel(0)),
                Step::TakeBack(call) => prop_assert_eq!(outbox.take_back(call), unsent.remove(&call).is_some()),
                Step::DropRest(call) => {
                    outbox.drop_rest(call);
                    rest.remove(&call);
                }
                Step::Send => {
                    let Some(batch) = outbox.next_batch() else {
                        prop_assert!(unsent.is_empty() && rest.is_empty());
                        continue;
                    };
                    prop_assert!(batch.encoded_len() <= MAX_MESSAGE);
                    for frame in batch.frames {
                        let sent = body_length(&frame);
                        match frame.content {
                            Some(Content::Response(response)) => {
                                let length = unsent.remove(&frame.call);
                                prop_assert_eq!(Some(response.length as usize), length);
                                if sent < response.length as usize {
                                    rest.insert(frame.call, response.length as usize - sent);
                                }
                            }
                            Some(Content::Part(_)) => {
                                let left = rest.get_mut(&frame.call).expect("a body under way");
                                prop_assert!(sent > 0 && sent <= *left);
                                *left -= sent;
                                if *left == 0 {
                                    rest.remove(&frame.call);
                                }
                            }
                            _ => prop_assert!(matches!(frame.content, Some(Content::Cancel(_)))),
                        }
                    }
                    prop_assert!(rest.len() <= UNDER_WAY);
                }
            }
            prop_assert_eq!(outbox.bytes(), unsent.values().sum::<usize>() + rest.values().sum::<usize>());
            prop_assert_eq!(outbox.calls(), unsent.len() + rest.len());
            for call in 1..=last {
                prop_assert_eq!(outbox.is_unsent(call), unsent.contains_key(&call));
            }
        }
        prop_assert!(outbox.is_empty());
    }
}
