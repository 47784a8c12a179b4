//! This node as one of a cluster: how it comes to it, what it holds for it, and what it knows of the others.
//!
//! ```text
//!   form        making a cluster, or joining one
//!   meta        the meta group from any node
//!   table       the placement table, carried out
//!   sight       what this node tells the others and makes of what they say
//!   serve       what other nodes ask of this one
//!   status      the cluster as people ask for it
//!   leaving     taking this node out
//!   transport   the links, in the words of those who use them
//! ```
//!
//! A node alone is a cluster of one and runs all of this.

pub mod form;
pub mod leaving;
pub mod meta;
pub mod serve;
pub mod sight;
pub mod status;
pub mod table;
pub mod transport;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context;
use callboard_engine::guard::SessionConfig;
use callboard_engine::partition::HASH_VERSION;
use callboard_engine::placement::MoveLimits;
use callboard_engine::ring::RING_VERSION;
use callboard_engine::view::Role as SeenRole;
use callboard_machine::meta::{MetaCommand, NodeRecord, Role, Settings};
use callboard_raft::{Groups, GroupsConfig};
use callboard_types::NodeId;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use crate::actors::{Actors, Owners};
use crate::cli::ports::Bound;
use crate::clock;
use crate::config::{Config, DataDir, NodeRole};
use crate::discovery::{Local, Registration};
use crate::host::Host;
use crate::host::serve::HostDoor;
use crate::host::sessions::HostSessions;
use crate::invoke::Invoker;
use crate::invoke::remote::{AppDoor, Remote};
use crate::links::Links;
use crate::membership::{Membership, MembershipConfig, Phase};
use crate::owner::hosts::Hosts;
use crate::peer::{Directory, Identity, PeerConfig, Peers};
use crate::tasks::{Kind, Tasks};

use form::Forming;
use leaving::Leaving;
use meta::Meta;
use sight::Seeing;
use status::Moves;
use table::Placing;
use transport::GroupTransport;

/// A host's session lapses after this long without an answer of the owner (milliseconds).
pub const HOST_LEASE_MS: u64 = 600;
/// How far a node's wall clock may be from the others' (milliseconds).
pub const MAX_CLOCK_OFFSET_MS: u64 = 1_000;
/// Until the log's writes since the last flush are this many, or this old.
const FLUSH_BYTES: u64 = 64 << 20;
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// Proposals in flight per group.
const MAX_PROPOSALS: usize = 4_096;
/// How often the store learns the time, for dropping what expired long ago.
const TELL_TIME_EVERY: Duration = Duration::from_secs(1);
/// A node that is silent for this long has its replicas made anew elsewhere.
const LOST_AFTER: Duration = Duration::from_secs(300);
/// Between two attempts to register with the cluster.
const REGISTER_AGAIN: Duration = Duration::from_secs(1);

/// The store and the groups in it.
#[derive(Clone)]
pub struct Store {
    pub groups: Groups,
    pub owners: Owners,
    pub node: NodeId,
}

/// A node in its cluster, before it serves anything.
pub struct Opened {
    pub store: Store,
    pub peers: Peers,
    pub meta: Meta,
    /// What this machine's other nodes see of it, until it is dropped.
    pub shown: Option<Registration>,
}

/// Opens the store, and comes to a cluster if it holds none.
pub async fn open(config: &Config, listeners: &Bound, dir: &Path, tasks: &Tasks) -> anyhow::Result<Opened> {
    let node = node_id(&dir.join("node"))?;
    let identity = Identity {
        cluster: None,
        cluster_name: config.cluster.clone(),
        generation: 0,
        node,
        node_name: config.node_name.clone(),
    };
    let peers = Peers::new(PeerConfig::default(), identity, Directory::new(), tasks.clone());
    let store = open_store(config, dir, node, &peers, tasks).await?;
    if !store.groups.is_empty() {
        agrees(&store.groups, config)?;
    }
    let local = match config.standalone {
        true => None,
        false => {
            Some(Local::open(&config.cluster).context("look for other nodes on this machine (--standalone: never)")?)
        }
    };
    let address = advertised(config, listeners).to_string();
    let forming = Forming {
        node,
        groups: &store.groups,
        peers: &peers,
        settings: settings(config),
        record: record(config, &store.groups, node, address),
        role: config.role,
        join: &config.join,
        local: local.as_ref(),
    };
    let shown = forming.enter().await?;
    let meta = Meta::new(store.groups.clone(), peers.clone(), node);
    Ok(Opened { store, peers, meta, shown })
}

async fn open_store(config: &Config, dir: &Path, node: NodeId, peers: &Peers, tasks: &Tasks) -> anyhow::Result<Store> {
    let wall_clock = Arc::new(AtomicI64::new(clock::wall().as_micros()));
    let options = callboard_storage::OpenOptions {
        wall_clock: wall_clock.clone(),
        sync: config.sync_log,
        ..callboard_storage::OpenOptions::default()
    };
    let path = dir.join("store");
    let unusable = || format!("the store in {} cannot be opened", dir.display());
    let stores = tokio::task::spawn_blocking(move || callboard_storage::open(&path, &options)).await?;
    let stores = stores.with_context(unusable)?;
    tasks.spawn(Kind::Service, "store-clock", tell_time(wall_clock, tasks.clone()));
    let owners = Owners::default();
    let transport = Arc::new(GroupTransport(peers.clone()));
    let groups = Groups::open(groups_config(node), stores, Arc::new(owners.clone()), transport).await;
    let groups = groups.with_context(unusable)?;
    Ok(Store { groups, owners, node })
}

/// What makes an opened node one that others see and count on.
pub struct Member<'a> {
    pub config: &'a Config,
    pub store: &'a Store,
    pub peers: Peers,
    pub meta: Meta,
    pub host: Host,
    pub hosts: Hosts,
    pub session: SessionConfig,
    pub links: Arc<dyn Links>,
}

/// A node among others; clones share it. Dropped, it only ends what its tasks do not.
#[derive(Clone)]
pub struct Running {
    pub membership: Membership,
    pub placing: Placing,
    pub peers: Peers,
    pub moves: Moves,
    pub leaving: Leaving,
}

impl Member<'_> {
    /// Serves the other nodes, gossips, and carries out the table, until the tasks stop.
    pub fn start(self, actors: &Actors, listeners: &Bound, tasks: &Tasks) -> anyhow::Result<Running> {
        let Self { config, store, peers, meta, host, hosts, session, links } = self;
        let state = meta.state();
        let cluster = state.cluster.context("the cluster has no id")?;
        let owners = watch::Sender::new(Arc::new(BTreeSet::new()));
        let sessions = HostSessions::start(host.clone(), links.clone(), session, owners.subscribe(), tasks);
        let door = HostDoor { host: host.clone(), sessions, cluster, tasks: tasks.clone() };
        let handlers = serve::road(serve::groups(&store.groups, &meta), door, hosts.clone(), actors.clone());
        let handlers = serve::operate(handlers, &store.groups, actors.clone());
        for listener in &listeners.peer {
            peers.serve(listener.try_clone()?, handlers.clone())?;
        }
        let address = advertised(config, listeners);
        let role = match state.nodes.get(&store.node).map(|node| node.role) {
            Some(Role::Gateway) => SeenRole::Gateway,
            Some(Role::Storage) | None => SeenRole::Storage,
        };
        let me = sight::announcement(config, cluster, role, &address.to_string());
        let others = state.nodes.iter().filter(|(node, _)| **node != store.node).map(|(_, node)| node.address.clone());
        let seeds = others.filter(|address| !address.is_empty()).chain(config.join.iter().cloned()).collect();
        let generation = u64::try_from(clock::wall().as_micros()).unwrap_or(1);
        let membership = Membership::start(
            MembershipConfig::new(&config.cluster, store.node, generation, address),
            gossip_sockets(listeners)?,
            me,
            seeds,
            tasks,
        )?;
        let placing = Placing {
            node: store.node,
            groups: store.groups.clone(),
            meta: meta.clone(),
            view: membership.view(),
            owners: store.owners.clone(),
            links: links.clone(),
            limits: MoveLimits::default(),
            lost_after: LOST_AFTER,
            tasks: tasks.clone(),
        };
        placing.clone().start();
        let seeing = Seeing {
            node: store.node,
            cluster,
            namespace: config.namespace.as_str().into(),
            membership: membership.clone(),
            join: config.join.clone(),
            directory: peers.directory().clone(),
            groups: store.groups.clone(),
            host,
            hosts,
            actors: actors.clone(),
            links,
            owners,
            tasks: tasks.clone(),
        };
        seeing.start();
        tasks.spawn(Kind::Service, "meta-follow", meta.clone().follow(tasks.clone()));
        let moves = Moves::default();
        tasks.spawn(Kind::Service, "moves", moves.clone().follow(meta.watch(), tasks.clone()));
        let record = record(config, &store.groups, store.node, address.to_string());
        tasks.spawn(Kind::Work, "register", register(meta, store.node, record, tasks.clone()));
        Ok(Running { membership, placing, peers, moves, leaving: Leaving::default() })
    }
}

impl Running {
    /// Apps of other nodes can be invoked from here, and this node's from there.
    pub fn serve_invocations(&self, invoker: &Invoker, config: &Config, tasks: &Tasks) -> anyhow::Result<()> {
        let cluster = self.placing.meta.state().cluster.context("the cluster has no id")?;
        let (view, directory) = (self.membership.view(), self.peers.directory().clone());
        invoker.connect(Remote::new(self.placing.node, cluster, view, directory, tasks));
        self.peers.serve_requests(Arc::new(AppDoor { invoker: invoker.clone(), limit: config.http.max_body }));
        Ok(())
    }

    /// Says to everybody that this node is on its way out, and hands over what it owns, `grace` at most.
    pub async fn hand_over(&self, grace: Duration) {
        self.membership.publish(|me| me.phase = Phase::Draining);
        let _ = tokio::time::timeout(grace, self.placing.leave_all()).await;
    }
}

/// Tells the cluster of this node's restart: where it is reached from now on.
async fn register(meta: Meta, node: NodeId, record: NodeRecord, tasks: Tasks) {
    loop {
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            answer = meta.propose(MetaCommand::PutNode { node, record: record.clone() }) => match answer {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "this node's start is not registered yet"),
            },
        }
        tokio::time::sleep(REGISTER_AGAIN).await;
    }
}

/// This node as the registry has it; its incarnation rises at every start, whatever the wall clock does. A role that it
/// has been given stays.
fn record(config: &Config, groups: &Groups, node: NodeId, address: String) -> NodeRecord {
    let state = groups.meta().state();
    let known = state.nodes.get(&node);
    let role = match (config.role, known) {
        (Some(NodeRole::Storage), _) => Role::Storage,
        (Some(NodeRole::Gateway), _) => Role::Gateway,
        (None, known) => known.map_or(Role::Gateway, |known| known.role),
    };
    NodeRecord {
        name: config.node_name.clone(),
        role,
        zone: config.zone.clone(),
        incarnation: u64::try_from(clock::wall().as_micros())
            .unwrap_or(0)
            .max(known.map_or(0, |node| node.incarnation) + 1),
        address,
        leaving: false,
    }
}

/// What the cluster settled at its birth is not changed by a flag.
fn agrees(groups: &Groups, config: &Config) -> anyhow::Result<()> {
    let state = groups.meta().state();
    let settings = state.settings.as_ref().context("the cluster's settings are missing from the data directory")?;
    anyhow::ensure!(
        settings.name == config.cluster,
        "the data directory belongs to cluster {:?}; give --cluster {} or another --data-dir",
        settings.name,
        settings.name
    );
    if settings.partitions != config.bootstrap.partitions {
        let (has, asked) = (settings.partitions, config.bootstrap.partitions);
        tracing::info!(
            has,
            asked,
            "the number of partitions is fixed when a cluster is made; --partitions has no effect"
        );
    }
    Ok(())
}

fn settings(config: &Config) -> Settings {
    Settings {
        name: config.cluster.clone(),
        partitions: config.bootstrap.partitions,
        replicas: config.bootstrap.replicas,
        hash_version: HASH_VERSION,
        ring_version: RING_VERSION,
        host_lease_ms: HOST_LEASE_MS,
        max_clock_offset_ms: MAX_CLOCK_OFFSET_MS,
        ephemeral: config.data == DataDir::Ephemeral,
    }
}

fn groups_config(node: NodeId) -> GroupsConfig {
    GroupsConfig {
        node,
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(700),
        flush_bytes: FLUSH_BYTES,
        flush_every: FLUSH_EVERY,
        max_proposals: MAX_PROPOSALS,
    }
}

/// Where other nodes reach this one: what the user says, else the address it listens on.
fn advertised(config: &Config, listeners: &Bound) -> SocketAddr {
    let listens = listeners.peer.iter().filter_map(|listener| listener.local_addr().ok());
    let listens: Vec<IpAddr> = listens.map(|address| address.ip()).collect();
    let given = config.advertise.as_deref().and_then(|host| host.parse().ok());
    let first = listens.iter().find(|ip| ip.is_ipv4()).or(listens.first()).copied();
    let ip = given.or_else(|| match first {
        Some(ip) if ip.is_unspecified() => outward(),
        ip => ip,
    });
    SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), listeners.ports.peer)
}

/// The address that this machine shows to others; nothing is sent to find it out.
fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of no machine (RFC 5737): only the way to it is looked up.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Gossip uses the addresses and the number of the peer port, over UDP.
fn gossip_sockets(listeners: &Bound) -> anyhow::Result<Vec<UdpSocket>> {
    let addresses = listeners.peer.iter().filter_map(|listener| listener.local_addr().ok());
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv4);
    let mut sockets = Vec::new();
    for address in v4.first().into_iter().chain(v6.first()) {
        let socket = gossip_socket(*address).with_context(|| {
            format!("--dapr-internal-grpc-port: UDP {address} is in use; gossip needs it beside TCP")
        })?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Each family has a socket of its own, as its listener does.
fn gossip_socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The node's id lives in its data directory: a wiped directory is another node.
fn node_id(path: &Path) -> anyhow::Result<NodeId> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let id = u64::from_str_radix(text.trim(), 16);
            Ok(NodeId(id.with_context(|| format!("{} does not hold a node id", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = NodeId(rand::random());
            write_node_id(path, id).with_context(|| format!("write {}", path.display()))?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// On disk when it returns: the store that is made next names its node by this id.
fn write_node_id(path: &Path, id: NodeId) -> std::io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

async fn tell_time(wall_clock: Arc<AtomicI64>, tasks: Tasks) {
    loop {
        wall_clock.store(clock::wall().as_micros(), Ordering::Relaxed);
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            () = tokio::time::sleep(TELL_TIME_EVERY) => {}
        }
    }
}
