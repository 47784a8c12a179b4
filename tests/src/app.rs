//! A scriptable app: an HTTP server in the test's own process that records what reaches it.
//!
//! It speaks HTTP/1.1 and HTTP/2 without TLS on one port. What it answers is decided by handlers per path prefix, the
//! one installed last asked first, so that a test changes an answer by installing another. Without a handler it
//! behaves like an actor host that does nothing: 200 for everything under `/actors/`, its configuration at
//! `/dapr/config`, 200 at `/healthz`, 404 elsewhere.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::http::frames;
use crate::wait::eventually;

type Error = Box<dyn std::error::Error + Send + Sync>;
type OutBody = BoxBody<Bytes, Error>;
type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Handler = Arc<dyn Fn(Call) -> Answering + Send + Sync>;
type StreamAnswering = Pin<Box<dyn Future<Output = Reply> + Send>>;
type StreamHandler = Arc<dyn Fn(Request<Incoming>) -> StreamAnswering + Send + Sync>;

/// A request that reached the app.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    /// As it came over the wire.
    pub path: String,
    pub query: Option<String>,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When its head arrived.
    pub begun: Instant,
    /// When its answer was ready; `None` while the handler runs, or when the peer left before.
    pub ended: Option<Instant>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} {}: not JSON ({error}): {:?}", self.method, self.path, self.body))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a handler answers.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: ReplyBody,
}

enum ReplyBody {
    Whole(Bytes),
    Chunks(mpsc::Receiver<Bytes>),
    /// No answer: the connection is closed.
    Nothing,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::Whole(Bytes::new()) }
    }

    pub fn ok() -> Self {
        Self::status(200)
    }

    /// Closes the connection instead of answering.
    pub fn hang_up() -> Self {
        Self { body: ReplyBody::Nothing, ..Self::status(200) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = ReplyBody::Whole(body.into());
        self
    }

    pub fn json(self, body: &impl Serialize) -> Self {
        let text = serde_json::to_vec(body).expect("JSON of a test's own value");
        self.header("content-type", "application/json").body(text)
    }

    /// The head goes out at once, the body as the sender gives it.
    pub fn stream(mut self) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, receiver) = mpsc::channel(1);
        self.body = ReplyBody::Chunks(receiver);
        (self, sender)
    }
}

enum Route {
    Whole(Handler),
    Stream(StreamHandler),
}

struct Inner {
    config: Mutex<Value>,
    calls: Mutex<Vec<Call>>,
    /// Prefix of the path, and who answers; the last one is asked first.
    routes: Mutex<Vec<(String, Arc<Route>)>>,
    connections: AtomicUsize,
}

/// One connection, for as long as it is open.
struct Connected(Arc<Inner>);

impl Connected {
    fn new(inner: Arc<Inner>) -> Self {
        inner.connections.fetch_add(1, Ordering::SeqCst);
        Self(inner)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct App {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

impl App {
    /// An app that hosts these actor types with default settings.
    pub async fn hosting(types: &[&str]) -> Self {
        Self::configured(json!({ "entities": types })).await
    }

    /// An app that hosts no actors.
    pub async fn plain() -> Self {
        Self::configured(json!({})).await
    }

    /// An app whose `/dapr/config` is this.
    pub async fn configured(config: Value) -> Self {
        Self::listening(config, 0).await
    }

    /// The same on a chosen port: an app that comes later than its node.
    pub async fn listening(config: Value, port: u16) -> Self {
        let inner = Arc::new(Inner {
            config: Mutex::new(config),
            calls: Mutex::default(),
            routes: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let shared = inner.clone();
        let (bound, address) = tokio::sync::oneshot::channel();
        let accepting = crate::background().spawn(async move {
            let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("bind the app");
            bound.send(listener.local_addr().expect("know the own address")).expect("the test waits");
            accept(listener, shared).await;
        });
        Self { address: address.await.expect("the app is bound"), inner, accepting }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes what `/dapr/config` answers.
    pub fn set_config(&self, config: Value) {
        *self.inner.config.lock() = config;
    }

    /// Answers requests whose path begins with `prefix`.
    pub fn on<F>(&self, prefix: &str, handler: impl Fn(Call) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        self.inner.routes.lock().push((prefix.to_owned(), Arc::new(Route::Whole(handler))));
    }

    /// Answers requests whose path begins with `prefix` without reading their body first. Their recorded body is empty.
    pub fn on_stream<F>(&self, prefix: &str, handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let handler: StreamHandler = Arc::new(move |request| Box::pin(handler(request)));
        self.inner.routes.lock().push((prefix.to_owned(), Arc::new(Route::Stream(handler))));
    }

    /// Always gives the same answer: status and body.
    pub fn answers(&self, prefix: &str, status: u16, body: &str) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.on(prefix, move |_| {
            let reply = Reply::status(status).body(body.clone());
            async { reply }
        });
    }

    /// What has reached the app, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.calls.lock().clone()
    }

    /// Requests whose path begins with `prefix`.
    pub fn calls_to(&self, prefix: &str) -> Vec<Call> {
        self.inner.calls.lock().iter().filter(|call| call.path.starts_with(prefix)).cloned().collect()
    }

    pub fn count(&self, prefix: &str) -> usize {
        self.inner.calls.lock().iter().filter(|call| call.path.starts_with(prefix)).count()
    }

    /// How often this method was used on paths beginning with `prefix`.
    pub fn count_of(&self, method: &str, prefix: &str) -> usize {
        let calls = self.inner.calls.lock();
        calls.iter().filter(|call| call.method.as_str() == method && call.path.starts_with(prefix)).count()
    }

    /// Waits until at least `count` requests with this prefix have arrived; gives all there are.
    pub async fn wait_for(&self, count: usize, prefix: &str, within: Duration) -> Vec<Call> {
        let what = format!("{count} requests to {prefix}");
        eventually(within, &what, async || (self.count(prefix) >= count).then(|| self.calls_to(prefix))).await
    }

    /// Waits until at least `count` requests with this prefix have been answered.
    pub async fn wait_answered(&self, count: usize, prefix: &str, within: Duration) -> Vec<Call> {
        let what = format!("{count} answered requests to {prefix}");
        eventually(within, &what, async || {
            let calls = self.calls_to(prefix);
            (calls.iter().filter(|call| call.ended.is_some()).count() >= count).then_some(calls)
        })
        .await
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::SeqCst)
    }

    pub fn forget_calls(&self) {
        self.inner.calls.lock().clear();
    }

    /// Stops listening and cuts every connection, as the end of its process would.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // Ends when the listener and its connections are gone.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    // Dropped with this task, which ends every connection.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let connected = Connected::new(inner.clone());
        connections.spawn(async move {
            // Only slows the test when it fails.
            let _ = stream.set_nodelay(true);
            let service = service_fn(|request| handle(connected.0.clone(), request));
            // A connection that breaks is the test's doing or is seen by it.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<OutBody>, Error> {
    let begun = Instant::now();
    let path = request.uri().path().to_owned();
    let route = {
        let routes = inner.routes.lock();
        routes.iter().rev().find(|(prefix, _)| path.starts_with(prefix.as_str())).map(|(_, route)| route.clone())
    };
    let record = |head: &http::request::Parts, body: Bytes| {
        let call = Call {
            method: head.method.clone(),
            path: path.clone(),
            query: head.uri.query().map(str::to_owned),
            version: head.version,
            headers: head.headers.clone(),
            body,
            begun,
            ended: None,
        };
        let mut calls = inner.calls.lock();
        calls.push(call.clone());
        (calls.len() - 1, call)
    };
    let (head, body) = request.into_parts();
    let (at, reply) = match route.as_deref() {
        Some(Route::Stream(handler)) => {
            let (at, _) = record(&head, Bytes::new());
            (at, handler(Request::from_parts(head, body)).await)
        }
        Some(Route::Whole(handler)) => {
            let (at, call) = record(&head, body.collect().await?.to_bytes());
            (at, handler(call).await)
        }
        None => {
            let (at, call) = record(&head, body.collect().await?.to_bytes());
            (at, default_reply(&inner, &call))
        }
    };
    // The list may have been forgotten meanwhile.
    if let Some(call) = inner.calls.lock().get_mut(at).filter(|call| call.begun == begun) {
        call.ended = Some(Instant::now());
    }
    respond(reply)
}

fn default_reply(inner: &Inner, call: &Call) -> Reply {
    match call.path.as_str() {
        "/dapr/config" => Reply::ok().json(&*inner.config.lock()),
        "/healthz" => Reply::ok(),
        path if path.starts_with("/actors/") => Reply::ok(),
        _ => Reply::status(404),
    }
}

fn respond(reply: Reply) -> Result<Response<OutBody>, Error> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let body = match reply.body {
        ReplyBody::Whole(bytes) if bytes.is_empty() => Empty::new().map_err(|never| match never {}).boxed(),
        ReplyBody::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed(),
        ReplyBody::Chunks(receiver) => StreamBody::new(frames(receiver)).boxed(),
        ReplyBody::Nothing => return Err("this answer is withheld".into()),
    };
    Ok(response.body(body)?)
}
