//! What a node with others does with its groups: answers their messages, takes and leaves replicas, and carries out the
//! steps that its leaders are asked for. Which steps those are is decided outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use callboard_types::{GroupId, NodeId, ReplicaId};
use tokio::sync::watch;

use crate::error::{ChangeError, HoldError};
use crate::groups::Groups;
use crate::holding;
use crate::network::{ReceiveError, server};
use crate::replica::Replica;
use crate::status::GroupStatus;

impl Groups {
    /// Wakes whenever a role, a leader, a membership or the set of held replicas has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.inner.replica(group).map(|replica| replica.status())
    }

    /// Of every replica of this node, by group.
    pub fn statuses(&self) -> Vec<GroupStatus> {
        let mut statuses: Vec<_> = self.inner.replicas.borrow().iter().map(|replica| replica.status()).collect();
        statuses.sort_by_key(|status| status.group);
        statuses
    }

    /// Answers a message that [`Transport::send`] brought from another node.
    pub async fn receive(&self, body: Bytes) -> Result<Bytes, ReceiveError> {
        server::receive(&self.inner, body).await
    }

    /// Takes an empty replica, which its group's leader is to add as a learner. It is on disk that it is here when this
    /// returns. Repeating it does nothing.
    pub async fn hold(&self, group: GroupId, replica: ReplicaId) -> Result<(), HoldError> {
        holding::hold(&self.inner, group, replica).await
    }

    /// Leaves a group for good: the replica's log and rows are deleted, and its id is never taken again. Repeating it
    /// does nothing.
    pub async fn drop_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), HoldError> {
        holding::drop_replica(&self.inner, group, replica).await
    }

    /// Has the group led here add a replica that follows its log without a vote.
    pub async fn add_learner(
        &self,
        group: GroupId,
        replica: ReplicaId,
        node: NodeId,
        address: String,
    ) -> Result<(), ChangeError> {
        self.led(group)?.add_learner(replica, node, address).await
    }

    /// Has the group led here give the vote to exactly these replicas, which are members of it. Former voters stay as
    /// learners. If none is left but one that is elsewhere, every tenure here ends before.
    pub async fn change_voters(&self, group: GroupId, voters: BTreeSet<ReplicaId>) -> Result<(), ChangeError> {
        self.led(group)?.change_voters(voters).await
    }

    /// Has the group led here let a replica without a vote go.
    pub async fn remove_learner(&self, group: GroupId, replica: ReplicaId) -> Result<(), ChangeError> {
        self.led(group)?.remove_learner(replica).await
    }

    /// Hands the leadership to a voter that has all but the last entries. Every tenure of it ends before that is asked to
    /// take over, whether or not it does.
    pub async fn transfer_leader(&self, group: GroupId, to: ReplicaId) -> Result<(), ChangeError> {
        self.led(group)?.transfer_leader(to).await
    }

    /// Campaigns for the leadership, unless a leader's lease forbids it.
    pub async fn campaign(&self, group: GroupId) -> Result<(), ChangeError> {
        self.led(group)?.campaign().await
    }

    /// The replica that is asked to act as leader.
    fn led(&self, group: GroupId) -> Result<Arc<Replica>, ChangeError> {
        self.inner.replica(group).ok_or(ChangeError::NotLeader { group, leader: None })
    }
}
