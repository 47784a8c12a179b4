//! The meta group: what the whole cluster agrees on.

use std::collections::BTreeMap;

use callboard_types::{ClusterId, NodeId, PartitionId, ReplicaId, Timestamp};

/// One entry of the meta log.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaCommand {
    /// Makes the cluster. Rejected when there is one.
    Bootstrap { cluster: ClusterId, settings: Settings, now: Timestamp },
    /// Adds or updates a node of the registry.
    PutNode { node: NodeId, record: NodeRecord },
    RemoveNode { node: NodeId },
    /// Commits where a partition lives; `version` must be the stored one plus one (0 = none stored).
    Place { partition: PartitionId, version: u64, replicas: Vec<Placement> },
    /// First registration of a type fixes the app id shown in state keys; repeats are no error.
    RegisterTypes { namespace: String, app_id: String, types: Vec<String> },
    /// The replica's group has been initialised; from then on nobody initialises it again (feasibility 10.8).
    GroupInitialized { partition: PartitionId },
}

/// Cluster-wide settings, fixed at bootstrap unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name given by `--cluster`.
    pub name: String,
    /// P: 1..=128.
    pub partitions: u32,
    /// RF: replicas wanted per partition.
    pub replicas: u32,
    /// Version of the key-to-partition hash and of the ring algorithm.
    pub hash_version: u32,
    pub ring_version: u32,
    /// Host sessions lapse after this long without an answer of the owner, in milliseconds.
    pub host_lease_ms: u64,
    /// How far a node's wall clock may be from the voters' median, in milliseconds.
    pub max_clock_offset_ms: u64,
    /// P2 does not hold: data directories are removed at exit.
    pub ephemeral: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    pub name: String,
    pub role: Role,
    pub zone: String,
    /// Rises at every start of the node.
    pub incarnation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Storage,
    Gateway,
}

/// One replica of a partition: which node holds it, under which never reused id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    pub node: NodeId,
    pub replica: ReplicaId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecord {
    pub version: u64,
    pub replicas: Vec<Placement>,
    pub initialized: bool,
}

/// The whole meta state: small, held in memory on every node, and persisted row by row by the shell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetaState {
    pub cluster: Option<ClusterId>,
    pub settings: Option<Settings>,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub partitions: BTreeMap<PartitionId, PartitionRecord>,
    /// (namespace, actor type) -> app id that registered it first.
    pub types: BTreeMap<(String, String), String>,
    /// The next replica id to hand out.
    pub next_replica: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MetaResponse {
    Done,
    Rejected(MetaRejection),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaRejection {
    #[error("the cluster exists already")]
    AlreadyBootstrapped,
    #[error("the cluster is not formed yet")]
    NotBootstrapped,
    #[error("invalid setting: {0}")]
    InvalidSetting(String),
    #[error("unknown partition {0}")]
    UnknownPartition(PartitionId),
    #[error("unknown node {0}")]
    UnknownNode(NodeId),
    #[error("table version {given} does not follow {stored}")]
    StaleTable { given: u64, stored: u64 },
}

impl MetaState {
    /// Applies one command. Never panics; a rejected command changes nothing.
    pub fn apply(&mut self, _command: &MetaCommand) -> MetaResponse {
        todo!("the machine's helper writes this")
    }
}
