//! What one actor, or one type that nobody hosts, may take from the others.

use std::ops::Bound::{Excluded, Unbounded};

use super::*;

fn id(actor_type: &str, actor: &str, n: u32) -> ReminderId {
    ReminderId { actor: ActorKey::new("ns", actor_type, actor), name: format!("{n:06}").into() }
}

fn entry(id: ReminderId, due: i64) -> DueEntry {
    DueEntry { key: DueKey { due: Timestamp(due), id }, generation: 1, occurrence: 1 }
}

fn limits(window: usize, pending_per_actor: usize) -> Limits {
    Limits { window, pending_per_actor, ..Limits::default() }
}

/// A table that holds the whole of an index with these rows.
fn complete(limits: Limits, rows: Vec<DueEntry>) -> DueTable {
    let mut table = DueTable::new(limits);
    table.wants_refill().unwrap();
    table.refill(rows, true);
    table
}

fn ids(firings: &[Firing]) -> Vec<ReminderId> {
    firings.iter().map(|firing| firing.id.clone()).collect()
}

fn take(table: &mut DueTable, now: i64) -> Vec<Firing> {
    table.take_due(Timestamp(now), 1_000)
}

/// Answers scans from `index` until the table wants no more; how many it wanted.
fn refill(table: &mut DueTable, index: &BTreeMap<DueKey, DueEntry>) -> usize {
    let mut scans = 0;
    while let Some(scan) = table.wants_refill() {
        let from = scan.after.map_or(Unbounded, Excluded);
        let rows: Vec<_> = index.range((from, Unbounded)).take(scan.limit).map(|(_, row)| row.clone()).collect();
        let exhausted = rows.len() < scan.limit;
        table.refill(rows, exhausted);
        scans += 1;
        assert!(scans <= 2 * index.len() + 2, "it scans without end");
    }
    scans
}

fn index(rows: impl IntoIterator<Item = DueEntry>) -> BTreeMap<DueKey, DueEntry> {
    rows.into_iter().map(|row| (row.key.clone(), row)).collect()
}

#[test]
fn an_actor_at_its_cap_gets_its_next_when_one_is_resolved() {
    let rows = (0..5).map(|n| entry(id("T", "a", n), i64::from(n))).collect();
    let mut table = complete(limits(100, 2), rows);
    let first = take(&mut table, 99);
    assert_eq!(ids(&first), [id("T", "a", 0), id("T", "a", 1)]);
    assert_eq!((table.next_due(), table.pending(), table.loaded()), (None, 2, 3));
    table.retry_at(&first[0], Timestamp(200));
    assert_eq!((take(&mut table, 99), table.next_due()), (vec![], Some(Timestamp(200))));
    table.resolved(&first[1]);
    assert_eq!(table.next_due(), Some(Timestamp(2)));
    assert_eq!(ids(&take(&mut table, 99)), [id("T", "a", 2)]);
    assert_eq!(table.next_due(), Some(Timestamp(200)));
}

#[test]
fn an_actor_at_its_cap_does_not_hold_up_those_behind_it() {
    let mut rows: Vec<_> = (0..4).map(|n| entry(id("T", "a", n), i64::from(n))).collect();
    rows.push(entry(id("T", "b", 0), 10));
    let mut table = complete(limits(100, 1), rows);
    assert_eq!(ids(&table.take_due(Timestamp(99), 1)), [id("T", "a", 0)]);
    assert_eq!(table.next_due(), Some(Timestamp(10)));
    assert_eq!(ids(&take(&mut table, 99)), [id("T", "b", 0)]);
}

#[test]
fn a_reminder_set_aside_follows_its_changes() {
    let rows = (0..4).map(|n| entry(id("T", "a", n), i64::from(n))).collect();
    let mut table = complete(limits(100, 1), rows);
    let first = take(&mut table, 99).remove(0);
    table.remove(&id("T", "a", 1), 1);
    table.put(DueEntry { generation: 2, ..entry(id("T", "a", 2), 50) });
    table.put(entry(id("T", "a", 9), 1));
    table.resolved(&first);
    let mut order = Vec::new();
    while let Some(firing) = take(&mut table, 99).pop() {
        table.resolved(&firing);
        order.push((firing.id, firing.due.0));
    }
    assert_eq!(order, [(id("T", "a", 9), 1), (id("T", "a", 3), 3), (id("T", "a", 2), 50)]);
}

#[test]
fn the_successor_of_an_actor_at_its_cap_keeps_its_place() {
    let mut table = complete(limits(100, 1), vec![entry(id("T", "a", 0), 1), entry(id("T", "a", 1), 5)]);
    let first = take(&mut table, 99).remove(0);
    table.put(DueEntry { occurrence: 2, ..entry(id("T", "a", 0), 3) });
    table.resolved(&first);
    let second = take(&mut table, 99);
    assert_eq!((ids(&second), second[0].occurrence), (vec![id("T", "a", 0)], 2));
}

#[test]
fn an_eviction_gives_back_later_ones_that_are_set_aside_too() {
    let mut index = index([entry(id("T", "a", 0), 100), entry(id("T", "a", 1), 110)]);
    let mut table = DueTable::new(limits(4, 1));
    refill(&mut table, &index);
    let first = take(&mut table, 100).remove(0);
    for n in 0..8 {
        let early = entry(id("T", &format!("b{n}"), 0), 50 + n);
        index.insert(early.key.clone(), early.clone());
        table.put(early);
    }
    assert_eq!(table.loaded(), 3);
    index.remove(&DueKey { due: first.due, id: first.id.clone() });
    table.resolved(&first);
    let mut due = Vec::new();
    loop {
        refill(&mut table, &index);
        let Some(firing) = table.take_due(Timestamp(200), 1).pop() else { break };
        index.remove(&DueKey { due: firing.due, id: firing.id.clone() });
        table.resolved(&firing);
        due.push(firing.due.0);
    }
    assert_eq!(due, [50, 51, 52, 53, 54, 55, 56, 57, 110]);
}

/// 20,000 due reminders of one actor before those of 100 others, in a window of 1,000: the others come at once, the
/// actor's come in order, and the index is scanned a number of times that its size explains.
#[test]
fn many_due_reminders_of_one_actor_stay_bounded_and_in_order() {
    const HOT: u32 = 20_000;
    let hot = (0..HOT).map(|n| entry(id("T", "hot", n), i64::from(n)));
    let others = (0..100).map(|n| entry(id("T", &format!("b{n}"), 0), i64::from(HOT)));
    let mut index = index(hot.chain(others));
    let limits = limits(1_000, 8);
    let mut table = DueTable::new(limits);
    let (mut fired, mut starts) = (Vec::new(), 0);
    loop {
        let mut out = Vec::new();
        loop {
            starts += usize::from(table.queue.is_starved());
            refill(&mut table, &index);
            assert!(table.loaded() <= 2 * limits.window);
            match take(&mut table, 99_999) {
                none if none.is_empty() => break,
                some => out.extend(some),
            }
        }
        if fired.is_empty() {
            assert_eq!(out.len(), 108, "the first look serves all others");
        }
        if out.is_empty() {
            break;
        }
        for firing in out {
            index.remove(&DueKey { due: firing.due, id: firing.id.clone() });
            table.resolved(&firing);
            fired.push(firing.id);
        }
    }
    assert_eq!((fired.len(), table.pending(), table.loaded()), (HOT as usize + 100, 0, 0));
    assert!(fired.iter().filter(|id| &*id.actor.actor_id == "hot").is_sorted());
    assert!(starts <= 9 * HOT as usize / limits.window, "{starts} scans from the start");
}

#[test]
fn nothing_of_a_parked_type_is_in_memory() {
    let rows = vec![
        entry(id("Gone", "a", 0), 1),
        entry(id("Gone", "b", 0), 2),
        entry(id("Gone", "c", 0), 3),
        entry(id("Here", "a", 0), 4),
    ];
    let mut table = complete(Limits::default(), rows);
    let first = table.take_due(Timestamp(99), 2);
    table.again_at(&first[1], Timestamp(50));
    assert!(table.park(&first[0]));
    assert_eq!((table.pending(), table.loaded(), table.next_due()), (0, 1, Some(Timestamp(4))));
    table.put(entry(id("Gone", "d", 0), 1));
    assert_eq!(table.loaded(), 1);
    assert_eq!(ids(&take(&mut table, 99)), [id("Here", "a", 0)]);
    assert_eq!((table.next_due(), table.wants_refill()), (None, None));
}

#[test]
fn the_rows_of_a_parked_type_are_passed_over_once() {
    let gone = (0..1_000).map(|n| entry(id("Gone", "a", n), i64::from(n)));
    let index = index(gone.chain([entry(id("Here", "a", 0), 5_000)]));
    let mut table = DueTable::new(limits(10, 8));
    refill(&mut table, &index);
    let firing = table.take_due(Timestamp(9_999), 1).remove(0);
    assert!(table.park(&firing));
    assert!(refill(&mut table, &index) <= 101);
    assert_eq!(table.loaded(), 1);
    assert_eq!(ids(&take(&mut table, 9_999)), [id("Here", "a", 0)]);
    assert_eq!((refill(&mut table, &index), table.next_due()), (0, None));
}

#[test]
fn a_type_that_is_hosted_again_fires_from_the_start_of_the_index() {
    let index = index([entry(id("Gone", "a", 0), 1), entry(id("Gone", "b", 0), 2), entry(id("Here", "a", 0), 3)]);
    let mut table = DueTable::new(Limits::default());
    refill(&mut table, &index);
    let first = table.take_due(Timestamp(99), 2);
    assert!(table.park(&first[0]));
    table.unpark(|namespace, actor_type| (namespace, actor_type) == ("ns", "Here"));
    assert_eq!((table.loaded(), table.wants_refill()), (1, None));
    table.unpark(|namespace, actor_type| (namespace, actor_type) == ("ns", "Gone"));
    assert_eq!((table.loaded(), table.pending()), (0, 1));
    refill(&mut table, &index);
    assert_eq!(ids(&take(&mut table, 99)), [id("Gone", "a", 0), id("Here", "a", 0)]);
}

#[test]
fn a_type_found_again_voids_the_running_scan() {
    let mut table = DueTable::new(limits(2, 8));
    let rows = vec![entry(id("Gone", "a", 0), 1), entry(id("Gone", "b", 0), 2)];
    table.wants_refill().unwrap();
    table.refill(rows, false);
    let firing = table.take_due(Timestamp(99), 1).remove(0);
    assert!(table.park(&firing));
    assert!(table.wants_refill().unwrap().after.is_some());
    table.unpark(|_, _| true);
    assert_eq!(table.wants_refill(), None);
    table.refill(vec![entry(id("Gone", "c", 0), 3)], true);
    assert_eq!(table.loaded(), 0);
    assert_eq!(table.wants_refill(), Some(Scan { after: None, limit: 2 }));
}

#[test]
fn an_outcome_of_a_parked_type_is_still_heard() {
    let mut table = complete(Limits::default(), vec![entry(id("Gone", "a", 0), 1), entry(id("Gone", "b", 0), 1)]);
    let firings = take(&mut table, 1);
    assert!(table.park(&firings[0]));
    assert!(table.is_current(&firings[1]));
    table.retry_at(&firings[1], Timestamp(5));
    assert_eq!((table.pending(), table.next_due()), (0, None));
    assert!(table.park(&firings[1]), "nothing is left to do");
}

#[test]
fn a_firing_handed_out_before_hosts_changed_cannot_park_its_type() {
    let mut table = complete(Limits::default(), vec![entry(id("T", "a", 0), 1)]);
    let firing = take(&mut table, 1).remove(0);
    table.unpark(|_, _| true);
    assert!(!table.park(&firing));
    table.again_at(&firing, Timestamp(5));
    let again = take(&mut table, 5).remove(0);
    assert!(table.park(&again));
}

#[test]
fn beyond_the_limit_of_parked_types_a_firing_stays_pending() {
    let limits = Limits { parked_types: 1, ..Limits::default() };
    let mut table = complete(limits, vec![entry(id("A", "a", 0), 1), entry(id("B", "a", 0), 1)]);
    let firings = take(&mut table, 1);
    assert!(table.park(&firings[0]));
    assert!(!table.park(&firings[1]));
    table.again_at(&firings[1], Timestamp(5));
    assert_eq!((table.pending(), table.next_due()), (1, Some(Timestamp(5))));
}
