//! Sessions: how a host knows that an owner still is one, and how an owner knows that a host has stopped.
//!
//! Two clocks, one promise. The host pings the owner; the owner answers for the partitions whose lease it holds. From an
//! answered ping the host may dispatch for `host_lease`, counted from when it *sent* the ping. The owner counts the same
//! span, lengthened by the drift of the clocks, from when it *gave* the answer, which is later. So when the owner's
//! count is over, the host's has been over before, and the owner may run the actor elsewhere although the host is
//! silent.
//!
//! A session has a number; a host that has lost one begins another and refuses the frames of the old: an answer or a
//! dispatch that was long under way counts for nothing. A lapse is not the end of the session but of what was opened
//! under it: the owner may have given those actors away meanwhile, so their instances are deleted before they are used
//! again ([`Guard::mark_lapsed`](super::Guard::mark_lapsed)).
//!
//! Absent on purpose: sending pings, and the choice of their interval (150 ms against a lease of 600 ms lets three in a
//! row get lost).

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_types::{NodeId, PartitionId};

use crate::Instant;
use crate::lease::longer_by_drift;

/// One session of a host with an owner node. Numbers rise for good: those of two sessions are never equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    pub owner: NodeId,
    pub number: u64,
}

/// Spans of the session protocol; the same on every node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    pub host_lease: Duration,
    /// How much faster one node's clock may run than another's, in parts per million.
    pub drift_ppm: u32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { host_lease: Duration::from_millis(600), drift_ppm: 1_000 }
    }
}

/// Whether a frame may be dispatched to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    Granted {
        /// Ask again before anything is written after this instant.
        until: Instant,
    },
    /// The owner has not confirmed the partition for too long. What it opened is marked by `lapse`.
    Lapsed,
    /// The frame is of an older session.
    OldSession,
}

/// The host's side: its sessions with the owners.
#[derive(Debug)]
pub struct Sessions {
    config: SessionConfig,
    last_number: u64,
    current: BTreeMap<NodeId, Session>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    /// Until when each partition is confirmed. An entry leaves when it lapses.
    confirmed: BTreeMap<PartitionId, Instant>,
}

impl Sessions {
    /// `last_number`: the highest that an earlier process of this node may have used; a wall-clock reading does.
    pub const fn new(config: SessionConfig, last_number: u64) -> Self {
        Self { config, last_number, current: BTreeMap::new() }
    }

    /// Begins a session with an owner. The one before, if any, is returned: all that it opened must be marked lapsed.
    pub fn begin(&mut self, owner: NodeId) -> (SessionId, Option<SessionId>) {
        self.last_number += 1;
        let number = self.last_number;
        let old = self.current.insert(owner, Session { number, confirmed: BTreeMap::new() });
        (SessionId { owner, number }, old.map(|old| SessionId { owner, number: old.number }))
    }

    /// The owner answered a ping that was sent at `sent`, for these partitions.
    pub fn answered(&mut self, session: SessionId, sent: Instant, partitions: impl IntoIterator<Item = PartitionId>) {
        let until = sent.saturating_add(self.config.host_lease);
        if let Some(current) = self.current.get_mut(&session.owner).filter(|current| current.number == session.number) {
            for partition in partitions {
                let confirmed = current.confirmed.entry(partition).or_insert(until);
                *confirmed = until.max(*confirmed);
            }
        }
    }

    /// Asked immediately before each write to the app.
    pub fn permit(&self, now: Instant, session: SessionId, partition: PartitionId) -> Permit {
        match self.current.get(&session.owner) {
            Some(current) if current.number == session.number => match current.confirmed.get(&partition) {
                Some(&until) if now < until => Permit::Granted { until },
                Some(_) | None => Permit::Lapsed,
            },
            Some(_) | None => Permit::OldSession,
        }
    }

    /// Takes out what has lapsed: its activations must be marked at once.
    pub fn lapse(&mut self, now: Instant) -> Vec<(SessionId, PartitionId)> {
        let mut lapsed = Vec::new();
        for (&owner, session) in &mut self.current {
            let number = session.number;
            session.confirmed.retain(|&partition, &mut until| {
                let holds = now < until;
                if !holds {
                    lapsed.push((SessionId { owner, number }, partition));
                }
                holds
            });
        }
        lapsed
    }

    /// When to call `lapse` next.
    pub fn next_lapse(&self) -> Option<Instant> {
        self.current.values().flat_map(|session| session.confirmed.values()).min().copied()
    }

    /// The owner node is gone for good. What it opened must be marked lapsed.
    pub fn end(&mut self, owner: NodeId) -> Option<SessionId> {
        self.current.remove(&owner).map(|session| SessionId { owner, number: session.number })
    }
}

/// The owner's side: the last answer that each host got.
#[derive(Debug)]
pub struct Answers {
    config: SessionConfig,
    last: BTreeMap<NodeId, Instant>,
    /// Before this instant nothing is known: an earlier owner may have answered until then.
    since: Instant,
}

impl Answers {
    /// `since`: when this node became the owner. A host that it has not answered may hold a lease of its predecessor.
    pub const fn new(config: SessionConfig, since: Instant) -> Self {
        Self { config, last: BTreeMap::new(), since }
    }

    /// An answer to the host's ping is about to be sent.
    pub fn answering(&mut self, now: Instant, host: NodeId) {
        let last = self.last.entry(host).or_insert(now);
        *last = now.max(*last);
    }

    /// From when on the host, if it stays silent, dispatches nothing more of this owner or an earlier one.
    pub fn silent_from(&self, host: NodeId) -> Instant {
        let last = self.last.get(&host).map_or(self.since, |&last| last.max(self.since));
        last.saturating_add(longer_by_drift(self.config.host_lease, self.config.drift_ppm))
    }

    /// Whether the host's activations may run elsewhere although it has not acknowledged closing them.
    pub fn may_reactivate(&self, now: Instant, host: NodeId) -> bool {
        now >= self.silent_from(host)
    }

    /// The host has left the cluster, and its lease is over.
    pub fn forget(&mut self, now: Instant, host: NodeId) {
        if self.may_reactivate(now, host) {
            self.last.remove(&host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SessionConfig = SessionConfig { host_lease: Duration::from_micros(600), drift_ppm: 10_000 };
    const OWNER: NodeId = NodeId(7);
    const P: PartitionId = PartitionId(3);

    #[test]
    fn a_host_may_dispatch_until_its_lease_counted_from_the_sending_of_the_ping() {
        let mut sessions = Sessions::new(CONFIG, 0);
        let (session, _) = sessions.begin(OWNER);
        assert_eq!(sessions.permit(Instant(0), session, P), Permit::Lapsed);
        sessions.answered(session, Instant(100), [P]);
        assert_eq!(sessions.permit(Instant(699), session, P), Permit::Granted { until: Instant(700) });
        assert_eq!(sessions.permit(Instant(700), session, P), Permit::Lapsed);
        assert_eq!(sessions.permit(Instant(699), session, PartitionId(4)), Permit::Lapsed);
    }

    #[test]
    fn an_answer_to_an_older_ping_never_shortens_the_lease() {
        let mut sessions = Sessions::new(CONFIG, 0);
        let (session, _) = sessions.begin(OWNER);
        sessions.answered(session, Instant(200), [P]);
        sessions.answered(session, Instant(100), [P]);
        assert_eq!(sessions.next_lapse(), Some(Instant(800)));
    }

    #[test]
    fn frames_and_answers_of_an_older_session_count_for_nothing() {
        let mut sessions = Sessions::new(CONFIG, 0);
        let (old, none) = sessions.begin(OWNER);
        assert_eq!(none, None);
        sessions.answered(old, Instant(0), [P]);
        let (current, before) = sessions.begin(OWNER);
        assert_eq!(before, Some(old));
        assert!(current.number > old.number);
        assert_eq!(sessions.permit(Instant(1), old, P), Permit::OldSession);
        sessions.answered(old, Instant(1), [P]);
        assert_eq!(sessions.permit(Instant(2), current, P), Permit::Lapsed);
    }

    #[test]
    fn a_lapse_is_reported_once_and_a_later_answer_revives_the_partition() {
        let mut sessions = Sessions::new(CONFIG, 0);
        let (session, _) = sessions.begin(OWNER);
        sessions.answered(session, Instant(0), [P]);
        assert_eq!(sessions.lapse(Instant(599)), []);
        assert_eq!(sessions.lapse(Instant(600)), [(session, P)]);
        assert_eq!(sessions.lapse(Instant(601)), []);
        sessions.answered(session, Instant(500), [P]);
        assert_eq!(sessions.permit(Instant(601), session, P), Permit::Granted { until: Instant(1100) });
    }

    #[test]
    fn an_owner_outwaits_every_lease_that_its_answers_can_have_given() {
        // Whatever the ping's way took, and with the host's clock slower by the whole drift.
        for sent in (0..1_000_u64).step_by(50) {
            for answered in (sent..sent + 2_000).step_by(130) {
                let mut sessions = Sessions::new(CONFIG, 0);
                let (session, _) = sessions.begin(OWNER);
                sessions.answered(session, Instant(sent), [P]);
                let mut answers = Answers::new(CONFIG, Instant(0));
                answers.answering(Instant(answered), NodeId(1));
                let free = answers.silent_from(NodeId(1));
                let on_a_slow_clock = Instant(sent + (free.0 - sent) * 990_100 / 1_000_000);
                assert_eq!(sessions.permit(on_a_slow_clock, session, P), Permit::Lapsed, "{sent} {answered}");
            }
        }
    }

    #[test]
    fn a_host_that_was_never_answered_is_outwaited_from_the_beginning_of_the_ownership() {
        let mut answers = Answers::new(CONFIG, Instant(1_000));
        assert!(!answers.may_reactivate(Instant(1_605), NodeId(1)));
        assert!(answers.may_reactivate(Instant(1_606), NodeId(1)));
        answers.answering(Instant(2_000), NodeId(1));
        assert!(!answers.may_reactivate(Instant(2_605), NodeId(1)));
        answers.forget(Instant(2_605), NodeId(1));
        assert!(!answers.may_reactivate(Instant(2_605), NodeId(1)), "not forgotten while its lease may run");
    }
}
