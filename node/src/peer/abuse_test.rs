//! Anything may come in at the peer port: nothing of it ends the node, and members are served all the while.

#![allow(clippy::disallowed_methods)] // the other side, and callers, which are no nodes

use std::time::Duration;

use bytes::Bytes;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::{Cancel, Failure, Frame, Frames, Part, Ping, Pong, Refusal, Request, Response};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig_test::*;
use super::*;

fn impatient() -> PeerConfig {
    PeerConfig { hello_timeout: Duration::from_millis(300), ..config() }
}

async fn still_serves(b: &Node) {
    let a = Node::new(99, Handlers::new());
    a.knows(b);
    assert_eq!(a.ask(b, "x").await.unwrap(), "x");
    a.end().await;
}

/// Reads until the other side closes.
async fn closed(mut stream: TcpStream) {
    let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn bytes_that_are_no_protocol_end_their_connection() {
    let b = Node::with(identity(2), impatient(), echo());
    let mut random = StdRng::seed_from_u64(1);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for round in 0..40 {
        let mut stream = TcpStream::connect(b.address).await.unwrap();
        let mut noise = vec![0; random.random_range(0..2_000)];
        random.fill_bytes(&mut noise);
        if round % 2 == 0 {
            noise.splice(..0, preface.iter().copied());
        }
        // It may be closed before it has said all.
        let _ = stream.write_all(&noise).await;
        closed(stream).await;
    }
    still_serves(&b).await;
}

#[tokio::test]
async fn who_connects_and_says_nothing_does_not_stay() {
    let b = Node::with(identity(2), impatient(), echo());
    let silent = TcpStream::connect(b.address).await.unwrap();
    let mut greeted = TcpStream::connect(b.address).await.unwrap();
    greeted.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    tokio::join!(closed(silent), closed(greeted));
}

#[tokio::test]
async fn connections_are_bounded() {
    let b = Node::with(identity(2), PeerConfig { accepted_connections: 2, ..config() }, echo());
    let held = (TcpStream::connect(b.address).await.unwrap(), TcpStream::connect(b.address).await.unwrap());
    closed(TcpStream::connect(b.address).await.unwrap()).await;
    drop(held);
}

#[tokio::test]
async fn a_link_without_a_hello_is_none() {
    let b = Node::with(identity(2), impatient(), echo());
    let hello = || Frame { call: 0, content: Some(Content::Hello(raw_hello(1))) };
    for first in [
        Frames::default(),
        one_frame(1, Content::Ping(Ping { number: 1 })),
        Frames { frames: vec![hello(), hello()] },
        Frames { frames: vec![Frame::default()] },
    ] {
        let Err(status) = Raw::open(b.address, &b.tasks, first).await else { panic!("a link was made") };
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    }
    still_serves(&b).await;
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_its_link() {
    let b = Node::new(2, echo());
    let request = |length: u64, body: usize| {
        Content::Request(Request { kind: Kind::Ask.into(), timeout_ms: 1_000, length, body: bytes(body) })
    };
    for frames in [
        vec![Content::Hello(raw_hello(1))],
        vec![Content::Response(Response::default())],
        vec![Content::Pong(Pong::default())],
        vec![request(1, 2)],
        vec![request(4, 2), request(4, 2)],
        vec![request(4, 2), Content::Part(Part { body: bytes(3) })],
    ] {
        let mut raw = Raw::member(1, &b).await;
        for content in frames.clone() {
            raw.say.send(one_frame(7, content)).await.unwrap();
        }
        let (_, ended) = raw.rest().await;
        assert_eq!(ended.unwrap_err().code(), tonic::Code::InvalidArgument, "{frames:?}");
    }
    assert_eq!(b.peers.counters().violations, 6);
    still_serves(&b).await;
}

#[tokio::test]
async fn a_message_beyond_its_limit_ends_its_link() {
    let b = Node::new(2, echo());
    let mut raw = Raw::member(1, &b).await;
    raw.say.send(one_frame(1, Content::Part(Part { body: bytes(super::outbox::MAX_MESSAGE) }))).await.unwrap();
    let (_, ended) = raw.rest().await;
    // The node hears nothing it could answer to.
    ended.unwrap();
    still_serves(&b).await;
}

fn any_frame(random: &mut StdRng) -> Frame {
    let body = bytes(random.random_range(0..300));
    let length =
        [body.len() as u64, random.random_range(0..1_000), random.random(), 70 << 20][random.random_range(0..4)];
    let content = match random.random_range(0..12) {
        0..=3 => Content::Request(Request {
            kind: if random.random() { Kind::Ask.into() } else { random.random_range(-2..20) },
            timeout_ms: random.random(),
            length: if random.random_range(0..3) > 0 { body.len() as u64 } else { length },
            body,
        }),
        4 | 5 => Content::Part(Part { body }),
        6 | 7 => Content::Cancel(Cancel {}),
        8 | 9 => Content::Ping(Ping { number: random.random() }),
        10 => Content::Response(Response { failure: Some(Failure::default()), length, body }),
        _ => Content::Refusal(Refusal { reason: random.random(), text: "x".to_owned(), generation: 9 }),
    };
    let content = (random.random_range(0..20) > 0).then_some(content);
    Frame { call: random.random_range(0..10), content }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_in_any_order_end_at_most_their_own_link() {
    let b = Node::new(2, echo());
    let member = Node::new(1, Handlers::new());
    member.knows(&b);
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..100 {
        let mut raw = Raw::member(7, &b).await;
        for _ in 0..20 {
            let frames = (0..random.random_range(0..10)).map(|_| any_frame(&mut random)).collect();
            if raw.say.send(Frames { frames }).await.is_err() {
                break;
            }
        }
        raw.say = tokio::sync::mpsc::channel(1).0;
        // Well or badly, it ends.
        let _ = raw.rest().await;
        assert_eq!(member.ask(&b, "x").await.unwrap(), "x");
    }
    assert_eq!((member.peers.counters().links_dialled, member.peers.counters().links_lost), (1, 0));
}

/// The other direction: a listener that says anything to those who dial it.
#[tokio::test]
async fn a_peer_that_answers_with_noise_is_not_called() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut random = StdRng::seed_from_u64(3);
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut noise = vec![0; random.random_range(0..500)];
            random.fill_bytes(&mut noise);
            // It may be closed before it has said all.
            let _ = stream.write_all(&noise).await;
        }
    });
    let a = Node::with(identity(1), PeerConfig { hello_timeout: Duration::from_millis(100), ..config() }, echo());
    a.peers.directory().set(identity(2).node, vec![address.to_string()]);
    for _ in 0..3 {
        let outcome = a.peers.call(identity(2).node, Lane::Calls, Kind::Ask, Bytes::new(), LONG).await;
        assert!(matches!(outcome, Err(PeerError::NotSent(_))), "{outcome:?}");
    }
}
