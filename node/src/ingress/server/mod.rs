//! The listening side of every HTTP door: accepts, bounds, serves and closes connections.
//!
//! One task per connection, and nothing between the protocol machine and the handler. HTTP/1.1 and cleartext HTTP/2
//! are told apart by the first bytes; an HTTP/1.1 client may also ask for HTTP/2 by `Upgrade: h2c` (`upgrade`).
//!
//! Bounds: connections (one more is answered 503 and closed), the size of a request's head (431), the time a head may
//! take from its first byte, and the time a connection may idle. A connection is cut only between requests: how long an
//! answer takes is the handler's business. Closing stops accepting, lets requests in flight end, and cuts what is left
//! after the grace period.

mod activity;
mod connection;
mod upgrade;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::ingress::http::body::Body;
use crate::tasks::{Kind, Tasks};

pub use activity::{Count, Counter};
pub use upgrade::fuzz_upgrade;

/// Answers requests. Cloned per connection, so it should be a handle.
pub trait Handler: Clone + Send + Sync + 'static {
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Answer>> + Send;
}

/// An answer's body, and what is held until its end.
#[derive(Debug)]
pub struct Answer {
    pub body: Body,
    pub slot: Option<Count>,
}

impl From<Body> for Answer {
    fn from(body: Body) -> Self {
        Self { body, slot: None }
    }
}

/// Which protocols a door speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    Http1,
    Http1AndH2c,
    H2c,
}

/// Bounds of one server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Open connections, of all its listeners together.
    pub connections: usize,
    /// Size of a request's head, in bytes.
    pub head: usize,
    /// From the first byte of a head, and from the accept, to its end.
    pub head_time: Duration,
    /// Between requests of one connection.
    pub idle: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        let (head_time, idle) = (Duration::from_secs(10), Duration::from_secs(180));
        Self { connections: 10_000, head: 4 << 10, head_time, idle }
    }
}

/// Serves any number of listeners; clones share the connections.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    tasks: Tasks,
    limits: ServerLimits,
    protocols: Protocols,
    /// Stop accepting; let requests end.
    closing: CancellationToken,
    /// Cut everything.
    cut: CancellationToken,
    connections: Arc<Counter>,
    refusals: Arc<Counter>,
}

/// Connections that are told at a time that there are too many.
const REFUSALS: usize = 64;
/// How long one of those gets.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A peer that vanished without a word is noticed, even in the middle of a request.
const KEEPALIVE: socket2::TcpKeepalive =
    socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 68\r\n\r\n{\"errorCode\":\"ERR_OVERLOADED\",\"message\":\"too many open connections\"}";

impl Server {
    pub fn new(tasks: Tasks, protocols: Protocols, limits: ServerLimits) -> Self {
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let connections = Counter::new(limits.connections);
        let refusals = Counter::new(REFUSALS);
        Self { shared: Arc::new(Shared { tasks, limits, protocols, closing, cut, connections, refusals }) }
    }

    /// Accepts on `listener`, which listens already, until the server closes.
    pub fn serve<H: Handler>(&self, name: &'static str, listener: std::net::TcpListener, handler: H) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.accept_on(name, TcpListener::from_std(listener)?, handler);
        Ok(())
    }

    /// The same on a Unix socket.
    pub fn serve_unix<H: Handler>(
        &self,
        name: &'static str,
        listener: std::os::unix::net::UnixListener,
        handler: H,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.accept_on(name, UnixListener::from_std(listener)?, handler);
        Ok(())
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.connections.count()
    }

    /// Stops accepting, lets requests in flight end within `grace`, then cuts the rest. Returns how many were cut.
    pub async fn close(&self, grace: Duration) -> usize {
        self.shared.closing.cancel();
        let ended = tokio::time::timeout(grace, self.shared.connections.ended()).await;
        let left = if ended.is_ok() { 0 } else { self.shared.connections.count() };
        self.shared.cut.cancel();
        left
    }

    fn accept_on<L: Accept, H: Handler>(&self, name: &'static str, listener: L, handler: H) {
        let shared = self.shared.clone();
        self.shared.tasks.spawn(Kind::Service, name, async move {
            tokio::select! {
                biased;
                () = shared.closing.cancelled() => {}
                () = shared.tasks.stopping() => {}
                () = shared.accept_all(&listener, &handler) => {}
            }
            drop(listener);
            // Its end before the node's would be a failure.
            shared.tasks.stopping().await;
        });
    }
}

impl Shared {
    async fn accept_all<L: Accept, H: Handler>(self: &Arc<Self>, listener: &L, handler: &H) {
        loop {
            match listener.next().await {
                Ok(stream) => self.on_connection(stream, handler),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn on_connection<S: Stream, H: Handler>(self: &Arc<Self>, stream: S, handler: &H) {
        match self.connections.take() {
            Some(counted) => {
                let task = connection::run(self.clone(), stream, handler.clone(), counted);
                self.tasks.spawn(Kind::Work, "connection", task);
            }
            None => {
                // When even the refusals are too many, the connection is just closed.
                if let Some(counted) = self.refusals.take() {
                    self.tasks.spawn(Kind::Work, "refusal", refuse(stream, counted));
                }
            }
        }
    }
}

/// Says that there are too many connections. Reads first, since closing with unread bytes would discard the answer.
async fn refuse<S: Stream>(mut stream: S, _counted: Count) {
    let told = async {
        let mut request = [0; 4096];
        let _read = stream.read(&mut request).await?;
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await
    };
    // Neither a failure nor a slow peer changes anything.
    let _ = tokio::time::timeout(REFUSAL_TIME, told).await;
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

trait Accept: Send + Sync + 'static {
    type Stream: Stream;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _peer) = self.accept().await?;
        // Both fail on a dead socket only, which the first read reports.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _peer)| stream)
    }
}

/// Fuzz body: any bytes on a connection, in whichever protocol. It ends when the client has said all.
pub fn fuzz_connection(data: &[u8]) {
    #[derive(Clone)]
    struct Echo;

    impl Handler for Echo {
        async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
            let body = Body::incoming(request.into_body(), FUZZED_BODY).collect(FUZZED_BODY).await;
            Response::new(Answer::from(Body::full(body.unwrap_or_default())))
        }
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let tasks = Tasks::new();
        let server = Server::new(tasks.clone(), Protocols::Http1AndH2c, ServerLimits::default());
        let (mut client, stream) = tokio::io::duplex(data.len().max(FUZZED_BUFFER));
        server.shared.on_connection(stream, &Echo);
        let told = async {
            // A server that has heard enough closes: neither write needs to succeed.
            let _ = client.write_all(data).await;
            for _ in 0..FUZZED_STEPS {
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
            server.shared.connections.ended().await;
        };
        assert!(tokio::time::timeout(FUZZED_TIME, told).await.is_ok(), "the connection does not end");
        tasks.join().await;
    });
}

/// What fits between client and server, each way.
const FUZZED_BUFFER: usize = 64 << 10;
/// The largest body that the fuzz body's handler takes.
const FUZZED_BODY: u64 = 64 << 10;
/// What the server may do before it sees that the client has said all: HTTP/2 answers nobody who has left.
const FUZZED_STEPS: usize = 64;
/// Far longer than an exchange in memory takes, and shorter than any of the server's own limits.
const FUZZED_TIME: Duration = Duration::from_secs(4);

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;
