//! What every request of the HTTP API goes through before its handler, and every answer after it.
//!
//! The order is Dapr's: the path is cleaned and routed, the body gets its limit, then come trace context, metrics,
//! cross-origin rules and the API token, then the handler, then the log of API calls.
//!
//! Two counts bound what is in progress: calls into apps, and everything else. They are apart because apps answer a
//! call by calling back (state, reminders, timers): if the calls could take all places, their own callbacks would be
//! refused. One more than the limit is answered 503 with `Retry-After`.

use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::Body;
use super::cors::Cors;
use super::error::{ApiError, Code, text};
use super::route::{self, ActorRoute, Route, RouteError};
use crate::app::API_TOKEN;
use crate::clock;
use crate::config::Config;
use crate::ingress::metrics::{Label, Metrics};
use crate::ingress::server::{Answer, Counter};
use crate::telemetry::trace::{self, Span};

/// What a caller is told to wait when this node is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Front {
    max_body: u64,
    api_token: Option<String>,
    log_calls: bool,
    metrics: Arc<Metrics>,
    cors: Option<Cors>,
    calls: Arc<Counter>,
    others: Arc<Counter>,
}

impl Front {
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Self {
        let (calls, others) = (Counter::new(config.limits.requests), Counter::new(config.limits.requests));
        let (counted_calls, counted_others) = (calls.clone(), others.clone());
        metrics.computed("callboard_http_requests_in_flight", "Requests of the HTTP API in progress.", move || {
            i64::try_from(counted_calls.count() + counted_others.count()).unwrap_or(i64::MAX)
        });
        Self {
            max_body: config.http.max_body,
            api_token: config.api_token.clone(),
            log_calls: config.enable_api_logging,
            metrics,
            cors: Cors::new(&config.http.allowed_origins),
            calls,
            others,
        }
    }

    /// Answers one request, by `dispatch` if it gets that far.
    pub async fn serve<F>(
        &self,
        request: Request<Incoming>,
        dispatch: impl FnOnce(Result<Route, RouteError>, Request<Body>) -> F,
    ) -> Response<Answer>
    where
        F: Future<Output = Response<Body>>,
    {
        let started = clock::monotonic();
        let (head, incoming) = request.into_parts();
        let body = Body::incoming(incoming, self.max_body);
        let routed = route::route(&head.method, head.uri.path());
        let label = label(&routed);
        let slot = self.counter(label).take();
        let log = self.log_calls.then(|| ApiLog::of(&head));
        let response = match &slot {
            Some(_) => self.admitted(Request::from_parts(head, body), routed, dispatch).await,
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

    fn counter(&self, label: Label) -> &Arc<Counter> {
        match label {
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
        }
    }

    /// Everything between the body's limit and the handler, and back.
    async fn admitted<F>(
        &self,
        mut request: Request<Body>,
        routed: Result<Route, RouteError>,
        dispatch: impl FnOnce(Result<Route, RouteError>, Request<Body>) -> F,
    ) -> Response<Body>
    where
        F: Future<Output = Response<Body>>,
    {
        let is_health = matches!(routed, Ok(Route::Healthz | Route::HealthzOutbound));
        let span = match span(request.headers_mut(), is_health) {
            Ok(span) => span,
            Err(invalid) => return text(StatusCode::BAD_REQUEST, invalid.to_string()),
        };
        let mut grant = None;
        let mut preflight = None;
        if let Some(cors) = &self.cors {
            preflight = cors.preflight(request.method(), request.headers());
            grant = preflight.is_none().then(|| cors.grant(request.headers()));
        }
        let mut response = match preflight {
            Some(answer) => answer,
            None if is_health || self.may_call(request.headers()) => {
                request.headers_mut().remove(API_TOKEN);
                dispatch(routed, request).await
            }
            None => text(StatusCode::UNAUTHORIZED, "invalid api token"),
        };
        if let Some(span) = span {
            span.answer(response.headers_mut());
        }
        if let Some(grant) = grant {
            grant.answer(response.headers_mut());
        }
        response
    }

    fn may_call(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.api_token else { return true };
        headers.get(API_TOKEN).is_some_and(|given| same(given.as_bytes(), token.as_bytes()))
    }
}

fn span(headers: &mut HeaderMap, is_health: bool) -> Result<Option<Span>, trace::InvalidBaggage> {
    if is_health { Ok(None) } else { trace::accept(headers, rand::random).map(Some) }
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

/// One line of the log of API calls.
struct ApiLog {
    method: Method,
    path: String,
    user_agent: String,
}

impl ApiLog {
    fn of(head: &http::request::Parts) -> Self {
        let user_agent =
            head.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
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
#[path = "front_test.rs"]
mod tests;
