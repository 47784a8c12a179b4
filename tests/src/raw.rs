//! Bytes on a socket, for requests that no client would send and answers that no server would give.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a connection ended that was sent something odd.
#[derive(Debug)]
pub enum Ending {
    /// The peer answered; the status of its first answer.
    Answered(u16, Vec<u8>),
    /// The peer closed (or reset) it without a word.
    Closed,
    /// Neither within the bound.
    Hangs,
}

/// A connection to write bytes to.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("connect");
        stream.set_nodelay(true).expect("set nodelay");
        Self(stream)
    }

    /// Writes what the peer will take; it may close in the middle.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Says that nothing more will be written.
    pub async fn finish_writing(&mut self) {
        // The peer may have closed already.
        let _ = self.0.shutdown().await;
    }

    /// Reads until the first answer's head is there, the connection ends, or `within` has passed.
    pub async fn ending(&mut self, within: Duration) -> Ending {
        let mut bytes = Vec::new();
        let read = async {
            let mut chunk = [0; 4096];
            loop {
                match self.0.read(&mut chunk).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                }
                if status(&bytes).is_some() && bytes.windows(4).any(|four| four == b"\r\n\r\n") {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(within, read).await.is_ok();
        match status(&bytes) {
            Some(status) => Ending::Answered(status, bytes),
            None if in_time => Ending::Closed,
            None => Ending::Hangs,
        }
    }

    /// Sends a request that asks for the connection to be closed, and reads the one answer there may be, strictly.
    pub async fn exchange(mut self, request: &[u8], within: Duration) -> Result<Whole, String> {
        self.write(request).await.map_err(|error| format!("write: {error}"))?;
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(within, self.0.read_to_end(&mut bytes)).await;
        let shown = || format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(400)]));
        match read {
            Err(_) => Err(format!("not closed within {within:?} after {}", shown())),
            Ok(Err(error)) => Err(format!("{error} after {}", shown())),
            Ok(Ok(_)) => {
                Whole::parse(&bytes, request.starts_with(b"HEAD ")).map_err(|why| format!("{why}: {}", shown()))
            }
        }
    }

    /// Everything until the peer closes, at most `within`.
    pub async fn read_to_end(&mut self, within: Duration) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset after the answer is an end like any other.
        let _ = tokio::time::timeout(within, self.0.read_to_end(&mut bytes)).await;
        bytes
    }
}

/// One answer and nothing behind it.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Whole {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// RFC 9112, with none of what a client forgives.
    fn parse(bytes: &[u8], to_head: bool) -> Result<Self, String> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no end of the head")?;
        let (head, rest) = (&bytes[..end], &bytes[end + 4..]);
        let head = std::str::from_utf8(head).map_err(|_| "a head that is no text")?;
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' '));
        let status = status.filter(|(code, reason)| code.len() == 3 && !reason.is_empty());
        let status = status.and_then(|(code, _)| code.parse().ok()).ok_or("a bad status line")?;
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) || value.contains(|letter: char| letter.is_control()) {
                return Err(format!("a bad header {line:?}"));
            }
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut whole = Self { status, headers, body: Vec::new() };
        whole.body = whole.framed(rest, to_head)?;
        Ok(whole)
    }

    fn framed(&self, rest: &[u8], to_head: bool) -> Result<Vec<u8>, String> {
        let count = |name: &str| self.headers.iter().filter(|(other, _)| other == name).count();
        if count("content-length") + count("transfer-encoding") > 1 {
            return Err("two framings".to_owned());
        }
        if to_head || self.status == 204 || self.status == 304 {
            return if rest.is_empty() { Ok(Vec::new()) } else { Err("a body where there is none".to_owned()) };
        }
        match (self.header("content-length"), self.header("transfer-encoding")) {
            (Some(length), _) if length.parse() == Ok(rest.len()) => Ok(rest.to_vec()),
            (Some(length), _) => Err(format!("a body of {} bytes, announced are {length}", rest.len())),
            (None, Some("chunked")) => unchunked(rest).ok_or_else(|| "bad chunks".to_owned()),
            (None, Some(other)) => Err(format!("transfer-encoding {other}")),
            (None, None) => Err("no framing".to_owned()),
        }
    }
}

/// The data of chunks without extensions and trailers, if they are all there and nothing else is.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        let data = rest.get(line + 2..)?;
        if data.get(size..size + 2)? != b"\r\n" {
            return None;
        }
        body.extend_from_slice(&data[..size]);
        rest = &data[size + 2..];
        if size == 0 {
            return rest.is_empty().then_some(body);
        }
    }
}

fn status(bytes: &[u8]) -> Option<u16> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()
}

/// An app that answers with given bytes and closes.
pub struct RawApp {
    pub address: SocketAddr,
    closed: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl RawApp {
    /// `answer` gets the request line's path and gives the bytes of the whole answer.
    pub async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind a raw app");
        let address = listener.local_addr().expect("know the own address");
        let answer = Arc::new(answer);
        let closed = Arc::new(AtomicUsize::new(0));
        let count = closed.clone();
        let accepting = crate::background().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, count) = (answer.clone(), count.clone());
                tokio::spawn(async move {
                    // A client that leaves early has no effect on others.
                    let _ = serve(stream, &*answer, &count).await;
                });
            }
        });
        Self { address, closed, accepting }
    }

    /// Connections that it has closed after its answer.
    pub fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }
}

impl Drop for RawApp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&str) -> Vec<u8> + Send + Sync),
    closed: &AtomicUsize,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&chunk[..count]);
    }
    let head = String::from_utf8_lossy(&bytes);
    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
    stream.write_all(&answer(&path)).await?;
    stream.shutdown().await?;
    closed.fetch_add(1, Ordering::SeqCst);
    // Read what is left, so that closing does not become a reset that discards the answer.
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}
