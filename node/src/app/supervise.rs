//! Follows the app's life: dials until its port opens, reads its config, probes its health, watches its port.
//!
//! The order is decided in `life`; here is only what each step does on the wire. The port watch opens and closes a
//! connection now and then, since a process that ended says nothing: without health checks nothing else would notice.
//! It stands aside while the port is known to be closed, when dialling does the same work more often.

use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_engine::actor_config::{self, HostedTypes};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};

use super::http1::OPEN;
use super::life::{Event, Next, Plan};
use super::net::DialError;
use super::{Inner, Transport, answer};
use crate::clock;
use crate::ingress::http::body::Body;
use crate::tasks::Tasks;

const DIAL_EVERY: Duration = Duration::from_millis(100);
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the port of a known app is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Between two looks that failing calls ask for.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// `/dapr/config` is asked for again after a broken connection, never after an answer.
const CONFIG_RETRY: Duration = Duration::from_secs(1);
const CONFIG_TIMEOUT: Duration = Duration::from_secs(30);
const CONFIG_BYTES: u64 = 4 << 20;
const OWN_ID: HeaderName = HeaderName::from_static("dapr-app-id");

pub(super) async fn run(inner: Arc<Inner>, tasks: Tasks, plan: Plan) {
    let Some(transport) = &inner.transport else { return };
    if !plan.read_config {
        tracing::info!("the app's configuration endpoint is disabled: /dapr/config is not called");
    }
    let mut supervisor = Supervisor { inner: &inner, transport, announced: false, probed: Instant::ZERO };
    tokio::select! {
        biased;
        () = tasks.stopping() => {}
        () = supervisor.follow() => {}
    }
}

struct Supervisor<'a> {
    inner: &'a Inner,
    transport: &'a Transport,
    /// The log says that it waits for the port.
    announced: bool,
    /// When the last health probe was sent.
    probed: Instant,
}

impl Supervisor<'_> {
    async fn follow(&mut self) {
        loop {
            let next = self.inner.life.lock().next();
            match next {
                Next::Dial => self.dial().await,
                Next::Probe => self.probe_until_healthy().await,
                Next::ReadConfig => self.read_config().await,
                Next::Watch => self.watch().await,
            }
        }
    }

    async fn dial(&mut self) {
        let port = self.transport.address().port;
        match self.accepts().await {
            Some(true) => {
                self.announced = false;
                tracing::info!(port, "application discovered on port {port}");
                self.inner.observe(Event::Accepted);
                return;
            }
            Some(false) => self.inner.observe(Event::Refused),
            None => {}
        }
        if !self.announced {
            self.announced = true;
            tracing::info!(port, "waiting for the application to listen on port {port}");
        }
        tokio::time::sleep(DIAL_EVERY).await;
    }

    /// Whether the port accepts (`Some(true)`), refuses (`Some(false)`) or says nothing.
    async fn accepts(&self) -> Option<bool> {
        match tokio::time::timeout(DIAL_TIMEOUT, self.transport.address().connect()).await {
            Ok(Ok(_stream)) => Some(true),
            Ok(Err(DialError::Refused(_))) => Some(false),
            Ok(Err(DialError::Timeout(_) | DialError::Io(..) | DialError::Tls(_))) | Err(_) => None,
        }
    }

    async fn probe_until_healthy(&mut self) {
        let Some(health) = &self.inner.health else { return };
        let every = health.interval;
        self.probe().await;
        if self.inner.life.lock().next() == Next::Probe {
            self.pause(every).await;
        }
    }

    async fn probe(&mut self) {
        let Some(health) = &self.inner.health else { return };
        self.probed = clock::monotonic();
        let request = request(Method::GET, &health.path);
        let healthy = match tokio::time::timeout(health.timeout, self.inner.send(self.transport, request, OPEN)).await {
            Ok(Ok(response)) => response.status().is_success(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the app's health check failed");
                false
            }
            Err(_) => {
                tracing::debug!("the app's health check timed out");
                false
            }
        };
        self.inner.observe(Event::Probed { healthy });
    }

    async fn read_config(&mut self) {
        let mut request = request(Method::GET, "/dapr/config");
        request.headers_mut().insert(OWN_ID, self.inner.own_id.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let asked = async {
            let answer = self.inner.send(self.transport, request, OPEN).await?;
            let (head, body) = answer.into_parts();
            if head.status != StatusCode::OK {
                return Ok((head.status, Default::default()));
            }
            answer::whole(body, self.inner, CONFIG_BYTES).await.map(|body| (head.status, body))
        };
        match tokio::time::timeout(CONFIG_TIMEOUT, asked).await {
            Ok(Ok((StatusCode::OK, body))) => self.inner.observe(Event::Config(parsed(&body))),
            Ok(Ok((status, _))) => {
                tracing::debug!(%status, "the app hosts no actors");
                self.inner.observe(Event::Config(Some(HostedTypes::default())));
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "reading the app's /dapr/config failed; asking again");
                self.pause(CONFIG_RETRY).await;
            }
            Err(_) => {
                tracing::warn!("the app did not answer /dapr/config in time; asking again");
                self.pause(CONFIG_RETRY).await;
            }
        }
    }

    async fn watch(&mut self) {
        let until_probe = self.until_probe().unwrap_or(WATCH_EVERY);
        let noticed = self.pause(until_probe.min(WATCH_EVERY)).await;
        self.transport.sweep();
        if self.accepts().await == Some(false) {
            self.inner.observe(Event::Refused);
            return;
        }
        if self.until_probe() == Some(Duration::ZERO) {
            self.probe().await;
        }
        if noticed {
            // Calls that fail one after another do not make as many looks.
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// How long until the next health probe; `None` without health checks.
    fn until_probe(&self) -> Option<Duration> {
        let every = self.inner.health.as_ref()?.interval;
        Some(every.saturating_sub(clock::monotonic().saturating_since(self.probed)))
    }

    /// Waits, or less when a call noticed something. Returns whether one did.
    async fn pause(&self, span: Duration) -> bool {
        tokio::time::timeout(span, self.inner.noticed.notified()).await.is_ok()
    }
}

fn request(method: Method, path: &str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    match path.parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => tracing::warn!(path, "the path is malformed; asking for / instead"),
    }
    request
}

fn parsed(body: &[u8]) -> Option<HostedTypes> {
    match actor_config::parse(body) {
        Ok(types) => {
            for warning in &types.warnings {
                tracing::warn!("/dapr/config: {warning}");
            }
            Some(types)
        }
        Err(error) => {
            tracing::error!(%error, "the app's /dapr/config is invalid: none of its actor types is hosted");
            Some(HostedTypes::default())
        }
    }
}
