//! Claims, epochs, the clock, write numbers, and state.

use callboard_types::{Activation, Epoch, NodeId, ReplicaId, Timestamp, WriteNumber};

use super::samples::*;
use super::{ActorOp, Command, Effect, LastWrite, Ownership, Rejection, Response, StateValue, Tables};
use bytes::Bytes;

#[test]
fn each_claim_makes_the_next_epoch_and_records_the_claimant() {
    let mut partition = Partition::claimed(0);
    for epoch in 1..=3 {
        let command = claim(epoch * 100, 0);
        let outcome = partition.apply(&command);
        let epoch = Epoch(epoch);
        assert_eq!(outcome.response, Response::Claimed { epoch });
        let Command::Claim(claim) = command else { unreachable!() };
        assert_eq!(outcome.effects, [Effect::Claimed { claim, epoch }]);
        let owner = Ownership { epoch, node: NodeId(7), replica: ReplicaId(3), nonce: epoch.0 * 100 };
        assert_eq!(partition.tables.ownership(), Ok(Some(owner)));
    }
}

#[test]
fn only_the_current_epoch_may_write() {
    let mut partition = Partition::claimed(2);
    let current = Epoch(2);
    for epoch in [0, 1, 3, u64::MAX] {
        for command in [
            owners(epoch, vec![upsert("food", "tuna"), put_reminder("nap", 9, true), ActorOp::DeleteActor]),
            write(epoch, 1, 1, vec![upsert("food", "tuna")]),
            at(9 * SECOND, owners(epoch, vec![])),
            Command::Noop { epoch: Epoch(epoch) },
        ] {
            assert_eq!(partition.apply_in_vain(&command).response, Response::Fenced { current });
        }
    }
    assert_eq!(partition.apply_in_vain(&Command::Noop { epoch: current }).response, Response::Done);
    assert_eq!(partition.apply(&owners(2, vec![upsert("food", "tuna")])).response, Response::Done);
    assert_eq!(partition.value("food"), Some(Bytes::from("tuna")));
}

#[test]
fn nothing_is_written_before_the_first_claim() {
    let mut partition = Partition::claimed(0);
    let fenced = Response::Fenced { current: Epoch::NONE };
    assert_eq!(partition.apply_in_vain(&owners(0, vec![upsert("food", "tuna")])).response, fenced);
    assert_eq!(partition.apply_in_vain(&Command::Noop { epoch: Epoch::NONE }).response, fenced);
}

#[test]
fn a_command_before_a_claim_stands_and_the_same_after_it_is_fenced() {
    let mut partition = Partition::claimed(1);
    partition.apply(&owners(1, vec![upsert("food", "tuna")]));
    partition.apply(&claim(2, 0));
    partition.apply_in_vain(&owners(1, vec![upsert("food", "salmon")]));
    assert_eq!(partition.value("food"), Some(Bytes::from("tuna")));
}

#[test]
fn the_clock_is_the_highest_seen_in_commands_that_took_effect() {
    let mut partition = Partition::claimed(1);
    for (now, clock) in [(5, 5), (3, 5), (-1, 5), (8, 8), (i64::MIN, 8)] {
        assert_eq!(partition.apply(&at(now, owners(1, vec![]))).response, Response::Done);
        assert_eq!(partition.clock(), Timestamp(clock));
    }
    partition.run(vec![put_reminder("nap", 1, true)]);
    partition.apply_in_vain(&at(99, owners(1, vec![put_reminder("nap", 1, false)])));
    partition.apply(&claim(2, 42));
    assert_eq!(partition.clock(), Timestamp(42));
    partition.apply(&claim(2, 41));
    assert_eq!(partition.clock(), Timestamp(42));
}

#[test]
fn a_claim_lowers_a_clock_that_is_ahead_of_it_by_more_than_the_offset() {
    let stored = 100 * SECOND;
    for (now, lowered) in [
        (stored, None),
        (stored - SECOND, None),
        (stored - SECOND - 1, Some(SECOND as u64 + 1)),
        (0, Some(stored as u64)),
        (i64::MIN, Some(stored as u64 + (1 << 63))),
    ] {
        let mut partition = Partition::claimed(1);
        partition.apply(&at(stored, owners(1, vec![])));
        let effects = partition.apply(&claim(2, now)).effects;
        let lowerings: Vec<_> = effects[1..].to_vec();
        assert_eq!(lowerings, Vec::from_iter(lowered.map(|by_micros| Effect::ClockLowered { by_micros })));
        assert_eq!(partition.clock(), Timestamp(if lowered.is_some() { now } else { stored }));
    }
}

#[test]
fn the_furthest_possible_clock_is_lowered_by_the_whole_distance() {
    let mut partition = Partition::claimed(1);
    partition.apply(&at(i64::MAX, owners(1, vec![])));
    let effects = partition.apply(&claim(2, i64::MIN)).effects;
    assert_eq!(effects[1..], [Effect::ClockLowered { by_micros: u64::MAX }]);
}

#[test]
fn a_repeated_write_answers_the_first_outcome_and_changes_nothing() {
    let mut partition = Partition::claimed(1);
    let ops = || vec![upsert("food", "tuna"), put_reminder("nap", 5, false)];
    let first = partition.apply(&write(1, 4, 1, ops()));
    assert_eq!((first.response, first.effects.len()), (Response::Done, 1));
    // Executed again, the reminder would exist already.
    assert_eq!(partition.apply_in_vain(&write(1, 4, 1, ops())).response, Response::Done);
    // Whatever the repeat carries, and after the owner's own commands.
    partition.run(vec![delete("food")]);
    assert_eq!(partition.apply_in_vain(&at(77, write(1, 4, 1, vec![upsert("food", "rat")]))).response, Response::Done);
}

#[test]
fn a_repeated_rejected_write_is_rejected_in_the_same_words() {
    let mut partition = Partition::claimed(1);
    partition.run(vec![put_reminder("nap", 5, false)]);
    let command = write(1, 4, 1, vec![upsert("food", "tuna"), put_reminder("nap", 5, false)]);
    let rejected = Response::Rejected(Rejection::ReminderExists { name: "nap".to_owned() });
    assert_eq!(partition.apply(&command).response, rejected);
    partition.run(vec![delete_reminder("nap")]);
    // It would be acceptable by now; the first answer stands.
    assert_eq!(partition.apply_in_vain(&command).response, rejected);
    assert_eq!(partition.value("food"), None);
}

#[test]
fn a_lower_write_number_of_the_same_activation_is_refused() {
    let mut partition = Partition::claimed(1);
    partition.apply(&write(1, 4, 3, vec![upsert("food", "tuna")]));
    let stale = |given| Response::Rejected(Rejection::StaleWrite { given, last: 3 });
    assert_eq!(partition.apply_in_vain(&write(1, 4, 2, vec![delete("food")])).response, stale(2));
    assert_eq!(partition.apply_in_vain(&write(1, 4, 0, vec![delete("food")])).response, stale(0));
    // The refusal is not remembered in the last write's place.
    assert_eq!(partition.apply_in_vain(&write(1, 4, 3, vec![delete("food")])).response, Response::Done);
}

#[test]
fn a_write_of_a_higher_number_another_activation_or_another_epoch_takes_effect() {
    let mut partition = Partition::claimed(1);
    partition.apply(&write(1, 4, 3, vec![upsert("n", "0")]));
    for (epoch, activation, number, value) in [(1, 4, 4, "1"), (1, 4, 9, "2"), (1, 5, 1, "3"), (2, 5, 1, "4")] {
        if epoch == 2 {
            partition.apply(&claim(2, 0));
        }
        assert_eq!(
            partition.apply(&write(epoch, activation, number, vec![upsert("n", value)])).response,
            Response::Done
        );
        assert_eq!(partition.value("n"), Some(Bytes::from(value)));
    }
}

#[test]
fn write_numbers_are_counted_per_actor() {
    let mut partition = Partition::claimed(1);
    partition.apply(&write(1, 1, 1, vec![upsert("n", "0")]));
    let Command::Actor(mut other) = write(1, 1, 1, vec![upsert("n", "1")]) else { unreachable!() };
    other.actor.actor_id = "gollum".into();
    assert_eq!(partition.apply(&Command::Actor(other.clone())).response, Response::Done);
    let Ok(Some(value)) = partition.tables.state(&other.actor, "n") else { panic!("not written") };
    assert_eq!(value.value, Bytes::from("1"));
}

#[test]
fn operations_on_one_key_take_effect_in_order() {
    let mut partition = Partition::claimed(1);
    partition.run(vec![
        upsert("a", "1"),
        upsert("a", "2"),
        upsert("b", "1"),
        delete("b"),
        delete("c"),
        upsert("c", "1"),
    ]);
    let rows: Vec<_> = partition.tables.state_rows().map(|(_, key, value)| (key, value.value.clone())).collect();
    assert_eq!(rows, [("a", Bytes::from("2")), ("c", Bytes::from("1"))]);
}

#[test]
fn an_upsert_without_expiry_clears_an_earlier_one() {
    let mut partition = Partition::claimed(1);
    for expires_at in [Some(Timestamp(9)), None] {
        partition.run(vec![ActorOp::Upsert { key: "a".into(), value: Bytes::from("1"), expires_at }]);
        assert_eq!(partition.tables.state(&cat(), "a"), Ok(Some(StateValue { value: Bytes::from("1"), expires_at })));
    }
}

#[test]
fn an_expired_value_is_overwritten_and_deleted_like_any() {
    let mut partition = Partition::claimed(1);
    let expired = |key: &str| ActorOp::Upsert { key: key.into(), value: Bytes::new(), expires_at: Some(Timestamp(1)) };
    partition.run(vec![expired("a"), expired("b")]);
    partition.apply(&at(50, owners(1, vec![upsert("a", "2"), delete("b")])));
    let rows: Vec<_> = partition.tables.state_rows().map(|(_, key, value)| (key, value.expires_at)).collect();
    assert_eq!(rows, [("a", None)]);
}

#[test]
fn a_rejected_operation_undoes_those_before_it() {
    let mut partition = Partition::claimed(1);
    partition.run(vec![upsert("food", "tuna"), put_reminder("nap", 5, false), put_reminder("eat", 5, false)]);
    let outcome = partition.apply_in_vain(&owners(
        1,
        vec![
            upsert("food", "rat"),
            delete_reminder("eat"),
            put_reminder("play", 6, false),
            dropped("nap", 2, 1, None),
            put_reminder("nap", 9, true),
            put_reminder("play", 6, false),
        ],
    ));
    assert_eq!(outcome.response, Response::Rejected(Rejection::ReminderExists { name: "play".to_owned() }));
}

#[test]
fn deleting_an_actor_removes_its_rows_and_no_others() {
    let mut partition = Partition::claimed(1);
    let Command::Actor(mut other) = write(1, 1, 1, vec![upsert("food", "fish"), put_reminder("nap", 5, false)]) else {
        unreachable!()
    };
    other.actor.actor_id = "hobbi".into();
    partition.apply(&Command::Actor(other));
    let without_cat = partition.tables.clone();

    partition.apply(&write(1, 1, 1, vec![upsert("a", "1"), upsert("b", "1"), put_reminder("nap", 5, false)]));
    let generation = partition.index;
    partition.run(vec![put_reminder("eat", 5, false)]);
    let outcome = partition.run(vec![ActorOp::DeleteActor]);
    let gone = |name: &str, generation| Effect::ReminderGone { actor: cat(), name: name.to_owned(), generation };
    assert_eq!(outcome.effects, [gone("eat", generation + 1), gone("nap", generation)]);
    assert_eq!(partition.tables, without_cat);
    assert_eq!(partition.apply_in_vain(&owners(1, vec![ActorOp::DeleteActor])).response, Response::Done);
}

#[test]
fn a_numbered_delete_of_the_actor_leaves_only_its_own_record() {
    let mut partition = Partition::claimed(1);
    partition.apply(&write(1, 1, 1, vec![upsert("a", "1")]));
    let command = write(1, 1, 2, vec![ActorOp::DeleteActor]);
    partition.apply(&command);
    let last =
        LastWrite { epoch: Epoch(1), activation: Activation(1), number: WriteNumber(2), response: Response::Done };
    assert_eq!(partition.tables.last_write(&cat()), Ok(Some(last)));
    assert_eq!(partition.tables.state_rows().count(), 0);
    assert_eq!(partition.apply_in_vain(&command).response, Response::Done);
}

#[test]
fn what_follows_the_deletion_of_an_actor_in_one_command_is_kept() {
    let mut partition = Partition::claimed(1);
    partition.run(vec![
        upsert("a", "1"),
        upsert("b", "1"),
        put_reminder("nap", 5, false),
        put_reminder("eat", 5, false),
    ]);
    let first = partition.index;
    let outcome = partition.run(vec![
        upsert("c", "1"),
        put_reminder("play", 5, false),
        ActorOp::DeleteActor,
        upsert("b", "2"),
        put_reminder("nap", 6, false),
    ]);
    let rows: Vec<_> = partition.tables.state_rows().map(|(_, key, value)| (key, value.value.clone())).collect();
    assert_eq!(rows, [("b", Bytes::from("2"))]);
    let Some(nap) = partition.reminder("nap") else { panic!("lost") };
    assert_eq!((nap.generation, nap.due), (first + 1, Timestamp(6)));
    assert_eq!(
        outcome.effects,
        [
            Effect::ReminderGone { actor: cat(), name: "eat".to_owned(), generation: first },
            Effect::ReminderSet { actor: cat(), name: "nap".to_owned(), reminder: nap },
        ]
    );
    assert_eq!(partition.tables.reminder_rows().count(), 1);
}
