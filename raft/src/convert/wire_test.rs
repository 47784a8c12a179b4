//! The bytes of what nodes send each other. A change here is a change of the protocol between versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use callboard_machine::meta::{MetaCommand, MetaRejection, MetaResponse, MetaRow, PartitionRecord, Placement};
use callboard_proto::raft::message::Body;
use callboard_proto::raft::{SnapshotChunk, SnapshotEnd};
use callboard_types::{GroupId, NodeId, PartitionId, ReplicaId};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::Storable;
use super::peer::{Ask, Received, Told, append_out, begin_out, decode_message, encode_message, transfer_out, vote_out};
use crate::meta_feed::MetaUpdate;
use crate::type_config::{
    Entry, LeaderId, Member, Membership, Payload, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id,
};

const GROUP: GroupId = GroupId::Partition(PartitionId(2));

fn vote() -> Vote {
    Vote { leader_id: LeaderId { term: 3, voted_for: 1 }, committed: true }
}

fn entry(index: u64) -> Entry {
    Entry { log_id: log_id(3, index), payload: Payload::Blank }
}

fn append(entries: Vec<Entry>) -> AppendEntriesRequest<TypeConfig> {
    let (prev_log_id, leader_commit) = (Some(log_id(3, 300)), Some(log_id(3, 299)));
    AppendEntriesRequest { vote: vote(), prev_log_id, entries, leader_commit }
}

fn meta() -> SnapshotMeta {
    let member = Member { node: NodeId(7), address: "10.0.0.7:50002".to_owned() };
    let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)])).unwrap();
    let last = Some(log_id(3, 300));
    SnapshotMeta { last_log_id: last, last_membership: StoredMembership::new(last, membership) }
}

fn vote_request(transfer: bool) -> VoteRequest<TypeConfig> {
    let mut request = VoteRequest::new(vote(), Some(log_id(3, 300)));
    request.leadership_transfer = transfer;
    request
}

fn messages() -> Vec<(&'static str, Body)> {
    let appended = append(vec![entry(301), entry(302)]);
    let entries = appended.entries.iter().map(Storable::encode).collect();
    vec![
        ("append", Body::Append(append_out(&appended, entries))),
        ("heartbeat", Body::Append(append_out(&append(Vec::new()), Vec::new()))),
        ("vote", Body::Vote(vote_out(&vote_request(false)))),
        ("vote by transfer", Body::Vote(vote_out(&vote_request(true)))),
        ("pre-vote", Body::PreVote(vote_out(&vote_request(false)))),
        ("transfer", Body::TransferLeader(transfer_out(&TransferLeaderRequest::new(vote(), 2, Some(log_id(3, 300)))))),
        ("snapshot begin", Body::SnapshotBegin(begin_out(9, &vote(), &meta()))),
        (
            "snapshot chunk",
            Body::SnapshotChunk(SnapshotChunk { transfer: 9, sequence: 1, chunk: Bytes::from_static(b"chunk") }),
        ),
        ("snapshot end", Body::SnapshotEnd(SnapshotEnd { transfer: 9, chunks: 2 })),
    ]
}

fn answers() -> Vec<(&'static str, Told)> {
    let changed = TransferLeaderError::VoteChanged { expected: vote(), actual: vote() };
    let behind = TransferLeaderError::LogNotFlushed { expected: None, actual: Some(log_id(3, 299)) };
    vec![
        ("appended", Told::Appended(AppendEntriesResponse::Success)),
        ("conflict", Told::Appended(AppendEntriesResponse::Conflict)),
        ("higher vote", Told::Appended(AppendEntriesResponse::HigherVote(vote()))),
        ("voted", Told::Voted(VoteResponse::new(vote(), Some(log_id(3, 300)), true))),
        ("transferred", Told::Transferred(Ok(()))),
        ("not transferred: vote", Told::Transferred(Err(changed))),
        ("not transferred: log", Told::Transferred(Err(behind))),
        ("go on", Told::Received(Received::GoOn)),
        ("installed", Told::Received(Received::Vote(vote()))),
    ]
}

fn updates() -> Vec<(&'static str, MetaUpdate)> {
    let command = |generation| Arc::new(MetaCommand::RaiseGeneration { generation });
    let placed = Placement { node: NodeId(7), replica: ReplicaId(3), learner: true };
    let record = PartitionRecord { version: 2, replicas: vec![placed], initialized: true, settled: 1 };
    vec![
        ("nothing", MetaUpdate::Entries { after: 5, entries: Vec::new(), upto: 5 }),
        ("entries", MetaUpdate::Entries { after: 5, entries: vec![(6, command(1)), (9, command(2))], upto: 10 }),
        ("snapshot", MetaUpdate::Snapshot { index: 10, rows: vec![MetaRow::Meta(record)] }),
    ]
}

fn rejections() -> Vec<MetaRejection> {
    let (node, group) = (NodeId(7), GROUP);
    vec![
        MetaRejection::AlreadyBootstrapped,
        MetaRejection::NotBootstrapped,
        MetaRejection::InvalidSetting("no".to_owned()),
        MetaRejection::UnknownPartition(PartitionId(2)),
        MetaRejection::UnknownNode(node),
        MetaRejection::StaleTable { given: 1, stored: 2 },
        MetaRejection::ReplicaCount { given: 0, max: 14 },
        MetaRejection::NoVoter,
        MetaRejection::NodeTwice(node),
        MetaRejection::NotStorage(node),
        MetaRejection::ReplicaNotFresh { given: ReplicaId(1), next: 2 },
        MetaRejection::NodeInUse { node, group },
        MetaRejection::NotPlaced { group, given: 2, stored: 1 },
        MetaRejection::GenerationFalls { given: 1, stored: 2 },
        MetaRejection::TooMany { what: "nodes".into(), limit: 4_096 },
        MetaRejection::InvalidName { what: "zone".into(), limit: 256 },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_keeps_its_bytes() {
    let mut found = String::new();
    let mut line = |name: &str, bytes: &[u8]| found.extend([name, ": ", &hex(bytes), "\n"]);
    for (name, body) in messages() {
        line(name, &encode_message(GROUP, 5, body));
    }
    for (name, told) in answers() {
        line(name, &told.encode());
    }
    for (name, update) in updates() {
        line(name, &update.encode());
    }
    line("done", &MetaResponse::Done.encode());
    for (number, rejection) in rejections().into_iter().enumerate() {
        line(&format!("rejection {number}"), &MetaResponse::Rejected(rejection).encode());
    }
    assert_eq!(found, include_str!("wire.txt"));
}

#[test]
fn every_message_is_understood_as_it_was_meant() {
    for (name, body) in messages() {
        let (group, to, ask) = decode_message(&encode_message(GROUP, 5, body)).unwrap();
        assert_eq!((group, to), (GROUP, 5));
        let meant = match (name, &ask) {
            ("append", Ask::Append(request)) => request.entries == [entry(301), entry(302)] && request.vote == vote(),
            ("heartbeat", Ask::Append(request)) => {
                (request.prev_log_id, request.leader_commit) == (Some(log_id(3, 300)), Some(log_id(3, 299)))
            }
            ("vote", Ask::Vote(request)) | ("pre-vote", Ask::PreVote(request)) => *request == vote_request(false),
            ("vote by transfer", Ask::Vote(request)) => *request == vote_request(true),
            ("transfer", Ask::TransferLeader(request)) => {
                *request == TransferLeaderRequest::new(vote(), 2, Some(log_id(3, 300)))
            }
            ("snapshot begin", Ask::SnapshotBegin { transfer: 9, vote: by, meta: of }) => {
                (*by, of) == (vote(), &meta())
            }
            ("snapshot chunk", Ask::SnapshotChunk { transfer: 9, sequence: 1, chunk }) => chunk == "chunk",
            ("snapshot end", Ask::SnapshotEnd { transfer: 9, chunks: 2 }) => true,
            _ => false,
        };
        assert!(meant, "{name}: {ask:?}");
    }
    for (name, told) in answers() {
        let again = Told::decode(&told.encode()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{told:?}"), "{name}");
    }
    for (_, update) in updates() {
        assert_eq!(MetaUpdate::decode(&update.encode()).unwrap(), update);
    }
    for rejection in rejections() {
        let rejected = MetaResponse::Rejected(rejection);
        assert_eq!(MetaResponse::decode(&rejected.encode()).unwrap(), rejected);
    }
    assert_eq!(MetaResponse::decode(&MetaResponse::Done.encode()).unwrap(), MetaResponse::Done);
}

#[test]
fn a_message_that_means_nothing_is_refused() {
    let empty = [1];
    assert!(decode_message(&empty).is_err() && Told::decode(&empty).is_err());
    assert!(MetaUpdate::decode(&empty).is_err() && MetaResponse::decode(&empty).is_err());
    for gap in [vec![entry(302)], vec![entry(301), entry(303)], vec![entry(301), entry(301)]] {
        let request = append(gap);
        let entries = request.entries.iter().map(Storable::encode).collect();
        assert!(decode_message(&encode_message(GROUP, 5, Body::Append(append_out(&request, entries)))).is_err());
    }
    let command = Arc::new(MetaCommand::RaiseGeneration { generation: 1 });
    for (after, entries, upto) in [(5, vec![5], 6), (5, vec![7, 6], 8), (5, vec![6], 5), (5, vec![], 4)] {
        let entries = entries.into_iter().map(|index| (index, command.clone())).collect();
        assert!(MetaUpdate::decode(&MetaUpdate::Entries { after, entries, upto }.encode()).is_err());
    }
}
