//! One story per rule of the mailbox.

use std::time::Duration;

use callboard_types::{Activation, ActorKey, Class, ClusterId, Epoch, NodeId, PartitionId};

use super::*;

const T: Instant = Instant(1_000);
const IDLE: Duration = Duration::from_micros(500);

const PLAIN: TypeConfig = TypeConfig { idle_timeout: IDLE, reentrancy: Reentrancy { enabled: false, max_depth: 32 } };
const REENTRANT: TypeConfig = TypeConfig { idle_timeout: IDLE, reentrancy: Reentrancy { enabled: true, max_depth: 3 } };

fn table() -> Mailboxes {
    limited(Limits::default())
}

fn limited(limits: Limits) -> Mailboxes {
    let base = EpochToken { cluster: ClusterId(1), generation: 2, partition: PartitionId(3), epoch: Epoch(4) };
    Mailboxes::new(base, limits)
}

fn cat(id: &str) -> ActorKey {
    ActorKey::new("default", "cat", id)
}

fn ask(table: &mut Mailboxes, actor: &ActorKey, call: u64, kind: RequestKind, config: TypeConfig) -> Admission {
    let request = Request { actor, call: CallId(call), kind, chain: None, config };
    table.admit(T, request, || ReentrancyId::from(format!("fresh-{call}")))
}

fn call(table: &mut Mailboxes, actor: &ActorKey, call: u64) -> Admission {
    ask(table, actor, call, RequestKind::Call, PLAIN)
}

fn call_in(table: &mut Mailboxes, actor: &ActorKey, call: u64, chain: &str) -> Admission {
    let chain = ReentrancyId::from(chain);
    let request =
        Request { actor, call: CallId(call), kind: RequestKind::Call, chain: Some(&chain), config: REENTRANT };
    table.admit(T, request, || unreachable!("a call with an id needs no fresh one"))
}

#[track_caller]
fn started(admission: Admission) -> Start {
    match admission {
        Admission::Start(start) => start,
        Admission::Queued { .. } | Admission::Refused(_) => panic!("not started: {admission:?}"),
    }
}

#[track_caller]
fn queued(admission: Admission) -> usize {
    match admission {
        Admission::Queued { position } => position,
        Admission::Start(_) | Admission::Refused(_) => panic!("not queued: {admission:?}"),
    }
}

#[track_caller]
fn refused(admission: Admission) -> Refusal {
    match admission {
        Admission::Refused(refusal) => refusal,
        Admission::Start(_) | Admission::Queued { .. } => panic!("not refused: {admission:?}"),
    }
}

/// The calls that effects start, with their starts.
fn starts(effects: impl IntoIterator<Item = Effect>) -> Vec<(u64, Start)> {
    let start_of = |effect| match effect {
        Effect::Start { call, start } => Some((call.0, start)),
        Effect::Deactivate(_) | Effect::Drained => None,
    };
    effects.into_iter().filter_map(start_of).collect()
}

#[track_caller]
fn one_start(effects: Effects) -> (u64, Start) {
    assert_eq!(effects.len(), 1, "{effects:?}");
    starts(effects).remove(0)
}

#[track_caller]
fn one_deactivation(effects: Effects) -> Deactivation {
    match effects.into_iter().next() {
        Some(Effect::Deactivate(deactivation)) => deactivation,
        other @ (Some(Effect::Start { .. } | Effect::Drained) | None) => panic!("no deactivation: {other:?}"),
    }
}

#[test]
fn the_first_turn_opens_an_activation_and_the_next_one_does_not() {
    let mut table = table();
    let first = started(call(&mut table, &cat("a"), 1));
    assert!(first.opens);
    assert_eq!((first.activation, first.host, first.chain.clone()), (Activation(1), None, None));
    assert_eq!(first.idle_deadline, T.saturating_add(IDLE));
    table.assign_host(first.turn, NodeId(9));
    assert!(table.finish(T, first.turn, TurnEnd::Done).is_empty());
    let second = started(call(&mut table, &cat("a"), 2));
    assert!(!second.opens);
    assert_eq!((second.activation, second.host), (Activation(1), Some(NodeId(9))));
    assert_eq!(started(call(&mut table, &cat("b"), 3)).activation, Activation(2));
    assert_eq!(table.token(second.activation).rank(), (2, Epoch(4), Activation(1)));
}

#[test]
fn calls_reminders_and_timers_of_one_actor_share_one_line() {
    let mut table = table();
    let a = cat("a");
    let first = started(call(&mut table, &a, 1));
    for (at, kind) in [RequestKind::Reminder, RequestKind::Timer, RequestKind::Call].into_iter().enumerate() {
        assert_eq!(queued(ask(&mut table, &a, 2 + at as u64, kind, PLAIN)), at);
    }
    assert_eq!(table.queue_depth(&a), 3);
    let (second, start) = one_start(table.finish(T, first.turn, TurnEnd::Done));
    assert_eq!((second, start.kind), (2, TurnKind::Reminder));
    let (third, start) = one_start(table.finish(T, start.turn, TurnEnd::Done));
    assert_eq!((third, start.kind), (3, TurnKind::Timer));
    let (fourth, start) = one_start(table.finish(T, start.turn, TurnEnd::Done));
    assert_eq!((fourth, start.kind), (4, TurnKind::Call));
    assert!(table.finish(T, start.turn, TurnEnd::Done).is_empty());
}

#[test]
fn different_actors_are_independent() {
    let mut table = table();
    started(call(&mut table, &cat("a"), 1));
    started(call(&mut table, &cat("b"), 2));
    started(call(&mut table, &ActorKey::new("default", "dog", "a"), 3));
    started(call(&mut table, &ActorKey::new("other", "cat", "a"), 4));
    assert_eq!(table.counts().running, 4);
}

#[test]
fn ending_a_turn_twice_has_no_effect() {
    let mut table = table();
    let a = cat("a");
    let first = started(call(&mut table, &a, 1));
    queued(call(&mut table, &a, 2));
    queued(call(&mut table, &a, 3));
    one_start(table.finish(T, first.turn, TurnEnd::Done));
    assert!(table.finish(T, first.turn, TurnEnd::Done).is_empty());
    assert_eq!(table.queue_depth(&a), 1);
}

#[test]
fn a_waiter_that_leaves_changes_nobody_elses_order() {
    for leaver in 2..=4_u64 {
        let mut table = table();
        let a = cat("a");
        let first = started(call(&mut table, &a, 1));
        for waiter in 2..=4 {
            queued(call(&mut table, &a, waiter));
        }
        assert!(table.cancel(T, &a, CallId(leaver)).is_empty());
        assert_eq!(table.counts().running, 1, "the running turn keeps the lock");
        let mut order = Vec::new();
        let mut effects = table.finish(T, first.turn, TurnEnd::Done);
        while !effects.is_empty() {
            let (next, start) = one_start(effects);
            order.push(next);
            effects = table.finish(T, start.turn, TurnEnd::Done);
        }
        let expected: Vec<u64> = (2..=4).filter(|&waiter| waiter != leaver).collect();
        assert_eq!(order, expected);
    }
}

#[test]
fn a_call_cancelled_after_its_grant_hands_the_lock_on() {
    let mut table = table();
    let a = cat("a");
    let first = started(call(&mut table, &a, 1));
    queued(call(&mut table, &a, 2));
    queued(call(&mut table, &a, 3));
    let (granted, _) = one_start(table.finish(T, first.turn, TurnEnd::Done));
    assert_eq!(granted, 2);
    let (next, _) = one_start(table.cancel(T, &a, CallId(2)));
    assert_eq!(next, 3);
    assert!(table.cancel(T, &a, CallId(2)).is_empty());
}

#[test]
fn without_reentrancy_an_id_is_neither_made_nor_honoured() {
    let mut table = table();
    let a = cat("a");
    let id = ReentrancyId::from("chain");
    let with_id =
        |call| Request { actor: &a, call: CallId(call), kind: RequestKind::Call, chain: Some(&id), config: PLAIN };
    let never = || unreachable!("reentrancy is off");
    assert_eq!(started(table.admit(T, with_id(1), never)).chain, None);
    assert_eq!(queued(table.admit(T, with_id(2), never)), 0);
}

#[test]
fn a_top_level_call_gets_a_fresh_id_and_an_empty_one_counts_as_none() {
    let mut table = table();
    let start = started(ask(&mut table, &cat("a"), 1, RequestKind::Call, REENTRANT));
    assert_eq!(start.chain, Some(ReentrancyId::from("fresh-1")));
    let empty = ReentrancyId::from("");
    let b = cat("b");
    let request =
        Request { actor: &b, call: CallId(2), kind: RequestKind::Call, chain: Some(&empty), config: REENTRANT };
    assert_eq!(started(table.admit(T, request, || "made".into())).chain, Some("made".into()));
}

#[test]
fn a_call_with_the_id_that_holds_the_lock_enters_past_the_line() {
    let mut table = table();
    let a = cat("a");
    let outer = started(call_in(&mut table, &a, 1, "x"));
    queued(call_in(&mut table, &a, 2, "y"));
    let inner = started(call_in(&mut table, &a, 3, "x"));
    assert_eq!(inner.activation, outer.activation);
    assert!(table.finish(T, outer.turn, TurnEnd::Done).is_empty(), "the turn lasts as long as any entry");
    let (next, _) = one_start(table.finish(T, inner.turn, TurnEnd::Done));
    assert_eq!(next, 2);
}

#[test]
fn calls_of_a_waiting_chain_share_its_place_and_enter_together() {
    let mut table = table();
    let a = cat("a");
    let first = started(call_in(&mut table, &a, 1, "x"));
    assert_eq!(queued(call_in(&mut table, &a, 2, "y")), 0);
    assert_eq!(queued(call_in(&mut table, &a, 3, "z")), 1);
    assert_eq!(queued(call_in(&mut table, &a, 4, "y")), 1);
    let together = starts(table.finish(T, first.turn, TurnEnd::Done));
    assert_eq!(together.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [2, 4]);
    assert!(table.finish(T, together[0].1.turn, TurnEnd::Done).is_empty());
    assert_eq!(one_start(table.finish(T, together[1].1.turn, TurnEnd::Done)).0, 3);
}

#[test]
fn entries_that_start_together_in_a_fresh_activation_all_open_it() {
    let mut table = table();
    let a = cat("a");
    let first = started(call_in(&mut table, &a, 1, "x"));
    queued(call_in(&mut table, &a, 2, "y"));
    queued(call_in(&mut table, &a, 3, "y"));
    let together = starts(table.finish(T, first.turn, TurnEnd::NotDispatched));
    assert!(together.iter().all(|(_, start)| start.opens && start.activation == Activation(2)), "{together:?}");
    table.finish(T, together[0].1.turn, TurnEnd::Done);
    assert!(!started(call_in(&mut table, &a, 4, "y")).opens, "an answer shows that it is open");
}

#[test]
fn the_entry_beyond_the_depth_is_refused_and_leaks_nothing() {
    let mut table = table();
    let a = cat("a");
    let entries: Vec<Start> = (1..=3).map(|n| started(call_in(&mut table, &a, n, "x"))).collect();
    for n in 4..10 {
        assert_eq!(refused(call_in(&mut table, &a, n, "x")), Refusal::StackDepth);
    }
    assert_eq!(Refusal::StackDepth.to_string(), "maximum stack depth exceeded");
    table.finish(T, entries[2].turn, TurnEnd::Done);
    let again = started(call_in(&mut table, &a, 11, "x"));
    queued(call_in(&mut table, &a, 12, "y"));
    assert!(table.finish(T, again.turn, TurnEnd::Done).is_empty());
    assert!(table.finish(T, entries[0].turn, TurnEnd::Done).is_empty());
    assert_eq!(one_start(table.finish(T, entries[1].turn, TurnEnd::Done)).0, 12, "the turn is released");
}

#[test]
fn the_depth_is_counted_for_waiting_chains_and_per_actor() {
    let mut table = table();
    let a = cat("a");
    started(call_in(&mut table, &a, 1, "x"));
    for n in 2..=4 {
        queued(call_in(&mut table, &a, n, "y"));
    }
    assert_eq!(refused(call_in(&mut table, &a, 5, "y")), Refusal::StackDepth);
    started(call_in(&mut table, &cat("b"), 6, "y"));
}

#[test]
fn a_depth_of_zero_still_lets_turns_run() {
    assert!(Reentrancy { enabled: true, max_depth: 0 }.allows_another(0));
    assert!(!Reentrancy { enabled: true, max_depth: 0 }.allows_another(1));
    assert!(Reentrancy { enabled: true, max_depth: 23 }.allows_another(22));
    assert!(!Reentrancy { enabled: true, max_depth: 23 }.allows_another(23));
}

#[test]
fn nobody_joins_the_turn_of_a_reminder_or_timer() {
    for kind in [RequestKind::Reminder, RequestKind::Timer] {
        let mut table = table();
        let a = cat("a");
        let chain = ReentrancyId::from("x");
        let request = Request { actor: &a, call: CallId(1), kind, chain: Some(&chain), config: REENTRANT };
        let start = started(table.admit(T, request, || unreachable!("not a call")));
        assert_eq!(start.chain, None);
        queued(call_in(&mut table, &a, 2, "x"));
    }
}

#[test]
fn full_mailboxes_and_tables_refuse_and_leave_nothing_behind() {
    let mut table = limited(Limits { activations: 2, mailbox: 2, waiting: 3 });
    let (a, b) = (cat("a"), cat("b"));
    started(call(&mut table, &a, 1));
    let turn_b = started(call(&mut table, &b, 2)).turn;
    assert_eq!(refused(call(&mut table, &cat("c"), 3)), Refusal::TooManyActivations);
    queued(call(&mut table, &a, 4));
    queued(call(&mut table, &a, 5));
    assert_eq!(refused(call(&mut table, &a, 6)), Refusal::MailboxFull);
    queued(call(&mut table, &b, 7));
    assert_eq!(refused(call(&mut table, &b, 8)), Refusal::TooManyWaiting);
    for refusal in [Refusal::TooManyActivations, Refusal::MailboxFull, Refusal::TooManyWaiting] {
        assert_eq!(refusal.class(), Class::Busy);
    }
    table.cancel(T, &b, CallId(7));
    table.finish(T, turn_b, TurnEnd::NotDispatched);
    started(call(&mut table, &cat("c"), 9));
}

#[test]
fn an_activation_is_idle_a_timeout_after_the_start_of_its_last_turn() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    table.finish(Instant(1_400), turn, TurnEnd::Done);
    let due = T.saturating_add(IDLE);
    assert_eq!(table.next_idle_deadline(), Some(due));
    assert_eq!(table.expire(Instant(due.0 - 1), 10), []);
    let begun = table.expire(due, 10);
    assert_eq!(begun.len(), 1);
    assert_eq!((&begun[0].actor, begun[0].activation, begun[0].reason), (&a, Activation(1), EndReason::Idle));
    assert_eq!(queued(call(&mut table, &a, 2)), 0, "a call during the deactivation waits for it");
    let (_, next) = one_start(table.finish(due, begun[0].turn, TurnEnd::Done));
    assert!(next.opens);
    assert_eq!(next.activation, Activation(2));
}

#[test]
fn a_turn_longer_than_the_idle_timeout_is_not_hit_by_it() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    let late = Instant(1_000_000);
    assert_eq!(table.expire(late, 10), []);
    table.finish(late, turn, TurnEnd::Done);
    assert_eq!(table.expire(late, 10).len(), 1, "and the activation is idle when it ends");
}

#[test]
fn every_turn_postpones_the_idle_deadline() {
    let mut table = table();
    let a = cat("a");
    for start in [1_000_u64, 1_400, 1_800] {
        let request = Request { actor: &a, call: CallId(start), kind: RequestKind::Timer, chain: None, config: PLAIN };
        let turn = started(table.admit(Instant(start), request, || unreachable!("not a call"))).turn;
        table.finish(Instant(start), turn, TurnEnd::Done);
    }
    assert!(table.next_idle_deadline() <= Some(Instant(2_300)));
    assert_eq!(table.expire(Instant(2_299), 10), []);
    assert_eq!(table.next_idle_deadline(), Some(Instant(2_300)));
    assert_eq!(table.expire(Instant(2_300), 10).len(), 1);
}

#[test]
fn at_most_the_asked_number_of_activations_expires_at_once() {
    let mut table = table();
    for n in 0..5 {
        let turn = started(call(&mut table, &cat(&n.to_string()), n)).turn;
        table.finish(T, turn, TurnEnd::Done);
    }
    assert_eq!(table.expire(Instant(9_000), 3).len(), 3);
    assert_eq!(table.expire(Instant(9_000), 3).len(), 2);
    assert_eq!(table.next_idle_deadline(), None);
}

#[test]
fn a_deactivation_on_demand_waits_for_the_turn_and_goes_before_the_waiters() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    queued(call(&mut table, &a, 2));
    assert!(table.deactivate(T, &a, EndReason::Withdrawn).is_empty());
    let deactivation = one_deactivation(table.finish(T, turn, TurnEnd::Done));
    assert_eq!((deactivation.activation, deactivation.reason), (Activation(1), EndReason::Withdrawn));
    assert!(table.deactivate(T, &a, EndReason::Requested).is_empty(), "it ends already");
    let (next, start) = one_start(table.finish(T, deactivation.turn, TurnEnd::Lost));
    assert_eq!((next, start.opens, start.activation), (2, true, Activation(2)));
}

#[test]
fn deactivating_all_takes_those_at_rest_and_marks_those_in_a_turn() {
    let mut table = table();
    let busy = started(call(&mut table, &cat("busy"), 1)).turn;
    for (n, actor) in [cat("rest"), ActorKey::new("default", "dog", "d")].iter().enumerate() {
        let turn = started(call(&mut table, actor, 10 + n as u64)).turn;
        table.finish(T, turn, TurnEnd::Done);
    }
    let begun = table.deactivate_all(T, EndReason::AppGone, |actor, _| &*actor.actor_type == "cat");
    assert_eq!(begun.iter().map(|d| &*d.actor.actor_id).collect::<Vec<_>>(), ["rest"]);
    assert_eq!(one_deactivation(table.finish(T, busy, TurnEnd::Lost)).reason, EndReason::AppGone);
    let counts = table.active_counts();
    assert_eq!(counts.iter().map(|(name, n)| (&*name.actor_type, *n)).collect::<Vec<_>>(), [("cat", 2), ("dog", 1)]);
}

#[test]
fn what_never_reached_an_app_ends_without_a_deactivation() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    assert!(table.finish(T, turn, TurnEnd::NotDispatched).is_empty());
    assert_eq!(table.activation_of(&a), None);
    assert_eq!(table.counts(), Counts::default());
    assert_eq!(started(call(&mut table, &a, 2)).activation, Activation(2));
}

#[test]
fn a_turn_whose_host_was_lost_ends_its_activation() {
    let mut table = table();
    let a = cat("a");
    let start = started(call(&mut table, &a, 1));
    table.assign_host(start.turn, NodeId(5));
    let deactivation = one_deactivation(table.finish(T, start.turn, TurnEnd::Lost));
    assert_eq!((deactivation.host, deactivation.reason), (Some(NodeId(5)), EndReason::HostLost));
}

#[test]
fn an_unresolved_write_keeps_the_next_turn_waiting_but_not_a_nested_entry() {
    let mut table = table();
    let a = cat("a");
    let outer = started(call_in(&mut table, &a, 1, "x"));
    table.write_started(&a).unwrap();
    let inner = started(call_in(&mut table, &a, 2, "x"));
    queued(call_in(&mut table, &a, 3, "y"));
    assert!(table.finish(T, inner.turn, TurnEnd::Done).is_empty());
    assert!(table.finish(T, outer.turn, TurnEnd::Done).is_empty());
    assert_eq!(one_start(table.write_resolved(T, &a, WriteOutcome::Definite)).0, 3);
}

#[test]
fn a_write_without_a_known_outcome_ends_the_activation_after_its_turn() {
    for (outcome, reason) in
        [(WriteOutcome::Unknown, EndReason::WriteUnknown), (WriteOutcome::Fenced, EndReason::WriteFenced)]
    {
        let mut table = table();
        let a = cat("a");
        let turn = started(call(&mut table, &a, 1)).turn;
        table.write_started(&a).unwrap();
        assert!(table.write_resolved(T, &a, outcome).is_empty());
        assert_eq!(one_deactivation(table.finish(T, turn, TurnEnd::Done)).reason, reason);
    }
}

#[test]
fn a_doubtful_write_ends_the_activation_but_only_when_the_log_has_answered() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    table.write_started(&a).unwrap();
    table.write_doubtful(&a);
    assert!(table.finish(T, turn, TurnEnd::Done).is_empty());
    assert_eq!(table.expire(Instant(1_000_000), 1), [], "a deactivation is a turn and waits too");
    let deactivation = one_deactivation(table.write_resolved(T, &a, WriteOutcome::Definite));
    assert_eq!(deactivation.reason, EndReason::WriteUnknown);
}

#[test]
fn a_nested_call_of_a_fenced_activation_is_refused() {
    let mut table = table();
    let a = cat("a");
    started(call_in(&mut table, &a, 1, "x"));
    table.write_started(&a).unwrap();
    table.write_resolved(T, &a, WriteOutcome::Fenced);
    assert_eq!(refused(call_in(&mut table, &a, 2, "x")), Refusal::Superseded);
    assert_eq!(Refusal::Superseded.class(), Class::Fenced);
}

#[test]
fn a_write_of_an_actor_that_is_not_active_keeps_its_first_turn_waiting() {
    let mut table = table();
    let a = cat("a");
    table.write_started(&a).unwrap();
    queued(call(&mut table, &a, 1));
    let (_, start) = one_start(table.write_resolved(T, &a, WriteOutcome::Unknown));
    assert!(start.opens);
    assert!(table.write_resolved(T, &a, WriteOutcome::Definite).is_empty(), "one too many is ignored");
    table.write_started(&cat("b")).unwrap();
    table.write_resolved(T, &cat("b"), WriteOutcome::Definite);
    assert_eq!(table.slots.len(), 1, "nothing is left of it");
}

#[test]
fn an_exclusive_request_needs_the_actor_at_rest_and_ends_its_activation() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    assert_eq!(refused(ask(&mut table, &a, 2, RequestKind::Exclusive, PLAIN)), Refusal::TurnRunning);
    table.finish(T, turn, TurnEnd::Done);
    let exclusive = started(ask(&mut table, &a, 3, RequestKind::Exclusive, PLAIN));
    assert_eq!((exclusive.opens, exclusive.activation), (false, Activation(1)));
    queued(call(&mut table, &a, 4));
    let (_, next) = one_start(table.finish(T, exclusive.turn, TurnEnd::Done));
    assert_eq!((next.opens, next.activation), (true, Activation(2)));
}

#[test]
fn an_exclusive_request_waits_for_a_deactivation_and_for_nothing_else() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    table.finish(T, turn, TurnEnd::Done);
    let deactivation = one_deactivation(table.deactivate(T, &a, EndReason::Requested));
    assert_eq!(queued(ask(&mut table, &a, 2, RequestKind::Exclusive, PLAIN)), 0);
    assert_eq!(refused(ask(&mut table, &a, 3, RequestKind::Exclusive, PLAIN)), Refusal::TurnRunning);
    let (_, exclusive) = one_start(table.finish(T, deactivation.turn, TurnEnd::Done));
    assert!(exclusive.opens, "there is nothing to delete from the app");
    assert!(table.finish(T, exclusive.turn, TurnEnd::Done).is_empty());
    assert_eq!(table.slots.len(), 0);
}

#[test]
fn an_exclusive_turn_that_could_not_reach_the_app_leaves_the_activation() {
    let mut table = table();
    let a = cat("a");
    let turn = started(call(&mut table, &a, 1)).turn;
    table.finish(T, turn, TurnEnd::Done);
    let exclusive = started(ask(&mut table, &a, 2, RequestKind::Exclusive, PLAIN)).turn;
    assert!(table.finish(T, exclusive, TurnEnd::NotDispatched).is_empty());
    assert_eq!(table.activation_of(&a), Some(Activation(1)));
    let exclusive = started(ask(&mut table, &a, 3, RequestKind::Exclusive, PLAIN)).turn;
    assert_eq!(one_deactivation(table.finish(T, exclusive, TurnEnd::Lost)).reason, EndReason::HostLost);
}

#[test]
fn a_call_that_the_host_refused_runs_again_at_the_front_under_another_activation() {
    let mut table = table();
    let a = cat("a");
    let first = started(call(&mut table, &a, 1));
    queued(call(&mut table, &a, 2));
    let (admission, effects) = table.reopen(T, first.turn, Reopen::HostRefused);
    let again = started(admission);
    assert!(effects.is_empty());
    assert_eq!((again.opens, again.activation, again.host), (true, Activation(2), None));
    assert!(table.finish(T, first.turn, TurnEnd::Done).is_empty());
    assert_eq!(one_start(table.finish(T, again.turn, TurnEnd::Done)).0, 2);
}

#[test]
fn a_cut_call_runs_again_after_the_delete_of_the_old_activation() {
    let mut table = table();
    let a = cat("a");
    let first = started(call(&mut table, &a, 1));
    queued(call(&mut table, &a, 2));
    let (admission, effects) = table.reopen(T, first.turn, Reopen::Cut);
    assert_eq!(queued(admission), 0);
    let deactivation = one_deactivation(effects);
    assert_eq!((deactivation.activation, deactivation.reason), (Activation(1), EndReason::Moved));
    let (again, start) = one_start(table.finish(T, deactivation.turn, TurnEnd::Done));
    assert_eq!((again, start.opens, start.activation), (1, true, Activation(2)));
}

#[test]
fn a_nested_entry_is_never_run_again_since_its_caller_counts_for_nothing() {
    for why in [Reopen::HostRefused, Reopen::Cut] {
        let mut table = table();
        let a = cat("a");
        let outer = started(call_in(&mut table, &a, 1, "x"));
        let inner = started(call_in(&mut table, &a, 2, "x"));
        let (admission, effects) = table.reopen(T, inner.turn, why);
        assert_eq!(refused(admission), Refusal::Superseded);
        assert!(effects.is_empty());
        let deactivation = one_deactivation(table.finish(T, outer.turn, TurnEnd::Done));
        assert_eq!(deactivation.activation, Activation(1));
    }
}

#[test]
fn a_quiesced_table_lets_turns_end_and_parks_the_rest_in_order() {
    let mut table = table();
    let (a, b) = (cat("a"), cat("b"));
    let outer = started(call_in(&mut table, &a, 1, "x"));
    queued(call_in(&mut table, &a, 2, "y"));
    assert_eq!(table.quiesce(), Drain::Running { turns: 1, writes: 0 });
    queued(call(&mut table, &b, 3));
    let inner = started(call_in(&mut table, &a, 4, "x"));
    queued(call_in(&mut table, &a, 5, "z"));
    assert!(table.finish(T, inner.turn, TurnEnd::Done).is_empty());
    assert_eq!(table.finish(T, outer.turn, TurnEnd::Done).as_slice(), [Effect::Drained]);
    assert_eq!(table.quiesce(), Drain::Drained);
    let parked: Vec<u64> = table.take_parked(T).into_iter().map(|waiting| waiting.call.0).collect();
    assert_eq!(parked, [2, 3, 5]);
    assert_eq!(table.counts().waiting, 0);
    assert_eq!(table.slots.len(), 1, "the activation stays, for the hand-over");
}

#[test]
fn a_resumed_table_starts_what_waited() {
    let mut table = table();
    assert_eq!(table.quiesce(), Drain::Drained);
    queued(call(&mut table, &cat("a"), 1));
    queued(call(&mut table, &cat("a"), 2));
    queued(call(&mut table, &cat("b"), 3));
    let begun = starts(table.resume(T));
    assert_eq!(begun.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [1, 3]);
    started(call(&mut table, &cat("c"), 4));
}

#[test]
fn a_drain_waits_for_writes_under_way() {
    let mut table = table();
    let a = cat("a");
    table.write_started(&a).unwrap();
    assert_eq!(table.quiesce(), Drain::Running { turns: 0, writes: 1 });
    assert_eq!(table.write_resolved(T, &a, WriteOutcome::Definite).as_slice(), [Effect::Drained]);
}

#[test]
fn when_the_epoch_is_over_waiters_are_handed_back_and_running_turns_are_dead() {
    let mut table = table();
    let a = cat("a");
    let first = started(call(&mut table, &a, 1));
    queued(call(&mut table, &a, 2));
    queued(call(&mut table, &a, 3));
    let end = table.end_all();
    assert_eq!(end.waiting.iter().map(|waiting| waiting.call.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(end.running.iter().map(|running| running.call).collect::<Vec<_>>(), [Some(CallId(1))]);
    assert!(table.finish(T, first.turn, TurnEnd::Done).is_empty());
    assert_eq!(refused(table.reopen(T, first.turn, Reopen::Cut).0), Refusal::EpochOver);
    assert_eq!(refused(call(&mut table, &a, 4)), Refusal::EpochOver);
    assert_eq!(table.write_started(&a), Err(Refusal::EpochOver));
    assert_eq!(table.resume(T), []);
    assert_eq!(refused(call(&mut table, &a, 5)), Refusal::EpochOver);
}

#[test]
fn an_actor_that_still_runs_under_an_older_epoch_is_held_and_its_nested_calls_are_refused() {
    let mut table = table();
    let a = cat("a");
    table.hold(&a, Some("old".into())).unwrap();
    assert_eq!(refused(call_in(&mut table, &a, 1, "old")), Refusal::Superseded);
    queued(call_in(&mut table, &a, 2, "x"));
    assert_eq!(one_start(table.release(T, &a)).0, 2);
    assert!(table.release(T, &a).is_empty());
    table.hold(&cat("b"), None).unwrap();
    table.release(T, &cat("b"));
    assert_eq!(table.slots.len(), 1, "a hold without a call leaves nothing");
}

#[test]
fn an_adopted_activation_lives_on_at_its_host_under_a_number_of_this_epoch() {
    let mut table = table();
    let a = cat("a");
    let number = table.adopt(&a, NodeId(8), PLAIN, Instant(5_000)).unwrap();
    assert_eq!(table.adopt(&a, NodeId(8), PLAIN, Instant(5_000)), Err(Refusal::TurnRunning));
    assert_eq!(table.next_idle_deadline(), Some(Instant(5_000)));
    let start = started(call(&mut table, &a, 1));
    assert_eq!((start.opens, start.activation, start.host), (false, number, Some(NodeId(8))));
    let active: Vec<Active> = table.activations().collect();
    assert_eq!((active.len(), active[0].state), (1, ActiveState::InTurn(TurnKind::Call)));
}
