//! One story per rule of the guard.

use callboard_types::{Activation, ClusterId, NodeId};

use super::*;
use crate::Instant;
use crate::mailbox::ReentrancyId;

const P: PartitionId = PartitionId(0);

fn token(epoch: u64, activation: u64) -> FencingToken {
    FencingToken {
        cluster: ClusterId(1),
        generation: 0,
        partition: P,
        epoch: Epoch(epoch),
        activation: Activation(activation),
    }
}

fn dispatch(token: FencingToken, opens: bool) -> Dispatch<'static> {
    Dispatch { token, opens, session: None, chain: None, idle_deadline: Instant(7) }
}

fn opening(epoch: u64, activation: u64) -> Dispatch<'static> {
    dispatch(token(epoch, activation), true)
}

fn staying(epoch: u64, activation: u64) -> Dispatch<'static> {
    dispatch(token(epoch, activation), false)
}

fn cat() -> ActorKey {
    ActorKey::new("default", "cat", "a")
}

fn guard() -> Guard {
    Guard::new(GuardLimits::default())
}

#[track_caller]
fn go(verdict: Verdict) -> Pass {
    match verdict {
        Verdict::Go { pass, .. } => pass,
        Verdict::NotActive | Verdict::Fenced | Verdict::Seal(_) | Verdict::Sealed | Verdict::Full => {
            panic!("no go: {verdict:?}")
        }
    }
}

#[track_caller]
fn seal(verdict: Verdict) -> Removal {
    match verdict {
        Verdict::Seal(removal) => removal,
        Verdict::NotActive | Verdict::Fenced | Verdict::Go { .. } | Verdict::Sealed | Verdict::Full => {
            panic!("no seal: {verdict:?}")
        }
    }
}

/// A guard whose app has one instance, opened under (1, 1), with no turn in flight.
fn with_instance() -> Guard {
    let mut guard = guard();
    let pass = go(guard.open(&cat(), opening(1, 1)));
    assert_eq!(guard.ended(&cat(), pass), InFlight::Quiet);
    guard
}

#[test]
fn an_opening_dispatch_records_the_actor_and_the_next_ones_do_not() {
    let mut guard = guard();
    assert!(matches!(guard.open(&cat(), opening(1, 1)), Verdict::Go { record: true, .. }));
    assert!(matches!(guard.open(&cat(), opening(1, 1)), Verdict::Go { record: false, .. }));
    assert!(matches!(guard.open(&cat(), staying(1, 1)), Verdict::Go { record: false, .. }));
}

#[test]
fn a_dispatch_that_does_not_open_needs_an_instance() {
    let mut guard = guard();
    assert_eq!(guard.open(&cat(), staying(1, 1)), Verdict::NotActive);
    assert!(guard.is_empty());
}

#[test]
fn a_higher_token_waits_for_the_turns_and_the_delete_of_the_lower_one() {
    for higher in [opening(1, 2), opening(2, 1)] {
        let mut guard = guard();
        let old = go(guard.open(&cat(), opening(1, 1)));
        let removal = seal(guard.open(&cat(), higher));
        assert_eq!((removal.previous, removal.in_flight), (Some(token(1, 1)), 1));
        assert_eq!(guard.open(&cat(), higher), Verdict::Sealed, "one carrier is enough");
        assert_eq!(guard.token_for_write(&cat()), WriteToken::Sealed);
        assert_eq!(guard.current_token(&cat()), None);
        assert!(!guard.holds(&cat(), old));
        assert_eq!(guard.ended(&cat(), old), InFlight::Quiet);
        assert!(guard.still_removing(&cat(), removal.id));
        guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
        go(guard.open(&cat(), higher));
        assert_eq!(guard.current_token(&cat()), Some(higher.token));
    }
}

#[test]
fn a_lower_token_is_fenced_while_a_higher_one_lives_waits_or_is_expected() {
    let mut guard = with_instance();
    let removal = seal(guard.open(&cat(), opening(1, 3)));
    assert_eq!(guard.open(&cat(), staying(1, 1)), Verdict::Fenced);
    assert_eq!(guard.open(&cat(), opening(1, 2)), Verdict::Fenced);
    guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
    assert_eq!(guard.open(&cat(), opening(1, 2)), Verdict::Fenced, "the place is kept for the one that waited");
    go(guard.open(&cat(), opening(1, 3)));
    assert_eq!(guard.open(&cat(), opening(1, 2)), Verdict::Fenced);
    assert_eq!(guard.close(&cat(), token(1, 2)), Close::Fenced);
}

#[test]
fn an_unanswered_delete_leaves_the_instance_sealed_and_the_next_dispatch_tries_again() {
    let mut guard = with_instance();
    let first = seal(guard.open(&cat(), opening(1, 2)));
    guard.removed(&cat(), first.id, DeleteAnswer::NoAnswer);
    assert_eq!(guard.token_for_write(&cat()), WriteToken::Sealed);
    assert_eq!(guard.must_delete(10), [cat()]);
    let second = seal(guard.open(&cat(), opening(1, 2)));
    assert_eq!(guard.must_delete(10), []);
    guard.removed(&cat(), first.id, DeleteAnswer::Answered);
    assert!(guard.still_removing(&cat(), second.id), "a carrier that is late changes nothing");
    guard.removed(&cat(), second.id, DeleteAnswer::Answered);
    go(guard.open(&cat(), opening(1, 2)));
}

#[test]
fn a_dispatch_that_does_not_open_is_not_active_after_the_removal_that_it_asked_for() {
    let mut guard = with_instance();
    let removal = seal(guard.open(&cat(), staying(1, 2)));
    guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
    assert_eq!(guard.open(&cat(), staying(1, 2)), Verdict::NotActive);
    assert_eq!(guard.token_for_write(&cat()), WriteToken::Missing);
}

#[test]
fn the_owner_closes_its_activation_and_the_delete_handler_may_still_write() {
    let mut guard = with_instance();
    let Close::Delete(removal) = guard.close(&cat(), token(1, 1)) else { panic!("it lives") };
    assert_eq!(removal.in_flight, 0);
    assert!(matches!(guard.token_for_write(&cat()), WriteToken::Token(written, _) if written == token(1, 1)));
    assert_eq!(guard.close(&cat(), token(1, 1)), Close::Sealed);
    assert_eq!(guard.open(&cat(), staying(1, 1)), Verdict::Sealed);
    guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
    assert_eq!(guard.token_for_write(&cat()), WriteToken::Missing);
    assert_eq!(guard.close(&cat(), token(1, 1)), Close::NotActive);
    assert!(guard.is_empty());
}

#[test]
fn a_higher_token_during_a_close_stops_its_writes_and_uses_its_delete() {
    for higher in [opening(1, 2), opening(2, 1)] {
        let mut guard = with_instance();
        let Close::Delete(removal) = guard.close(&cat(), token(1, 1)) else { panic!("it lives") };
        assert_eq!(guard.open(&cat(), higher), Verdict::Sealed);
        assert_eq!(guard.token_for_write(&cat()), WriteToken::Sealed);
        guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
        go(guard.open(&cat(), higher));
    }
}

#[test]
fn closing_an_activation_that_was_never_opened_here_leaves_an_older_instance_alone() {
    let mut guard = with_instance();
    assert_eq!(guard.close(&cat(), token(1, 2)), Close::NotActive);
    assert_eq!(guard.current_token(&cat()), Some(token(1, 1)));
}

#[test]
fn listed_actors_are_deleted_before_their_next_activation() {
    let mut guard = guard();
    guard.listed([cat()]);
    assert_eq!(guard.token_for_write(&cat()), WriteToken::Sealed);
    let removal = seal(guard.open(&cat(), opening(1, 1)));
    assert_eq!((removal.previous, removal.in_flight), (None, 0));
    guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
    go(guard.open(&cat(), opening(1, 1)));
}

#[test]
fn proof_that_the_app_is_gone_forgets_all_without_delete() {
    let mut guard = with_instance();
    guard.listed([ActorKey::new("default", "cat", "b")]);
    let flight = go(guard.open(&cat(), staying(1, 1)));
    assert_eq!(guard.app_gone(), 2);
    assert!(!guard.holds(&cat(), flight));
    assert_eq!(guard.ended(&cat(), flight), InFlight::Gone);
    assert_eq!(guard.open(&cat(), staying(1, 1)), Verdict::NotActive);
    assert!(matches!(guard.open(&cat(), opening(1, 2)), Verdict::Go { record: true, .. }));
    assert_eq!(guard.ended(&cat(), flight), InFlight::Gone, "a turn of the old process is not one of the new");
}

#[test]
fn an_instance_that_no_turn_has_reached_is_owed_no_delete() {
    let mut guard = guard();
    let pass = go(guard.open(&cat(), opening(1, 1)));
    assert_eq!(guard.not_dispatched(&cat(), pass), InFlight::Gone);
    assert!(guard.is_empty());
    let pass = go(guard.open(&cat(), opening(1, 1)));
    let removal = seal(guard.open(&cat(), opening(1, 2)));
    assert_eq!(guard.not_dispatched(&cat(), pass), InFlight::Gone);
    assert!(!guard.still_removing(&cat(), removal.id));
    go(guard.open(&cat(), opening(1, 2)));
}

#[test]
fn tokens_below_the_epoch_floor_are_fenced_for_every_actor_of_the_partition() {
    let mut guard = with_instance();
    let other = ActorKey::new("default", "cat", "other");
    guard.seal(P, 0, Epoch(3));
    assert_eq!(guard.open(&other, opening(2, 9)), Verdict::Fenced);
    assert_eq!(guard.close(&cat(), token(1, 1)), Close::Fenced);
    assert_eq!(guard.token_for_write(&cat()), WriteToken::Sealed);
    go(guard.open(&other, opening(3, 1)));
    guard.seal(P, 0, Epoch(2));
    assert_eq!(guard.open(&other, opening(2, 9)), Verdict::Fenced, "a floor never sinks");
    let elsewhere = FencingToken { partition: PartitionId(1), ..token(1, 1) };
    go(guard.open(&ActorKey::new("default", "cat", "p1"), dispatch(elsewhere, true)));
}

#[test]
fn a_raised_recovery_generation_fences_all_partitions() {
    let mut guard = guard();
    let recovered = FencingToken { generation: 1, ..token(1, 1) };
    go(guard.open(&cat(), dispatch(recovered, true)));
    let old = FencingToken { partition: PartitionId(1), ..token(9, 9) };
    assert_eq!(guard.open(&ActorKey::new("default", "cat", "b"), dispatch(old, true)), Verdict::Fenced);
}

#[test]
fn a_new_owner_learns_the_activations_and_running_turns_of_its_predecessors() {
    let mut guard = with_instance();
    let chain = ReentrancyId::from("x");
    go(guard.open(&cat(), Dispatch { chain: Some(&chain), ..staying(1, 1) }));
    let elsewhere = FencingToken { partition: PartitionId(1), ..token(1, 1) };
    go(guard.open(&ActorKey::new("default", "cat", "p1"), dispatch(elsewhere, true)));
    let report = guard.seal(P, 0, Epoch(2));
    let activation = SealedActivation { actor: cat(), token: Some(token(1, 1)), idle_deadline: Instant(7) };
    assert_eq!(report.activations, [activation]);
    assert_eq!(report.running, [SealedTurn { actor: cat(), chain: Some(chain) }]);
}

#[test]
fn after_a_planned_move_an_instance_at_rest_lives_on_under_the_new_token() {
    let mut guard = with_instance();
    guard.seal(P, 0, Epoch(2));
    assert!(guard.retoken(&cat(), token(1, 1), token(2, 5), None));
    assert_eq!(guard.current_token(&cat()), Some(token(2, 5)));
    let pass = go(guard.open(&cat(), staying(2, 5)));
    assert!(!guard.retoken(&cat(), token(2, 5), token(3, 1), None), "not with a turn in flight");
    guard.ended(&cat(), pass);
    assert!(!guard.retoken(&cat(), token(1, 1), token(3, 1), None), "not from another token");
    assert!(!guard.retoken(&cat(), token(2, 5), token(2, 4), None), "not to a lower one");
}

#[test]
fn after_an_unplanned_move_older_instances_are_in_doubt() {
    let mut guard = with_instance();
    assert_eq!(guard.supersede(P), 0);
    guard.seal(P, 0, Epoch(2));
    assert_eq!(guard.supersede(P), 1);
    assert_eq!(guard.must_delete(10), [cat()]);
    let removal = guard.begin_removal(&cat()).expect("it is in doubt");
    assert_eq!(guard.begin_removal(&cat()), None);
    guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
    assert!(guard.is_empty());
}

#[test]
fn a_lapsed_session_casts_doubt_on_what_it_opened_even_for_the_same_token() {
    let session = SessionId { owner: NodeId(1), number: 1 };
    let mut guard = guard();
    let pass = go(guard.open(&cat(), Dispatch { session: Some(session), ..opening(1, 1) }));
    let local = ActorKey::new("default", "cat", "local");
    go(guard.open(&local, opening(1, 2)));
    assert_eq!(guard.mark_lapsed(session, Some(PartitionId(1))), 0);
    assert_eq!(guard.mark_lapsed(session, None), 1);
    assert_eq!(guard.token_for_write(&cat()), WriteToken::Sealed);
    assert!(!guard.holds(&cat(), pass));
    assert!(guard.current_token(&local).is_some());
    let removal = seal(guard.open(&cat(), staying(1, 1)));
    guard.ended(&cat(), pass);
    guard.removed(&cat(), removal.id, DeleteAnswer::Answered);
    assert_eq!(guard.open(&cat(), staying(1, 1)), Verdict::NotActive);
}

#[test]
fn write_numbers_rise_even_for_a_token_that_is_opened_twice() {
    let mut guard = with_instance();
    let number = |guard: &mut Guard| match guard.token_for_write(&cat()) {
        WriteToken::Token(_, number) => number,
        refused @ (WriteToken::Missing | WriteToken::Sealed) => panic!("{refused:?}"),
    };
    let (first, second) = (number(&mut guard), number(&mut guard));
    assert!(first < second);
    guard.app_gone();
    go(guard.open(&cat(), opening(1, 1)));
    assert!(number(&mut guard) > second);
}

#[test]
fn a_full_guard_refuses_further_actors_and_forgets_none() {
    let mut guard = Guard::new(GuardLimits { activations: 1 });
    go(guard.open(&cat(), opening(1, 1)));
    assert_eq!(guard.open(&ActorKey::new("default", "cat", "b"), opening(1, 2)), Verdict::Full);
    go(guard.open(&cat(), staying(1, 1)));
}
