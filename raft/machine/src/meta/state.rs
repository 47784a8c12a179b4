//! The meta state: what every node holds in memory.

use std::collections::BTreeMap;

use callboard_types::{ClusterId, GroupId, NodeId, PartitionId, ReplicaId};

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
    /// Where its peers reach it, as it said last: a hint, and empty if it never did.
    pub address: String,
    /// The node is to hold nothing any more, and is removed once it does not.
    pub leaving: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Storage,
    Gateway,
}

/// One replica of a group: which node holds it, under which never reused id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    pub node: NodeId,
    pub replica: ReplicaId,
    /// It follows the log and has no vote.
    pub learner: bool,
}

impl Placement {
    /// The same replica, whatever its vote.
    pub fn is_same_replica(&self, other: &Placement) -> bool {
        (self.node, self.replica) == (other.node, other.replica)
    }
}

/// A group's row of the placement table: where its replicas are to be, and how far its membership has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionRecord {
    /// Of this row; 0: never placed.
    pub version: u64,
    /// No two on one node. The first voter is the preferred leader.
    pub replicas: Vec<Placement>,
    pub initialized: bool,
    /// The last version that the group's own membership has reached. Below `version`: a move is in flight.
    pub settled: u64,
}

impl PartitionRecord {
    /// The group's membership is what the row says.
    pub fn is_settled(&self) -> bool {
        self.settled >= self.version
    }

    pub fn voters(&self) -> impl Iterator<Item = &Placement> {
        self.replicas.iter().filter(|placed| !placed.learner)
    }

    pub fn learners(&self) -> impl Iterator<Item = &Placement> {
        self.replicas.iter().filter(|placed| placed.learner)
    }

    /// The replica that `node` holds.
    pub fn on(&self, node: NodeId) -> Option<&Placement> {
        self.replicas.iter().find(|placed| placed.node == node)
    }
}

/// The whole meta state: small, held in memory on every node, and persisted row by row by the shell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetaState {
    /// Set at bootstrap, together with `settings` and a record of every partition.
    pub cluster: Option<ClusterId>,
    pub settings: Option<Settings>,
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub partitions: BTreeMap<PartitionId, PartitionRecord>,
    /// The row of the meta group itself.
    pub meta: PartitionRecord,
    /// (namespace, actor type) -> app id that registered it first.
    pub types: BTreeMap<(String, String), String>,
    /// Above every replica id handed out so far; the first one is 1. An id at or above it has never been used.
    pub next_replica: u64,
    /// The recovery generation: raised when a cluster goes on without the quorum it lost. Whoever has seen a higher one
    /// refuses what comes from a lower one.
    pub generation: u64,
}

impl MetaState {
    /// The row of `group`; the meta group always has one, if only an empty one.
    pub fn row_of(&self, group: GroupId) -> Option<&PartitionRecord> {
        match group {
            GroupId::Meta => Some(&self.meta),
            GroupId::Partition(partition) => self.partitions.get(&partition),
        }
    }

    /// Every row of the placement table, that of the meta group first.
    pub fn placement_rows(&self) -> impl Iterator<Item = (GroupId, &PartitionRecord)> {
        let partitions = self.partitions.iter().map(|(partition, record)| (GroupId::Partition(*partition), record));
        std::iter::once((GroupId::Meta, &self.meta)).chain(partitions)
    }
}
