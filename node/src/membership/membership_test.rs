//! Nodes over UDP on the loopback address. What is promised about time is in `convergence_test`; here only that it happens.

use std::sync::atomic::{AtomicU64, Ordering};

use callboard_types::ClusterId;
use chitchat::{ChitchatMessage, Deserializable};
use rand::Rng;

use super::wire::{Cutter, Joiner};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    membership: Membership,
    tasks: Tasks,
    address: SocketAddr,
}

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn announcement(node: u64) -> Announcement {
    Announcement {
        name: format!("node-{node}").into(),
        phase: Phase::Serving,
        cluster: Some(ClusterId(1)),
        ..Announcement::default()
    }
}

/// What differs between the nodes of a test.
#[derive(Clone)]
struct Kind {
    cluster: &'static str,
    key: Option<[u8; 32]>,
    generation: u64,
}

impl Default for Kind {
    fn default() -> Self {
        Self { cluster: "test", key: None, generation: 1 }
    }
}

impl Node {
    fn start(node: u64, seeds: &[String], kind: &Kind) -> Self {
        let (socket, address) = socket();
        Self::on(socket, address, node, seeds, kind)
    }

    fn on(socket: UdpSocket, address: SocketAddr, node: u64, seeds: &[String], kind: &Kind) -> Self {
        let tasks = Tasks::new();
        let mut config = MembershipConfig::new(kind.cluster, NodeId(node), kind.generation, address);
        config.key = kind.key.map(ClusterKey::new);
        config.tuning.resolve_every = Duration::from_millis(200);
        let started = Membership::start(config, vec![socket], announcement(node), seeds.to_vec(), &tasks);
        Self { membership: started.unwrap(), tasks, address }
    }

    fn seed(&self) -> Vec<String> {
        vec![self.address.to_string()]
    }

    async fn sees(&self, wanted: impl FnMut(&Arc<Members>) -> bool) {
        let mut view = self.membership.members();
        let waited = tokio::time::timeout(PATIENCE, view.wait_for(wanted)).await;
        drop(waited.expect("the view is not as wanted in time").expect("gossip runs"));
    }

    async fn sees_live(&self, nodes: &[u64]) {
        self.sees(|members| members.live().map(|member| member.node.0).eq(nodes.iter().copied())).await;
    }

    async fn counts(&self, counter: impl Fn(&Counters) -> &AtomicU64) {
        let counted = async {
            while counter(self.membership.counters()).load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect("it is counted");
    }

    fn restarts(&self) -> u64 {
        self.membership.counters().restarts.load(Ordering::Relaxed)
    }

    /// Ends without a word, as a killed process does.
    async fn end(self) {
        self.tasks.join().await;
    }
}

async fn cluster(count: u64, kind: &Kind) -> Vec<Node> {
    let first = Node::start(1, &[], kind);
    let seed = first.seed();
    let mut nodes = vec![first];
    nodes.extend((2..=count).map(|node| Node::start(node, &seed, kind)));
    let all: Vec<_> = (1..=count).collect();
    for node in &nodes {
        node.sees_live(&all).await;
    }
    nodes
}

async fn end(nodes: Vec<Node>) {
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn five_nodes_find_each_other_through_one_seed() {
    for kind in [Kind::default(), Kind { key: Some([7; 32]), ..Kind::default() }] {
        let nodes = cluster(5, &kind).await;
        let seen = nodes[0].membership.members().borrow().clone();
        let fourth = seen.get(NodeId(4)).unwrap();
        assert_eq!((*fourth.said).clone(), announcement(4));
        assert_eq!(fourth.gossip, nodes[3].address);
        end(nodes).await;
    }
}

#[tokio::test]
async fn a_killed_node_is_dead_and_its_next_life_replaces_it() {
    let mut nodes = cluster(3, &Kind::default()).await;
    let victim = nodes.pop().unwrap();
    let address = victim.address;
    victim.end().await;
    nodes[0].sees_live(&[1, 2]).await;
    let dead = nodes[0].membership.members().borrow().get(NodeId(3)).unwrap().standing;
    assert!(matches!(dead, Standing::Dead { .. }), "{dead:?}");
    let socket = UdpSocket::bind(address).unwrap();
    let next = Kind { generation: 2, ..Kind::default() };
    nodes.push(Node::on(socket, address, 3, &nodes[1].seed(), &next));
    for node in &nodes {
        node.sees_live(&[1, 2, 3]).await;
        assert_eq!(node.membership.members().borrow().get(NodeId(3)).unwrap().generation, 2);
    }
    end(nodes).await;
}

#[tokio::test]
async fn a_node_that_restarts_at_once_replaces_its_older_self_before_that_is_dead() {
    let mut nodes = cluster(3, &Kind::default()).await;
    let victim = nodes.pop().unwrap();
    victim.end().await;
    nodes.push(Node::start(3, &nodes[0].seed(), &Kind { generation: 2, ..Kind::default() }));
    for node in &nodes {
        node.sees(|members| members.get(NodeId(3)).is_some_and(|member| member.is_live() && member.generation == 2))
            .await;
    }
    end(nodes).await;
}

#[tokio::test]
async fn strangers_without_the_key_or_with_another_one_are_kept_out() {
    let kind = |key| Kind { key, ..Kind::default() };
    let nodes = cluster(2, &kind(Some([1; 32]))).await;
    let strangers = [kind(None), kind(Some([2; 32]))].map(|kind| Node::start(9, &nodes[0].seed(), &kind));
    for stranger in &strangers {
        // They ask in every round; the answers they do not get are what they would need to see anybody.
        stranger.counts(|counters| &counters.datagrams_sent).await;
    }
    nodes[0].counts(|counters| &counters.forged).await;
    // A friend that comes later is in, and the strangers still are not.
    let friend = Node::start(3, &nodes[0].seed(), &kind(Some([1; 32])));
    nodes[0].sees_live(&[1, 2, 3]).await;
    for stranger in &strangers {
        stranger.sees_live(&[9]).await;
    }
    assert_eq!(nodes[0].membership.members().borrow().get(NodeId(9)), None);
    end(nodes).await;
    end(strangers.into()).await;
    friend.end().await;
}

#[tokio::test]
async fn nodes_of_another_cluster_name_or_id_are_kept_out() {
    let nodes = cluster(2, &Kind::default()).await;
    let other = Node::start(8, &nodes[0].seed(), &Kind { cluster: "other", ..Kind::default() });
    nodes[0].counts(|counters| &counters.other_cluster).await;
    other.counts(|counters| &counters.other_cluster).await;
    let twin = Node::start(9, &nodes[0].seed(), &Kind::default());
    twin.sees_live(&[1, 2, 9]).await;
    nodes[0].sees_live(&[1, 2, 9]).await;
    twin.membership.publish(|me| me.cluster = Some(ClusterId(2)));
    nodes[0].sees_live(&[1, 2]).await;
    twin.sees_live(&[9]).await;
    for node in &nodes {
        assert_eq!(node.membership.members().borrow().get(NodeId(8)), None);
    }
    end(nodes).await;
    end(vec![other, twin]).await;
}

#[tokio::test]
async fn what_is_published_arrives_and_what_is_withdrawn_goes() {
    let nodes = cluster(3, &Kind::default()).await;
    let healthy = |healthy| Some(App { id: "shop".into(), healthy });
    nodes[2].membership.publish(|me| {
        me.app = healthy(true);
        me.types = (0..200).map(|n| (format!("Type{n}").into(), n)).collect();
    });
    for node in &nodes {
        node.sees(|members| members.get(NodeId(3)).is_some_and(|member| member.said.types.len() == 200)).await;
    }
    nodes[2].membership.publish(|me| {
        me.app = healthy(false);
        me.types.retain(|_, digest| *digest != 17);
    });
    for node in &nodes {
        let changed = |members: &Arc<Members>| {
            let said = &members.get(NodeId(3)).unwrap().said;
            said.types.len() == 199 && said.app == healthy(false)
        };
        node.sees(changed).await;
    }
    assert_eq!(nodes[2].membership.announced().types.len(), 199);
    end(nodes).await;
}

#[tokio::test]
async fn a_seed_may_be_a_name_and_may_come_later() {
    let first = Node::start(1, &[], &Kind::default());
    let name = format!("localhost:{}", first.address.port());
    // The others do not answer, are not there, or are the node itself.
    let (silent, nowhere) = socket();
    let seeds = [nowhere.to_string(), "10.255.255.1:9".to_owned(), "no port".to_owned(), name];
    let second = Node::start(2, &seeds, &Kind::default());
    second.sees_live(&[1, 2]).await;
    let third = Node::start(3, &[], &Kind::default());
    third.membership.seed(vec![third.address.to_string(), second.address.to_string()]);
    third.sees_live(&[1, 2, 3]).await;
    drop(silent);
    end(vec![first, second, third]).await;
}

#[tokio::test]
async fn a_node_that_leaves_is_gone_before_it_could_be_missed() {
    let mut nodes = cluster(3, &Kind::default()).await;
    let leaver = nodes.pop().unwrap();
    leaver.membership.leave().await;
    for node in &nodes {
        node.sees_live(&[1, 2]).await;
        let standing = node.membership.members().borrow().get(NodeId(3)).unwrap().standing;
        assert!(matches!(standing, Standing::Left { .. }), "{standing:?}");
    }
    end(nodes).await;
    leaver.end().await;
}

/// The messages that a node sends to a seed which never answers.
async fn questions(node: &Node, seed: &tokio::net::UdpSocket, key: Option<ClusterKey>) -> Vec<u8> {
    node.membership.seed(vec![seed.local_addr().unwrap().to_string()]);
    let mut joiner = Joiner::new(key);
    let mut buffer = [0; 2_000];
    loop {
        let (length, from) = seed.recv_from(&mut buffer).await.unwrap();
        if let Ok(Some(message)) = joiner.take(from, &buffer[..length]) {
            return message;
        }
    }
}

#[tokio::test]
async fn no_datagram_stops_a_node_from_gossiping() {
    let node = Node::start(1, &[], &Kind::default());
    let attacker = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = questions(&node, &attacker, None).await;
    assert!(ChitchatMessage::deserialize(&mut question.as_slice()).is_ok());
    let mut cutter = Cutter::new(None, 0);
    let mut random = rand::rng();
    for _ in 0..2_000 {
        let mut message = question.clone();
        match random.random_range(0..4) {
            // A question with some bytes changed, cut short, or made longer; or noise.
            0 => (0..random.random_range(1..4)).for_each(|_| {
                let at = random.random_range(0..message.len());
                message[at] = random.random();
            }),
            1 => message.truncate(random.random_range(1..message.len())),
            2 => message.extend((0..random.random_range(1..50)).map(|_| rand::random::<u8>())),
            _ => message = (0..random.random_range(1..200)).map(|_| rand::random()).collect(),
        }
        let mut datagrams = cutter.cut(&message).unwrap();
        if random.random_ratio(1, 4) {
            let at = random.random_range(0..datagrams[0].len());
            datagrams[0][at] = random.random();
        }
        for datagram in datagrams {
            attacker.send_to(&datagram, node.address).await.unwrap();
        }
    }
    node.counts(|counters| &counters.malformed).await;
    let friend = Node::start(2, &node.seed(), &Kind::default());
    let found = |members: &Arc<Members>| members.get(NodeId(2)).is_some_and(Member::is_live);
    node.sees(found).await;
    end(vec![node, friend]).await;
}

#[tokio::test]
async fn a_message_beyond_the_limits_is_dropped_though_the_library_would_unpack_it() {
    let node = Node::start(1, &[], &Kind::default());
    let attacker = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let message = [&45_139u16.to_le_bytes()[..], &[0, 2], &[2, 0, 0].repeat(5_000), &[0]].concat();
    assert!(ChitchatMessage::deserialize(&mut message.as_slice()).is_ok());
    for datagram in Cutter::new(None, 0).cut(&message).unwrap() {
        attacker.send_to(&datagram, node.address).await.unwrap();
    }
    node.counts(|counters| &counters.malformed).await;
    assert_eq!(node.membership.counters().messages_received.load(Ordering::Relaxed), 0);
    node.end().await;
}

/// A message that the library decodes and then cannot bear: it gives a node a version below that of one of its values.
fn poison(victim: &Node) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
    let SocketAddr::V4(address) = victim.address else { panic!("an IPv4 address") };
    let number = |number: u64| number.to_le_bytes();
    let (name, key) = (text(&announce::node_text(NodeId(1))), text("me"));
    let id = [&name[..], &number(1), &[4], &address.ip().octets(), &address.port().to_le_bytes()].concat();
    let node = [&[0], &id[..], &number(0), &number(0)].concat();
    let value = [&[1], &key[..], &text("x"), &number(1_000), &[0]].concat();
    let version = [&[2][..], &number(500)].concat();
    let block = [node, value, version].concat();
    [&45_139u16.to_le_bytes()[..], &[0, 2, 2], &(block.len() as u16).to_le_bytes(), &block, &[0]].concat()
}

#[tokio::test]
async fn a_message_that_ends_the_library_costs_a_restart_and_nothing_else() {
    let nodes = cluster(2, &Kind::default()).await;
    let attacker = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let message = poison(&nodes[0]);
    assert!(scan::acceptable(&message));
    for datagram in Cutter::new(None, 0).cut(&message).unwrap() {
        attacker.send_to(&datagram, nodes[0].address).await.unwrap();
    }
    nodes[0].counts(|counters| &counters.restarts).await;
    for node in &nodes {
        let again = |members: &Arc<Members>| {
            members.live().count() == 2 && members.get(NodeId(1)).is_some_and(|member| member.generation == 2)
        };
        node.sees(again).await;
    }
    assert_eq!((nodes[0].restarts(), nodes[1].restarts()), (1, 0));
    assert!(!nodes[0].tasks.is_stopping());
    end(nodes).await;
}

#[tokio::test]
async fn gossip_without_a_socket_is_refused() {
    let config = MembershipConfig::new("test", NodeId(1), 1, ([127, 0, 0, 1], 1).into());
    let started = Membership::start(config, Vec::new(), Announcement::default(), Vec::new(), &Tasks::new());
    assert!(started.is_err());
}

#[tokio::test]
async fn nodes_of_both_address_families_gossip_over_one_socket_each() {
    let Ok(six) = UdpSocket::bind("[::1]:0") else { return };
    let six_at = six.local_addr().unwrap();
    let (four, four_at) = socket();
    let tasks = Tasks::new();
    let config = MembershipConfig::new("test", NodeId(1), 1, four_at);
    let membership = Membership::start(config, vec![four, six], announcement(1), vec![], &tasks).unwrap();
    let both = Node { membership, tasks, address: four_at };
    let (socket, address) = {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    };
    let only_six = Node::on(socket, address, 2, &[six_at.to_string()], &Kind::default());
    both.sees_live(&[1, 2]).await;
    let only_four = Node::start(3, &both.seed(), &Kind::default());
    both.sees_live(&[1, 2, 3]).await;
    end(vec![both, only_six, only_four]).await;
}
