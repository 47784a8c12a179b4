//! The meta group from any node: commands go to its leader, and its state comes to those that have no replica of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_machine::meta::{MetaCommand, MetaResponse, MetaState};
use callboard_proto::calls as wire;
use callboard_raft::{Groups, MetaAt, MetaUpdate, ProposeError, Storable};
use callboard_types::{GroupId, NodeId};
use prost::Message;
use tokio::sync::watch;

use crate::clock;
use crate::peer::{Failure, Kind, Lane, Peers};
use crate::tasks::Tasks;

/// Between two tries to find the meta group's leader.
const AGAIN: Duration = Duration::from_millis(100);
/// One try is given up after this long.
const TRY: Duration = Duration::from_secs(3);
/// A command that found no leader for this long is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// A follower's question waits for something new this long.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);

/// Handle of the meta group; clones share it.
#[derive(Clone)]
pub struct Meta {
    groups: Groups,
    peers: Peers,
    node: NodeId,
}

/// Why a command has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It may still be applied: commands of the meta group may be repeated.
    #[error("the meta group has no leader that can be reached")]
    NoLeader,
}

impl Meta {
    pub fn new(groups: Groups, peers: Peers, node: NodeId) -> Self {
        Self { groups, peers, node }
    }

    pub fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        self.groups.meta().watch()
    }

    pub fn state(&self) -> Arc<MetaState> {
        self.watch().borrow().clone()
    }

    /// Waits until the command has applied at the leader, wherever that is. Commands may be repeated, so one whose answer
    /// is lost is sent again.
    pub async fn propose(&self, command: MetaCommand) -> Result<MetaResponse, Error> {
        let until = clock::monotonic().saturating_add(PATIENCE);
        let mut asked = 0;
        let mut hint = None;
        loop {
            match self.groups.meta().propose(command.clone()).await {
                Ok(response) => return Ok(response),
                Err(ProposeError::NotReady { leader, .. }) => hint = leader.or(hint),
                Err(ProposeError::Unknown | ProposeError::Stopped(_)) => {}
            }
            let at = hint.take().filter(|leader| *leader != self.node).or_else(|| self.member(asked));
            asked += 1;
            if let Some(leader) = at {
                match self.propose_at(leader, &command).await {
                    Ok(response) => return Ok(response),
                    Err(better) => hint = better,
                }
            }
            if clock::monotonic() >= until {
                return Err(Error::NoLeader);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn propose_at(&self, leader: NodeId, command: &MetaCommand) -> Result<MetaResponse, Option<NodeId>> {
        let body = wire::Propose { command: command.encode() }.encode_to_vec();
        let answer = self.peers.call(leader, Lane::Calls, Kind::Propose, body.into(), TRY).await.map_err(|_| None)?;
        let answer = wire::Proposed::decode(answer).map_err(|_| None)?;
        if answer.response.is_empty() {
            return Err((answer.leader != 0).then_some(NodeId(answer.leader)));
        }
        MetaResponse::decode(&answer.response).map_err(|_| None)
    }

    /// A node that has a replica of the meta group, another one at each turn.
    fn member(&self, turn: usize) -> Option<NodeId> {
        let state = self.state();
        let members: Vec<_> =
            state.meta.replicas.iter().map(|placed| placed.node).filter(|node| *node != self.node).collect();
        members.get(turn % members.len().max(1)).copied()
    }

    /// Another node's command.
    pub async fn proposed(&self, body: Bytes) -> Result<Bytes, Failure> {
        let message = wire::Propose::decode(body).map_err(malformed)?;
        let command = MetaCommand::decode(&message.command).map_err(malformed)?;
        let (response, leader) = match self.groups.meta().propose(command).await {
            Ok(response) => (response.encode(), 0),
            Err(ProposeError::NotReady { leader, .. }) => (Bytes::new(), leader.map_or(0, |leader| leader.0)),
            Err(ProposeError::Unknown | ProposeError::Stopped(_)) => (Bytes::new(), 0),
        };
        Ok(wire::Proposed { response, leader }.encode_to_vec().into())
    }

    /// Another node follows the meta group's log.
    pub async fn followed(&self, body: Bytes) -> Result<Bytes, Failure> {
        let message = wire::MetaFollow::decode(body).map_err(malformed)?;
        let after = MetaAt { generation: message.generation, index: message.index };
        let wait = Duration::from_millis(message.wait_ms).min(FOLLOW_WAIT);
        Ok(self.groups.meta_update(after, wait).await.encode())
    }

    /// Keeps this node's copy up to date, unless it leads the meta group. A replica here is no reason not to follow: one
    /// that was taken out of the group hears nothing any more, not even that it was.
    pub async fn follow(self, tasks: Tasks) {
        let mut turn = 0;
        loop {
            let step = async {
                if self.groups.status(GroupId::Meta).is_some_and(|status| status.is_leader()) {
                    tokio::time::sleep(FOLLOW_WAIT).await;
                } else if !self.follow_once(turn).await {
                    turn += 1;
                    tokio::time::sleep(AGAIN).await;
                }
            };
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = step => {}
            }
        }
    }

    async fn follow_once(&self, turn: usize) -> bool {
        let Some(source) = self.member(turn) else { return false };
        let at = self.groups.meta_at();
        let wait_ms = FOLLOW_WAIT.as_millis() as u64;
        let body = wire::MetaFollow { generation: at.generation, index: at.index, wait_ms }.encode_to_vec();
        let answer = self.peers.call(source, Lane::Calls, Kind::Meta, body.into(), FOLLOW_WAIT + TRY).await;
        let update = match answer.map(|body| MetaUpdate::decode(&body)) {
            Ok(Ok(update)) => update,
            Ok(Err(error)) => {
                tracing::warn!(%source, %error, "an update of the meta group is unreadable");
                return false;
            }
            Err(error) => {
                tracing::debug!(%source, %error, "the meta group is not followed there");
                return false;
            }
        };
        match self.groups.meta_feed(update) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%source, %error, "an update of the meta group does not fit");
                false
            }
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> Failure {
    Failure { class: callboard_types::Class::Rejected, code: MALFORMED, text: error.to_string(), detail: Bytes::new() }
}

/// Code of a message that was not understood.
pub const MALFORMED: u32 = 1;
