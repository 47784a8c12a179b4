//! What the groups of a node look like from outside: for the cluster's decisions and for people.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_types::{GroupId, NodeId, ReplicaId};
use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::replica::{Replica, is_sole_voter};

/// What a replica is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaRole {
    Leader,
    Candidate,
    Follower,
    /// Without a vote: a learner, or a replica that no group knows yet.
    Learner,
}

/// One replica of this node and what it knows of its group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupStatus {
    pub group: GroupId,
    pub replica: ReplicaId,
    pub role: ReplicaRole,
    /// For display: it means nothing outside the group.
    pub term: u64,
    pub leader: Option<(ReplicaId, NodeId)>,
    /// One set; two while voters change.
    pub voters: Vec<Vec<ReplicaId>>,
    /// Every replica of the group, those without a vote included.
    pub members: BTreeMap<ReplicaId, NodeId>,
    /// The members shown are agreed on. If not, they may still be what they were before.
    pub agreed: bool,
    pub last_log: u64,
    pub applied: u64,
    /// How far the others have the leader's log; 0 where nothing is known. Empty on others than the leader.
    pub matched: BTreeMap<ReplicaId, u64>,
    /// How long ago each of the others last answered the leader.
    pub heard: BTreeMap<ReplicaId, Duration>,
    /// How long ago a quorum last answered the leader; nothing for one that is its own quorum.
    pub quorum_ack: Option<Duration>,
    /// The leader has handed its leadership on, or tried to: it takes no proposals until another one leads.
    pub transferring: bool,
}

impl GroupStatus {
    pub fn is_leader(&self) -> bool {
        self.role == ReplicaRole::Leader
    }

    /// Members without a vote.
    pub fn learners(&self) -> Vec<ReplicaId> {
        let has_vote = |replica: &ReplicaId| self.voters.iter().any(|voters| voters.contains(replica));
        self.members.keys().copied().filter(|replica| !has_vote(replica)).collect()
    }

    /// Entries that a replica has yet to receive, as the leader knows.
    pub fn lag(&self, replica: ReplicaId) -> Option<u64> {
        if replica == self.replica {
            return Some(0);
        }
        self.matched.get(&replica).map(|matched| self.last_log.saturating_sub(*matched))
    }
}

impl Replica {
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let members: BTreeMap<_, _> =
            membership.nodes().map(|(replica, member)| (ReplicaId(*replica), member.node)).collect();
        let leader = metrics.current_leader.and_then(|leader| {
            let leader = ReplicaId(leader);
            members.get(&leader).map(|node| (leader, *node))
        });
        let leads = metrics.state.is_leader();
        let others = |replica: &u64| *replica != self.state.replica;
        let matched = metrics.replication.iter().flatten().filter(|(replica, _)| others(replica));
        let heard = metrics.heartbeat.iter().flatten().filter(|(replica, _)| others(replica));
        GroupStatus {
            group: self.group,
            replica: ReplicaId(self.state.replica),
            role: match metrics.state {
                ServerState::Leader => ReplicaRole::Leader,
                ServerState::Candidate => ReplicaRole::Candidate,
                ServerState::Follower => ReplicaRole::Follower,
                ServerState::Learner | ServerState::Shutdown => ReplicaRole::Learner,
            },
            term: metrics.current_term,
            leader,
            voters: membership
                .get_joint_config()
                .iter()
                .map(|voters| voters.iter().copied().map(ReplicaId).collect())
                .collect(),
            agreed: membership.log_id() == metrics.committed_membership_config.log_id(),
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            matched: matched
                .map(|(replica, matched)| (ReplicaId(*replica), matched.map_or(0, |id| id.index)))
                .collect(),
            heard: heard
                .filter_map(|(replica, at)| at.as_ref().map(|at| (ReplicaId(*replica), at.elapsed())))
                .collect(),
            quorum_ack: if is_sole_voter(&metrics, self.state.replica) {
                leads.then_some(Duration::ZERO)
            } else {
                metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed())
            },
            transferring: leads && self.has_given_up(metrics.current_term),
            members,
        }
    }
}
