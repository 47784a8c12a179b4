//! The app channel: the link to the user's program, whichever protocol it speaks.
//!
//! Two ways to call: [`AppChannel::call_if`] with whole bodies for turns, [`AppChannel::forward`] with streaming bodies
//! for invocations. Both share the concurrency limit, the app token and the health gate. A failure says what may have
//! happened: [`Error::NotSent`] promises that no byte of the request was written.
//!
//! Beside the calls, one task follows the app's life (`supervise`, decided in `life`) and publishes an [`AppView`].
//! Calls report to it what they notice: a refused connection is proof that the app's process is gone.
//!
//! Deliberately absent: retries (the router's business), time limits of turns (the caller's), and gRPC apps, for which
//! the channel says that it is not initialized.

pub mod answer;
#[cfg(test)]
pub(crate) mod fake;
pub mod http1;
pub mod http2;
mod life;
pub mod net;
pub mod path;
mod supervise;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::actor_config::HostedTypes;
use callboard_types::Class;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::config::{AppConfig, AppProtocol, Config, HealthCheck};
use crate::ingress::http::body::Body;
use crate::tasks::{Kind, Tasks};

use answer::Answer;
use http1::{Gate, OPEN, SendError};
use life::{Event, Life, News, Plan};
use net::{Address, DialError, Tls};

/// Carries the API token towards the node and the app token towards the app.
pub const API_TOKEN: HeaderName = HeaderName::from_static("dapr-api-token");

/// A connection to the app is established within this time, or not at all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to an app: open, kept idle, and for how long (the servers that SDKs bring close after 5 s). All may be
/// kept: closing what the next burst opens again costs more than the few seconds they idle.
const CONNECTIONS: usize = 1_024;
const IDLE_CONNECTIONS: usize = CONNECTIONS;
const IDLE_FOR: Duration = Duration::from_secs(4);

/// What is known of the app.
#[derive(Debug, Clone, Default)]
pub struct AppView {
    /// Its port accepted a connection in this process life of the app.
    pub port_open: bool,
    /// Health checks pass, or none are configured and the port is open.
    pub healthy: bool,
    /// Its `/dapr/config` has been asked for (and answered in whatever way).
    pub config_read: bool,
    /// Rises each time there is proof that the app's process is gone: child exit, or connect refused on its port.
    pub incarnation: u64,
    /// The actor types it hosts, while it is healthy.
    pub hosted: Option<Arc<HostedTypes>>,
}

/// Why a call to the app has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("app channel is not initialized")]
    NotInitialized,
    #[error("app is not in a healthy state")]
    Unhealthy,
    /// No byte of the request was written.
    #[error("error invoking app channel: {0}")]
    NotSent(String),
    /// No byte of the request was written, because what allowed it has ended; see [`AppChannel::call_if`].
    #[error("the request is not allowed any more")]
    Forbidden,
    /// Something was written and no whole answer came: it may have run.
    #[error("error invoking app channel: {0}")]
    Lost(String),
    /// It was sent, and no answer came within the limit: it may have run, or still run.
    #[error("error invoking app channel: {0}")]
    TimedOut(String),
    /// The request itself cannot be sent, or its body failed on the way.
    #[error("{0}")]
    Invalid(String),
    #[error("response body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::NotInitialized | Error::Unhealthy | Error::NotSent(_) | Error::Forbidden => Class::Busy,
            Error::Lost(_) | Error::TimedOut(_) | Error::TooLarge { .. } => Class::Unknown,
            Error::Invalid(_) => Class::Rejected,
        }
    }
}

/// Bounds of the channel.
#[derive(Debug, Clone, Copy)]
pub struct ChannelLimits {
    /// Head of an answer, in bytes.
    pub head: usize,
    /// Body of an answer to [`AppChannel::call_if`], in bytes.
    pub body: u64,
    /// Wait for the head of an answer to [`AppChannel::forward`].
    pub answer: Duration,
}

impl ChannelLimits {
    pub fn of(config: &Config) -> Self {
        // Dapr does not limit what apps answer; a turn's answer is held in memory, so here it has a generous bound.
        let body = config.http.max_body.saturating_mul(16).max(64 << 20);
        Self { head: config.http.read_buffer, body, answer: config.limits.turn }
    }
}

/// Handle of the app channel; clones share it.
#[derive(Clone)]
pub struct AppChannel {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    transport: Option<Transport>,
    life: Mutex<Life>,
    view: watch::Sender<AppView>,
    /// Whether requests may go to the app: always, unless health checks say otherwise.
    gate: AtomicBool,
    health: Option<HealthCheck>,
    own_id: HeaderValue,
    host: HeaderValue,
    token: Option<HeaderValue>,
    /// `--app-max-concurrency`.
    slots: Option<Arc<Semaphore>>,
    limits: ChannelLimits,
    /// Wakes the supervisor: a connection failed.
    noticed: Notify,
}

enum Transport {
    Http1(Arc<http1::Pool>),
    Http2(Arc<http2::Multiplexed>),
}

impl Transport {
    fn address(&self) -> &Address {
        match self {
            Transport::Http1(pool) => pool.address(),
            Transport::Http2(pool) => pool.address(),
        }
    }

    async fn send(&self, request: Request<Body>, gate: Gate<'_>) -> Result<Response<Answer>, SendError> {
        match self {
            Transport::Http1(pool) => Ok(pool.send(request, gate).await?.map(Answer::Http1)),
            Transport::Http2(pool) => Ok(pool.send(request, gate).await?.map(Answer::Http2)),
        }
    }

    fn sweep(&self) {
        match self {
            Transport::Http1(pool) => pool.sweep(),
            Transport::Http2(_) => {}
        }
    }
}

impl AppChannel {
    /// Opens the channel and follows the app's life until the tasks stop. Without an app every call is
    /// [`Error::NotInitialized`].
    pub fn start(
        config: Option<AppConfig>,
        app_id: &str,
        app_token: Option<String>,
        tasks: &Tasks,
        limits: ChannelLimits,
    ) -> AppChannel {
        let transport = config.as_ref().and_then(|app| transport(app, tasks, limits));
        let health = config.as_ref().and_then(|app| app.health.clone());
        let plan = Plan {
            threshold: health.as_ref().map(|check| check.threshold.max(1)),
            read_config: config.as_ref().is_some_and(|app| app.read_config),
        };
        let host = transport.as_ref().map(|transport| transport.address().authority()).unwrap_or_default();
        let inner = Arc::new(Inner {
            life: Mutex::new(Life::new(plan)),
            view: watch::Sender::new(AppView::default()),
            gate: AtomicBool::new(health.is_none()),
            health,
            own_id: header_value(app_id, "app id"),
            host: header_value(&host, "app address"),
            token: app_token.map(|token| header_value(&token, "APP_API_TOKEN")),
            slots: config.and_then(|app| app.max_concurrency).map(|most| Arc::new(Semaphore::new(most))),
            transport,
            limits,
            noticed: Notify::new(),
        });
        if inner.transport.is_some() {
            tasks.spawn(Kind::Service, "app", supervise::run(inner.clone(), tasks.clone(), plan));
        }
        AppChannel { inner }
    }

    /// Sends a request with a whole body (path and query in its URI, no authority needed) and reads the whole answer.
    /// Adds the app token; waits for a slot of `--app-max-concurrency`.
    ///
    /// `gate` is asked immediately before the first byte is written; closed, it makes the call [`Error::Forbidden`].
    pub async fn call_if(&self, request: Request<Bytes>, gate: Gate<'_>) -> Result<Response<Bytes>, Error> {
        self.call_on(self.inner.passed()?, request, gate).await
    }

    /// As [`AppChannel::call_if`] where nothing forbids the call.
    #[cfg(test)]
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        self.call_if(request, OPEN).await
    }

    /// Sends a request also while the app is unhealthy: to end what it should no longer hold.
    pub async fn call_regardless(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        self.call_on(self.inner.transport.as_ref().ok_or(Error::NotInitialized)?, request, OPEN).await
    }

    async fn call_on(
        &self,
        transport: &Transport,
        request: Request<Bytes>,
        gate: Gate<'_>,
    ) -> Result<Response<Bytes>, Error> {
        let inner = &self.inner;
        let _slot = inner.slot().await?;
        let answer = inner.send(transport, request.map(Body::full), gate).await?;
        let (head, body) = answer.into_parts();
        let body = answer::whole(body, inner, inner.limits.body).await?;
        Ok(Response::from_parts(head, body))
    }

    /// Sends a request with a streaming body and returns the answer as its head arrives.
    pub async fn forward(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let inner = &self.inner;
        let transport = inner.passed()?;
        let slot = inner.slot().await?;
        let answer = match tokio::time::timeout(inner.limits.answer, inner.send(transport, request, OPEN)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::Lost(format!("no answer within {} s", inner.limits.answer.as_secs()))),
        };
        let (head, body) = answer.into_parts();
        let body = answer::streamed(body, Some(inner.clone()), slot).await;
        Ok(Response::from_parts(head, body))
    }

    pub fn watch(&self) -> watch::Receiver<AppView> {
        self.inner.view.subscribe()
    }

    /// Whether this node has an app to call.
    pub fn is_initialized(&self) -> bool {
        self.inner.transport.is_some()
    }

    /// Takes word that the app's process has ended, from whoever knows for certain: the parent of the process.
    pub fn process_gone(&self) {
        self.inner.observe(Event::Gone);
        self.inner.noticed.notify_one();
    }
}

impl Inner {
    /// The way to the app, if requests may take it.
    fn passed(&self) -> Result<&Transport, Error> {
        let transport = self.transport.as_ref().ok_or(Error::NotInitialized)?;
        if self.gate.load(Ordering::Acquire) { Ok(transport) } else { Err(Error::Unhealthy) }
    }

    async fn slot(&self) -> Result<Option<OwnedSemaphorePermit>, Error> {
        match &self.slots {
            None => Ok(None),
            Some(slots) => slots.clone().acquire_owned().await.map(Some).map_err(|_closed| Error::NotInitialized),
        }
    }

    /// Sends past gate and slots; the supervisor's own requests start here.
    async fn send(
        &self,
        transport: &Transport,
        mut request: Request<Body>,
        gate: Gate<'_>,
    ) -> Result<Response<Answer>, Error> {
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        match &self.token {
            Some(token) => {
                headers.insert(API_TOKEN, token.clone());
            }
            None => {
                headers.remove(API_TOKEN);
            }
        }
        transport.send(request, gate).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: SendError) -> Error {
        match error {
            SendError::Dial(DialError::Refused(address)) => {
                self.observe(Event::Refused);
                self.noticed.notify_one();
                Error::NotSent(DialError::Refused(address).to_string())
            }
            SendError::Dial(error @ (DialError::Timeout(_) | DialError::Io(..) | DialError::Tls(_))) => {
                Error::NotSent(error.to_string())
            }
            SendError::NotSent(text) => Error::NotSent(text),
            SendError::Forbidden => Error::Forbidden,
            SendError::Lost(text) => {
                self.connection_failed();
                Error::Lost(text)
            }
            SendError::Body(text) => Error::Invalid(text),
        }
    }

    /// A connection broke inside a call: the supervisor looks at the port at once.
    fn connection_failed(&self) {
        self.noticed.notify_one();
    }

    /// Whether anybody listens on the app's port at this moment.
    async fn still_listens(&self) -> bool {
        let Some(transport) = &self.transport else { return false };
        match transport.address().connect().await {
            Ok(_stream) => true,
            Err(DialError::Refused(_)) => {
                self.observe(Event::Refused);
                false
            }
            Err(DialError::Timeout(_) | DialError::Io(..) | DialError::Tls(_)) => false,
        }
    }

    /// Takes in an observation and publishes what it changes.
    fn observe(&self, event: Event) {
        let mut life = self.life.lock();
        let before = life.view().clone();
        // Who knows of the process's end knows whether it was wanted, and says so.
        let is_told = matches!(event, Event::Gone);
        if !life.on(event) {
            return;
        }
        let view = life.view().clone();
        self.gate.store(self.health.is_none() || view.healthy, Ordering::Release);
        match News::between(&before, &view).filter(|_| !is_told) {
            Some(News::Gone) => tracing::warn!("the app is gone from its port: nothing is sent to it until it is back"),
            Some(News::Unhealthy) => {
                tracing::warn!("the app's health checks fail: nothing is sent to it until they pass")
            }
            Some(News::Healthy) => tracing::info!("the app is healthy"),
            None => {}
        }
        // Under the lock, so that views are published in the order in which they came about.
        self.view.send_replace(view);
    }
}

fn transport(app: &AppConfig, tasks: &Tasks, limits: ChannelLimits) -> Option<Transport> {
    let address = |tls| Address { host: app.address.clone(), port: app.port, tls, timeout: DIAL_TIMEOUT };
    let pool =
        http1::Limits { connections: CONNECTIONS, idle: IDLE_CONNECTIONS, idle_for: IDLE_FOR, head: limits.head };
    match app.protocol {
        AppProtocol::Http => Some(Transport::Http1(http1::Pool::new(address(None), pool))),
        AppProtocol::Https => {
            let Ok(name) = ServerName::try_from(app.address.clone()) else {
                tracing::error!(address = app.address, "the app's address is not a host name; the app is not called");
                return None;
            };
            let tls = Tls { config: tls::unverified(), name };
            Some(Transport::Http1(http1::Pool::new(address(Some(tls)), pool)))
        }
        AppProtocol::H2c => match http2::Multiplexed::new(address(None), limits.head, tasks.clone()) {
            Ok(pool) => Some(Transport::Http2(pool)),
            Err(error) => {
                tracing::error!(address = app.address, %error, "the app's address is malformed; the app is not called");
                None
            }
        },
        AppProtocol::Grpc | AppProtocol::Grpcs => {
            tracing::error!(
                "--app-protocol grpc and grpcs are not supported: the app is not called; use http, https or h2c"
            );
            None
        }
    }
}

fn header_value(text: &str, what: &'static str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        tracing::error!("the {what} has characters that a header cannot carry; it is sent empty");
        HeaderValue::from_static("")
    })
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod tests;
