//! The due table, rule by rule.

use super::*;

fn id(n: u32) -> ReminderId {
    ReminderId { actor: ActorKey::new("default", "T", format!("{n:06}")), name: "r".into() }
}

fn entry(n: u32, due: i64, generation: u64, occurrence: u64) -> DueEntry {
    DueEntry { key: DueKey { due: Timestamp(due), id: id(n) }, generation, occurrence }
}

fn limits(window: usize, pending: usize) -> Limits {
    Limits { window, pending, ..Limits::default() }
}

/// A table that holds the whole of an index with these rows.
fn complete(rows: Vec<DueEntry>) -> DueTable {
    let mut table = DueTable::new(Limits::default());
    table.wants_refill().unwrap();
    table.refill(rows, true);
    table
}

fn take(table: &mut DueTable, now: i64) -> Vec<(ReminderId, u64, u32)> {
    let taken = table.take_due(Timestamp(now), 100);
    taken.into_iter().map(|firing| (firing.id, firing.occurrence, firing.attempt)).collect()
}

fn one(table: &mut DueTable, now: i64) -> Firing {
    let mut firings = table.take_due(Timestamp(now), 100);
    assert_eq!(firings.len(), 1);
    firings.remove(0)
}

#[test]
fn nothing_is_handed_out_before_it_is_due() {
    let mut table = complete(vec![entry(1, 10, 1, 1), entry(2, 20, 2, 1)]);
    assert_eq!(table.next_due(), Some(Timestamp(10)));
    assert_eq!(take(&mut table, 9), []);
    assert_eq!(take(&mut table, 10), [(id(1), 1, 1)]);
    assert_eq!(table.next_due(), Some(Timestamp(20)));
    assert_eq!(take(&mut table, 19), []);
}

#[test]
fn the_earliest_come_first_and_no_more_than_asked_for() {
    let mut table = complete(vec![entry(3, 1, 1, 1), entry(2, 2, 1, 1), entry(1, 3, 1, 1)]);
    let first: Vec<_> = table.take_due(Timestamp(9), 2).into_iter().map(|firing| firing.id).collect();
    assert_eq!(first, [id(3), id(2)]);
    assert_eq!((table.pending(), table.loaded()), (2, 1));
}

#[test]
fn a_successor_waits_for_the_outcome_of_its_predecessor() {
    let mut table = complete(vec![entry(1, 10, 1, 1)]);
    let firing = one(&mut table, 10);
    assert!(table.is_current(&firing));
    table.put(entry(1, 11, 1, 2));
    assert!(!table.is_current(&firing));
    assert_eq!(take(&mut table, 99), []);
    table.resolved(&firing);
    assert_eq!(take(&mut table, 99), [(id(1), 2, 1)]);
}

#[test]
fn the_successor_may_be_put_after_the_outcome_too() {
    let mut table = complete(vec![entry(1, 10, 1, 1)]);
    let firing = one(&mut table, 10);
    table.resolved(&firing);
    table.put(entry(1, 11, 1, 2));
    assert_eq!(take(&mut table, 99), [(id(1), 2, 1)]);
}

#[test]
fn a_failed_attempt_is_repeated_at_its_instant_with_the_next_number() {
    let mut table = complete(vec![entry(1, 10, 1, 1)]);
    let firing = one(&mut table, 10);
    table.retry_at(&firing, Timestamp(15));
    assert_eq!((table.next_due(), take(&mut table, 14)), (Some(Timestamp(15)), vec![]));
    let again = one(&mut table, 15);
    assert_eq!((again.attempt, again.due, again.occurrence), (2, Timestamp(10), 1));
    table.again_at(&again, Timestamp(16));
    assert_eq!(take(&mut table, 16), [(id(1), 1, 2)]);
}

#[test]
fn an_outcome_reported_twice_or_for_another_version_changes_nothing() {
    let mut table = complete(vec![entry(1, 10, 1, 1)]);
    let firing = one(&mut table, 10);
    let other = Firing { occurrence: 2, ..firing.clone() };
    table.resolved(&other);
    table.retry_at(&other, Timestamp(11));
    assert_eq!(table.pending(), 1);
    table.retry_at(&firing, Timestamp(15));
    table.retry_at(&firing, Timestamp(12));
    assert_eq!(take(&mut table, 14), []);
    assert_eq!(take(&mut table, 15), [(id(1), 1, 2)]);
}

#[test]
fn a_removed_reminder_is_neither_taken_nor_repeated() {
    let mut table = complete(vec![entry(1, 10, 1, 1), entry(2, 10, 2, 1), entry(3, 10, 3, 1)]);
    table.remove(&id(3), 3);
    let firings = table.take_due(Timestamp(10), 9);
    assert_eq!(firings.len(), 2);
    table.remove(&id(1), 1);
    assert!(!table.is_current(&firings[0]));
    table.retry_at(&firings[0], Timestamp(11));
    table.retry_at(&firings[1], Timestamp(11));
    table.remove(&id(2), 2);
    assert_eq!((take(&mut table, 99), table.pending(), table.next_due()), (vec![], 0, None));
}

#[test]
fn removing_an_older_generation_leaves_the_new_one() {
    let mut table = complete(vec![entry(1, 10, 1, 1)]);
    table.put(entry(1, 20, 5, 1));
    table.remove(&id(1), 1);
    assert_eq!(take(&mut table, 20), [(id(1), 1, 1)]);
}

#[test]
fn an_overwrite_from_its_own_callback_fires_after_the_turn() {
    let mut table = complete(vec![entry(1, 10, 1, 1)]);
    let firing = one(&mut table, 10);
    table.put(entry(1, 10, 7, 1));
    assert_eq!(take(&mut table, 10), []);
    table.retry_at(&firing, Timestamp(50));
    let next = one(&mut table, 10);
    assert_eq!((next.generation, next.attempt), (7, 1));
}

#[test]
fn an_overwrite_replaces_a_waiting_attempt_at_once() {
    let mut table = complete(vec![entry(1, 10, 1, 1)]);
    let firing = one(&mut table, 10);
    table.retry_at(&firing, Timestamp(50));
    table.put(entry(1, 20, 7, 1));
    assert_eq!(table.next_due(), Some(Timestamp(20)));
    assert_eq!(one(&mut table, 20).generation, 7);
    assert_eq!(take(&mut table, 50), []);
}

#[test]
fn late_effects_do_not_bring_back_an_older_form() {
    let mut table = complete(vec![entry(1, 30, 1, 3)]);
    table.put(entry(1, 10, 1, 1));
    table.put(entry(1, 20, 1, 2));
    table.put(entry(1, 30, 1, 3));
    assert_eq!((table.loaded(), table.next_due()), (1, Some(Timestamp(30))));
}

#[test]
fn what_lies_above_the_cursor_is_left_to_the_index() {
    let mut table = DueTable::new(limits(2, 9));
    assert_eq!(table.wants_refill(), Some(Scan { after: None, limit: 2 }));
    assert_eq!(table.wants_refill(), None);
    table.refill(vec![entry(1, 10, 1, 1), entry(2, 20, 1, 1)], false);
    table.put(entry(3, 30, 1, 1));
    table.put(entry(4, 15, 1, 1));
    assert_eq!(table.loaded(), 3);
    assert_eq!(take(&mut table, 99).len(), 3);
    let scan = table.wants_refill().unwrap();
    assert_eq!(scan, Scan { after: Some(entry(2, 20, 1, 1).key), limit: 2 });
    table.refill(vec![entry(3, 30, 1, 1)], true);
    assert_eq!(take(&mut table, 99), [(id(3), 1, 1)]);
    assert_eq!(table.wants_refill(), None);
}

#[test]
fn what_changes_while_a_scan_runs_outweighs_its_rows() {
    let mut table = DueTable::new(limits(10, 10));
    table.wants_refill().unwrap();
    table.put(entry(1, 40, 1, 2));
    table.remove(&id(2), 2);
    table.put(entry(3, 5, 9, 1));
    table.put(entry(4, 50, 4, 1));
    table.refill(vec![entry(1, 10, 1, 1), entry(2, 20, 2, 1), entry(5, 30, 5, 1)], true);
    let due: Vec<_> = table.take_due(Timestamp(99), 9).into_iter().map(|f| (f.id, f.due.0)).collect();
    assert_eq!(due, [(id(3), 5), (id(5), 30), (id(1), 40), (id(4), 50)]);
}

#[test]
fn a_firing_resolved_while_a_scan_runs_is_not_brought_back_by_its_rows() {
    let mut table = DueTable::new(limits(2, 9));
    table.wants_refill().unwrap();
    table.refill(vec![entry(1, 10, 1, 1)], false);
    let firing = one(&mut table, 10);
    table.wants_refill().unwrap();
    table.resolved(&firing);
    let stale = vec![entry(1, 11, 1, 1)];
    table.refill(stale, true);
    assert_eq!(take(&mut table, 99), []);
}

#[test]
fn an_eviction_lowers_the_cursor_and_voids_a_running_scan() {
    let mut table = DueTable::new(limits(2, 9));
    table.wants_refill().unwrap();
    table.refill(vec![entry(1, 100, 1, 1)], false);
    table.wants_refill().unwrap();
    for n in 2..=5 {
        table.put(entry(n, i64::from(n), u64::from(n), 1));
    }
    assert_eq!(table.loaded(), 2);
    table.refill(vec![], true);
    assert_eq!(take(&mut table, 999).len(), 2);
    assert_eq!(table.wants_refill().unwrap().after, Some(entry(3, 3, 3, 1).key));
}

#[test]
fn too_many_changes_void_a_scan_instead_of_growing() {
    let mut table = DueTable::new(limits(1, 9));
    table.wants_refill().unwrap();
    for n in 0..3 {
        table.put(entry(n, 10, 1, 1));
    }
    table.refill(vec![entry(0, 10, 1, 1)], true);
    assert_eq!(table.loaded(), 0);
    assert_eq!(table.wants_refill(), Some(Scan { after: None, limit: 1 }));
    table.refill_failed();
    assert!(table.wants_refill().is_some());
}

#[test]
fn at_the_pending_limit_only_further_attempts_are_taken() {
    let mut table = DueTable::new(limits(9, 1));
    table.wants_refill().unwrap();
    table.refill(vec![entry(1, 10, 1, 1), entry(2, 10, 2, 1)], true);
    let firing = one(&mut table, 10);
    assert_eq!(table.next_due(), None);
    table.retry_at(&firing, Timestamp(12));
    assert_eq!(table.next_due(), Some(Timestamp(12)));
    assert_eq!(take(&mut table, 12), [(id(1), 1, 2)]);
    table.resolved(&firing);
    assert_eq!(take(&mut table, 12), [(id(2), 1, 1)]);
}

#[test]
#[should_panic(expected = "the index scans in key order")]
fn an_index_in_another_order_is_noticed() {
    complete(vec![entry(2, 10, 1, 1), entry(1, 10, 1, 1)]);
}

/// 100,000 reminders pass through a window of the default size: everything comes, memory stays bounded.
#[test]
fn a_hundred_thousand_reminders_pass_through_the_window() {
    const COUNT: u32 = 100_000;
    let index: BTreeMap<DueKey, DueEntry> =
        (0..COUNT).map(|n| entry(n, i64::from(n % 1_000), 1, 1)).map(|entry| (entry.key.clone(), entry)).collect();
    let mut table = DueTable::new(Limits::default());
    let mut fired = 0;
    loop {
        if let Some(scan) = table.wants_refill() {
            use std::ops::Bound::{Excluded, Unbounded};
            let from = scan.after.map_or(Unbounded, Excluded);
            let rows: Vec<_> = index.range((from, Unbounded)).take(scan.limit).map(|(_, row)| row.clone()).collect();
            let exhausted = rows.len() < scan.limit;
            table.refill(rows, exhausted);
        }
        assert!(table.loaded() <= 2 * Limits::default().window);
        let firings = table.take_due(Timestamp(1_000), 256);
        if firings.is_empty() {
            break;
        }
        fired += firings.len();
        firings.iter().for_each(|firing| table.resolved(firing));
    }
    assert_eq!((fired, table.pending()), (COUNT as usize, 0));
}
