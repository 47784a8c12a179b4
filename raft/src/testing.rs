//! Several nodes in one process: a transport with switchable faults, for tests of this crate and of the node.
//!
//! [`Mesh`] delivers messages straight into [`Groups::receive`]. A link is one way: what is cut, delayed or swallowed from
//! one node to another says nothing about the way back. A lost message is noticed as on a network: by the time it takes;
//! a node that is not there is noticed at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use callboard_types::NodeId;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Groups, Lane, Target, Transport, TransportError};

type Link = (NodeId, NodeId);

/// The network between the nodes of a test. Clones share it.
#[derive(Clone, Default)]
pub struct Mesh {
    net: Arc<Net>,
}

#[derive(Default)]
struct Net {
    nodes: Mutex<HashMap<NodeId, Groups>>,
    faults: Mutex<Faults>,
    healed: Notify,
    counts: Mutex<HashMap<(Link, Lane), Count>>,
}

#[derive(Default)]
struct Faults {
    cut: HashSet<Link>,
    deaf: HashSet<Link>,
    swallow: HashMap<Link, usize>,
    delay: HashMap<Link, Duration>,
    stalled: HashSet<(Link, Lane)>,
}

/// What has been sent over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub messages: usize,
    pub largest: usize,
}

/// A node's end of the mesh. When it is unplugged, nothing that still runs of the node is heard any more.
pub struct Plug {
    net: Arc<Net>,
    node: NodeId,
    unplugged: AtomicBool,
}

impl Mesh {
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of a node, to be given to [`Groups::open`].
    pub fn plug(&self, node: NodeId) -> Arc<Plug> {
        Arc::new(Plug { net: self.net.clone(), node, unplugged: AtomicBool::new(false) })
    }

    /// What is sent to `node` arrives at `groups`.
    pub fn attach(&self, node: NodeId, groups: Groups) {
        self.net.nodes.lock().insert(node, groups);
    }

    /// Nobody reaches the node.
    pub fn detach(&self, node: NodeId) {
        self.net.nodes.lock().remove(&node);
    }

    /// What `from` sends to `to` is lost.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.net.faults.lock().cut.insert((from, to));
    }

    /// Nothing reaches the node, and nothing it sends reaches others.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others.into_iter().filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// What `from` asks of `to` arrives and is done; the answer is lost.
    pub fn drop_answers(&self, from: NodeId, to: NodeId) {
        self.net.faults.lock().deaf.insert((from, to));
    }

    /// The next `answers` from `to` to `from` are lost.
    pub fn swallow(&self, from: NodeId, to: NodeId, answers: usize) {
        self.net.faults.lock().swallow.insert((from, to), answers);
    }

    /// What `from` sends to `to` is on its way for so long.
    pub fn delay(&self, from: NodeId, to: NodeId, delay: Duration) {
        self.net.faults.lock().delay.insert((from, to), delay);
    }

    /// What `from` sends to `to` over one lane waits until [`Mesh::heal`].
    pub fn stall(&self, from: NodeId, to: NodeId, lane: Lane) {
        self.net.faults.lock().stalled.insert(((from, to), lane));
    }

    /// Ends every fault.
    pub fn heal(&self) {
        *self.net.faults.lock() = Faults::default();
        self.net.healed.notify_waiters();
    }

    /// What `from` has sent to `to` so far.
    pub fn count(&self, from: NodeId, to: NodeId, lane: Lane) -> Count {
        self.net.counts.lock().get(&((from, to), lane)).copied().unwrap_or_default()
    }
}

impl Plug {
    /// The node has ended, whatever of it still runs.
    pub fn pull(&self) {
        self.unplugged.store(true, Ordering::Release);
    }

    fn is_out(&self) -> bool {
        self.unplugged.load(Ordering::Acquire)
    }

    async fn deliver(&self, to: NodeId, lane: Lane, body: Bytes) -> Result<Bytes, TransportError> {
        let link = (self.node, to);
        let lost = std::future::pending();
        {
            let mut counts = self.net.counts.lock();
            let count = counts.entry((link, lane)).or_default();
            count.messages += 1;
            count.largest = count.largest.max(body.len());
        }
        let (cut, delay) = {
            let faults = self.net.faults.lock();
            (faults.cut.contains(&link), faults.delay.get(&link).copied())
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if cut {
            return lost.await;
        }
        loop {
            let healed = self.net.healed.notified();
            if !self.net.faults.lock().stalled.contains(&(link, lane)) {
                break;
            }
            healed.await;
        }
        let groups = self.net.nodes.lock().get(&to).cloned();
        let Some(groups) = groups else { return Err(TransportError::Unreachable(format!("node {to} is not there"))) };
        let answer = groups.receive(body).await;
        let deaf = {
            let mut faults = self.net.faults.lock();
            let swallowed = faults.swallow.get_mut(&link).is_some_and(|left| {
                let swallow = *left > 0;
                *left = left.saturating_sub(1);
                swallow
            });
            swallowed || faults.deaf.contains(&link) || faults.cut.contains(&(to, self.node))
        };
        if deaf || self.is_out() {
            return lost.await;
        }
        answer.map_err(|error| TransportError::Unreachable(error.to_string()))
    }
}

impl Transport for Plug {
    fn send<'a>(
        &'a self,
        to: Target<'a>,
        lane: Lane,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async move {
            if self.is_out() {
                return Err(TransportError::Unreachable("this node has ended".to_owned()));
            }
            let delivery = self.deliver(to.node, lane, body);
            tokio::time::timeout(timeout, delivery).await.unwrap_or(Err(TransportError::TimedOut))
        })
    }
}
