//! One group's replica on this node: openraft, its log and its state, behind a handle for proposals.
//!
//! Proposals in flight are bounded: one more is refused at once, and a caller that stops waiting frees neither its place
//! nor its proposal. The difference between "not proposed" and "perhaps proposed" is drawn here, from openraft's errors,
//! and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_storage::StateDb;
use callboard_types::GroupId;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::raft::ClientWriteResponse;
use tokio::sync::{Semaphore, watch};

use crate::error::{ProposeError, StartError};
use crate::group_state::GroupState;
use crate::incarnations::Incarnations;
use crate::log_store::{LogShared, LogStore};
use crate::network::NoPeers;
use crate::rules::Rules;
use crate::state_store::StateStore;
use crate::type_config::{Answer, Member, Proposal, Raft, Reply, Timing, TypeConfig, raft_config, term_of};

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
    leading: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

/// What an applied proposal was answered, and under which term it was proposed.
pub struct Proposed {
    pub answer: Answer,
    pub term: u64,
}

impl Replica {
    /// Opens the replica's stores and starts its Raft. Nothing is campaigned for yet.
    pub async fn open(
        stores: &NodeStores,
        state: GroupState,
        rules: Rules,
        member: Member,
        timing: Timing,
        max_proposals: usize,
    ) -> Result<Self, StartError> {
        let state = Arc::new(state);
        let group = state.group;
        let log = LogStore::open(stores.log.clone(), state.clone())?;
        check_applied(&log, &state)?;
        let machine = StateStore::open(stores.state.clone(), stores.incarnations.clone(), state.clone(), rules)?;
        let config = raft_config(group, timing)?;
        let raft = Raft::new(state.replica, config, NoPeers, log.clone(), machine).await;
        let raft = raft.map_err(|error| StartError::Raft { group, why: error.to_string() })?;
        let places = Arc::new(Semaphore::new(max_proposals.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self { group, member, raft, log, state, timing, leading: watch::Sender::new(false), places })
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

    /// True when this replica decides alone.
    pub fn is_sole_voter(&self) -> bool {
        is_sole_voter(&self.raft.metrics().borrow_watched(), self.state.replica)
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
        let not_ready = ProposeError::NotReady(self.group);
        let place = self.places.clone().try_acquire_owned().map_err(|_| not_ready.clone())?;
        let (reply, answer) = Reply::new(place);
        self.raft.client_write_ff(proposal, Some(reply)).await.map_err(|error| stopped(&error))?;
        match answer.await {
            Ok(Ok(ClientWriteResponse { log_id, data, membership: _ })) => {
                Ok(Proposed { answer: data, term: term_of(&log_id) })
            }
            Ok(Err(error)) => Err(refused(error, not_ready)),
            // The Raft core ended with the proposal in its hands.
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Keeps [`Replica::leading`] up to date until the group stops, and says why it did. A replica that has nobody to send
    /// heartbeats to and nobody to lose an election to is not woken by openraft's clock: idle groups cost nothing.
    pub async fn follow(self: Arc<Self>) -> String {
        let mut server = self.raft.server_metrics();
        loop {
            let (leads, members) = {
                let server = server.borrow_watched();
                (server.state.is_leader(), server.membership_config.nodes().count())
            };
            self.leading.send_if_modified(|leading| std::mem::replace(leading, leads) != leads);
            self.raft.runtime_config().tick(needs_ticks(leads, members));
            if server.changed().await.is_err() {
                self.leading.send_replace(false);
                return match &self.raft.metrics().borrow_watched().running_state {
                    Ok(()) => "it was shut down".to_owned(),
                    Err(error) => error.to_string(),
                };
            }
        }
    }

    /// Ends the group, with what it knows to be committed on disk.
    pub async fn shutdown(&self) {
        self.places.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(group = %self.group, %error, "the Raft core did not end well");
        }
        self.leading.send_replace(false);
        if let Err(error) = self.log.persist_committed().await {
            tracing::warn!(group = %self.group, %error, "the committed id is not saved");
        }
    }
}

/// openraft's clock drives elections and heartbeats, and nothing else.
fn needs_ticks(leads: bool, members: usize) -> bool {
    !leads || members > 1
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

fn refused(error: ClientWriteError<TypeConfig>, not_ready: ProposeError) -> ProposeError {
    match error {
        // Refused before its entry was made.
        ClientWriteError::ForwardToLeader(_) => not_ready,
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
    fn only_a_leader_without_others_needs_no_clock() {
        assert!(!needs_ticks(true, 1));
        // A voter or a learner to keep in touch with.
        assert!(needs_ticks(true, 2));
        assert!(needs_ticks(false, 1));
        // Before the group is initialised.
        assert!(needs_ticks(false, 0));
    }
}
