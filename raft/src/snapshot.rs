//! A group's whole state as a sequence of chunks, and back.
//!
//! Building a snapshot copies nothing: openraft only learns the id of the flushed state, up to which the log may go. The
//! rows are read when a replica asks, from one consistent view that says itself what was applied in it, so that rows and
//! log id cannot disagree. A chunk is a stored record with a checksum; the last one counts the rows of all.
//!
//! Receiving trusts nothing: the rows are staged under an incarnation that nothing refers to ([`stage`]), and only a
//! snapshot that is complete, in order and of the promised log id becomes a [`Staged`] that can be switched to. What is
//! left of a broken one is deleted; what a crash leaves is dropped at the next start. A snapshot from another node is
//! staged whole before Raft hears of it, since an install that Raft has begun must not fail.
//!
//! Absent on purpose: the transfer between nodes, which hands the chunks over as they are.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use callboard_storage::{Error, Pair, StateBatch, StateDb, StateView, Table, keyspace};

use crate::convert::{Chunk, ReplicaRecord, Storable, corrupt, pieces};
use crate::group_state::{Applied, GroupState};
use crate::incarnations::Incarnations;
use crate::type_config::LogId;

/// Rows of one chunk.
const CHUNK_ROWS: usize = 256;
/// Key and value bytes of one chunk, beyond which no further row is added.
const CHUNK_BYTES: usize = 1 << 20;

/// A snapshot on its way: encoded chunks, in order; or rows that are here already.
pub enum SnapshotChunks {
    Chunks(Box<dyn Iterator<Item = Result<Bytes, Error>> + Send>),
    Staged(Staged),
}

impl SnapshotChunks {
    pub fn new(chunks: impl Iterator<Item = Result<Bytes, Error>> + Send + 'static) -> Self {
        Self::Chunks(Box::new(chunks))
    }

    /// No rows, for a snapshot of which only the meta data matters.
    pub fn none() -> Self {
        Self::new(std::iter::empty())
    }
}

impl Iterator for SnapshotChunks {
    type Item = Result<Bytes, Error>;

    /// Rows that were received are not sent on: what is exported is read from the state.
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            SnapshotChunks::Chunks(chunks) => chunks.next(),
            SnapshotChunks::Staged(_) => None,
        }
    }
}

/// The rows of a whole snapshot, on disk under an incarnation that nothing refers to. Deleted if they are not switched
/// to.
pub struct Staged {
    db: Arc<dyn StateDb>,
    incarnation: u64,
    applied: Applied,
    switched: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.switched
            && let Err(error) = clear(&*self.db, self.incarnation)
        {
            tracing::warn!(%error, "the rows of an unused snapshot stay until the next start");
        }
    }
}

/// Receives a snapshot of the promised log id. Blocks. Nothing stays of one that is broken.
pub fn stage(
    db: Arc<dyn StateDb>,
    incarnations: &Incarnations,
    expected: Option<LogId>,
    chunks: impl Iterator<Item = Result<Bytes, Error>>,
) -> Result<Staged, Error> {
    let incarnation = incarnations.allocate()?;
    let mut staged = Staged { db, incarnation, applied: Applied::default(), switched: false };
    receive(&*staged.db, incarnation, chunks)?;
    staged.applied = Applied::read(&*staged.db, incarnation)?;
    if staged.applied.last != expected {
        let (found, expected) = (staged.applied.index(), expected.map(|id| id.index));
        return Err(corrupt("snapshot", format!("its rows stand at {found:?} instead of {expected:?}")));
    }
    staged.db.flush()?;
    Ok(staged)
}

/// What is exported: where the state stands, and its rows.
pub struct Export {
    pub applied: Applied,
    pub chunks: SnapshotChunks,
}

/// Takes the state of a group as of one moment. Rows are read as the chunks are asked for.
pub fn export(db: &dyn StateDb, incarnation: u64) -> Result<Export, Error> {
    let view = db.view()?;
    let applied = Applied::read(&*view, incarnation)?;
    let chunks = SnapshotChunks::new(RowChunks::new(view, incarnation));
    Ok(Export { applied, chunks })
}

struct RowChunks {
    view: Box<dyn StateView>,
    /// What is left of each table.
    left: VecDeque<(Table, Range<Bytes>)>,
    rows: u64,
    ended: bool,
}

impl RowChunks {
    fn new(view: Box<dyn StateView>, incarnation: u64) -> Self {
        let left = Table::ALL.into_iter().map(|table| (table, keyspace::incarnation_range(incarnation)));
        Self { view, left: left.collect(), rows: 0, ended: false }
    }

    /// The next rows of the first table that has any.
    fn rows(&mut self) -> Result<Option<(Table, Vec<Pair>)>, Error> {
        while let Some((table, range)) = self.left.front_mut() {
            let mut rows = self.view.scan(*table, range.clone(), CHUNK_ROWS)?;
            let mut bytes = 0;
            let fitting = rows.iter().take_while(|(key, value)| {
                let fits = bytes < CHUNK_BYTES;
                bytes += key.len() + value.len();
                fits
            });
            let fitting = fitting.count();
            rows.truncate(fitting);
            match rows.last() {
                Some((key, _)) => {
                    range.start = keyspace::after(key);
                    return Ok(Some((*table, rows)));
                }
                None => drop(self.left.pop_front()),
            }
        }
        Ok(None)
    }

    fn chunk(&mut self) -> Result<Chunk, Error> {
        let Some((table, mut rows)) = self.rows()? else {
            self.ended = true;
            return Ok(Chunk::End { rows: self.rows });
        };
        self.rows += rows.len() as u64;
        for (key, _) in &mut rows {
            let (_, within) = keyspace::split_incarnation(key)?;
            *key = key.slice_ref(within);
        }
        Ok(Chunk::Rows { table, rows })
    }
}

impl Iterator for RowChunks {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let chunk = self.chunk();
        self.ended |= chunk.is_err();
        Some(chunk.map(|chunk| chunk.encode()))
    }
}

/// Makes a staged snapshot the state of a group. Blocks.
///
/// The order is what makes it safe: the rows are on disk before anything refers to them, the switch is on disk before
/// this returns, and the former rows go last. The caller reads the facts of the new rows afterwards.
pub fn install(state: &GroupState, mut staged: Staged) -> Result<(), Error> {
    let (db, incarnation) = (staged.db.clone(), staged.incarnation);
    let former = state.incarnation();
    let record = ReplicaRecord { replica: state.replica, incarnation, dropped: false };
    // A replica that leaves meanwhile is not brought back.
    state.while_held(|| {
        let mut switch = StateBatch::default();
        switch.put(Table::System, keyspace::pointer(state.group), record.encode());
        db.write(switch)?;
        db.flush()?;
        state.switch(incarnation, staged.applied.clone());
        Ok(())
    })?;
    staged.switched = true;
    clear(&*db, former)
}

/// Deletes every row of an incarnation that nothing refers to.
pub fn clear(db: &dyn StateDb, incarnation: u64) -> Result<(), Error> {
    let mut batch = StateBatch::default();
    for table in Table::ALL {
        batch.delete_range(table, keyspace::incarnation_range(incarnation));
    }
    db.write(batch)
}

fn receive(
    db: &dyn StateDb,
    incarnation: u64,
    chunks: impl Iterator<Item = Result<Bytes, Error>>,
) -> Result<(), Error> {
    let mut rows = Received { chunks, incarnation, table: None, pending: VecDeque::new(), rows: 0, ended: false };
    for table in Table::ALL {
        let mut of_table = std::iter::from_fn(|| rows.next_of(table).transpose());
        db.ingest(table, &mut of_table)?;
    }
    rows.finish()
}

/// The rows of a snapshot, table by table.
struct Received<C> {
    chunks: C,
    incarnation: u64,
    /// The table of `pending`.
    table: Option<Table>,
    pending: VecDeque<Pair>,
    rows: u64,
    ended: bool,
}

impl<C: Iterator<Item = Result<Bytes, Error>>> Received<C> {
    /// The next row if it is one of `table`.
    fn next_of(&mut self, table: Table) -> Result<Option<Pair>, Error> {
        while self.pending.is_empty() && !self.ended {
            self.read_chunk()?;
        }
        if self.table != Some(table) {
            return Ok(None);
        }
        let Some((key, value)) = self.pending.pop_front() else { return Ok(None) };
        self.rows += 1;
        Ok(Some((keyspace::join_incarnation(self.incarnation, &key), value)))
    }

    fn read_chunk(&mut self) -> Result<(), Error> {
        let Some(chunk) = self.chunks.next() else { return Err(corrupt("snapshot", "it ends before its end")) };
        match Chunk::decode(&chunk?)? {
            Chunk::Rows { table, rows } => {
                if self.table.is_some_and(|before| before > table) {
                    return Err(corrupt("snapshot", "its tables are out of order"));
                }
                self.table = Some(table);
                self.pending = rows.into();
                self.check_order()
            }
            Chunk::End { rows } if rows == self.rows => {
                self.ended = true;
                Ok(())
            }
            Chunk::End { rows } => Err(corrupt("snapshot", format!("{} rows arrived of {rows}", self.rows))),
        }
    }

    /// Within a chunk; the store checks that chunks follow on.
    fn check_order(&self) -> Result<(), Error> {
        if self.pending.iter().zip(self.pending.iter().skip(1)).all(|((first, _), (second, _))| first < second) {
            Ok(())
        } else {
            Err(corrupt("snapshot", "its rows are out of order"))
        }
    }

    fn finish(mut self) -> Result<(), Error> {
        while self.pending.is_empty() && !self.ended {
            self.read_chunk()?;
        }
        if self.pending.is_empty() { Ok(()) } else { Err(corrupt("snapshot", "its tables are out of order")) }
    }
}

/// Any bytes taken as the chunks of a snapshot are refused or leave a readable state.
pub fn fuzz_snapshot(data: &[u8]) {
    let db: Arc<dyn StateDb> = callboard_storage::Memory::new().open().state;
    let chunks: Vec<_> = pieces(data).map(Ok).collect();
    if receive(&*db, 1, SnapshotChunks::new(chunks.into_iter())).is_ok() {
        let export = export(&*db, 1).map(|export| export.chunks.map(|chunk| chunk.map(|_| ())).collect::<Vec<_>>());
        drop(export);
    }
}
