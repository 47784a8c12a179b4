//! One connection: which protocol it speaks, its requests, its end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::activity::{Activity, Heads, InFlight, Verdict};
use super::upgrade;
use super::{Answer, Count, Handler, Protocols, Shared, Stream};
use crate::app::http2::Spawner;
use crate::clock;
use crate::ingress::http::body;

/// What opens an HTTP/2 connection.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Concurrent requests of one HTTP/2 connection.
const STREAMS: u32 = 1_000;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes an HTTP/2 connection buffers for a slow reader of one answer.
const SEND_BUFFER: usize = 256 * 1024;
/// The most one HTTP/1.1 connection reads ahead.
const READ_BUFFER: usize = 64 * 1024;
/// A silent HTTP/2 peer is asked for a sign of life this often.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a connection is looked at for being stuck or idle, at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run<S: Stream, H: Handler>(shared: Arc<Shared>, stream: S, handler: H, _counted: Count) {
    let served = async {
        let (http2, stream) = tokio::select! {
            biased;
            () = shared.closing.cancelled() => return Ok(()),
            opened = tokio::time::timeout(shared.limits.head_time, opening(&shared, stream)) => match opened {
                Ok(opened) => opened?,
                Err(_) => return Ok(()),
            },
        };
        if http2 { serve_http2(&shared, stream, handler).await } else { serve_http1(&shared, stream, handler).await }
    };
    let ended: Result<(), BoxError> = tokio::select! {
        biased;
        () = shared.cut.cancelled() => Ok(()),
        () = shared.tasks.stopping() => Ok(()),
        ended = served => ended,
    };
    if let Err(error) = ended {
        // Clients leave as they please: nothing for an operator to see.
        tracing::trace!(error, "a connection ended");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reads until it is clear which protocol the client speaks; what was read is read again by it.
async fn opening<S: Stream>(shared: &Shared, mut stream: S) -> io::Result<(bool, Watched<S>)> {
    let activity = Activity::new(clock::monotonic());
    let watched = |first: Bytes, stream| Watched { first, inner: stream, activity };
    match shared.protocols {
        Protocols::Http1 => return Ok((false, watched(Bytes::new(), stream))),
        Protocols::H2c => return Ok((true, watched(Bytes::new(), stream))),
        Protocols::Http1AndH2c => {}
    }
    let mut first = BytesMut::with_capacity(2 << 10);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let compared = first.len().min(PREFACE.len());
        if first[..compared] != PREFACE[..compared] {
            return Ok((false, watched(first.freeze(), stream)));
        }
        if compared == PREFACE.len() {
            return Ok((true, watched(first.freeze(), stream)));
        }
    }
}

async fn serve_http1<S: Stream, H: Handler>(
    shared: &Arc<Shared>,
    stream: Watched<S>,
    handler: H,
) -> Result<(), BoxError> {
    let activity = stream.activity.clone();
    let service = {
        let (shared, activity) = (shared.clone(), activity.clone());
        service_fn(move |mut request: Request<Incoming>| {
            let in_flight = activity.on_request();
            let (shared, handler) = (shared.clone(), handler.clone());
            async move {
                if shared.protocols == Protocols::Http1AndH2c && upgrade::is_wanted(&request) {
                    match upgrade::begin(&shared, request, handler.clone()).await {
                        Ok(switching) => return Ok::<_, Infallible>(serving(switching, in_flight)),
                        Err(unchanged) => request = *unchanged,
                    }
                }
                Ok(serving(handler.handle(request).await, in_flight))
            }
        })
    };
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_header_size(shared.limits.head)
        .max_buf_size(READ_BUFFER.max(shared.limits.head));
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    drive(shared, connection, &activity, Heads::Visible).await
}

pub(super) async fn serve_http2<S: Stream, H: Handler>(
    shared: &Arc<Shared>,
    stream: Watched<S>,
    handler: H,
) -> Result<(), BoxError> {
    let activity = stream.activity.clone();
    let service = {
        let activity = activity.clone();
        service_fn(move |request: Request<Incoming>| {
            let in_flight = activity.on_request();
            let handler = handler.clone();
            async move { Ok::<_, Infallible>(serving(handler.handle(request).await, in_flight)) }
        })
    };
    let connection = http2::Builder::new(Spawner(shared.tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(shared.limits.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    drive(shared, connection, &activity, Heads::Hidden).await
}

/// A connection that can be asked to end after the requests in flight.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn end(self: Pin<&mut Self>);
}

impl<I, S> Graceful for http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<Incoming>,
    S::Error: Into<BoxError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S::ResBody: http_body::Body<Data = Bytes> + 'static,
    <S::ResBody as http_body::Body>::Error: Into<BoxError>,
    Self: Future<Output = hyper::Result<()>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, E> Graceful for http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming>,
    S::Error: Into<BoxError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S::ResBody: http_body::Body + 'static,
    <S::ResBody as http_body::Body>::Error: Into<BoxError>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, S::ResBody>,
    Self: Future<Output = hyper::Result<()>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves until the connection ends, by itself, by being asked to, or for doing nothing.
async fn drive(shared: &Shared, connection: impl Graceful, activity: &Activity, heads: Heads) -> Result<(), BoxError> {
    let mut connection = std::pin::pin!(connection);
    // A token of its own, so that polling it takes no lock that other connections take.
    let closing = shared.closing.child_token();
    let mut closing = std::pin::pin!(closing.cancelled());
    let mut asked = false;
    let look_every = LOOK_EVERY.min(shared.limits.head_time / 2).min(shared.limits.idle / 2);
    let mut look = tokio::time::interval(look_every.max(Duration::from_millis(1)));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = &mut closing, if !asked => {
                asked = true;
                connection.as_mut().end();
            }
            ended = &mut connection => return Ok(ended?),
            _ = look.tick() => match activity.verdict(clock::monotonic(), &shared.limits, heads) {
                Verdict::Keep => {}
                Verdict::Idle => connection.as_mut().end(),
                Verdict::Stuck => return Err("the head of a request did not come to an end".into()),
            },
        }
    }
}

fn serving(response: Response<Answer>, in_flight: InFlight) -> Response<Served> {
    response.map(|answer| Served { answer, _in_flight: in_flight })
}

/// An answer's body as the connection reads it; what it holds is let go at its end.
pub(super) struct Served {
    answer: Answer,
    _in_flight: InFlight,
}

impl http_body::Body for Served {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        Pin::new(&mut self.answer.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.body.size_hint()
    }
}

/// A stream that gives back what was read to recognise the protocol, and notes when bytes come in.
pub(super) struct Watched<S> {
    first: Bytes,
    inner: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub fn new(inner: S) -> Self {
        Self { first: Bytes::new(), inner, activity: Activity::new(clock::monotonic()) }
    }
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..length]);
            self.first.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.on_read(clock::monotonic);
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
