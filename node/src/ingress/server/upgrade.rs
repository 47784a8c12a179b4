//! `Upgrade: h2c`: an HTTP/1.1 request that asks to go on in HTTP/2.
//!
//! The request is answered 101, and then served as stream 1 of an HTTP/2 connection. The protocol machine knows only
//! connections that begin with HTTP/2, so it is shown one: the client's preface and SETTINGS, then the request as a
//! HEADERS frame (and its body as DATA), then the rest of what the client sends. The client's own SETTINGS frame comes
//! first and exactly once, so that it is in force for the answer and is acknowledged once.
//!
//! A request is not upgraded, but answered as it is, when the offer is malformed or its body does not fit into the
//! first window. That is the server's free choice by RFC 7540, 3.2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{PREFACE, Watched, serve_http2};
use super::{Answer, Handler, Shared, Stream};
use crate::ingress::http::body::Body;
use crate::tasks::Kind;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// A stream's window before any SETTINGS are in force: what a body may have without being waited for.
const FIRST_WINDOW: u64 = 65_535;
/// The largest frame before any SETTINGS are in force.
const FRAME: usize = 16_384;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Whether the request offers an upgrade that can be taken.
pub(super) fn is_wanted(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    if !headers.contains_key(UPGRADE) {
        return false;
    }
    let body_fits = request.body().size_hint().exact().is_some_and(|length| length <= FIRST_WINDOW);
    body_fits && offers_h2c(headers)
}

fn offers_h2c(headers: &HeaderMap) -> bool {
    let names = |name: &HeaderName, wanted: &str| {
        let listed = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        listed.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(wanted))
    };
    let mut settings = headers.get_all(HTTP2_SETTINGS).iter();
    let (Some(only), None) = (settings.next(), settings.next()) else { return false };
    let decoded = URL_SAFE_NO_PAD.decode(only.as_bytes().trim_ascii_end());
    names(&UPGRADE, "h2c")
        && names(&CONNECTION, "upgrade")
        && names(&CONNECTION, "http2-settings")
        && decoded.is_ok_and(|settings| settings.len() % 6 == 0)
}

/// Answers 101 and serves the connection from there on. Hands the request back if its body could not be read.
pub(super) async fn begin<H: Handler>(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    handler: H,
) -> Result<Response<Answer>, Box<Request<Incoming>>> {
    let Some(counted) = shared.connections.take() else { return Err(Box::new(request)) };
    let upgraded = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let Ok(body) = Body::incoming(body, FIRST_WINDOW).collect(FIRST_WINDOW).await else {
        // The connection is broken or lies about its length; there is nobody to answer well.
        let mut refused = Response::new(Answer::from(Body::empty()));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    let frames = frames(&head, &body);
    let upgraded_shared = shared.clone();
    shared.tasks.spawn(Kind::Work, "h2c-upgrade", async move {
        let _counted = counted;
        let shared = upgraded_shared;
        let served = async {
            let upgraded = tokio::time::timeout(shared.limits.head_time, upgraded).await??;
            let replay = Replay::new(TokioIo::new(upgraded), frames);
            serve_http2(&shared, Watched::new(replay), handler).await
        };
        let ended: Result<(), Box<dyn std::error::Error + Send + Sync>> = tokio::select! {
            biased;
            () = shared.cut.cancelled() => Ok(()),
            () = shared.tasks.stopping() => Ok(()),
            ended = served => ended,
        };
        if let Err(error) = ended {
            tracing::trace!(error, "an upgraded connection ended");
        }
    });
    let mut switching = Response::new(Answer::from(Body::empty()));
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    switching.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    switching.headers_mut().insert(UPGRADE, HeaderValue::from_static("h2c"));
    Ok(switching)
}

/// The request as frames of stream 1.
fn frames(head: &http::request::Parts, body: &[u8]) -> Bytes {
    let block = header_block(head);
    let mut frames = BytesMut::with_capacity(block.len() + body.len() + 4 * FRAME_HEAD);
    let mut rest = &block[..];
    let mut kind = HEADERS;
    loop {
        let (part, after) = rest.split_at(rest.len().min(FRAME));
        let end_headers = if after.is_empty() { END_HEADERS } else { 0 };
        let end_stream = if kind == HEADERS && body.is_empty() { END_STREAM } else { 0 };
        put_frame(&mut frames, kind, end_headers | end_stream, part);
        if after.is_empty() {
            break;
        }
        (rest, kind) = (after, CONTINUATION);
    }
    let mut chunks = body.chunks(FRAME).peekable();
    while let Some(chunk) = chunks.next() {
        put_frame(&mut frames, DATA, if chunks.peek().is_none() { END_STREAM } else { 0 }, chunk);
    }
    frames.freeze()
}

fn put_frame(frames: &mut BytesMut, kind: u8, flags: u8, payload: &[u8]) {
    frames.put_uint(payload.len() as u64, 3);
    frames.put_u8(kind);
    frames.put_u8(flags);
    frames.put_u32(1);
    frames.put_slice(payload);
}

/// The head as HPACK literals that are not indexed: valid in any state of the decoder.
fn header_block(head: &http::request::Parts) -> BytesMut {
    let mut block = BytesMut::with_capacity(512);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = head.headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    put_literal(&mut block, b":method", head.method.as_str().as_bytes());
    put_literal(&mut block, b":scheme", b"http");
    put_literal(&mut block, b":path", path.as_bytes());
    if !authority.is_empty() {
        put_literal(&mut block, b":authority", authority);
    }
    for (name, value) in &head.headers {
        let of_http1 = [CONNECTION, UPGRADE, HTTP2_SETTINGS, HOST, TRANSFER_ENCODING].contains(name)
            || ["keep-alive", "proxy-connection", "te"].contains(&name.as_str());
        if !of_http1 {
            put_literal(&mut block, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    block
}

fn put_literal(block: &mut BytesMut, name: &[u8], value: &[u8]) {
    block.put_u8(0);
    for text in [name, value] {
        put_length(block, text.len());
        block.put_slice(text);
    }
}

/// A length with a prefix of seven bits, the eighth saying that the text is not compressed.
fn put_length(block: &mut BytesMut, length: usize) {
    if length < 127 {
        block.put_u8(length as u8);
        return;
    }
    block.put_u8(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.put_u8((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.put_u8(rest as u8);
}

/// A stream in which the request follows the client's preface and SETTINGS.
struct Replay<S> {
    inner: S,
    state: State,
}

enum State {
    /// Gathering the client's preface and its first frame.
    Opening {
        gathered: BytesMut,
        frames: Bytes,
    },
    /// Handing out what was put together.
    Handing(Bytes),
    Through,
}

impl<S> Replay<S> {
    fn new(inner: S, frames: Bytes) -> Self {
        Self { inner, state: State::Opening { gathered: BytesMut::new(), frames } }
    }
}

/// Where the client's first frame ends, once that can be told. It must be SETTINGS.
fn opening_length(gathered: &[u8]) -> io::Result<Option<usize>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not the opening of an HTTP/2 connection");
    let compared = gathered.len().min(PREFACE.len());
    if gathered[..compared] != PREFACE[..compared] {
        return Err(malformed());
    }
    let Some(frame) = gathered.get(PREFACE.len()..PREFACE.len() + FRAME_HEAD) else { return Ok(None) };
    let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
    if frame[3] != SETTINGS || frame[4] != 0 || length > FRAME {
        return Err(malformed());
    }
    let end = PREFACE.len() + FRAME_HEAD + length;
    Ok((gathered.len() >= end).then_some(end))
}

impl<S: Stream> AsyncRead for Replay<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Through => return Pin::new(&mut this.inner).poll_read(cx, buf),
                State::Handing(ready) => {
                    let length = ready.len().min(buf.remaining());
                    buf.put_slice(&ready[..length]);
                    ready.advance(length);
                    if ready.is_empty() {
                        this.state = State::Through;
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Opening { gathered, frames } => {
                    if let Some(end) = opening_length(gathered)? {
                        let rest = gathered.split_off(end);
                        gathered.extend_from_slice(frames);
                        gathered.extend_from_slice(&rest);
                        this.state = State::Handing(std::mem::take(gathered).freeze());
                        continue;
                    }
                    let mut space = [0; 1024];
                    let mut space = ReadBuf::new(&mut space);
                    std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, &mut space))?;
                    if space.filled().is_empty() {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    gathered.extend_from_slice(space.filled());
                }
            }
        }
    }
}

impl<S: Stream> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Fuzz body: the values of `upgrade`, `connection` and `http2-settings`, one a line, then what follows the 101. The
/// opening is recognised once and for all, and the request becomes whole frames of stream 1.
pub fn fuzz_upgrade(data: &[u8]) {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let (mut head, ()) = Request::new(()).into_parts();
    for name in [UPGRADE, CONNECTION, HTTP2_SETTINGS, HOST] {
        if let Ok(value) = HeaderValue::from_bytes(lines.next().unwrap_or_default()) {
            head.headers.insert(name, value);
        }
    }
    let _ = offers_h2c(&head.headers);
    if let Ok(Some(end)) = opening_length(data) {
        assert!(matches!(opening_length(&data[..end]), Ok(Some(again)) if again == end));
        assert!(matches!(opening_length(&data[..end - 1]), Ok(None)));
    }
    let frames = frames(&head, data);
    let mut rest = &frames[..];
    while let Some((frame, after)) = rest.split_at_checked(FRAME_HEAD) {
        let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        assert!(length <= FRAME && length <= after.len() && frame[5..] == [0, 0, 0, 1]);
        rest = &after[length..];
    }
    assert!(rest.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_hpack_integers_of_seven_bits() {
        for (length, expected) in [(0, vec![0]), (126, vec![126]), (127, vec![127, 0]), (1337, vec![127, 186, 9])] {
            let mut block = BytesMut::new();
            put_length(&mut block, length);
            assert_eq!(block, expected, "{length}");
        }
    }

    #[test]
    fn a_long_head_continues_in_a_second_frame() {
        let request = Request::builder().uri("/x").header("a", "v".repeat(20_000)).body(()).unwrap();
        let (head, ()) = request.into_parts();
        let frames = frames(&head, b"");
        assert_eq!((frames[3], frames[4]), (HEADERS, END_STREAM));
        let second = FRAME_HEAD + FRAME;
        assert_eq!((frames[second + 3], frames[second + 4]), (CONTINUATION, END_HEADERS));
    }

    #[test]
    fn only_a_preface_and_settings_open_a_connection() {
        let mut good = PREFACE.to_vec();
        assert_eq!(opening_length(&good[..5]).unwrap(), None);
        good.extend_from_slice(&[0, 0, 6, SETTINGS, 0, 0, 0, 0, 0]);
        assert_eq!(opening_length(&good).unwrap(), None);
        good.extend_from_slice(&[0, 4, 0, 0, 1, 0, 99]);
        assert_eq!(opening_length(&good).unwrap(), Some(good.len() - 1));
        assert!(opening_length(b"GET / HTTP/1.1").is_err());
        let mut other = PREFACE.to_vec();
        other.extend_from_slice(&[0, 0, 0, DATA, 0, 0, 0, 0, 0]);
        assert!(opening_length(&other).is_err());
    }

    #[test]
    fn an_offer_needs_all_three_headers() {
        let offer = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            offers_h2c(&headers)
        };
        let connection = ("connection", "Upgrade, HTTP2-Settings");
        assert!(offer(&[connection, ("upgrade", "h2c"), ("http2-settings", "AAMAAABkAAQAAP__")]));
        assert!(!offer(&[connection, ("upgrade", "websocket"), ("http2-settings", "")]));
        assert!(!offer(&[connection, ("upgrade", "h2c")]));
        assert!(!offer(&[connection, ("upgrade", "h2c"), ("http2-settings", "!!")]));
        assert!(!offer(&[("connection", "upgrade"), ("upgrade", "h2c"), ("http2-settings", "")]));
    }
}
