//! The life of a node, top to bottom: open the store, join the groups, open the road of actors, serve, wait, drain, stop.
//!
//! Start order and stop order stand here and nowhere else. The listeners were bound before anything else and hold
//! early connections in the kernel's queue; they are accepted as soon as the partitions are open, and never wait for
//! the app, because some SDKs open their app's port only when the node answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use callboard_engine::guard::SessionConfig;
use callboard_engine::mailbox::Counts;
use callboard_raft::Groups;
use callboard_types::NodeId;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::actors::Actors;
use crate::app::{AppChannel, ChannelLimits};
use crate::cli::Start;
use crate::cli::ports::UnixSocket;
use crate::clock;
use crate::cluster::transport::PeerLinks;
use crate::cluster::{self, HOST_LEASE_MS, MAX_CLOCK_OFFSET_MS, Running};
use crate::config::{AppConfig, AppProtocol, Config, Limits};
use crate::host::opened::Opened;
use crate::host::{Host, HostLimits};
use crate::ingress::grpc::GrpcDoor;
use crate::ingress::http::Api;
use crate::ingress::metrics::{Metrics, MetricsDoor};
use crate::ingress::server::{Protocols, Server, ServerLimits};
use crate::invoke::Invoker;
use crate::links::Links;
use crate::node::{Node, Phase, Shutdown};
use crate::owner::Common;
use crate::owner::hosts::Hosts;
use crate::resources::{self, Resources};
use crate::tasks::{Kind, Tasks};

/// Longer than a step of the start takes on a slow disk.
const LATE: Duration = Duration::from_secs(10);
/// What calls of other nodes get to be answered when nothing else is left of the grace period.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// What an app that we started gets to end after its node has drained.
const APP_GRACE: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop, and returns its exit code.
pub async fn run(start: Start, shutdown: Shutdown) -> anyhow::Result<u8> {
    let Start { config, listeners, data, child, announce } = start;
    let began = clock::monotonic();
    let tasks = Tasks::new();

    let opened = cluster::open(&config, &listeners, data.path(), &tasks);
    let cluster::Opened { store, peers, meta, shown } = told_when_late("the store and the cluster", opened).await?;
    let (groups, node_id) = (store.groups.clone(), store.node);
    let app = AppChannel::start(
        config.app.clone(),
        &config.app_id,
        config.app_token.clone(),
        &tasks,
        ChannelLimits::of(&config),
    );
    let host = open_host(&config, data.path(), node_id, app.clone(), &tasks)?;
    let links: Arc<dyn Links> = Arc::new(PeerLinks(peers.clone()));
    let common = common(&config, &groups, node_id, host.clone(), links.clone(), &tasks)?;
    let (hosts, session) = (common.hosts.clone(), common.session);
    let actors =
        Actors::start(&config, common, &groups, meta.clone(), store.owners.clone(), links.clone(), tasks.clone());
    let member = cluster::Member { config: &config, store: &store, peers, meta, host, hosts, session, links };
    let member = member.start(&actors, &listeners, &tasks)?;
    let resources = Arc::new(read_resources(&config)?);
    let metrics = Metrics::new();
    expose(&metrics, &groups, &actors, &tasks);
    crate::ingress::metrics::cluster::expose(&metrics, &actors, &member);
    let invoker = Invoker::start(&config, app.clone(), resources.clone(), &tasks);
    member.serve_invocations(&invoker, &config, &tasks)?;
    let node = Arc::new(Node {
        ports: listeners.ports,
        app: app.clone(),
        actors: actors.clone(),
        cluster: member.clone(),
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
                if let Some(code) = code {
                    tracing::warn!(code, "the app has ended; the node stops");
                }
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
    if !drain(&node, &member, &doors.servers, grace).await {
        tracing::warn!(?grace, "what still ran after the grace period is cut off");
        code = code.max(1);
    }
    drained.cancel();
    if let Some(child) = child
        && let Ok(Some(exit)) = child.await
    {
        code = exit;
    }
    member.membership.leave().await;
    drop(shown);
    tasks.stop();
    if tokio::time::timeout(APP_GRACE, tasks.join()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    groups.shutdown().await;
    drop(data);
    tracing::info!("stopped");
    Ok(code)
}

fn open_host(config: &Config, dir: &Path, node: NodeId, app: AppChannel, tasks: &Tasks) -> anyhow::Result<Host> {
    let opened = Opened::open(dir.join("opened")).context("read the list of opened actors")?;
    let Limits { activations, timers, turn, .. } = config.limits;
    Ok(Host::start(app, opened, node, HostLimits { activations, timers, turn }, tasks.clone()))
}

fn common(
    config: &Config,
    groups: &Groups,
    node: NodeId,
    host: Host,
    links: Arc<dyn Links>,
    tasks: &Tasks,
) -> anyhow::Result<Common> {
    let meta = groups.meta().watch().borrow().clone();
    let cluster = meta.cluster.context("the cluster has no id")?;
    let offset = meta.settings.as_ref().map_or(MAX_CLOCK_OFFSET_MS, |settings| settings.max_clock_offset_ms);
    let host_lease = meta.settings.as_ref().map_or(HOST_LEASE_MS, |settings| settings.host_lease_ms);
    let limits = Arc::new(config.limits.clone());
    Ok(Common {
        cluster,
        node,
        generation: meta.generation,
        max_clock_offset: Duration::from_millis(offset),
        session: SessionConfig { host_lease: Duration::from_millis(host_lease), ..SessionConfig::default() },
        hosts: Hosts::new(node, cluster, &config.namespace, host, links, groups.meta().watch()),
        reminder_turns: Arc::new(Semaphore::new(limits.reminder_turns)),
        limits,
        tasks: tasks.clone(),
    })
}

pub(crate) fn read_resources(config: &Config) -> anyhow::Result<Resources> {
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
    for listener in listeners.grpc {
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

/// Counters and gauges of the store, the actors and the tasks.
fn expose(metrics: &Arc<Metrics>, groups: &Groups, actors: &Actors, tasks: &Tasks) {
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
        let sum: usize = actors.owners().all().iter().filter_map(|owner| owner.counts()).map(of).sum();
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
        i64::try_from(owners.owners().all().iter().filter(|owner| owner.is_serving()).count()).unwrap_or(i64::MAX)
    });
    let timers = actors.clone();
    metrics.computed("callboard_timers", "Timers of this node.", move || {
        i64::try_from(timers.timers()).unwrap_or(i64::MAX)
    });
    let tasks = tasks.clone();
    metrics
        .computed("callboard_tasks", "Tasks of this node.", move || i64::try_from(tasks.count()).unwrap_or(i64::MAX));
}

/// Says, again and again, what the start waits for: a node that listens and is never ready must not be silent about why.
async fn told_when_late<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    tokio::pin!(waiting);
    loop {
        match tokio::time::timeout(LATE, &mut waiting).await {
            Ok(done) => return done,
            Err(_) => tracing::warn!("the node is not ready: it waits for {what}"),
        }
    }
}

/// Says so when the app has been reached; at once without an app.
async fn announce_when_ready(node: Arc<Node>, announce: crate::cli::ready::Announce, began: callboard_engine::Instant) {
    tokio::select! {
        biased;
        () = node.tasks.stopping() => return,
        () = told_when_late("an owner of every partition", node.actors.all_served()) => {}
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
async fn drain(node: &Arc<Node>, member: &Running, servers: &[Server], grace: Duration) -> bool {
    let deadline = clock::monotonic().saturating_add(grace);
    let left = || deadline.saturating_since(clock::monotonic());
    node.phase.send_replace(Phase::Draining);
    member.hand_over(grace / 2).await;
    let mut finished = node.actors.drain(left()).await;
    for server in servers {
        finished &= server.close(left()).await == 0;
    }
    // Other nodes still wait for answers.
    member.peers.close(left().max(LAST_ANSWERS)).await;
    finished
}

/// Apps of other protocols are not asked what they host.
fn speaks_http(app: &AppConfig) -> bool {
    match app.protocol {
        AppProtocol::Http | AppProtocol::Https | AppProtocol::H2c => true,
        AppProtocol::Grpc | AppProtocol::Grpcs => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_that_takes_long_is_waited_for_all_the_same() {
        let began = tokio::time::Instant::now();
        let done = told_when_late("nothing", async {
            tokio::time::sleep(LATE * 3).await;
            7
        });
        assert_eq!((done.await, began.elapsed()), (7, LATE * 3));
    }
}
