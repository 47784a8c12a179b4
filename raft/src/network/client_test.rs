//! Whoever does not answer has granted nothing and holds nobody up.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::*;
use crate::network::NoPeers;
use crate::type_config::{Entry, LeaderId, Payload, log_id};

/// Never answers, and has no sense of time.
struct Silent;

impl Transport for Silent {
    fn send<'a>(
        &'a self,
        _to: Target<'a>,
        _lane: Lane,
        _body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(std::future::pending())
    }
}

/// Answers what it is told to, and remembers what it was given.
struct Scripted {
    answer: Bytes,
    sent: Mutex<Vec<(Lane, usize, Duration)>>,
}

impl Scripted {
    fn new(told: &Told) -> Arc<Self> {
        Arc::new(Self { answer: told.encode(), sent: Mutex::default() })
    }
}

impl Transport for Scripted {
    fn send<'a>(
        &'a self,
        _to: Target<'a>,
        lane: Lane,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        self.sent.lock().push((lane, body.len(), timeout));
        Box::pin(async move { Ok(self.answer.clone()) })
    }
}

async fn peer(transport: Arc<dyn Transport>) -> Peer {
    let group = GroupId::Meta;
    let mut network = Network { transport, group, replica: 1, pins: Arc::default() };
    network.new_client(2, &Member::default()).await
}

fn vote() -> Vote {
    Vote { leader_id: LeaderId { term: 5, voted_for: 1 }, committed: false }
}

fn option() -> RPCOption {
    RPCOption::new(Duration::from_millis(200))
}

fn append(sizes: &[usize]) -> AppendEntriesRequest<TypeConfig> {
    let entry = |(index, size): (usize, &usize)| {
        let register = callboard_machine::meta::MetaCommand::RegisterTypes {
            namespace: "n".repeat(*size),
            app_id: String::new(),
            types: Vec::new(),
        };
        let proposal = crate::type_config::Proposal::Meta(Arc::new(register));
        Entry { log_id: log_id(5, index as u64 + 1), payload: Payload::Normal(proposal) }
    };
    let entries = sizes.iter().enumerate().map(entry).collect();
    AppendEntriesRequest { vote: vote(), prev_log_id: Some(log_id(5, 0)), entries, leader_commit: None }
}

#[tokio::test]
async fn whoever_is_not_reached_or_does_not_answer_grants_nothing() {
    let transports: [Arc<dyn Transport>; 2] = [Arc::new(NoPeers), Arc::new(Silent)];
    for transport in transports {
        let mut peer = peer(transport).await;
        let request = || VoteRequest::new(vote(), None);
        let begun = Instant::now();
        assert!(RaftNetworkV2::pre_vote(&mut peer, request(), option()).await.is_err());
        assert!(RaftNetworkV2::vote(&mut peer, request(), option()).await.is_err());
        assert!(RaftNetworkV2::append_entries(&mut peer, append(&[1]), option()).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn an_answer_to_something_else_is_no_answer() {
    let granted = VoteResponse::new(vote(), None, true);
    let mut peer = peer(Scripted::new(&Told::Voted(granted))).await;
    assert!(RaftNetworkV2::append_entries(&mut peer, append(&[1]), option()).await.is_err());
    let mut mute = self::peer(Scripted::new(&Told::Received(Received::GoOn))).await;
    assert!(RaftNetworkV2::pre_vote(&mut mute, VoteRequest::new(vote(), None), option()).await.is_err());
}

#[tokio::test]
async fn an_append_is_cut_to_what_one_message_carries_and_says_so() {
    let success = Told::Appended(AppendEntriesResponse::Success);
    let send = async |sizes: &[usize]| {
        let transport = Scripted::new(&success);
        let mut peer = peer(transport.clone()).await;
        let answer = RaftNetworkV2::append_entries(&mut peer, append(sizes), option()).await.unwrap();
        let [(lane, bytes, timeout)] = transport.sent.lock()[..] else { panic!("one message") };
        (answer, lane, bytes, timeout)
    };
    let (answer, lane, bytes, timeout) = send(&[100, 100, 100]).await;
    assert_eq!((answer, lane), (AppendEntriesResponse::Success, Lane::Raft));
    assert!(bytes < 600 && timeout < Duration::from_millis(160), "{bytes} {timeout:?}");
    let part = 1 << 20;
    let (answer, lane, bytes, timeout) = send(&[part - 100, part - 100, 1_000, 1]).await;
    assert_eq!((answer, lane), (AppendEntriesResponse::PartialSuccess(Some(log_id(5, 2))), Lane::Bulk));
    assert!(bytes <= APPEND_BYTES + 1_000 && timeout >= Duration::from_millis(390), "{bytes} {timeout:?}");
    // One that is larger than a message goes alone.
    let (answer, ..) = send(&[3 * part, 1]).await;
    assert_eq!(answer, AppendEntriesResponse::PartialSuccess(Some(log_id(5, 1))));
    let (answer, ..) = send(&[3 * part]).await;
    assert_eq!(answer, AppendEntriesResponse::Success);
    // A part that did not match is no part.
    let mut peer = peer(Scripted::new(&Told::Appended(AppendEntriesResponse::Conflict))).await;
    let answer = RaftNetworkV2::append_entries(&mut peer, append(&[3 * part, 1]), option()).await.unwrap();
    assert_eq!(answer, AppendEntriesResponse::Conflict);
}
