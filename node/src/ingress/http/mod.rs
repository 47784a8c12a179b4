//! The HTTP API: one request from its head to its answer.
//!
//! The order is Dapr's: the path is cleaned and routed, the body gets its limit, then come trace context, metrics,
//! cross-origin rules and the API token, then the one handler of the route, then the log of API calls. Handlers are
//! called directly; a request's way has no dynamic dispatch and no box of its own.
//!
//! Two counts bound what is in progress: calls into apps, and everything else. They are apart because apps answer a
//! call by calling back (state, reminders, timers): if the calls could take all places, their own callbacks would be
//! refused. One more than the limit is answered 503 with `Retry-After`.
//!
//! The public port serves health and metadata only, without a token.

pub mod actors;
pub mod admin;
pub mod body;
mod cors;
pub mod error;
mod health;
mod metadata;
pub mod route;

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::app::API_TOKEN;
use crate::clock;
use crate::ingress::metrics::{Label, Metrics};
use crate::ingress::server::{Answer, Counter, Handler};
use crate::invoke::Invoker;
use crate::node::{Node, Phase};
use crate::tasks::Kind;
use crate::telemetry::trace::{self, Span};

use body::Body;
use cors::Cors;
use error::{ApiError, Code, no_content, text};
use route::{ActorRoute, Route, RouteError};

const FORCE_SHUTDOWN: HeaderName = HeaderName::from_static("dapr-force-shutdown");
/// A forced end waits this long, so that its own answer gets out.
const FORCE_DELAY: Duration = Duration::from_millis(100);
/// What a caller is told to wait when this node is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The HTTP API of a node; clones share it.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Node>,
    invoker: Invoker,
    metrics: Arc<Metrics>,
    cors: Option<Cors>,
    calls: Arc<Counter>,
    others: Arc<Counter>,
}

impl Api {
    pub fn start(node: Arc<Node>, invoker: Invoker, metrics: Arc<Metrics>) -> Self {
        let cors = Cors::new(&node.config.http.allowed_origins);
        let most = node.config.limits.requests;
        let (calls, others) = (Counter::new(most), Counter::new(most));
        let (counted_calls, counted_others) = (calls.clone(), others.clone());
        metrics.computed("callboard_http_requests_in_flight", "Requests of the HTTP API in progress.", move || {
            i64::try_from(counted_calls.count() + counted_others.count()).unwrap_or(i64::MAX)
        });
        Self { inner: Arc::new(Inner { node, invoker, metrics, cors, calls, others }) }
    }

    /// The door of `--dapr-public-port`.
    pub fn public(&self) -> PublicApi {
        PublicApi { inner: self.inner.clone() }
    }
}

impl Handler for Api {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        self.inner.serve(request).await
    }
}

/// The API of the public port; clones share it.
#[derive(Clone)]
pub struct PublicApi {
    inner: Arc<Inner>,
}

impl Handler for PublicApi {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        let node = &self.inner.node;
        let response = match route::route(request.method(), request.uri().path()) {
            Ok(Route::Metadata) => metadata::get(node),
            Ok(Route::Healthz) => health::healthz(node, request.uri().query()),
            Ok(Route::HealthzOutbound) => health::outbound(node),
            Ok(
                Route::Actor(_) | Route::MetadataKey { .. } | Route::Shutdown | Route::Admin(_) | Route::Invoke,
            )
            | Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        response.map(Answer::from)
    }
}

impl Inner {
    async fn serve(&self, request: Request<Incoming>) -> Response<Answer> {
        let started = clock::monotonic();
        let (head, incoming) = request.into_parts();
        let body = Body::incoming(incoming, self.node.config.http.max_body);
        let routed = route::route(&head.method, head.uri.path());
        let label = label(&routed);
        let counter = match label {
            Label::Invoke | Label::ActorMethod => &self.calls,
            Label::ActorState
            | Label::ActorReminder
            | Label::ActorTimer
            | Label::ActorDelete
            | Label::Metadata
            | Label::Health
            | Label::Shutdown
            | Label::Admin
            | Label::Refused => &self.others,
        };
        let slot = counter.take();
        let log = self.node.config.enable_api_logging.then(|| ApiLog::of(&head));
        let response = match &slot {
            Some(_) => self.admitted(Request::from_parts(head, body), routed).await,
            None => overloaded().into_response(),
        };
        let took = clock::monotonic().saturating_since(started);
        let code = response.extensions().get::<Code>().copied();
        self.metrics.answered(label, response.status(), code, took);
        if let Some(log) = log {
            log.write(response.status(), took);
        }
        response.map(|body| Answer { body, slot })
    }

    /// Everything between the body's limit and the handler, and back.
    async fn admitted(&self, mut request: Request<Body>, routed: Result<Route, RouteError>) -> Response<Body> {
        let is_health = matches!(routed, Ok(Route::Healthz | Route::HealthzOutbound));
        let span = match self.span(request.headers_mut(), is_health) {
            Ok(span) => span,
            Err(invalid) => return text(StatusCode::BAD_REQUEST, invalid.to_string()),
        };
        let mut grant = None;
        if let Some(cors) = &self.cors {
            if let Some(answer) = cors.preflight(request.method(), request.headers()) {
                return answer;
            }
            grant = Some(cors.grant(request.headers()));
        }
        let mut response = if is_health || self.may_call(request.headers()) {
            request.headers_mut().remove(API_TOKEN);
            self.dispatch(routed, request).await
        } else {
            text(StatusCode::UNAUTHORIZED, "invalid api token")
        };
        if let Some(span) = span {
            span.answer(response.headers_mut());
        }
        if let Some(grant) = grant {
            grant.answer(response.headers_mut());
        }
        response
    }

    fn span(&self, headers: &mut HeaderMap, is_health: bool) -> Result<Option<Span>, trace::InvalidBaggage> {
        if is_health { Ok(None) } else { trace::accept(headers, rand::random).map(Some) }
    }

    fn may_call(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.node.config.api_token else { return true };
        headers.get(API_TOKEN).is_some_and(|given| same(given.as_bytes(), token.as_bytes()))
    }

    async fn dispatch(&self, routed: Result<Route, RouteError>, request: Request<Body>) -> Response<Body> {
        let node = &self.node;
        match routed {
            Ok(Route::Actor(route)) => actors::handle(node, route, request).await,
            Ok(Route::Invoke) => self.invoke(request).await,
            Ok(Route::Metadata) => metadata::get(node),
            Ok(Route::MetadataKey { key }) => metadata::put(node, key, request.into_body()).await,
            Ok(Route::Healthz) => health::healthz(node, request.uri().query()),
            Ok(Route::HealthzOutbound) => health::outbound(node),
            Ok(Route::Shutdown) => shutdown(node, request.headers()),
            // Boxed: rare, and larger than the rest.
            Ok(Route::Admin(path)) => Box::pin(admin::handle(node, path, request)).await,
            Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }

    async fn invoke(&self, request: Request<Body>) -> Response<Body> {
        if *self.node.phase.borrow() == Phase::Draining {
            return ApiError::new(Code::DirectInvoke, "invoke API is not ready").into_response();
        }
        self.invoker.handle(request).await
    }
}

fn overloaded() -> ApiError {
    ApiError::new(Code::Overloaded, "too many requests in progress on this node").retry_after(RETRY_AFTER)
}

/// Compares without telling by its duration where the difference is.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let differences = given.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == expected.len() && differences == 0
}

fn label(routed: &Result<Route, RouteError>) -> Label {
    match routed {
        Ok(Route::Invoke) => Label::Invoke,
        Ok(Route::Actor(route)) => match route {
            ActorRoute::Method { .. } => Label::ActorMethod,
            ActorRoute::SaveState { .. } | ActorRoute::GetState { .. } => Label::ActorState,
            ActorRoute::PutReminder { .. }
            | ActorRoute::GetReminder { .. }
            | ActorRoute::DeleteReminder { .. }
            | ActorRoute::ListReminders { .. } => Label::ActorReminder,
            ActorRoute::PutTimer { .. } | ActorRoute::DeleteTimer { .. } => Label::ActorTimer,
            ActorRoute::DeleteActor { .. } => Label::ActorDelete,
        },
        Ok(Route::Metadata | Route::MetadataKey { .. }) => Label::Metadata,
        Ok(Route::Healthz | Route::HealthzOutbound) => Label::Health,
        Ok(Route::Shutdown) => Label::Shutdown,
        Ok(Route::Admin(_)) => Label::Admin,
        Err(_) => Label::Refused,
    }
}

/// `POST shutdown`: 204, then the end.
fn shutdown(node: &Arc<Node>, headers: &HeaderMap) -> Response<Body> {
    let forced = headers.get(FORCE_SHUTDOWN).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let shutdown = node.shutdown.clone();
    if forced {
        tracing::warn!("a forced shutdown was asked for over the API");
        node.tasks.spawn(Kind::Work, "forced-shutdown", async move {
            tokio::time::sleep(FORCE_DELAY).await;
            shutdown.forced.cancel();
        });
    } else {
        tracing::info!("a graceful shutdown was asked for over the API");
        shutdown.graceful.cancel();
    }
    no_content()
}

/// One line of the log of API calls.
struct ApiLog {
    method: Method,
    path: String,
    user_agent: String,
}

impl ApiLog {
    fn of(head: &http::request::Parts) -> Self {
        let user_agent = head.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Self {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            user_agent: user_agent.unwrap_or_default(),
        }
    }

    fn write(self, status: StatusCode, took: Duration) {
        tracing::info!(
            method = %self.method,
            path = self.path,
            useragent = self.user_agent,
            code = status.as_u16(),
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "HTTP API Called"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_must_match_in_full() {
        for (given, expected, good) in [("a", "a", true), ("", "", true), ("a", "b", false), ("ab", "a", false), ("a", "ab", false)] {
            assert_eq!(same(given.as_bytes(), expected.as_bytes()), good, "{given} {expected}");
        }
    }
}

#[cfg(test)]
#[path = "api_test.rs"]
mod api_test;
