//! How a replica reaches the others: not at all, as long as every group has one replica.
//!
//! Every request answers `Unreachable`, which openraft treats as a peer that is down: it backs off and tries again. That
//! includes pre-votes: an unanswered one must never count as granted. The peer transport replaces this factory.

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::snapshot::SnapshotChunks;
use crate::type_config::{Member, Snapshot, TypeConfig, Vote};

#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

/// The way to one replica.
#[derive(Debug)]
pub struct NoPeer {
    replica: u64,
}

impl NoPeer {
    fn unreachable(&self) -> Unreachable<TypeConfig> {
        Unreachable::new(&AnyError::error(format!("there is no way to replica {}", self.replica)))
    }
}

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = NoPeer;

    async fn new_client(&mut self, target: u64, _node: &Member) -> NoPeer {
        NoPeer { replica: target }
    }
}

impl RaftNetworkV2<TypeConfig> for NoPeer {
    type SnapshotData = SnapshotChunks;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::type_config::LeaderId;

    #[tokio::test]
    async fn a_peer_that_cannot_be_reached_grants_nothing() {
        let mut peer = NoPeers.new_client(2, &Member::default()).await;
        let vote = Vote { leader_id: LeaderId { term: 5, voted_for: 1 }, committed: false };
        let option = || RPCOption::new(Duration::from_secs(1));
        let request = || VoteRequest::new(vote, None);
        assert!(RaftNetworkV2::pre_vote(&mut peer, request(), option()).await.is_err());
        assert!(RaftNetworkV2::vote(&mut peer, request(), option()).await.is_err());
    }
}
