//! A small HTTP client for the command line: one request, one connection, plain text.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Time a node has to accept the connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Bytes of an answer that is shown whole; larger ones are streamed by those who expect them.
const MAX_ANSWER: usize = 256 << 20;

/// An HTTP API that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`.
    pub authority: String,
}

impl Endpoint {
    /// Takes `http://host:port`, `host:port` or a bare port.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if bare.starts_with("https://") {
            bail!("{text}: TLS is not supported here; give an http:// address");
        }
        if let Ok(port) = bare.parse::<u16>() {
            return Ok(Self { authority: format!("127.0.0.1:{port}") });
        }
        let (host, port) = bare.rsplit_once(':').with_context(|| format!("{text}: write http://host:port"))?;
        if host.is_empty() || port.parse::<u16>().is_err() || bare.contains('/') {
            bail!("{text}: write http://host:port");
        }
        Ok(Self { authority: bare.to_owned() })
    }

    /// Sends one request; the answer's body is not read yet.
    pub async fn send(&self, request: Request) -> anyhow::Result<Sent> {
        let connect = tokio::time::timeout(CONNECT, TcpStream::connect(&self.authority)).await;
        let stream = connect
            .map_err(|_| anyhow::anyhow!("no answer"))
            .and_then(|stream| stream.map_err(Into::into))
            .with_context(|| format!("cannot reach http://{}; does a node run there?", self.authority))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        // How the connection ends is told by the request that used it.
        driver.spawn(async move { drop(connection.await) });
        let mut builder = http::Request::builder()
            .method(request.method.as_str())
            .uri(&request.path)
            .header(http::header::HOST, &self.authority)
            .header(http::header::USER_AGENT, concat!("callboard/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(Full::new(request.body)).context("not a valid HTTP request")?;
        let closed = || format!("http://{} closed the connection", self.authority);
        Ok(Sent { _driver: driver, response: sender.send_request(request).await.with_context(closed)? })
    }

    /// Sends one request and reads the answer.
    pub async fn ask(&self, request: Request) -> anyhow::Result<Answer> {
        let mut sent = self.send(request).await?;
        let status = sent.response.status();
        let body = http_body_util::Limited::new(sent.response.body_mut(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
        Ok(Answer { status, body })
    }
}

/// An answer whose body is still to be read, and the connection it comes over.
#[derive(Debug)]
pub struct Sent {
    pub response: http::Response<Incoming>,
    /// Ends the connection when dropped.
    _driver: JoinSet<()>,
}

#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET".into(), path: path.into(), ..Self::default() }
    }

    /// With `dapr-api-token`, when there is one.
    #[must_use]
    pub fn token(mut self, token: Option<&str>) -> Self {
        self.headers.extend(token.map(|token| ("dapr-api-token".to_owned(), token.to_owned())));
        self
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: http::StatusCode,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of a 2xx answer.
    pub fn ok(self) -> anyhow::Result<Bytes> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        bail!("the node answered {}: {}", self.status, self.text().trim());
    }
}
