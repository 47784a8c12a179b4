//! What a leader is asked to do about its group: members in and out, votes, and handing the leadership on.
//!
//! Only steps, no plan: what a group should look like is decided outside. Every step is bounded in time and may be
//! repeated; one that is done already is done. A change of voters goes through a joint membership, whose second half is
//! proposed by whoever proposed the first: it goes on in the background when its caller has stopped waiting, and where
//! the leader was lost in between, the next one is asked for the same change and finishes it.
//!
//! # Why a hand-over ends what was begun before
//!
//! Voters honour a leader's lease, with two exceptions: an election that the leader itself has asked for, and a voter
//! that has become the only one and elects itself. Before both, the leadership is given up
//! ([`Replica::give_up`]): no tenure that was claimed under it passes another check.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use callboard_types::{NodeId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, Fatal, RaftError};
use openraft::{ChangeMembers, RaftMetrics};

use crate::error::ChangeError;
use crate::replica::Replica;
use crate::type_config::{Member, TypeConfig};

/// A change that has not happened after this long is left to itself.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Steps from any membership to another: out of a joint one that somebody left behind, into a joint one, out of it.
const CHANGE_STEPS: usize = 3;
/// Entries that the next leader may lack when it is asked to take over: it gets them while it prepares.
const TRANSFER_LAG: u64 = 64;
/// How long a transfer waits for the next leader to come that close.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

type Change = ChangeMembers<u64, Member>;

impl Replica {
    /// Makes a replica follow the log without a vote.
    pub async fn add_learner(
        self: &Arc<Self>,
        id: ReplicaId,
        node: NodeId,
        address: String,
    ) -> Result<(), ChangeError> {
        let member = Member { node, address };
        if self.is_member(id) {
            return self.check_leads().map(|_| ());
        }
        self.change(Change::AddNodes(BTreeMap::from([(id.0, member)])), move |view| view.members.contains(&id.0)).await
    }

    /// Gives the vote to exactly `voters`, which are members already. Those that lose it stay as learners.
    pub async fn change_voters(self: &Arc<Self>, voters: BTreeSet<ReplicaId>) -> Result<(), ChangeError> {
        let term = self.check_leads()?;
        let wanted: BTreeSet<u64> = voters.iter().map(|replica| replica.0).collect();
        if let Some(stranger) = voters.iter().find(|replica| !self.is_member(**replica)) {
            return Err(self.refused(format!("replica {stranger} is no member")));
        }
        if wanted.is_empty() {
            return Err(self.refused("it needs a voter".to_owned()));
        }
        let hands_over = wanted.len() == 1 && !wanted.contains(&self.state.replica);
        let goal = wanted.clone();
        let is_done = move |view: &View| view.voters == [goal.clone()];
        self.change_from(Change::ReplaceAllVoters(wanted), is_done, hands_over.then_some(term)).await
    }

    /// Lets a learner go.
    pub async fn remove_learner(self: &Arc<Self>, id: ReplicaId) -> Result<(), ChangeError> {
        self.check_leads()?;
        if !self.is_member(id) {
            return Ok(());
        }
        if id.0 == self.state.replica {
            return Err(self.refused("its leader does not remove itself: another one is to lead first".to_owned()));
        }
        if self.view().voters.iter().any(|voters| voters.contains(&id.0)) {
            return Err(self.refused(format!("replica {id} has a vote")));
        }
        self.change(Change::RemoveNodes(BTreeSet::from([id.0])), move |view| !view.members.contains(&id.0)).await
    }

    /// Hands the leadership to a voter that has all but the last entries.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), ChangeError> {
        if to.0 == self.state.replica {
            return self.check_leads().map(|_| ());
        }
        if self.raft.metrics().borrow_watched().current_leader == Some(to.0) {
            return Ok(());
        }
        self.check_leads()?;
        if !self.view().voters.iter().all(|voters| voters.contains(&to.0)) {
            return Err(self.refused(format!("replica {to} has no vote")));
        }
        self.await_close(to).await?;
        let term = self.check_leads()?;
        self.give_up(term);
        self.raft.trigger().transfer_leader(to.0).await.map_err(|error| self.stopped(error))?;
        let patience = self.timing.election_max.saturating_mul(3);
        let moved = |metrics: &RaftMetrics<TypeConfig>| metrics.current_term > term && metrics.current_leader.is_some();
        match self.raft.wait(Some(patience)).metrics(moved, "another replica leads").await {
            Ok(metrics) if metrics.current_leader == Some(to.0) => Ok(()),
            Ok(_) => Err(ChangeError::NotLeader { group: self.group, leader: self.leader_node() }),
            Err(_) => Err(ChangeError::TimedOut(self.group)),
        }
    }

    /// Campaigns if no leader's lease forbids it.
    pub async fn campaign(&self) -> Result<(), ChangeError> {
        if self.is_bound() {
            return Err(ChangeError::Busy(self.group));
        }
        self.raft.trigger().elect(true).await.map_err(|error| self.stopped(error))
    }

    async fn await_close(&self, to: ReplicaId) -> Result<(), ChangeError> {
        let lag = |metrics: &RaftMetrics<TypeConfig>| {
            let matched = metrics.replication.as_ref().and_then(|matched| *matched.get(&to.0)?);
            metrics.last_log_index.unwrap_or(0).saturating_sub(matched.map_or(0, |id| id.index))
        };
        let close = |metrics: &RaftMetrics<TypeConfig>| !metrics.state.is_leader() || lag(metrics) <= TRANSFER_LAG;
        match self.raft.wait(Some(CATCH_UP_TIMEOUT)).metrics(close, "the next leader has the log").await {
            Ok(_) => Ok(()),
            Err(_) => {
                let lag = lag(&self.raft.metrics().borrow_watched());
                Err(ChangeError::Behind { group: self.group, replica: to, lag })
            }
        }
    }

    async fn change(
        self: &Arc<Self>,
        change: Change,
        is_done: impl Fn(&View) -> bool + Send + Sync + 'static,
    ) -> Result<(), ChangeError> {
        self.change_from(change, is_done, None).await
    }

    /// Proposes `change` until the agreed membership `is_done`; with a term, after its leadership has been given up.
    async fn change_from(
        self: &Arc<Self>,
        change: Change,
        is_done: impl Fn(&View) -> bool + Send + Sync + 'static,
        gives_up: Option<u64>,
    ) -> Result<(), ChangeError> {
        let one = self.changing.clone().try_lock_owned().map_err(|_| ChangeError::Busy(self.group))?;
        let replica = self.clone();
        // The second half of a change is not lost with its caller.
        let steps = tokio::spawn(async move {
            let _one = one;
            if let Some(term) = gives_up {
                replica.give_up(term);
            }
            let outcome = replica.steps(change, is_done).await;
            if let (Err(_), Some(term)) = (&outcome, gives_up)
                && replica.view().voters.iter().all(|voters| voters.contains(&replica.state.replica))
            {
                // Nothing of it stands in the log: nobody else can elect itself.
                replica.take_back(term);
            }
            outcome
        });
        match tokio::time::timeout(CHANGE_TIMEOUT, steps).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(ChangeError::Stopped { group: self.group, why: error.to_string() }),
            Err(_) => Err(ChangeError::TimedOut(self.group)),
        }
    }

    async fn steps(&self, change: Change, is_done: impl Fn(&View) -> bool) -> Result<(), ChangeError> {
        for _ in 0..CHANGE_STEPS {
            self.check_leads()?;
            let view = self.view();
            if view.agreed && is_done(&view) {
                return Ok(());
            }
            // Former voters stay as learners: whoever leads them lets them go when they are not needed.
            let outcome = self.raft.change_membership(change.clone(), true).await;
            outcome.map_err(|error| self.unchanged(error))?;
            self.await_agreed().await?;
        }
        let view = self.view();
        if view.agreed && is_done(&view) { Ok(()) } else { Err(ChangeError::Busy(self.group)) }
    }

    /// What has been committed shows in the metrics a moment later.
    async fn await_agreed(&self) -> Result<(), ChangeError> {
        let agreed = |metrics: &RaftMetrics<TypeConfig>| {
            !metrics.state.is_leader()
                || metrics.membership_config.log_id() == metrics.committed_membership_config.log_id()
        };
        let wait = self.raft.wait(Some(CHANGE_TIMEOUT));
        wait.metrics(agreed, "the membership is agreed").await.map_err(|_| ChangeError::TimedOut(self.group))?;
        Ok(())
    }

    fn is_member(&self, id: ReplicaId) -> bool {
        self.view().members.contains(&id.0)
    }

    fn view(&self) -> View {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        View {
            members: membership.nodes().map(|(replica, _)| *replica).collect(),
            voters: membership.get_joint_config().clone(),
            agreed: membership.log_id() == metrics.committed_membership_config.log_id(),
        }
    }

    /// The term this replica leads in.
    fn check_leads(&self) -> Result<u64, ChangeError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match &metrics.running_state {
            Ok(()) if metrics.state.is_leader() => Ok(metrics.current_term),
            Ok(()) => {
                let leader = metrics.current_leader.and_then(|leader| {
                    metrics.membership_config.membership().get_node(&leader).map(|member| member.node)
                });
                Err(ChangeError::NotLeader { group: self.group, leader })
            }
            Err(error) => Err(self.stopped(error.clone())),
        }
    }

    fn leader_node(&self) -> Option<NodeId> {
        self.status().leader.map(|(_, node)| node)
    }

    fn refused(&self, why: String) -> ChangeError {
        ChangeError::Refused { group: self.group, why }
    }

    fn stopped(&self, error: Fatal<TypeConfig>) -> ChangeError {
        ChangeError::Stopped { group: self.group, why: error.to_string() }
    }

    fn unchanged(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
        let group = self.group;
        match error {
            RaftError::Fatal(error) => self.stopped(error),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                ChangeError::NotLeader { group, leader: forward.leader_node.map(|member| member.node) }
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ChangeError::TimedOut(group),
            RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => ChangeError::Busy(group),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                    ChangeError::Busy(group)
                }
                error @ (ChangeMembershipError::EmptyMembership(_)
                | ChangeMembershipError::LearnerNotFound(_)
                | ChangeMembershipError::UnsupportedMembershipTransition(_)
                | ChangeMembershipError::NodeMetadataChanged(_)) => self.refused(error.to_string()),
            },
        }
    }
}

/// The effective membership.
struct View {
    members: BTreeSet<u64>,
    voters: Vec<BTreeSet<u64>>,
    /// It is committed.
    agreed: bool,
}
