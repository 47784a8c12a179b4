//! The limits and times of the links, each with its default.

use std::time::Duration;

use callboard_proto::peer as wire;

/// Which stream a call takes. Each has a connection of its own: what waits on one delays nothing on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent: the messages of the groups.
    Raft,
    /// Calls of actors and what belongs to them.
    Calls,
    /// Snapshots and other bodies that may take their time.
    Bulk,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::Raft, Lane::Calls, Lane::Bulk];

    pub const fn name(self) -> &'static str {
        match self {
            Lane::Raft => "raft",
            Lane::Calls => "calls",
            Lane::Bulk => "bulk",
        }
    }

    pub(super) const fn to_wire(self) -> wire::Lane {
        match self {
            Lane::Raft => wire::Lane::Raft,
            Lane::Calls => wire::Lane::Calls,
            Lane::Bulk => wire::Lane::Bulk,
        }
    }

    pub(super) const fn from_wire(lane: wire::Lane) -> Option<Self> {
        match lane {
            wire::Lane::Raft => Some(Lane::Raft),
            wire::Lane::Calls => Some(Lane::Calls),
            wire::Lane::Bulk => Some(Lane::Bulk),
            wire::Lane::Unspecified => None,
        }
    }
}

/// Bounds of one link of a lane, at either end.
#[derive(Debug, Clone)]
pub struct LaneLimits {
    /// Calls that wait to be sent.
    pub queued_calls: usize,
    /// Bytes of bodies that wait to be sent. A single body is taken by an empty queue whatever its size.
    pub queued_bytes: usize,
    /// Calls without an answer, those that wait to be sent among them.
    pub pending_calls: usize,
    /// The body of a request, and that of an answer.
    pub max_body: usize,
    /// Bodies whose parts are being gathered, together, by their announced lengths. No less than `max_body`.
    pub gathered_bytes: usize,
    /// Calls of one link that handlers work on, or whose answers wait to be sent. One more is refused at once.
    pub handlers: usize,
    /// A link that is silent for `keep_alive` is asked for a sign of life and given this long.
    pub keep_alive_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct PeerConfig {
    pub raft: LaneLimits,
    pub calls: LaneLimits,
    pub bulk: LaneLimits,
    /// How long a link may be silent before it is asked for a sign of life.
    pub keep_alive: Duration,
    /// To open a connection to one address.
    pub connect_timeout: Duration,
    /// From the connection to the peer's hello. Also how long a connection may stay without a link.
    pub hello_timeout: Duration,
    /// How long a call waits for a link that is down.
    pub connect_wait: Duration,
    /// Pauses between attempts to connect.
    pub backoff_shortest: Duration,
    pub backoff_longest: Duration,
    /// A link that lasted this long has held.
    pub held_after: Duration,
    /// How long a lost link is dialled again after the loss or the last call for it.
    pub redial_for: Duration,
    /// How often the peer's clock is asked for, on Raft lanes.
    pub clock_every: Duration,
    /// Links that are accepted, of all peers together.
    pub accepted_links: usize,
    /// Connections that are accepted, of all peers together.
    pub accepted_connections: usize,
}

impl PeerConfig {
    pub const fn lane(&self, lane: Lane) -> &LaneLimits {
        match lane {
            Lane::Raft => &self.raft,
            Lane::Calls => &self.calls,
            Lane::Bulk => &self.bulk,
        }
    }
}

const MIB: usize = 1 << 20;

impl Default for PeerConfig {
    fn default() -> Self {
        let calls = LaneLimits {
            queued_calls: 16_384,
            queued_bytes: 64 * MIB,
            pending_calls: 32_768,
            max_body: 64 * MIB,
            gathered_bytes: 256 * MIB,
            handlers: 16_384,
            keep_alive_timeout: Duration::from_millis(500),
        };
        let raft = LaneLimits { pending_calls: 8_192, handlers: 4_096, ..calls.clone() };
        let bulk = LaneLimits {
            queued_calls: 256,
            queued_bytes: 32 * MIB,
            pending_calls: 256,
            max_body: 8 * MIB,
            gathered_bytes: 64 * MIB,
            handlers: 64,
            // What the kernel has taken of a large body stands before the sign of life.
            keep_alive_timeout: Duration::from_secs(2),
        };
        Self {
            raft,
            calls,
            bulk,
            keep_alive: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            hello_timeout: Duration::from_secs(2),
            connect_wait: Duration::from_secs(1),
            backoff_shortest: Duration::from_millis(50),
            backoff_longest: Duration::from_secs(1),
            held_after: Duration::from_secs(1),
            redial_for: Duration::from_secs(60),
            clock_every: Duration::from_secs(1),
            accepted_links: 4_096,
            accepted_connections: 4_096,
        }
    }
}
