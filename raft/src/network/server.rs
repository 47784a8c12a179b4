//! The side that answers.
//!
//! A message is for one replica of one group: another one under the same group's name is another placement, and a disk
//! that was wiped does not answer for what it has forgotten.
//!
//! A replica that has just started gives no vote for the length of a lease ([`Replica::is_bound`]): before it stopped it
//! may have acknowledged its leader, whose lease counts on that.

use bytes::Bytes;
use openraft::errors::RaftError;

use super::ReceiveError;
use crate::convert::peer::{Ask, Told, decode_message};
use crate::groups::Inner;
use crate::replica::Replica;
use crate::type_config::TypeConfig;

pub async fn receive(inner: &Inner, body: Bytes) -> Result<Bytes, ReceiveError> {
    let (group, to, ask) = decode_message(&body).map_err(|error| ReceiveError::Malformed(error.to_string()))?;
    let replica = inner.replica(group).filter(|replica| replica.state.replica == to);
    let replica = replica.ok_or(ReceiveError::NotHere { group, replica: to })?;
    answer(&replica, ask).await.map(|told| told.encode())
}

async fn answer(replica: &Replica, ask: Ask) -> Result<Told, ReceiveError> {
    let raft = &replica.raft;
    match ask {
        Ask::Append(request) => Ok(Told::Appended(raft.append_entries(request).await.map_err(stopped)?)),
        Ask::Vote(request) => {
            if !request.leadership_transfer {
                unbound(replica)?;
            }
            Ok(Told::Voted(raft.vote(request).await.map_err(stopped)?))
        }
        Ask::PreVote(request) => {
            unbound(replica)?;
            Ok(Told::Voted(raft.pre_vote(request).await.map_err(stopped)?))
        }
        Ask::TransferLeader(request) => {
            let transferred = raft.handle_transfer_leader(request).await;
            Ok(Told::Transferred(transferred.map_err(|error| ReceiveError::Stopped(error.to_string()))?))
        }
        Ask::SnapshotBegin { transfer, vote, meta } => {
            let current = replica.vote();
            Ok(Told::Received(replica.incoming.begin(transfer, vote, meta, current).await?))
        }
        Ask::SnapshotChunk { transfer, sequence, chunk } => {
            Ok(Told::Received(replica.incoming.chunk(transfer, sequence, chunk).await?))
        }
        Ask::SnapshotEnd { transfer, chunks } => {
            Ok(Told::Received(replica.incoming.end(transfer, chunks, raft).await?))
        }
    }
}

fn unbound(replica: &Replica) -> Result<(), ReceiveError> {
    if replica.is_bound() {
        return Err(ReceiveError::Busy(format!("the replica of {} has just started", replica.group)));
    }
    Ok(())
}

fn stopped(error: RaftError<TypeConfig>) -> ReceiveError {
    ReceiveError::Stopped(error.to_string())
}
