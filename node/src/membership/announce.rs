//! What a node says of itself, and how that is written as the keys and values that gossip carries.
//!
//! | key | value |
//! |---|---|
//! | `me` | JSON: name, zone, role, phase, addresses, cluster, recovery generation, app. One value, so that it changes as a whole |
//! | `own` | `partition=epoch` of each partition that the node owns, with spaces between |
//! | `t/<actor type>` | digest of the type's configuration, hexadecimal |
//!
//! A type has a key of its own, so that one more or less costs the network one key and never makes the others blink. A
//! node is known from the moment its `me` has come, and its types may follow it by a round.
//!
//! Keys of a later version are ignored, and so is every value that cannot be read: gossip is a hint, and a broken hint
//! is none. Everything is bounded on both sides. What exceeds a bound is left out where it is written, and said so; it
//! would otherwise never fit a datagram, and hold back all that comes after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_engine::view::{App, Role};
use callboard_types::{ClusterId, Epoch, NodeId, PartitionId};
use serde::{Deserialize, Serialize};

const ME: &str = "me";
const OWNED: &str = "own";
const TYPE: &str = "t/";

/// Hosted types of one node.
pub const MAX_TYPES: usize = 1_000;
/// Their names together, in bytes.
pub const MAX_TYPES_BYTES: usize = 64 << 10;
/// One of them; `callboard_machine::limits` accepts no longer one.
const MAX_TYPE: usize = 1_024;
/// One name, address or zone, in bytes. A longer one is cut, so that `me` fits a datagram however it must be escaped.
const MAX_TEXT: usize = 512;
/// Addresses of one node.
const MAX_ADDRESSES: usize = 8;
/// As many as a cluster may have.
pub const MAX_PARTITIONS: usize = 128;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub name: Arc<str>,
    pub zone: Arc<str>,
    pub role: Role,
    pub phase: Phase,
    pub namespace: Arc<str>,
    /// `None` while it belongs to none.
    pub cluster: Option<ClusterId>,
    /// The highest recovery generation it knows.
    pub recovery: u64,
    /// `host:port` where other nodes reach it, best one first.
    pub peer: Vec<Arc<str>>,
    /// Its app, if it is the sidecar of one.
    pub app: Option<App>,
    /// Actor types its app hosts, with the digest of each one's configuration. Others count them while the app is
    /// healthy, so that a moment of bad health costs one small value and not all of these.
    pub types: BTreeMap<Arc<str>, u64>,
    /// Partitions it owns, and since which epoch: where to ask first.
    pub owned: BTreeMap<PartitionId, Epoch>,
}

impl Default for Announcement {
    fn default() -> Self {
        Self {
            name: "".into(),
            zone: "".into(),
            role: Role::Gateway,
            phase: Phase::default(),
            namespace: "".into(),
            cluster: None,
            recovery: 0,
            peer: Vec::new(),
            app: None,
            types: BTreeMap::new(),
            owned: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Starting,
    Serving,
    /// Finishes what it has and takes nothing more.
    Draining,
    /// Ends within a moment: it is live no more, whatever its heartbeat says.
    Leaving,
    /// Of a later version: reachable, and nothing more is known.
    #[serde(other)]
    Other,
}

/// Keys and values as gossip carries them.
pub type Keys = BTreeMap<String, String>;

/// [`Keys`] of an announcement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    pub keys: Keys,
    /// Types and partitions beyond a bound: nobody hears of them.
    pub left_out: usize,
}

#[derive(Serialize, Deserialize)]
struct Me {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    zone: String,
    role: RoleText,
    phase: Phase,
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(default)]
    recovery: u64,
    peer: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app: Option<AppText>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleText {
    Storage,
    /// Holds no partition; also what a role of a later version is taken for.
    #[serde(other)]
    Gateway,
}

#[derive(Serialize, Deserialize)]
struct AppText {
    id: String,
    healthy: bool,
}

impl Announcement {
    pub fn encode(&self) -> Encoded {
        let role = match self.role {
            Role::Storage => RoleText::Storage,
            Role::Gateway => RoleText::Gateway,
        };
        let me = Me {
            name: short(&self.name),
            zone: short(&self.zone),
            role,
            phase: self.phase,
            namespace: short(&self.namespace),
            cluster: self.cluster.map(|id| id.to_string()),
            recovery: self.recovery,
            peer: self.peer.iter().take(MAX_ADDRESSES).map(|address| short(address)).collect(),
            app: self.app.as_ref().map(|app| AppText { id: short(&app.id), healthy: app.healthy }),
        };
        let mut keys = Keys::new();
        keys.insert(ME.to_owned(), serde_json::to_string(&me).unwrap_or_default());
        let owned: Vec<_> = self
            .owned
            .iter()
            .take(MAX_PARTITIONS)
            .map(|(partition, epoch)| format!("{}={}", partition.0, epoch.0))
            .collect();
        let mut left_out = self.owned.len() - owned.len();
        if !owned.is_empty() {
            keys.insert(OWNED.to_owned(), owned.join(" "));
        }
        let (mut types, mut bytes) = (0, 0);
        for (name, digest) in &self.types {
            if name.len() > MAX_TYPE || types == MAX_TYPES || bytes + name.len() > MAX_TYPES_BYTES {
                left_out += 1;
                continue;
            }
            types += 1;
            bytes += name.len();
            keys.insert(format!("{TYPE}{name}"), format!("{digest:x}"));
        }
        Encoded { keys, left_out }
    }

    /// `None`: what a node is has not come yet, or is not readable.
    pub fn decode<'a>(keys: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let (mut me, mut owned, mut types) = (None, BTreeMap::new(), BTreeMap::new());
        for (key, value) in keys {
            if let Some(name) = key.strip_prefix(TYPE) {
                if types.len() < MAX_TYPES
                    && let Ok(digest) = u64::from_str_radix(value, 16)
                {
                    types.insert(name.into(), digest);
                }
            } else if key == ME {
                me = serde_json::from_str::<Me>(value).ok();
            } else if key == OWNED {
                owned = value.split(' ').take(MAX_PARTITIONS).filter_map(partition).collect();
            }
        }
        let me = me?;
        let cluster = match me.cluster {
            Some(text) => Some(ClusterId(u128::from_str_radix(&text, 16).ok()?)),
            None => None,
        };
        let role = match me.role {
            RoleText::Storage => Role::Storage,
            RoleText::Gateway => Role::Gateway,
        };
        Some(Self {
            name: me.name.into(),
            zone: me.zone.into(),
            role,
            phase: me.phase,
            namespace: me.namespace.into(),
            cluster,
            recovery: me.recovery,
            peer: me.peer.into_iter().take(MAX_ADDRESSES).map(Arc::from).collect(),
            app: me.app.map(|app| App { id: app.id.into(), healthy: app.healthy }),
            types,
            owned,
        })
    }
}

/// A node's name in gossip.
pub fn node_text(node: NodeId) -> String {
    node.to_string()
}

/// The node of a name in gossip.
pub fn node_of(text: &str) -> Option<NodeId> {
    let id = NodeId(u64::from_str_radix(text, 16).ok()?);
    (node_text(id) == text).then_some(id)
}

fn partition(text: &str) -> Option<(PartitionId, Epoch)> {
    let (partition, epoch) = text.split_once('=')?;
    Some((PartitionId(partition.parse().ok()?), Epoch(epoch.parse().ok()?)))
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod announce_test;
