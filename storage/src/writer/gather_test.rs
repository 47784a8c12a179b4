//! When a batch waits for what else comes: under load, and never for a writer on its own.

use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use crate::{LogEntry, Memory};

const GROUP: GroupId = GroupId::Meta;
const ENTRY_BYTES: usize = 1_000 + LogWrite::OVERHEAD * 2;
/// Longer than any test: what waits for its end is not told.
const FOR_EVER: Duration = Duration::from_secs(3_600);
/// Enough for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Enough for what must not happen: a batch that does not gather takes microseconds.
const A_WHILE: Duration = Duration::from_millis(100);

type Told = oneshot::Receiver<Result<(), Error>>;

/// A writer whose batch is full with [`LOAD`] entries.
fn start(memory: &Memory) -> LogWriter {
    let config = WriterConfig { max_batch_bytes: LOAD * ENTRY_BYTES, gather: FOR_EVER, ..WriterConfig::default() };
    LogWriter::start_with(memory.open().log, config, Box::new(|error| panic!("unexpected: {error}"))).unwrap()
}

async fn submit(writer: &LogWriter, index: u64) -> Told {
    let (tell, told) = oneshot::channel();
    let write = LogWrite::Append { entries: vec![LogEntry { index, bytes: Bytes::from(vec![1; 1_000]) }] };
    writer.submit(GROUP, write, Box::new(move |outcome| drop(tell.send(outcome)))).await;
    told
}

async fn written(told: Told) {
    timeout(PATIENCE, told).await.expect("told in time").expect("told at all").expect("written");
}

/// A writer that has just committed a batch of [`LOAD`] writes, which is its second commit.
async fn under_load(memory: &Memory) -> LogWriter {
    memory.hold_commits();
    let writer = start(memory);
    let mut all = vec![submit(&writer, 0).await];
    memory.await_commit(1);
    for index in 1..=LOAD as u64 {
        all.push(submit(&writer, index).await);
    }
    memory.release_commits();
    for told in all {
        written(told).await;
    }
    assert_eq!(writer.stats().syncs, 2);
    writer
}

#[tokio::test]
async fn under_load_a_batch_waits_until_it_is_full() {
    let memory = Memory::new();
    let writer = under_load(&memory).await;
    let mut first = submit(&writer, 10).await;
    assert!(timeout(A_WHILE, &mut first).await.is_err(), "the batch did not wait");
    for index in 11..10 + LOAD as u64 {
        drop(submit(&writer, index).await);
    }
    written(first).await;
    assert_eq!(memory.commits(), 3);
    writer.shutdown();
}

#[tokio::test]
async fn a_batch_that_gathers_is_written_when_the_writer_ends() {
    let memory = Memory::new();
    let writer = under_load(&memory).await;
    let told = submit(&writer, 10).await;
    writer.shutdown();
    written(told).await;
}

#[tokio::test]
async fn a_writer_on_its_own_never_waits() {
    let writer = start(&Memory::new());
    for index in 0..3 * LOAD as u64 {
        written(submit(&writer, index).await).await;
    }
    writer.shutdown();
}
