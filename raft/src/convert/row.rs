//! Rows of a partition, of a node, and the chunks of a snapshot.

use bytes::Bytes;
use callboard_machine::partition::{DroppedFiring, LastWrite, Ownership, Reminder};
use callboard_proto::disk;
use callboard_storage::{Pair, Table};
use callboard_types::{Activation, Epoch, NodeId, ReplicaId, Timestamp, WriteNumber};
use xxhash_rust::xxh3::Xxh3;

use super::command::{actor_from_disk, actor_to_disk};
use super::{FromDisk, Invalid, ReadAs, ToDisk, need, stores};

stores! {
    ReplicaRecord => Replica,
    MetaCopyRecord => MetaCopy,
    Reminder => Reminder,
    DroppedFiring => DroppedFiring,
    Ownership => Ownership,
    ClockRecord => Clock,
    DroppedCount => DroppedCount,
    LastWrite => LastWrite,
    Chunk => SnapshotChunk,
}

/// A replica of this node, and where its rows are; or the memory of the last one of its group that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaRecord {
    pub replica: u64,
    pub incarnation: u64,
    /// Its log and rows go or are gone. The record stays, so that the id is never taken again.
    pub dropped: bool,
}

impl ToDisk<disk::Replica> for ReplicaRecord {
    fn to_disk(&self) -> disk::Replica {
        disk::Replica { replica: self.replica, incarnation: self.incarnation, dropped: self.dropped }
    }
}

impl FromDisk<disk::Replica> for ReplicaRecord {
    fn from_disk(record: disk::Replica) -> Result<Self, Invalid> {
        Ok(Self { replica: record.replica, incarnation: record.incarnation, dropped: record.dropped })
    }
}

/// Where the rows of this node's copy of the meta state are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaCopyRecord {
    pub incarnation: u64,
}

impl ToDisk<disk::MetaCopy> for MetaCopyRecord {
    fn to_disk(&self) -> disk::MetaCopy {
        disk::MetaCopy { incarnation: self.incarnation }
    }
}

impl FromDisk<disk::MetaCopy> for MetaCopyRecord {
    fn from_disk(record: disk::MetaCopy) -> Result<Self, Invalid> {
        Ok(Self { incarnation: record.incarnation })
    }
}

/// The highest proposer clock seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockRecord(pub Timestamp);

impl ToDisk<disk::Clock> for ClockRecord {
    fn to_disk(&self) -> disk::Clock {
        disk::Clock { at: self.0.as_micros() }
    }
}

impl FromDisk<disk::Clock> for ClockRecord {
    fn from_disk(clock: disk::Clock) -> Result<Self, Invalid> {
        Ok(Self(Timestamp::from_micros(clock.at)))
    }
}

/// How many firings given up by policy are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedCount(pub u64);

impl ToDisk<disk::DroppedCount> for DroppedCount {
    fn to_disk(&self) -> disk::DroppedCount {
        disk::DroppedCount { kept: self.0 }
    }
}

impl FromDisk<disk::DroppedCount> for DroppedCount {
    fn from_disk(count: disk::DroppedCount) -> Result<Self, Invalid> {
        Ok(Self(count.kept))
    }
}

impl ToDisk<disk::Reminder> for Reminder {
    fn to_disk(&self) -> disk::Reminder {
        disk::Reminder {
            spec: Some(self.spec.to_disk()),
            generation: self.generation,
            occurrence: self.occurrence,
            due: self.due.as_micros(),
            registered: self.registered.as_micros(),
            dropped: self.dropped,
        }
    }
}

impl FromDisk<disk::Reminder> for Reminder {
    fn from_disk(reminder: disk::Reminder) -> Result<Self, Invalid> {
        Ok(Self {
            spec: need("spec", reminder.spec)?.read()?,
            generation: reminder.generation,
            occurrence: reminder.occurrence,
            due: Timestamp::from_micros(reminder.due),
            registered: Timestamp::from_micros(reminder.registered),
            dropped: reminder.dropped,
        })
    }
}

impl ToDisk<disk::DroppedFiring> for DroppedFiring {
    fn to_disk(&self) -> disk::DroppedFiring {
        disk::DroppedFiring {
            actor: Some(actor_to_disk(&self.actor)),
            name: self.name.clone(),
            generation: self.generation,
            occurrence: self.occurrence,
            due: self.due.as_micros(),
            dropped_at: self.dropped_at.as_micros(),
            reason: self.reason.clone(),
        }
    }
}

impl FromDisk<disk::DroppedFiring> for DroppedFiring {
    fn from_disk(firing: disk::DroppedFiring) -> Result<Self, Invalid> {
        Ok(Self {
            actor: actor_from_disk(need("actor", firing.actor)?),
            name: firing.name,
            generation: firing.generation,
            occurrence: firing.occurrence,
            due: Timestamp::from_micros(firing.due),
            dropped_at: Timestamp::from_micros(firing.dropped_at),
            reason: firing.reason,
        })
    }
}

impl ToDisk<disk::Ownership> for Ownership {
    fn to_disk(&self) -> disk::Ownership {
        disk::Ownership { epoch: self.epoch.0, node: self.node.0, replica: self.replica.0, nonce: self.nonce }
    }
}

impl FromDisk<disk::Ownership> for Ownership {
    fn from_disk(owner: disk::Ownership) -> Result<Self, Invalid> {
        Ok(Self {
            epoch: Epoch(owner.epoch),
            node: NodeId(owner.node),
            replica: ReplicaId(owner.replica),
            nonce: owner.nonce,
        })
    }
}

impl ToDisk<disk::LastWrite> for LastWrite {
    fn to_disk(&self) -> disk::LastWrite {
        disk::LastWrite {
            epoch: self.epoch.0,
            activation: self.activation.0,
            number: self.number.0,
            response: Some(self.response.to_disk()),
        }
    }
}

impl FromDisk<disk::LastWrite> for LastWrite {
    fn from_disk(write: disk::LastWrite) -> Result<Self, Invalid> {
        Ok(Self {
            epoch: Epoch(write.epoch),
            activation: Activation(write.activation),
            number: WriteNumber(write.number),
            response: need("response", write.response)?.read()?,
        })
    }
}

/// One piece of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// Rows of one table, in key order; keys are without their incarnation.
    Rows { table: Table, rows: Vec<Pair> },
    /// Ends the snapshot: this many rows came before.
    End { rows: u64 },
}

const fn table_number(table: Table) -> u32 {
    match table {
        Table::State => 1,
        Table::Reminder => 2,
        Table::System => 3,
    }
}

fn table_of(number: u32) -> Result<Table, Invalid> {
    let table = Table::ALL.into_iter().find(|table| table_number(*table) == number);
    table.ok_or(Invalid::OutOfRange { what: "table", value: number.into() })
}

/// Lengths are hashed too, so that a byte that moves from a key to its value is noticed.
fn checksum(table: u32, rows: &[disk::SnapshotRow], end: Option<u64>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&table.to_le_bytes());
    for part in rows.iter().flat_map(|row| [&row.key, &row.value]) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(&end.unwrap_or(u64::MAX).to_le_bytes());
    hash.digest()
}

impl ToDisk<disk::SnapshotChunk> for Chunk {
    fn to_disk(&self) -> disk::SnapshotChunk {
        let row = |(key, value): &(Bytes, Bytes)| disk::SnapshotRow { key: key.clone(), value: value.clone() };
        let (table, rows, total_rows) = match self {
            Chunk::Rows { table, rows } => (table_number(*table), rows.iter().map(row).collect(), None),
            Chunk::End { rows } => (0, Vec::new(), Some(*rows)),
        };
        let checksum = checksum(table, &rows, total_rows);
        disk::SnapshotChunk { table, rows, checksum, total_rows }
    }
}

impl FromDisk<disk::SnapshotChunk> for Chunk {
    fn from_disk(chunk: disk::SnapshotChunk) -> Result<Self, Invalid> {
        if checksum(chunk.table, &chunk.rows, chunk.total_rows) != chunk.checksum {
            return Err(Invalid::Inconsistent("the checksum does not match".into()));
        }
        match chunk.total_rows {
            Some(rows) if chunk.table == 0 && chunk.rows.is_empty() => Ok(Chunk::End { rows }),
            Some(_) => Err(Invalid::Inconsistent("the end of a snapshot holds rows".into())),
            None => {
                let rows = chunk.rows.into_iter().map(|row| (row.key, row.value)).collect();
                Ok(Chunk::Rows { table: table_of(chunk.table)?, rows })
            }
        }
    }
}
