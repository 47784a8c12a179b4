//! The HTTP API: one request from its head to its answer.
//!
//! `front` does what all requests have in common, in Dapr's order; here each route meets its one handler. Handlers are
//! called directly: a request's way has no dynamic dispatch and no box of its own.
//!
//! The public port serves health and metadata only, without a token.

pub mod actors;
pub mod admin;
pub mod body;
mod cors;
pub mod error;
mod front;
mod health;
mod metadata;
pub mod route;

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::ingress::metrics::Metrics;
use crate::ingress::server::{Answer, Handler};
use crate::invoke::Invoker;
use crate::node::{Node, Phase};
use crate::tasks::Kind;

use body::Body;
use error::{ApiError, Code, no_content, text};
use front::Front;
use route::{Route, RouteError};

const FORCE_SHUTDOWN: HeaderName = HeaderName::from_static("dapr-force-shutdown");
/// A forced end waits this long, so that its own answer gets out.
const FORCE_DELAY: Duration = Duration::from_millis(100);

/// The HTTP API of a node; clones share it.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Node>,
    invoker: Invoker,
    front: Front,
}

impl Api {
    pub fn start(node: Arc<Node>, invoker: Invoker, metrics: Arc<Metrics>) -> Self {
        let front = Front::new(&node.config, metrics);
        Self { inner: Arc::new(Inner { node, invoker, front }) }
    }

    /// The door of `--dapr-public-port`.
    pub fn public(&self) -> PublicApi {
        PublicApi { inner: self.inner.clone() }
    }
}

impl Handler for Api {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        let inner = &self.inner;
        inner.front.serve(request, |routed, request| inner.dispatch(routed, request)).await
    }
}

/// The API of the public port; clones share it.
#[derive(Clone)]
pub struct PublicApi {
    inner: Arc<Inner>,
}

impl Handler for PublicApi {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        let inner = &self.inner;
        let response = match route::route(request.method(), request.uri().path()) {
            Ok(Route::Metadata) => inner.metadata(),
            Ok(Route::Healthz) => inner.healthz(request.uri().query()),
            Ok(Route::HealthzOutbound) => health::outbound(inner.phase()),
            Ok(Route::Actor(_) | Route::MetadataKey { .. } | Route::Shutdown | Route::Admin(_) | Route::Invoke)
            | Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        response.map(Answer::from)
    }
}

impl Inner {
    async fn dispatch(&self, routed: Result<Route, RouteError>, request: Request<Body>) -> Response<Body> {
        let node = &self.node;
        match routed {
            Ok(Route::Actor(route)) => actors::handle(node, route, request).await,
            Ok(Route::Invoke) => self.invoke(request).await,
            Ok(Route::Metadata) => self.metadata(),
            Ok(Route::MetadataKey { key }) => {
                metadata::put(&node.extended, key, request.into_body(), node.config.http.max_body).await
            }
            Ok(Route::Healthz) => self.healthz(request.uri().query()),
            Ok(Route::HealthzOutbound) => health::outbound(self.phase()),
            Ok(Route::Shutdown) => shutdown(node, request.headers()),
            // Boxed: rare, and larger than the rest.
            Ok(Route::Admin(path)) => Box::pin(admin::handle(node, path, request)).await,
            Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }

    async fn invoke(&self, request: Request<Body>) -> Response<Body> {
        if self.phase() == Phase::Draining {
            return ApiError::new(Code::DirectInvoke, "invoke API is not ready").into_response();
        }
        self.invoker.handle(request).await
    }

    fn phase(&self) -> Phase {
        *self.node.phase.borrow()
    }

    fn healthz(&self, query: Option<&str>) -> Response<Body> {
        health::healthz(self.phase(), &self.node.app.watch().borrow(), &self.node.config.app_id, query)
    }

    fn metadata(&self) -> Response<Body> {
        let node = &self.node;
        metadata::get(&metadata::Facts {
            config: &node.config,
            phase: self.phase(),
            app: &node.app.watch().borrow(),
            active: node.actors.active_counts().into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
            resources: &node.resources,
            extended: &node.extended.read(),
        })
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
