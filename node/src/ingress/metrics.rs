//! Numbers of the node in Prometheus' text format, on a port of their own.
//!
//! Requests of the HTTP API are counted by route and status, their latency by route, their errors by code. The routes
//! are a closed set, so every cell exists from the start and counting is one relaxed addition: no lock, no look-up, no
//! label that a caller could invent. Other parts of the node add [`Gauge`]s, [`Sum`]s or whole texts by
//! [`Metrics::register`]; those are read when somebody asks.

pub mod cluster;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::RwLock;

use super::http::body::Body;
use super::http::error::{Code, text};
use super::server::{Answer, Handler};
use crate::telemetry::histogram::Histogram;

/// Which part of the HTTP API answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    Invoke,
    ActorMethod,
    ActorState,
    ActorReminder,
    ActorTimer,
    ActorDelete,
    Metadata,
    Health,
    Shutdown,
    Admin,
    /// Refused before it was routed.
    Refused,
}

impl Label {
    pub const ALL: [Label; 11] = [
        Label::Invoke,
        Label::ActorMethod,
        Label::ActorState,
        Label::ActorReminder,
        Label::ActorTimer,
        Label::ActorDelete,
        Label::Metadata,
        Label::Health,
        Label::Shutdown,
        Label::Admin,
        Label::Refused,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Label::Invoke => "invoke",
            Label::ActorMethod => "actor_method",
            Label::ActorState => "actor_state",
            Label::ActorReminder => "actor_reminder",
            Label::ActorTimer => "actor_timer",
            Label::ActorDelete => "actor_delete",
            Label::Metadata => "metadata",
            Label::Health => "health",
            Label::Shutdown => "shutdown",
            Label::Admin => "admin",
            Label::Refused => "refused",
        }
    }
}

/// Statuses 100 to 599.
const STATUSES: usize = 500;

/// A value that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that only goes up.
#[derive(Debug, Clone, Default)]
pub struct Sum(Arc<AtomicU64>);

impl Sum {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

type Source = Box<dyn Fn(&mut String) + Send + Sync>;

/// The registry; one per node.
pub struct Metrics {
    requests: Vec<[AtomicU64; STATUSES]>,
    latency: Vec<Histogram>,
    errors: Vec<AtomicU64>,
    sources: RwLock<Vec<Source>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Label::ALL.iter().map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(),
            latency: Label::ALL.iter().map(|_| Histogram::default()).collect(),
            errors: Code::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            sources: RwLock::default(),
        }
    }
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Counts one answer of the HTTP API.
    pub fn answered(&self, label: Label, status: StatusCode, code: Option<Code>, took: Duration) {
        let status = usize::from(status.as_u16()).saturating_sub(100).min(STATUSES - 1);
        self.requests[label as usize][status].fetch_add(1, Ordering::Relaxed);
        self.latency[label as usize].count(took);
        if let Some(code) = code {
            self.errors[code as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds a gauge under a name that is valid in Prometheus.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let gauge = Gauge::default();
        self.register({
            let gauge = gauge.clone();
            move |out| line(out, name, help, "gauge", gauge.get())
        });
        gauge
    }

    /// Adds a gauge that is computed when somebody asks.
    pub fn computed(&self, name: &'static str, help: &'static str, value: impl Fn() -> i64 + Send + Sync + 'static) {
        self.register(move |out| line(out, name, help, "gauge", value()));
    }

    /// Adds a counter; by convention its name ends in `_total`.
    pub fn sum(&self, name: &'static str, help: &'static str) -> Sum {
        let sum = Sum::default();
        self.register({
            let sum = sum.clone();
            move |out| line(out, name, help, "counter", sum.get())
        });
        sum
    }

    /// Adds a source of finished lines.
    pub fn register(&self, source: impl Fn(&mut String) + Send + Sync + 'static) {
        self.sources.write().push(Box::new(source));
    }

    /// Everything, as text.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(8 << 10);
        self.render_requests(&mut out);
        self.render_latency(&mut out);
        self.render_errors(&mut out);
        for source in self.sources.read().iter() {
            source(&mut out);
        }
        out
    }

    fn render_requests(&self, out: &mut String) {
        head(out, "callboard_http_requests_total", "Requests of the HTTP API.", "counter");
        for (label, statuses) in Label::ALL.iter().zip(&self.requests) {
            for (status, count) in statuses.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let (route, status) = (label.as_str(), status + 100);
                    put(
                        out,
                        format_args!("callboard_http_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"),
                    );
                }
            }
        }
    }

    fn render_latency(&self, out: &mut String) {
        const NAME: &str = "callboard_http_request_seconds";
        head(out, NAME, "Time from a request's head to its answer's head.", "histogram");
        for (label, histogram) in Label::ALL.iter().zip(&self.latency) {
            histogram.render(out, NAME, &format!("route=\"{}\"", label.as_str()));
        }
    }

    fn render_errors(&self, out: &mut String) {
        head(out, "callboard_error_codes_total", "Error answers of the HTTP API by errorCode.", "counter");
        for (code, count) in Code::ALL.iter().zip(&self.errors) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                put(out, format_args!("callboard_error_codes_total{{error_code=\"{}\"}} {count}", code.as_str()));
            }
        }
    }
}

pub(crate) fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    put(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

pub(crate) fn line(out: &mut String, name: &str, help: &str, kind: &str, value: impl std::fmt::Display) {
    head(out, name, help, kind);
    put(out, format_args!("{name} {value}"));
}

pub(crate) fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = out.write_fmt(line);
    out.push('\n');
}

/// The door of the metrics port.
#[derive(Clone)]
pub struct MetricsDoor(pub Arc<Metrics>);

impl Handler for MetricsDoor {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        let asks = request.method() == Method::GET || request.method() == Method::HEAD;
        if !asks || !matches!(request.uri().path(), "/" | "/metrics") {
            return text(StatusCode::NOT_FOUND, "not found; the metrics are at /metrics\n").map(Answer::from);
        }
        let mut response = Response::new(Answer::from(Body::full(self.0.render())));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_codes_index_their_own_cells() {
        for (at, label) in Label::ALL.iter().enumerate() {
            assert_eq!(*label as usize, at);
        }
        for (at, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, at);
        }
    }

    #[test]
    fn answers_are_counted_by_route_status_latency_and_code() {
        let metrics = Metrics::new();
        let status = StatusCode::NOT_FOUND;
        metrics.answered(Label::Invoke, status, Some(Code::DirectInvoke), Duration::from_micros(100));
        metrics.answered(Label::Invoke, status, None, Duration::from_micros(101));
        metrics.answered(Label::Invoke, status, None, Duration::from_secs(60));
        let text = metrics.render();
        for line in [
            "callboard_http_requests_total{route=\"invoke\",status=\"404\"} 3",
            "callboard_http_request_seconds_bucket{route=\"invoke\",le=\"0.0001\"} 1",
            "callboard_http_request_seconds_bucket{route=\"invoke\",le=\"0.00025\"} 2",
            "callboard_http_request_seconds_bucket{route=\"invoke\",le=\"10\"} 2",
            "callboard_http_request_seconds_bucket{route=\"invoke\",le=\"+Inf\"} 3",
            "callboard_http_request_seconds_count{route=\"invoke\"} 3",
            "callboard_error_codes_total{error_code=\"ERR_DIRECT_INVOKE\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn registered_values_are_read_when_asked_for() {
        let metrics = Metrics::new();
        let gauge = metrics.gauge("g", "A gauge.");
        let sum = metrics.sum("s_total", "A sum.");
        metrics.computed("c", "Computed.", || 7);
        gauge.set(5);
        gauge.add(-7);
        sum.add(3);
        let text = metrics.render();
        assert!(
            text.contains("# TYPE g gauge\ng -2\n") && text.contains("s_total 3\n") && text.contains("\nc 7\n"),
            "{text}"
        );
    }
}
