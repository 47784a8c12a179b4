//! How this crate fails.

use callboard_types::{Class, Epoch, GroupId, PartitionId};

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
    #[error("this node's replicas are quarantined: {0}")]
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
    /// Nothing was proposed: not the leader, no lease yet, or too many proposals in flight.
    #[error("{0} is not ready for proposals")]
    NotReady(GroupId),
    /// It stands in the log, perhaps; the outcome is not known.
    #[error("the outcome of the proposal is not known")]
    Unknown,
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

impl ProposeError {
    pub fn class(&self) -> Class {
        match self {
            ProposeError::NotReady(_) => Class::Busy,
            ProposeError::Unknown => Class::Unknown,
            ProposeError::Stopped(_) => Class::Fatal,
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
