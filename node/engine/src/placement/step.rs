//! The next step of one group on its way to where the table wants it.
//!
//! Picture moving a piano between two floors with one rule: whoever takes over the shift knows nothing of the plan and
//! sees only where the piano stands. So each step must be readable from the state alone, and the state between two steps
//! must be one in which the piano does not fall. For a group: every step begins from, and ends in, an odd number of
//! voters with a living majority, and the next one follows from the membership, the learners' lag and the leader.
//!
//! ```text
//!   AddLearner d        d is given a replica and the log; it does not vote
//!   (wait)              d catches up
//!   TransferLeader b    if a leads: before its vote is taken away
//!   ChangeVoters bcd    one joint change; a stays as a learner
//!   RemoveLearner a     the membership no longer names a
//!   DropReplica a       a deletes what it holds
//!   TransferLeader d    if the table prefers d, and nothing else is left to do
//! ```
//!
//! What may interrupt it: the leader changes (the steps are asked of whoever leads), a change stands half done in a joint
//! membership (it is finished to where it was going, before anything else is considered), the table changes its mind (what
//! was added is removed again), a node falls silent (a learner of it is not waited for; a voter of it is swapped first).
//!
//! Invariants of what is proposed:
//!
//! - Voters are odd. Votes are swapped one for one, and grow or shrink by pairs.
//! - Of the voters proposed a majority is alive, and those who are added have caught up.
//! - The leader keeps its vote. One exception: a sole voter whose vote moves to another node, since there is no odd set
//!   in between that both belong to; it steps down when the change has committed.
//! - Nothing is proposed while a change is under way; what is dropped is in no membership.

use std::collections::BTreeMap;

use callboard_types::NodeId;

use super::{Liveness, Replica, ReplicaRole, Row};
use crate::Instant;

/// A group as its leader reports it, in nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Of the committed membership; of the old one while it is joint.
    pub voters: Vec<NodeId>,
    /// While the membership is joint: who votes when it is done.
    pub incoming: Option<Vec<NodeId>>,
    pub learners: Vec<NodeId>,
    pub leader: Option<NodeId>,
    /// How many entries of the leader's log each member lacks. Absent: not known.
    pub behind: BTreeMap<NodeId, u64>,
    /// Nodes that were given a replica and have not confirmed that it is gone, whether or not the membership names them.
    pub holders: Vec<NodeId>,
    /// A membership entry is in the log and not committed: what is said here is the one before it.
    pub uncommitted: bool,
    /// A step that the asker has begun and that has not returned.
    pub begun: Option<Step>,
}

impl Group {
    /// Whether anything is under way that one has to wait for.
    pub const fn is_changing(&self) -> bool {
        self.uncommitted || self.begun.is_some()
    }
}

/// One thing to do to one group. Each may be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Give the node a replica of a fresh id, unless it holds one, and add that to the membership as a learner.
    AddLearner(NodeId),
    /// Make these the voters, all of them members already; the others stay as learners.
    ChangeVoters(Vec<NodeId>),
    /// To a living voter that has caught up.
    TransferLeader(NodeId),
    /// Take the learner out of the membership.
    RemoveLearner(NodeId),
    /// Delete the node's replica, which no membership names.
    DropReplica(NodeId),
}

/// What follows from a group's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is where it should be.
    Settled,
    /// It is where it should be, and this node should lead it.
    Prefer(NodeId),
    /// A change or a learner is under way: look again later.
    Waiting,
    /// Nothing can be done before a node or a majority comes back.
    Blocked,
    Step(Step),
}

/// What counts as having caught up.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    pub nodes: &'a Liveness,
    /// Entries that a member may lack.
    pub caught_up: u64,
    pub now: Instant,
}

/// The next step of a group that should become `row`.
pub fn next(row: &Row, group: &Group, sight: Sight<'_>) -> Next {
    let Some(leader) = group.leader.filter(|leader| sight.nodes.is_live(*leader)) else { return Next::Blocked };
    let path = Path { row, group, sight, leader };
    if group.is_changing() {
        Next::Waiting
    } else if let Some(incoming) = &group.incoming {
        path.finish(incoming)
    } else {
        path.uniform()
    }
}

/// Nodes that the row wants and that a living leader is filling, or is about to.
pub fn filling(row: &Row, group: &Group, sight: Sight<'_>) -> Vec<NodeId> {
    if !group.leader.is_some_and(|leader| sight.nodes.is_live(leader)) {
        return Vec::new();
    }
    let mut filled = group.learners.clone();
    if let Some(Step::AddLearner(node)) = group.begun
        && !filled.contains(&node)
    {
        filled.push(node);
    }
    filled.retain(|node| row.role_of(*node).is_some());
    filled.retain(|node| sight.nodes.is_live(*node) && !sight.has_caught_up(group, *node));
    filled
}

impl Sight<'_> {
    fn has_caught_up(&self, group: &Group, node: NodeId) -> bool {
        group.leader == Some(node) || group.behind.get(&node).is_some_and(|behind| *behind <= self.caught_up)
    }

    /// Whether the node can vote at once.
    fn is_ready(&self, group: &Group, node: NodeId) -> bool {
        self.nodes.is_live(node) && self.has_caught_up(group, node)
    }

    fn has_majority(&self, voters: &[NodeId]) -> bool {
        2 * voters.iter().filter(|voter| self.nodes.is_live(**voter)).count() > voters.len()
    }
}

struct Path<'a> {
    row: &'a Row,
    group: &'a Group,
    sight: Sight<'a>,
    leader: NodeId,
}

impl Path<'_> {
    /// A joint membership: on to where it was going, whatever the row says by now.
    fn finish(&self, incoming: &[NodeId]) -> Next {
        if !incoming.contains(&self.leader)
            && let Some(heir) = self.heir(incoming)
        {
            return Next::Step(Step::TransferLeader(heir));
        }
        Next::Step(Step::ChangeVoters(incoming.to_vec()))
    }

    fn uniform(&self) -> Next {
        self.change_voters()
            .or_else(|| self.remove())
            .or_else(|| self.add())
            .map(Next::Step)
            .unwrap_or_else(|| self.nothing_to_do())
    }

    fn change_voters(&self) -> Option<Step> {
        let wanted = self.next_voters(&[])?;
        if wanted.contains(&self.leader) {
            return Some(Step::ChangeVoters(wanted));
        }
        if let Some(heir) = self.heir(&wanted) {
            return Some(Step::TransferLeader(heir));
        }
        if let Some(with_leader) = self.next_voters(&[self.leader]) {
            return Some(Step::ChangeVoters(with_leader));
        }
        let one_vote_moves = self.group.voters.len() == 1 && self.row.voters().count() == 1;
        one_vote_moves.then_some(Step::ChangeVoters(wanted))
    }

    /// Who leads while the leader's vote is taken away: a voter of both memberships.
    fn heir(&self, wanted: &[NodeId]) -> Option<NodeId> {
        let fit =
            |node: &NodeId| *node != self.leader && wanted.contains(node) && self.sight.is_ready(self.group, *node);
        if self.group.voters.contains(&self.row.leader) && fit(&self.row.leader) {
            return Some(self.row.leader);
        }
        self.group.voters.iter().copied().find(fit)
    }

    /// The voters that are nearest to the row's and can be had in one change, `kept` among them; `None`: those there are.
    fn next_voters(&self, kept: &[NodeId]) -> Option<Vec<NodeId>> {
        let (mut voters, goal) = (self.group.voters.clone(), self.row.voters().count());
        let mut ready: Vec<_> = self.row.voters().filter(|node| !voters.contains(node)).collect();
        ready.retain(|node| self.group.learners.contains(node) && self.sight.is_ready(self.group, *node));
        let mut surplus: Vec<_> = voters.iter().copied().filter(|node| !kept.contains(node)).collect();
        surplus.retain(|node| self.row.role_of(*node) != Some(ReplicaRole::Voter));
        // Taken from the front: the silent first, the leader last.
        surplus.sort_by_key(|node| (self.sight.nodes.is_live(*node), *node == self.leader, *node));
        let swaps = ready.len().min(surplus.len());
        voters.retain(|node| !surplus[..swaps].contains(node));
        voters.extend(ready.drain(..swaps));
        surplus.drain(..swaps);
        if voters.len() < goal {
            let more = (goal - voters.len()).min(ready.len());
            voters.extend(&ready[..more - usize::from((voters.len() + more).is_multiple_of(2) && more > 0)]);
        } else {
            let fewer = (voters.len() - goal).min(surplus.len());
            let fewer = fewer - usize::from((voters.len() - fewer).is_multiple_of(2) && fewer > 0);
            voters.retain(|node| !surplus[..fewer].contains(node));
        }
        voters.sort_unstable();
        let mut before = self.group.voters.clone();
        before.sort_unstable();
        let possible = self.sight.has_majority(&before) && self.sight.has_majority(&voters);
        (voters != before && !voters.len().is_multiple_of(2) && possible).then_some(voters)
    }

    /// What is not wanted any more, once it does not vote.
    fn remove(&self) -> Option<Step> {
        let unwanted = |node: &NodeId| self.row.role_of(*node).is_none();
        let group = self.group;
        if let Some(learner) = group.learners.iter().copied().find(unwanted) {
            return Some(Step::RemoveLearner(learner));
        }
        let member = |node: &NodeId| group.voters.contains(node) || group.learners.contains(node);
        group.holders.iter().copied().find(|node| unwanted(node) && !member(node)).map(Step::DropReplica)
    }

    /// One node after the other: a leader that fills two at once takes twice as long for the first.
    fn add(&self) -> Option<Step> {
        if !filling(self.row, self.group, self.sight).is_empty() {
            return None;
        }
        let member = |node: &NodeId| self.group.voters.contains(node) || self.group.learners.contains(node);
        let wanted = self.row.replicas.iter().map(|replica| replica.node);
        wanted.filter(|node| !member(node)).find(|node| self.sight.nodes.is_live(*node)).map(Step::AddLearner)
    }

    fn nothing_to_do(&self) -> Next {
        if !filling(self.row, self.group, self.sight).is_empty() {
            return Next::Waiting;
        }
        let role = |replica: &Replica| match replica.role {
            ReplicaRole::Voter => self.group.voters.contains(&replica.node),
            ReplicaRole::Learner => self.group.learners.contains(&replica.node),
        };
        if !self.row.replicas.iter().all(role) || self.group.voters.len() != self.row.voters().count() {
            return Next::Blocked;
        }
        let preferred = self.row.leader;
        let settled = self.sight.nodes.is_settled(preferred, self.sight.now);
        let can_lead = self.sight.is_ready(self.group, preferred) && settled;
        if preferred != self.leader && can_lead { Next::Prefer(preferred) } else { Next::Settled }
    }
}
