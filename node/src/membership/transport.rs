//! Carries the gossip library's messages in our datagrams, over sockets that the node has bound.
//!
//! The library sees a transport that never breaks: what cannot be sent is counted and lost, as datagrams are, and what
//! comes in and is not gossip of this cluster is counted and dropped. A node of another cluster that asks is told so,
//! once per question, in the library's own words, and both sides log it at most once a minute.
//!
//! There is one socket per address family at most; an answer leaves through the socket of its family.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use callboard_engine::Instant;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::scan;
use super::wire::{ClusterKey, Cutter, Joiner, Refused};
use crate::clock;

/// What UDP can carry.
const LONGEST_DATAGRAM: usize = 65_535;
/// Asked of the kernel, which may give less: room for the answers of many nodes at once.
const RECEIVE_BUFFER: usize = 1 << 20;
/// After an error of the socket itself.
const PAUSE: Duration = Duration::from_millis(20);
/// The same complaint is not logged more often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What has come, gone and been dropped since the start. Rises only.
#[derive(Debug, Default)]
pub struct Counters {
    pub datagrams_sent: AtomicU64,
    pub datagrams_received: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub bytes_received: AtomicU64,
    pub messages_received: AtomicU64,
    /// The network refused a datagram of ours.
    pub send_failed: AtomicU64,
    /// Missing or wrong tag.
    pub forged: AtomicU64,
    /// No gossip, or beyond a limit.
    pub malformed: AtomicU64,
    /// Gossip of another cluster.
    pub other_cluster: AtomicU64,
    /// Times the gossip library ended by itself and was started again.
    pub restarts: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }
}

/// The node's bound sockets, as the gossip library opens them. It may open them again after it has let go of them.
#[derive(Debug)]
pub struct Udp {
    sockets: Arc<Vec<UdpSocket>>,
    cluster: String,
    key: Option<ClusterKey>,
    counters: Arc<Counters>,
}

impl Udp {
    /// # Errors
    ///
    /// There is no socket, or the runtime does not take one.
    pub fn new(
        sockets: Vec<std::net::UdpSocket>,
        cluster: String,
        key: Option<ClusterKey>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        if sockets.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "gossip needs a socket"));
        }
        let adopt = |socket: std::net::UdpSocket| {
            socket.set_nonblocking(true)?;
            // Less is as good on a quiet network.
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
            UdpSocket::from_std(socket)
        };
        let sockets: Vec<_> = sockets.into_iter().map(adopt).collect::<io::Result<_>>()?;
        Ok(Self { sockets: Arc::new(sockets), cluster, key, counters })
    }
}

#[async_trait]
impl Transport for Udp {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(Open {
            sockets: self.sockets.clone(),
            first: 0,
            buffer: vec![0; LONGEST_DATAGRAM],
            encoded: Vec::new(),
            cutter: Cutter::new(self.key.clone(), rand::random()),
            joiner: Joiner::new(self.key.clone()),
            cluster: self.cluster.clone(),
            counters: self.counters.clone(),
            complained: None,
        }))
    }
}

struct Open {
    sockets: Arc<Vec<UdpSocket>>,
    /// Where the next look for a datagram begins, so that a busy socket does not starve the other.
    first: usize,
    buffer: Vec<u8>,
    encoded: Vec<u8>,
    cutter: Cutter,
    joiner: Joiner,
    cluster: String,
    counters: Arc<Counters>,
    /// When another cluster was last complained about.
    complained: Option<Instant>,
}

#[async_trait]
impl Socket for Open {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.encoded.clear();
        message.serialize(&mut self.encoded);
        let Some(datagrams) = self.cutter.cut(&self.encoded) else {
            Counters::add(&self.counters.send_failed, 1);
            return Ok(());
        };
        let Some(socket) = socket_for(&self.sockets, to) else { return Ok(()) };
        for datagram in datagrams {
            match socket.send_to(&datagram, to).await {
                Ok(sent) => {
                    Counters::add(&self.counters.datagrams_sent, 1);
                    Counters::add(&self.counters.bytes_sent, sent);
                }
                Err(error) => {
                    Counters::add(&self.counters.send_failed, 1);
                    tracing::trace!(%to, %error, "gossip could not be sent");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    // The library drops this future whenever something else happens: nothing is held across the wait.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            match std::future::poll_fn(|cx| self.poll_datagram(cx)).await {
                Ok((length, from)) => {
                    let Some(message) = self.decode(length, from) else { continue };
                    if let Some(message) = self.of_this_cluster(from, message).await {
                        return Ok((from, message));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the gossip socket reports an error");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Open {
    fn poll_datagram(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(usize, SocketAddr)>> {
        let count = self.sockets.len();
        for step in 0..count {
            let at = (self.first + step) % count;
            let Some(socket) = self.sockets.get(at) else { continue };
            let mut buffer = ReadBuf::new(&mut self.buffer);
            if let Poll::Ready(received) = socket.poll_recv_from(cx, &mut buffer) {
                self.first = at + 1;
                let length = buffer.filled().len();
                return Poll::Ready(received.map(|from| (length, from)));
            }
        }
        Poll::Pending
    }

    fn decode(&mut self, length: usize, from: SocketAddr) -> Option<ChitchatMessage> {
        Counters::add(&self.counters.datagrams_received, 1);
        Counters::add(&self.counters.bytes_received, length);
        let message = match self.joiner.take(from, self.buffer.get(..length)?) {
            Ok(message) => message?,
            Err(Refused::Forged) => {
                Counters::add(&self.counters.forged, 1);
                return None;
            }
            Err(Refused::Malformed) => {
                Counters::add(&self.counters.malformed, 1);
                return None;
            }
        };
        let decoded =
            if scan::acceptable(&message) { ChitchatMessage::deserialize(&mut message.as_slice()).ok() } else { None };
        if decoded.is_none() {
            Counters::add(&self.counters.malformed, 1);
        }
        decoded
    }

    async fn of_this_cluster(&mut self, from: SocketAddr, message: ChitchatMessage) -> Option<ChitchatMessage> {
        match &message {
            ChitchatMessage::Syn { cluster_id, .. } if *cluster_id != self.cluster => {
                self.stranger(from);
                // Sending never fails here.
                let _ = self.send(from, ChitchatMessage::BadCluster).await;
                return None;
            }
            ChitchatMessage::BadCluster => {
                self.stranger(from);
                return None;
            }
            ChitchatMessage::Syn { .. } | ChitchatMessage::SynAck { .. } | ChitchatMessage::Ack { .. } => {}
        }
        Counters::add(&self.counters.messages_received, 1);
        Some(message)
    }

    fn stranger(&mut self, from: SocketAddr) {
        Counters::add(&self.counters.other_cluster, 1);
        let now = clock::monotonic();
        if self.complained.is_none_or(|last| now.saturating_since(last) >= COMPLAIN_EVERY) {
            self.complained = Some(now);
            tracing::warn!(%from, cluster = self.cluster, "a node of another cluster gossips with this one");
        }
    }
}

/// The socket that reaches `to`.
fn socket_for(sockets: &[UdpSocket], to: SocketAddr) -> Option<&UdpSocket> {
    let same = |socket: &&UdpSocket| socket.local_addr().is_ok_and(|own| own.is_ipv4() == to.is_ipv4());
    sockets.iter().find(same).or(sockets.first())
}
