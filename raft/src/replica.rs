//! One group's replica on this node: openraft, its log and its state, behind a handle for proposals.
//!
//! Proposals in flight are bounded: one more is refused at once, and a caller that stops waiting frees neither its place
//! nor its proposal. The difference between "not proposed" and "perhaps proposed" is drawn here, from openraft's errors,
//! and nowhere else.
//!
//! # After a start
//!
//! A replica that had voted before it stopped may have acknowledged its leader a moment ago, and openraft does not
//! remember that. For the length of a lease it is *bound*: it gives no vote and does not campaign, so that the leader's
//! lease holds whoever restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use callboard_storage::StateDb;
use callboard_types::{GroupId, NodeId};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::raft::ClientWriteResponse;
use tokio::sync::{Semaphore, watch};

use crate::error::{ProposeError, StartError};
use crate::forgotten;
use crate::group_state::GroupState;
use crate::incarnations::Incarnations;
use crate::log_store::{LogShared, LogStore};
use crate::network::Transport;
use crate::network::client::Network;
use crate::network::incoming::{Incoming, Staging};
use crate::pins::Pins;
use crate::rules::Rules;
use crate::state_store::StateStore;
use crate::type_config::{Answer, Member, Proposal, Raft, Reply, Timing, TypeConfig, Vote, raft_config, term_of};

/// How long a start waits for a group that needs nobody else.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What every replica of the node uses.
#[derive(Clone)]
pub struct NodeStores {
    pub log: LogShared,
    pub state: Arc<dyn StateDb>,
    pub incarnations: Arc<Incarnations>,
}

pub struct Replica {
    pub group: GroupId,
    pub member: Member,
    pub raft: Raft,
    pub log: LogStore,
    pub state: Arc<GroupState>,
    pub timing: Timing,
    pub incoming: Incoming,
    /// What of the log others are about to need.
    pub pins: Arc<Pins>,
    /// One change of the group's membership at a time.
    pub changing: Arc<tokio::sync::Mutex<()>>,
    leading: watch::Sender<bool>,
    /// The highest term whose leadership this replica has handed on, or tried to.
    given_up: watch::Sender<u64>,
    places: Arc<Semaphore>,
    bound_until: Option<Instant>,
    leaves: AtomicBool,
}

/// What a replica is opened with, beside its own records.
pub struct Opening<'a> {
    pub stores: &'a NodeStores,
    pub transport: Arc<dyn Transport>,
    /// Places for snapshots on their way in, of the whole node.
    pub snapshots: Arc<Semaphore>,
    pub member: Member,
    pub timing: Timing,
    pub max_proposals: usize,
}

/// What an applied proposal was answered, and under which term it was proposed.
pub struct Proposed {
    pub answer: Answer,
    pub term: u64,
}

impl Replica {
    /// Opens the replica's stores and starts its Raft. Nothing is campaigned for yet.
    pub async fn open(opening: Opening<'_>, state: GroupState, rules: Rules) -> Result<Self, StartError> {
        let Opening { stores, transport, snapshots, member, timing, max_proposals } = opening;
        let state = Arc::new(state);
        let group = state.group;
        let log = LogStore::open(stores.log.clone(), state.clone())?;
        check_applied(&log, &state)?;
        forgotten::mend(&log, &state).await?;
        let machine = StateStore::open(stores.state.clone(), stores.incarnations.clone(), state.clone(), rules)?;
        let config = raft_config(group, timing)?;
        let bound_until = log.has_voted().then(|| Instant::now() + timing.election_max);
        let pins = Arc::<Pins>::default();
        let network = Network { transport, group, replica: state.replica, pins: pins.clone() };
        let raft = Raft::new(state.replica, config, network, log.clone(), machine).await;
        let raft = raft.map_err(|error| StartError::Raft { group, why: error.to_string() })?;
        let staging =
            Staging { db: stores.state.clone(), incarnations: stores.incarnations.clone(), places: snapshots };
        Ok(Self {
            group,
            member,
            raft,
            log,
            state,
            timing,
            incoming: Incoming::new(group, staging),
            pins,
            changing: Arc::default(),
            leading: watch::Sender::new(false),
            given_up: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(max_proposals.clamp(1, Semaphore::MAX_PERMITS))),
            bound_until,
            leaves: AtomicBool::new(false),
        })
    }

    /// Has just started, and may be bound by an acknowledgement it gave before.
    pub fn is_bound(&self) -> bool {
        self.bound_until.is_some_and(|until| Instant::now() < until)
    }

    /// Its last vote, as it stands on disk.
    pub fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    /// Whatever was begun under `term` or an earlier one is over, and nothing more is begun under it here.
    pub fn give_up(&self, term: u64) {
        self.given_up.send_modify(|given_up| *given_up = term.max(*given_up));
    }

    /// What `term` was given up for has not come to pass, and cannot any more. A tenure that has not noticed goes on.
    pub fn take_back(&self, term: u64) {
        self.given_up.send_modify(|given_up| *given_up = (*given_up).min(term.saturating_sub(1)));
    }

    pub fn given_up(&self) -> watch::Receiver<u64> {
        self.given_up.subscribe()
    }

    /// Whether leadership of `term` was handed on, or is being.
    pub fn has_given_up(&self, term: u64) -> bool {
        *self.given_up.borrow() >= term
    }

    /// Its end is wanted: [`Replica::follow`] ends without a failure.
    pub fn is_leaving(&self) -> bool {
        self.leaves.load(Ordering::Acquire)
    }

    fn failed(&self, why: impl std::fmt::Display) -> StartError {
        StartError::Raft { group: self.group, why: why.to_string() }
    }

    /// Makes this replica the whole group, once in the life of the group. Repeating it does nothing.
    pub async fn initialize(&self) -> Result<(), StartError> {
        if self.raft.is_initialized().await.map_err(|error| self.failed(error))? {
            return Ok(());
        }
        let members = BTreeMap::from([(self.state.replica, self.member.clone())]);
        self.raft.initialize(members).await.map_err(|error| self.failed(error))
    }

    /// True when nobody else needs this replica's log.
    pub fn is_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        is_sole_voter(&metrics, self.state.replica) && metrics.membership_config.nodes().count() == 1
    }

    /// Campaigns without waiting for an election timeout that protects nobody, and waits until everything in the log has
    /// been applied; [`Replica::follow`] must be running. Does nothing for a replica that has others to ask.
    pub async fn lead_alone(&self) -> Result<(), StartError> {
        // The first metrics are those of before the start; the state says who votes.
        let effective = self.raft.with_raft_state(|state| state.membership_state.effective().clone());
        let effective = effective.await.map_err(|error| self.failed(error))?;
        if !matches!(effective.get_joint_config().as_slice(), [voters] if is_only(voters, self.state.replica)) {
            return Ok(());
        }
        self.raft.trigger().elect(false).await.map_err(|error| self.failed(error))?;
        let wait = self.raft.wait(Some(START_TIMEOUT));
        wait.state(ServerState::Leader, "the only voter leads").await.map_err(|error| self.failed(error))?;
        self.raft.wait_for_recovery(Some(START_TIMEOUT)).await.map_err(|error| self.failed(error))?;
        // Told by `follow`, which runs beside this.
        self.leading.subscribe().wait_for(|leading| *leading).await.map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Waits until the proposal has been applied.
    pub async fn propose(&self, proposal: Proposal) -> Result<Proposed, ProposeError> {
        let full = || ProposeError::NotReady { group: self.group, leader: None };
        let place = self.places.clone().try_acquire_owned().map_err(|_| full())?;
        let (reply, answer) = Reply::new(place);
        self.raft.client_write_ff(proposal, Some(reply)).await.map_err(|error| stopped(&error))?;
        match answer.await {
            Ok(Ok(ClientWriteResponse { log_id, data, membership: _ })) => {
                Ok(Proposed { answer: data, term: term_of(&log_id) })
            }
            Ok(Err(error)) => Err(refused(error, self.group)),
            // The Raft core ended with the proposal in its hands.
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Keeps [`Replica::leading`] up to date until the group stops, and says why it did; `changed` is told whenever
    /// somebody might want to look. A replica that has nobody to send heartbeats to and no election to lose or to win is
    /// not woken by openraft's clock: idle groups cost nothing.
    pub async fn follow(self: Arc<Self>, changed: watch::Sender<u64>) -> String {
        let mut server = self.raft.server_metrics();
        let bound_until = self.bound_until.map(tokio::time::Instant::from_std);
        loop {
            let (leads, ticks) = {
                let server = server.borrow_watched();
                let replica = self.state.replica;
                let is_voter = server.membership_config.voter_ids().any(|voter| voter == replica)
                    || server.committed_membership_config.voter_ids().any(|voter| voter == replica);
                let leads = server.state.is_leader();
                (leads, needs_ticks(leads, is_voter, server.membership_config.nodes().count()))
            };
            self.leading.send_if_modified(|leading| std::mem::replace(leading, leads) != leads);
            changed.send_modify(|changes| *changes += 1);
            let bound = self.is_bound();
            self.raft.runtime_config().elect(!bound);
            self.raft.runtime_config().tick(ticks);
            let news = match bound_until.filter(|_| bound) {
                Some(until) => tokio::time::timeout_at(until, server.changed()).await.unwrap_or(Ok(())),
                None => server.changed().await,
            };
            if news.is_err() {
                self.leading.send_replace(false);
                return match &self.raft.metrics().borrow_watched().running_state {
                    Ok(()) => "it was shut down".to_owned(),
                    Err(error) => error.to_string(),
                };
            }
        }
    }

    /// Ends the group's replica for good: nothing of it is saved.
    pub async fn leave(&self) {
        self.leaves.store(true, Ordering::Release);
        self.places.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = %self.group, %error, "the Raft core did not end well");
        }
        self.incoming.close().await;
        self.leading.send_replace(false);
    }

    /// Ends the group, with what it knows to be committed on disk.
    pub async fn shutdown(&self) {
        self.places.close();
        self.incoming.close().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = %self.group, %error, "the Raft core did not end well");
        }
        self.leading.send_replace(false);
        if let Err(error) = self.log.persist_committed().await {
            tracing::warn!(group = %self.group, %error, "the committed id is not saved");
        }
    }
}

/// openraft's clock drives heartbeats, which a leader sends to others, and elections, which a voter loses or wins.
fn needs_ticks(leads: bool, is_voter: bool, members: usize) -> bool {
    if leads { members > 1 } else { is_voter }
}

/// The log must reach down to where the state stands.
fn check_applied(log: &LogStore, state: &GroupState) -> Result<(), StartError> {
    let purged = log.purged().map(|id| id.index);
    let applied = state.applied_index();
    if purged > applied {
        let group = state.group;
        return Err(StartError::Quarantined(format!(
            "the log of {group} is purged to {purged:?}, its state is at {applied:?}"
        )));
    }
    Ok(())
}

fn is_only(voters: &std::collections::BTreeSet<u64>, replica: u64) -> bool {
    voters.len() == 1 && voters.contains(&replica)
}

/// True when `replica` is a quorum by itself, by the effective membership.
pub fn is_sole_voter(metrics: &openraft::RaftMetrics<TypeConfig>, replica: u64) -> bool {
    matches!(metrics.membership_config.get_joint_config().as_slice(), [voters] if is_only(voters, replica))
}

fn stopped(error: &Fatal<TypeConfig>) -> ProposeError {
    ProposeError::Stopped(error.to_string())
}

fn refused(error: ClientWriteError<TypeConfig>, group: GroupId) -> ProposeError {
    match error {
        // Refused before its entry was made.
        ClientWriteError::ForwardToLeader(forward) => {
            let leader: Option<NodeId> = forward.leader_node.map(|member| member.node);
            ProposeError::NotReady { group, leader }
        }
        // Another leader's log took the place of the entry, which may be committed there nevertheless. The other two are
        // never answered to a command; nothing is claimed about them.
        ClientWriteError::LogEntryDiscarded(_)
        | ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_) => ProposeError::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_for_those_who_send_heartbeats_or_may_be_elected() {
        assert!(!needs_ticks(true, true, 1));
        // A voter or a learner to keep in touch with, whoever leads.
        assert!(needs_ticks(true, true, 2));
        assert!(needs_ticks(true, false, 2));
        assert!(needs_ticks(false, true, 1));
        // A learner is never a candidate, and neither is a replica that knows no group yet.
        assert!(!needs_ticks(false, false, 3));
        assert!(!needs_ticks(false, false, 0));
    }
}
