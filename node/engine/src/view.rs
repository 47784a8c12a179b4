//! What a node knows of the others at one moment.
//!
//! Every node publishes a few facts of itself through gossip; a [`View`] is those facts of all nodes, put in order once
//! and then only read: whoever routes a call takes the view that is current and keeps it for as long as the call needs
//! it. All of it is hint. A wrong hint costs a hop or a retry; what must be agreed is in the logs.
//!
//! How contradictions end:
//!
//! - *Two lives of one node.* A node that restarted is gossiped beside its former self until that is forgotten. The
//!   higher generation is the node, also when it is the one that is down.
//! - *Two owners of one partition.* Each says under which epoch it owns it; the higher epoch is the later claim. A
//!   recovery raises the generation that all epochs stand under, so it counts before them.
//! - *No owner.* Then the table's preferred leader is asked, if it is up: it is probably about to claim.
//!
//! Only nodes that are up host, own or serve anything. One that is leaving still owns what it has not handed over.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use callboard_types::{Epoch, NodeId, PartitionId};

use crate::choice::invoke::InstanceId;
use crate::placement::Table;
use crate::ring::Ring;

/// What a node says of itself, and whether it is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    pub node: NodeId,
    /// Rises with every start of the node.
    pub generation: u64,
    pub presence: Presence,
    pub name: Arc<str>,
    pub zone: Arc<str>,
    pub role: Role,
    /// Where its peer port is reached: host and port.
    pub peer: Arc<str>,
    pub namespace: Arc<str>,
    pub app: Option<App>,
    /// Actor types that its app hosts, each with the digest of its configuration. Empty while the app is unhealthy.
    pub types: BTreeMap<Arc<str>, u64>,
    /// The recovery generation that it has seen.
    pub recovery: u64,
    /// Partitions that it owns, and since which claim.
    pub owns: BTreeMap<PartitionId, Epoch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Up,
    /// Up, and on its way out: nothing is begun there.
    Leaving,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Storage,
    Gateway,
}

/// The app that a node is the sidecar of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    pub id: Arc<str>,
    pub healthy: bool,
}

/// Where a partition's owner is thought to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    pub node: NodeId,
    /// `None`: it is only the preferred leader.
    pub claim: Option<Claim>,
}

/// Of two claims the greater one is the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    pub recovery: u64,
    pub epoch: Epoch,
}

/// A node that hosts an actor type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeHost {
    pub node: NodeId,
    pub digest: u64,
}

/// The instances of one app that have a node beside them.
#[derive(Debug, Clone, Default)]
pub struct AppInstances {
    /// By node id.
    nodes: Vec<AppInstance>,
    ring: OnceLock<Ring<InstanceId>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppInstance {
    pub node: NodeId,
    pub healthy: bool,
}

impl AppInstances {
    pub fn nodes(&self) -> &[AppInstance] {
        &self.nodes
    }

    /// All of them, healthy or not, for calls with a hash key; made when it is first asked for.
    pub fn ring(&self) -> &Ring<InstanceId> {
        self.ring.get_or_init(|| Ring::new(self.nodes.iter().map(|instance| (instance.node.into(), 1))))
    }
}

/// All nodes at one moment. Shared, never changed.
#[derive(Debug, Clone, Default)]
pub struct View {
    version: u64,
    nodes: BTreeMap<NodeId, Arc<NodeReport>>,
    /// By partition.
    owners: Vec<Option<Located>>,
    /// Namespace, then type.
    hosts: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<TypeHost>>>,
    /// Namespace, then app id.
    apps: BTreeMap<Arc<str>, BTreeMap<Arc<str>, AppInstances>>,
}

impl View {
    /// The view that the reports make, in any order, several of one node among them.
    pub fn new(version: u64, partitions: u32, reports: impl IntoIterator<Item = Arc<NodeReport>>) -> Self {
        let mut view = Self { version, owners: vec![None; partitions as usize], ..Self::default() };
        for report in reports {
            let known = view.nodes.get(&report.node);
            if known.is_none_or(|known| known.generation <= report.generation) {
                view.nodes.insert(report.node, report);
            }
        }
        let present: Vec<_> = view.nodes.values().filter(|report| report.presence != Presence::Down).cloned().collect();
        for report in &present {
            view.take_owners(report);
            view.take_offers(report);
        }
        view
    }

    fn take_owners(&mut self, report: &NodeReport) {
        for (partition, epoch) in &report.owns {
            let claim = Some(Claim { recovery: report.recovery, epoch: *epoch });
            // A partition that the cluster does not have is a stranger's word.
            if let Some(owner) = self.owners.get_mut(partition.0 as usize)
                && owner.is_none_or(|owner| owner.claim < claim)
            {
                *owner = Some(Located { node: report.node, claim });
            }
        }
    }

    fn take_offers(&mut self, report: &NodeReport) {
        let node = report.node;
        if report.presence == Presence::Leaving {
            return;
        }
        if !report.types.is_empty() {
            let types = self.hosts.entry(report.namespace.clone()).or_default();
            for (name, &digest) in &report.types {
                types.entry(name.clone()).or_default().push(TypeHost { node, digest });
            }
        }
        if let Some(app) = &report.app {
            let apps = self.apps.entry(report.namespace.clone()).or_default();
            apps.entry(app.id.clone()).or_default().nodes.push(AppInstance { node, healthy: app.healthy });
        }
    }

    /// Rises with every view of one node; of different nodes' views it says nothing.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Every node known, up or down, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<NodeReport>> {
        self.nodes.values()
    }

    pub fn node(&self, node: NodeId) -> Option<&Arc<NodeReport>> {
        self.nodes.get(&node)
    }

    /// Whether it is heard of, leaving or not.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|report| report.presence != Presence::Down)
    }

    /// Whom to ask for a partition.
    pub fn owner(&self, partition: PartitionId, table: &Table) -> Option<Located> {
        let preferred = || table.leader(partition).filter(|node| self.is_up(*node));
        let claimed = self.owners.get(partition.0 as usize).copied().flatten();
        claimed.or_else(|| preferred().map(|node| Located { node, claim: None }))
    }

    /// The nodes whose apps host an actor type, by id.
    pub fn hosts(&self, namespace: &str, actor_type: &str) -> &[TypeHost] {
        self.hosts.get(namespace).and_then(|types| types.get(actor_type)).map_or(&[], Vec::as_slice)
    }

    /// Every actor type that somebody hosts.
    pub fn types(&self, namespace: &str) -> impl Iterator<Item = &Arc<str>> {
        self.hosts.get(namespace).into_iter().flat_map(BTreeMap::keys)
    }

    /// The instances of an app. `None`: no node has such an app.
    pub fn instances(&self, namespace: &str, app_id: &str) -> Option<&AppInstances> {
        self.apps.get(namespace)?.get(app_id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::placement::{Member, Standing, propose};

    fn report(node: u64) -> NodeReport {
        NodeReport {
            node: NodeId(node),
            generation: 1,
            presence: Presence::Up,
            name: format!("node-{node}").into(),
            zone: "".into(),
            role: Role::Storage,
            peer: format!("10.0.0.{node}:50002").into(),
            namespace: "default".into(),
            app: None,
            types: BTreeMap::new(),
            recovery: 0,
            owns: BTreeMap::new(),
        }
    }

    fn owning(report: NodeReport, owns: &[(u32, u64)]) -> NodeReport {
        let owns = owns.iter().map(|(partition, epoch)| (PartitionId(*partition), Epoch(*epoch))).collect();
        NodeReport { owns, ..report }
    }

    fn hosting(report: NodeReport, types: &[&str]) -> NodeReport {
        NodeReport { types: types.iter().map(|name| ((*name).into(), 7)).collect(), ..report }
    }

    fn serving(report: NodeReport, id: &str, healthy: bool) -> NodeReport {
        NodeReport { app: Some(App { id: id.into(), healthy }), ..report }
    }

    fn view(reports: impl IntoIterator<Item = NodeReport>) -> View {
        View::new(1, 4, reports.into_iter().map(Arc::new))
    }

    fn claimed(node: u64, recovery: u64, epoch: u64) -> Option<Located> {
        Some(Located { node: NodeId(node), claim: Some(Claim { recovery, epoch: Epoch(epoch) }) })
    }

    fn no_table() -> Table {
        Table::default()
    }

    #[test]
    fn the_highest_epoch_is_the_owner() {
        let view = view([owning(report(1), &[(0, 5), (1, 2)]), owning(report(2), &[(0, 6), (1, 1)])]);
        assert_eq!(view.owner(PartitionId(0), &no_table()), claimed(2, 0, 6));
        assert_eq!(view.owner(PartitionId(1), &no_table()), claimed(1, 0, 2));
        assert_eq!(view.owner(PartitionId(2), &no_table()), None);
    }

    #[test]
    fn epochs_of_before_a_recovery_do_not_count() {
        let recovered = NodeReport { recovery: 1, ..owning(report(1), &[(0, 1)]) };
        assert_eq!(
            view([recovered, owning(report(2), &[(0, 99)])]).owner(PartitionId(0), &no_table()),
            claimed(1, 1, 1)
        );
    }

    #[test]
    fn partitions_that_the_cluster_does_not_have_are_ignored() {
        let view = view([owning(report(1), &[(4, 5), (u32::MAX, 5)])]);
        assert_eq!(view.owner(PartitionId(4), &no_table()), None);
    }

    #[test]
    fn without_a_claim_the_preferred_leader_is_asked_if_it_is_up() {
        let member = |node| Member { node: NodeId(node), zone: "".into(), weight: 1, standing: Standing::Live };
        let table = propose(&[member(1)], &Table::default(), 4, 3);
        let preferred = Some(Located { node: NodeId(1), claim: None });
        assert_eq!(view([report(1), report(2)]).owner(PartitionId(0), &table), preferred);
        assert_eq!(view([report(2)]).owner(PartitionId(0), &table), None);
        let down = NodeReport { presence: Presence::Down, ..report(1) };
        assert_eq!(view([down]).owner(PartitionId(0), &table), None);
        assert_eq!(view([report(1), owning(report(2), &[(0, 1)])]).owner(PartitionId(0), &table), claimed(2, 0, 1));
    }

    #[test]
    fn the_latest_life_of_a_node_is_the_node() {
        let former = hosting(owning(report(1), &[(0, 9)]), &["Cat"]);
        let back = NodeReport { generation: 2, ..report(1) };
        for reports in [[former.clone(), back.clone()], [back.clone(), former.clone()]] {
            let view = view(reports);
            assert_eq!((view.owner(PartitionId(0), &no_table()), view.hosts("default", "Cat")), (None, &[][..]));
            assert_eq!(view.nodes().count(), 1);
        }
        let gone = NodeReport { presence: Presence::Down, ..back };
        assert!(!view([former, gone]).is_up(NodeId(1)), "also when it is down");
    }

    #[test]
    fn a_node_that_is_down_offers_nothing_and_one_that_leaves_only_what_it_still_owns() {
        let full = |presence| {
            let report = serving(hosting(owning(report(1), &[(0, 3)]), &["Cat"]), "shop", true);
            view([NodeReport { presence, ..report }])
        };
        let offers =
            |view: &View| (!view.hosts("default", "Cat").is_empty(), view.instances("default", "shop").is_some());
        let owner = |view: &View| view.owner(PartitionId(0), &no_table()).is_some();
        let [up, leaving, down] = [Presence::Up, Presence::Leaving, Presence::Down].map(full);
        assert_eq!((offers(&up), owner(&up), up.is_up(NodeId(1))), ((true, true), true, true));
        assert_eq!((offers(&leaving), owner(&leaving), leaving.is_up(NodeId(1))), ((false, false), true, true));
        assert_eq!((offers(&down), owner(&down), down.is_up(NodeId(1))), ((false, false), false, false));
        assert_eq!(down.node(NodeId(1)).map(|node| &*node.name), Some("node-1"), "but it is known");
    }

    #[test]
    fn namespaces_are_apart() {
        let other = NodeReport { namespace: "prod".into(), ..serving(hosting(report(2), &["Cat"]), "shop", false) };
        let view = view([serving(hosting(report(1), &["Cat", "Dog"]), "shop", true), other]);
        let hosts = |namespace, name| view.hosts(namespace, name).iter().map(|host| host.node.0).collect::<Vec<_>>();
        assert_eq!((hosts("default", "Cat"), hosts("prod", "Cat"), hosts("prod", "Dog")), (vec![1], vec![2], vec![]));
        assert_eq!(view.types("default").map(|name| &**name).collect::<Vec<_>>(), ["Cat", "Dog"]);
        let instances = view.instances("prod", "shop").expect("known");
        assert_eq!(instances.nodes(), [AppInstance { node: NodeId(2), healthy: false }]);
        assert!(view.instances("test", "shop").is_none() && view.instances("prod", "cart").is_none());
    }

    #[test]
    fn the_ring_of_an_app_has_its_instances_healthy_or_not() {
        let view = view((1..=5).map(|node| serving(report(node), "shop", node % 2 == 0)));
        let instances = view.instances("default", "shop").expect("known");
        assert_eq!(instances.ring(), &Ring::new((1..=5).map(|node| (InstanceId(node), 1))));
    }

    proptest! {
        #[test]
        fn the_order_of_the_reports_does_not_matter(
            seeds in prop::collection::vec((1..5_u64, 0..4_u64, 0..3_u8, 0..4_u32, 0..6_u64), 0..12), turn in 0..12_usize,
        ) {
            // One report of each life.
            let lives: BTreeMap<_, _> = seeds.into_iter().map(|(node, generation, presence, partition, epoch)| {
                let presence = [Presence::Up, Presence::Leaving, Presence::Down][presence as usize];
                // Of one partition and epoch there is one claim.
                let owns = [(partition, epoch * 4 + node - 1)];
                let full = hosting(owning(report(node), &owns), &["Cat"]);
                ((node, generation), Arc::new(NodeReport { generation, presence, ..full }))
            }).collect();
            let mut reports: Vec<_> = lives.into_values().collect();
            let one = View::new(1, 4, reports.iter().cloned());
            let turn = turn.min(reports.len());
            reports.rotate_left(turn);
            let other = View::new(1, 4, reports);
            prop_assert!(one.nodes().eq(other.nodes()));
            prop_assert_eq!(one.hosts("default", "Cat"), other.hosts("default", "Cat"));
            for partition in (0..4).map(PartitionId) {
                let owner = one.owner(partition, &no_table());
                prop_assert_eq!(owner, other.owner(partition, &no_table()));
                let claims = one.nodes().filter(|node| node.presence != Presence::Down);
                let best = claims.filter_map(|node| node.owns.get(&partition)).max();
                prop_assert_eq!(owner.and_then(|owner| owner.claim).map(|claim| claim.epoch), best.copied());
            }
        }
    }
}
