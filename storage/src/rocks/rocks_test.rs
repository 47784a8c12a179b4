//! The shared promises on real files, and what only a directory can do.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use callboard_types::{ActorKey, GroupId, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Engine};
use crate::{LogDb, LogEntry, LogSlot, LogWrite, codec};

/// A crash copies the files as they are, stores open, and goes on with the copy: as after `kill -9`, what the process had
/// not yet given to the system is gone, and nothing is flushed on the way out.
struct OnDisk {
    dirs: Vec<TempDir>,
}

impl OnDisk {
    fn new() -> Self {
        Self { dirs: vec![tempfile::tempdir().unwrap()] }
    }

    fn dir(&self) -> &Path {
        self.dirs.last().expect("there is one").path()
    }
}

impl Engine for OnDisk {
    fn open(&mut self) -> Stores {
        open(self.dir(), &OpenOptions::default()).unwrap()
    }

    fn crash(&mut self, stores: Stores) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir(), copy.path());
        drop(stores);
        self.dirs.push(copy);
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn reopen(dir: &Path) -> Result<Stores, Error> {
    open(dir, &OpenOptions::default())
}

fn refusal(dir: &Path) -> Error {
    match reopen(dir) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

const GROUP: GroupId = GroupId::Meta;

fn append(log: &dyn LogDb, index: u64) {
    let entry = LogEntry { index, bytes: Bytes::from_static(b"an entry") };
    log.commit(&[(GROUP, LogWrite::Append { entries: vec![entry] })]).unwrap();
}

fn write_row(state: &dyn StateDb, key: Bytes, value: Bytes) {
    let mut batch = StateBatch::default();
    batch.put(Table::State, key, value);
    state.write(batch).unwrap();
}

#[test]
fn the_rocksdb_engine_keeps_every_promise() {
    for case in conformance::CASES {
        println!("{}", case.name);
        (case.run)(&mut OnDisk::new());
    }
}

#[test]
fn a_directory_in_use_is_refused_with_the_holders_process() {
    let dir = tempfile::tempdir().unwrap();
    let held = reopen(dir.path()).unwrap();
    let view = held.state.view().unwrap();
    let error = refusal(dir.path());
    let pid = std::process::id();
    let path = dir.path().canonicalize().unwrap();
    assert_eq!(error.to_string(), format!("{} is in use by another process (pid {pid})", path.display()));
    drop(held);
    assert!(matches!(refusal(dir.path()), Error::Locked { .. }), "a view holds the directory, too");
    drop(view);
    reopen(dir.path()).unwrap();
}

#[test]
fn a_newer_format_is_refused_with_a_sentence_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    drop(reopen(dir.path()).unwrap());
    assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "1\n");
    fs::write(dir.path().join("FORMAT"), "2\n").unwrap();
    let error = refusal(dir.path()).to_string();
    assert!(error.ends_with("is of format 2; this program reads up to 1: use a newer one"), "{error}");
    fs::write(dir.path().join("FORMAT"), "x").unwrap();
    assert!(refusal(dir.path()).to_string().ends_with("holds no format number"));
    fs::remove_file(dir.path().join("FORMAT")).unwrap();
    assert!(refusal(dir.path()).to_string().ends_with("holds stores but no FORMAT file"));
    fs::write(dir.path().join("FORMAT"), "1\n").unwrap();
    assert!(reopen(dir.path()).unwrap().paired);
}

#[test]
fn a_replaced_store_is_noticed() {
    for replaced in ["log", "state"] {
        let dir = tempfile::tempdir().unwrap();
        let stores = reopen(dir.path()).unwrap();
        append(&*stores.log, 1);
        write_row(&*stores.state, keyspace::applied(1), Bytes::new());
        stores.state.flush().unwrap();
        drop(stores);
        assert!(reopen(dir.path()).unwrap().paired);
        fs::remove_dir_all(dir.path().join(replaced)).unwrap();
        assert!(!reopen(dir.path()).unwrap().paired, "{replaced} lost");

        let other = tempfile::tempdir().unwrap();
        drop(reopen(other.path()).unwrap());
        fs::remove_dir_all(dir.path().join(replaced)).unwrap();
        copy_dir(&other.path().join(replaced), &dir.path().join(replaced));
        assert!(!reopen(dir.path()).unwrap().paired, "{replaced} of another directory");
    }
}

#[test]
fn a_creation_that_was_cut_off_is_taken_up() {
    for missing in ["log", "state"] {
        let dir = tempfile::tempdir().unwrap();
        drop(reopen(dir.path()).unwrap());
        fs::remove_dir_all(dir.path().join(missing)).unwrap();
        assert!(reopen(dir.path()).unwrap().paired, "{missing}");
        assert!(reopen(dir.path()).unwrap().paired, "{missing}");
    }
}

#[test]
fn a_log_torn_in_its_last_record_loses_that_record_only() {
    let mut disk = OnDisk::new();
    let stores = disk.open();
    (1..=10).for_each(|index| append(&*stores.log, index));
    disk.crash(stores);
    let wal = newest_wal(&disk.dir().join("log"));
    let length = fs::metadata(&wal).unwrap().len();
    fs::File::options().write(true).open(&wal).unwrap().set_len(length - 3).unwrap();
    let stores = disk.open();
    assert_eq!(stores.log.last(GROUP).unwrap().map(|entry| entry.index), Some(9));
    append(&*stores.log, 10);
    disk.crash(stores);
    assert_eq!(disk.open().log.entries(GROUP, 0..99, usize::MAX).unwrap().len(), 10);
}

fn newest_wal(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap()
}

#[test]
fn a_compaction_drops_rows_that_expired_over_an_hour_before_the_wall_clock() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions::default();
    let cache = rocksdb::Cache::new_lru_cache(options.cache_bytes);
    let directory = Arc::new(Directory::claim(dir.path()).unwrap());
    let state = RocksState::open(directory, &cache, &options).unwrap();
    let actor = ActorKey::new("default", "cat", "hobbit");
    let hour = 3_600;
    let rows = [("lasts", None), ("at", Some(hour)), ("before", Some(hour - 1)), ("broken", None)];
    for (key, expiry) in rows {
        let expires_at = expiry.map(Timestamp::from_secs);
        write_row(&state, keyspace::actor_state(1, &actor, key), codec::encode_state_value(expires_at, b"v"));
    }
    write_row(&state, keyspace::actor_state(1, &actor, "broken"), Bytes::from_static(b"\xFFnot a row"));
    state.flush().unwrap();
    let left = || {
        state.compact();
        let rows = state.scan(Table::State, keyspace::actor_range(1, &actor), 9).unwrap();
        rows.iter().map(|(key, _)| keyspace::parse_actor_state(key).unwrap().2).collect::<Vec<_>>()
    };
    assert_eq!(left(), ["at", "before", "broken", "lasts"], "no clock has been set");
    options.wall_clock.store(Timestamp::from_secs(2 * hour).as_micros(), Ordering::Relaxed);
    assert_eq!(left(), ["at", "broken", "lasts"]);
    options.wall_clock.store(Timestamp::from_secs(2 * hour).as_micros() + 1, Ordering::Relaxed);
    assert_eq!(left(), ["broken", "lasts"]);
}

#[test]
fn what_a_crash_left_of_an_ingest_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    drop(reopen(dir.path()).unwrap());
    let leftover = dir.path().join("ingest/0");
    fs::create_dir_all(&leftover).unwrap();
    fs::write(leftover.join("0.sst"), b"half a file").unwrap();
    let stores = reopen(dir.path()).unwrap();
    assert!(!leftover.exists());
    let key = keyspace::applied(1);
    let pair = (key.clone(), Bytes::from_static(b"v"));
    stores.state.ingest(Table::System, &mut [Ok(pair)].into_iter()).unwrap();
    assert_eq!(stores.state.get(Table::System, &key).unwrap(), Some(Bytes::from_static(b"v")));
    assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
}

#[test]
fn purged_entries_stay_hidden_after_a_restart_while_their_bytes_are_still_there() {
    let mut disk = OnDisk::new();
    let stores = disk.open();
    (1..=20).for_each(|index| append(&*stores.log, index));
    let purge = LogWrite::Purge { up_to: 15, marker: Bytes::from_static(b"m") };
    stores.log.commit(&[(GROUP, purge)]).unwrap();
    disk.crash(stores);
    let stores = disk.open();
    let found = stores.log.entries(GROUP, 0..99, usize::MAX).unwrap();
    assert_eq!(found.iter().map(|entry| entry.index).collect::<Vec<_>>(), [16, 17, 18, 19, 20]);
    assert_eq!(stores.log.slot(GROUP, LogSlot::Purged).unwrap(), Some(Bytes::from_static(b"m")));
}

#[test]
fn an_unsynced_log_is_still_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { sync: false, ..OpenOptions::default() };
    let stores = open(dir.path(), &options).unwrap();
    append(&*stores.log, 1);
    drop(stores);
    assert_eq!(reopen(dir.path()).unwrap().log.last(GROUP).unwrap().map(|entry| entry.index), Some(1));
}
