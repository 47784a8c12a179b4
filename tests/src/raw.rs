//! Bytes on a socket, for requests that no client would send and answers that no server would give.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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

    /// Everything until the peer closes, at most `within`.
    pub async fn read_to_end(&mut self, within: Duration) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset after the answer is an end like any other.
        let _ = tokio::time::timeout(within, self.0.read_to_end(&mut bytes)).await;
        bytes
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
    accepting: JoinHandle<()>,
}

impl RawApp {
    /// `answer` gets the request line's path and gives the bytes of the whole answer.
    pub async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind a raw app");
        let address = listener.local_addr().expect("know the own address");
        let answer = Arc::new(answer);
        let accepting = crate::background().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    // A client that leaves early has no effect on others.
                    let _ = serve(stream, &*answer).await;
                });
            }
        });
        Self { address, accepting }
    }
}

impl Drop for RawApp {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: &(dyn Fn(&str) -> Vec<u8> + Send + Sync)) -> io::Result<()> {
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
    // Read what is left, so that closing does not become a reset that discards the answer.
    while stream.read(&mut chunk).await? > 0 {}
    Ok(())
}
