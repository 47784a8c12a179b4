//! The side that asks: openraft's network trait over a [`Transport`].
//!
//! An append is cut to [`APPEND_BYTES`] while it is encoded, and what did not fit is sent by the next one. Large messages
//! take the other lane, so that heartbeats do not wait for them. Every request has an end, which openraft's own time for
//! it sets; an append gets more for its size, since a slow link would otherwise never carry a large one.
//!
//! Absent on purpose: several appends on their way to one replica at once. One message carries up to
//! [`APPEND_BYTES`], and what gathers while it is under way goes with the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use callboard_proto::raft::message::Body;
use callboard_proto::raft::{SnapshotChunk, SnapshotEnd};
use callboard_types::GroupId;
use futures_util::future::{Either, select};
use openraft::errors::{ErrorSource, NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::impls::BoxedErrorSource;
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2, StorageError};

use super::{Lane, Target, Transport, TransportError};
use crate::convert::Storable;
use crate::convert::peer::{Received, Told, append_out, begin_out, encode_message, transfer_out, vote_out};
use crate::pins::Pins;
use crate::snapshot::SnapshotChunks;
use crate::type_config::{Member, Snapshot, TypeConfig, Vote};

/// Encoded entries of one append, beyond which no further one is added.
const APPEND_BYTES: usize = 2 << 20;
/// An append above this goes over [`Lane::Bulk`].
const LARGE: usize = 256 << 10;
/// What a link that is worth having carries in a second.
const BYTES_PER_SECOND: u64 = 8 << 20;

type RpcError = RPCError<TypeConfig>;

/// Makes the ways to the replicas of one group.
#[derive(Clone)]
pub struct Network {
    pub transport: Arc<dyn Transport>,
    pub group: GroupId,
    pub replica: u64,
    pub pins: Arc<Pins>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        Peer { network: self.clone(), target, member: member.clone() }
    }
}

/// The way to one replica.
pub struct Peer {
    network: Network,
    target: u64,
    member: Member,
}

impl Peer {
    async fn ask(&self, action: RPCTypes, lane: Lane, body: Body, timeout: Duration) -> Result<Told, RpcError> {
        let message = encode_message(self.network.group, self.target, body);
        let to = Target { node: self.member.node, address: &self.member.address };
        let sent = self.network.transport.send(to, lane, message, timeout);
        // Whatever the transport makes of the time it was given.
        let answer = tokio::time::timeout(timeout, sent).await.unwrap_or(Err(TransportError::TimedOut));
        let error = match answer {
            // An answer that means nothing is not asked for again at once.
            Ok(answer) => match Told::decode(&answer) {
                Ok(told) => return Ok(told),
                Err(error) => RPCError::Unreachable(Unreachable::from_string(error)),
            },
            Err(error @ TransportError::Unreachable(_)) => RPCError::Unreachable(Unreachable::from_string(error)),
            Err(error @ TransportError::Lost(_)) => RPCError::Network(NetworkError::from_string(error)),
            Err(TransportError::TimedOut) => {
                RPCError::Timeout(Timeout { action, id: self.network.replica, target: self.target, timeout })
            }
        };
        Err(error)
    }

    /// The replica has answered something that was not asked.
    fn foreign(&self, told: &Told) -> RpcError {
        let text = format!("replica {} of {} answered {told:?}", self.target, self.network.group);
        RPCError::Unreachable(Unreachable::from_string(text))
    }

    async fn step(&self, body: Body, timeout: Duration) -> Result<Received, RpcError> {
        match self.ask(RPCTypes::InstallSnapshot, Lane::Bulk, body, timeout).await? {
            Told::Received(received) => Ok(received),
            told @ (Told::Appended(_) | Told::Voted(_) | Told::Transferred(_)) => Err(self.foreign(&told)),
        }
    }

    /// Sends a snapshot chunk by chunk: the next one is read while the former is on its way, and sent when that has
    /// been acknowledged.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        timeout: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let transfer = rand::random();
        let begin = Body::SnapshotBegin(begin_out(transfer, &vote, &snapshot.meta));
        if let Received::Vote(vote) = self.step(begin, timeout).await? {
            return Ok(SnapshotResponse::new(vote));
        }
        let mut sequence = 0;
        let mut read = read_chunk(snapshot.snapshot).await?;
        while let Some((chunk, rest)) = read {
            let body = Body::SnapshotChunk(SnapshotChunk { transfer, sequence, chunk });
            let (received, next) = tokio::join!(self.step(body, timeout), read_chunk(rest));
            if let Received::Vote(vote) = received? {
                return Ok(SnapshotResponse::new(vote));
            }
            read = next?;
            sequence += 1;
        }
        let end = Body::SnapshotEnd(SnapshotEnd { transfer, chunks: sequence });
        match self.step(end, timeout).await? {
            Received::Vote(vote) => Ok(SnapshotResponse::new(vote)),
            Received::GoOn => Err(self.foreign(&Told::Received(Received::GoOn)).into()),
        }
    }
}

/// Reads one chunk on a thread that may block.
async fn read_chunk(mut chunks: SnapshotChunks) -> Result<Option<(Bytes, SnapshotChunks)>, StreamingError<TypeConfig>> {
    let read = tokio::task::spawn_blocking(move || chunks.next().map(|chunk| chunk.map(|chunk| (chunk, chunks))));
    let failed = |error: &dyn std::fmt::Display| {
        StreamingError::StorageError(StorageError::read_snapshot(None, BoxedErrorSource::from_string(error)))
    };
    match read.await {
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// As many entries as one message carries, encoded; at least one if there is any. And their bytes.
fn fitting(request: &AppendEntriesRequest<TypeConfig>) -> (Vec<Bytes>, usize) {
    let (mut entries, mut bytes) = (Vec::with_capacity(request.entries.len()), 0);
    for entry in &request.entries {
        let encoded = entry.encode();
        if !entries.is_empty() && bytes + encoded.len() > APPEND_BYTES {
            break;
        }
        bytes += encoded.len();
        entries.push(encoded);
    }
    (entries, bytes)
}

fn carried_in(bytes: usize) -> Duration {
    Duration::from_micros(bytes as u64 * 1_000_000 / BYTES_PER_SECOND)
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotChunks;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let (entries, bytes) = fitting(&request);
        // Where a message ends that does not hold everything.
        let last = if entries.len() < request.entries.len() {
            entries.len().checked_sub(1).map(|last| request.entries[last].log_id)
        } else {
            None
        };
        let lane = if bytes > LARGE { Lane::Bulk } else { Lane::Raft };
        let timeout = option.soft_ttl() + carried_in(bytes);
        let body = Body::Append(append_out(&request, entries));
        match (self.ask(RPCTypes::AppendEntries, lane, body, timeout).await?, last) {
            (Told::Appended(AppendEntriesResponse::Success), Some(last)) => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(last)))
            }
            (Told::Appended(response), _) => Ok(response),
            (told @ (Told::Voted(_) | Told::Transferred(_) | Told::Received(_)), _) => Err(self.foreign(&told)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let body = Body::Vote(vote_out(&request));
        match self.ask(RPCTypes::Vote, Lane::Raft, body, option.soft_ttl()).await? {
            Told::Voted(response) => Ok(response),
            told @ (Told::Appended(_) | Told::Transferred(_) | Told::Received(_)) => Err(self.foreign(&told)),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let body = Body::PreVote(vote_out(&request));
        match self.ask(RPCTypes::Vote, Lane::Raft, body, option.soft_ttl()).await? {
            Told::Voted(response) => Ok(response),
            told @ (Told::Appended(_) | Told::Transferred(_) | Told::Received(_)) => Err(self.foreign(&told)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let pins = &self.network.pins;
        pins.sent(self.target, snapshot.meta.last_log_id.map_or(0, |last| last.index), Instant::now());
        let cancel = std::pin::pin!(cancel);
        let send = std::pin::pin!(self.send_snapshot(vote, snapshot, option.soft_ttl()));
        let sent = match select(cancel, send).await {
            Either::Left((closed, _)) => Err(StreamingError::Closed(closed)),
            Either::Right((sent, _)) => sent,
        };
        match sent {
            Ok(_) => pins.arrived(self.target, Instant::now()),
            Err(_) => pins.given_up(self.target),
        }
        sent
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let body = Body::TransferLeader(transfer_out(&request));
        match self.ask(RPCTypes::TransferLeader, Lane::Raft, body, option.soft_ttl()).await? {
            Told::Transferred(response) => Ok(response),
            told @ (Told::Appended(_) | Told::Voted(_) | Told::Received(_)) => Err(self.foreign(&told)),
        }
    }
}

#[cfg(test)]
#[path = "client_test.rs"]
mod tests;
