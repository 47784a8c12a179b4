//! HTTP/1.1 written by hand, for measuring only.
//!
//! The load generator shares its cores with what it measures, so it must cost as little as possible: requests are bytes
//! made once, and of an answer only the status and the end of the body are found. That is correct for every well-formed
//! answer (content length, chunked, no body, or until the connection closes) and far cheaper than a general client.
//! Deliberately absent: TLS, HTTP/2, redirects, pipelining.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time a single question may take.
const ASK: Duration = Duration::from_secs(5);
/// Bytes of a header block that are read.
const MAX_HEAD: usize = 64 << 10;
/// Bytes of a body that are kept.
const MAX_BODY: usize = 64 << 20;

/// One keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What was read and not used yet.
    buffer: Vec<u8>,
    /// The last answer asked to close, or had no length.
    spent: bool,
}

/// How the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Length,
    close: bool,
    /// Bytes of the header block.
    size: usize,
}

impl Connection {
    pub async fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4 << 10), spent: false })
    }

    /// Whether another exchange is possible.
    pub fn is_usable(&self) -> bool {
        !self.spent
    }

    /// Sends `request` and reads the answer to its end: its status.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.talk(request, None).await
    }

    /// Like [`exchange`](Self::exchange), and keeps the body.
    pub async fn fetch(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let mut body = Vec::new();
        let status = self.talk(request, Some(&mut body)).await?;
        Ok((status, body))
    }

    async fn talk(&mut self, request: &[u8], body: Option<&mut Vec<u8>>) -> io::Result<u16> {
        // An exchange that is given up halfway leaves an answer behind that belongs to no later request.
        self.spent = true;
        self.stream.write_all(request).await?;
        let head = self.head().await?;
        self.buffer.drain(..head.size);
        match head.length {
            Length::Known(length) => self.known(length, body).await?,
            Length::Chunked => self.chunked(body).await?,
            Length::UntilClose => self.until_close(body).await?,
        }
        self.spent = head.close || head.length == Length::UntilClose;
        Ok(head.status)
    }

    /// The head of the next final answer; informational ones are skipped.
    async fn head(&mut self) -> io::Result<Head> {
        let mut searched = 0;
        loop {
            if let Some(size) = find_end(&self.buffer, searched) {
                let head = parse(&self.buffer[..size]).ok_or_else(|| malformed("not an HTTP answer"))?;
                if head.status >= 200 {
                    return Ok(head);
                }
                self.buffer.drain(..size);
                searched = 0;
                continue;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(malformed("the header block is too large"));
            }
            searched = self.buffer.len().saturating_sub(3);
            self.fill().await?;
        }
    }

    async fn known(&mut self, length: usize, body: Option<&mut Vec<u8>>) -> io::Result<()> {
        let Some(body) = body else { return self.skip(length).await };
        self.take(length, body).await
    }

    async fn skip(&mut self, mut length: usize) -> io::Result<()> {
        loop {
            let have = length.min(self.buffer.len());
            self.buffer.drain(..have);
            length -= have;
            if length == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, mut length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        if body.len().saturating_add(length) > MAX_BODY {
            return Err(malformed("the body is too large"));
        }
        loop {
            let have = length.min(self.buffer.len());
            body.extend(self.buffer.drain(..have));
            length -= have;
            if length == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    async fn chunked(&mut self, mut body: Option<&mut Vec<u8>>) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| malformed("not a chunk size"))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(());
            }
            self.known(size, body.as_deref_mut()).await?;
            self.skip(2).await?;
        }
    }

    async fn until_close(&mut self, body: Option<&mut Vec<u8>>) -> io::Result<()> {
        let mut rest = std::mem::take(&mut self.buffer);
        let Some(body) = body else {
            while self.stream.read_buf(&mut rest).await? > 0 {
                rest.clear();
            }
            return Ok(());
        };
        body.append(&mut rest);
        while self.stream.read_buf(body).await? > 0 {
            if body.len() > MAX_BODY {
                return Err(malformed("the body is too large"));
            }
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| malformed("a line is not text"));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(malformed("a line is too long"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(()),
        }
    }
}

/// One request on a connection of its own, within [`ASK`].
pub async fn ask(to: SocketAddr, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let answer = async { Connection::open(to).await?.fetch(request).await };
    tokio::time::timeout(ASK, answer).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

/// One request, made once.
pub fn request(method: &str, path: &str, authority: &str, headers: &[(&str, &str)], body: &[u8]) -> Bytes {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || !matches!(method, "GET" | "HEAD" | "DELETE") {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes.into()
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Where the header block ends, looked for from `from`.
fn find_end(buffer: &[u8], from: usize) -> Option<usize> {
    buffer.get(from..)?.windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4)
}

fn parse(head: &[u8]) -> Option<Head> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let first = lines.next()?;
    let rest = first.strip_prefix(b"HTTP/1.")?;
    let status: u16 = std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()?;
    let mut found = Head { status, length: Length::UntilClose, close: rest.first() == Some(&b'0'), size: head.len() };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            if found.length != Length::Chunked {
                found.length = Length::Known(std::str::from_utf8(value).ok()?.parse().ok()?);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if value.eq_ignore_ascii_case(b"chunked") {
                found.length = Length::Chunked;
            }
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            found.close = true;
        }
    }
    if status < 200 || status == 204 || status == 304 {
        found.length = Length::Known(0);
    }
    Some(found)
}

/// Fuzz body: any bytes as an answer. A head is as long as it says.
pub fn fuzz_head(data: &[u8]) {
    let Some(size) = find_end(data, 0) else { return };
    assert!(data[..size].ends_with(b"\r\n\r\n"));
    if let Some(head) = parse(&data[..size]) {
        assert!(head.size == size && (head.status >= 200 || head.length == Length::Known(0)));
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Talks to a server that answers `answer`, in two pieces split at every place.
    async fn answered(answer: &'static [u8]) -> Vec<io::Result<(u16, Vec<u8>)>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut results = Vec::new();
        for split in 0..answer.len() {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut request = [0; 512];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(&answer[..split]).await.unwrap();
                tokio::task::yield_now().await;
                stream.write_all(&answer[split..]).await.unwrap();
            };
            let ask = async {
                let mut connection = Connection::open(address).await?;
                connection.fetch(&request("GET", "/", "x", &[], b"")).await
            };
            results.push(tokio::join!(serve, ask).1);
        }
        results
    }

    #[tokio::test]
    async fn an_answer_is_understood_however_it_arrives() {
        let answers: [(&[u8], u16, &[u8]); 6] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nt: v\r\n\r\n",
                200,
                b"hello",
            ),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oops\r\ncontent-length:0\r\n\r\n", 500, b""),
            (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
            (b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 1\r\n\r\n!", 404, b"!"),
        ];
        for (answer, status, body) in answers {
            for result in answered(answer).await {
                assert_eq!(result.unwrap(), (status, body.to_vec()), "{}", String::from_utf8_lossy(answer));
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error_and_never_a_hang() {
        for answer in [&b"SSH-2.0-x\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", b"HTTP/1.1 20"] {
            for result in answered(answer).await {
                assert!(result.is_err(), "{}", String::from_utf8_lossy(answer));
            }
        }
    }

    #[test]
    fn a_connection_that_will_close_is_not_used_again() {
        let close = |head: &[u8]| parse(head).unwrap().close;
        assert!(close(b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n"));
        assert!(close(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!close(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    }

    #[test]
    fn a_request_has_a_length_where_a_server_expects_one() {
        let text = |method| String::from_utf8(request(method, "/p", "h:1", &[("a", "b")], b"").to_vec()).unwrap();
        assert_eq!(text("GET"), "GET /p HTTP/1.1\r\nhost: h:1\r\na: b\r\n\r\n");
        assert!(text("POST").contains("content-length: 0\r\n"));
    }
}
