//! Order, grouping, bounds and the end, on the in-memory disk.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::*;
use crate::{CommitFault, FaultPlan, LogEntry, LogSlot, Memory};

const GROUP: GroupId = GroupId::Meta;
const ENTRY_BYTES: usize = 1_000 + LogWrite::OVERHEAD * 2;

fn append(index: u64) -> LogWrite {
    LogWrite::Append { entries: vec![LogEntry { index, bytes: Bytes::from(vec![1; 1_000]) }] }
}

fn start(memory: &Memory, max_queued_bytes: usize) -> LogWriter {
    let config = WriterConfig { max_queued_bytes, max_batch_bytes: 1 << 20, ..WriterConfig::default() };
    LogWriter::start_with(memory.open().log, config, Box::new(|error| panic!("unexpected: {error}"))).unwrap()
}

fn indexes(memory: &Memory) -> Vec<u64> {
    let entries = memory.open().log.entries(GROUP, 0..u64::MAX, usize::MAX).unwrap();
    entries.into_iter().map(|entry| entry.index).collect()
}

/// The number of a submission and what it was told.
type Outcome = (u64, Result<(), String>);

/// Outcomes in the order in which they were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Outcome>>>);

impl Told {
    fn done(&self, number: u64) -> Done {
        let told = self.0.clone();
        Box::new(move |outcome| told.lock().push((number, outcome.map_err(|error| error.to_string()))))
    }

    fn all(&self) -> Vec<Outcome> {
        self.0.lock().clone()
    }
}

fn stopped() -> Result<(), String> {
    Err(Error::Stopped.to_string())
}

#[tokio::test]
async fn writes_reach_the_disk_and_are_told_in_order_of_submission() {
    let (memory, told) = (Memory::new(), Told::default());
    let writer = start(&memory, 1 << 20);
    for index in 0..100 {
        writer.submit(GROUP, append(index), told.done(index)).await;
    }
    writer.shutdown();
    assert_eq!(indexes(&memory), (0..100).collect::<Vec<_>>());
    assert_eq!(told.all(), (0..100).map(|index| (index, Ok(()))).collect::<Vec<_>>());
    let stats = writer.stats();
    assert_eq!((stats.writes, stats.entries, stats.bytes), (100, 100, 100 * ENTRY_BYTES as u64));
    assert_eq!(stats.syncs, memory.commits());
}

#[tokio::test]
async fn what_queues_up_during_a_commit_is_one_commit() {
    let (memory, told) = (Memory::new(), Told::default());
    memory.hold_commits();
    let writer = start(&memory, 1 << 20);
    writer.submit(GROUP, append(0), told.done(0)).await;
    memory.await_commit(1);
    for index in 1..50 {
        writer.submit(GROUP, append(index), told.done(index)).await;
    }
    writer.submit(GROUP, LogWrite::SetSlot { slot: LogSlot::Vote, bytes: Bytes::new() }, told.done(50)).await;
    assert_eq!(told.all(), []);
    memory.release_commits();
    writer.shutdown();
    assert_eq!(writer.stats().syncs, 2);
    assert_eq!(told.all().len(), 51);
}

#[tokio::test]
async fn a_batch_ends_at_its_byte_limit() {
    let (memory, told) = (Memory::new(), Told::default());
    memory.hold_commits();
    let config =
        WriterConfig { max_queued_bytes: 1 << 20, max_batch_bytes: 2 * ENTRY_BYTES, ..WriterConfig::default() };
    let writer = LogWriter::start_with(memory.open().log, config, Box::new(|_| {})).unwrap();
    writer.submit(GROUP, append(0), told.done(0)).await;
    memory.await_commit(1);
    for index in 1..7 {
        writer.submit(GROUP, append(index), told.done(index)).await;
    }
    memory.release_commits();
    writer.shutdown();
    assert_eq!(writer.stats().syncs, 4);
    assert_eq!(indexes(&memory), (0..7).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_queue_makes_the_next_submission_wait() {
    let (memory, told) = (Memory::new(), Told::default());
    memory.hold_commits();
    let writer = start(&memory, 2 * ENTRY_BYTES);
    writer.submit(GROUP, append(0), told.done(0)).await;
    writer.submit(GROUP, append(1), told.done(1)).await;
    {
        let mut third = pin!(writer.submit(GROUP, append(2), told.done(2)));
        assert_eq!(third.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        memory.release_commits();
        third.await;
    }
    writer.shutdown();
    assert_eq!(told.all(), [(0, Ok(())), (1, Ok(())), (2, Ok(()))]);
}

#[tokio::test]
async fn a_write_larger_than_the_queue_goes_through_alone() {
    let memory = Memory::new();
    let writer = start(&memory, 10);
    writer.write(GROUP, append(0)).await.unwrap();
    writer.write(GROUP, append(1)).await.unwrap();
    assert_eq!(indexes(&memory), [0, 1]);
}

#[tokio::test]
async fn a_submission_given_up_while_it_waits_is_told_so_and_not_written() {
    let (memory, told) = (Memory::new(), Told::default());
    memory.hold_commits();
    let writer = start(&memory, ENTRY_BYTES);
    writer.submit(GROUP, append(0), told.done(0)).await;
    {
        let mut waiting = pin!(writer.submit(GROUP, append(1), told.done(1)));
        assert_eq!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    }
    assert_eq!(told.all(), [(1, stopped())]);
    memory.release_commits();
    writer.shutdown();
    assert_eq!(indexes(&memory), [0]);
}

#[tokio::test]
async fn shutting_down_writes_what_is_queued_and_refuses_the_rest() {
    let (memory, told) = (Memory::new(), Told::default());
    memory.hold_commits();
    let writer = start(&memory, 1 << 20);
    for index in 0..10 {
        writer.submit(GROUP, append(index), told.done(index)).await;
    }
    let ending = std::thread::spawn({
        let writer = writer.clone();
        move || writer.shutdown()
    });
    memory.release_commits();
    ending.join().unwrap();
    writer.shutdown();
    writer.submit(GROUP, append(10), told.done(10)).await;
    assert!(matches!(writer.write(GROUP, append(11)).await, Err(Error::Stopped)));
    assert_eq!(indexes(&memory), (0..10).collect::<Vec<_>>());
    assert_eq!(told.all().last(), Some(&(10, stopped())));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_and_nothing_is_acknowledged() {
    for (fault, on_disk) in [(CommitFault::SyncFailsLost, vec![0]), (CommitFault::SyncFailsKept, vec![0, 1])] {
        let (memory, told) = (Memory::new(), Told::default());
        memory.plan_faults(FaultPlan::from([(2, fault)]));
        let (fatal, seen) = oneshot::channel();
        let on_fatal: OnFatal = Box::new({
            let told = told.clone();
            move |error| fatal.send((error.to_string(), told.all())).unwrap()
        });
        let writer = LogWriter::start_with(memory.open().log, WriterConfig::default(), on_fatal).unwrap();
        writer.write(GROUP, append(0)).await.unwrap();
        memory.hold_commits();
        writer.submit(GROUP, append(1), told.done(1)).await;
        memory.await_commit(2);
        writer.submit(GROUP, append(2), told.done(2)).await;
        memory.release_commits();
        let (error, told_before) = seen.await.unwrap();
        assert_eq!((error.as_str(), told_before), ("sync the log: injected sync error", vec![]));
        writer.shutdown();
        writer.submit(GROUP, append(3), told.done(3)).await;
        assert_eq!(told.all(), [(1, stopped()), (2, stopped()), (3, stopped())]);
        assert_eq!((indexes(&memory), memory.commits()), (on_disk, 2));
    }
}

#[tokio::test]
async fn a_crash_between_submission_and_commit_loses_the_write_and_never_acknowledges_it() {
    let (memory, told) = (Memory::new(), Told::default());
    let writer = LogWriter::start_with(memory.open().log, WriterConfig::default(), Box::new(|_| {})).unwrap();
    writer.write(GROUP, append(0)).await.unwrap();
    memory.hold_commits();
    writer.submit(GROUP, append(1), told.done(1)).await;
    memory.await_commit(2);
    memory.crash();
    writer.shutdown();
    assert_eq!(told.all(), [(1, stopped())]);
    assert_eq!(indexes(&memory), [0]);
}

#[tokio::test]
async fn a_panic_in_a_done_ends_the_writer_and_hangs_nobody() {
    let memory = Memory::new();
    let writer = start(&memory, 1 << 20);
    writer.submit(GROUP, append(0), Box::new(|_| panic!("a done that panics"))).await;
    writer.shutdown();
    assert!(matches!(writer.write(GROUP, append(1)).await, Err(Error::Stopped)));
}

const ABORTING: &str = "CALLBOARD_TEST_ABORTING";

#[tokio::test]
async fn a_failed_sync_aborts_the_process_and_says_why() {
    if std::env::var_os(ABORTING).is_some() {
        let memory = Memory::new();
        memory.plan_faults(FaultPlan::from([(1, CommitFault::SyncFailsLost)]));
        let writer = LogWriter::start(memory.open().log, WriterConfig::default()).unwrap();
        let outcome = writer.write(GROUP, append(0)).await;
        panic!("outlived the failed sync: {outcome:?}");
    }
    let name = "writer::tests::a_failed_sync_aborts_the_process_and_says_why";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ABORTING, "1")
        .output()
        .unwrap();
    const SIGABRT: i32 = 6;
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(SIGABRT), "{stderr}");
    assert!(stderr.contains("what is on disk is unknown: sync the log: injected sync error"), "{stderr}");
}
