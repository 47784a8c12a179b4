//! One node: the real binary with free ports and a data directory of its own.
//!
//! A [`Node`] is started from a [`Setup`] and keeps it, so that it can be killed and started again on the same data and
//! ports. Dropping it ends the process and everything it has started.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::app::App;
use crate::binary;
use crate::http::{Answer, Outgoing, Session, request};
use crate::ports;
use crate::process::{Descriptors, Process, descriptors, threads};
use crate::wait::{PATIENCE, eventually};

/// Variables of the caller's own environment that would change a node's behaviour.
const CLEARED: [&str; 12] = [
    "NAMESPACE",
    "DAPR_API_TOKEN",
    "APP_API_TOKEN",
    "DAPR_HTTP_PORT",
    "DAPR_GRPC_PORT",
    "DAPR_HTTP_ENDPOINT",
    "DAPR_GRPC_ENDPOINT",
    "DAPR_HOST_IP",
    "DAPR_HTTP_DISABLE_H2C",
    "APP_ID",
    "APP_PORT",
    "APP_PROTOCOL",
];

/// Under which name, and so with which manners, the binary is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// `callboard run`.
    Run,
    /// `daprd`, through a symbolic link.
    Daprd,
}

/// What a node is started with.
#[derive(Clone)]
#[must_use]
pub struct Setup {
    app_id: String,
    app: Option<SocketAddr>,
    manner: Manner,
    args: Vec<String>,
    command: Vec<String>,
    envs: Vec<(String, String)>,
    home: Arc<TempDir>,
    http: u16,
    grpc: u16,
    peer: u16,
    metrics: u16,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new("myapp")
    }
}

impl Setup {
    pub fn new(app_id: &str) -> Self {
        Self {
            app_id: app_id.to_owned(),
            app: None,
            manner: Manner::Run,
            args: Vec::new(),
            command: Vec::new(),
            envs: Vec::new(),
            home: Arc::new(tempfile::Builder::new().prefix("callboard-").tempdir().expect("make a folder")),
            http: ports::free(),
            grpc: ports::free(),
            peer: ports::free(),
            metrics: ports::free(),
        }
    }

    /// The sidecar of this app.
    pub fn app(self, app: &App) -> Self {
        self.app_at(app.address)
    }

    pub fn app_at(mut self, address: SocketAddr) -> Self {
        self.app = Some(address);
        self
    }

    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// The app as a child: what follows `--`.
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.envs.push((name.to_owned(), value.into()));
        self
    }

    pub fn http_port(&self) -> u16 {
        self.http
    }

    /// The folder of this node's files, outside its data directory too.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Writes a YAML resource into the folder this node reads resources from.
    pub fn resource(self, name: &str, yaml: &str) -> Self {
        let folder = self.home.path().join("resources");
        std::fs::create_dir_all(&folder).expect("make the resources folder");
        std::fs::write(folder.join(name), yaml).expect("write a resource");
        let flag = format!("--resources-path={}", folder.display());
        if self.args.contains(&flag) { self } else { self.arg(flag) }
    }

    /// Starts the process, and waits for nothing.
    pub fn spawn(self) -> Node {
        let log = self.home.path().join("log");
        let process = Process::start(&mut self.command_line(), &log);
        Node { process, setup: self, log }
    }

    /// Starts it and waits until its outbound APIs work.
    pub async fn start(self) -> Node {
        let mut node = self.spawn();
        node.wait_outbound().await;
        node
    }

    /// Starts it and waits until its app is known and its actors are hosted.
    pub async fn ready(self) -> Node {
        let mut node = self.start().await;
        node.wait_ready().await;
        node
    }

    /// The whole command line.
    pub fn command_line(&self) -> Command {
        let mut command = match self.manner {
            Manner::Run => {
                let mut command = Command::new(binary::callboard());
                command.arg("run");
                command
            }
            Manner::Daprd => {
                let link = self.home.path().join("daprd");
                if !link.exists() {
                    symlink(binary::callboard(), &link).expect("link daprd");
                }
                Command::new(link)
            }
        };
        command.arg("--app-id").arg(&self.app_id);
        if let Some(app) = self.app {
            command.arg("--app-port").arg(app.port().to_string());
        }
        for (flag, port) in [
            ("--dapr-http-port", self.http),
            ("--dapr-grpc-port", self.grpc),
            ("--dapr-internal-grpc-port", self.peer),
            ("--metrics-port", self.metrics),
        ] {
            command.arg(flag).arg(port.to_string());
        }
        if !self.args.iter().any(|arg| arg.starts_with("--ephemeral") || arg.starts_with("--data-dir")) {
            command.arg("--data-dir").arg(self.data());
        }
        command.arg("--standalone").args(&self.args);
        if !self.command.is_empty() {
            command.arg("--").args(&self.command);
        }
        for name in CLEARED {
            command.env_remove(name);
        }
        let own = self.home.path();
        command.env("XDG_RUNTIME_DIR", own).env("XDG_DATA_HOME", own.join("share")).current_dir(own);
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Whatever a leak of a node would show in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub sockets: usize,
    pub files: usize,
    pub threads: usize,
    pub tasks: u64,
    pub requests: u64,
    pub actors: u64,
    pub turns: u64,
    pub waiting: u64,
    pub timers: u64,
}

fn metric_in(metrics: &str, name: &str) -> Option<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(|value| value.parse().expect("a count"))
}

pub struct Node {
    process: Process,
    setup: Setup,
    log: PathBuf,
}

impl Node {
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Changes what the next start will be given.
    pub fn change(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn app_id(&self) -> &str {
        &self.setup.app_id
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.setup.http))
    }

    pub fn grpc(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.setup.grpc))
    }

    pub fn peer(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.setup.peer))
    }

    pub fn metrics(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.setup.metrics))
    }

    pub fn data(&self) -> PathBuf {
        self.setup.data()
    }

    /// Everything printed so far, over all starts.
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn request(&self, method: &str, path: &str) -> Outgoing {
        request(self.http(), method, path)
    }

    pub fn get(&self, path: &str) -> Outgoing {
        self.request("GET", path)
    }

    pub fn post(&self, path: &str) -> Outgoing {
        self.request("POST", path)
    }

    pub fn put(&self, path: &str) -> Outgoing {
        self.request("PUT", path)
    }

    pub fn delete(&self, path: &str) -> Outgoing {
        self.request("DELETE", path)
    }

    /// Runs a method of an actor.
    pub async fn call(&self, kind: &str, id: &str, method: &str) -> Answer {
        self.post(&format!("/v1.0/actors/{kind}/{id}/method/{method}")).send().await
    }

    /// Writes one key of an active actor.
    pub async fn put_state(&self, kind: &str, id: &str, key: &str, value: Value) -> Answer {
        let operations = serde_json::json!([{"operation": "upsert", "request": {"key": key, "value": value}}]);
        self.post(&format!("/v1.0/actors/{kind}/{id}/state")).json(&operations).send().await
    }

    pub async fn get_state(&self, kind: &str, id: &str, key: &str) -> Answer {
        self.get(&format!("/v1.0/actors/{kind}/{id}/state/{key}")).send().await
    }

    /// Registers a reminder and expects success.
    pub async fn remind(&self, kind: &str, id: &str, name: &str, body: Value) {
        let path = format!("/v1.0/actors/{kind}/{id}/reminders/{name}");
        self.post(&path).json(&body).send().await.expect_empty();
    }

    pub async fn metadata(&self) -> Value {
        self.get("/v1.0/metadata").send().await.expect(200).json()
    }

    /// The number of active actors of a type by metadata; 0 when the type is not even listed.
    pub async fn active(&self, kind: &str) -> u64 {
        let metadata = self.metadata().await;
        let listed = metadata["actorRuntime"]["activeActors"].as_array().cloned().unwrap_or_default();
        listed.iter().find(|entry| entry["type"] == kind).and_then(|entry| entry["count"].as_u64()).unwrap_or(0)
    }

    /// The value of one line of the metrics; 0 for one they do not list.
    pub async fn metric(&self, line: &str) -> u64 {
        metric_in(&self.metrics_text().await, line).unwrap_or(0)
    }

    /// How many errors of this code the metrics count.
    pub async fn error_count(&self, code: &str) -> u64 {
        self.metric(&format!("callboard_error_codes_total{{error_code=\"{code}\"}}")).await
    }

    async fn metrics_text(&self) -> String {
        request(self.metrics(), "GET", "/metrics").send().await.expect(200).text()
    }

    /// What it holds at this moment, the connection that asks for it included.
    pub async fn held(&self) -> Held {
        let mut session = Session::new(self.metrics());
        let asked = session.send(request(self.metrics(), "GET", "/metrics")).await;
        let metrics = asked.unwrap_or_else(|error| panic!("GET /metrics: {error}")).expect(200).text();
        let listed = |name| metric_in(&metrics, name).unwrap_or_else(|| panic!("the metrics list no {name}"));
        let Descriptors { sockets, others } = descriptors(self.id());
        Held {
            sockets,
            files: others,
            threads: threads(self.id()),
            tasks: listed("callboard_tasks"),
            requests: listed("callboard_http_requests_in_flight"),
            actors: listed("callboard_actors_active"),
            turns: listed("callboard_turns_running"),
            waiting: listed("callboard_calls_waiting"),
            timers: listed("callboard_timers"),
        }
    }

    /// Waits until `GET path` answers 204.
    async fn wait_healthy(&mut self, path: &str) {
        let what = format!("{path} answers 204");
        let address = self.http();
        let process = &mut self.process;
        eventually(PATIENCE, &what, async || {
            if let Some(ended) = process.ended() {
                panic!("the node ended ({ended}) before {what}");
            }
            let answer = request(address, "GET", path).within(Duration::from_secs(5)).try_send().await.ok()?;
            (answer.status == 204).then_some(())
        })
        .await;
    }

    pub async fn wait_outbound(&mut self) {
        self.wait_healthy("/v1.0/healthz/outbound").await;
    }

    pub async fn wait_ready(&mut self) {
        self.wait_healthy("/v1.0/healthz").await;
    }

    /// Waits until `text` is in the log.
    pub async fn wait_log(&self, text: &str, within: Duration) {
        eventually(within, &format!("the log says {text:?}"), async || self.log().contains(text).then_some(())).await;
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub async fn wait_end(&mut self, within: Duration) -> ExitStatus {
        self.process.wait_end(within).await
    }

    /// Lets it run on after this program, with its folder, whose path is the answer.
    pub fn leave(self) -> PathBuf {
        self.process.leave();
        Arc::into_inner(self.setup.home).expect("no other node uses this folder").keep()
    }

    /// `kill -9`, of everything it has started too.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// `kill -9` of the node alone: its app, if it is a child, lives on.
    pub fn kill_alone(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    pub fn interrupt(&self) {
        self.process.signal(Signal::INT);
    }

    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts it again with the same settings, on the same data; waits until its outbound APIs work.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = Process::start(&mut self.setup.command_line(), &self.log);
        self.wait_outbound().await;
    }

    /// Starts it again and waits until its actors are hosted.
    pub async fn restart_ready(&mut self) {
        self.restart().await;
        self.wait_ready().await;
    }
}
