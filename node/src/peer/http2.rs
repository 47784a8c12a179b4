//! The HTTP/2 connections below the links: one per link, settings the same at both ends.
//!
//! One stream has a connection to itself. What the HTTP/2 layer takes in advance is little, so that what waits, waits in
//! the queue of the link, where it can be ordered, taken back and counted: a small call waits behind a window's worth of
//! a large one. A window of 1 MiB is 100 MB/s at 10 ms. A silent other side
//! is asked for a sign of life, and the connection ends when none comes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::app::http2::Spawner;
use crate::tasks::{Kind, Tasks};

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Bytes that HTTP/2 takes before it has sent them.
const SEND_BUFFER: usize = 256 << 10;
/// Requests of one connection at a time. A link is one; invocations of apps share connections of their own.
const STREAMS: u32 = 2_048;
const HEADERS: u32 = 64 << 10;

/// When an end that is silent counts as dead.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeepAlive {
    pub every: Duration,
    pub timeout: Duration,
}

/// A connection on which requests are made.
pub(super) struct Connection(SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Opens a connection to `address`, which ends when `cut` is cancelled.
pub(super) async fn connect(
    address: &str,
    keep_alive: KeepAlive,
    cut: CancellationToken,
    tasks: &Tasks,
) -> Result<Connection, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    // It fails on a dead socket only, which the first write reports.
    let _ = stream.set_nodelay(true);
    let mut builder = hyper::client::conn::http2::Builder::new(Spawner(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(keep_alive.every)
        .keep_alive_timeout(keep_alive.timeout);
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| describe(&error))?;
    let stopping = tasks.clone();
    tasks.spawn(Kind::Work, "peer-connection", async move {
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = stopping.stopping() => {}
            ended = driver => if let Err(error) = ended {
                tracing::debug!(error = %describe(&error), "a connection to a peer ended");
            },
        }
    });
    Ok(Connection(sender))
}

/// The other end's settings.
pub(super) fn server(tasks: &Tasks, keep_alive: KeepAlive) -> hyper::server::conn::http2::Builder<Spawner> {
    let mut builder = hyper::server::conn::http2::Builder::new(Spawner(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(keep_alive.every)
        .keep_alive_timeout(keep_alive.timeout);
    builder
}

/// An error with its causes.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
