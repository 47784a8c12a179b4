//! What both engines must do: test support, run by the tests of `memory` and `rocks`, and by whoever writes a third.
//!
//! A case gets an engine with nothing in it and panics when a promise of [`engine`](crate::engine) is broken. A *crash*
//! keeps what a commit of the log or a flush of the state has answered for, and nothing else.

use std::ops::Range;

use bytes::Bytes;
use callboard_types::{ActorKey, GroupId, PartitionId, Timestamp};

use crate::{Error, LogDb, LogEntry, LogSlot, LogWrite, Pair, StateBatch, StateDb, StateView, Stores, Table, keyspace};

/// One machine with a disk.
pub trait Engine {
    /// Starts a process: opens the stores as the disk holds them.
    fn open(&mut self) -> Stores;
    /// The process ends with nothing flushed on the way.
    fn crash(&mut self, stores: Stores);
}

/// One promise.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&mut dyn Engine),
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every promise.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), run: $name }),*];
    };
}

cases![
    writes_of_one_commit_take_effect_in_their_order,
    a_truncation_takes_the_tail_and_nothing_else,
    a_long_truncation_takes_the_tail_and_nothing_else,
    a_purge_hides_everything_up_to_its_index,
    a_purge_above_the_last_entry_empties_the_log,
    reading_stops_at_the_byte_limit_but_returns_one_entry,
    reading_outside_the_log_returns_what_is_there,
    groups_do_not_touch_each_other,
    a_removed_group_starts_afresh,
    committed_writes_survive_a_crash,
    a_batch_takes_effect_in_all_tables_ranges_first_puts_last,
    emptying_a_range_takes_its_keys_and_nothing_else,
    a_crash_takes_what_no_flush_reached_and_nothing_else,
    flushing_counts_down_what_is_unflushed,
    a_view_does_not_change,
    a_scan_keeps_to_its_range_and_limit,
    incarnations_do_not_leak_into_each_other,
    ingested_pairs_are_there_and_survive_a_flush_and_a_crash,
    ingesting_refuses_keys_that_do_not_rise_and_passes_errors_on,
];

const P0: GroupId = GroupId::Partition(PartitionId(0));
const P1: GroupId = GroupId::Partition(PartitionId(1));

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn append(indexes: Range<u64>, text: &str) -> LogWrite {
    LogWrite::Append { entries: indexes.map(|index| entry(index, text)).collect() }
}

fn entry(index: u64, text: &str) -> LogEntry {
    LogEntry { index, bytes: bytes(&format!("{text}{index}")) }
}

fn entries(indexes: Range<u64>, text: &str) -> Vec<LogEntry> {
    indexes.map(|index| entry(index, text)).collect()
}

fn all(log: &dyn LogDb, group: GroupId) -> Vec<LogEntry> {
    log.entries(group, 0..u64::MAX, usize::MAX).expect("entries")
}

fn commit(log: &dyn LogDb, group: GroupId, writes: impl IntoIterator<Item = LogWrite>) {
    let writes: Vec<_> = writes.into_iter().map(|write| (group, write)).collect();
    log.commit(&writes).expect("commit");
}

/// The same, before and after a crash.
fn twice(engine: &mut dyn Engine, stores: Stores, check: impl Fn(&dyn LogDb)) {
    check(&*stores.log);
    engine.crash(stores);
    check(&*engine.open().log);
}

fn writes_of_one_commit_take_effect_in_their_order(engine: &mut dyn Engine) {
    let stores = engine.open();
    commit(
        &*stores.log,
        P0,
        [
            append(1..6, "a"),
            LogWrite::SetSlot { slot: LogSlot::Vote, bytes: bytes("v1") },
            LogWrite::Truncate { from: 3 },
            append(3..5, "b"),
            LogWrite::SetSlot { slot: LogSlot::Vote, bytes: bytes("v2") },
            append(4..5, "c"),
        ],
    );
    twice(engine, stores, |log| {
        assert_eq!(all(log, P0), [entry(1, "a"), entry(2, "a"), entry(3, "b"), entry(4, "c")]);
        assert_eq!(log.last(P0).unwrap(), Some(entry(4, "c")));
        assert_eq!(log.slot(P0, LogSlot::Vote).unwrap(), Some(bytes("v2")));
    });
}

fn a_truncation_takes_the_tail_and_nothing_else(engine: &mut dyn Engine) {
    let stores = engine.open();
    commit(&*stores.log, P0, [append(1..11, "a"), LogWrite::SetSlot { slot: LogSlot::Vote, bytes: bytes("v") }]);
    commit(&*stores.log, P0, [LogWrite::Truncate { from: 11 }]);
    assert_eq!(all(&*stores.log, P0), entries(1..11, "a"));
    commit(&*stores.log, P0, [LogWrite::Truncate { from: 8 }]);
    commit(&*stores.log, P0, [append(8..9, "b")]);
    twice(engine, stores, |log| {
        assert_eq!(all(log, P0), [entries(1..8, "a"), entries(8..9, "b")].concat());
        assert_eq!(log.last(P0).unwrap(), Some(entry(8, "b")));
    });
    let stores = engine.open();
    commit(&*stores.log, P0, [LogWrite::Truncate { from: 0 }]);
    twice(engine, stores, |log| {
        assert_eq!(all(log, P0), []);
        assert_eq!(log.last(P0).unwrap(), None);
        assert_eq!(log.slot(P0, LogSlot::Vote).unwrap(), Some(bytes("v")));
    });
}

fn a_long_truncation_takes_the_tail_and_nothing_else(engine: &mut dyn Engine) {
    let stores = engine.open();
    commit(&*stores.log, P0, [append(1..5_001, "a")]);
    commit(&*stores.log, P1, [append(1..3, "other")]);
    commit(&*stores.log, P0, [LogWrite::Truncate { from: 101 }, append(101..104, "b")]);
    twice(engine, stores, |log| {
        assert_eq!(all(log, P0), [entries(1..101, "a"), entries(101..104, "b")].concat());
        assert_eq!(log.last(P0).unwrap(), Some(entry(103, "b")));
        assert_eq!(all(log, P1), entries(1..3, "other"));
    });
}

fn a_purge_hides_everything_up_to_its_index(engine: &mut dyn Engine) {
    let stores = engine.open();
    commit(&*stores.log, P0, [append(1..5_001, "a")]);
    for up_to in [0, 1, 10, 1_500, 4_000, 4_010] {
        let marker = bytes(&up_to.to_string());
        commit(&*stores.log, P0, [LogWrite::Purge { up_to, marker: marker.clone() }]);
        assert_eq!(all(&*stores.log, P0), entries(up_to + 1..5_001, "a"));
        assert_eq!(stores.log.entries(P0, 0..up_to + 1, usize::MAX).unwrap(), []);
        assert_eq!(stores.log.last(P0).unwrap(), Some(entry(5_000, "a")));
        assert_eq!(stores.log.slot(P0, LogSlot::Purged).unwrap(), Some(marker));
    }
    twice(engine, stores, |log| {
        assert_eq!(all(log, P0), entries(4_011..5_001, "a"));
        assert_eq!(log.slot(P0, LogSlot::Purged).unwrap(), Some(bytes("4010")));
    });
    let stores = engine.open();
    commit(&*stores.log, P0, [append(5_001..5_003, "a")]);
    commit(&*stores.log, P0, [LogWrite::Purge { up_to: 5_000, marker: bytes("m") }]);
    twice(engine, stores, |log| assert_eq!(all(log, P0), entries(5_001..5_003, "a")));
}

fn a_purge_above_the_last_entry_empties_the_log(engine: &mut dyn Engine) {
    let stores = engine.open();
    commit(&*stores.log, P0, [append(1..4, "a"), LogWrite::Purge { up_to: 100, marker: bytes("m") }]);
    twice(engine, stores, |log| {
        assert_eq!(all(log, P0), []);
        assert_eq!(log.last(P0).unwrap(), None);
        assert_eq!(log.groups().unwrap(), [P0]);
    });
    let stores = engine.open();
    commit(&*stores.log, P0, [append(101..103, "b")]);
    twice(engine, stores, |log| assert_eq!(all(log, P0), entries(101..103, "b")));
}

fn reading_stops_at_the_byte_limit_but_returns_one_entry(engine: &mut dyn Engine) {
    let log = engine.open().log;
    let entries = (1..11).map(|index| LogEntry { index, bytes: Bytes::from(vec![7; 100]) }).collect();
    commit(&*log, P0, [LogWrite::Append { entries }]);
    let count = |max_bytes| log.entries(P0, 1..11, max_bytes).unwrap().len();
    assert_eq!((count(0), count(1), count(100), count(101), count(1_000)), (1, 1, 1, 2, 10));
}

fn reading_outside_the_log_returns_what_is_there(engine: &mut dyn Engine) {
    let log = engine.open().log;
    assert_eq!(all(&*log, P0), []);
    assert_eq!(log.last(P0).unwrap(), None);
    assert_eq!(log.slot(P0, LogSlot::Committed).unwrap(), None);
    commit(&*log, P0, [append(5..8, "a")]);
    let read = |range: Range<u64>| log.entries(P0, range, usize::MAX).unwrap();
    assert_eq!(read(0..6), entries(5..6, "a"));
    assert_eq!(read(7..99), entries(7..8, "a"));
    assert_eq!(read(6..6), []);
    assert_eq!(read(Range { start: 7, end: 5 }), []);
    assert_eq!(read(8..9), []);
}

fn groups_do_not_touch_each_other(engine: &mut dyn Engine) {
    let groups = [GroupId::Meta, P0, P1, GroupId::Partition(PartitionId(254)), GroupId::Partition(PartitionId(255))];
    let stores = engine.open();
    for group in groups {
        commit(&*stores.log, group, [append(0..3, &group.to_string())]);
        let vote = LogWrite::SetSlot { slot: LogSlot::Vote, bytes: bytes(&group.to_string()) };
        commit(&*stores.log, group, [vote]);
    }
    commit(&*stores.log, P0, [LogWrite::Truncate { from: 0 }]);
    commit(&*stores.log, groups[3], [LogWrite::RemoveGroup]);
    commit(&*stores.log, P1, [LogWrite::Purge { up_to: 1, marker: bytes("m") }]);
    twice(engine, stores, |log| {
        assert_eq!(all(log, GroupId::Meta), entries(0..3, "meta"));
        assert_eq!(all(log, P0), []);
        assert_eq!(log.slot(P0, LogSlot::Vote).unwrap(), Some(bytes("p0")));
        assert_eq!(all(log, P1), entries(2..3, "p1"));
        assert_eq!(all(log, groups[3]), []);
        assert_eq!(log.slot(groups[3], LogSlot::Vote).unwrap(), None);
        assert_eq!(all(log, groups[4]), entries(0..3, "p255"));
        assert_eq!(log.groups().unwrap(), [GroupId::Meta, P0, P1, groups[4]]);
    });
}

fn a_removed_group_starts_afresh(engine: &mut dyn Engine) {
    let stores = engine.open();
    commit(&*stores.log, P0, [append(1..3_001, "a")]);
    commit(&*stores.log, P0, [LogWrite::Purge { up_to: 2_000, marker: bytes("m") }]);
    commit(&*stores.log, P0, [LogWrite::RemoveGroup]);
    assert_eq!(stores.log.groups().unwrap(), []);
    assert_eq!(stores.log.slot(P0, LogSlot::Purged).unwrap(), None);
    commit(&*stores.log, P0, [append(1..3, "b")]);
    twice(engine, stores, |log| assert_eq!(all(log, P0), entries(1..3, "b")));
    let stores = engine.open();
    commit(&*stores.log, P0, [append(3..5, "b"), LogWrite::RemoveGroup, append(9..10, "c")]);
    twice(engine, stores, |log| {
        assert_eq!(all(log, P0), entries(9..10, "c"));
        assert_eq!(log.groups().unwrap(), [P0]);
    });
}

fn committed_writes_survive_a_crash(engine: &mut dyn Engine) {
    for round in 0..5 {
        let stores = engine.open();
        assert!(stores.paired);
        let expected: Vec<LogEntry> = (0..round).map(|index| entry(index, "round")).collect();
        assert_eq!(all(&*stores.log, P0), expected);
        let committed = LogWrite::SetSlot { slot: LogSlot::Committed, bytes: bytes(&round.to_string()) };
        commit(&*stores.log, P0, [append(round..round + 1, "round"), committed]);
        engine.crash(stores);
        let slot = engine.open().log.slot(P0, LogSlot::Committed).unwrap();
        assert_eq!(slot, Some(bytes(&round.to_string())));
    }
}

fn put(batch: &mut StateBatch, table: Table, key: &str, value: &str) {
    batch.put(table, bytes(key), bytes(value));
}

fn rows(view: &dyn StateView, table: Table) -> Vec<(String, String)> {
    let text = |part: Bytes| String::from_utf8_lossy(&part).into_owned();
    let all = view.scan(table, bytes("a")..bytes("zzz"), usize::MAX).expect("scan");
    all.into_iter().map(|(key, value)| (text(key), text(value))).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn a_batch_takes_effect_in_all_tables_ranges_first_puts_last(engine: &mut dyn Engine) {
    let state = engine.open().state;
    let mut batch = StateBatch::default();
    for table in Table::ALL {
        put(&mut batch, table, "b", "old");
        put(&mut batch, table, "c", "old");
        put(&mut batch, table, "d", "old");
    }
    state.write(batch).unwrap();
    let mut batch = StateBatch::default();
    put(&mut batch, Table::State, "c", "new");
    batch.delete(Table::State, bytes("c"));
    batch.delete(Table::State, bytes("absent"));
    batch.delete_range(Table::State, bytes("b")..bytes("d"));
    batch.delete(Table::Reminder, bytes("d"));
    put(&mut batch, Table::System, "b", "new");
    assert!(!batch.is_empty());
    state.write(batch).unwrap();
    assert_eq!(rows(&*state, Table::State), [pair("c", "new"), pair("d", "old")]);
    assert_eq!(rows(&*state, Table::Reminder), [pair("b", "old"), pair("c", "old")]);
    assert_eq!(rows(&*state, Table::System), [pair("b", "new"), pair("c", "old"), pair("d", "old")]);
    assert_eq!(state.get(Table::State, b"c").unwrap(), Some(bytes("new")));
    assert_eq!(state.get(Table::State, b"b").unwrap(), None);
}

fn emptying_a_range_takes_its_keys_and_nothing_else(engine: &mut dyn Engine) {
    let stores = engine.open();
    let key = |n: u32| bytes(&format!("k{n:05}"));
    let mut batch = StateBatch::default();
    (0..3_000).for_each(|n| batch.put(Table::State, key(n), bytes("v")));
    put(&mut batch, Table::Reminder, "k00100", "other table");
    stores.state.write(batch).unwrap();
    // Few keys and many, and ranges that hold none.
    for (from, to) in [(10, 20), (100, 2_500), (2_600, 2_600), (2_601, 2_600), (5_000, 6_000)] {
        let mut batch = StateBatch::default();
        batch.delete_range(Table::State, key(from)..key(to));
        stores.state.write(batch).unwrap();
    }
    let check = |state: &dyn StateDb| {
        let left: Vec<Bytes> = rows(state, Table::State).into_iter().map(|(key, _)| bytes(&key)).collect();
        let expected: Vec<Bytes> = (0..10).chain(20..100).chain(2_500..3_000).map(key).collect();
        assert_eq!(left, expected);
        assert_eq!(rows(state, Table::Reminder), [pair("k00100", "other table")]);
    };
    check(&*stores.state);
    stores.state.flush().unwrap();
    engine.crash(stores);
    check(&*engine.open().state);
}

fn a_crash_takes_what_no_flush_reached_and_nothing_else(engine: &mut dyn Engine) {
    let write = |state: &dyn StateDb, value: &str| {
        let mut batch = StateBatch::default();
        Table::ALL.iter().for_each(|table| put(&mut batch, *table, "key", value));
        state.write(batch).expect("write");
    };
    let check = |state: &dyn StateDb, value: &str| {
        Table::ALL.iter().for_each(|table| assert_eq!(rows(state, *table), [pair("key", value)], "{table:?}"));
    };
    let stores = engine.open();
    commit(&*stores.log, P0, [append(1..3, "kept")]);
    write(&*stores.state, "flushed");
    stores.state.flush().unwrap();
    write(&*stores.state, "not flushed");
    check(&*stores.state, "not flushed");
    engine.crash(stores);
    let stores = engine.open();
    check(&*stores.state, "flushed");
    assert_eq!(all(&*stores.log, P0), entries(1..3, "kept"));
    assert!(stores.paired);
    write(&*stores.state, "flushed again");
    stores.state.flush().unwrap();
    engine.crash(stores);
    check(&*engine.open().state, "flushed again");
}

fn flushing_counts_down_what_is_unflushed(engine: &mut dyn Engine) {
    let state = engine.open().state;
    state.flush().unwrap();
    assert_eq!(state.unflushed_bytes(), 0);
    let mut batch = StateBatch::default();
    put(&mut batch, Table::State, "key", "value");
    batch.delete(Table::System, bytes("ab"));
    assert_eq!(batch.bytes(), 10);
    state.write(batch).unwrap();
    assert_eq!(state.unflushed_bytes(), 10);
    state.flush().unwrap();
    assert_eq!(state.unflushed_bytes(), 0);
}

fn a_view_does_not_change(engine: &mut dyn Engine) {
    let state = engine.open().state;
    let mut batch = StateBatch::default();
    put(&mut batch, Table::State, "a", "1");
    put(&mut batch, Table::State, "b", "1");
    state.write(batch).unwrap();
    let view = state.view().unwrap();
    let mut batch = StateBatch::default();
    put(&mut batch, Table::State, "a", "2");
    batch.delete(Table::State, bytes("b"));
    put(&mut batch, Table::State, "c", "2");
    state.write(batch).unwrap();
    state.flush().unwrap();
    assert_eq!(rows(&*view, Table::State), [pair("a", "1"), pair("b", "1")]);
    assert_eq!(view.get(Table::State, b"b").unwrap(), Some(bytes("1")));
    assert_eq!(view.get(Table::State, b"c").unwrap(), None);
    let back = view.scan_back(Table::State, bytes("a")..bytes("z"), 1).unwrap();
    assert_eq!(back, [(bytes("b"), bytes("1"))]);
    assert_eq!(rows(&*state, Table::State), [pair("a", "2"), pair("c", "2")]);
    drop(state);
    assert_eq!(rows(&*view, Table::State), [pair("a", "1"), pair("b", "1")]);
}

fn a_scan_keeps_to_its_range_and_limit(engine: &mut dyn Engine) {
    let state = engine.open().state;
    let mut batch = StateBatch::default();
    ["a", "b", "ba", "c", "d"].iter().for_each(|key| put(&mut batch, Table::State, key, key));
    put(&mut batch, Table::Reminder, "b", "other table");
    state.write(batch).unwrap();
    let keys = |pairs: Vec<Pair>| pairs.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let scan = |from: &str, to: &str, limit| {
        let range = bytes(from)..bytes(to);
        let forth = keys(state.scan(Table::State, range.clone(), limit).expect("scan"));
        let mut back = keys(state.scan_back(Table::State, range, limit).expect("scan back"));
        back.reverse();
        (forth, back)
    };
    let same =
        |keys: &[&str]| (keys.iter().map(|key| bytes(key)).collect(), keys.iter().map(|key| bytes(key)).collect());
    assert_eq!(scan("a", "z", usize::MAX), same(&["a", "b", "ba", "c", "d"]));
    assert_eq!(scan("b", "c", usize::MAX), same(&["b", "ba"]));
    assert_eq!(scan("", "b", usize::MAX), same(&["a"]));
    assert_eq!(scan("a", "z", 2), (vec![bytes("a"), bytes("b")], vec![bytes("c"), bytes("d")]));
    assert_eq!(scan("a", "z", 0), same(&[]));
    assert_eq!(scan("b", "b", 9), same(&[]));
    assert_eq!(scan("c", "b", 9), same(&[]));
    assert_eq!(scan("e", "z", 9), same(&[]));
}

fn incarnations_do_not_leak_into_each_other(engine: &mut dyn Engine) {
    let state = engine.open().state;
    let actor = ActorKey::new("default", "cat", "hobbit");
    let at = Timestamp::from_secs(1);
    let incarnations = [1, 2, 254, 255, 256, u64::MAX - 1, u64::MAX];
    let mut batch = StateBatch::default();
    for incarnation in incarnations {
        let value = bytes(&incarnation.to_string());
        batch.put(Table::State, keyspace::actor_state(incarnation, &actor, "food"), value.clone());
        batch.put(Table::Reminder, keyspace::reminder(incarnation, &actor, "meow"), value.clone());
        batch.put(Table::Reminder, keyspace::due(incarnation, at, &actor, "meow"), Bytes::new());
        batch.put(Table::System, keyspace::applied(incarnation), value);
    }
    batch.put(Table::System, keyspace::pointer(P0), bytes("node"));
    state.write(batch).unwrap();
    assert_eq!(keyspace::incarnations(&*state).unwrap(), incarnations.into_iter().collect());
    let mut batch = StateBatch::default();
    Table::ALL.iter().for_each(|table| batch.delete_range(*table, keyspace::incarnation_range(255)));
    state.write(batch).unwrap();
    for incarnation in incarnations {
        let range = keyspace::incarnation_range(incarnation);
        let count = |table| {
            let rows = state.scan(table, range.clone(), usize::MAX).expect("scan");
            assert!(rows.iter().all(|(key, _)| keyspace::split_incarnation(key).expect("key").0 == incarnation));
            rows.len()
        };
        let expected = if incarnation == 255 { (0, 0, 0) } else { (1, 2, 1) };
        assert_eq!((count(Table::State), count(Table::Reminder), count(Table::System)), expected, "{incarnation}");
    }
}

fn ok_pairs(keys: Range<u32>) -> impl Iterator<Item = Result<Pair, Error>> {
    keys.map(|n| Ok((bytes(&format!("k{n:05}")), bytes("ingested"))))
}

fn ingested_pairs_are_there_and_survive_a_flush_and_a_crash(engine: &mut dyn Engine) {
    let stores = engine.open();
    let mut batch = StateBatch::default();
    put(&mut batch, Table::State, "j", "written");
    put(&mut batch, Table::State, "k00001", "written");
    put(&mut batch, Table::State, "l", "written");
    stores.state.write(batch).unwrap();
    stores.state.ingest(Table::State, &mut ok_pairs(0..2_000)).unwrap();
    stores.state.ingest(Table::Reminder, &mut ok_pairs(0..0)).unwrap();
    let mut batch = StateBatch::default();
    put(&mut batch, Table::State, "k00002", "written");
    stores.state.write(batch).unwrap();
    stores.state.flush().unwrap();
    let check = |state: &dyn StateDb| {
        let rows = rows(state, Table::State);
        assert_eq!(rows.len(), 2_002);
        assert_eq!(rows[..3], [pair("j", "written"), pair("k00000", "ingested"), pair("k00001", "ingested")]);
        assert_eq!(rows[3], pair("k00002", "written"));
        assert_eq!(rows[2_001], pair("l", "written"));
    };
    check(&*stores.state);
    engine.crash(stores);
    check(&*engine.open().state);
}

fn ingesting_refuses_keys_that_do_not_rise_and_passes_errors_on(engine: &mut dyn Engine) {
    let state = engine.open().state;
    let refused = |mut pairs: Box<dyn Iterator<Item = Result<Pair, Error>>>| {
        state.ingest(Table::State, &mut pairs).expect_err("refused").to_string()
    };
    let unordered = "unreadable ingested pairs: keys that do not rise";
    assert_eq!(refused(Box::new(ok_pairs(5..6).chain(ok_pairs(4..5)))), unordered);
    assert_eq!(refused(Box::new(ok_pairs(5..6).chain(ok_pairs(5..6)))), unordered);
    assert_eq!(
        refused(Box::new(ok_pairs(5..9).chain([Err(Error::corrupt("snapshot", "checksum"))]))),
        "unreadable snapshot: checksum"
    );
    assert_eq!(rows(&*state, Table::State), []);
}
