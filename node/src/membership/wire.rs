//! What one datagram of gossip looks like, and how a message that is longer than one travels in several.
//!
//! ```text
//! datagram = 0xCB · form · message u32 · part u8 · parts u8 · payload · tag
//! ```
//!
//! `form` says whether a tag follows. With a cluster key every datagram ends in the HMAC-SHA256 of all before it, and
//! one whose tag does not verify is as if it had not come; without a key there is no tag, and tagged datagrams are
//! refused. So nodes with and without the key, or with different ones, never hear each other. The tag proves who wrote
//! a datagram, not when: an old one sent again is harmless, because heartbeats and versions in it only ever rise.
//! Nothing is encrypted.
//!
//! Parts keep below the packet size of ordinary networks, so no network has to carry fragments, and leave room for the
//! tag where the gossip library fills the whole of what UDP can carry. A message arrives when all its parts do; what
//! is lost is said again in the next round. Half-arrived messages are kept up to a number and a size, oldest out first.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use ring::hmac;

/// First byte: what is no gossip at all is told apart from gossip that does not verify.
const MAGIC: u8 = 0xCB;
const PLAIN: u8 = 1;
const SEALED: u8 = 2;
const HEAD: usize = 8;
const TAG: usize = 32;

/// Longest datagram that is sent: fits an Ethernet frame with IPv6 inside a tunnel.
pub const DATAGRAM: usize = 1_300;
/// Longest message: what the gossip library takes for the size of a datagram.
pub const MAX_MESSAGE: usize = 65_507;
/// Parts of the longest message.
const MAX_PARTS: usize = MAX_MESSAGE.div_ceil(DATAGRAM - HEAD - TAG);
/// Messages of which some parts have come.
const MAX_PENDING: usize = 64;
/// Their payloads together.
const MAX_PENDING_BYTES: usize = 2 << 20;

/// What the nodes of one cluster have in common and nobody else knows.
#[derive(Clone)]
pub struct ClusterKey(hmac::Key);

impl ClusterKey {
    pub fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not of this format: something else talks to the port.
    Malformed,
    /// No tag where one is needed, one where none is, or a wrong one: a stranger.
    Forged,
}

/// Cuts messages into datagrams.
#[derive(Debug)]
pub struct Cutter {
    key: Option<ClusterKey>,
    next: u32,
}

impl Cutter {
    /// `first` is random: a restarted node does not go on where its older self was in the middle of a message.
    pub fn new(key: Option<ClusterKey>, first: u32) -> Self {
        Self { key, next: first }
    }

    /// The datagrams of `message`; `None` when it is longer than any message can be.
    pub fn cut(&mut self, message: &[u8]) -> Option<Vec<Vec<u8>>> {
        if message.is_empty() || message.len() > MAX_MESSAGE {
            return None;
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        let form = if self.key.is_some() { SEALED } else { PLAIN };
        let chunks = message.chunks(DATAGRAM - HEAD - TAG);
        let parts = u8::try_from(chunks.len()).ok()?;
        let datagrams = chunks.zip(0u8..).map(|(payload, part)| {
            let mut datagram = Vec::with_capacity(HEAD + payload.len() + TAG);
            datagram.extend_from_slice(&[MAGIC, form]);
            datagram.extend_from_slice(&number.to_le_bytes());
            datagram.extend_from_slice(&[part, parts]);
            datagram.extend_from_slice(payload);
            if let Some(ClusterKey(key)) = &self.key {
                let tag = hmac::sign(key, &datagram);
                datagram.extend_from_slice(tag.as_ref());
            }
            datagram
        });
        Some(datagrams.collect())
    }
}

/// Puts messages together from datagrams.
#[derive(Debug)]
pub struct Joiner {
    key: Option<ClusterKey>,
    pending: BTreeMap<(SocketAddr, u32), Pending>,
    /// Oldest first; exactly the keys of `pending`.
    order: VecDeque<(SocketAddr, u32)>,
    /// Payload bytes in `pending`.
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
    bytes: usize,
}

impl Joiner {
    pub fn new(key: Option<ClusterKey>) -> Self {
        Self { key, pending: BTreeMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// Takes one datagram; the answer is the message it completes, if it does.
    ///
    /// # Errors
    ///
    /// The datagram is dropped; see [`Refused`].
    pub fn take(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let content = self.verified(datagram)?;
        let Some((head, payload)) = content.split_first_chunk::<HEAD>() else { return Err(Refused::Malformed) };
        let [_, _, n0, n1, n2, n3, part, parts] = *head;
        let (part, parts) = (usize::from(part), usize::from(parts));
        if part >= parts || parts > MAX_PARTS || payload.is_empty() || payload.len() > DATAGRAM {
            return Err(Refused::Malformed);
        }
        if parts == 1 {
            return Ok(Some(payload.to_vec()));
        }
        Ok(self.join((from, u32::from_le_bytes([n0, n1, n2, n3])), part, parts, payload))
    }

    /// The datagram without its tag.
    fn verified<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Refused> {
        match (datagram, &self.key) {
            ([MAGIC, PLAIN, ..], None) => Ok(datagram),
            ([MAGIC, SEALED, ..], Some(ClusterKey(key))) => {
                let (content, tag) = datagram.split_last_chunk::<TAG>().ok_or(Refused::Malformed)?;
                hmac::verify(key, content, tag).map_err(|_| Refused::Forged)?;
                Ok(content)
            }
            ([MAGIC, PLAIN, ..], Some(_)) | ([MAGIC, SEALED, ..], None) => Err(Refused::Forged),
            (_, _) => Err(Refused::Malformed),
        }
    }

    fn join(&mut self, id: (SocketAddr, u32), part: usize, parts: usize, payload: &[u8]) -> Option<Vec<u8>> {
        if self.pending.get(&id).is_some_and(|pending| pending.parts.len() != parts) {
            // The number is in use again: what is left of the older message will not come.
            self.forget(id);
        }
        let pending = self.pending.entry(id).or_insert_with(|| {
            self.order.push_back(id);
            Pending { parts: vec![None; parts], missing: parts, bytes: 0 }
        });
        let place = pending.parts.get_mut(part)?;
        if place.is_some() {
            return None;
        }
        *place = Some(payload.to_vec());
        pending.missing -= 1;
        pending.bytes += payload.len();
        self.bytes += payload.len();
        if pending.missing > 0 {
            self.shrink();
            return None;
        }
        self.forget(id).map(|whole| whole.parts.into_iter().flatten().flatten().collect())
    }

    fn forget(&mut self, id: (SocketAddr, u32)) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.order.retain(|other| *other != id);
        self.bytes -= pending.bytes;
        Some(pending)
    }

    fn shrink(&mut self) {
        while self.pending.len() > MAX_PENDING || self.bytes > MAX_PENDING_BYTES {
            let Some(oldest) = self.order.front().copied() else { return };
            self.forget(oldest);
        }
    }
}

#[cfg(test)]
mod wire_test;
