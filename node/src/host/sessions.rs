//! This host's sessions with the owners on other nodes: pings out, leases in, lapses to the guard.
//!
//! The rule is [`Sessions`]' own (`node/engine/src/guard/session.rs`): a frame of another node's owner may reach the app
//! only while that owner's last answer is young enough. Here it is carried out: one task pings every node that may own
//! partitions, one tells the guard of what has lapsed, and [`HostSessions::permits`] is asked immediately before each
//! first byte.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_engine::guard::{Permit, SessionConfig, SessionId, Sessions};
use callboard_proto::calls as wire;
use callboard_types::{NodeId, PartitionId};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, watch};

use super::Host;
use crate::clock;
use crate::links::{Errand, Links};
use crate::tasks::{Kind, Tasks};

/// Between two pings of one owner: three in a row may get lost within a lease.
const PING_EVERY: Duration = Duration::from_millis(150);
/// How long a dispatch waits for the ping that its lapsed lease needs.
const PING_LIMIT: Duration = Duration::from_millis(500);

/// Handle of the sessions; clones share them.
#[derive(Clone)]
pub struct HostSessions {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    links: Arc<dyn Links>,
    table: Mutex<Sessions>,
    /// Wakes the task that looks for lapses: a lease was extended or added.
    confirmed: Notify,
    tasks: Tasks,
}

impl HostSessions {
    /// Keeps a session with each of `owners`, while it is among them.
    pub fn start(
        host: Host,
        links: Arc<dyn Links>,
        config: SessionConfig,
        owners: watch::Receiver<Arc<BTreeSet<NodeId>>>,
        tasks: &Tasks,
    ) -> Self {
        // Above the numbers of an earlier process of this node, by the wall clock.
        let number = u64::try_from(clock::wall().as_micros()).unwrap_or(0);
        let table = Mutex::new(Sessions::new(config, number));
        let inner = Inner { host, links, table, confirmed: Notify::new(), tasks: tasks.clone() };
        let sessions = Self { inner: Arc::new(inner) };
        tasks.spawn(Kind::Service, "host-sessions", sessions.clone().follow(owners));
        tasks.spawn(Kind::Service, "host-lapses", sessions.clone().watch_lapses());
        sessions
    }

    /// Whether a frame of this session may reach the app at this moment.
    pub fn permits(&self, session: SessionId, partition: PartitionId) -> bool {
        matches!(self.inner.table.lock().permit(clock::monotonic(), session, partition), Permit::Granted { .. })
    }

    /// As [`HostSessions::permits`]; where the lease has lapsed, or was never given, the owner is asked first.
    pub async fn confirmed(&self, session: SessionId, partition: PartitionId) -> bool {
        let permit = self.inner.table.lock().permit(clock::monotonic(), session, partition);
        match permit {
            Permit::Granted { .. } => true,
            Permit::OldSession => false,
            Permit::Lapsed => {
                self.ping(session).await;
                self.permits(session, partition)
            }
        }
    }

    /// Begins and ends sessions as owners come and go.
    async fn follow(self, mut owners: watch::Receiver<Arc<BTreeSet<NodeId>>>) {
        let mut known = BTreeSet::new();
        loop {
            let wanted = owners.borrow_and_update().clone();
            for &owner in wanted.difference(&known) {
                let (session, former) = self.inner.table.lock().begin(owner);
                self.doubt(former);
                self.inner.tasks.spawn(Kind::Work, "host-pings", self.clone().keep(session, owners.clone()));
            }
            for &owner in known.difference(&wanted) {
                let former = self.inner.table.lock().end(owner);
                self.doubt(former);
            }
            known = wanted.as_ref().clone();
            tokio::select! {
                biased;
                () = self.inner.tasks.stopping() => return,
                changed = owners.changed() => if changed.is_err() {
                    return self.inner.tasks.stopping().await;
                },
            }
        }
    }

    fn doubt(&self, former: Option<SessionId>) {
        if let Some(former) = former {
            self.inner.host.lapsed(former, None);
        }
    }

    /// Pings one owner for as long as it is one.
    async fn keep(self, session: SessionId, mut owners: watch::Receiver<Arc<BTreeSet<NodeId>>>) {
        let gone = async move {
            let _ = owners.wait_for(|owners| !owners.contains(&session.owner)).await;
        };
        let pings = async {
            loop {
                let next = tokio::time::sleep(PING_EVERY);
                // A ping that is slow does not hold up the next one.
                self.inner.tasks.spawn(Kind::Work, "ping", {
                    let sessions = self.clone();
                    async move { sessions.ping(session).await }
                });
                next.await;
            }
        };
        tokio::select! {
            biased;
            () = self.inner.tasks.stopping() => {}
            () = gone => {}
            () = pings => {}
        }
    }

    /// One ping, counted from when it is sent.
    async fn ping(&self, session: SessionId) {
        let sent = clock::monotonic();
        let body = wire::Ping { session: session.number }.encode_to_vec();
        let answer = self.inner.links.send(session.owner, Errand::Ping, Bytes::from(body), PING_LIMIT).await;
        let Ok(Ok(pong)) = answer.map(wire::Pong::decode) else { return };
        self.inner.table.lock().answered(session, sent, pong.partitions.into_iter().map(PartitionId));
        self.inner.confirmed.notify_one();
    }

    /// Tells the guard of each lease that ends, when it ends.
    async fn watch_lapses(self) {
        loop {
            let now = clock::monotonic();
            let (lapsed, next) = {
                let mut table = self.inner.table.lock();
                (table.lapse(now), table.next_lapse())
            };
            for (session, partition) in lapsed {
                let doubtful = self.inner.host.lapsed(session, Some(partition));
                if doubtful > 0 {
                    tracing::info!(%partition, owner = %session.owner, doubtful, "the owner is silent: its actors here are removed before they are used again");
                }
            }
            let wait = next.unwrap_or(Instant::MAX).saturating_since(now);
            tokio::select! {
                biased;
                () = self.inner.tasks.stopping() => return,
                () = self.inner.confirmed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}
