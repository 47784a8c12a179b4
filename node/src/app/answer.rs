//! An app's answer as it arrives: the body of one exchange, whichever protocol carries it.
//!
//! What has already arrived with the head is taken at once, so that a small answer needs neither a box nor a held
//! connection. The rest streams. A declared length is passed on only for long bodies: app servers exist that declare
//! one and send less, and callers are to get what was sent. Whether such a short end is the app's way or its death is
//! told by its port: when nobody listens there, the answer was cut, and the caller sees a broken body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::http1::{Exchange, ReadError};
use super::http2::Answer as H2Answer;
use super::{Error, Inner};
use crate::ingress::http::body::{self, Body};

/// Up to this length a declared length is not passed on unless the body is whole.
const TRUSTED_LENGTH: u64 = 64 * 1024;

/// The body of an answer on its way.
pub enum Answer {
    Http1(Exchange),
    Http2(H2Answer),
}

impl Answer {
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReadError>>> {
        match self {
            Answer::Http1(exchange) => exchange.poll_chunk(cx),
            Answer::Http2(answer) => answer.poll_chunk(cx),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Answer::Http1(exchange) => exchange.is_end(),
            Answer::Http2(answer) => answer.is_end(),
        }
    }

    fn declared_length(&self) -> Option<u64> {
        match self {
            Answer::Http1(exchange) => exchange.declared_length(),
            Answer::Http2(answer) => answer.declared_length(),
        }
    }
}

/// Reads a whole answer of at most `limit` bytes.
pub(super) async fn whole(answer: Answer, inner: &Inner, limit: u64) -> Result<Bytes, Error> {
    let mut partial = BytesMut::new();
    let declared = answer.declared_length();
    let read = match answer {
        Answer::Http1(exchange) => exchange.collect(limit, &mut partial).await,
        Answer::Http2(answer) => answer.collect(limit).await,
    };
    match read {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Error::TooLarge { limit }),
        Err(ReadError::Short) if declared.is_some() && inner.still_listens().await => Ok(partial.freeze()),
        Err(error) => {
            inner.connection_failed();
            Err(Error::Lost(error.to_string()))
        }
    }
}

/// Makes the body of an invocation's answer. `slot` is held until its end.
pub(crate) async fn streamed(answer: Answer, inner: Option<Arc<Inner>>, slot: Option<OwnedSemaphorePermit>) -> Body {
    let mut answer = answer;
    let mut ready = BytesMut::new();
    let declared = answer.declared_length();
    let mut first: Option<Bytes> = None;
    loop {
        if answer.is_end() {
            return Body::full(joined(first, ready));
        }
        match std::future::poll_fn(|cx| Poll::Ready(answer.poll_chunk(cx))).await {
            Poll::Ready(None) => return Body::full(joined(first, ready)),
            Poll::Ready(Some(Ok(chunk))) if first.is_none() => first = Some(chunk),
            Poll::Ready(Some(Ok(chunk))) => ready.extend_from_slice(&chunk),
            Poll::Ready(Some(Err(error))) => {
                let rest = Rest::Failed(error);
                return Body::stream(Streamed::new(joined(first, ready), rest, declared, inner, slot));
            }
            Poll::Pending => {
                let rest = Rest::Coming(answer);
                return Body::stream(Streamed::new(joined(first, ready), rest, declared, inner, slot));
            }
        }
        if ready.len() as u64 > TRUSTED_LENGTH {
            return Body::stream(Streamed::new(joined(first, ready), Rest::Coming(answer), declared, inner, slot));
        }
    }
}

fn joined(first: Option<Bytes>, more: BytesMut) -> Bytes {
    match first {
        None => Bytes::new(),
        Some(first) if more.is_empty() => first,
        Some(first) => {
            let mut whole = BytesMut::with_capacity(first.len() + more.len());
            whole.extend_from_slice(&first);
            whole.extend_from_slice(&more);
            whole.freeze()
        }
    }
}

/// A body that is still on its way.
struct Streamed {
    /// What came with the head.
    head: Bytes,
    rest: Rest,
    /// Bytes still due by the declared length, if that is passed on.
    due: Option<u64>,
    /// It has a declared length at all: only such a body can be shorter than it says and yet be whole.
    declared: bool,
    /// The channel whose port tells a short end from a death; `None` for external endpoints.
    inner: Option<Arc<Inner>>,
    _slot: Option<OwnedSemaphorePermit>,
}

enum Rest {
    Coming(Answer),
    Failed(ReadError),
    /// Asking the port what a short end means.
    Judging(Pin<Box<dyn Future<Output = bool> + Send>>),
    Ended,
}

impl Streamed {
    fn new(
        head: Bytes,
        rest: Rest,
        declared: Option<u64>,
        inner: Option<Arc<Inner>>,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let due = declared.filter(|length| *length > TRUSTED_LENGTH);
        Self { head, rest, due, declared: declared.is_some(), inner, _slot: slot }
    }

    fn failed(&mut self, error: ReadError) -> Result<(), body::Error> {
        if let (ReadError::Short, true, None, Some(inner)) = (&error, self.declared, self.due, &self.inner) {
            let inner = inner.clone();
            self.rest = Rest::Judging(Box::pin(async move { inner.still_listens().await }));
            return Ok(());
        }
        if let Some(inner) = &self.inner {
            inner.connection_failed();
        }
        self.rest = Rest::Ended;
        Err(body::Error::Aborted(error.to_string()))
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        if !self.head.is_empty() {
            let chunk = std::mem::take(&mut self.head);
            if let Some(due) = &mut self.due {
                *due = due.saturating_sub(chunk.len() as u64);
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        loop {
            let failure = match &mut self.rest {
                Rest::Coming(answer) => match std::task::ready!(answer.poll_chunk(cx)) {
                    Some(Ok(chunk)) => {
                        if let Some(due) = &mut self.due {
                            *due = due.saturating_sub(chunk.len() as u64);
                        }
                        return Poll::Ready(Some(Ok(Frame::data(chunk))));
                    }
                    None => {
                        self.rest = Rest::Ended;
                        return Poll::Ready(None);
                    }
                    Some(Err(error)) => error,
                },
                Rest::Failed(error) => std::mem::replace(error, ReadError::Short),
                Rest::Judging(listens) => {
                    let listens = std::task::ready!(listens.as_mut().poll(cx));
                    self.rest = Rest::Ended;
                    let cut = body::Error::Aborted("the app ended before its answer did".to_owned());
                    return Poll::Ready(if listens { None } else { Some(Err(cut)) });
                }
                Rest::Ended => return Poll::Ready(None),
            };
            if let Err(error) = self.failed(failure) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty()
            && match &self.rest {
                Rest::Coming(answer) => answer.is_end(),
                Rest::Failed(_) | Rest::Judging(_) => false,
                Rest::Ended => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        self.due.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
