//! The meta group's commands and rows.
//!
//! A row's key is a table and a name within it, made here; its value repeats the name, so that a value alone says what
//! it is about.

use bytes::{BufMut, Bytes};
use callboard_machine::meta::{MetaCommand, MetaKey, MetaRow, NodeRecord, PartitionRecord, Placement, Role, Settings};
use callboard_proto::disk;
use callboard_storage::Error;
use callboard_types::{ClusterId, GroupId, NodeId, PartitionId, ReplicaId, Timestamp};

use super::{FromDisk, Invalid, ReadAs, Stored, ToDisk, corrupt, need, stores};

stores! {
    MetaCommand => MetaCommand,
}

const CLUSTER: u8 = 1;
const NODE: u8 = 2;
const PARTITION: u8 = 3;
const TYPE: u8 = 4;
const META_GROUP: u8 = 5;

/// The table of a row and its name in there.
pub fn encode_key(key: &MetaKey) -> (u8, Bytes) {
    match key {
        MetaKey::Cluster => (CLUSTER, Bytes::new()),
        MetaKey::Node(node) => (NODE, Bytes::copy_from_slice(&node.0.to_be_bytes())),
        MetaKey::Partition(partition) => (PARTITION, Bytes::copy_from_slice(&partition.0.to_be_bytes())),
        MetaKey::Type { namespace, actor_type } => {
            // The length of the first text keeps two pairs of texts apart.
            let mut name = Vec::with_capacity(4 + namespace.len() + actor_type.len());
            name.put_u32(u32::try_from(namespace.len()).unwrap_or(u32::MAX));
            name.put_slice(namespace.as_bytes());
            name.put_slice(actor_type.as_bytes());
            (TYPE, name.into())
        }
        MetaKey::Meta => (META_GROUP, Bytes::new()),
    }
}

/// Table, name and value of a row.
pub fn encode_row(row: &MetaRow) -> (u8, Bytes, Bytes) {
    let (table, name) = encode_key(&row.key());
    let value = match row {
        MetaRow::Cluster { cluster, settings, next_replica, generation } => disk::ClusterRow {
            cluster: Some(cluster.to_disk()),
            settings: Some(settings.to_disk()),
            next_replica: *next_replica,
            generation: *generation,
        }
        .into_record(),
        MetaRow::Node(node, record) => disk::NodeRow { node: node.0, record: Some(record.to_disk()) }.into_record(),
        MetaRow::Partition(partition, record) => {
            disk::PartitionRow { partition: partition.0, record: Some(record.to_disk()) }.into_record()
        }
        MetaRow::Type { namespace, actor_type, app_id } => {
            disk::TypeRow { namespace: namespace.clone(), actor_type: actor_type.clone(), app_id: app_id.clone() }
                .into_record()
        }
        MetaRow::Meta(record) => disk::MetaGroupRow { record: Some(record.to_disk()) }.into_record(),
    };
    (table, name, value)
}

/// Reads the value of a row of `table`.
pub fn decode_row(table: u8, value: &[u8]) -> Result<MetaRow, Error> {
    match table {
        CLUSTER => disk::ClusterRow::from_record(value).and_then(|row| valid("cluster row", cluster_row(row))),
        NODE => disk::NodeRow::from_record(value).and_then(|row| valid("node row", node_row(row))),
        PARTITION => disk::PartitionRow::from_record(value).and_then(|row| valid("partition row", partition_row(row))),
        TYPE => disk::TypeRow::from_record(value).map(|row| MetaRow::Type {
            namespace: row.namespace,
            actor_type: row.actor_type,
            app_id: row.app_id,
        }),
        META_GROUP => {
            disk::MetaGroupRow::from_record(value).and_then(|row| valid("meta group row", meta_group_row(row)))
        }
        table => Err(corrupt("meta row", format!("table {table}"))),
    }
}

fn valid<T>(what: &'static str, row: Result<T, Invalid>) -> Result<T, Error> {
    row.map_err(|why| corrupt(what, why))
}

fn cluster_row(row: disk::ClusterRow) -> Result<MetaRow, Invalid> {
    Ok(MetaRow::Cluster {
        cluster: need("cluster", row.cluster)?.read()?,
        settings: need("settings", row.settings)?.read()?,
        next_replica: row.next_replica,
        generation: row.generation,
    })
}

fn node_row(row: disk::NodeRow) -> Result<MetaRow, Invalid> {
    Ok(MetaRow::Node(NodeId(row.node), need("record", row.record)?.read()?))
}

fn partition_row(row: disk::PartitionRow) -> Result<MetaRow, Invalid> {
    Ok(MetaRow::Partition(PartitionId(row.partition), need("record", row.record)?.read()?))
}

fn meta_group_row(row: disk::MetaGroupRow) -> Result<MetaRow, Invalid> {
    Ok(MetaRow::Meta(need("record", row.record)?.read()?))
}

impl ToDisk<disk::ClusterId> for ClusterId {
    fn to_disk(&self) -> disk::ClusterId {
        disk::ClusterId { high: (self.0 >> 64) as u64, low: self.0 as u64 }
    }
}

impl FromDisk<disk::ClusterId> for ClusterId {
    fn from_disk(cluster: disk::ClusterId) -> Result<Self, Invalid> {
        Ok(Self(u128::from(cluster.high) << 64 | u128::from(cluster.low)))
    }
}

impl ToDisk<disk::Settings> for Settings {
    fn to_disk(&self) -> disk::Settings {
        disk::Settings {
            name: self.name.clone(),
            partitions: self.partitions,
            replicas: self.replicas,
            hash_version: self.hash_version,
            ring_version: self.ring_version,
            host_lease_ms: self.host_lease_ms,
            max_clock_offset_ms: self.max_clock_offset_ms,
            ephemeral: self.ephemeral,
        }
    }
}

impl FromDisk<disk::Settings> for Settings {
    fn from_disk(settings: disk::Settings) -> Result<Self, Invalid> {
        Ok(Self {
            name: settings.name,
            partitions: settings.partitions,
            replicas: settings.replicas,
            hash_version: settings.hash_version,
            ring_version: settings.ring_version,
            host_lease_ms: settings.host_lease_ms,
            max_clock_offset_ms: settings.max_clock_offset_ms,
            ephemeral: settings.ephemeral,
        })
    }
}

impl ToDisk<disk::NodeRecord> for NodeRecord {
    fn to_disk(&self) -> disk::NodeRecord {
        let role = match self.role {
            Role::Storage => disk::Role::Storage,
            Role::Gateway => disk::Role::Gateway,
        };
        disk::NodeRecord {
            name: self.name.clone(),
            role: role.into(),
            zone: self.zone.clone(),
            incarnation: self.incarnation,
            address: self.address.clone(),
            leaving: self.leaving,
        }
    }
}

impl FromDisk<disk::NodeRecord> for NodeRecord {
    fn from_disk(record: disk::NodeRecord) -> Result<Self, Invalid> {
        let role = match disk::Role::try_from(record.role) {
            Ok(disk::Role::Storage) => Role::Storage,
            Ok(disk::Role::Gateway) => Role::Gateway,
            Ok(disk::Role::Unspecified) | Err(_) => {
                return Err(Invalid::OutOfRange { what: "role", value: record.role.into() });
            }
        };
        let disk::NodeRecord { name, role: _, zone, incarnation, address, leaving } = record;
        Ok(Self { name, role, zone, incarnation, address, leaving })
    }
}

impl ToDisk<disk::Placement> for Placement {
    fn to_disk(&self) -> disk::Placement {
        disk::Placement { node: self.node.0, replica: self.replica.0, learner: self.learner }
    }
}

impl FromDisk<disk::Placement> for Placement {
    fn from_disk(placement: disk::Placement) -> Result<Self, Invalid> {
        let disk::Placement { node, replica, learner } = placement;
        Ok(Self { node: NodeId(node), replica: ReplicaId(replica), learner })
    }
}

impl ToDisk<disk::PartitionRecord> for PartitionRecord {
    fn to_disk(&self) -> disk::PartitionRecord {
        disk::PartitionRecord {
            version: self.version,
            replicas: self.replicas.iter().map(Placement::to_disk).collect(),
            initialized: self.initialized,
            settled: self.settled,
        }
    }
}

impl FromDisk<disk::PartitionRecord> for PartitionRecord {
    fn from_disk(record: disk::PartitionRecord) -> Result<Self, Invalid> {
        Ok(Self {
            version: record.version,
            replicas: placements(record.replicas)?,
            initialized: record.initialized,
            settled: record.settled,
        })
    }
}

fn placements(replicas: Vec<disk::Placement>) -> Result<Vec<Placement>, Invalid> {
    replicas.into_iter().map(Placement::from_disk).collect()
}

impl ToDisk<disk::MetaCommand> for MetaCommand {
    fn to_disk(&self) -> disk::MetaCommand {
        use disk::meta_command::Command as Out;
        let command = match self {
            MetaCommand::Bootstrap { cluster, settings, now } => Out::Bootstrap(disk::Bootstrap {
                cluster: Some(cluster.to_disk()),
                settings: Some(settings.to_disk()),
                now: now.as_micros(),
            }),
            MetaCommand::PutNode { node, record } => {
                Out::PutNode(disk::PutNode { node: node.0, record: Some(record.to_disk()) })
            }
            MetaCommand::RemoveNode { node } => Out::RemoveNode(disk::RemoveNode { node: node.0 }),
            MetaCommand::Place { partition, version, replicas } => Out::Place(disk::Place {
                partition: partition.0,
                version: *version,
                replicas: replicas.iter().map(Placement::to_disk).collect(),
            }),
            MetaCommand::RegisterTypes { namespace, app_id, types } => Out::RegisterTypes(disk::RegisterTypes {
                namespace: namespace.clone(),
                app_id: app_id.clone(),
                types: types.clone(),
            }),
            MetaCommand::GroupInitialized { partition } => {
                Out::GroupInitialized(disk::GroupInitialized { partition: partition.0 })
            }
            MetaCommand::PlaceMeta { version, replicas } => Out::PlaceMeta(disk::PlaceMeta {
                version: *version,
                replicas: replicas.iter().map(Placement::to_disk).collect(),
            }),
            MetaCommand::Settled { group, version } => {
                Out::Settled(disk::Settled { group: group.to_u32(), version: *version })
            }
            MetaCommand::RaiseGeneration { generation } => {
                Out::RaiseGeneration(disk::RaiseGeneration { generation: *generation })
            }
        };
        disk::MetaCommand { command: Some(command) }
    }
}

impl FromDisk<disk::MetaCommand> for MetaCommand {
    fn from_disk(command: disk::MetaCommand) -> Result<Self, Invalid> {
        use disk::meta_command::Command as In;
        Ok(match need("meta command", command.command)? {
            In::Bootstrap(bootstrap) => MetaCommand::Bootstrap {
                cluster: need("cluster", bootstrap.cluster)?.read()?,
                settings: need("settings", bootstrap.settings)?.read()?,
                now: Timestamp::from_micros(bootstrap.now),
            },
            In::PutNode(put) => {
                MetaCommand::PutNode { node: NodeId(put.node), record: need("record", put.record)?.read()? }
            }
            In::RemoveNode(remove) => MetaCommand::RemoveNode { node: NodeId(remove.node) },
            In::Place(place) => MetaCommand::Place {
                partition: PartitionId(place.partition),
                version: place.version,
                replicas: placements(place.replicas)?,
            },
            In::RegisterTypes(register) => MetaCommand::RegisterTypes {
                namespace: register.namespace,
                app_id: register.app_id,
                types: register.types,
            },
            In::GroupInitialized(group) => MetaCommand::GroupInitialized { partition: PartitionId(group.partition) },
            In::PlaceMeta(place) => {
                MetaCommand::PlaceMeta { version: place.version, replicas: placements(place.replicas)? }
            }
            In::Settled(settled) => {
                MetaCommand::Settled { group: GroupId::from_u32(settled.group), version: settled.version }
            }
            In::RaiseGeneration(raise) => MetaCommand::RaiseGeneration { generation: raise.generation },
        })
    }
}
