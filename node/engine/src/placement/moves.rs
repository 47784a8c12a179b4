//! Which groups may take their next step: few at a time, the urgent ones first.
//!
//! Each group knows its own next step ([`step::next`]). Taken all at once they would fill every disk
//! and link of the cluster, so they pass a gate. A group *occupies* one of [`MoveLimits::moves`] places while a change of
//! its membership is under way or a living learner of it is being filled. Other steps are admitted while places are free,
//! in the order of what they free or protect: first who votes, then what can be given back, last what must be copied,
//! there the group that can bear the fewest losses first. Copying is bounded per node, too, for the leader that sends and
//! for the node that receives.
//!
//! Like the steps, the gate remembers nothing: who occupies a place is read from the groups. A learner whose node falls
//! silent gives its place back, and takes it again when it returns; until that is done there may be more than the limit.
//!
//! Leaders are moved for balance only by groups that are where they should be, [`MoveLimits::transfers`] per call.

use std::collections::{BTreeMap, BTreeSet};

use callboard_types::{NodeId, PartitionId};

use super::step::{self, Group, Next, Sight, Step};
use super::{Liveness, Row, Table};
use crate::Instant;

/// How much may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveLimits {
    /// Groups whose membership changes or that fill a learner, in the whole cluster.
    pub moves: usize,
    /// Of those that fill a learner, how many one node may send or receive.
    pub per_node: usize,
    /// Leaders moved for balance per call.
    pub transfers: usize,
    /// Entries a member may lack and count as caught up.
    pub caught_up: u64,
}

impl Default for MoveLimits {
    fn default() -> Self {
        Self { moves: 8, per_node: 2, transfers: 2, caught_up: 256 }
    }
}

/// A step of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub partition: PartitionId,
    pub step: Step,
}

/// The steps to begin, given the groups that could be asked. At most one per group.
pub fn next(
    target: &Table,
    groups: &BTreeMap<PartitionId, Group>,
    nodes: &Liveness,
    limits: &MoveLimits,
    now: Instant,
) -> Vec<Move> {
    let sight = Sight { nodes, caught_up: limits.caught_up, now };
    let mut gate = Gate::new(limits);
    let mut waiting = Vec::new();
    let mut preferring = Vec::new();
    for (&partition, group) in groups {
        let Some(row) = target.row(partition) else { continue };
        let filling = step::filling(row, group, sight);
        let next = step::next(row, group, sight);
        if next != Next::Blocked && (group.is_changing() || group.incoming.is_some() || !filling.is_empty()) {
            gate.occupy(partition, group, &filling);
        }
        match next {
            Next::Step(step) => waiting.push((urgency(&step, row, group, nodes), Move { partition, step })),
            Next::Prefer(node) => preferring.push(Move { partition, step: Step::TransferLeader(node) }),
            Next::Settled | Next::Waiting | Next::Blocked => {}
        }
    }
    waiting.sort_by_key(|(urgency, one)| (*urgency, one.partition));
    let mut steps: Vec<_> = waiting.into_iter().map(|(_, one)| one).filter(|one| gate.admits(one, groups)).collect();
    steps.extend(preferring.into_iter().filter(|one| gate.admits(one, groups)).take(limits.transfers));
    steps
}

/// Lower is sooner.
fn urgency(step: &Step, row: &Row, group: &Group, nodes: &Liveness) -> (u8, usize) {
    match step {
        Step::ChangeVoters(_) | Step::TransferLeader(_) => (0, 0),
        Step::RemoveLearner(_) | Step::DropReplica(_) => (1, 0),
        Step::AddLearner(_) => {
            let wanted = row.voters().count().max(group.voters.len());
            let live = group.voters.iter().filter(|voter| nodes.is_live(**voter)).count();
            (2, (2 * live).saturating_sub(wanted))
        }
    }
}

struct Gate<'a> {
    limits: &'a MoveLimits,
    occupied: BTreeSet<PartitionId>,
    /// Learners being filled, by the nodes that send and receive.
    copying: BTreeMap<NodeId, usize>,
}

impl<'a> Gate<'a> {
    const fn new(limits: &'a MoveLimits) -> Self {
        Self { limits, occupied: BTreeSet::new(), copying: BTreeMap::new() }
    }

    fn occupy(&mut self, partition: PartitionId, group: &Group, filling: &[NodeId]) {
        self.occupied.insert(partition);
        for &receiver in filling {
            self.copy(group.leader, receiver);
        }
    }

    fn copy(&mut self, sender: Option<NodeId>, receiver: NodeId) {
        for node in sender.into_iter().chain([receiver]) {
            *self.copying.entry(node).or_default() += 1;
        }
    }

    fn admits(&mut self, one: &Move, groups: &BTreeMap<PartitionId, Group>) -> bool {
        let has_place = self.occupied.contains(&one.partition) || self.occupied.len() < self.limits.moves;
        if !has_place {
            return false;
        }
        match one.step {
            Step::AddLearner(receiver) => {
                let sender = groups.get(&one.partition).and_then(|group| group.leader);
                let copies = |node: NodeId| self.copying.get(&node).copied().unwrap_or(0);
                if sender.into_iter().chain([receiver]).any(|node| copies(node) >= self.limits.per_node) {
                    return false;
                }
                self.copy(sender, receiver);
            }
            Step::ChangeVoters(_) | Step::TransferLeader(_) | Step::RemoveLearner(_) | Step::DropReplica(_) => {}
        }
        self.occupied.insert(one.partition);
        true
    }
}
