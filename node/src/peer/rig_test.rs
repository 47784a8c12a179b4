//! What the tests of links are made with: nodes on loopback ports, a wire between them that can be held or cut, and an
//! end of a link that says whatever it is told to.

#![allow(clippy::disallowed_methods)] // the other side, and callers, which are no nodes

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::peer_client::PeerClient;
use callboard_proto::peer::{Frame, Frames, Hello};
use callboard_types::{ClusterId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::calls::Outcome;
use super::*;
use crate::tasks::Tasks;

pub(super) const CLUSTER: ClusterId = ClusterId(0xC);
/// Longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) fn identity(node: u64) -> Identity {
    Identity {
        cluster: Some(CLUSTER),
        cluster_name: "default".to_owned(),
        generation: 1,
        node: NodeId(node),
        node_name: format!("node-{node}"),
    }
}

/// The default, but nobody waits long for what will not come.
pub(super) fn config() -> PeerConfig {
    let (connect_wait, backoff_longest) = (Duration::from_millis(400), Duration::from_millis(100));
    PeerConfig { connect_wait, backoff_longest, ..PeerConfig::default() }
}

pub(super) struct Node {
    pub peers: Peers,
    pub tasks: Tasks,
    pub address: SocketAddr,
}

impl Node {
    pub fn new(node: u64, handlers: Handlers) -> Self {
        Self::with(identity(node), config(), handlers)
    }

    pub fn with(identity: Identity, config: PeerConfig, handlers: Handlers) -> Self {
        Self::at("127.0.0.1:0", identity, config, handlers)
    }

    pub fn at(address: &str, identity: Identity, config: PeerConfig, handlers: Handlers) -> Self {
        let tasks = Tasks::new();
        let peers = Peers::new(config, identity, Directory::new(), tasks.clone());
        let listener = std::net::TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        peers.serve(listener, handlers).unwrap();
        Self { peers, tasks, address }
    }

    pub fn id(&self) -> NodeId {
        self.peers.identity().node
    }

    /// Tells this node where another one is.
    pub fn knows(&self, other: &Node) {
        self.knows_at(other, other.address);
    }

    pub fn knows_at(&self, other: &Node, address: SocketAddr) {
        self.peers.directory().set(other.id(), vec![address.to_string()]);
    }

    pub async fn ask(&self, other: &Node, body: impl Into<Bytes>) -> Outcome {
        self.peers.call(other.id(), Lane::Calls, Kind::Ask, body.into(), LONG).await
    }

    pub async fn end(self) {
        self.tasks.join().await;
    }
}

/// Answers with what it was asked.
pub(super) fn echo() -> Handlers {
    Handlers::new().on(Kind::Ask, |call: Call| async move { Ok(call.body) })
}

/// Two nodes, of which the first knows the second.
pub(super) fn pair(handlers: Handlers) -> (Node, Node) {
    let (a, b) = (Node::new(1, Handlers::new()), Node::new(2, handlers));
    a.knows(&b);
    (a, b)
}

pub(super) fn bytes(length: usize) -> Bytes {
    let pattern: Vec<u8> = (0..251).collect();
    let mut bytes = pattern.repeat(length / pattern.len() + 1);
    bytes.truncate(length);
    bytes.into()
}

/// Waits until it is so.
pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} does not come");
}

/// Handlers that stop at a gate until it is opened, and tell what became of them.
#[derive(Clone, Default)]
pub(super) struct Gate {
    pub begun: Arc<AtomicUsize>,
    pub finished: Arc<AtomicUsize>,
    pub dropped: Arc<AtomicUsize>,
    opened: CancellationToken,
}

impl Gate {
    pub fn open(&self) {
        self.opened.cancel();
    }

    pub fn handler(&self) -> impl Handler + use<> {
        struct Guard(Arc<AtomicUsize>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let gate = self.clone();
        move |call: Call| {
            let gate = gate.clone();
            gate.begun.fetch_add(1, Ordering::SeqCst);
            let guard = Guard(gate.dropped.clone());
            async move {
                gate.opened.cancelled().await;
                gate.finished.fetch_add(1, Ordering::SeqCst);
                drop(guard);
                Ok(call.body)
            }
        }
    }

    pub async fn begun(&self, count: usize) {
        until("a call at the gate", || self.begun.load(Ordering::SeqCst) >= count).await;
    }
}

/// A wire to an address that can be held, as by a partition, or cut.
pub(super) struct Wire {
    pub address: SocketAddr,
    state: Arc<WireState>,
}

#[derive(Default)]
struct WireState {
    held: AtomicBool,
    released: Notify,
    cut: Mutex<CancellationToken>,
    made: AtomicUsize,
}

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = wire.state.clone();
        tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                let Ok(far) = TcpStream::connect(address).await else { continue };
                state.made.fetch_add(1, Ordering::SeqCst);
                let cut = state.cut.lock().unwrap().clone();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                let (there, back) = (carry(near_in, far_out, state.clone()), carry(far_in, near_out, state.clone()));
                tokio::spawn(async move {
                    tokio::select! {
                        () = cut.cancelled() => {}
                        // One side's end is the other's.
                        () = there => {}
                        () = back => {}
                    }
                });
            }
        });
        wire
    }

    /// Nothing passes any more, and nobody is told.
    pub fn hold(&self) {
        self.state.held.store(true, Ordering::SeqCst);
    }

    pub fn release(&self) {
        self.state.held.store(false, Ordering::SeqCst);
        self.state.released.notify_waiters();
    }

    /// Ends the connections there are.
    pub fn cut(&self) {
        let cut = std::mem::take(&mut *self.state.cut.lock().unwrap());
        cut.cancel();
    }

    /// Connections so far.
    pub fn made(&self) -> usize {
        self.state.made.load(Ordering::SeqCst)
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<WireState>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let released = state.released.notified();
        if state.held.load(Ordering::SeqCst) {
            released.await;
            continue;
        }
        // While it is held nothing more is read than what is here already.
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                while state.held.load(Ordering::SeqCst) {
                    let released = state.released.notified();
                    if state.held.load(Ordering::SeqCst) {
                        released.await;
                    }
                }
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The dialling end of a link that says what it is told to.
pub(super) struct Raw {
    pub say: mpsc::Sender<Frames>,
    pub hear: Streaming<Frames>,
    cut: CancellationToken,
}

impl Raw {
    /// A link, whatever is said on it.
    pub async fn open(address: SocketAddr, tasks: &Tasks, first: Frames) -> Result<Self, tonic::Status> {
        let keep_alive = super::http2::KeepAlive { every: LONG, timeout: LONG };
        let cut = CancellationToken::new();
        let connection = super::http2::connect(&address.to_string(), keep_alive, cut.clone(), tasks).await.unwrap();
        let (say, said) = mpsc::channel(16);
        say.send(first).await.unwrap();
        let mut client = PeerClient::with_origin(connection, "http://peer".parse().unwrap());
        let opened = client.link(tokio_stream::wrappers::ReceiverStream::new(said)).await;
        Ok(Self { say, hear: opened?.into_inner(), cut })
    }

    /// A link of a node that is known.
    pub async fn member(node: u64, to: &Node) -> Self {
        let mut raw = Self::open(to.address, &to.tasks, one_frame(0, Content::Hello(raw_hello(node)))).await.unwrap();
        let heard = raw.heard().await;
        assert!(matches!(heard.frames[0].content, Some(Content::Hello(_))), "{heard:?}");
        raw
    }

    /// The next message.
    pub async fn heard(&mut self) -> Frames {
        let message = tokio::time::timeout(LONG, self.hear.message()).await.expect("nothing is said");
        message.unwrap().expect("all is said")
    }

    /// Everything that is said until the end, and how it ends.
    pub async fn rest(&mut self) -> (Vec<Frame>, Result<(), tonic::Status>) {
        let mut frames = Vec::new();
        let ended = tokio::time::timeout(LONG, async {
            loop {
                match self.hear.message().await {
                    Ok(Some(message)) => frames.extend(message.frames),
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(status),
                }
            }
        });
        let ended = ended.await.expect("the link does not end");
        (frames, ended)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

pub(super) fn raw_hello(node: u64) -> Hello {
    super::hello::hello(&identity(node), Lane::Calls, None, crate::clock::wall())
}

pub(super) fn one_frame(call: u64, content: Content) -> Frames {
    Frames { frames: vec![Frame { call, content: Some(content) }] }
}
