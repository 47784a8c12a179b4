//! Links between nodes: calls with an answer, over streams that stay open.
//!
//! A call is a kind, a body, an answer and a time; what bodies mean is the business of those who call and of the
//! handlers. Frames of many calls share a message whenever several wait, which is what makes a long-lived stream ten
//! times as fast as a request per call.
//!
//! **What may have happened.** The one thing a caller must know after a failure is whether the other node can have seen
//! the call ([`PeerError`]). The line is drawn in one place: a frame leaves this node's own queue under the lock under
//! which a link's end is settled ([`calls`], [`outbox`]). What still stands in the queue then is *not sent*, provably;
//! what was handed to the stream is *lost*. Nothing is sent again by itself.
//!
//! **Lanes.** Each pair of nodes has up to three links in each direction, each with a connection of its own: messages of
//! the groups, calls, bulk. A slow reader or a large body on one cannot delay another. Within a lane a large body goes in
//! parts between the others' frames.
//!
//! **Who is there.** Each link begins with a hello of both sides ([`hello`]). A stranger is refused before any call goes
//! out. Addresses are hints ([`Directory`]): an address at which somebody else answers is forgotten.
//!
//! **Bounds.** Calls and bytes in the queue, calls in flight, bodies, work in progress, connections and links each have a
//! limit ([`PeerConfig`]), and reaching one is an error at once, never a wait.
//!
//! **Loss.** HTTP/2 keep-alive finds a dead link within a second. Its calls end at once, and it is dialled again with
//! growing pauses. A call that finds no link waits for one, but not for long.
//!
//! Files: `remote` links to the others and their keepers, `dial` from an address to a link, `link` its dialling end over
//! the pure `calls`; `server` accepts, `session` is a link's other end over the pure `gathering`; both write through
//! `outbox`. Deliberately absent: encryption, retries, and knowledge of who is alive.

mod backoff;
mod calls;
mod config;
mod counters;
mod dial;
mod directory;
mod error;
mod gathering;
mod handlers;
mod hello;
mod http2;
mod link;
mod offset;
mod outbox;
mod remote;
mod server;
mod session;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_types::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::tasks::{self, Tasks};
use calls::Outcome;
use counters::{Counting, one};
use dial::{Dialler, Target};
use hello::GenerationSeen;
use link::Link;
use remote::Remotes;
use server::Acceptor;

pub use callboard_proto::peer::Kind;
pub use config::{Lane, LaneLimits, PeerConfig};
pub use counters::Counters;
pub use directory::Directory;
pub use error::{Failure, PeerError, TRANSPORT};
pub use handlers::{Call, Handler, Handlers};
pub use hello::{Identity, PeerId};
pub use offset::ClockOffset;
pub use server::{INVOKE_PATH, Requests};

/// The links of this node, in both directions; clones share them.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    dialler: Dialler,
    remotes: Arc<Remotes>,
    acceptor: Acceptor,
}

impl Peers {
    /// Dials when it is first called for; accepts from [`Peers::serve`] on.
    pub fn new(config: PeerConfig, identity: Identity, directory: Directory, tasks: Tasks) -> Self {
        let config = Arc::new(config);
        let generation = GenerationSeen::new(identity.generation);
        let identity = Arc::new(watch::Sender::new(Arc::new(identity)));
        let counting = Arc::new(Counting::default());
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let dialler = Dialler {
            config: config.clone(),
            identity: identity.clone(),
            generation: generation.clone(),
            counting: counting.clone(),
            tasks: tasks.clone(),
            cut: cut.clone(),
            live: TaskTracker::new(),
        };
        let remotes = Remotes::new(dialler.clone(), directory, closing.clone());
        let (all_closing, all_cut, stopping) = (closing.clone(), cut.clone(), tasks.clone());
        // One listens for the node's end on behalf of all links.
        tasks.spawn(tasks::Kind::Work, "peer-stop", async move {
            stopping.stopping().await;
            all_closing.cancel();
            all_cut.cancel();
        });
        let acceptor = Acceptor::new(config, identity, generation, counting, tasks, closing, cut);
        Self { inner: Arc::new(Inner { dialler, remotes, acceptor }) }
    }

    /// Accepts links on a listener that listens already. Any number of times.
    pub fn serve(&self, listener: std::net::TcpListener, handlers: Handlers) -> io::Result<()> {
        self.inner.acceptor.serve(listener, handlers)
    }

    /// Calls another node and waits for its answer, `timeout` at most.
    pub async fn call(&self, to: NodeId, lane: Lane, kind: Kind, body: Bytes, timeout: Duration) -> Outcome {
        let outcome = self.inner.remotes.call(to, lane, kind, body, timeout).await;
        self.count(&outcome);
        outcome
    }

    /// Calls whoever is at `address`, over a connection of its own. For joining, when no node is known yet.
    pub async fn call_address(
        &self,
        address: &str,
        kind: Kind,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(PeerId, Bytes), PeerError> {
        let deadline = clock::runtime() + timeout;
        let outcome = self.call_there(address, kind, body, deadline).await;
        let (peer, outcome) = match outcome {
            Ok((peer, outcome)) => (Some(peer), outcome),
            Err(error) => (None, Err(error)),
        };
        self.count(&outcome);
        match (peer, outcome) {
            (Some(peer), Ok(body)) => Ok((peer, body)),
            (_, Err(error)) => Err(error),
            (None, Ok(_)) => Err(PeerError::Lost("nobody answered".to_owned())),
        }
    }

    async fn call_there(
        &self,
        address: &str,
        kind: Kind,
        body: Bytes,
        deadline: tokio::time::Instant,
    ) -> Result<(PeerId, Outcome), PeerError> {
        let dialler = &self.inner.dialler;
        dialler.fits(Lane::Calls, &body)?;
        if self.inner.acceptor.closing.is_cancelled() {
            return Err(PeerError::NotSent("the node stops".to_owned()));
        }
        let (target, offsets) = (Target { address, node: None, lane: Lane::Calls }, Arc::default());
        let (link, peer) = match tokio::time::timeout_at(deadline, dialler.dial(target, &offsets)).await {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => return Err(PeerError::NotSent(error.text().to_owned())),
            Err(_) => return Err(PeerError::NotSent(format!("{address}: no link in time"))),
        };
        let link = OneCall(link);
        let left = deadline.saturating_duration_since(clock::runtime());
        match link.0.submit(kind, left, body) {
            Ok(waiting) => Ok((peer, waiting.until(deadline).await)),
            Err(_) => Err(PeerError::NotSent(format!("{address}: the link was lost"))),
        }
    }

    fn count(&self, outcome: &Outcome) {
        let counting = &self.inner.dialler.counting;
        match outcome {
            Ok(_) | Err(PeerError::Refused(_)) => {}
            Err(PeerError::NotSent(_)) => one(&counting.calls_not_sent),
            Err(PeerError::Lost(_)) => one(&counting.calls_lost),
            Err(PeerError::TimedOut) => one(&counting.calls_timed_out),
        }
    }

    /// Whole HTTP requests of other nodes, under [`INVOKE_PATH`], go to `requests`.
    pub fn serve_requests(&self, requests: Arc<dyn Requests>) {
        self.inner.acceptor.requests(requests);
    }

    /// Who this node says it is.
    pub fn identity(&self) -> Arc<Identity> {
        self.inner.dialler.identity.borrow().clone()
    }

    /// From here on this node is somebody else: in a cluster, or in a later generation of it. Links are made anew, those
    /// that peers made are kept unless the peer has become a stranger by it. No call is cut off.
    pub fn identify(&self, identity: Identity) {
        debug_assert_eq!(identity.node, self.identity().node, "a node keeps its id");
        self.inner.dialler.generation.note(identity.generation);
        self.inner.dialler.identity.send_if_modified(|known| {
            let differs = **known != identity;
            if differs {
                *known = Arc::new(identity);
            }
            differs
        });
    }

    /// The highest recovery generation that members of this cluster have shown. Above the own one, this node is
    /// superseded: the others refuse it.
    pub fn generation_seen(&self) -> watch::Receiver<u64> {
        self.inner.dialler.generation.subscribe()
    }

    pub fn directory(&self) -> &Directory {
        self.inner.remotes.directory()
    }

    /// How far a node's wall clock is from the own one, as far as links to it have shown.
    pub fn clock_offset(&self, node: NodeId) -> Option<ClockOffset> {
        self.inner.remotes.clock_offset(node)
    }

    /// There is a link to the node. That it answers is another matter.
    pub fn is_connected(&self, node: NodeId, lane: Lane) -> bool {
        self.inner.remotes.is_connected(node, lane)
    }

    pub fn counters(&self) -> Counters {
        self.inner.dialler.counting.read()
    }

    /// Makes and takes no more calls, lets those under way end within `grace`, then cuts all links.
    pub async fn close(&self, grace: Duration) {
        let Inner { dialler, acceptor, .. } = &*self.inner;
        acceptor.closing.cancel();
        dialler.live.close();
        let ended = async {
            dialler.live.wait().await;
            acceptor.links_ended().await;
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::debug!("links to other nodes are cut off");
        }
        acceptor.cut.cancel();
    }
}

/// A link for one call: it ends with the call.
struct OneCall(Arc<Link>);

impl Drop for OneCall {
    fn drop(&mut self) {
        self.0.retire();
    }
}

#[cfg(test)]
mod abuse_test;
#[cfg(test)]
mod calling_test;
#[cfg(test)]
mod loss_test;
#[cfg(test)]
mod rig_test;
#[cfg(test)]
mod serving_test;
#[cfg(test)]
mod strangers_test;
