//! From what gossip knows to who is there: a pure function of what was seen, what was seen before, and the time.
//!
//! - A node that restarts is a new participant of gossip while its older self is still listed: of several with one node
//!   id the live one with the highest generation counts, and if none is live the one with the highest.
//! - A node that said it leaves is gone at once, whatever its heartbeat does.
//! - A node of another cluster id is a stranger, though it has our cluster's name: two clusters of one name that were
//!   formed apart stay apart. A node without a cluster id is one that joins, and is seen.
//! - A node whose heartbeat stopped is dead, since the moment this was first seen; one that is heard again is live. When
//!   it was this node that stood still, everybody seems silent: for a moment after that nobody is declared dead.
//!
//! Who is dead here is a guess of this node. Nothing that must be agreed depends on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_engine::view::{NodeReport, Presence, View};
use callboard_types::{ClusterId, NodeId};

use super::announce::{Announcement, MAX_PARTITIONS, Phase};

/// One participant of gossip, as it is known at present.
#[derive(Debug, Clone)]
pub struct Seen {
    pub node: NodeId,
    pub generation: u64,
    pub gossip: SocketAddr,
    /// By its heartbeat.
    pub alive: bool,
    pub said: Arc<Announcement>,
}

/// Everybody this node knows of. Immutable; a change is a value with a higher version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    pub version: u64,
    /// In the order of their ids, each once, this node included.
    pub all: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    /// Rises at every start of the node.
    pub generation: u64,
    /// Where it gossips.
    pub gossip: SocketAddr,
    pub standing: Standing,
    pub said: Arc<Announcement>,
    /// All this as routing takes it.
    pub report: Arc<NodeReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Live,
    /// It has not been heard for too long; seen first at this instant.
    Dead {
        since: Instant,
    },
    /// It said that it leaves; seen first at this instant.
    Left {
        since: Instant,
    },
}

impl Members {
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        let at = self.all.binary_search_by_key(&node, |member| member.node).ok()?;
        self.all.get(at)
    }

    pub fn live(&self) -> impl Iterator<Item = &Member> {
        self.all.iter().filter(|member| member.is_live())
    }

    /// What routing decides on, under the same version.
    pub fn view(&self) -> View {
        let partitions = u32::try_from(MAX_PARTITIONS).unwrap_or(u32::MAX);
        View::new(self.version, partitions, self.all.iter().map(|member| member.report.clone()))
    }
}

impl Member {
    pub fn is_live(&self) -> bool {
        match self.standing {
            Standing::Live => true,
            Standing::Dead { .. } | Standing::Left { .. } => false,
        }
    }
}

/// Makes [`Members`] of what is seen.
#[derive(Debug, Default)]
pub struct Observer {
    known: Arc<Members>,
    /// Nobody is declared dead before.
    hold_until: Instant,
}

impl Observer {
    /// This node stood still until `now`: others are given `grace` to be heard again.
    pub fn stalled(&mut self, now: Instant, grace: Duration) {
        self.hold_until = now.saturating_add(grace);
    }

    /// The members, if they differ from the last answer. `own` is the cluster this node belongs to.
    pub fn observe(&mut self, now: Instant, own: Option<ClusterId>, seen: Vec<Seen>) -> Option<Arc<Members>> {
        let mut best: BTreeMap<NodeId, Seen> = BTreeMap::new();
        for one in seen.into_iter().filter(|one| !is_stranger(own, one.said.cluster)) {
            let better = best.get(&one.node).is_none_or(|other| rank(&one) > rank(other));
            if better {
                best.insert(one.node, one);
            }
        }
        let all: Vec<Member> = best.into_values().map(|one| self.member(now, one)).collect();
        if all == self.known.all {
            return None;
        }
        self.known = Arc::new(Members { version: self.known.version + 1, all });
        Some(self.known.clone())
    }

    fn member(&self, now: Instant, one: Seen) -> Member {
        let before = self.known.get(one.node).filter(|before| before.generation == one.generation);
        let standing = match (is_leaving(&one), one.alive, before.map(|before| before.standing)) {
            (true, _, Some(left @ Standing::Left { .. })) => left,
            (true, _, Some(Standing::Live | Standing::Dead { .. }) | None) => Standing::Left { since: now },
            (false, true, _) => Standing::Live,
            (false, false, Some(dead @ Standing::Dead { .. })) => dead,
            (false, false, Some(Standing::Live)) if now < self.hold_until => Standing::Live,
            (false, false, Some(Standing::Live | Standing::Left { .. }) | None) => Standing::Dead { since: now },
        };
        let presence = presence(standing, one.said.phase);
        let unchanged = before.filter(|before| before.said == one.said && before.report.presence == presence);
        let report = unchanged.map_or_else(|| Arc::new(report(&one, presence)), |before| before.report.clone());
        Member { node: one.node, generation: one.generation, gossip: one.gossip, standing, said: one.said, report }
    }
}

fn presence(standing: Standing, phase: Phase) -> Presence {
    match (standing, phase) {
        (Standing::Dead { .. } | Standing::Left { .. }, _) => Presence::Down,
        (Standing::Live, Phase::Draining | Phase::Leaving) => Presence::Leaving,
        (Standing::Live, Phase::Starting | Phase::Serving | Phase::Other) => Presence::Up,
    }
}

fn report(one: &Seen, presence: Presence) -> NodeReport {
    let said = &one.said;
    let hosts = said.app.as_ref().is_some_and(|app| app.healthy);
    NodeReport {
        node: one.node,
        generation: one.generation,
        presence,
        name: said.name.clone(),
        zone: said.zone.clone(),
        role: said.role,
        peer: said.peer.first().cloned().unwrap_or_else(|| one.gossip.to_string().into()),
        namespace: said.namespace.clone(),
        app: said.app.clone(),
        types: if hosts { said.types.clone() } else { BTreeMap::new() },
        recovery: said.recovery,
        owns: said.owned.clone(),
    }
}

fn rank(one: &Seen) -> (bool, u64) {
    (one.alive && !is_leaving(one), one.generation)
}

fn is_leaving(one: &Seen) -> bool {
    one.said.phase == Phase::Leaving
}

fn is_stranger(own: Option<ClusterId>, other: Option<ClusterId>) -> bool {
    own.is_some_and(|own| other.is_some_and(|other| other != own))
}

#[cfg(test)]
mod members_test;
