//! An app for tests: real sockets, scripted answers, and a record of what it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::AppConfig;
use crate::ingress::http::body::Body;
use crate::tasks::{Kind, Tasks};

/// A request as the app saw it, body and all.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A running app. Dropping it closes its port and its connections.
pub struct FakeApp {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    seen: mpsc::UnboundedReceiver<Seen>,
    stop: CancellationToken,
}

impl FakeApp {
    /// Answers each request, whose body it reads first, by `answer`.
    pub async fn start(tasks: &Tasks, answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::start_at(tasks, "127.0.0.1:0".parse().unwrap(), answer).await
    }

    /// The same on a port that was used before.
    pub async fn start_at(
        tasks: &Tasks,
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let (record, seen) = mpsc::unbounded_channel();
        Self::serve(tasks, address, seen, move |stream| serve(stream, record.clone(), answer.clone())).await
    }

    /// Hands each connection to `script`, which speaks to it byte by byte.
    pub async fn raw<F>(tasks: &Tasks, script: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (_record, seen) = mpsc::unbounded_channel();
        Self::serve(tasks, "127.0.0.1:0".parse().unwrap(), seen, script).await
    }

    async fn serve<F>(
        tasks: &Tasks,
        address: SocketAddr,
        seen: mpsc::UnboundedReceiver<Seen>,
        connection: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let (accepted, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (count, stopped, spawner) = (accepted.clone(), stop.clone(), tasks.clone());
        tasks.spawn(Kind::Work, "fake-app", async move {
            loop {
                let stream = tokio::select! {
                    biased;
                    () = stopped.cancelled() => return,
                    () = spawner.stopping() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                count.fetch_add(1, Ordering::SeqCst);
                let (serving, stopped, tasks) = (connection(stream), stopped.clone(), spawner.clone());
                spawner.spawn(Kind::Work, "fake-app", async move {
                    tokio::select! {
                        biased;
                        () = stopped.cancelled() => {}
                        () = tasks.stopping() => {}
                        () = serving => {}
                    }
                });
            }
        });
        Self { address, accepted, seen, stop }
    }

    pub fn config(&self) -> AppConfig {
        AppConfig::new(self.address.port())
    }

    /// How many connections it accepted, port probes among them.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The next request it saw, other than for its configuration.
    pub async fn saw(&mut self) -> Seen {
        loop {
            let seen = self.seen.recv().await.expect("the app runs");
            if seen.target != "/dapr/config" {
                return seen;
            }
        }
    }

    /// The next request for its configuration.
    pub async fn saw_config(&mut self) -> Seen {
        loop {
            let seen = self.seen.recv().await.expect("the app runs");
            if seen.target == "/dapr/config" {
                return seen;
            }
        }
    }
}

impl Drop for FakeApp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves HTTP/1.1 or HTTP/2, as the client begins.
pub async fn serve<S>(
    stream: S,
    record: mpsc::UnboundedSender<Seen>,
    answer: Arc<impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (record, answer) = (record.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = Body::incoming(body, u64::MAX).collect(u64::MAX).await?;
            let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
            let seen = Seen { method: head.method, target, headers: head.headers, body };
            let response = answer(&seen);
            // The test may have ended meanwhile.
            let _ = record.send(seen);
            Ok::<_, crate::ingress::http::body::Error>(response)
        }
    });
    // Tests end connections as they please.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// Reads one request head and its declared body, byte by byte.
pub async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let byte = stream.read_u8().await.expect("a request");
        text.push(byte);
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    text.extend_from_slice(&body);
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends bytes, if anybody still wants them.
pub async fn send(stream: &mut TcpStream, bytes: &str) {
    let _ = stream.write_all(bytes.as_bytes()).await;
}

/// A response with a status and a text body.
pub fn answer(status: u16, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}
