//! One partition's replica on this node, as the node sees it.

use std::sync::Arc;
use std::time::Duration;

use callboard_machine::partition::{Claim, Command, Response};
use callboard_storage::StateDb;
use callboard_types::{GroupId, NodeId, PartitionId, ReplicaId, Timestamp};
use tokio::sync::watch;

use crate::error::ProposeError;
use crate::reader::Reader;
use crate::replica::Replica;
use crate::rules::Live;
use crate::tenure::{Tenancy, Tenure};
use crate::type_config::{Answer, Proposal};

/// One partition's replica on this node. Clones share it.
#[derive(Clone)]
pub struct Partition {
    tenancy: Arc<Tenancy>,
    node: NodeId,
    db: Arc<dyn StateDb>,
}

impl Partition {
    pub(crate) fn new(
        partition: PartitionId,
        node: NodeId,
        replica: Arc<Replica>,
        live: Arc<Live>,
        db: Arc<dyn StateDb>,
    ) -> Self {
        Self { tenancy: Tenancy::new(partition, replica, live), node, db }
    }

    #[cfg(test)]
    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.tenancy.replica
    }

    pub fn id(&self) -> PartitionId {
        self.tenancy.partition
    }

    pub fn replica_id(&self) -> ReplicaId {
        ReplicaId(self.tenancy.replica.state.replica)
    }

    /// True while this replica leads its group. Wakes at each change.
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.tenancy.replica.leading()
    }

    /// Proposes a claim, waits until it has applied, and returns the tenure it began.
    pub async fn claim(&self, nonce: u64, now: Timestamp, max_clock_offset: Duration) -> Result<Tenure, ProposeError> {
        let claim = Claim {
            node: self.node,
            replica: self.replica_id(),
            nonce,
            now,
            max_clock_offset_micros: u64::try_from(max_clock_offset.as_micros()).unwrap_or(u64::MAX),
        };
        let replica = &self.tenancy.replica;
        let proposed = replica.propose(Proposal::Partition(Arc::new(Command::Claim(claim)))).await?;
        if replica.has_given_up(proposed.term) {
            // Applied, and over: the leadership is being handed on.
            let group = GroupId::Partition(self.tenancy.partition);
            return Err(ProposeError::NotReady { group, leader: None });
        }
        match proposed.answer {
            Answer::Partition(Response::Claimed { epoch }) => {
                Ok(Tenure::new(self.tenancy.clone(), proposed.term, epoch))
            }
            answer @ (Answer::Blank | Answer::Partition(_) | Answer::Meta(_)) => Err(self.foreign(&answer)),
        }
    }

    /// Waits until the command has applied. A caller that gives up waiting cancels nothing.
    pub async fn propose(&self, command: Command) -> Result<Response, ProposeError> {
        match self.tenancy.replica.propose(Proposal::Partition(Arc::new(command))).await?.answer {
            Answer::Partition(response) => Ok(response),
            answer @ (Answer::Blank | Answer::Meta(_)) => Err(self.foreign(&answer)),
        }
    }

    fn foreign(&self, answer: &Answer) -> ProposeError {
        let group = GroupId::Partition(self.tenancy.partition);
        ProposeError::Stopped(format!("{group} answered {answer:?}"))
    }

    /// Reads of the applied state of this replica. Linearizable only between two checks of a valid [`Tenure`].
    pub fn reader(&self) -> Reader {
        Reader::new(self.db.clone(), self.tenancy.replica.state.clone(), self.tenancy.live.clone())
    }

    /// Index of the last applied entry; 0 before the first one.
    pub fn applied_index(&self) -> u64 {
        self.tenancy.replica.state.applied_index().unwrap_or(0)
    }

    /// Index of the last applied entry that a crash cannot take back, and up to which the log may be purged.
    pub fn durable_index(&self) -> u64 {
        self.tenancy.replica.state.durable().index().unwrap_or(0)
    }
}
