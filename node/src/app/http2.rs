//! Cleartext HTTP/2 (prior knowledge) to one address: few connections, many calls on each.
//!
//! Calls share a connection until it carries [`CALLS_PER_CONNECTION`] of them; only then is another one opened. The
//! peer's own stream limit is honoured by queueing on the connection. A call that the peer refused unprocessed, or that
//! never left this process, counts as not sent; everything else that fails may have happened.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri, uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::http1::{Gate, ReadError, SendError, describe};
use super::net::Address;
use crate::ingress::http::body::{self, Body};
use crate::tasks::{Kind, Tasks};

/// Calls that share a connection before another one is opened.
const CALLS_PER_CONNECTION: usize = 2_048;
/// Connections to one app.
const CONNECTIONS: usize = 8;
/// Flow-control windows: per call, and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// A silent peer is asked for a sign of life this often, while calls are open.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Multiplexed {
    address: Address,
    authority: uri::Authority,
    /// Size of an answer's header list, in bytes.
    head: usize,
    tasks: Tasks,
    connections: Mutex<Vec<Arc<Shared>>>,
    /// One dial at a time.
    dialling: tokio::sync::Mutex<()>,
}

struct Shared {
    sender: http2::SendRequest<Body>,
    calls: AtomicUsize,
}

/// One call's place on a connection.
struct Place(Arc<Shared>);

impl Place {
    fn on(shared: &Arc<Shared>) -> Self {
        shared.calls.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Multiplexed {
    pub fn new(address: Address, head: usize, tasks: Tasks) -> Result<Arc<Self>, uri::InvalidUri> {
        let authority = address.authority().parse()?;
        let (connections, dialling) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Arc::new(Self { address, authority, head, tasks, connections, dialling }))
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request whose URI is in origin form.
    pub async fn send(&self, request: Request<Body>, gate: Gate<'_>) -> Result<Response<Answer>, SendError> {
        let mut request = self.absolute(request);
        // A shared connection may have ended since it was last used; then nothing was sent and the next try dials.
        for _ in 0..2 {
            let place = self.place().await?;
            let mut sender = place.0.sender.clone();
            if let Err(error) = sender.ready().await {
                self.forget(&place.0);
                tracing::trace!(%error, "an HTTP/2 connection to the app has ended");
                continue;
            }
            if !gate() {
                return Err(SendError::Forbidden);
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response.map(|incoming| Answer { incoming, _place: place })),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => {
                        self.forget(&place.0);
                        request = unsent;
                    }
                    None => return Err(classify(&failed.into_error())),
                },
            }
        }
        Err(SendError::NotSent("the connection was closed".to_owned()))
    }

    fn absolute(&self, mut request: Request<Body>) -> Request<Body> {
        request.headers_mut().remove(http::header::HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(uri::PathAndQuery::from_static("/"));
        }
        // Scheme, authority and path are all there, which is all that could be wrong.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = http::Version::HTTP_2;
        request
    }

    async fn place(&self) -> Result<Place, SendError> {
        if let Some(place) = self.free_place() {
            return Ok(place);
        }
        let _one_at_a_time = self.dialling.lock().await;
        if let Some(place) = self.free_place() {
            return Ok(place);
        }
        let shared = self.connect().await?;
        let place = Place::on(&shared);
        self.connections.lock().push(shared);
        Ok(place)
    }

    /// A place on the least used connection, unless all are full and another one may be opened.
    fn free_place(&self) -> Option<Place> {
        let mut connections = self.connections.lock();
        connections.retain(|one| !one.sender.is_closed());
        let least = connections.iter().min_by_key(|one| one.calls.load(Ordering::Relaxed))?;
        let full = least.calls.load(Ordering::Relaxed) >= CALLS_PER_CONNECTION;
        (!full || connections.len() >= CONNECTIONS).then(|| Place::on(least))
    }

    fn forget(&self, shared: &Arc<Shared>) {
        self.connections.lock().retain(|one| !Arc::ptr_eq(one, shared));
    }

    async fn connect(&self) -> Result<Arc<Shared>, SendError> {
        let (stream, _meter) = self.address.dial().await?;
        let mut builder = http2::Builder::new(Spawner(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(self.head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        let handshake = tokio::time::timeout(self.address.timeout, builder.handshake(TokioIo::new(stream))).await;
        let (sender, driver) = match handshake {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => return Err(SendError::NotSent(describe(&error))),
            Err(_) => return Err(SendError::NotSent("HTTP/2 handshake timeout".to_owned())),
        };
        let tasks = self.tasks.clone();
        self.tasks.spawn(Kind::Work, "app-http2", async move {
            tokio::select! {
                biased;
                () = tasks.stopping() => {}
                result = driver => if let Err(error) = result {
                    tracing::debug!(error = %describe(&error), "an HTTP/2 connection to the app ended");
                },
            }
        });
        Ok(Arc::new(Shared { sender, calls: AtomicUsize::new(0) }))
    }
}

fn classify(error: &hyper::Error) -> SendError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(body) = inner.downcast_ref::<body::Error>() {
            return SendError::Body(body.to_string());
        }
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            let unprocessed = h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR));
            if unprocessed {
                return SendError::NotSent(describe(error));
            }
        }
        source = inner.source();
    }
    SendError::Lost(describe(error))
}

/// Runs hyper's own tasks under the node's spawner.
#[derive(Clone)]
pub struct Spawner(pub Tasks);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(Kind::Work, "http2", future);
    }
}

/// The answer's body, and its place on the connection.
pub struct Answer {
    incoming: Incoming,
    _place: Place,
}

impl Answer {
    pub fn declared_length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    pub fn is_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReadError>>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(ReadError::Broken(describe(&error))))),
            }
        }
    }

    /// Reads the whole body; `None` when it is longer than `limit`.
    pub async fn collect(mut self, limit: u64) -> Result<Option<Bytes>, ReadError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = std::future::poll_fn(|cx| self.poll_chunk(cx)).await.transpose()? {
            if (whole.len() + chunk.len()) as u64 > limit {
                return Ok(None);
            }
            if whole.is_empty() && self.is_end() {
                return Ok(Some(chunk));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Some(whole.freeze()))
    }
}
