//! A group's state machine as openraft drives it: entries in, rows and answers out.
//!
//! What an entry means is decided in [`Rules`]; here entries become one batch of rows, stored together with the id of
//! the last one. Nothing is synced: what a crash takes, the log replays. Answers and effects go out only after the batch
//! is stored. Writes are made in place: without a write-ahead log they cost microseconds.
//!
//! Invariants: the rows of an incarnation always hold exactly the entries up to its applied id; an answer is never sent
//! before its rows can be read.

use std::io;
use std::sync::Arc;

use callboard_storage::{Error, StateDb, Table, keyspace};
use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::convert::Storable;
use crate::group_state::{Applied, GroupState};
use crate::incarnations::Incarnations;
use crate::overlay::Overlay;
use crate::rules::Rules;
use crate::snapshot::{self, SnapshotChunks};
use crate::type_config::{Answer, Entry, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Key and value bytes after which a batch is stored, though more entries wait.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Entries of one batch.
const MAX_BATCH_ENTRIES: usize = 4_096;

pub struct StateStore {
    db: Arc<dyn StateDb>,
    incarnations: Arc<Incarnations>,
    state: Arc<GroupState>,
    rules: Rules,
    /// A snapshot exists once one was built or installed: before, the log holds everything.
    has_snapshot: bool,
}

/// The answers of a batch, kept until it is stored.
type Answers = Vec<(ApplyResponder<TypeConfig>, Answer)>;

impl StateStore {
    pub fn open(
        db: Arc<dyn StateDb>,
        incarnations: Arc<Incarnations>,
        state: Arc<GroupState>,
        mut rules: Rules,
    ) -> Result<Self, Error> {
        rules.load(&*db, state.incarnation(), state.applied_index().unwrap_or(0))?;
        Ok(Self { db, incarnations, state, rules, has_snapshot: false })
    }

    fn apply_entry(&mut self, rows: &mut Overlay, applied: &mut Applied, entry: Entry) -> Result<Answer, Error> {
        let index = entry.log_id.index;
        applied.last = Some(entry.log_id);
        match entry.payload {
            Payload::Blank => Ok(Answer::Blank),
            Payload::Membership(membership) => {
                applied.membership = StoredMembership::new(applied.last, membership);
                let key = keyspace::membership(self.state.incarnation());
                rows.put(Table::System, key, applied.membership.encode());
                Ok(Answer::Blank)
            }
            Payload::Normal(proposal) => self.rules.apply(rows, self.state.incarnation(), index, &proposal),
        }
    }

    fn store(&mut self, rows: &mut Overlay, applied: &Applied, answers: &mut Answers) -> Result<(), Error> {
        if let Some(last) = &applied.last {
            rows.put(Table::System, keyspace::applied(self.state.incarnation()), last.encode());
        }
        self.db.write(rows.take())?;
        self.state.set_applied(applied.clone());
        self.rules.committed(applied.index().unwrap_or(0));
        for (responder, answer) in answers.drain(..) {
            responder.send(answer);
        }
        Ok(())
    }

    /// Returns what is on disk afterwards.
    async fn flush(&self) -> Result<Applied, Error> {
        let db = self.db.clone();
        let applied = self.state.applied();
        tokio::task::spawn_blocking(move || db.flush()).await.map_err(|_| Error::Stopped)??;
        self.state.set_durable(applied.clone());
        Ok(applied)
    }

    fn meta(applied: Applied) -> SnapshotMeta {
        SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership }
    }
}

impl RaftStateMachine<TypeConfig> for StateStore {
    type SnapshotData = SnapshotChunks;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.state.applied();
        Ok((applied.last, applied.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut rows = Overlay::new(self.db.clone());
        let mut applied = self.state.applied();
        let mut answers = Answers::new();
        let mut pending = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let answer = self.apply_entry(&mut rows, &mut applied, entry).map_err(io::Error::other)?;
            answers.extend(responder.map(|responder| (responder, answer)));
            pending += 1;
            if rows.bytes() >= MAX_BATCH_BYTES || pending >= MAX_BATCH_ENTRIES {
                self.store(&mut rows, &applied, &mut answers).map_err(io::Error::other)?;
                pending = 0;
            }
        }
        if pending > 0 {
            self.store(&mut rows, &applied, &mut answers).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// `force` asks for a snapshot of everything applied, and gets it by a flush of its own.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        self.has_snapshot = true;
        let flushed = if force { self.flush().await } else { Ok(self.state.durable()) };
        Some(SnapshotBuilder { meta: flushed.map(Self::meta) })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.has_snapshot = true;
        SnapshotBuilder { meta: Ok(Self::meta(self.state.durable())) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotChunks) -> Result<(), io::Error> {
        let (db, incarnations, state) = (self.db.clone(), self.incarnations.clone(), self.state.clone());
        let expected = meta.last_log_id;
        let install = tokio::task::spawn_blocking(move || {
            let staged = match snapshot {
                SnapshotChunks::Staged(staged) => staged,
                SnapshotChunks::Chunks(chunks) => snapshot::stage(db, &incarnations, expected, chunks)?,
            };
            snapshot::install(&state, staged)
        });
        install.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        self.has_snapshot = true;
        let index = self.state.applied_index().unwrap_or(0);
        self.rules.load(&*self.db, self.state.incarnation(), index).map_err(io::Error::other)
    }

    /// Exported from the present rows, which may be ahead of the snapshot that was built last.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.has_snapshot {
            return Ok(None);
        }
        let export = snapshot::export(&*self.db, self.state.incarnation()).map_err(io::Error::other)?;
        Ok(Some(Snapshot { meta: Self::meta(export.applied), snapshot: export.chunks }))
    }
}

/// A built snapshot is the knowledge of what is on disk.
pub struct SnapshotBuilder {
    meta: Result<SnapshotMeta, Error>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotChunks;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        match &self.meta {
            Ok(meta) => Ok(Snapshot { meta: meta.clone(), snapshot: SnapshotChunks::none() }),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }
}
