//! The links to the other nodes: made when they are first needed, kept, made again when they are lost.
//!
//! Each lane of each node has at most one task, its keeper, which dials, publishes the link, waits for its end and dials
//! again after a pause. It lives while it is wanted: from a call that finds no link until some time after the last loss
//! or the last such call. A node that the directory no longer knows has no keepers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_proto::peer::{Kind, Reason};
use callboard_types::{Class, NodeId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::calls::{NotTaken, Outcome};
use super::config::Lane;
use super::counters::one;
use super::dial::{DialError, Dialler, Target};
use super::directory::Directory;
use super::error::{Failure, PeerError};
use super::link::Link;
use super::offset::{ClockOffset, Offsets};
use crate::clock;
use crate::tasks;

pub(super) struct Remotes {
    /// This node.
    own: NodeId,
    dialler: Dialler,
    directory: Directory,
    closing: CancellationToken,
    remotes: RwLock<HashMap<NodeId, Arc<Remote>>>,
}

/// One other node.
struct Remote {
    node: NodeId,
    lanes: [Slot; Lane::ALL.len()],
    offsets: Arc<Mutex<Offsets>>,
    /// Cancelled when the directory no longer knows the node.
    gone: CancellationToken,
}

/// One lane to one node.
struct Slot {
    current: watch::Sender<Current>,
    demand: Mutex<Demand>,
}

#[derive(Clone)]
enum Current {
    /// No link; why not, as far as is known.
    Down(Arc<str>),
    Up(Arc<Link>),
}

#[derive(Debug, Default)]
struct Demand {
    /// The keeper's task is there.
    kept: bool,
    wanted_at: Instant,
    /// Calls that wait for a link.
    waiting: usize,
}

impl Remote {
    fn new(node: NodeId, gone: CancellationToken) -> Arc<Self> {
        let lanes = std::array::from_fn(|_| Slot {
            current: watch::Sender::new(Current::Down(Arc::from("not dialled yet"))),
            demand: Mutex::default(),
        });
        Arc::new(Self { node, lanes, offsets: Arc::default(), gone })
    }

    fn slot(&self, lane: Lane) -> &Slot {
        &self.lanes[lane as usize]
    }
}

impl Slot {
    fn link(&self) -> Option<Arc<Link>> {
        match &*self.current.borrow() {
            Current::Up(link) => Some(link.clone()),
            Current::Down(_) => None,
        }
    }

    fn down(&self, why: &str) {
        self.current.send_replace(Current::Down(Arc::from(why)));
    }

    /// Notes that the link is wanted; `true` when a keeper has to be started.
    fn want(&self) -> bool {
        let mut demand = self.demand.lock();
        demand.wanted_at = clock::monotonic();
        !std::mem::replace(&mut demand.kept, true)
    }

    /// Whether the keeper goes on. When not, the next call starts another one.
    fn is_still_wanted(&self, redial_for: Duration) -> bool {
        let mut demand = self.demand.lock();
        demand.kept = demand.waiting > 0 || demand.wanted_at.saturating_add(redial_for) > clock::monotonic();
        demand.kept
    }
}

/// Whatever ends a keeper, its lane can have another one.
struct Keeper<'a>(Option<&'a Slot>);

impl Keeper<'_> {
    /// It has ended because it is not wanted, and there may be another one already.
    fn was_let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            if let Some(link) = slot.link() {
                link.retire();
            }
            slot.down("it is kept no longer");
            slot.demand.lock().kept = false;
        }
    }
}

/// A place among the calls that wait for a link.
struct Waits<'a>(&'a Slot);

impl<'a> Waits<'a> {
    fn take(slot: &'a Slot, most: usize) -> Option<Self> {
        let mut demand = slot.demand.lock();
        if demand.waiting >= most {
            return None;
        }
        demand.waiting += 1;
        Some(Self(slot))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.demand.lock().waiting -= 1;
    }
}

impl Remotes {
    pub fn new(dialler: Dialler, directory: Directory, closing: CancellationToken) -> Arc<Self> {
        let own = dialler.identity.borrow().node;
        Arc::new(Self { own, dialler, directory, closing, remotes: RwLock::default() })
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub async fn call(self: &Arc<Self>, to: NodeId, lane: Lane, kind: Kind, body: Bytes, timeout: Duration) -> Outcome {
        if to == self.own {
            return Err(PeerError::NotSent("a node does not call itself".to_owned()));
        }
        self.dialler.fits(lane, &body)?;
        let begun = clock::runtime();
        let deadline = begun + timeout;
        let mut link = self.present(to).and_then(|remote| remote.slot(lane).link());
        let mut left = timeout;
        loop {
            if let Some(link) = &link {
                match link.submit(kind, left, body.clone()) {
                    Ok(waiting) => return waiting.until(deadline).await,
                    Err(NotTaken::Full(what)) => {
                        return Err(PeerError::NotSent(format!("too many {what} on the way to {to}")));
                    }
                    Err(NotTaken::Closed) => {}
                }
            }
            let patience = deadline.min(begun + self.dialler.config.connect_wait);
            link = Some(self.wait_for_link(&self.remote(to)?, lane, link.as_ref(), patience).await?);
            left = deadline.saturating_duration_since(clock::runtime());
        }
    }

    pub fn clock_offset(&self, node: NodeId) -> Option<ClockOffset> {
        let offsets = self.remotes.read().get(&node)?.offsets.clone();
        offsets.lock().best(clock::monotonic())
    }

    pub fn is_connected(&self, node: NodeId, lane: Lane) -> bool {
        self.remotes.read().get(&node).is_some_and(|remote| remote.slot(lane).link().is_some())
    }

    /// A node that is called already, unless the directory has lost it since.
    fn present(&self, node: NodeId) -> Option<Arc<Remote>> {
        let remotes = self.remotes.read();
        remotes.get(&node).filter(|remote| !remote.gone.is_cancelled()).cloned()
    }

    fn remote(&self, node: NodeId) -> Result<Arc<Remote>, PeerError> {
        if let Some(remote) = self.present(node) {
            return Ok(remote);
        }
        let Some(gone) = self.directory.presence(node) else {
            return Err(PeerError::NotSent(format!("node {node} is not known here")));
        };
        let mut remotes = self.remotes.write();
        remotes.retain(|_, remote| !remote.gone.is_cancelled());
        Ok(remotes.entry(node).or_insert_with(|| Remote::new(node, gone)).clone())
    }

    /// Waits for a link other than `past`, which takes no more calls.
    async fn wait_for_link(
        self: &Arc<Self>,
        remote: &Arc<Remote>,
        lane: Lane,
        past: Option<&Arc<Link>>,
        patience: tokio::time::Instant,
    ) -> Result<Arc<Link>, PeerError> {
        if self.closing.is_cancelled() {
            return Err(PeerError::NotSent("the node stops".to_owned()));
        }
        let slot = remote.slot(lane);
        let Some(_place) = Waits::take(slot, self.dialler.config.lane(lane).queued_calls) else {
            return Err(PeerError::NotSent(format!("too many calls wait for a link to {}", remote.node)));
        };
        if slot.want() {
            let keeper = self.clone().keep(remote.clone(), lane);
            self.dialler.tasks.spawn(tasks::Kind::Work, "peer-keeper", keeper);
        }
        let mut current = slot.current.subscribe();
        let another = current.wait_for(|current| match current {
            Current::Up(link) => past.is_none_or(|past| !Arc::ptr_eq(past, link)),
            Current::Down(_) => false,
        });
        let link = tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            () = remote.gone.cancelled() => None,
            another = tokio::time::timeout_at(patience, another) => match another {
                Ok(Ok(current)) => match &*current {
                    Current::Up(link) => Some(link.clone()),
                    Current::Down(_) => None,
                },
                Ok(Err(_)) | Err(_) => None,
            },
        };
        link.ok_or_else(|| {
            let why = match &*slot.current.borrow() {
                Current::Down(why) => why.to_string(),
                Current::Up(_) => "the link takes no more calls".to_owned(),
            };
            PeerError::NotSent(format!("no link to {}: {why}", remote.node))
        })
    }

    /// Keeps one lane to one node while it is wanted.
    async fn keep(self: Arc<Self>, remote: Arc<Remote>, lane: Lane) {
        let keeper = Keeper(Some(remote.slot(lane)));
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {}
            () = remote.gone.cancelled() => {}
            () = self.keep_dialling(&remote, lane) => keeper.was_let_go(),
        }
    }

    async fn keep_dialling(&self, remote: &Remote, lane: Lane) {
        let (config, slot) = (&self.dialler.config, remote.slot(lane));
        let mut backoff = Backoff::new(config.backoff_shortest, config.backoff_longest);
        let mut identity = self.dialler.identity.subscribe();
        let mut addresses = self.directory.changes();
        let mut stranger = None;
        let mut lost_one = false;
        while slot.is_still_wanted(config.redial_for) {
            identity.mark_unchanged();
            addresses.mark_unchanged();
            match self.dial(remote, lane).await {
                Ok(link) => {
                    if lost_one {
                        one(&self.dialler.counting.reconnects);
                    }
                    stranger = None;
                    let made = clock::runtime();
                    slot.current.send_replace(Current::Up(link.clone()));
                    let renewed = tokio::select! {
                        biased;
                        () = link.ended() => false,
                        () = link.leaving() => false,
                        // The peer should know this node for what it has become.
                        changed = identity.changed() => changed.is_ok(),
                    };
                    link.retire();
                    slot.down(if renewed { "this node has another identity" } else { "the link was lost" });
                    slot.want();
                    if made.elapsed() >= config.held_after {
                        backoff.held();
                    }
                    lost_one = !renewed;
                    if renewed {
                        continue;
                    }
                }
                Err(error) => {
                    one(&self.dialler.counting.dials_failed);
                    slot.down(error.text());
                    report(remote.node, lane, error, &mut stranger);
                }
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(backoff.failed()) => {}
                // Another address may be the right one, and another identity may be welcome.
                _ = addresses.changed() => {}
                _ = identity.changed() => {}
            }
        }
    }

    async fn dial(&self, remote: &Remote, lane: Lane) -> Result<Arc<Link>, DialError> {
        let mut last = DialError::Failed("no address is known".to_owned());
        for address in self.directory.addresses(remote.node) {
            let target = Target { address: &address, node: Some(remote.node), lane };
            match self.dialler.dial(target, &remote.offsets).await {
                Ok((link, peer)) => {
                    tracing::debug!(%peer, lane = lane.name(), address, "a link was made");
                    return Ok(link);
                }
                Err(error) => {
                    if let DialError::Stranger(refusal) = &error
                        && matches!(refusal.reason, Reason::WrongNode | Reason::SameNode)
                    {
                        self.directory.forget(remote.node, &address);
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }
}

impl Dialler {
    /// What is longer than the lane takes never gets there.
    pub fn fits(&self, lane: Lane, body: &Bytes) -> Result<(), PeerError> {
        let most = self.config.lane(lane).max_body;
        if body.len() <= most {
            return Ok(());
        }
        let text = format!("a body of {} bytes; {most} is the most", body.len());
        Err(PeerError::Refused(Failure::transport(Class::Rejected, text)))
    }
}

/// Says once why a node is a stranger; that one cannot be reached is said by who watches the nodes.
fn report(node: NodeId, lane: Lane, error: DialError, last: &mut Option<String>) {
    match error {
        DialError::Failed(why) => tracing::debug!(%node, lane = lane.name(), why, "no link could be made"),
        DialError::Stranger(refusal) => {
            if last.as_deref() != Some(refusal.text.as_str()) {
                tracing::warn!(%node, lane = lane.name(), why = %refusal, "no link: refused");
                *last = Some(refusal.text);
            }
        }
    }
}
