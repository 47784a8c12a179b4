//! Who is up, who is down, and who is given up: gossip's word, made slow enough to move data by.
//!
//! Gossip takes a second to call a node dead and as long to call it back. Leadership follows that at once. Replicas do
//! not: copying a node's data costs more than waiting for its restart, so a silent node keeps what it holds until it has
//! been silent for [`LivenessConfig::lost_after`], and one that comes back counts as present only when it has stayed for
//! [`LivenessConfig::settle`]. A node that was never seen silent has nothing to prove.
//!
//! The spans are counted by whoever leads the meta group, from what it has seen itself: its successor begins anew. That
//! only lengthens a wait.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_types::NodeId;

use super::Standing;
use crate::Instant;

/// Spans of patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessConfig {
    /// Silence after which a node's replicas are made anew elsewhere.
    pub lost_after: Duration,
    /// How long a node that was silent must stay before it is given anything.
    pub settle: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self { lost_after: Duration::from_secs(300), settle: Duration::from_secs(10) }
    }
}

/// The registered nodes, as seen so far.
#[derive(Debug, Clone)]
pub struct Liveness {
    config: LivenessConfig,
    nodes: BTreeMap<NodeId, Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Since it was first looked for.
    Always,
    Back {
        since: Instant,
    },
    Silent {
        since: Instant,
    },
}

impl Liveness {
    pub const fn new(config: LivenessConfig) -> Self {
        Self { config, nodes: BTreeMap::new() }
    }

    /// Takes in who answers at `now`, of all registered nodes: one that leaves still leads until its groups have moved.
    /// Nodes that are not registered any more are forgotten.
    pub fn observe(
        &mut self,
        now: Instant,
        registered: impl IntoIterator<Item = NodeId>,
        is_live: impl Fn(NodeId) -> bool,
    ) {
        let before = std::mem::take(&mut self.nodes);
        let seen = |node: NodeId| match (before.get(&node), is_live(node)) {
            (None, true) => Seen::Always,
            (None | Some(Seen::Always | Seen::Back { .. }), false) => Seen::Silent { since: now },
            (Some(Seen::Silent { .. }), true) => Seen::Back { since: now },
            (Some(&unchanged), _) => unchanged,
        };
        self.nodes = registered.into_iter().map(|node| (node, seen(node))).collect();
    }

    /// Whether it answers. A node that is not registered does not.
    pub fn is_live(&self, node: NodeId) -> bool {
        match self.nodes.get(&node) {
            Some(Seen::Always | Seen::Back { .. }) => true,
            Some(Seen::Silent { .. }) | None => false,
        }
    }

    /// Whether it answers, and has for long enough to be given something.
    pub fn is_settled(&self, node: NodeId, now: Instant) -> bool {
        match self.nodes.get(&node) {
            Some(Seen::Always) => true,
            Some(Seen::Back { since }) => now.saturating_since(*since) >= self.config.settle,
            Some(Seen::Silent { .. }) | None => false,
        }
    }

    /// What a registered storage node that stays may be given.
    pub fn standing(&self, node: NodeId, now: Instant) -> Standing {
        match self.nodes.get(&node) {
            Some(Seen::Silent { since }) if now.saturating_since(*since) >= self.config.lost_after => Standing::Lost,
            Some(_) if self.is_settled(node, now) => Standing::Live,
            Some(_) | None => Standing::Down,
        }
    }

    /// When some node's standing changes next although nobody comes or goes.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let changes = self.nodes.values().filter_map(|seen| match seen {
            Seen::Always => None,
            Seen::Back { since } => Some(since.saturating_add(self.config.settle)),
            Seen::Silent { since } => Some(since.saturating_add(self.config.lost_after)),
        });
        changes.filter(|change| *change > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const A: NodeId = NodeId(1);

    fn at(seconds: u64) -> Instant {
        Instant(seconds * SECOND)
    }

    fn seen(history: &[(u64, bool)]) -> Liveness {
        let mut liveness = Liveness::new(LivenessConfig::default());
        for &(second, live) in history {
            liveness.observe(at(second), [A], |_| live);
        }
        liveness
    }

    #[test]
    fn a_node_that_was_never_silent_is_live_at_once() {
        let liveness = seen(&[(7, true)]);
        assert_eq!((liveness.is_live(A), liveness.is_settled(A, at(7))), (true, true));
        assert_eq!(liveness.standing(A, at(7)), Standing::Live);
        assert_eq!(liveness.next_change(at(7)), None);
    }

    #[test]
    fn a_silent_node_is_down_at_once_and_lost_after_the_wait() {
        let liveness = seen(&[(0, true), (10, false), (60, false)]);
        assert_eq!((liveness.is_live(A), liveness.standing(A, at(10))), (false, Standing::Down));
        assert_eq!(liveness.standing(A, at(309)), Standing::Down);
        assert_eq!(liveness.next_change(at(60)), Some(at(310)));
        assert_eq!(liveness.standing(A, at(310)), Standing::Lost);
        assert_eq!(liveness.next_change(at(310)), None);
    }

    #[test]
    fn the_wait_begins_with_the_first_look() {
        assert_eq!(seen(&[(1_000, false)]).standing(A, at(1_299)), Standing::Down);
        assert_eq!(seen(&[(1_000, false)]).standing(A, at(1_300)), Standing::Lost);
    }

    #[test]
    fn a_node_that_comes_back_leads_no_more_than_it_did_until_it_has_stayed() {
        let liveness = seen(&[(0, true), (10, false), (400, true)]);
        assert_eq!((liveness.is_live(A), liveness.is_settled(A, at(409))), (true, false));
        assert_eq!(liveness.standing(A, at(409)), Standing::Down);
        assert_eq!(liveness.next_change(at(400)), Some(at(410)));
        assert_eq!((liveness.standing(A, at(410)), liveness.is_settled(A, at(410))), (Standing::Live, true));
    }

    #[test]
    fn a_node_that_comes_and_goes_is_never_lost() {
        let mut history = vec![(0, true)];
        history.extend((0..10).flat_map(|round| [(round * 200 + 10, false), (round * 200 + 150, true)]));
        assert_eq!(seen(&history).standing(A, at(2_200)), Standing::Live);
        history.push((2_010, false));
        assert_eq!(seen(&history).standing(A, at(2_200)), Standing::Down);
    }

    #[test]
    fn a_node_that_is_not_registered_is_not_there() {
        let mut liveness = seen(&[(0, true)]);
        liveness.observe(at(1), [], |_| true);
        assert_eq!((liveness.is_live(A), liveness.standing(A, at(1))), (false, Standing::Down));
    }
}
