//! The settings of one node, resolved: flags, environment and defaults have been merged, every mistake reported.
//!
//! A value here is usable as it stands: units are typed, names are checked, files and folders are absolute or relative
//! to the working directory as the user wrote them. `cli::resolve` is the only producer in the binary; [`Config::new`]
//! gives every default and is the base of that merge and of tests. Deliberately absent: where a value came from, flag
//! spelling, log settings and the app's command line, which end with the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Everything a node is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Own app id: non-empty, without dots.
    pub app_id: String,
    /// `NAMESPACE`, default `default`.
    pub namespace: String,
    /// `--cluster`.
    pub cluster: String,
    pub node_name: String,
    pub zone: String,
    pub data: DataDir,
    /// `None` without `--app-port`: this node is nobody's sidecar.
    pub app: Option<AppConfig>,
    pub http: HttpConfig,
    pub ports: Ports,
    /// What a bootstrapping node makes of the cluster.
    pub bootstrap: Bootstrap,
    pub shutdown: ShutdownConfig,
    pub limits: Limits,
    pub reads: ReadMode,
    /// `--resources-path`: folders of YAML resources.
    pub resources: Vec<PathBuf>,
    /// `--config`: Configuration files, later ones win per top-level spec key.
    pub configurations: Vec<PathBuf>,
    /// `dapr-api-token` that callers must send; from `DAPR_API_TOKEN`.
    pub api_token: Option<String>,
    /// Sent as `dapr-api-token` to the own app; from `APP_API_TOKEN`.
    pub app_token: Option<String>,
    pub enable_api_logging: bool,
    /// Turned off only to show that durability depends on it.
    pub sync_log: bool,
    /// `--dapr-internal-grpc-listen-address`: where peers connect.
    pub peer_listen: Vec<IpAddr>,
    /// `--metrics-listen-address`.
    pub metrics_listen: Vec<IpAddr>,
    /// `--join`: nodes of the cluster to join, `host:port`.
    pub join: Vec<String>,
    /// `--standalone`: other nodes of this machine are not looked for.
    pub standalone: bool,
    /// `--role`; `None`: decided by what the node does.
    pub role: Option<NodeRole>,
    /// `--advertise` or `DAPR_HOST_IP`: the address peers are told; `None` = found out.
    pub advertise: Option<String>,
}

impl Config {
    /// The settings of `callboard run --app-id <app_id>` with nothing else given and an ephemeral data directory.
    pub fn new(app_id: &str) -> Self {
        Self {
            app_id: app_id.to_owned(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            cluster: DEFAULT_CLUSTER.to_owned(),
            node_name: app_id.to_owned(),
            zone: String::new(),
            data: DataDir::Ephemeral,
            app: None,
            http: HttpConfig::default(),
            ports: Ports::default(),
            bootstrap: Bootstrap::default(),
            shutdown: ShutdownConfig::default(),
            limits: Limits::default(),
            reads: ReadMode::Lease,
            resources: Vec::new(),
            configurations: Vec::new(),
            api_token: None,
            app_token: None,
            enable_api_logging: false,
            sync_log: true,
            peer_listen: loopback(),
            metrics_listen: loopback(),
            join: Vec::new(),
            standalone: false,
            role: None,
            advertise: None,
        }
    }
}

pub const DEFAULT_NAMESPACE: &str = "default";
pub const DEFAULT_CLUSTER: &str = "default";

/// Both loopback addresses; a machine without IPv6 serves the first alone.
pub fn loopback() -> Vec<IpAddr> {
    vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
}

/// Every interface, each family on its own socket.
pub fn all_interfaces() -> Vec<IpAddr> {
    vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRole {
    /// Holds partitions.
    Storage,
    /// Holds none and only routes.
    Gateway,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    Path(PathBuf),
    /// A temporary directory, removed at exit: acknowledged writes do not survive the process.
    Ephemeral,
}

/// The app this node is the sidecar of.
#[derive(Debug, Clone)]
pub struct AppConfig {
    pub port: u16,
    /// `--app-channel-address`, default 127.0.0.1.
    pub address: String,
    pub protocol: AppProtocol,
    /// `--app-max-concurrency`; `None` when not positive.
    pub max_concurrency: Option<usize>,
    /// `--enable-app-health-check`.
    pub health: Option<HealthCheck>,
    /// `--disable-init-endpoints config`.
    pub read_config: bool,
}

impl AppConfig {
    /// An HTTP app on the loopback address, everything else at its default.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            address: "127.0.0.1".to_owned(),
            protocol: AppProtocol::Http,
            max_concurrency: None,
            health: None,
            read_config: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppProtocol {
    Http,
    Https,
    H2c,
    Grpc,
    Grpcs,
}

impl AppProtocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }
}

#[derive(Debug, Clone)]
pub struct HealthCheck {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/healthz".to_owned(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(500),
            threshold: 3,
        }
    }
}

#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// `--dapr-listen-addresses`.
    pub listen: Vec<IpAddr>,
    /// `--dapr-public-port` on `--dapr-public-listen-address`.
    pub public: Vec<SocketAddr>,
    /// `--allowed-origins`: empty = no CORS layer; `*` = all.
    pub allowed_origins: Vec<String>,
    /// `--unix-domain-socket`.
    pub unix_dir: Option<PathBuf>,
    /// Off with `DAPR_HTTP_DISABLE_H2C`.
    pub h2c: bool,
    /// `--max-body-size`, bytes.
    pub max_body: u64,
    /// `--read-buffer-size`, bytes: limit of a request's header block.
    pub read_buffer: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: loopback(),
            public: Vec::new(),
            allowed_origins: Vec::new(),
            unix_dir: None,
            h2c: true,
            max_body: 4 << 20,
            read_buffer: 4 << 10,
        }
    }
}

/// A port that may be moved when taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub number: u16,
    /// Given by the user: being taken is an error. Otherwise a free one is used instead.
    pub explicit: bool,
}

impl Port {
    /// Moved to a free number when taken; 0 = any free number.
    pub const fn preferred(number: u16) -> Self {
        Self { number, explicit: false }
    }

    /// Never moved.
    pub const fn fixed(number: u16) -> Self {
        Self { number, explicit: true }
    }
}

#[derive(Debug, Clone)]
pub struct Ports {
    pub http: Port,
    pub grpc: Port,
    pub peer: Port,
    /// `None` with `--enable-metrics=false`.
    pub metrics: Option<Port>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            http: Port::preferred(3500),
            grpc: Port::preferred(50001),
            peer: Port::preferred(50002),
            metrics: Some(Port::preferred(9090)),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// `--partitions`, 1..=128, default 16.
    pub partitions: u32,
    /// `--replicas`, default 3.
    pub replicas: u32,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { partitions: 16, replicas: 3 }
    }
}

#[derive(Debug, Clone)]
pub struct ShutdownConfig {
    /// `--dapr-graceful-shutdown-seconds`: then exit 1.
    pub grace: Duration,
    /// `--dapr-block-shutdown-duration`.
    pub block: Option<Duration>,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), block: None }
    }
}

/// Every bound of a node that is not a protocol's own. A full queue answers, it never hangs.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls waiting for one activation's turn.
    pub mailbox: usize,
    /// Activations per partition.
    pub activations: usize,
    /// Turns running at a time per partition; one more is refused unless it is called from inside a turn.
    pub turns: usize,
    /// Requests in progress on the HTTP ingress; one more is answered 503 with `Retry-After`.
    pub requests: usize,
    /// Open connections on the HTTP ingress.
    pub connections: usize,
    /// Timers on this node.
    pub timers: usize,
    /// Reminders of one actor.
    pub reminders_per_actor: usize,
    /// Reminder turns running at a time on this node.
    pub reminder_turns: usize,
    /// How long the router retries a call that certainly did not start.
    pub retry_for: Duration,
    /// How long a call waits for any host of its actor type.
    pub host_wait: Duration,
    /// A turn's app request without an answer is given up after this long.
    pub turn: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mailbox: 1_024,
            activations: 1_000_000,
            turns: 8_192,
            requests: 8_192,
            connections: 10_000,
            timers: 100_000,
            reminders_per_actor: 10_000,
            reminder_turns: 256,
            retry_for: Duration::from_secs(15),
            host_wait: Duration::from_secs(5),
            turn: Duration::from_secs(30 * 60),
        }
    }
}

/// How the owner makes sure that it still is one before it answers a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// The leader lease: no round trip.
    Lease,
    /// A quorum round per read.
    Index,
}
