//! What this node tells the others, and what it makes of what they say.
//!
//! Out: its app's health and types, the partitions it owns. In: addresses for the links, owners for the router, hosts for
//! the owners of this node, owners for the sessions of its host, and the death of a leader for the groups. All of it is
//! hint; each use bears that it is old or wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::actor_config::HostedTypes;
use callboard_engine::choice::hosts::{Arrivals, Hosts as Choice};
use callboard_engine::view::{NodeReport, Presence, Role, View};
use callboard_machine::meta::MetaState;
use callboard_proto::calls as wire;
use callboard_raft::{Groups, ReplicaRole};
use callboard_types::{ClusterId, Epoch, NodeId, PartitionId};
use prost::Message;
use tokio::sync::watch;

use super::table;
use crate::actors::Actors;
use crate::app::AppView;
use crate::calls::convert;
use crate::clock;
use crate::config::Config;
use crate::host::Host;
use crate::links::{Errand, Links};
use crate::membership::{self, Membership};
use crate::owner::hosts::{Hosts, Pool, Sight};
use crate::peer::Directory;
use crate::tasks::{Kind, Tasks};

/// Time counts hosts in, and partitions change owners without a word of gossip: both loops look again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// What an app hosts is asked for within this time.
const HOSTED_LIMIT: Duration = Duration::from_secs(2);
/// A group whose leader is gone campaigns this often.
const CAMPAIGN_EVERY: Duration = Duration::from_millis(75);

/// What both directions need.
#[derive(Clone)]
pub struct Seeing {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub namespace: Arc<str>,
    pub membership: Membership,
    /// Seeds that the user gave.
    pub join: Vec<String>,
    pub directory: Directory,
    pub groups: Groups,
    pub host: Host,
    pub hosts: Hosts,
    pub actors: Actors,
    pub links: Arc<dyn Links>,
    pub owners: watch::Sender<Arc<BTreeSet<NodeId>>>,
    pub tasks: Tasks,
}

impl Seeing {
    pub fn start(self) {
        let tasks = self.tasks.clone();
        tasks.spawn(Kind::Service, "tell", self.clone().tell());
        tasks.spawn(Kind::Service, "campaign", self.clone().campaign());
        tasks.spawn(Kind::Service, "see", self.see());
    }

    /// Says what the app offers and what this node owns, whenever either changes.
    async fn tell(self) {
        let mut app = self.host.app();
        loop {
            let view = app.borrow_and_update().clone();
            let owned: BTreeMap<PartitionId, Epoch> =
                self.actors.owners().reigns().iter().map(|reign| (reign.id(), reign.epoch())).collect();
            self.membership.publish(|me| {
                if me.owned != owned {
                    me.owned = owned;
                }
                offer(me, &view);
            });
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                changed = app.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    async fn see(self) {
        let mut view = self.membership.view();
        let mut meta = self.groups.meta().watch();
        let mut known = Known::default();
        loop {
            let (now, state) = (view.borrow_and_update().clone(), meta.borrow_and_update().clone());
            self.addresses(&now, &state);
            self.seed(&state);
            for report in others(&self, &now) {
                for (partition, epoch) in &report.owns {
                    self.actors.whereabouts().learn(*partition, *epoch, report.node);
                }
            }
            self.sessions(&now, &state);
            known.fetch(&self, &now).await;
            self.hosts.set_sight(known.sight(&self, &now, &state));
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                changed = view.changed() => if changed.is_err() { return },
                changed = meta.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Halves of the cluster that forgot each other find together again.
    fn seed(&self, state: &MetaState) {
        let others = state.nodes.iter().filter(|(node, _)| **node != self.node);
        let known = others.map(|(_, record)| record.address.clone()).filter(|address| !address.is_empty());
        self.membership.seed(known.chain(self.join.iter().cloned()).collect());
    }

    fn addresses(&self, view: &View, state: &MetaState) {
        for (node, record) in &state.nodes {
            if *node != self.node && !record.address.is_empty() && view.node(*node).is_none() {
                self.directory.set(*node, vec![record.address.clone()]);
            }
        }
        for report in view.nodes().filter(|report| report.node != self.node && !report.peer.is_empty()) {
            self.directory.set(report.node, vec![report.peer.to_string()]);
        }
    }

    /// Nodes that may own partitions whose actors live in this node's app.
    fn sessions(&self, view: &View, state: &MetaState) {
        let with_app = self.host.has_app();
        let holds = |node: NodeId| state.partitions.values().any(|row| row.on(node).is_some());
        let owners: BTreeSet<NodeId> =
            others(self, view).map(|report| report.node).filter(|node| with_app && holds(*node)).collect();
        self.owners.send_if_modified(|known| {
            let changed = **known != owners;
            if changed {
                *known = Arc::new(owners);
            }
            changed
        });
    }

    /// Calls an election of each group whose leader has died: gossip knows before the group's own patience ends.
    async fn campaign(self) {
        let mut view = self.membership.view();
        loop {
            let known = view.borrow_and_update().clone();
            let dead: BTreeSet<NodeId> =
                known.nodes().map(|report| report.node).filter(|node| !known.is_up(*node)).collect();
            let orphans = |status: &callboard_raft::GroupStatus| {
                let votes = status.voters.iter().any(|voters| voters.contains(&status.replica));
                votes
                    && status.role != ReplicaRole::Leader
                    && status.leader.is_some_and(|(_, leader)| dead.contains(&leader))
            };
            let orphaned: Vec<_> =
                if dead.is_empty() { Vec::new() } else { self.groups.statuses().into_iter().filter(orphans).collect() };
            for status in &orphaned {
                let _ = self.groups.campaign(status.group).await;
            }
            let again = if orphaned.is_empty() { LOOK_AGAIN } else { CAMPAIGN_EVERY };
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again) => {}
            }
        }
    }
}

/// What the app offers, in gossip.
fn offer(me: &mut membership::Announcement, view: &AppView) {
    if let Some(app) = &mut me.app {
        app.healthy = view.healthy;
    }
    let types: BTreeMap<Arc<str>, u64> = match &view.hosted {
        Some(hosted) => hosted.types.keys().map(|name| (name.clone(), hosted.digest)).collect(),
        None => BTreeMap::new(),
    };
    if me.types != types {
        me.types = types;
    }
}

/// The first announcement of a node.
pub fn announcement(config: &Config, cluster: ClusterId, role: Role, peer: &str) -> membership::Announcement {
    let app = config.app.as_ref().map(|_| membership::App { id: config.app_id.as_str().into(), healthy: false });
    membership::Announcement {
        name: config.node_name.as_str().into(),
        zone: config.zone.as_str().into(),
        role,
        phase: membership::Phase::Serving,
        namespace: config.namespace.as_str().into(),
        cluster: Some(cluster),
        peer: vec![peer.into()],
        app,
        ..membership::Announcement::default()
    }
}

/// What was asked of the others, and since when they count.
#[derive(Default)]
struct Known {
    /// What each node hosts, and the digest under which it said so.
    hosted: HashMap<NodeId, (u64, Arc<HostedTypes>)>,
    arrivals: HashMap<(Arc<str>, Arc<str>), Arrivals>,
}

impl Known {
    /// Asks those who host something else than before what that is.
    async fn fetch(&mut self, seeing: &Seeing, view: &View) {
        self.hosted.retain(|node, _| view.is_up(*node));
        for report in others(seeing, view) {
            let Some(digest) = report.types.values().next().copied() else { continue };
            if self.hosted.get(&report.node).is_some_and(|(known, _)| *known == digest) {
                continue;
            }
            let asked = seeing.links.send(report.node, Errand::Hosted, Bytes::new(), HOSTED_LIMIT).await;
            if let Ok(Ok(hosted)) = asked.map(wire::Hosted::decode) {
                let hosted = convert::get_hosted(hosted);
                self.hosted.insert(report.node, (digest, Arc::new(hosted)));
            }
        }
    }

    fn sight(&mut self, seeing: &Seeing, view: &View, state: &MetaState) -> Sight {
        let (now, table) = (clock::monotonic(), table::table(state));
        let mut offers: HashMap<(Arc<str>, Arc<str>), Vec<NodeId>> = HashMap::new();
        // One that leaves offers nothing any more, although it is up.
        for report in others(seeing, view).filter(|report| report.presence == Presence::Up) {
            for name in report.types.keys() {
                offers.entry((report.namespace.clone(), name.clone())).or_default().push(report.node);
            }
        }
        let local = seeing.host.hosted();
        let hosted_here = |key: &(Arc<str>, Arc<str>)| {
            key.0 == seeing.namespace && local.as_ref().is_some_and(|hosted| hosted.types.contains_key(&key.1))
        };
        self.arrivals.retain(|key, _| offers.contains_key(key));
        let partitions = u32::try_from(table.rows.len()).unwrap_or(u32::MAX);
        let pools = offers.into_iter().filter_map(|(key, hosts)| {
            let config = hosts.iter().find_map(|host| self.hosted.get(host)?.1.types.get(&key.1).copied())?;
            let arrivals = self.arrivals.entry(key.clone()).or_default();
            let own = hosted_here(&key).then_some(seeing.node);
            arrivals.observe(now, hosts.iter().copied().chain(own));
            let leads = arrivals.hosts(now).map(|node| (node, table.leads(node)));
            let choice = Choice::new(leads, partitions);
            Some((key, Pool { config, hosts, choice }))
        });
        Sight { pools: pools.collect() }
    }
}

/// Everybody else who is up.
fn others<'a>(seeing: &Seeing, view: &'a View) -> impl Iterator<Item = &'a Arc<NodeReport>> {
    let me = seeing.node;
    view.nodes().filter(move |report| report.node != me && report.presence != Presence::Down)
}
