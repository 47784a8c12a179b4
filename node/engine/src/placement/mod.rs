//! Which nodes hold the replicas of each partition, and how the cluster gets there.
//!
//! Two questions, kept apart. *Where should everything be?* is [`propose`]: a pure function of the registered nodes and
//! the table as it stands, asked when either changes, its answer committed by the meta group. *What is the next step on
//! the way?* is [`moves`]: a pure function of that table and of what the groups report, asked over and over by whoever
//! leads the meta group, which needs no memory of what it, or its predecessor, did before.
//!
//! ```text
//!   members + table ── propose ──► target table ──┐
//!   groups' memberships, lag, leaders ────────────┼── moves::next ──► a bounded list of steps ──► the groups
//!   Liveness (who is up, since when) ─────────────┘         (for one group: step::next)
//! ```
//!
//! The rule of voters: a group has an odd number of them, always. With one or two storage nodes that is one (the second
//! node holds a learner), from three on three, as far as the replication factor allows. Nodes are counted as registered,
//! never as alive: a cluster that shrank its groups because nodes are silent could end up as two.
//!
//! | module | decides |
//! |---|---|
//! | `shares` | how many replicas a fair share is, per node, in a cluster with zones and weights |
//! | `flow` | the cheapest assignment within bounds |
//! | [`propose()`] | the table |
//! | [`liveness`] | who is up, down, or given up |
//! | [`step`] | the next step of one group |
//! | [`moves`] | which groups may take theirs |

mod flow;
pub mod liveness;
pub mod moves;
mod propose;
mod shares;
pub mod step;

#[cfg(test)]
mod moves_model_test;
#[cfg(test)]
mod moves_test;
#[cfg(test)]
mod propose_test;
#[cfg(test)]
mod step_test;

use std::sync::Arc;

use callboard_types::{NodeId, PartitionId};

pub use self::liveness::{Liveness, LivenessConfig};
pub use self::moves::{Move, MoveLimits};
pub use self::propose::{propose, voter_count};
pub use self::step::{Group, Next, Sight, Step};

/// A node as the placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    /// Nodes of one zone may fail together. All empty: no zones are known.
    pub zone: Arc<str>,
    /// Its share against others', 1 to [`MAX_WEIGHT`](crate::ring::MAX_WEIGHT); bounded to that.
    pub weight: u32,
    pub standing: Standing,
}

/// What a node may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A storage node that answers.
    Live,
    /// A storage node that is silent, or was a moment ago: keeps its share of what it holds, is given nothing while others
    /// can take it.
    Down,
    /// A storage node that has been silent for too long: its replicas are made anew elsewhere, where there is room. It
    /// still counts as a node of the cluster.
    Lost,
    /// A gateway, or a node that leaves or is drained: holds nothing.
    Out,
}

/// Whether a replica votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicaRole {
    Voter,
    Learner,
}

/// One copy of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    pub node: NodeId,
    pub role: ReplicaRole,
}

/// Where one partition should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// No two on one node. The preferred leader first, then the other voters, then the learners.
    pub replicas: Vec<Replica>,
    /// A voter.
    pub leader: NodeId,
}

impl Row {
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.of_role(ReplicaRole::Voter)
    }

    pub fn learners(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.of_role(ReplicaRole::Learner)
    }

    fn of_role(&self, role: ReplicaRole) -> impl Iterator<Item = NodeId> + '_ {
        self.replicas.iter().filter(move |replica| replica.role == role).map(|replica| replica.node)
    }

    /// `None`: the node holds no replica.
    pub fn role_of(&self, node: NodeId) -> Option<ReplicaRole> {
        self.replicas.iter().find(|replica| replica.node == node).map(|replica| replica.role)
    }
}

/// Where everything should be: the placement table, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// By partition number. `None`: not placed.
    pub rows: Vec<Option<Row>>,
}

impl Table {
    pub fn row(&self, partition: PartitionId) -> Option<&Row> {
        self.rows.get(partition.0 as usize)?.as_ref()
    }

    /// The preferred leader of a partition.
    pub fn leader(&self, partition: PartitionId) -> Option<NodeId> {
        self.row(partition).map(|row| row.leader)
    }

    /// For how many partitions a node is the preferred leader.
    pub fn leads(&self, node: NodeId) -> u32 {
        self.rows.iter().flatten().filter(|row| row.leader == node).count() as u32
    }

    /// How many replicas a node should hold.
    pub fn holds(&self, node: NodeId) -> u32 {
        self.rows.iter().flatten().filter(|row| row.role_of(node).is_some()).count() as u32
    }
}
