//! The life of a node, top to bottom: open the store, join the groups, open the road of actors, serve, wait, drain, stop.
//!
//! Start order and stop order stand here and nowhere else. The listeners were bound before anything else and hold
//! early connections in the kernel's queue; they are accepted as soon as the partitions are open, and never wait for
//! the app, because some SDKs open their app's port only when the node answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context;
use callboard_engine::guard::GuardLimits;
use callboard_engine::mailbox::Counts;
use callboard_engine::partition::HASH_VERSION;
use callboard_machine::meta::{MetaCommand, NodeRecord, Role, Settings};
use callboard_raft::{Groups, GroupsConfig};
use callboard_types::NodeId;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::actors::{Actors, Effects};
use crate::app::{AppChannel, ChannelLimits};
use crate::cli::Start;
use crate::cli::ports::UnixSocket;
use crate::clock;
use crate::config::{AppConfig, AppProtocol, Config, DataDir};
use crate::host::Host;
use crate::host::opened::Opened;
use crate::ingress::grpc::GrpcDoor;
use crate::ingress::http::Api;
use crate::ingress::metrics::{Metrics, MetricsDoor};
use crate::ingress::server::{Protocols, Server, ServerLimits};
use crate::invoke::Invoker;
use crate::node::{Node, Phase, Shutdown};
use crate::owner::Common;
use crate::resources::{self, Resources};
use crate::tasks::{Kind, Tasks};

/// Version of the algorithm that spreads partitions over nodes, kept with the cluster's settings.
const RING_VERSION: u32 = 1;
/// A host's session lapses after this long without an answer of the owner (milliseconds).
const HOST_LEASE_MS: u64 = 600;
/// How far a node's wall clock may be from the others' (milliseconds).
const MAX_CLOCK_OFFSET_MS: u64 = 1_000;
/// Until the log's writes since the last flush are this many, or this old.
const FLUSH_BYTES: u64 = 64 << 20;
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// Proposals in flight per group.
const MAX_PROPOSALS: usize = 4_096;
/// How often the store learns the time, for dropping what expired long ago.
const TELL_TIME_EVERY: Duration = Duration::from_secs(1);
/// What an app that we started gets to end after its node has drained.
const APP_GRACE: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop, and returns its exit code.
pub async fn run(start: Start, shutdown: Shutdown) -> anyhow::Result<u8> {
    let Start { config, listeners, data, child, announce } = start;
    let began = clock::monotonic();
    let tasks = Tasks::new();

    let groups = Store::open(&config, data.path(), &tasks).await?;
    let Store { groups, observer, node_id } = groups;
    let app = AppChannel::start(
        config.app.clone(),
        &config.app_id,
        config.app_token.clone(),
        &tasks,
        ChannelLimits::of(&config),
    );
    let host = open_host(&config, data.path(), app.clone(), &tasks)?;
    let common = common(&config, &groups, node_id, host, &tasks)?;
    let actors = Actors::start(&config, common, &groups, &observer, tasks.clone());
    let resources = Arc::new(read_resources(&config)?);
    let metrics = Metrics::new();
    expose(&metrics, &groups, &actors);
    let invoker = Invoker::start(&config, app.clone(), resources.clone(), &tasks);
    let node = Arc::new(Node {
        ports: listeners.ports,
        app: app.clone(),
        actors: actors.clone(),
        resources,
        extended: RwLock::default(),
        phase: watch::Sender::new(Phase::Starting),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        config,
    });

    let doors = serve(&node, invoker, metrics, listeners)?;
    node.phase.send_replace(Phase::Outbound);
    let drained = CancellationToken::new();
    let child = match child {
        None => None,
        Some(command) => {
            let running = command.start(&crate::cli::child::environment(&node.config, &node.ports))?;
            let (drained, shutdown, app) = (drained.clone(), shutdown.clone(), app.clone());
            let (ended, end) = oneshot::channel();
            tasks.spawn(Kind::Work, "child", async move {
                let code = running.until(&drained, &shutdown, APP_GRACE).await;
                app.process_gone();
                let _ = ended.send(code);
            });
            Some(end)
        }
    };
    tasks.spawn(Kind::Work, "ready", announce_when_ready(node.clone(), announce, began));

    let mut code = wait_for_end(&node, &groups).await;
    tracing::info!("draining");
    data.drains();
    let grace = node.config.shutdown.grace;
    if !drain(&node, &doors.servers, grace).await {
        tracing::warn!(?grace, "what still ran after the grace period is cut off");
        code = code.max(1);
    }
    drained.cancel();
    if let Some(child) = child
        && let Ok(Some(exit)) = child.await
    {
        code = exit;
    }
    tasks.stop();
    if tokio::time::timeout(APP_GRACE, tasks.join()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    groups.shutdown().await;
    drop(data);
    tracing::info!("stopped");
    Ok(code)
}

/// The store and the groups in it.
struct Store {
    groups: Groups,
    observer: Effects,
    node_id: NodeId,
}

impl Store {
    async fn open(config: &Config, dir: &Path, tasks: &Tasks) -> anyhow::Result<Self> {
        let wall_clock = Arc::new(AtomicI64::new(clock::wall().as_micros()));
        let options = callboard_storage::OpenOptions {
            wall_clock: wall_clock.clone(),
            sync: config.sync_log,
            ..callboard_storage::OpenOptions::default()
        };
        let path = dir.join("store");
        let stores = tokio::task::spawn_blocking(move || callboard_storage::open(&path, &options)).await??;
        tasks.spawn(Kind::Service, "store-clock", tell_time(wall_clock, tasks.clone()));
        let node_id = node_id(&dir.join("node"))?;
        let observer = Effects::default();
        let groups = Groups::open(groups_config(node_id), stores, Arc::new(observer.clone())).await?;
        let store = Self { groups, observer, node_id };
        if store.groups.is_empty() {
            let made = store.groups.bootstrap(settings(config), store.record(config), clock::wall());
            made.await.context("make the cluster")?;
        } else {
            store.agrees_with(config)?;
            let (node, record) = (node_id, store.record(config));
            let answer = store.groups.meta().propose(MetaCommand::PutNode { node, record }).await;
            answer.context("register this node's restart with the cluster")?;
        }
        Ok(store)
    }

    /// This node as the registry has it; its incarnation rises at every start, whatever the wall clock does.
    fn record(&self, config: &Config) -> NodeRecord {
        let last = self.groups.meta().watch().borrow().nodes.get(&self.node_id).map_or(0, |node| node.incarnation);
        NodeRecord {
            name: config.node_name.clone(),
            role: Role::Storage,
            zone: config.zone.clone(),
            incarnation: u64::try_from(clock::wall().as_micros()).unwrap_or(0).max(last + 1),
        }
    }

    /// What the cluster settled at its birth is not changed by a flag.
    fn agrees_with(&self, config: &Config) -> anyhow::Result<()> {
        let meta = self.groups.meta().watch().borrow().clone();
        let settings = meta.settings.as_ref().context("the cluster's settings are missing from the data directory")?;
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

/// The node's id lives in its data directory: a wiped directory is another node.
fn node_id(path: &Path) -> anyhow::Result<NodeId> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let id = u64::from_str_radix(text.trim(), 16);
            Ok(NodeId(id.with_context(|| format!("{} does not hold a node id", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = NodeId(rand::random());
            let next = path.with_extension("next");
            std::fs::write(&next, format!("{id}\n")).and_then(|()| std::fs::rename(&next, path))?;
            Ok(id)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn open_host(config: &Config, dir: &Path, app: AppChannel, tasks: &Tasks) -> anyhow::Result<Host> {
    let opened = Opened::open(dir.join("opened")).context("read the list of opened actors")?;
    let limits = GuardLimits { activations: config.limits.activations };
    Ok(Host::start(app, opened, limits, config.limits.turn, tasks.clone()))
}

fn common(config: &Config, groups: &Groups, node: NodeId, host: Host, tasks: &Tasks) -> anyhow::Result<Common> {
    let meta = groups.meta().watch().borrow().clone();
    let cluster = meta.cluster.context("the cluster has no id")?;
    let offset = meta.settings.as_ref().map_or(MAX_CLOCK_OFFSET_MS, |settings| settings.max_clock_offset_ms);
    let limits = Arc::new(config.limits.clone());
    Ok(Common {
        cluster,
        node,
        generation: 0,
        max_clock_offset: Duration::from_millis(offset),
        host,
        reminder_turns: Arc::new(Semaphore::new(limits.reminder_turns)),
        limits,
        tasks: tasks.clone(),
    })
}

fn read_resources(config: &Config) -> anyhow::Result<Resources> {
    let namespace = std::env::var("NAMESPACE").ok();
    let reader = resources::Reader {
        app_id: &config.app_id,
        namespace: namespace.as_deref(),
        env: |name| std::env::var(name).ok(),
    };
    Ok(Resources::load(&config.resources, &config.configurations, reader)?)
}

/// Everything that accepts.
struct Doors {
    servers: Vec<Server>,
    /// The files of unix sockets go with these.
    _sockets: Vec<UnixSocket>,
}

/// Every door of the node begins to accept.
fn serve(
    node: &Arc<Node>,
    invoker: Invoker,
    metrics: Arc<Metrics>,
    listeners: crate::cli::ports::Bound,
) -> anyhow::Result<Doors> {
    let config = &node.config;
    let limits = ServerLimits {
        connections: config.limits.connections,
        head: config.http.read_buffer,
        ..ServerLimits::default()
    };
    let protocols = if config.http.h2c { Protocols::Http1AndH2c } else { Protocols::Http1 };
    let api = Api::start(node.clone(), invoker, metrics.clone());
    let http = Server::new(node.tasks.clone(), protocols, limits);
    for listener in listeners.http {
        http.serve("http", listener, api.clone())?;
    }
    for listener in listeners.public {
        http.serve("public", listener, api.public())?;
    }
    let mut sockets = Vec::new();
    if let Some(socket) = listeners.http_unix {
        http.serve_unix("http-unix", socket.listener.try_clone()?, api)?;
        sockets.push(socket);
    }
    let grpc = Server::new(node.tasks.clone(), Protocols::H2c, limits);
    for listener in listeners.grpc.into_iter().chain(listeners.peer) {
        grpc.serve("grpc", listener, GrpcDoor)?;
    }
    if let Some(socket) = listeners.grpc_unix {
        grpc.serve_unix("grpc-unix", socket.listener.try_clone()?, GrpcDoor)?;
        sockets.push(socket);
    }
    let metrics_server = Server::new(node.tasks.clone(), Protocols::Http1, limits);
    for listener in listeners.metrics {
        metrics_server.serve("metrics", listener, MetricsDoor(metrics.clone()))?;
    }
    Ok(Doors { servers: vec![http, grpc, metrics_server], _sockets: sockets })
}

/// Counters and gauges of the store and the actors.
fn expose(metrics: &Arc<Metrics>, groups: &Groups, actors: &Actors) {
    let stats = groups.clone();
    metrics.register(move |out| {
        let stats = stats.writer_stats();
        for (name, help, value) in [
            ("callboard_log_syncs_total", "Synced commits of the log.", stats.syncs),
            ("callboard_log_writes_total", "Appends, votes and truncations in those commits.", stats.writes),
            ("callboard_log_entries_total", "Log entries in those commits.", stats.entries),
            ("callboard_log_bytes_total", "Bytes in those commits.", stats.bytes),
            ("callboard_log_sync_microseconds_total", "Time of those commits.", stats.sync_micros),
        ] {
            crate::ingress::metrics::line(out, name, help, "counter", value);
        }
    });
    let totals = |actors: &Actors, of: fn(Counts) -> usize| {
        let sum: usize = actors.owners().iter().filter_map(|owner| owner.counts()).map(of).sum();
        i64::try_from(sum).unwrap_or(i64::MAX)
    };
    for (name, help, of) in [
        ("callboard_actors_active", "Active actors.", (|counts| counts.activations) as fn(Counts) -> usize),
        ("callboard_turns_running", "Turns that run.", |counts| counts.running),
        ("callboard_calls_waiting", "Calls that wait for their turn.", |counts| counts.waiting),
    ] {
        let actors = actors.clone();
        metrics.computed(name, help, move || totals(&actors, of));
    }
    let owners = actors.clone();
    metrics.computed("callboard_partitions_owned", "Partitions this node owns.", move || {
        i64::try_from(owners.owners().iter().filter(|owner| owner.is_serving()).count()).unwrap_or(i64::MAX)
    });
    let timers = actors.clone();
    metrics.computed("callboard_timers", "Timers of this node.", move || {
        i64::try_from(timers.timers()).unwrap_or(i64::MAX)
    });
}

/// Says so when the app has been reached; at once without an app.
async fn announce_when_ready(node: Arc<Node>, announce: crate::cli::ready::Announce, began: callboard_engine::Instant) {
    for owner in node.actors.owners() {
        tokio::select! {
            biased;
            () = node.tasks.stopping() => return,
            () = owner.served() => {}
        }
    }
    if node.config.app.as_ref().is_some_and(speaks_http) {
        let mut app = node.app.watch();
        tokio::select! {
            biased;
            () = node.tasks.stopping() => return,
            reached = app.wait_for(|view| view.config_read) => if reached.is_err() { return },
        }
    }
    node.phase.send_if_modified(|phase| {
        let starting = *phase < Phase::Ready;
        if starting {
            *phase = Phase::Ready;
        }
        starting
    });
    announce.ready(&node.ports, clock::monotonic().saturating_since(began));
}

/// Waits for a signal, the shutdown API, or a failure; returns the exit code so far.
async fn wait_for_end(node: &Arc<Node>, groups: &Groups) -> u8 {
    let code = tokio::select! {
        biased;
        () = node.shutdown.graceful.cancelled() => 0,
        () = node.tasks.failed() => 1,
        why = groups.failed() => {
            tracing::error!(why, "a group of this node has failed; the node stops");
            1
        }
    };
    if let (0, Some(block)) = (code, node.config.shutdown.block) {
        tracing::info!(?block, "shutdown is blocked; APIs keep working until then, or until the app is unhealthy");
        let mut app = node.app.watch();
        let with_app = node.app.is_initialized();
        tokio::select! {
            biased;
            () = tokio::time::sleep(block) => {}
            _ = app.wait_for(|view| with_app && !view.healthy) => {}
            () = node.tasks.failed() => return 1,
            why = groups.failed() => {
                tracing::error!(why, "a group of this node has failed; the node stops");
                return 1;
            }
        }
    }
    code
}

/// Finishes what runs: turns, then the activations, then the connections with their invocations. False: something had
/// to be cut off when the grace period was over.
async fn drain(node: &Arc<Node>, servers: &[Server], grace: Duration) -> bool {
    let deadline = clock::monotonic().saturating_add(grace);
    let left = || deadline.saturating_since(clock::monotonic());
    node.phase.send_replace(Phase::Draining);
    let mut finished = node.actors.drain(left()).await;
    for server in servers {
        finished &= server.close(left()).await == 0;
    }
    finished
}

/// Apps of other protocols are not asked what they host.
fn speaks_http(app: &AppConfig) -> bool {
    match app.protocol {
        AppProtocol::Http | AppProtocol::Https | AppProtocol::H2c => true,
        AppProtocol::Grpc | AppProtocol::Grpcs => false,
    }
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
