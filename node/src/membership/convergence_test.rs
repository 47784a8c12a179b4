//! How fast news travels, in virtual time over the library's own in-memory network: the same on every machine.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use callboard_types::ClusterId;
use chitchat::transport::{ChannelTransport, Socket};
use chitchat::{ChitchatMessage, Serializable};

use super::*;
use crate::clock;

const PATIENCE: Duration = Duration::from_secs(60);

/// A network in memory that also holds every message against what [`scan`] lets through, and cuts it as UDP would.
#[derive(Clone, Default)]
struct Network {
    channels: ChannelTransport,
    unacceptable: Arc<AtomicUsize>,
    longest: Arc<AtomicUsize>,
    datagrams: Arc<AtomicUsize>,
}

struct Checked {
    socket: Box<dyn Socket>,
    network: Network,
}

#[async_trait]
impl Transport for Network {
    async fn open(&self, at: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(Checked { socket: self.channels.open(at).await?, network: self.clone() }))
    }
}

#[async_trait]
impl Socket for Checked {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let bytes = message.serialize_to_vec();
        let parts = wire::Cutter::new(None, 0).cut(&bytes).map_or(0, |parts| parts.len());
        self.network.datagrams.fetch_add(parts, Ordering::Relaxed);
        self.network.longest.fetch_max(bytes.len(), Ordering::Relaxed);
        if parts == 0 || !scan::acceptable(&bytes) {
            self.network.unacceptable.fetch_add(1, Ordering::Relaxed);
        }
        self.socket.send(to, message).await
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        self.socket.recv().await
    }
}

struct Node {
    membership: Membership,
    tasks: Tasks,
}

fn address(node: u64) -> SocketAddr {
    ([10, 0, (node / 250) as u8, (node % 250) as u8], 50_002).into()
}

fn announcement(node: u64) -> Announcement {
    Announcement {
        name: format!("node-{node}").into(),
        role: Role::Storage,
        phase: Phase::Serving,
        cluster: Some(ClusterId(1)),
        peer: vec![address(node).to_string().into()],
        ..Announcement::default()
    }
}

impl Network {
    /// Node `node` with node 1 as its seed.
    fn start(&self, node: u64, generation: u64, me: Announcement) -> Node {
        self.start_with(MembershipConfig::new("test", NodeId(node), generation, address(node)), me)
    }

    fn start_with(&self, config: MembershipConfig, me: Announcement) -> Node {
        let tasks = Tasks::new();
        let seeds = vec![address(1).to_string()];
        let membership = Membership::over(config, Arc::new(self.clone()), Arc::default(), me, seeds, &tasks);
        Node { membership, tasks }
    }

    fn many(&self, count: u64) -> Vec<Node> {
        (1..=count).map(|node| self.start(node, 1, announcement(node))).collect()
    }

    fn check(&self) {
        assert_eq!(self.unacceptable.load(Ordering::Relaxed), 0);
    }
}

impl Node {
    /// Waits until the node's view is as wanted.
    async fn sees(&self, wanted: impl FnMut(&Arc<Members>) -> bool) {
        let mut view = self.membership.members();
        let waited = tokio::time::timeout(PATIENCE, view.wait_for(wanted)).await;
        drop(waited.expect("the view is not as wanted in time").expect("gossip runs"));
    }

    async fn end(self) {
        self.tasks.join().await;
        assert_eq!(self.membership.counters().restarts.load(Ordering::Relaxed), 0);
    }
}

/// Virtual time until every one of `nodes` sees what is wanted.
async fn until_all(nodes: &[Node], wanted: impl Fn(&Arc<Members>) -> bool + Copy) -> Duration {
    let began = clock::runtime();
    for node in nodes {
        node.sees(wanted).await;
    }
    clock::runtime().saturating_duration_since(began)
}

async fn end(nodes: Vec<Node>) {
    for node in nodes {
        node.end().await;
    }
}

fn live(members: &Members) -> usize {
    members.live().count()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_nodes_know_each_other_within_five_seconds() {
    let network = Network::default();
    let nodes = network.many(100);
    let took = until_all(&nodes, |members| live(members) == 100).await;
    let statistics = network.channels.statistics();
    println!(
        "100 nodes through one seed: {took:?}, {} messages, {} bytes, {} datagrams, longest message {} bytes",
        statistics.num_messages_total,
        statistics.num_bytes_total,
        network.datagrams.load(Ordering::Relaxed),
        network.longest.load(Ordering::Relaxed),
    );
    assert!(took <= Duration::from_secs(5), "{took:?}");
    network.check();
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_with_two_hundred_types_each_know_all_of_them() {
    let network = Network::default();
    let with_types = |node| Announcement {
        types: (0..200).map(|n| (format!("Type-{n:03}-with-quite-a-name-{node}").into(), 0xABCD_EF01 + n)).collect(),
        ..announcement(node)
    };
    let nodes: Vec<_> = (1..=30).map(|node| network.start(node, 1, with_types(node))).collect();
    let took =
        until_all(&nodes, |members| members.live().filter(|member| member.said.types.len() == 200).count() == 30).await;
    println!("30 nodes of 200 types: {took:?}, longest message {}", network.longest.load(Ordering::Relaxed));
    assert!(took <= Duration::from_secs(5), "{took:?}");
    network.check();
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn the_greatest_possible_announcements_still_travel() {
    let network = Network::default();
    let greatest = |node: u64| Announcement {
        types: (0..announce::MAX_TYPES as u64).map(|n| (format!("{node:03}-{n:059}").into(), u64::MAX - n)).collect(),
        ..announcement(node)
    };
    let nodes: Vec<_> = (1..=8).map(|node| network.start(node, 1, greatest(node))).collect();
    let all = |members: &Arc<Members>| {
        members.live().filter(|member| member.said.types.len() == announce::MAX_TYPES).count() == 8
    };
    let took = until_all(&nodes, all).await;
    println!(
        "8 nodes of {} types: {took:?}, longest message {}",
        announce::MAX_TYPES,
        network.longest.load(Ordering::Relaxed)
    );
    network.check();
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_seen_dead_within_three_seconds_and_its_next_life_replaces_it() {
    for count in [3, 5, 20] {
        let network = Network::default();
        let mut nodes = network.many(count);
        until_all(&nodes, |members| live(members) == count as usize).await;
        // Long enough for the failure detector to know the rhythm.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let victim = NodeId(count);
        nodes.pop().expect("a node").end().await;
        let dead = |members: &Arc<Members>| {
            members.get(victim).is_some_and(|member| matches!(member.standing, Standing::Dead { .. }))
        };
        let took = until_all(&nodes, dead).await;
        println!("{count} nodes: a killed one is dead for all after {took:?}");
        assert!(took <= Duration::from_secs(3), "{took:?}");
        nodes.push(network.start(count, 2, announcement(count)));
        let back = |members: &Arc<Members>| {
            members.get(victim).is_some_and(|member| member.is_live() && member.generation == 2)
                && members.all.len() == count as usize
        };
        let took = until_all(&nodes, back).await;
        println!("{count} nodes: its next life is live for all after {took:?}");
        assert!(took <= Duration::from_secs(3), "{took:?}");
        network.check();
        end(nodes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_gone_for_all_within_a_round() {
    let network = Network::default();
    let mut nodes = network.many(10);
    until_all(&nodes, |members| live(members) == 10).await;
    let leaver = nodes.pop().expect("a node");
    let gone = |members: &Arc<Members>| {
        let member = members.get(NodeId(10));
        live(members) == 9 && member.is_some_and(|member| matches!(member.standing, Standing::Left { .. }))
    };
    let ((), took) = tokio::join!(leaver.membership.leave(), until_all(&nodes, gone));
    assert!(took < Duration::from_millis(200), "{took:?}");
    // Said again, it is heard at once that all is done; and the node has not failed by it.
    leaver.membership.leave().await;
    assert!(!leaver.tasks.is_stopping());
    leaver.end().await;
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_node_of_few_says_is_known_to_all_within_a_round() {
    let network = Network::default();
    let nodes = network.many(5);
    until_all(&nodes, |members| live(members) == 5).await;
    for recovery in 1..20 {
        nodes[1].membership.publish(|me| me.recovery = recovery);
        let heard =
            until_all(&nodes, |members| members.get(NodeId(2)).is_some_and(|member| member.said.recovery == recovery));
        let took = heard.await;
        assert!(took <= Duration::from_millis(200), "{took:?}");
        tokio::time::sleep(Duration::from_millis(370)).await;
    }
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_node_says_is_known_everywhere_within_two_seconds() {
    let network = Network::default();
    let nodes = network.many(30);
    until_all(&nodes, |members| live(members) == 30).await;
    nodes[4].membership.publish(|me| {
        me.types.insert("Cat".into(), 7);
    });
    let hosted =
        |members: &Arc<Members>| members.get(NodeId(5)).is_some_and(|member| member.said.types.get("Cat") == Some(&7));
    let took = until_all(&nodes, hosted).await;
    nodes[4].membership.publish(|me| me.types.clear());
    let withdrawn =
        until_all(&nodes, |members| members.get(NodeId(5)).is_some_and(|member| member.said.types.is_empty())).await;
    println!("30 nodes: a type is known to all after {took:?}, and known to be withdrawn after {withdrawn:?}");
    assert!(took.max(withdrawn) <= Duration::from_secs(2));
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn halves_that_lost_each_other_are_live_again_soon_after_they_can_talk() {
    let network = Network::default();
    let nodes = network.many(6);
    until_all(&nodes, |members| live(members) == 6).await;
    let pairs: Vec<_> = (1..=3).flat_map(|a| (4..=6).map(move |b| (address(a), address(b)))).collect();
    for (a, b) in &pairs {
        network.channels.remove_link(*a, *b).await;
    }
    until_all(&nodes, |members| live(members) == 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    for (a, b) in &pairs {
        network.channels.add_link(*a, *b).await;
    }
    let took = until_all(&nodes, |members| live(members) == 6).await;
    assert!(took <= Duration::from_secs(3), "{took:?}");
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn halves_that_have_forgotten_each_other_find_together_through_a_seed() {
    let network = Network::default();
    let start = |node| {
        let mut config = MembershipConfig::new("test", NodeId(node), 1, address(node));
        config.tuning.forget_dead = Duration::from_secs(5);
        network.start_with(config, announcement(node))
    };
    let nodes: Vec<_> = (1..=4).map(start).collect();
    until_all(&nodes, |members| live(members) == 4).await;
    let pairs = [(1, 3), (1, 4), (2, 3), (2, 4)].map(|(a, b)| (address(a), address(b)));
    for (a, b) in pairs {
        network.channels.remove_link(a, b).await;
    }
    until_all(&nodes, |members| members.all.len() == 2).await;
    for (a, b) in pairs {
        network.channels.add_link(a, b).await;
    }
    let took = until_all(&nodes, |members| live(members) == 4).await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    end(nodes).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_lost_in_three_quiet_minutes() {
    let network = Network::default();
    let nodes = network.many(7);
    until_all(&nodes, |members| live(members) == 7).await;
    let versions: Vec<_> = nodes.iter().map(|node| node.membership.members().borrow().version).collect();
    tokio::time::sleep(Duration::from_secs(180)).await;
    for (node, version) in nodes.iter().zip(versions) {
        assert_eq!(node.membership.members().borrow().version, version);
    }
    end(nodes).await;
}
