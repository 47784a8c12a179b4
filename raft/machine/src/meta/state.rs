//! The meta state: what every node holds in memory.

use std::collections::BTreeMap;

use callboard_types::{ClusterId, NodeId, PartitionId, ReplicaId};

/// Cluster-wide settings, fixed at bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name given by `--cluster`.
    pub name: String,
    /// P: 1..=128.
    pub partitions: u32,
    /// RF: replicas wanted per partition; odd.
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

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionRecord {
    /// Of this partition's row of the placement table; 0: never placed.
    pub version: u64,
    /// No two on one node.
    pub replicas: Vec<Placement>,
    pub initialized: bool,
}

/// The whole meta state: small, held in memory on every node, and persisted row by row by the shell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetaState {
    /// Set at bootstrap, together with `settings` and a record of every partition.
    pub cluster: Option<ClusterId>,
    pub settings: Option<Settings>,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub partitions: BTreeMap<PartitionId, PartitionRecord>,
    /// (namespace, actor type) -> app id that registered it first.
    pub types: BTreeMap<(String, String), String>,
    /// Above every replica id handed out so far; the first one is 1. An id at or above it has never been used.
    pub next_replica: u64,
}
