//! How this crate fails.

use callboard_types::{Class, Epoch, GroupId, NodeId, PartitionId, ReplicaId};

/// Why the groups of a node do not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] callboard_storage::Error),
    #[error("start group {group}: {why}")]
    Raft { group: GroupId, why: String },
    #[error("the data directory is of another cluster: {0}")]
    Mismatch(String),
    /// The stores do not belong together: a replica that started from them could forget a vote it gave.
    #[error(
        "this node's replicas are quarantined: {0}; restore the data folder from a backup, or start with an empty one"
    )]
    Quarantined(String),
}

impl StartError {
    pub fn class(&self) -> Class {
        match self {
            StartError::Storage(error) => error.class(),
            StartError::Raft { .. } | StartError::Quarantined(_) => Class::Fatal,
            StartError::Mismatch(_) => Class::Rejected,
        }
    }
}

/// Why a proposal has no answer from the state machine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed: not the leader, no lease yet, or too many proposals in flight. `leader`: the node that leads,
    /// if it is known and another one.
    #[error("{group} is not ready for proposals")]
    NotReady { group: GroupId, leader: Option<NodeId> },
    /// It stands in the log, perhaps; the outcome is not known.
    #[error("the outcome of the proposal is not known")]
    Unknown,
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

impl ProposeError {
    pub fn class(&self) -> Class {
        match self {
            ProposeError::NotReady { group: _, leader: _ } => Class::Busy,
            ProposeError::Unknown => Class::Unknown,
            ProposeError::Stopped(_) => Class::Fatal,
        }
    }
}

/// Why a node does not take or leave a replica.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// A node holds one replica of a group: the other one is to be dropped first.
    #[error("this node holds replica {held} of {group}")]
    Taken { group: GroupId, held: ReplicaId },
    /// It was dropped here, or one after it was: what it voted is forgotten, so it must not vote again.
    #[error("replica {replica} of {group} was on this node and has left it for good")]
    Used { group: GroupId, replica: ReplicaId },
    #[error(transparent)]
    Start(#[from] StartError),
}

impl HoldError {
    pub fn class(&self) -> Class {
        match self {
            HoldError::Taken { group: _, held: _ } | HoldError::Used { group: _, replica: _ } => Class::Rejected,
            HoldError::Start(error) => error.class(),
        }
    }
}

/// Why a group's membership or leadership is not as it was wanted. Every such request may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("this node does not lead {group}")]
    NotLeader { group: GroupId, leader: Option<NodeId> },
    #[error("another change of {0} is under way")]
    Busy(GroupId),
    /// It makes no sense, and will not by itself.
    #[error("{group}: {why}")]
    Refused { group: GroupId, why: String },
    /// Leadership stays where it is.
    #[error("replica {replica} of {group} is {lag} entries behind")]
    Behind { group: GroupId, replica: ReplicaId, lag: u64 },
    /// It may still happen.
    #[error("{0} has not changed in time")]
    TimedOut(GroupId),
    #[error("{group} has stopped: {why}")]
    Stopped { group: GroupId, why: String },
}

impl ChangeError {
    pub fn class(&self) -> Class {
        match self {
            ChangeError::NotLeader { .. } | ChangeError::Busy(_) | ChangeError::Behind { .. } => Class::Busy,
            ChangeError::Refused { .. } => Class::Rejected,
            ChangeError::TimedOut(_) => Class::Unknown,
            ChangeError::Stopped { .. } => Class::Fatal,
        }
    }
}

/// Why an update of the meta state is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// It does not follow on what is here: ask again from [`Groups::meta_at`](crate::Groups::meta_at).
    #[error("the update begins after {needs}, this node stands at {has}")]
    Gap { has: u64, needs: u64 },
    /// It is of a cluster that went on without this node's history, or of an older one.
    #[error("the update is of recovery generation {given}, this node has seen {seen}")]
    Generation { given: u64, seen: u64 },
    #[error(transparent)]
    Storage(#[from] callboard_storage::Error),
}

impl FeedError {
    pub fn class(&self) -> Class {
        match self {
            FeedError::Gap { .. } => Class::Busy,
            FeedError::Generation { .. } => Class::Rejected,
            FeedError::Storage(error) => error.class(),
        }
    }
}

/// The claimed epoch is over: another term, a transfer, a later claim, or a lease that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ownership of {partition} at {epoch} is over")]
pub struct NotOwner {
    pub partition: PartitionId,
    pub epoch: Epoch,
}
