//! Merges flags, environment and defaults into [`Config`], and reports every mistake together.
//!
//! Pure: the command line and the environment are arguments, nothing is opened or bound. Precedence is flag, then
//! environment, then default. The three names of the binary differ only in defaults: `daprd` has fixed ports on all
//! interfaces and insists on an app id, as the original; the others take free ports on the loopback address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use callboard_engine::duration;

use super::child;
use super::data_dir;
use super::env::Env;
use super::flags::{FLAGS, Given, Group};
use super::logging;
use super::mistakes::Mistakes;
use super::persona::Persona;
use super::reader::{MAX_NAME, Reader, path_safe};
use crate::config::{
    self, AppConfig, AppProtocol, Bootstrap, Config, HealthCheck, HttpConfig, NodeRole, Port, Ports, ReadMode,
    ShutdownConfig,
};

/// Partitions a cluster may have.
const MAX_PARTITIONS: u32 = 128;
/// Copies a partition may have.
const MAX_REPLICAS: u32 = 7;
/// The header block of a request is never limited below this, nor allowed above.
const READ_BUFFER: std::ops::RangeInclusive<u64> = 1 << 10..=16 << 20;
/// The app id of a node that is given none.
const DEFAULT_APP_ID: &str = "app";
/// `daprd` derives its default internal port from the app id within this range.
const DAPRD_PEER_PORTS: std::ops::Range<u16> = 47300..49349;

/// A node ready to be started.
#[derive(Debug)]
pub struct Launch {
    /// `node_name` and `data` are final only once the data directory is held.
    pub config: Config,
    pub data: data_dir::Choice,
    pub child: Option<child::Command>,
    pub log: logging::Settings,
    /// `--check`: to be looked at, not to be started.
    pub check_only: bool,
    /// To be logged once, after logging works.
    pub notices: Vec<String>,
}

/// Makes a [`Launch`] of what the user gave.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn resolve(given: Given, env: &Env, persona: Persona, command: Option<child::Command>) -> Result<Launch, Mistakes> {
    let (launch, mistakes) = attempt(given, env, persona, command);
    if mistakes.is_empty() { Ok(launch) } else { Err(mistakes) }
}

/// As [`resolve`], with defaults where the user made mistakes: for looking further, never for a start.
pub fn attempt(mut given: Given, env: &Env, persona: Persona, command: Option<child::Command>) -> (Launch, Mistakes) {
    given.or_env(env);
    let mut reader = Reader::new(&given, env, persona);
    let launch = reader.launch(command);
    (launch, reader.mistakes)
}

impl Reader<'_> {
    fn launch(&mut self, child: Option<child::Command>) -> Launch {
        self.notice_ignored();
        self.refuse_clusters_of_many();
        let app_id = self.app_id();
        let cluster = self.name("cluster", config::DEFAULT_CLUSTER);
        let node_name = self.name("node-name", &path_safe(&app_id));
        let app = self.app();
        let http = self.http();
        let ports = self.ports(&app_id);
        self.check_ports(&ports, &http, app.as_ref());
        let peer_listen = self.addresses("dapr-internal-grpc-listen-address").unwrap_or_else(|| http.listen.clone());
        let metrics_listen = self.addresses("metrics-listen-address").unwrap_or_else(|| http.listen.clone());
        let data = self.data(&cluster, &node_name);
        let base = Config::new(&app_id);
        let config = Config {
            namespace: self.env.get("NAMESPACE").unwrap_or(config::DEFAULT_NAMESPACE).to_owned(),
            zone: self.given.text("zone").unwrap_or_default().to_owned(),
            app,
            http,
            ports,
            bootstrap: self.bootstrap(),
            shutdown: self.shutdown(),
            reads: self.reads(),
            resources: self.paths("resources-path"),
            configurations: self.paths("config"),
            api_token: self.env.get("DAPR_API_TOKEN").map(str::to_owned),
            app_token: self.env.get("APP_API_TOKEN").map(str::to_owned),
            enable_api_logging: self.switch("enable-api-logging", false),
            sync_log: !self.switch("unsafe-no-sync", false),
            peer_listen,
            metrics_listen,
            join: self.given.list("join"),
            standalone: self.switch("standalone", false),
            role: self.role(),
            advertise: self.given.text("advertise").or(self.env.get("DAPR_HOST_IP")).map(str::to_owned),
            cluster,
            node_name,
            ..base
        };
        if !config.sync_log {
            self.notices.push("--unsafe-no-sync: the log is not synced; a power cut loses acknowledged writes".into());
        }
        let log = self.log();
        let check_only = self.switch("check", false);
        Launch { config, data, child, log, check_only, notices: std::mem::take(&mut self.notices) }
    }

    fn notice_ignored(&mut self) {
        let used = FLAGS.iter().filter(|flag| flag.group == Group::Ignored && self.given.has(flag.name));
        let names: Vec<_> = used.map(|flag| format!("--{}", flag.name)).collect();
        if !names.is_empty() {
            self.notices
                .push(format!("accepted without effect, since nothing of the kind exists here: {}", names.join(" ")));
        }
    }

    fn role(&mut self) -> Option<NodeRole> {
        match self.given.text("role")? {
            "storage" => Some(NodeRole::Storage),
            "gateway" => Some(NodeRole::Gateway),
            other => {
                self.mistakes.add(format!("--role {other}"), "write storage or gateway");
                None
            }
        }
    }

    /// What only several nodes can do is refused, so that nobody believes to have a cluster.
    fn refuse_clusters_of_many(&mut self) {
        let expect: u32 = self.number("bootstrap-expect", 1);
        if expect != 1 {
            self.mistakes.add(
                format!("--bootstrap-expect {expect}"),
                "this build runs clusters of one node; leave the flag out or give 1",
            );
        }
    }

    fn app_id(&mut self) -> String {
        let default = match self.persona {
            Persona::Callboard | Persona::Dapr => DEFAULT_APP_ID,
            Persona::Daprd => "",
        };
        let id = self.given.text("app-id").unwrap_or(default).to_owned();
        if self.given.is_blank("app-id") {
            self.blank("app-id");
        } else if id.is_empty() {
            self.mistakes.add("--app-id", "missing: give the name under which the app is invoked");
        } else if id.contains('.') {
            self.mistakes
                .add(format!("--app-id {id}"), "an app id has no dots, since they separate it from a namespace");
        } else if id.len() > MAX_NAME || id.chars().any(|c| c.is_control() || c == '/') {
            let problem = format!("not a name: at most {MAX_NAME} bytes, no slashes, no control characters");
            self.mistakes.add(format!("--app-id {id:?}"), problem);
        }
        id
    }

    fn app(&mut self) -> Option<AppConfig> {
        let port = match self.given.text("app-port").map(str::parse::<i64>) {
            None => None,
            Some(Ok(port)) if port <= 0 => None,
            Some(Ok(port)) if u16::try_from(port).is_ok() => u16::try_from(port).ok(),
            Some(_) => {
                self.bad("app-port", "not a port: give a number from 1 to 65535");
                None
            }
        };
        let protocol = self.app_protocol();
        match protocol {
            AppProtocol::Grpc | AppProtocol::Grpcs if port.is_some() => {
                self.bad(
                    "app-protocol",
                    "gRPC apps come with the gRPC API, which this build has not; write http, https or h2c",
                );
            }
            AppProtocol::Grpc | AppProtocol::Grpcs | AppProtocol::Http | AppProtocol::Https | AppProtocol::H2c => {}
        }
        let health = self.health();
        let read_config = self.reads_app_config();
        let max_concurrency =
            usize::try_from(self.number::<i64>("app-max-concurrency", -1)).ok().filter(|max| *max > 0);
        let address = self.given.text("app-channel-address").unwrap_or("127.0.0.1").to_owned();
        port.map(|port| AppConfig { port, address, protocol, max_concurrency, health, read_config })
    }

    fn app_protocol(&mut self) -> AppProtocol {
        let tls = self.switch("app-ssl", false);
        let protocol = match self.given.text("app-protocol").map(str::to_ascii_lowercase).as_deref() {
            None | Some("http") => AppProtocol::Http,
            Some("https") => AppProtocol::Https,
            Some("h2c") => AppProtocol::H2c,
            Some("grpc") => AppProtocol::Grpc,
            Some("grpcs") => AppProtocol::Grpcs,
            Some(_) => {
                self.bad("app-protocol", "write http, https or h2c");
                AppProtocol::Http
            }
        };
        match (tls, protocol) {
            (true, AppProtocol::Http | AppProtocol::Https) => AppProtocol::Https,
            (true, AppProtocol::Grpc | AppProtocol::Grpcs) => AppProtocol::Grpcs,
            (true, AppProtocol::H2c) => {
                self.mistakes.add("--app-ssl", "h2c is HTTP/2 without TLS; write --app-protocol https instead");
                protocol
            }
            (false, _) => protocol,
        }
    }

    fn health(&mut self) -> Option<HealthCheck> {
        let default = HealthCheck::default();
        let interval: i64 = self.number("app-health-probe-interval", 0);
        let timeout: i64 = self.number("app-health-probe-timeout", 0);
        let threshold: i64 = self.number("app-health-threshold", 0);
        let path = self.given.text("app-health-check-path").unwrap_or(&default.path);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        let health = HealthCheck {
            path,
            interval: positive(interval).map_or(default.interval, Duration::from_secs),
            timeout: positive(timeout).map_or(default.timeout, Duration::from_millis),
            threshold: positive(threshold).map_or(default.threshold, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        };
        if !self.switch("enable-app-health-check", false) {
            return None;
        }
        if health.timeout > health.interval {
            let problem = format!("longer than the time between probes, which is {} s", health.interval.as_secs());
            self.mistakes.add(format!("--app-health-probe-timeout {}", health.timeout.as_millis()), problem);
        }
        Some(health)
    }

    fn reads_app_config(&mut self) -> bool {
        let mut read = true;
        for endpoint in self.given.list("disable-init-endpoints") {
            match endpoint.as_str() {
                "config" => read = false,
                "subscribe" => {}
                other => {
                    self.mistakes.add(format!("--disable-init-endpoints {other}"), "write config or subscribe");
                }
            }
        }
        read
    }

    fn http(&mut self) -> HttpConfig {
        let listen = self.addresses("dapr-listen-addresses").unwrap_or_else(|| match self.persona {
            Persona::Callboard | Persona::Dapr => config::loopback(),
            Persona::Daprd => config::all_interfaces(),
        });
        let public = match self.port("dapr-public-port") {
            Some(port) if port.number != 0 => {
                let on = self.addresses("dapr-public-listen-address").unwrap_or_else(config::all_interfaces);
                on.into_iter().map(|ip| SocketAddr::new(ip, port.number)).collect()
            }
            Some(_) | None => Vec::new(),
        };
        let read_buffer = self.size("read-buffer-size", "dapr-http-read-buffer-size", 1_000, 4 << 10);
        if !READ_BUFFER.contains(&read_buffer) {
            self.mistakes.add(format!("--read-buffer-size {read_buffer}"), "give a size from 1Ki to 16Mi");
        }
        HttpConfig {
            listen,
            public,
            allowed_origins: self.given.list("allowed-origins"),
            unix_dir: self.given.text("unix-domain-socket").map(PathBuf::from),
            h2c: !self.env.truthy("DAPR_HTTP_DISABLE_H2C"),
            max_body: self.size("max-body-size", "dapr-http-max-request-size", 1_000_000, 4 << 20),
            read_buffer: usize::try_from(read_buffer).unwrap_or(4 << 10),
        }
    }

    fn ports(&mut self, app_id: &str) -> Ports {
        let default = Ports::default();
        let fixed = |port: Port| match self.persona {
            Persona::Callboard | Persona::Dapr => port,
            Persona::Daprd => Port::fixed(port.number),
        };
        let (http, grpc, metrics) = (fixed(default.http), fixed(default.grpc), default.metrics.map(fixed));
        let peer = match self.persona {
            Persona::Callboard | Persona::Dapr => default.peer,
            Persona::Daprd => Port::preferred(daprd_peer_port(app_id)),
        };
        let metrics_port = self.port("metrics-port").or(metrics);
        Ports {
            http: self.port("dapr-http-port").unwrap_or(http),
            grpc: self.port("dapr-grpc-port").unwrap_or(grpc),
            peer: self.port("dapr-internal-grpc-port").unwrap_or(peer),
            metrics: if self.switch("enable-metrics", true) { metrics_port } else { None },
        }
    }

    /// Two doors on one port, or the app on a port of ours.
    fn check_ports(&mut self, ports: &Ports, http: &HttpConfig, app: Option<&AppConfig>) {
        let mut taken: Vec<(&str, u16)> = Vec::new();
        let public = http.public.first().map(|addr| Port::fixed(addr.port()));
        let all = [
            ("dapr-http-port", Some(ports.http)),
            ("dapr-grpc-port", Some(ports.grpc)),
            ("dapr-internal-grpc-port", Some(ports.peer)),
            ("metrics-port", ports.metrics),
            ("dapr-public-port", public),
        ];
        for (flag, port) in all {
            let Some(Port { number, explicit: true }) = port else { continue };
            if app.is_some_and(|app| app.port == number) {
                self.mistakes.add(
                    format!("--app-port {number}"),
                    format!("the same as --{flag}; the app and the node need different ports"),
                );
            }
            if let Some((other, _)) = taken.iter().find(|(_, taken)| *taken == number) {
                self.mistakes.add(format!("--{flag} {number}"), format!("the same as --{other}; give another port"));
            }
            taken.push((flag, number));
        }
    }

    fn data(&mut self, cluster: &str, node_name: &str) -> data_dir::Choice {
        if self.given.is_blank("data-dir") {
            self.blank("data-dir");
        }
        let explicit = self.given.text("data-dir").map(PathBuf::from);
        if self.switch("ephemeral", false) {
            if let Some(path) = explicit {
                let problem = "excludes --ephemeral, which keeps nothing; leave one of the two out";
                self.mistakes.add(format!("--data-dir {}", path.display()), problem);
            }
            self.notices.push(
                "--ephemeral: data lives in a temporary folder; acknowledged writes do not survive the end of this process"
                    .into(),
            );
            return data_dir::Choice::Ephemeral;
        }
        if let Some(path) = explicit {
            return data_dir::Choice::Explicit(path);
        }
        let absolute = |path: &str| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        let base = self.env.get("XDG_DATA_HOME").and_then(absolute);
        let base = base.or_else(|| self.env.get("HOME").and_then(absolute).map(|home| home.join(".local/share")));
        let Some(base) = base else {
            let problem = "no default, since neither HOME nor XDG_DATA_HOME is set: give a folder, or --ephemeral";
            self.mistakes.add("--data-dir", problem);
            return data_dir::Choice::Ephemeral;
        };
        let folder = base.join("callboard").join(cluster);
        if self.given.text("node-name").is_some() {
            data_dir::Choice::Explicit(folder.join(node_name))
        } else {
            data_dir::Choice::Default { folder, name: node_name.to_owned() }
        }
    }

    fn bootstrap(&mut self) -> Bootstrap {
        let default = Bootstrap::default();
        let partitions = self.number("partitions", default.partitions);
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            self.bad("partitions", &format!("give a number from 1 to {MAX_PARTITIONS}"));
        }
        let replicas = self.number("replicas", default.replicas);
        if replicas.is_multiple_of(2) || replicas > MAX_REPLICAS {
            self.bad("replicas", &format!("give an odd number from 1 to {MAX_REPLICAS}, so that a majority is clear"));
        }
        Bootstrap { partitions, replicas }
    }

    fn shutdown(&mut self) -> ShutdownConfig {
        let default = ShutdownConfig::default();
        let grace = self.number("dapr-graceful-shutdown-seconds", default.grace.as_secs());
        let block = self.given.text("dapr-block-shutdown-duration").map(duration::parse_go_duration);
        let block = match block {
            None => None,
            Some(Ok(block)) => Some(block).filter(|block| !block.is_zero()),
            Some(Err(_)) => {
                self.bad("dapr-block-shutdown-duration", "not a duration: write for example 10s or 1m30s");
                None
            }
        };
        ShutdownConfig { grace: Duration::from_secs(grace), block }
    }

    fn reads(&mut self) -> ReadMode {
        match self.given.text("reads") {
            None | Some("lease") => ReadMode::Lease,
            Some("index") => ReadMode::Index,
            Some(_) => {
                self.bad("reads", "write lease or index");
                ReadMode::Lease
            }
        }
    }

    fn log(&mut self) -> logging::Settings {
        let level = match self.given.text("log-level").map(str::to_ascii_lowercase).as_deref() {
            None | Some("info") => logging::Level::Info,
            Some("trace" | "debug") => logging::Level::Debug,
            Some("warn" | "warning") => logging::Level::Warn,
            Some("error" | "fatal" | "panic") => logging::Level::Error,
            Some(_) => {
                self.bad("log-level", "write debug, info, warn or error");
                logging::Level::Info
            }
        };
        let json = match self.given.text("log-format") {
            None => self.switch("log-as-json", false),
            Some("json") => true,
            Some("text") => false,
            Some(_) => {
                self.bad("log-format", "write text or json");
                false
            }
        };
        logging::Settings {
            level,
            format: if json { logging::Format::Json } else { logging::Format::Text },
            output: match self.persona {
                Persona::Callboard => logging::Output::Stderr,
                Persona::Dapr | Persona::Daprd => logging::Output::Stdout,
            },
            filter: self.env.get("CALLBOARD_LOG").map(str::to_owned),
        }
    }
}

/// A number that stays the same for an app id, whoever else runs on the machine.
fn daprd_peer_port(app_id: &str) -> u16 {
    let hash = app_id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let span = u32::from(DAPRD_PEER_PORTS.end - DAPRD_PEER_PORTS.start);
    DAPRD_PEER_PORTS.start + u16::try_from(hash % span).unwrap_or(0)
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod resolve_test;
