//! Byte streams to apps and external endpoints: TCP, or TLS over it, with a count of the bytes that went each way.
//!
//! The counts are how the callers know what may have happened: a request of which no byte was written did not happen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where connections go.
#[derive(Clone)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub tls: Option<Tls>,
    /// Bounds the connect and, on its own, the TLS handshake.
    pub timeout: Duration,
}

#[derive(Clone)]
pub struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// Why no connection came about. No byte of any request was written.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dial tcp {0}: connect: connection refused")]
    Refused(String),
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(String),
    #[error("dial tcp {0}: {1}")]
    Io(String, io::Error),
    #[error("tls: {0}")]
    Tls(String),
}

impl Address {
    /// `host:port`, an IPv6 host in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub async fn dial(&self) -> Result<(Stream, Arc<Meter>), DialError> {
        let tcp = self.connect().await?;
        let Some(tls) = &self.tls else { return Ok(Stream::plain(tcp)) };
        let handshake = TlsConnector::from(tls.config.clone()).connect(tls.name.clone(), tcp);
        match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(stream)) => Ok(Stream::metered(Io::Tls(Box::new(stream)))),
            Ok(Err(error)) => Err(DialError::Tls(tls_text(&error))),
            Err(_) => Err(DialError::Tls("handshake timeout".to_owned())),
        }
    }

    /// A plain TCP connection, for requests or just to see whether anybody listens.
    pub async fn connect(&self) -> Result<TcpStream, DialError> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connected = tokio::time::timeout(self.timeout, TcpStream::connect((host, self.port))).await;
        match connected {
            Ok(Ok(tcp)) => {
                // Fails on a dead socket only, which the first write reports.
                let _ = tcp.set_nodelay(true);
                Ok(tcp)
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(DialError::Refused(self.authority()))
            }
            Ok(Err(error)) => Err(DialError::Io(self.authority(), error)),
            Err(_) => Err(DialError::Timeout(self.authority())),
        }
    }
}

/// The words of a failed handshake; a certificate nobody trusts is named as callers of Dapr look for it.
pub fn tls_text(error: &io::Error) -> String {
    use tokio_rustls::rustls::Error as Rustls;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Rustls>());
    match inner {
        Some(error @ Rustls::InvalidCertificate(_)) => format!("failed to verify certificate: {error}"),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

/// What passed through one connection.
#[derive(Debug, Default)]
pub struct Meter {
    written: AtomicU64,
}

impl Meter {
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

pub struct Stream {
    io: Io,
    meter: Arc<Meter>,
}

enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Io::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        };
        self.count(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Io::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        };
        self.count(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(tcp) => tcp.is_write_vectored(),
            Io::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

impl Stream {
    pub(super) fn plain(tcp: TcpStream) -> (Self, Arc<Meter>) {
        Self::metered(Io::Tcp(tcp))
    }

    fn metered(io: Io) -> (Self, Arc<Meter>) {
        let meter = Arc::new(Meter::default());
        (Self { io, meter: meter.clone() }, meter)
    }

    fn count(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &wrote {
            self.meter.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        wrote
    }
}
