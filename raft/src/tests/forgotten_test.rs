//! A disk that loses the end of the log, at whatever commit, while the state that was flushed stays: the groups go on.

use std::ops::Range;

use callboard_machine::partition::Response;
use callboard_storage::{Error, LogDb, LogEntry, LogSlot, LogWrite, StateBatch, Table};
use callboard_types::GroupId;

use super::*;

/// Longer than a start ever takes, shorter than the wait of a start that leads nowhere.
const PATIENCE: Duration = Duration::from_secs(30);

type Commit = Vec<(GroupId, LogWrite)>;
type Rows = Vec<(Table, Bytes, Bytes)>;

/// A log that writes down each commit, and the state as it was after it.
struct Recorder {
    stores: Stores,
    seen: Mutex<Vec<(Commit, Rows)>>,
}

impl Recorder {
    fn rows(&self) -> Rows {
        let all = || Bytes::new()..Bytes::from_static(&[0xff; 64]);
        let rows = |table| self.stores.state.scan(table, all(), usize::MAX).expect("the state is read");
        Table::ALL
            .map(|table| rows(table).into_iter().map(move |(key, value)| (table, key, value)))
            .into_iter()
            .flatten()
            .collect()
    }
}

impl LogDb for Recorder {
    fn commit(&self, writes: &[(GroupId, LogWrite)]) -> Result<(), Error> {
        self.stores.log.commit(writes)?;
        self.seen.lock().push((writes.to_vec(), self.rows()));
        Ok(())
    }

    fn entries(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Error> {
        self.stores.log.entries(group, range, max_bytes)
    }

    fn last(&self, group: GroupId) -> Result<Option<LogEntry>, Error> {
        self.stores.log.last(group)
    }

    fn slot(&self, group: GroupId, slot: LogSlot) -> Result<Option<Bytes>, Error> {
        self.stores.log.slot(group, slot)
    }

    fn groups(&self) -> Result<Vec<GroupId>, Error> {
        self.stores.log.groups()
    }
}

/// Forms a cluster, writes, starts again, writes: every commit of it in order.
async fn history() -> Vec<(Commit, Rows)> {
    let (memory, mut history) = (Memory::new(), Vec::new());
    for round in 0..2 {
        let recorder = Arc::new(Recorder { stores: memory.open(), seen: Mutex::default() });
        let groups = start(Stores { log: recorder.clone(), ..memory.open() }, 1).await;
        let tenure = claim(&first(&groups)).await;
        for n in 0..2 {
            let write = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("{round}-{n}"), "x")]);
            assert_eq!(first(&groups).propose(write).await.unwrap(), Response::Done);
        }
        groups.shutdown().await;
        history.append(&mut recorder.seen.lock());
    }
    history
}

/// A disk with that much of the log, and that state.
fn disk(log: &[(Commit, Rows)], state: &Rows) -> Memory {
    let memory = Memory::new();
    let stores = memory.open();
    for (commit, _) in log {
        stores.log.commit(commit).expect("the log is written");
    }
    let batch = StateBatch { puts: state.clone(), ..StateBatch::default() };
    stores.state.write(batch).and_then(|()| stores.state.flush()).expect("the state is written");
    memory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_end_at_any_commit_is_continued_from_the_state() {
    let history = history().await;
    assert!(history.len() > 20, "{} commits", history.len());
    let mut behind = 0;
    for (flushed, (_, state)) in history.iter().enumerate() {
        for kept in 0..=flushed {
            let memory = disk(&history[..kept], state);
            let works = async {
                let groups = start_in(&memory, 1).await;
                let tenure = claim(&first(&groups)).await;
                let write = command(tenure.epoch(), actor("tom"), vec![upsert("after", "x")]);
                let answer = first(&groups).propose(write).await;
                groups.shutdown().await;
                answer
            };
            let what = format!("{kept} commits of the log and the state after {flushed}");
            let answer = tokio::time::timeout(PATIENCE, works).await.unwrap_or_else(|_| panic!("{what}: no end"));
            assert_eq!(answer.unwrap_or_else(|error| panic!("{what}: {error}")), Response::Done, "{what}");
            behind += usize::from(kept < flushed);
        }
    }
    assert!(behind > 200, "{behind} logs were shorter than their state");
}
