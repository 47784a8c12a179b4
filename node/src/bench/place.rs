//! Where to measure: a sidecar that is named or found, or one started for the purpose.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::args::Args;
use super::http;
use super::scenario::Target;
use crate::cli::child::{self, AppOutput, Running};
use crate::cli::client::Endpoint;
use crate::cli::env::Env;
use crate::cli::registry::{Entry, Registry};

/// Time a node and its app have to start.
const START: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time a node has to stop.
const STOP: Duration = Duration::from_secs(15);

/// A place that can be measured.
#[derive(Debug)]
pub struct Place {
    pub target: Target,
    pub metrics: Option<SocketAddr>,
    /// A folder on the file system the node writes to.
    pub folder: Option<PathBuf>,
    own: Option<Own>,
}

/// A node of our own.
#[derive(Debug)]
struct Own {
    node: Running,
    data: tempfile::TempDir,
}

impl Place {
    /// Finds or starts it.
    ///
    /// # Errors
    ///
    /// It is not there or does not answer.
    pub async fn of(args: &Args, env: &Env) -> anyhow::Result<Self> {
        let registry = Registry::of_user(env);
        let mut place = if args.own {
            Self::start(args, env, &registry).await?
        } else if let Some(address) = &args.dapr_http {
            let target = target(args, env, resolve(address).context("--dapr-http")?, None, &args.app_id);
            Self { target, metrics: None, folder: None, own: None }
        } else {
            let running = registry.running();
            let entry = running.iter().find(|entry| entry.app_id == args.app_id);
            let missing =
                || format!("no node with app id {} runs here; use --self, --app-id or --dapr-http", args.app_id);
            Self::beside(args, env, entry.with_context(missing)?)?
        };
        if let Some(app) = &args.app {
            place.target.app = Some(resolve(app).context("--app")?);
        }
        if let Some(metrics) = &args.metrics {
            place.metrics = Some(resolve(metrics).context("--metrics")?);
        }
        if let Some(folder) = &args.data_dir {
            place.folder = Some(folder.clone());
        }
        Ok(place)
    }

    fn beside(args: &Args, env: &Env, entry: &Entry) -> anyhow::Result<Self> {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let target = target(args, env, resolve(&entry.http_address)?, entry.app_port.map(at), &entry.app_id);
        Ok(Self { target, metrics: entry.metrics_port.map(at), folder: Some(entry.data_dir.clone()), own: None })
    }

    /// Starts a node with the echo app, on free ports, with its data where nodes keep theirs.
    async fn start(args: &Args, env: &Env, registry: &Registry) -> anyhow::Result<Self> {
        let app_id = format!("bench-{}", std::process::id());
        let data = data_folder(args, env)?;
        let app_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let exe = child::this_binary().into_os_string();
        let mut words: Vec<OsString> = vec![
            exe.clone(),
            "run".into(),
            "--standalone".into(),
            "--data-dir".into(),
            data.path().join("data").into(),
        ];
        let flags = [
            format!("--app-id={app_id}"),
            format!("--app-port={app_port}"),
            "--dapr-http-port=0".into(),
            "--dapr-grpc-port=0".into(),
            "--dapr-internal-grpc-port=0".into(),
            "--metrics-port=0".into(),
            "--log-level=warn".into(),
        ];
        words.extend(flags.into_iter().map(OsString::from));
        words.extend(args.node_flags.iter().map(OsString::from));
        words.extend(["--".into(), exe, super::APP_SUBCOMMAND.into()]);
        words.extend([OsString::from("--actor-type"), OsString::from(&args.actor_type)]);
        let command = child::Command::of(words, AppOutput::Stderr).context("no command")?;
        let mut node = command.start(&[]).context("cannot start a node")?;
        let ready = tokio::select! {
            code = node.exited() => Err(anyhow::anyhow!("the node ended at once with exit code {code}")),
            entry = ready(registry, &app_id) => entry,
        };
        match ready.and_then(|entry| Self::beside(args, env, &entry)) {
            Ok(place) => {
                let folder = args.data_dir.clone().or_else(|| Some(data.path().to_owned()));
                Ok(Self { folder, own: Some(Own { node, data }), ..place })
            }
            Err(error) => {
                node.stop(STOP).await;
                Err(error)
            }
        }
    }

    /// Ends what was started for the purpose.
    pub async fn leave(self) {
        if let Some(Own { node, data }) = self.own {
            node.stop(STOP).await;
            drop(data);
        }
    }
}

fn target(args: &Args, env: &Env, dapr: SocketAddr, app: Option<SocketAddr>, app_id: &str) -> Target {
    Target {
        dapr,
        app,
        app_id: app_id.to_owned(),
        actor_type: args.actor_type.clone(),
        token: env.get("DAPR_API_TOKEN").map(str::to_owned),
        actors: usize::try_from(args.actors).unwrap_or(1),
        body: usize::try_from(args.body).unwrap_or(0),
        run: format!("{:x}", super::app::unix_now().as_micros()),
    }
}

/// A folder that is removed afterwards, on the file system of real data: a temporary file system would flatter.
fn data_folder(args: &Args, env: &Env) -> anyhow::Result<tempfile::TempDir> {
    let base = match (&args.data_dir, env.get("XDG_DATA_HOME"), env.get("HOME")) {
        (Some(folder), _, _) => folder.clone(),
        (None, Some(data), _) => PathBuf::from(data).join("callboard"),
        (None, None, Some(home)) => PathBuf::from(home).join(".local/share/callboard"),
        (None, None, None) => bail!("--data-dir: neither HOME nor XDG_DATA_HOME is set: give a folder"),
    };
    let made = std::fs::create_dir_all(&base);
    made.with_context(|| format!("--data-dir {}", base.display()))?;
    tempfile::Builder::new()
        .prefix(".bench-")
        .tempdir_in(&base)
        .with_context(|| format!("--data-dir {}", base.display()))
}

/// Waits until the node of `app_id` is there, and its app hosts its actors.
async fn ready(registry: &Registry, app_id: &str) -> anyhow::Result<Entry> {
    let started = Instant::now();
    loop {
        if let Some(entry) = registry.running().into_iter().find(|entry| entry.app_id == app_id) {
            let address = resolve(&entry.http_address)?;
            if healthy(address).await {
                return Ok(entry);
            }
        }
        if started.elapsed() > START {
            bail!("the node was not ready within {} s", START.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn healthy(address: SocketAddr) -> bool {
    let request = http::request("GET", "/v1.0/healthz", &address.to_string(), &[], b"");
    http::ask(address, &request).await.is_ok_and(|(status, _)| (200..300).contains(&status))
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let authority = Endpoint::parse(address)?.authority;
    let found = authority.to_socket_addrs().with_context(|| format!("{address}: unknown host"))?.next();
    found.with_context(|| format!("{address}: unknown host"))
}
