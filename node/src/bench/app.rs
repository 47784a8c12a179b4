//! The app under measurement: an actor host and echo service that does as little as possible besides what is measured.
//!
//! It runs in a process of its own, as apps do. Its actor type has the methods `noop` (answers at once) and `rw` (reads
//! one state key and writes it back through the sidecar, over connections it keeps); its reminders record how late they
//! come. `/stats` tells what it has seen, so that a measurement can check that the work was really done.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::http::{self as raw, Connection};
use super::stats::{Latencies, Summary};

/// The actor type it hosts unless told otherwise.
pub const ACTOR_TYPE: &str = "bench";
/// The state key that `rw` reads and writes.
const STATE_KEY: &str = "n";
/// Largest body it echoes.
const MAX_BODY: usize = 16 << 20;
/// Connections to the sidecar that are kept for later.
const MAX_IDLE: usize = 1_024;
/// Connections it serves at a time.
const MAX_CONNECTIONS: usize = 16_384;

/// Flags of the app; each falls back to the environment that a sidecar's launcher sets.
#[derive(Debug, Clone, Parser)]
#[command(name = "echo", about = "The app that `callboard bench` measures with")]
pub struct Options {
    /// Port to listen on; 0 = any free one, which is printed
    #[arg(long, env = "APP_PORT", default_value_t = 0)]
    pub port: u16,
    /// Actor type to host
    #[arg(long, env = "ACTOR_TYPE", default_value = ACTOR_TYPE)]
    pub actor_type: String,
    /// HTTP port of the sidecar that keeps the state
    #[arg(long, env = "DAPR_HTTP_PORT", default_value_t = 3500)]
    pub dapr_http_port: u16,
    /// Token the sidecar wants
    #[arg(long, env = "DAPR_API_TOKEN", hide_env_values = true)]
    pub dapr_api_token: Option<String>,
}

/// What the app has seen since it started or was last reset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub echo: u64,
    pub noop: u64,
    pub rw: u64,
    /// `rw` calls that failed, because a state call did.
    pub rw_failed: u64,
    pub deactivated: u64,
    pub reminders: Reminders,
}

/// Firings of reminders that carried their due instant as data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reminders {
    pub fired: u64,
    /// Reminders of which at least one firing was seen.
    pub distinct: u64,
    /// Fired before they were due, by this machine's wall clock.
    pub early: u64,
    /// How late, in microseconds; early ones count as on time.
    pub lateness: Summary,
}

/// Runs the app until the process ends.
///
/// # Errors
///
/// It cannot listen.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("echo").build()?;
    runtime.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        println!("listening on {}", listener.local_addr()?);
        serve(listener, Arc::new(App::new(options))).await
    })
}

async fn serve(listener: TcpListener, app: Arc<App>) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        connections.spawn(converse(stream, Arc::clone(&app)));
    }
}

async fn converse(stream: TcpStream, app: Arc<App>) {
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    if stream.set_nodelay(true).is_ok() {
        // A connection that breaks is the other side's affair.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

struct App {
    options: Options,
    sidecar: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    counts: Counts,
    lateness: Mutex<Lateness>,
}

#[derive(Default)]
struct Counts {
    echo: AtomicU64,
    noop: AtomicU64,
    rw: AtomicU64,
    rw_failed: AtomicU64,
    deactivated: AtomicU64,
}

#[derive(Default)]
struct Lateness {
    late: Latencies,
    early: u64,
    fired: u64,
    /// Firings by actor id and reminder name.
    seen: BTreeMap<String, u64>,
}

type Answer = Response<Full<Bytes>>;

impl App {
    fn new(options: Options) -> Self {
        let sidecar = SocketAddr::from((Ipv4Addr::LOCALHOST, options.dapr_http_port));
        Self { options, sidecar, idle: Mutex::default(), counts: Counts::default(), lateness: Mutex::default() }
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "too large");
        };
        let body = body.to_bytes();
        let path = parts.uri.path();
        let mut segments = path.trim_start_matches('/').split('/');
        match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("echo"), None, ..) => {
                add(&self.counts.echo);
                Response::new(Full::new(body))
            }
            (Some("actors"), Some(_), Some(id), Some("method"), Some("rw")) => self.rw(id).await,
            (Some("actors"), Some(_), Some(_), Some("method"), Some("noop")) => {
                add(&self.counts.noop);
                Response::new(Full::new(Bytes::from_static(b"ok")))
            }
            (Some("actors"), Some(_), Some(id), Some("method"), Some("remind")) => {
                self.reminded(id, segments.next().unwrap_or_default(), &body);
                Response::new(Full::default())
            }
            (Some("actors"), Some(_), Some(_), None, None) if parts.method == Method::DELETE => {
                add(&self.counts.deactivated);
                Response::new(Full::default())
            }
            (Some("dapr"), Some("config"), None, ..) => {
                json(&serde_json::json!({ "entities": [self.options.actor_type] }))
            }
            (Some("healthz"), None, ..) => Response::new(Full::default()),
            (Some("stats"), None, ..) if parts.method == Method::DELETE => {
                self.reset();
                Response::new(Full::default())
            }
            (Some("stats"), None, ..) => json(&self.stats()),
            (Some("dapr"), Some("subscribe"), None, ..) => json(&serde_json::json!([])),
            _ => text(StatusCode::NOT_FOUND, "no such path"),
        }
    }

    /// Reads the actor's number and writes the next one.
    async fn rw(&self, id: &str) -> Answer {
        match self.increment(id).await {
            Ok(number) => {
                add(&self.counts.rw);
                Response::new(Full::from(number.to_string()))
            }
            Err(error) => {
                add(&self.counts.rw_failed);
                text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
            }
        }
    }

    async fn increment(&self, id: &str) -> anyhow::Result<u64> {
        let path = format!("/v1.0/actors/{}/{id}/state", self.options.actor_type);
        let (status, body) = self.sidecar_call("GET", &format!("{path}/{STATE_KEY}"), b"").await?;
        let number: u64 = match status {
            200 => serde_json::from_slice(&body).context("the state is not a number")?,
            204 => 0,
            other => anyhow::bail!("state get: {other}"),
        };
        let next = number + 1;
        let write = format!(r#"[{{"operation":"upsert","request":{{"key":"{STATE_KEY}","value":{next}}}}}]"#);
        match self.sidecar_call("POST", &path, write.as_bytes()).await? {
            (200..300, _) => Ok(next),
            (other, body) => anyhow::bail!("state transaction: {other} {}", String::from_utf8_lossy(&body)),
        }
    }

    /// One call over a kept connection. A kept one that turns out closed is replaced once: state calls may be repeated,
    /// since the write carries the value and not a difference.
    async fn sidecar_call(&self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let authority = self.sidecar.to_string();
        let token = self.options.dapr_api_token.as_deref().map(|token| ("dapr-api-token", token));
        let headers: Vec<_> = token.into_iter().chain([("content-type", "application/json")]).collect();
        let request = raw::request(method, path, &authority, &headers, body);
        let kept = self.idle.lock().pop();
        if let Some(mut connection) = kept
            && let Ok(answer) = connection.fetch(&request).await
        {
            self.keep(connection);
            return Ok(answer);
        }
        let mut connection = Connection::open(self.sidecar).await?;
        let answer = connection.fetch(&request).await?;
        self.keep(connection);
        Ok(answer)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if connection.is_usable() && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    fn reminded(&self, id: &str, name: &str, body: &[u8]) {
        let now = unix_now();
        let due = due_of(body);
        let mut lateness = self.lateness.lock();
        lateness.fired += 1;
        *lateness.seen.entry(format!("{id}/{name}")).or_default() += 1;
        if let Some(due) = due {
            lateness.early += u64::from(now < due);
            lateness.late.record(now.saturating_sub(due));
        }
    }

    fn reset(&self) {
        let Counts { echo, noop, rw, rw_failed, deactivated } = &self.counts;
        [echo, noop, rw, rw_failed, deactivated].into_iter().for_each(|count| count.store(0, Ordering::Relaxed));
        *self.lateness.lock() = Lateness::default();
    }

    fn stats(&self) -> Stats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let lateness = self.lateness.lock();
        Stats {
            echo: get(&self.counts.echo),
            noop: get(&self.counts.noop),
            rw: get(&self.counts.rw),
            rw_failed: get(&self.counts.rw_failed),
            deactivated: get(&self.counts.deactivated),
            reminders: Reminders {
                fired: lateness.fired,
                distinct: lateness.seen.len() as u64,
                early: lateness.early,
                lateness: lateness.late.summary(),
            },
        }
    }
}

/// The due instant that the measurement put into the reminder's data: microseconds since 1970.
fn due_of(body: &[u8]) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Callback {
        data: Due,
    }
    #[derive(Deserialize)]
    struct Due {
        due: u64,
    }
    serde_json::from_slice::<Callback>(body).ok().map(|callback| Duration::from_micros(callback.data.due))
}

/// The wall clock, since 1970.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(Full::from(text.to_owned()));
    *response.status_mut() = status;
    response
}

fn json(value: &impl Serialize) -> Answer {
    let mut response = Response::new(Full::from(serde_json::to_vec(value).unwrap_or_default()));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
#[path = "app_test.rs"]
mod app_test;
