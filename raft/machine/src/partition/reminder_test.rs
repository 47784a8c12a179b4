//! Reminders: creation, occurrences, drops, and what the shell is told of them.

use callboard_types::Timestamp;

use super::samples::*;
use super::{ActorOp, DroppedFiring, Effect, Rejection, Reminder, Response};
use crate::limits::{MAX_DROP_REASON_BYTES, MAX_DROPPED};

fn set(name: &str, reminder: Reminder) -> Effect {
    Effect::ReminderSet { actor: cat(), name: name.to_owned(), reminder }
}

fn gone(name: &str, generation: u64) -> Effect {
    Effect::ReminderGone { actor: cat(), name: name.to_owned(), generation }
}

/// A partition with reminder `nap`, due at 5, and its generation.
fn with_nap() -> (Partition, u64) {
    let mut partition = Partition::claimed(1);
    partition.apply(&at(3, owners(1, vec![put_reminder("nap", 5, false)])));
    let generation = partition.index;
    (partition, generation)
}

#[test]
fn a_created_reminder_awaits_its_first_occurrence() {
    let mut partition = Partition::claimed(1);
    let outcome = partition.apply(&at(3, owners(1, vec![put_reminder("nap", 5, false)])));
    let expected = Reminder {
        spec: spec("1s"),
        generation: partition.index,
        occurrence: 1,
        due: Timestamp(5),
        registered: Timestamp(3),
        dropped: 0,
    };
    assert_eq!(outcome.effects, [set("nap", expected.clone())]);
    assert_eq!(partition.reminder("nap"), Some(expected));
}

#[test]
fn a_reminder_is_replaced_only_with_overwrite() {
    let (mut partition, generation) = with_nap();
    partition.run(vec![dropped("nap", generation, 1, Some(7))]);
    let outcome = partition.apply_in_vain(&owners(1, vec![put_reminder("nap", 9, false)]));
    assert_eq!(outcome.response, Response::Rejected(Rejection::ReminderExists { name: "nap".to_owned() }));
    let outcome = partition.run(vec![put_reminder("nap", 9, true)]);
    let Some(replaced) = partition.reminder("nap") else { panic!("lost") };
    assert_eq!((replaced.generation, replaced.occurrence, replaced.dropped), (partition.index, 1, 0));
    assert_eq!(outcome.effects, [set("nap", replaced)]);
}

#[test]
fn a_reminder_is_created_without_overwrite_after_its_deletion_in_the_same_command() {
    let (mut partition, _) = with_nap();
    let outcome = partition.run(vec![delete_reminder("nap"), put_reminder("nap", 9, false)]);
    assert_eq!(outcome.response, Response::Done);
    let Some(replaced) = partition.reminder("nap") else { panic!("lost") };
    assert_eq!((replaced.generation, replaced.due), (partition.index, Timestamp(9)));
    assert_eq!(outcome.effects, [set("nap", replaced)]);
}

#[test]
fn of_two_creations_in_one_command_the_last_is_the_only_one_seen() {
    let mut partition = Partition::claimed(1);
    let outcome = partition.run(vec![put_reminder("nap", 1, true), put_reminder("nap", 2, true)]);
    let Some(last) = partition.reminder("nap") else { panic!("lost") };
    assert_eq!(last.due, Timestamp(2));
    assert_eq!(outcome.effects, [set("nap", last)]);
}

#[test]
fn deleting_an_absent_reminder_is_no_error_and_has_no_effect() {
    let mut partition = Partition::claimed(1);
    assert_eq!(partition.apply_in_vain(&owners(1, vec![delete_reminder("nap")])).response, Response::Done);
    let both = owners(1, vec![put_reminder("nap", 1, false), delete_reminder("nap")]);
    assert_eq!(partition.apply_in_vain(&both).response, Response::Done);
}

#[test]
fn an_occurrence_that_fired_moves_the_reminder_to_the_next() {
    let (mut partition, generation) = with_nap();
    for occurrence in 1..=3 {
        let due = 5 + i64::try_from(occurrence).unwrap();
        let outcome = partition.run(vec![fired("nap", generation, occurrence, Some(due))]);
        let Some(moved) = partition.reminder("nap") else { panic!("lost") };
        assert_eq!((moved.occurrence, moved.due, moved.registered), (occurrence + 1, Timestamp(due), Timestamp(3)));
        assert_eq!(outcome.effects, [set("nap", moved)]);
    }
    assert_eq!(partition.tables.due_rows().count(), 1);
    let outcome = partition.run(vec![fired("nap", generation, 4, None)]);
    assert_eq!(outcome.effects, [gone("nap", generation)]);
    assert_eq!(partition.reminder("nap"), None);
    assert_eq!(partition.tables.due_rows().count(), 0);
}

#[test]
fn an_outcome_of_another_generation_or_occurrence_has_no_effect() {
    let (mut partition, generation) = with_nap();
    partition.run(vec![fired("nap", generation, 1, Some(6))]);
    for (name, generation, occurrence) in [
        ("nap", generation, 1),
        ("nap", generation, 3),
        ("nap", generation - 1, 2),
        ("nap", generation + 1, 2),
        ("nap", 0, 0),
        ("nap", u64::MAX, u64::MAX),
        ("eat", generation, 2),
    ] {
        for op in [
            fired(name, generation, occurrence, None),
            fired(name, generation, occurrence, Some(8)),
            dropped(name, generation, occurrence, None),
            dropped(name, generation, occurrence, Some(8)),
        ] {
            assert_eq!(partition.apply_in_vain(&owners(1, vec![op])).response, Response::Done);
        }
    }
}

#[test]
fn a_reminder_registered_again_by_its_own_callback_is_not_ended_by_the_old_generation() {
    let (mut partition, old) = with_nap();
    // The callback of the last occurrence registers the name again, then its outcome is committed.
    partition.apply(&write(1, 1, 1, vec![put_reminder("nap", 50, true)]));
    let again = partition.reminder("nap");
    assert!(again.is_some());
    partition.apply_in_vain(&owners(1, vec![fired("nap", old, 1, None)]));
    partition.apply_in_vain(&owners(1, vec![dropped("nap", old, 1, None)]));
    assert_eq!(partition.reminder("nap"), again);
}

#[test]
fn a_reminder_deleted_by_its_own_callback_stays_deleted() {
    let (mut partition, generation) = with_nap();
    partition.apply(&write(1, 1, 1, vec![delete_reminder("nap")]));
    partition.apply_in_vain(&owners(1, vec![fired("nap", generation, 1, Some(50))]));
    assert_eq!(partition.reminder("nap"), None);
}

#[test]
fn a_dropped_occurrence_is_counted_and_kept() {
    let (mut partition, generation) = with_nap();
    let outcome = partition.apply(&at(8, owners(1, vec![dropped("nap", generation, 1, Some(6))])));
    let Some(moved) = partition.reminder("nap") else { panic!("lost") };
    assert_eq!((moved.occurrence, moved.due, moved.dropped), (2, Timestamp(6), 1));
    assert_eq!(outcome.effects, [set("nap", moved)]);
    let outcome = partition.apply(&at(9, owners(1, vec![dropped("nap", generation, 2, None)])));
    assert_eq!(outcome.effects, [gone("nap", generation)]);
    let firing = |occurrence, due, dropped_at| DroppedFiring {
        actor: cat(),
        name: "nap".to_owned(),
        generation,
        occurrence,
        due: Timestamp(due),
        dropped_at: Timestamp(dropped_at),
        reason: "the app answered 500".to_owned(),
    };
    let rows: Vec<_> = partition.tables.dropped_rows().cloned().collect();
    assert_eq!(rows, [firing(1, 5, 8), firing(2, 6, 9)]);
}

#[test]
fn dropped_firings_outlive_their_actor() {
    let (mut partition, generation) = with_nap();
    partition.run(vec![dropped("nap", generation, 1, Some(6))]);
    partition.run(vec![ActorOp::DeleteActor]);
    assert_eq!(partition.tables.dropped_rows().count(), 1);
}

#[test]
fn the_newest_dropped_firings_are_kept() {
    let (mut partition, generation) = with_nap();
    let drops = |from: u64, to: u64| (from..to).map(|n| dropped("nap", generation, n, Some(6))).collect();
    partition.run(drops(1, MAX_DROPPED));
    partition.run(drops(MAX_DROPPED, MAX_DROPPED + 3));
    let kept: Vec<_> = partition.tables.dropped_rows().map(|row| row.occurrence).collect();
    assert_eq!(kept, Vec::from_iter(3..MAX_DROPPED + 3));
    // More in one command than are kept at all.
    partition.run(drops(MAX_DROPPED + 3, 3 * MAX_DROPPED + 1));
    let kept: Vec<_> = partition.tables.dropped_rows().map(|row| row.occurrence).collect();
    assert_eq!(kept, Vec::from_iter(2 * MAX_DROPPED + 1..3 * MAX_DROPPED + 1));
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let (mut partition, generation) = with_nap();
    let reason = format!("a{}", "é".repeat(MAX_DROP_REASON_BYTES));
    partition.run(vec![ActorOp::ReminderDropped { name: "nap".into(), generation, occurrence: 1, next: None, reason }]);
    let kept: Vec<_> = partition.tables.dropped_rows().map(|row| row.reason.len()).collect();
    assert_eq!(kept, [MAX_DROP_REASON_BYTES - 1]);
}

#[test]
fn effects_stand_in_the_order_of_the_operations_that_had_them() {
    let (mut partition, generation) = with_nap();
    let outcome = partition.run(vec![
        put_reminder("zoom", 1, false),
        fired("nap", generation, 1, None),
        put_reminder("eat", 2, false),
        put_reminder("zoom", 3, true),
    ]);
    let stored = |name| partition.reminder(name).expect("stored");
    assert_eq!(outcome.effects, [gone("nap", generation), set("eat", stored("eat")), set("zoom", stored("zoom"))]);
}

#[test]
fn what_the_deletion_of_the_actor_ends_is_told_at_its_place() {
    let (mut partition, nap) = with_nap();
    partition.run(vec![put_reminder("eat", 2, false), put_reminder("play", 2, false), put_reminder("zoom", 2, false)]);
    let others = partition.index;
    let outcome = partition.run(vec![fired("nap", nap, 1, Some(9)), delete_reminder("zoom"), ActorOp::DeleteActor]);
    assert_eq!(outcome.effects, [gone("zoom", others), gone("eat", others), gone("nap", nap), gone("play", others)]);
}
