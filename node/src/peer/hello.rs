//! Who is it? The first word of either side of a link, and the one check that both sides make of it.
//!
//! A stranger is refused with a reason: another protocol version, another cluster by name or by id, a recovery
//! generation below the own one, a node other than the one that was looked for, or this node itself under another
//! address. A node that is in no cluster yet says so and passes for a member of any cluster of its name: what it may
//! ask for is decided by the handlers, which see it in [`PeerId`].
//!
//! A *higher* generation is no reason to refuse: the other side refuses us, and [`GenerationSeen`] tells the node.

use std::fmt;

use callboard_proto::peer::{self as wire, Reason};
use callboard_types::{ClusterId, NodeId, Timestamp};
use tokio::sync::watch;

use super::config::Lane;

/// What is spoken. Nodes of different versions do not talk to each other.
pub(super) const VERSION: u32 = 1;
/// Longest name of a cluster or a node, in bytes.
const NAME: usize = 256;

/// What this node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `None` while the node is in no cluster.
    pub cluster: Option<ClusterId>,
    pub cluster_name: String,
    /// The recovery generation of the cluster.
    pub generation: u64,
    /// Stays what it is for the life of the process.
    pub node: NodeId,
    pub node_name: String,
}

/// Who is at the other end of a link, by what it said when the link was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerId {
    pub node: NodeId,
    pub name: String,
    pub cluster: Option<ClusterId>,
    pub generation: u64,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.node)
    }
}

/// Why two nodes do not talk to each other. Either side may have said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub reason: Reason,
    pub text: String,
    /// The generation of the side that refuses.
    pub generation: u64,
}

impl Refusal {
    pub fn to_wire(&self) -> wire::Refusal {
        wire::Refusal { reason: self.reason.into(), text: self.text.clone(), generation: self.generation }
    }

    pub fn from_wire(refusal: &wire::Refusal) -> Self {
        let end = refusal.text.floor_char_boundary(NAME);
        Self { reason: refusal.reason(), text: refusal.text[..end].to_owned(), generation: refusal.generation }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A hello that passed the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Introduction {
    pub peer: PeerId,
    pub lane: Lane,
    pub wall: Timestamp,
}

/// This node's hello.
pub(super) fn hello(own: &Identity, lane: Lane, expects: Option<NodeId>, wall: Timestamp) -> wire::Hello {
    let cluster = own.cluster.unwrap_or_default().0;
    let (high, low) = ((cluster >> 64) as u64, cluster as u64);
    wire::Hello {
        version: VERSION,
        cluster_high: high,
        cluster_low: low,
        cluster_name: own.cluster_name.clone(),
        generation: own.generation,
        node: own.node.0,
        node_name: own.node_name.clone(),
        expects: expects.map(|node| node.0),
        lane: lane.to_wire().into(),
        wall: wall.as_micros(),
    }
}

/// Checks the other side's hello. `expected` is the node that was looked for, by the side that dialled.
pub(super) fn check(own: &Identity, expected: Option<NodeId>, theirs: &wire::Hello) -> Result<Introduction, Refusal> {
    let refuse = |reason, text| Err(Refusal { reason, text, generation: own.generation });
    // First of all: other fields may mean something else in another version.
    if theirs.version != VERSION {
        let text = format!("protocol version {} is not spoken here, only {VERSION}", theirs.version);
        return refuse(Reason::Version, text);
    }
    let lane = Lane::from_wire(theirs.lane());
    let names = theirs.cluster_name.len().max(theirs.node_name.len());
    let (Some(lane), true) = (lane, names <= NAME) else {
        return refuse(Reason::Malformed, "a hello that makes no sense".to_owned());
    };
    let cluster = ClusterId((u128::from(theirs.cluster_high) << 64) | u128::from(theirs.cluster_low));
    let cluster = (cluster != ClusterId::default()).then_some(cluster);
    let peer =
        PeerId { node: NodeId(theirs.node), name: theirs.node_name.clone(), cluster, generation: theirs.generation };
    same_cluster(own, &theirs.cluster_name, &peer)?;
    if peer.node == own.node {
        return refuse(Reason::SameNode, format!("node {} is at both ends", own.node));
    }
    if let Some(expected) = expected.filter(|expected| *expected != peer.node) {
        return refuse(Reason::WrongNode, format!("node {} was looked for, {peer} is here", expected));
    }
    if let Some(expects) = theirs.expects.filter(|expects| *expects != own.node.0) {
        let text = format!("node {} was looked for, {} ({}) is here", NodeId(expects), own.node_name, own.node);
        return refuse(Reason::WrongNode, text);
    }
    Ok(Introduction { peer, lane, wall: Timestamp(theirs.wall) })
}

/// Whether a node may talk to this one as far as clusters go. Asked again of open links when this node's identity
/// changes.
pub(super) fn same_cluster(own: &Identity, cluster_name: &str, peer: &PeerId) -> Result<(), Refusal> {
    let refuse = |reason, text| Err(Refusal { reason, text, generation: own.generation });
    if cluster_name != own.cluster_name {
        let text = format!("{peer} is of cluster {cluster_name:?}, not of {:?}", own.cluster_name);
        return refuse(Reason::ClusterName, text);
    }
    if let (Some(mine), Some(theirs)) = (own.cluster, peer.cluster)
        && mine != theirs
    {
        let text = format!("{peer} is of another cluster of the name {cluster_name:?}: {theirs}, not {mine}");
        return refuse(Reason::ClusterId, text);
    }
    // A generation counts within a cluster; a node that is in none has seen none.
    if peer.cluster.is_some() && own.cluster.is_some() && peer.generation < own.generation {
        let text = format!("{peer} is of generation {}, before the recovery to {}", peer.generation, own.generation);
        return refuse(Reason::Generation, text);
    }
    Ok(())
}

/// The highest recovery generation that members of the own cluster have shown.
#[derive(Debug, Clone)]
pub(super) struct GenerationSeen(watch::Sender<u64>);

impl GenerationSeen {
    pub fn new(own: u64) -> Self {
        Self(watch::Sender::new(own))
    }

    pub fn note(&self, generation: u64) {
        self.0.send_if_modified(|highest| {
            let higher = generation > *highest;
            *highest = generation.max(*highest);
            higher
        });
    }

    /// By a hello: it must be one of the own cluster for certain.
    pub fn note_peer(&self, own: &Identity, peer: &PeerId) {
        if own.cluster.is_some() && own.cluster == peer.cluster {
            self.note(peer.generation);
        }
    }

    /// By a refusal, which names it only to a member of the same cluster.
    pub fn note_refusal(&self, refusal: &Refusal) {
        if refusal.reason == Reason::Generation {
            self.note(refusal.generation);
        }
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

#[cfg(test)]
#[path = "hello_test.rs"]
mod hello_test;
