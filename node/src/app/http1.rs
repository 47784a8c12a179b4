//! A pool of HTTP/1.1 connections to one address, driven by whoever uses them.
//!
//! A connection is polled by the task whose request it carries, never by a task of its own: a call costs no spawn, no
//! channel hop and no wake-up of another thread. An idle connection is polled by nobody; whether its peer has closed
//! it is seen in the first poll of its next use, before any byte of a request is written. A dropped exchange closes
//! its connection, which is how an app learns that nobody waits any more.
//!
//! Reuse is last in, first out, below the app servers' own idle limit (5 s in the servers that SDKs bring). A request
//! is sent a second time only if no byte of it was written. At most [`Limits::connections`] are in use at a time; the
//! next caller waits. Open connections never exceed that number either, since one is dialled only when none is idle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use callboard_engine::Instant;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::net::{Address, DialError, Meter, Stream};
use crate::clock;
use crate::ingress::http::body::{self, Body};

/// A request waits this long for a connection. Bounded, because those that hold them may wait for requests behind it.
const CONNECTION_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Bounds of one pool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in use at a time.
    pub connections: usize,
    /// Connections kept for reuse.
    pub idle: usize,
    /// How long an idle one is kept.
    pub idle_for: Duration,
    /// Size of an answer's head, in bytes.
    pub head: usize,
}

/// Asked immediately before the first byte of a request is written, on the connection that will carry it. While a
/// request waits for its connection, what allowed it may end.
pub type Gate<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// The gate of requests that nothing can forbid any more.
pub const OPEN: Gate<'static> = &|| true;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before a byte of the request was written.
    #[error("{0}")]
    NotSent(String),
    /// The gate was closed when the request was about to be written.
    #[error("the request is not allowed any more")]
    Forbidden,
    /// At least a byte was written, and no whole head came back.
    #[error("{0}")]
    Lost(String),
    /// The body of the request failed; its words are the caller's own.
    #[error("{0}")]
    Body(String),
}

pub struct Pool {
    address: Address,
    limits: Limits,
    idle: Mutex<Vec<Idle>>,
    uses: Arc<Semaphore>,
}

struct Idle {
    /// Boxed once per connection: it is large, and changes hands with every request.
    connection: Box<Connection>,
    since: Instant,
}

struct Connection {
    sender: http1::SendRequest<Body>,
    driver: Driver,
    meter: Arc<Meter>,
}

/// The connection's own future, which must not be polled after its end.
struct Driver {
    future: Option<http1::Connection<TokioIo<Stream>, Body>>,
}

impl Driver {
    /// Moves bytes. Whether the connection has ended.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(future) = &mut self.future else { return true };
        match Pin::new(future).poll(cx) {
            Poll::Ready(_) => {
                self.future = None;
                true
            }
            Poll::Pending => false,
        }
    }
}

impl Pool {
    pub fn new(address: Address, limits: Limits) -> Arc<Self> {
        let uses = Arc::new(Semaphore::new(limits.connections));
        Arc::new(Self { address, limits, idle: Mutex::new(Vec::new()), uses })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether anything uses the pool at this moment.
    pub fn is_unused(&self) -> bool {
        self.uses.available_permits() == self.limits.connections
    }

    /// Sends a request, whose URI is in origin form and which has a `Host`, and returns the answer's head.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
        gate: Gate<'_>,
    ) -> Result<Response<Exchange>, SendError> {
        let permit = match tokio::time::timeout(CONNECTION_WAIT, self.uses.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_closed)) => return Err(SendError::NotSent("the pool is closed".to_owned())),
            Err(_elapsed) => return Err(SendError::NotSent("all connections to the app are in use".to_owned())),
        };
        while let Some(connection) = self.take_idle() {
            match exchange(connection, request, gate).await {
                Ok((response, connection)) => return Ok(self.answered(response, connection, permit)),
                Err(Failure { error: SendError::NotSent(_), unsent: Some(unsent) }) => request = *unsent,
                Err(Failure { error, .. }) => return Err(error),
            }
        }
        // Boxed: dialling is rare, and its state would make every caller's future larger.
        let connection = Box::pin(self.connect()).await?;
        match exchange(connection, request, gate).await {
            Ok((response, connection)) => Ok(self.answered(response, connection, permit)),
            Err(Failure { error, .. }) => Err(error),
        }
    }

    /// Closes the connections that have been idle for too long.
    pub fn sweep(&self) {
        let now = clock::monotonic();
        // The oldest stand first.
        let stale: Vec<Idle> = {
            let mut idle = self.idle.lock();
            let fresh = idle.partition_point(|one| now.saturating_since(one.since) > self.limits.idle_for);
            idle.drain(..fresh).collect()
        };
        drop(stale);
    }

    fn take_idle(&self) -> Option<Box<Connection>> {
        let now = clock::monotonic();
        let mut idle = self.idle.lock();
        let last = idle.pop()?;
        if now.saturating_since(last.since) <= self.limits.idle_for {
            return Some(last.connection);
        }
        // The youngest is too old, so all are.
        let stale = std::mem::take(&mut *idle);
        drop(idle);
        drop(stale);
        None
    }

    fn give_back(&self, connection: Box<Connection>) {
        let since = clock::monotonic();
        let mut idle = self.idle.lock();
        if idle.len() < self.limits.idle {
            idle.push(Idle { connection, since });
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, SendError> {
        let (stream, meter) = self.address.dial().await?;
        self.handshake(stream, meter).await
    }

    async fn handshake(&self, stream: Stream, meter: Arc<Meter>) -> Result<Box<Connection>, SendError> {
        let (sender, future) = http1::Builder::new()
            .max_header_size(self.limits.head)
            .max_buf_size(READ_BUFFER.max(self.limits.head))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| SendError::NotSent(error.to_string()))?;
        Ok(Box::new(Connection { sender, driver: Driver { future: Some(future) }, meter }))
    }

    fn answered(
        self: &Arc<Self>,
        response: Response<Incoming>,
        connection: Box<Connection>,
        permit: OwnedSemaphorePermit,
    ) -> Response<Exchange> {
        response.map(|incoming| Exchange {
            incoming,
            connection: Some(connection),
            pool: self.clone(),
            _permit: permit,
        })
    }
}

/// The most one connection reads ahead.
const READ_BUFFER: usize = 64 * 1024;

struct Failure {
    error: SendError,
    /// The request, if it is certain that none of it went out and it is still whole.
    unsent: Option<Box<Request<Body>>>,
}

/// One request on one connection, up to the answer's head.
async fn exchange(
    mut connection: Box<Connection>,
    request: Request<Body>,
    gate: Gate<'_>,
) -> Result<(Response<Incoming>, Box<Connection>), Failure> {
    // A peer that closed the connection while it was idle is noticed here, before anything is written.
    let closed = std::future::poll_fn(|cx| Poll::Ready(connection.driver.drive(cx))).await;
    if closed || !connection.sender.is_ready() {
        let error = SendError::NotSent("the connection was closed".to_owned());
        return Err(Failure { error, unsent: Some(Box::new(request)) });
    }
    if !gate() {
        return Err(Failure { error: SendError::Forbidden, unsent: None });
    }
    let before = connection.meter.written();
    let Connection { sender, driver, meter } = &mut *connection;
    let sent = {
        let mut answer = std::pin::pin!(sender.try_send_request(request));
        std::future::poll_fn(|cx| {
            let ended = driver.drive(cx);
            // The answer can only come out of `drive`, so it needs no waker of its own.
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending if ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(result) => Poll::Ready(Some(result)),
            }
        })
        .await
    };
    let written = meter.written() > before;
    match sent {
        Some(Ok(response)) => Ok((response, connection)),
        Some(Err(mut failed)) => {
            let unsent = failed.take_message().filter(|_| !written).map(Box::new);
            Err(Failure { error: classify(&failed.into_error(), written), unsent })
        }
        None => {
            let text = "the connection ended without an answer".to_owned();
            let error = if written { SendError::Lost(text) } else { SendError::NotSent(text) };
            Err(Failure { error, unsent: None })
        }
    }
}

fn classify(error: &hyper::Error, written: bool) -> SendError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(body) = inner.downcast_ref::<body::Error>() {
            return SendError::Body(body.to_string());
        }
        source = inner.source();
    }
    let text = describe(error);
    if written { SendError::Lost(text) } else { SendError::NotSent(text) }
}

/// An error of hyper with its causes, in the words that callers of Dapr know where there are such.
pub fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = match inner.downcast_ref::<std::io::Error>() {
            Some(io) => super::net::tls_text(io),
            None => inner.to_string(),
        };
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// The rest of an exchange: the answer's body, and the connection it comes over.
pub struct Exchange {
    incoming: Incoming,
    /// `None` once it has been given back.
    connection: Option<Box<Connection>>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

/// How an answer's body ended other than well.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection was closed in order, but before the declared length was reached.
    #[error("unexpected EOF")]
    Short,
    #[error("{0}")]
    Broken(String),
}

impl Exchange {
    /// The declared length of the rest of the body.
    pub fn declared_length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    pub fn is_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// The next chunk of the body. After `None` the connection is back in the pool, if it may be used again.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReadError>>> {
        let mut deaf = Context::from_waker(Waker::noop());
        loop {
            let ended = match &mut self.connection {
                Some(connection) => connection.driver.drive(cx),
                None => true,
            };
            let frame = match Pin::new(&mut self.incoming).poll_frame(&mut deaf) {
                Poll::Pending if ended => {
                    return Poll::Ready(Some(Err(ReadError::Broken("connection closed".to_owned()))));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame,
            };
            match frame {
                None => {
                    self.finish(cx);
                    return Poll::Ready(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        if self.incoming.is_end_stream() {
                            self.finish(cx);
                        }
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(read_error(&error))));
                }
            }
        }
    }

    /// Reads the whole body, of at most `limit` bytes. What was read is kept in `read` when it ends badly.
    pub async fn collect(mut self, limit: u64, read: &mut BytesMut) -> Result<Option<Bytes>, ReadError> {
        let Some(first) = std::future::poll_fn(|cx| self.poll_chunk(cx)).await.transpose()? else {
            return Ok(Some(Bytes::new()));
        };
        if first.len() as u64 > limit {
            return Ok(None);
        }
        if self.is_end() {
            return Ok(Some(first));
        }
        read.extend_from_slice(&first);
        while let Some(chunk) = std::future::poll_fn(|cx| self.poll_chunk(cx)).await.transpose()? {
            if (read.len() + chunk.len()) as u64 > limit {
                return Ok(None);
            }
            read.extend_from_slice(&chunk);
        }
        Ok(Some(std::mem::take(read).freeze()))
    }

    /// Gives the connection back, if it can carry another request.
    fn finish(&mut self, cx: &mut Context<'_>) {
        let Some(mut connection) = self.connection.take() else { return };
        if !connection.driver.drive(cx) && connection.sender.is_ready() {
            self.pool.give_back(connection);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // An answer without a body is never read to its end.
        if self.connection.is_some() && self.incoming.is_end_stream() {
            self.finish(&mut Context::from_waker(Waker::noop()));
        }
    }
}

fn read_error(error: &hyper::Error) -> ReadError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::UnexpectedEof
        {
            return ReadError::Short;
        }
        source = inner.source();
    }
    ReadError::Broken(describe(error))
}

/// Fuzz body: any bytes as an app's answer. It comes to an end, and is no longer than it may be.
pub fn fuzz_answer(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let (stream, mut app) = socket_pair().expect("a pair of sockets");
    let address = Address { host: "app".to_owned(), port: 80, tls: None, timeout: FUZZED_TIME };
    let pool = Pool::new(address, Limits { connections: 1, idle: 1, idle_for: FUZZED_TIME, head: 4 << 10 });
    let answers = async {
        let _request = app.read(&mut [0; 1024]).await;
        // Who has heard enough closes: neither needs to succeed.
        let _ = app.write_all(data).await;
        let _ = app.shutdown().await;
    };
    let asks = async {
        let (stream, meter) = Stream::plain(stream);
        let connection = pool.handshake(stream, meter).await.expect("nothing is sent yet");
        let request = Request::get("/").header(http::header::HOST, "app").body(Body::empty()).expect("a request");
        let Ok((response, connection)) = exchange(connection, request, OPEN).await else { return };
        let permit = pool.uses.clone().acquire_owned().await.expect("the pool is open");
        let mut partial = BytesMut::new();
        match pool.answered(response, connection, permit).into_body().collect(FUZZED_BODY, &mut partial).await {
            Ok(whole) => assert!(whole.is_none_or(|body| body.len() as u64 <= FUZZED_BODY)),
            Err(ReadError::Short | ReadError::Broken(_)) => assert!(partial.len() as u64 <= FUZZED_BODY),
        }
    };
    let ended = async { tokio::join!(answers, tokio::time::timeout(FUZZED_TIME, asks)).1 };
    assert!(runtime.block_on(ended).is_ok(), "the answer does not end");
    assert!(pool.is_unused(), "a connection is in use by nobody");
}

/// The largest body that the fuzz body reads.
const FUZZED_BODY: u64 = 1 << 10;
/// Far longer than an answer that is there takes.
const FUZZED_TIME: Duration = Duration::from_secs(4);

/// Two ends that need no port: what stands above a socket does not ask for its family.
fn socket_pair() -> std::io::Result<(TcpStream, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let ours = std::net::TcpStream::from(std::os::fd::OwnedFd::from(ours));
    Ok((TcpStream::from_std(ours)?, UnixStream::from_std(theirs)?))
}
