//! HTTP clients: one request, one connection, nothing hidden.
//!
//! Each request opens its own connection, so that no test depends on the pool of another. Paths go out as they are
//! written; what hyper refuses to send is for [`crate::raw`].

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// No answer of the product takes longer: the longest waits are bounded by 15 s of the router.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

type Error = Box<dyn std::error::Error + Send + Sync>;
type OutBody = BoxBody<Bytes, Error>;

/// A request in the making.
#[must_use]
pub struct Outgoing {
    to: SocketAddr,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: OutBody,
    h2: bool,
    within: Duration,
}

pub fn request(to: SocketAddr, method: &str, path: &str) -> Outgoing {
    Outgoing {
        to,
        method: method.parse().expect("a method"),
        path: path.to_owned(),
        headers: Vec::new(),
        body: whole(Bytes::new()),
        h2: false,
        within: ANSWER_WITHIN,
    }
}

fn whole(bytes: Bytes) -> OutBody {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

impl Outgoing {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = whole(body.into());
        self
    }

    pub fn json(self, body: &impl Serialize) -> Self {
        let text = serde_json::to_vec(body).expect("JSON of a test's own value");
        self.header("content-type", "application/json").body(text)
    }

    /// A body of unknown length, fed through the sender; it ends when the sender is dropped.
    pub fn chunked(mut self) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, receiver) = mpsc::channel(4);
        self.body = StreamBody::new(frames(receiver)).boxed();
        (self, sender)
    }

    /// HTTP/2 without TLS, by prior knowledge.
    pub fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    /// Gives up after this long instead of the usual bound.
    pub fn within(mut self, bound: Duration) -> Self {
        self.within = bound;
        self
    }

    /// The whole answer; a test that gets none fails.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// The whole answer, or why there is none.
    pub async fn try_send(self) -> Result<Answer, Error> {
        let within = self.within;
        tokio::time::timeout(within, async {
            let response = self.open().await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, body })
        })
        .await
        .map_err(|_| format!("no whole answer within {within:?}"))?
    }

    /// The answer as its head arrives, the body still to be read.
    pub async fn open(self) -> Result<Response<Incoming>, Error> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        let h2 = self.h2;
        let request = self.request()?;
        let response = if h2 {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        };
        Ok(response)
    }

    fn request(self) -> Result<Request<OutBody>, Error> {
        let uri = if self.h2 { format!("http://{}{}", self.to, self.path) } else { self.path };
        let mut request = Request::builder().method(self.method).uri(uri);
        if !self.h2 && !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", self.to.to_string());
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(self.body)?)
    }
}

/// One kept connection, for those who send many requests one after another.
pub struct Session {
    to: SocketAddr,
    sender: Option<SendRequest<OutBody>>,
}

impl Session {
    pub fn new(to: SocketAddr) -> Self {
        Self { to, sender: None }
    }

    /// The whole answer, or why there is none; the next request then opens another connection.
    pub async fn send(&mut self, request: Outgoing) -> Result<Answer, Error> {
        let within = request.within;
        let outcome = tokio::time::timeout(within, self.exchange(request)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no whole answer within {within:?}").into()));
        if outcome.is_err() {
            self.sender = None;
        }
        outcome
    }

    async fn exchange(&mut self, request: Outgoing) -> Result<Answer, Error> {
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.to).await?;
                stream.set_nodelay(true)?;
                let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await?;
        let (head, body) = sender.send_request(request.request()?).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, body })
    }
}

/// The chunks of a receiver as the frames of a body.
pub fn frames(receiver: mpsc::Receiver<Bytes>) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Error>> {
    futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|chunk| (Ok(chunk), receiver))
    })
    .map_ok(Frame::data)
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("status {}, body is not JSON ({error}): {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// This status, whatever the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert!(self.status == status, "status {} instead of {status}: {}", self.status, self.text());
        self
    }

    /// 204 and nothing in it.
    #[track_caller]
    pub fn expect_empty(self) -> Self {
        let answer = self.expect(204);
        assert!(answer.body.is_empty(), "204 with a body: {}", answer.text());
        answer
    }

    /// An error in the JSON form, with a message that contains `part`.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str, part: &str) -> Self {
        let answer = self.expect(status);
        let kind = answer.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "content-type {kind:?}");
        let error = answer.json();
        assert!(error["errorCode"] == code, "errorCode {} instead of {code}: {}", error["errorCode"], answer.text());
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(part), "message {message:?} does not contain {part:?}");
        answer
    }
}
