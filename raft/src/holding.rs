//! Which replicas this node holds, which it has held, and how one comes and goes.
//!
//! A replica is recorded on disk before it can vote, and before it goes. What stays of one that went is its record,
//! marked: the node has forgotten what that replica voted, so its id must never answer again, whatever an old table says.
//! Ids of a group rise with each placement, so the last one says it for all before.
//!
//! The order of going: the mark; Raft ends; the log; the rows. A crash in between is finished by the next start, which
//! opens nothing that is marked.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_machine::meta::MetaState;
use callboard_storage::{Error, LogWrite, StateBatch, StateDb, StateView, Stores, Table, keyspace};
use callboard_types::{GroupId, ReplicaId};

use crate::convert::{ReplicaRecord, Storable};
use crate::error::{HoldError, StartError};
use crate::groups::Inner;
use crate::incarnations::Incarnations;
use crate::meta_copy::{self, MetaCopy};
use crate::replica::Replica;
use crate::snapshot;

/// The record of every group that this node has, or had, a replica of.
pub struct Holdings {
    records: BTreeMap<GroupId, ReplicaRecord>,
}

impl Holdings {
    fn read(view: &(impl StateView + ?Sized)) -> Result<Self, Error> {
        let rows = view.scan(Table::System, keyspace::pointers_range(), usize::MAX)?;
        let rows = rows.iter().map(|(key, row)| Ok((keyspace::parse_pointer(key)?, ReplicaRecord::decode(row)?)));
        Ok(Self { records: rows.collect::<Result<_, Error>>()? })
    }

    /// Those that are to be opened.
    pub fn held(&self) -> BTreeMap<GroupId, ReplicaRecord> {
        let held = self.records.iter().filter(|(_, record)| !record.dropped);
        held.map(|(group, record)| (*group, *record)).collect()
    }

    fn dropped(&self) -> impl Iterator<Item = GroupId> {
        self.records.iter().filter(|(_, record)| record.dropped).map(|(group, _)| *group)
    }
}

/// What the stores say before anything is opened.
pub struct Prepared {
    pub holdings: Holdings,
    pub incarnations: Arc<Incarnations>,
    pub meta_copy: MetaCopy,
    pub meta_state: MetaState,
}

/// Reads what the node holds, finishes what a crash has cut off, and drops rows that nothing refers to. Blocks.
pub fn prepare(stores: &Stores) -> Result<Prepared, StartError> {
    // What the store has after this is what it has after a crash.
    stores.state.flush()?;
    let holdings = Holdings::read(&*stores.state)?;
    let held = holdings.held();
    let logs = stores.log.groups()?;
    if let Some(group) = logs.iter().find(|group| !holdings.records.contains_key(group)) {
        return Err(StartError::Quarantined(format!("there is a log of {group}, and no replica of it")));
    }
    let left: Vec<_> = holdings.dropped().filter(|group| logs.contains(group)).collect();
    if !left.is_empty() {
        // Nothing else writes yet.
        stores.log.commit(&left.into_iter().map(|group| (group, LogWrite::RemoveGroup)).collect::<Vec<_>>())?;
    }
    let copy = meta_copy::incarnation(&*stores.state)?;
    for incarnation in keyspace::incarnations(&*stores.state)? {
        if copy != Some(incarnation) && held.values().all(|record| record.incarnation != incarnation) {
            tracing::info!(incarnation, "dropping the rows of no replica");
            snapshot::clear(&*stores.state, incarnation)?;
        }
    }
    let incarnations = Arc::new(Incarnations::open(stores.state.clone())?);
    let (meta_copy, meta_state) = MetaCopy::open(&*stores.state)?;
    Ok(Prepared { holdings, incarnations, meta_copy, meta_state })
}

/// Takes an empty replica under an id that was never used here, and opens it.
pub async fn hold(inner: &Inner, group: GroupId, replica: ReplicaId) -> Result<(), HoldError> {
    let mut holdings = inner.holdings.lock().await;
    match holdings.records.get(&group) {
        Some(held) if !held.dropped && held.replica == replica.0 => return Ok(()),
        Some(held) if !held.dropped => return Err(HoldError::Taken { group, held: ReplicaId(held.replica) }),
        Some(dropped) if dropped.replica >= replica.0 => return Err(HoldError::Used { group, replica }),
        Some(_) | None => {}
    }
    create(inner, &mut holdings, group, replica.0).await?;
    Ok(())
}

/// The replica of `group`, made here if there is none.
pub async fn hold_first(inner: &Inner, group: GroupId, replica: ReplicaId) -> Result<Arc<Replica>, StartError> {
    if let Some(held) = inner.replica(group) {
        return Ok(held);
    }
    let mut holdings = inner.holdings.lock().await;
    create(inner, &mut holdings, group, replica.0).await
}

/// It is on disk that the node holds the replica before it can vote.
async fn create(
    inner: &Inner,
    holdings: &mut Holdings,
    group: GroupId,
    replica: u64,
) -> Result<Arc<Replica>, StartError> {
    let (db, incarnations) = (inner.stores.state.clone(), inner.stores.incarnations.clone());
    let create = tokio::task::spawn_blocking(move || {
        let record = ReplicaRecord { replica, incarnation: incarnations.allocate()?, dropped: false };
        write(&*db, group, record)?;
        Ok::<_, Error>(record)
    });
    let record = create.await.map_err(|_| Error::Stopped)??;
    holdings.records.insert(group, record);
    inner.open_replica(group, record).await
}

/// Leaves the group for good.
pub async fn drop_replica(inner: &Inner, group: GroupId, replica: ReplicaId) -> Result<(), HoldError> {
    let mut holdings = inner.holdings.lock().await;
    let Some(record) = holdings.records.get(&group).copied() else { return Ok(()) };
    if record.dropped || record.replica != replica.0 {
        return Ok(());
    }
    if group == GroupId::Meta {
        inner.keep_meta().map_err(StartError::from)?;
    }
    let held = inner.replica(group);
    let record = mark(inner, group, held.as_ref(), record).await?;
    holdings.records.insert(group, record);
    if let Some(held) = &held {
        inner.forget_replica(held);
        held.leave().await;
    }
    inner.stores.log.writer.write(group, LogWrite::RemoveGroup).await.map_err(StartError::from)?;
    let db = inner.stores.state.clone();
    // The incarnation the replica had last: a snapshot may have come in until it was marked.
    let clear = tokio::task::spawn_blocking(move || snapshot::clear(&*db, record.incarnation));
    clear.await.map_err(|_| StartError::Storage(Error::Stopped))?.map_err(StartError::from)?;
    Ok(())
}

async fn mark(
    inner: &Inner,
    group: GroupId,
    held: Option<&Arc<Replica>>,
    record: ReplicaRecord,
) -> Result<ReplicaRecord, StartError> {
    let (db, state) = (inner.stores.state.clone(), held.map(|held| held.state.clone()));
    let mut marked = ReplicaRecord { dropped: true, ..record };
    let mark = tokio::task::spawn_blocking(move || {
        match state {
            None => write(&*db, group, marked)?,
            Some(state) => state.leave(|| {
                marked.incarnation = state.incarnation();
                write(&*db, group, marked)
            })?,
        }
        Ok::<_, Error>(marked)
    });
    Ok(mark.await.map_err(|_| Error::Stopped)??)
}

/// Writes a record, and waits until it is on disk.
fn write(db: &dyn StateDb, group: GroupId, record: ReplicaRecord) -> Result<(), Error> {
    let mut batch = StateBatch::default();
    batch.put(Table::System, keyspace::pointer(group), record.encode());
    db.write(batch)?;
    db.flush()
}
