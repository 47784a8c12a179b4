//! The one body type of requests to handlers and of answers from them.
//!
//! Small bodies are [`Bytes`] without a box; a request's body streams from its connection under the node's size limit
//! (`stream too large` beyond it); anything else that streams is boxed once. Dropping a body ends whatever fed it.
//! Nothing here waits with more than one chunk in memory, except [`Body::collect`], which takes a limit.
//!
//! A request whose body is too large is read on for a moment and thrown away, so that its sender, who is still
//! sending, gets to read the answer. A body that is collected must keep coming, and fast enough: a sender who falls
//! silent is given up, and so is one who sends so little at a time that the request would hold its place for ever.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More than the limit of request bodies, or of [`Body::collect`].
    #[error("stream too large")]
    TooLarge,
    /// Nothing came for [`SILENCE`].
    #[error("the body stopped coming")]
    Silent,
    /// Slower than [`COLLECT_TIME`] and [`COLLECT_RATE`] allow.
    #[error("the body came too slowly")]
    Slow,
    #[error("{0}")]
    Read(#[from] hyper::Error),
    /// Whoever produced the body gave up.
    #[error("{0}")]
    Aborted(String),
}

/// The longest pause inside a body that is collected.
pub const SILENCE: Duration = Duration::from_secs(30);
/// The time that a collected body has in all, whatever its size.
pub const COLLECT_TIME: Duration = Duration::from_secs(60);
/// Bytes that must come in every second of the time beyond [`COLLECT_TIME`].
pub const COLLECT_RATE: u64 = 16 << 10;
/// What is read, and for how long, of a body that is too large.
const DISCARD_BYTES: u64 = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// A boxed stream of frames.
pub type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>;

/// A request's or answer's body.
pub struct Body(Kind);

enum Kind {
    Empty,
    Full(Bytes),
    Incoming {
        incoming: Incoming,
        /// Bytes that may still come; `None` once more have come.
        left: Option<u64>,
    },
    Channel(mpsc::Receiver<Result<Bytes, Error>>),
    Stream(BoxBody),
}

impl Body {
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self(Kind::Empty) } else { Self(Kind::Full(bytes)) }
    }

    /// The body of a request, of which at most `limit` bytes are read.
    pub fn incoming(incoming: Incoming, limit: u64) -> Self {
        if incoming.is_end_stream() { Self(Kind::Empty) } else { Self(Kind::Incoming { incoming, left: Some(limit) }) }
    }

    /// A body fed by the returned sender, `capacity` chunks ahead of its reader.
    pub fn channel(capacity: usize) -> (mpsc::Sender<Result<Bytes, Error>>, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self(Kind::Channel(receiver)))
    }

    pub fn stream(body: impl HttpBody<Data = Bytes, Error = Error> + Send + 'static) -> Self {
        Self(Kind::Stream(Box::pin(body)))
    }

    /// The length, when it is known before the end.
    pub fn known_length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty => Some(0),
            Kind::Full(bytes) => Some(bytes.len() as u64),
            Kind::Incoming { incoming, .. } => incoming.size_hint().exact(),
            Kind::Channel(_) => None,
            Kind::Stream(body) => body.size_hint().exact(),
        }
    }

    /// Whether it is certain, without reading, that [`Error::TooLarge`] will come.
    pub fn is_declared_too_large(&self) -> bool {
        match &self.0 {
            Kind::Incoming { incoming, left } => left.is_none_or(|left| incoming.size_hint().lower() > left),
            Kind::Empty | Kind::Full(_) | Kind::Channel(_) | Kind::Stream(_) => false,
        }
    }

    fn exceed(&mut self) {
        if let Kind::Incoming { left, .. } = &mut self.0 {
            *left = None;
        }
    }

    /// The whole body if it is in memory already.
    pub fn as_full(&self) -> Option<Bytes> {
        match &self.0 {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes.clone()),
            Kind::Incoming { .. } | Kind::Channel(_) | Kind::Stream(_) => None,
        }
    }

    /// Reads the whole body, of at most `limit` bytes. A body of one chunk is not copied.
    pub async fn collect(mut self, limit: u64) -> Result<Bytes, Error> {
        match self.0 {
            Kind::Empty => return Ok(Bytes::new()),
            Kind::Full(bytes) if bytes.len() as u64 <= limit => return Ok(bytes),
            Kind::Full(_) => return Err(Error::TooLarge),
            Kind::Incoming { .. } | Kind::Channel(_) | Kind::Stream(_) => {}
        }
        let collected = if self.is_declared_too_large() || self.size_hint().lower() > limit {
            Err(Error::TooLarge)
        } else {
            self.gather(limit).await
        };
        if matches!(collected, Err(Error::TooLarge)) {
            self.discard().await;
        }
        collected
    }

    async fn gather(&mut self, limit: u64) -> Result<Bytes, Error> {
        let mut pace = Pace::default();
        let Some(first) = self.chunk_in_time(&mut pace).await? else { return Ok(Bytes::new()) };
        if first.len() as u64 > limit {
            return Err(Error::TooLarge);
        }
        if self.is_end_stream() {
            return Ok(first);
        }
        let Some(mut next) = self.chunk_in_time(&mut pace).await? else { return Ok(first) };
        let expected = self.size_hint().lower().min(limit).min(MAX_RESERVE);
        let mut whole = BytesMut::with_capacity(first.len() + next.len() + expected as usize);
        whole.extend_from_slice(&first);
        loop {
            if (whole.len() + next.len()) as u64 > limit {
                return Err(Error::TooLarge);
            }
            whole.extend_from_slice(&next);
            match self.chunk_in_time(&mut pace).await? {
                Some(chunk) => next = chunk,
                None => return Ok(whole.freeze()),
            }
        }
    }

    /// The next chunk of data; trailers are passed over.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    async fn chunk_in_time(&mut self, pace: &mut Pace) -> Result<Option<Bytes>, Error> {
        // Mostly it is there already, and no timer is needed.
        let ready = std::future::poll_fn(|cx| Poll::Ready(self.poll_chunk(cx))).await;
        let chunk = match ready {
            Poll::Ready(chunk) => chunk,
            Poll::Pending => {
                let (until, late) = pace.deadline();
                tokio::time::timeout_at(until, self.next_chunk()).await.unwrap_or(Err(late))
            }
        };
        if let Ok(Some(chunk)) = &chunk {
            pace.received += chunk.len() as u64;
        }
        chunk
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            let frame = std::task::ready!(Pin::new(&mut *self).poll_frame(cx));
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => return Poll::Ready(Ok(Some(data))),
                Some(Err(_trailers)) => {}
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Reads on and throws away, within bounds, so that a sender who is still sending can read the answer.
    pub async fn discard(&mut self) {
        let Kind::Incoming { incoming, .. } = &mut self.0 else { return };
        let mut left = DISCARD_BYTES;
        let reading = async {
            while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)).await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
                if left == 0 {
                    return;
                }
            }
        };
        // Whether it was read to its end does not matter.
        let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
    }
}

/// How fast a collected body comes.
#[derive(Default)]
struct Pace {
    /// When it was waited for first: what came without waiting took no time.
    since: Option<Instant>,
    received: u64,
}

impl Pace {
    /// When the next chunk is late, and what is wrong then.
    fn deadline(&mut self) -> (Instant, Error) {
        let now = crate::clock::runtime();
        let since = *self.since.get_or_insert(now);
        let (silent, slow) = (now + SILENCE, since + COLLECT_TIME + Duration::from_secs(self.received / COLLECT_RATE));
        if silent < slow { (silent, Error::Silent) } else { (slow, Error::Slow) }
    }
}

/// What is reserved ahead on the word of a declared length.
const MAX_RESERVE: u64 = 1 << 20;

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Incoming { incoming, left: Some(left) } => {
                let frame = match std::task::ready!(Pin::new(incoming).poll_frame(cx)) {
                    Some(Ok(frame)) => frame,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => return Poll::Ready(None),
                };
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match left.checked_sub(length) {
                    Some(rest) => *left = rest,
                    None => {
                        self.exceed();
                        return Poll::Ready(Some(Err(Error::TooLarge)));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Kind::Incoming { left: None, .. } => Poll::Ready(None),
            Kind::Channel(receiver) => receiver.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
            Kind::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Channel(_) => false,
            Kind::Incoming { incoming, .. } => incoming.is_end_stream(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming { incoming, .. } => incoming.size_hint(),
            Kind::Channel(_) => SizeHint::default(),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Kind::Empty => "Empty",
            Kind::Full(_) => "Full",
            Kind::Incoming { .. } => "Incoming",
            Kind::Channel(_) => "Channel",
            Kind::Stream(_) => "Stream",
        };
        write!(f, "Body::{kind}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_body_ends_with_its_only_chunk() {
        let mut body = Body::full("abc");
        assert_eq!(body.known_length(), Some(3));
        assert_eq!(body.next_chunk().await.unwrap().unwrap(), "abc");
        assert!(body.is_end_stream());
        assert!(body.next_chunk().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn collecting_joins_chunks_and_stops_at_the_limit() {
        for (limit, expected) in [(6, Some("abcdef")), (5, None)] {
            let (sender, body) = Body::channel(4);
            for chunk in ["ab", "cd", "ef"] {
                sender.send(Ok(Bytes::from_static(chunk.as_bytes()))).await.unwrap();
            }
            drop(sender);
            match (body.collect(limit).await, expected) {
                (Ok(bytes), Some(text)) => assert_eq!(bytes, text),
                (Err(Error::TooLarge), None) => {}
                (other, _) => panic!("limit {limit}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_producer_that_gives_up_is_an_error_not_an_end() {
        let (sender, body) = Body::channel(1);
        sender.send(Err(Error::Aborted("gone".into()))).await.unwrap();
        assert!(matches!(body.collect(10).await, Err(Error::Aborted(why)) if why == "gone"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_who_falls_silent_is_given_up() {
        let (sender, body) = Body::channel(1);
        sender.send(Ok(Bytes::from_static(b"a"))).await.unwrap();
        assert!(matches!(body.collect(10).await, Err(Error::Silent)));
        drop(sender);
    }

    /// What becomes of a body whose chunks of `size` bytes come `every` so often, and after how long.
    async fn dripped(chunks: usize, size: usize, every: Duration) -> (Result<usize, Error>, Duration) {
        let (sender, body) = Body::channel(1);
        let start = crate::clock::runtime();
        let sending = async move {
            for _ in 0..chunks {
                tokio::time::sleep(every).await;
                if sender.send(Ok(Bytes::from(vec![b'x'; size]))).await.is_err() {
                    return;
                }
            }
        };
        let (collected, ()) = tokio::join!(body.collect(64 << 20), sending);
        (collected.map(|bytes| bytes.len()), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_who_drips_is_given_up_when_the_time_is_over() {
        let (collected, after) = dripped(100, 1, Duration::from_secs(29)).await;
        assert!(matches!(collected, Err(Error::Slow)), "{collected:?}");
        // Its next attempt to send is what ends the sender.
        assert!(after >= COLLECT_TIME && after < COLLECT_TIME + SILENCE, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_may_take_longer_than_a_small_one() {
        let (collected, after) = dripped(100, 1 << 20, Duration::from_secs(20)).await;
        assert!(matches!(collected, Err(Error::TooLarge)), "{collected:?}");
        let (collected, after_whole) = dripped(60, 1 << 20, Duration::from_secs(20)).await;
        assert_eq!(collected.ok(), Some(60 << 20));
        assert!(after > COLLECT_TIME && after_whole > COLLECT_TIME * 10);
    }

    #[tokio::test]
    async fn a_full_body_over_the_limit_is_refused() {
        assert!(matches!(Body::full("abcd").collect(3).await, Err(Error::TooLarge)));
    }
}
