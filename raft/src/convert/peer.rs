//! Messages between replicas.
//!
//! [`Ask`] is a message as its receiver understands it: decoded whole, and refused whole when any part of it means
//! nothing. Its sender builds the parts (`network/client.rs`), since an append is cut to size while it is encoded.

use bytes::Bytes;
use callboard_proto::raft;
use callboard_storage::Error;
use callboard_types::GroupId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};

use super::{FromDisk, Invalid, ReadAs, Storable, Stored, ToDisk, corrupt, need};
use crate::tail::next;
use crate::type_config::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};

/// What one replica asks of another.
#[derive(Debug)]
pub enum Ask {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    SnapshotBegin { transfer: u64, vote: Vote, meta: SnapshotMeta },
    SnapshotChunk { transfer: u64, sequence: u64, chunk: Bytes },
    SnapshotEnd { transfer: u64, chunks: u64 },
}

/// How a step of a snapshot's way was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    GoOn,
    /// The receiver's vote.
    Vote(Vote),
}

/// What is answered to an [`Ask`].
#[derive(Debug)]
pub enum Told {
    Appended(AppendEntriesResponse<TypeConfig>),
    Voted(VoteResponse<TypeConfig>),
    Transferred(TransferLeaderResponse<TypeConfig>),
    Received(Received),
}

pub fn encode_message(group: GroupId, to: u64, body: raft::message::Body) -> Bytes {
    raft::Message { group: group.to_u32(), to, body: Some(body) }.into_record()
}

/// The group and the replica that are meant, and what is asked.
pub fn decode_message(body: &[u8]) -> Result<(GroupId, u64, Ask), Error> {
    let message = raft::Message::from_record(body)?;
    let (group, to) = (GroupId::from_u32(message.group), message.to);
    ask(message).map(|ask| (group, to, ask))
}

fn ask(message: raft::Message) -> Result<Ask, Error> {
    use raft::message::Body as In;
    let invalid = |why: Invalid| corrupt("raft message", why);
    Ok(match need("body", message.body).map_err(invalid)? {
        In::Append(append) => {
            let entries = append.entries.iter().map(|entry| Entry::decode(entry)).collect::<Result<Vec<_>, _>>()?;
            let prev_log_id = log_id(append.previous).map_err(invalid)?;
            if entries.iter().zip(next(prev_log_id)..).any(|(entry, index)| entry.log_id.index != index) {
                return Err(invalid(Invalid::Inconsistent("the entries do not follow on".into())));
            }
            Ask::Append(AppendEntriesRequest {
                vote: some("vote", append.vote).map_err(invalid)?,
                prev_log_id,
                entries,
                leader_commit: log_id(append.committed).map_err(invalid)?,
            })
        }
        In::Vote(request) => Ask::Vote(vote_request(request).map_err(invalid)?),
        In::PreVote(request) => Ask::PreVote(vote_request(request).map_err(invalid)?),
        In::TransferLeader(request) => Ask::TransferLeader(TransferLeaderRequest::new(
            some("vote", request.from).map_err(invalid)?,
            request.to,
            log_id(request.last_log).map_err(invalid)?,
        )),
        In::SnapshotBegin(begin) => Ask::SnapshotBegin {
            transfer: begin.transfer,
            vote: some("vote", begin.vote).map_err(invalid)?,
            meta: SnapshotMeta {
                last_log_id: log_id(begin.last_log).map_err(invalid)?,
                last_membership: StoredMembership::decode(&begin.membership)?,
            },
        },
        In::SnapshotChunk(raft::SnapshotChunk { transfer, sequence, chunk }) => {
            Ask::SnapshotChunk { transfer, sequence, chunk }
        }
        In::SnapshotEnd(raft::SnapshotEnd { transfer, chunks }) => Ask::SnapshotEnd { transfer, chunks },
    })
}

fn some<M: prost::Message, T: FromDisk<M>>(what: &'static str, field: Option<M>) -> Result<T, Invalid> {
    need(what, field)?.read()
}

fn log_id(id: Option<callboard_proto::disk::LogId>) -> Result<Option<LogId>, Invalid> {
    id.map(LogId::from_disk).transpose()
}

fn log_id_out(id: Option<&LogId>) -> Option<callboard_proto::disk::LogId> {
    id.map(LogId::to_disk)
}

fn vote_request(request: raft::VoteRequest) -> Result<VoteRequest<TypeConfig>, Invalid> {
    let mut out = VoteRequest::new(some("vote", request.vote)?, log_id(request.last_log)?);
    out.leadership_transfer = request.transfer;
    Ok(out)
}

/// An append without its entries, which are encoded one by one.
pub fn append_out(request: &AppendEntriesRequest<TypeConfig>, entries: Vec<Bytes>) -> raft::Append {
    raft::Append {
        vote: Some(request.vote.to_disk()),
        previous: log_id_out(request.prev_log_id.as_ref()),
        entries,
        committed: log_id_out(request.leader_commit.as_ref()),
    }
}

pub fn vote_out(request: &VoteRequest<TypeConfig>) -> raft::VoteRequest {
    raft::VoteRequest {
        vote: Some(request.vote.to_disk()),
        last_log: log_id_out(request.last_log_id.as_ref()),
        transfer: request.leadership_transfer,
    }
}

pub fn transfer_out(request: &TransferLeaderRequest<TypeConfig>) -> raft::TransferLeader {
    raft::TransferLeader {
        from: Some(request.from_leader().to_disk()),
        to: *request.to_node_id(),
        last_log: log_id_out(request.last_log_id()),
    }
}

pub fn begin_out(transfer: u64, vote: &Vote, meta: &SnapshotMeta) -> raft::SnapshotBegin {
    raft::SnapshotBegin {
        transfer,
        vote: Some(vote.to_disk()),
        last_log: log_id_out(meta.last_log_id.as_ref()),
        membership: meta.last_membership.encode(),
    }
}

impl Told {
    pub fn encode(&self) -> Bytes {
        use raft::answer::Body;
        let body = match self {
            Told::Appended(response) => Body::Appended(appended_out(response)),
            Told::Voted(response) => Body::Voted(raft::Voted {
                vote: Some(response.vote.to_disk()),
                granted: response.vote_granted,
                last_log: log_id_out(response.last_log_id.as_ref()),
            }),
            Told::Transferred(response) => Body::Transferred(transferred_out(response)),
            Told::Received(received) => {
                let result = match received {
                    Received::GoOn => raft::received::Result::GoOn(raft::Nothing {}),
                    Received::Vote(vote) => raft::received::Result::Vote(vote.to_disk()),
                };
                Body::Received(raft::Received { result: Some(result) })
            }
        };
        raft::Answer { body: Some(body) }.into_record()
    }

    pub fn decode(record: &[u8]) -> Result<Self, Error> {
        let answer = raft::Answer::from_record(record)?;
        told(answer).map_err(|why| corrupt("raft answer", why))
    }
}

fn appended_out(response: &AppendEntriesResponse<TypeConfig>) -> raft::Appended {
    use raft::appended::Result as Out;
    let result = match response {
        // Only a sender answers itself with a part.
        AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => Out::Success(raft::Nothing {}),
        AppendEntriesResponse::Conflict => Out::Conflict(raft::Nothing {}),
        AppendEntriesResponse::HigherVote(vote) => Out::Higher(vote.to_disk()),
    };
    raft::Appended { result: Some(result) }
}

fn transferred_out(response: &TransferLeaderResponse<TypeConfig>) -> raft::Transferred {
    use raft::transferred::Result as Out;
    let result = match response {
        Ok(()) => Out::Accepted(raft::Nothing {}),
        Err(TransferLeaderError::VoteChanged { expected: _, actual }) => Out::VoteChanged(actual.to_disk()),
        Err(TransferLeaderError::LogNotFlushed { expected: _, actual }) => {
            Out::LogBehind(raft::LogBehind { last_log: log_id_out(actual.as_ref()) })
        }
    };
    raft::Transferred { result: Some(result) }
}

fn told(answer: raft::Answer) -> Result<Told, Invalid> {
    use raft::answer::Body;
    Ok(match need("body", answer.body)? {
        Body::Appended(appended) => {
            use raft::appended::Result as In;
            Told::Appended(match need("result", appended.result)? {
                In::Success(raft::Nothing {}) => AppendEntriesResponse::Success,
                In::Conflict(raft::Nothing {}) => AppendEntriesResponse::Conflict,
                In::Higher(vote) => AppendEntriesResponse::HigherVote(vote.read()?),
            })
        }
        Body::Voted(voted) => {
            let vote: Vote = some("vote", voted.vote)?;
            Told::Voted(VoteResponse::new(vote, log_id(voted.last_log)?, voted.granted))
        }
        Body::Transferred(transferred) => {
            use raft::transferred::Result as In;
            Told::Transferred(match need("result", transferred.result)? {
                In::Accepted(raft::Nothing {}) => Ok(()),
                In::VoteChanged(vote) => {
                    let actual: Vote = vote.read()?;
                    // The asker knows what it expected.
                    Err(TransferLeaderError::VoteChanged { expected: actual, actual })
                }
                In::LogBehind(behind) => {
                    let actual = log_id(behind.last_log)?;
                    Err(TransferLeaderError::LogNotFlushed { expected: None, actual })
                }
            })
        }
        Body::Received(received) => {
            use raft::received::Result as In;
            Told::Received(match need("result", received.result)? {
                In::GoOn(raft::Nothing {}) => Received::GoOn,
                In::Vote(vote) => Received::Vote(vote.read()?),
            })
        }
    })
}
