//! Who is there and what each node offers *now*: gossip, made into a value that decisions can be taken on.
//!
//! ```text
//! publish ─► announce (keys, values) ─► gossip ─► chitchat ─► transport ─► wire ─► UDP
//! view    ◄─ members (one per node)  ◄─ gossip ◄─ chitchat ◄─ transport ◄─ wire ◄─ UDP
//! ```
//!
//! Gossip is a hint. It says where to dial, whom to prefer, whom to stop waiting for; it never says who owns what or who
//! is a member of the cluster: that is in the logs, and nothing here may be used to change it without asking them.
//!
//! Only this module knows the gossip library. Its version is pinned: it is the last whose messages an outside transport
//! can encode, which is what the cluster key needs. The library's own queues are unbounded, so little is ever asked of
//! it: some questions per round. What leaves here is the last state (a watch), never a stream of changes.
//!
//! Limits: [`announce`] bounds what a node says; a cluster of more than about 500 nodes, counting restarts of the last
//! minutes, no longer fits the library's messages. Without a cluster key whoever reaches the port can speak as any node,
//! and can make the library end (it is started again); with one they need the key.

pub mod announce;
mod gossip;
pub mod members;
mod scan;
mod seeds;
mod transport;
mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use callboard_engine::view::View;
use callboard_types::NodeId;
use chitchat::transport::Transport;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use announce::{Announcement, Phase};
pub use callboard_engine::view::{App, Role};
pub use members::{Member, Members, Standing};
pub use transport::Counters;
pub use wire::ClusterKey;

use crate::tasks::{Kind, Tasks};
use gossip::Gossip;
use transport::Udp;

/// A leaving node waits for its goodbyes this long at most.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// Who this node is in gossip.
#[derive(Debug, Clone)]
pub struct MembershipConfig {
    /// Nodes with another text never hear each other: the cluster's name.
    pub cluster: String,
    pub node: NodeId,
    /// Higher than at every earlier start of this node, even if the clock went back in between.
    pub generation: u64,
    /// Where other nodes send gossip; a real address, no wildcard.
    pub advertise: SocketAddr,
    pub key: Option<ClusterKey>,
    pub tuning: Tuning,
}

impl MembershipConfig {
    pub fn new(cluster: &str, node: NodeId, generation: u64, advertise: SocketAddr) -> Self {
        Self { cluster: cluster.to_owned(), node, generation, advertise, key: None, tuning: Tuning::default() }
    }
}

/// How fast gossip is. A node counts as dead when it was not heard for `phi` times the mean interval between its last
/// `window` heartbeats, of which the first are taken for `initial_interval`.
#[derive(Debug, Clone)]
pub struct Tuning {
    pub interval: Duration,
    pub phi: f64,
    pub initial_interval: Duration,
    pub window: usize,
    /// Longer silences say nothing about the rhythm.
    pub max_interval: Duration,
    /// A dead node is forgotten after this; it stops being mentioned to others after half of it.
    pub forget_dead: Duration,
    /// Changes of what this node says that come closer together go out as one.
    pub coalesce: Duration,
    /// Names among the seeds are looked up again after this.
    pub resolve_every: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(200),
            phi: 8.0,
            initial_interval: Duration::from_millis(400),
            window: 100,
            max_interval: Duration::from_secs(2),
            forget_dead: Duration::from_secs(15 * 60),
            coalesce: Duration::from_millis(50),
            resolve_every: Duration::from_secs(3),
        }
    }
}

/// Handle of this node's part in gossip; clones share it.
#[derive(Debug, Clone)]
pub struct Membership {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    announced: watch::Sender<Announcement>,
    seeds: watch::Sender<Vec<String>>,
    members: watch::Receiver<Arc<Members>>,
    view: watch::Receiver<Arc<View>>,
    counters: Arc<Counters>,
    leave: CancellationToken,
    left: CancellationToken,
}

impl Membership {
    /// Begins to gossip over `sockets`, one per address family at most, until `tasks` stop. `seeds` are `host:port`; one
    /// that does not answer, or has no address yet, is asked again all the time.
    ///
    /// # Errors
    ///
    /// A socket cannot be used.
    pub fn start(
        config: MembershipConfig,
        sockets: Vec<UdpSocket>,
        me: Announcement,
        seeds: Vec<String>,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let transport = Udp::new(sockets, config.cluster.clone(), config.key.clone(), counters.clone())?;
        Ok(Self::over(config, Arc::new(transport), counters, me, seeds, tasks))
    }

    fn over(
        config: MembershipConfig,
        transport: Arc<dyn Transport>,
        counters: Arc<Counters>,
        me: Announcement,
        seeds: Vec<String>,
        tasks: &Tasks,
    ) -> Self {
        let (announced, heard) = watch::channel(me);
        let (seeds, wanted) = watch::channel(seeds);
        let (found, addresses) = watch::channel(Arc::<BTreeSet<SocketAddr>>::default());
        let (seen, members) = watch::channel(Arc::<Members>::default());
        let (made, view) = watch::channel(Arc::<View>::default());
        let (leave, left) = (CancellationToken::new(), CancellationToken::new());
        let every = config.tuning.resolve_every;
        tasks.spawn(Kind::Service, "seeds", seeds::follow(wanted, found, every, tasks.clone()));
        let gossip = Gossip {
            config,
            transport,
            announced: heard,
            seeds: addresses,
            members: seen,
            view: made,
            counters: counters.clone(),
            leave: leave.clone(),
            left: left.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(Kind::Service, "gossip", gossip.run());
        Self { inner: Arc::new(Inner { announced, seeds, members, view, counters, leave, left }) }
    }

    /// Changes what this node says. Others hear of it within a round or two.
    pub fn publish(&self, change: impl FnOnce(&mut Announcement)) {
        self.inner.announced.send_if_modified(|said| {
            let before = said.clone();
            change(said);
            *said != before
        });
    }

    /// What this node says.
    pub fn announced(&self) -> Announcement {
        self.inner.announced.borrow().clone()
    }

    /// What routing decides on; a new value with each change. Empty until gossip has begun.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.inner.view.clone()
    }

    /// Everybody known, with what routing does not need: since when somebody is dead, what else they said. Of the view's
    /// version, or one behind it for a moment.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.inner.members.clone()
    }

    /// Replaces the seeds.
    pub fn seed(&self, seeds: Vec<String>) {
        self.inner.seeds.send_if_modified(|known| {
            let changed = *known != seeds;
            *known = seeds;
            changed
        });
    }

    /// Tells the others that this node ends, so that nobody waits for it, and stops gossiping. Harmless when repeated.
    pub async fn leave(&self) {
        self.publish(|me| me.phase = Phase::Leaving);
        self.inner.leave.cancel();
        if tokio::time::timeout(LEAVE_PATIENCE, self.inner.left.cancelled()).await.is_err() {
            tracing::warn!("the other nodes may not have heard that this one leaves");
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }
}

#[cfg(test)]
mod convergence_test;
#[cfg(test)]
mod membership_test;
