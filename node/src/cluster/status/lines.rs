//! What a [`Survey`] says, line by line. Pure: no node is asked here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use callboard_engine::view::{App, NodeReport, Presence};
use callboard_machine::meta::{NodeRecord, PartitionRecord, Role};
use callboard_raft::ReplicaRole;
use callboard_types::{Epoch, GroupId, NodeId, ReplicaId, Timestamp};

use super::{Survey, group_name};
use crate::calls::report::{GroupReport, Report};

/// A node of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLine {
    pub node: NodeId,
    pub name: String,
    pub zone: String,
    pub role: Role,
    pub address: String,
    pub state: NodeState,
    pub is_this: bool,
    pub app: Option<App>,
    pub types: Vec<String>,
    /// Partitions, without the meta group.
    pub leads: usize,
    pub holds: usize,
    /// `None`: it has not said.
    pub version: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    Up,
    /// Up, and on its way out.
    Leaving,
    Down,
}

/// A group: what its row says, and what its replicas say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLine {
    pub group: GroupId,
    pub owner: Option<NodeId>,
    pub epoch: Option<Epoch>,
    pub leader: Option<NodeId>,
    /// Of the row first, then those that the group still has beside them.
    pub replicas: Vec<ReplicaLine>,
    pub version: u64,
    pub settled: u64,
    /// Of the leader.
    pub last_log: Option<u64>,
    pub applied: Option<u64>,
    pub lease_age: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaLine {
    pub node: NodeId,
    pub replica: ReplicaId,
    /// What the row wants it to be. `None`: to go.
    pub wanted: Option<Seat>,
    /// What its group's leader says that it is. `None`: no member, or there is no word of a leader.
    pub seat: Option<Seat>,
    /// What it says of itself.
    pub role: Option<ReplicaRole>,
    pub applied: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    Voter,
    Learner,
}

/// A group that is not where its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveLine {
    pub group: GroupId,
    pub version: u64,
    pub settled: u64,
    /// What the group has and the row has not. `None`: there is no word of a leader.
    pub from: Option<Vec<(NodeId, Seat)>>,
    /// What the row has and the group has not.
    pub to: Option<Vec<(NodeId, Seat)>>,
    /// When this node first saw it.
    pub since: Option<Timestamp>,
}

/// The whole in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Storage nodes that are not on their way out, up or down.
    pub storage: usize,
    pub gateways: usize,
    pub up: usize,
    pub leaving: usize,
    pub down: usize,
    pub partitions: usize,
    /// Partitions that nobody is known to own.
    pub unowned: Vec<GroupId>,
    pub moves: usize,
    /// As many storage nodes as may fail at this moment, whichever they are, without any group losing its majority.
    pub may_fail: usize,
    /// Groups that have lost it already.
    pub without_quorum: Vec<GroupId>,
    /// The fewest voters of any group.
    pub fewest_voters: usize,
}

impl Survey {
    pub fn name(&self, node: NodeId) -> String {
        let registered = self.state.nodes.get(&node).map(|record| record.name.clone());
        let said = || self.view.node(node).map(|report| report.name.to_string());
        registered.or_else(said).unwrap_or_else(|| node.to_string())
    }

    /// Registered nodes, by name.
    pub fn nodes(&self) -> Vec<NodeLine> {
        let mut lines: Vec<_> = self.state.nodes.iter().map(|(node, record)| self.node(*node, record)).collect();
        lines.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        lines
    }

    fn node(&self, node: NodeId, record: &NodeRecord) -> NodeLine {
        let heard = self.view.node(node).filter(|report| report.presence != Presence::Down);
        let report = self.reports.get(&node);
        let of_partitions = |count: &dyn Fn(&GroupReport) -> bool| -> Option<usize> {
            let partitions = report?.groups.iter().filter(|group| group.group != GroupId::Meta);
            Some(partitions.filter(|group| count(group)).count())
        };
        let placed = || self.state.partitions.values().filter(|row| row.on(node).is_some()).count();
        NodeLine {
            node,
            name: record.name.clone(),
            zone: record.zone.clone(),
            role: record.role,
            address: heard.map_or_else(|| record.address.clone(), |heard| heard.peer.to_string()),
            state: self.state_of(node, record),
            is_this: node == self.me,
            app: heard.and_then(|heard| heard.app.clone()),
            types: heard.map(|heard| heard.types.keys().map(|name| name.to_string()).collect()).unwrap_or_default(),
            leads: of_partitions(&GroupReport::leads).unwrap_or_else(|| heard.map_or(0, |heard| heard.owns.len())),
            holds: of_partitions(&|_| true).unwrap_or_else(placed),
            version: report.map(|report| report.version.clone()),
        }
    }

    fn state_of(&self, node: NodeId, record: &NodeRecord) -> NodeState {
        let is_up = node == self.me || self.view.is_up(node);
        let leaves = || {
            self.view.node(node).is_some_and(|report: &std::sync::Arc<NodeReport>| report.presence == Presence::Leaving)
        };
        match is_up {
            false => NodeState::Down,
            true if record.leaving || leaves() => NodeState::Leaving,
            true => NodeState::Up,
        }
    }

    /// Every partition, by number.
    pub fn partitions(&self) -> Vec<GroupLine> {
        self.state.partitions.iter().map(|(partition, row)| self.group(GroupId::Partition(*partition), row)).collect()
    }

    pub fn meta(&self) -> GroupLine {
        self.group(GroupId::Meta, &self.state.meta)
    }

    fn group(&self, group: GroupId, row: &PartitionRecord) -> GroupLine {
        let of_group = |(node, report): (&NodeId, &Report)| Some((*node, report.group(group)?.clone()));
        let reports: BTreeMap<NodeId, GroupReport> = self.reports.iter().filter_map(of_group).collect();
        let leader = leader_of(&reports);
        let owner = reports.iter().filter_map(|(node, report)| Some((report.epoch?, *node))).max();
        let owner = owner.or_else(|| self.said_to_own(group));
        let leading = leader.and_then(|leader| reports.get(&leader));
        let seat_of = |node: NodeId, replica: ReplicaId| {
            let member = leading?.members.iter().find(|member| (member.node, member.replica) == (node, replica))?;
            Some(if member.votes || member.incoming { Seat::Voter } else { Seat::Learner })
        };
        let line = |node, replica, wanted| {
            let own = reports.get(&node).filter(|report| report.replica == replica);
            let (role, applied) = (own.map(|report| report.role), own.map(|report| report.applied));
            ReplicaLine { node, replica, wanted, seat: seat_of(node, replica), role, applied }
        };
        let wanted = row.replicas.iter().map(|placed| {
            let seat = if placed.learner { Seat::Learner } else { Seat::Voter };
            line(placed.node, placed.replica, Some(seat))
        });
        let is_placed = |replica: ReplicaId| row.replicas.iter().any(|placed| placed.replica == replica);
        let beside = leading.into_iter().flat_map(|leading| &leading.members);
        let beside =
            beside.filter(|member| !is_placed(member.replica)).map(|member| line(member.node, member.replica, None));
        GroupLine {
            group,
            owner: owner.map(|(_, node)| node),
            epoch: owner.map(|(epoch, _)| epoch),
            leader,
            replicas: wanted.chain(beside).collect(),
            version: row.version,
            settled: row.settled,
            last_log: leading.map(|report| report.last_log),
            applied: leading.map(|report| report.applied),
            lease_age: leading.and_then(|report| report.quorum_ack),
        }
    }

    /// Of a node that is silent, gossip may know.
    fn said_to_own(&self, group: GroupId) -> Option<(Epoch, NodeId)> {
        let GroupId::Partition(partition) = group else { return None };
        let silent = self.silent.iter().filter_map(|node| self.view.node(*node));
        silent.filter_map(|report| Some((*report.owns.get(&partition)?, report.node))).max()
    }

    pub fn moves(&self) -> Vec<MoveLine> {
        let moving = self.state.placement_rows().filter(|(_, row)| !row.is_settled());
        moving.map(|(group, row)| self.moved(self.group(group, row))).collect()
    }

    fn moved(&self, line: GroupLine) -> MoveLine {
        let differing = |side: fn(&ReplicaLine) -> Option<Seat>| -> Vec<_> {
            let differ = line.replicas.iter().filter(|replica| replica.wanted != replica.seat);
            differ.filter_map(|replica| Some((replica.node, side(replica)?))).collect()
        };
        let known = line.leader.is_some();
        MoveLine {
            group: line.group,
            version: line.version,
            settled: line.settled,
            from: known.then(|| differing(|replica| replica.seat)),
            to: known.then(|| differing(|replica| replica.wanted)),
            since: self.since.get(&line.group).copied(),
        }
    }

    pub fn summary(&self) -> Summary {
        let nodes = self.nodes();
        let count = |state| nodes.iter().filter(|line| line.state == state).count();
        let up: BTreeSet<_> = nodes.iter().filter(|line| line.state != NodeState::Down).map(|line| line.node).collect();
        let electorates: Vec<_> =
            self.state.placement_rows().map(|(group, row)| (group, self.electorates(group, row))).collect();
        let (may_fail, without_quorum) = tolerance(&electorates, &up);
        let sizes = electorates.iter().flat_map(|(_, sets)| sets).map(BTreeSet::len);
        let is_storage = |record: &&NodeRecord| record.role == Role::Storage;
        Summary {
            storage: self.state.nodes.values().filter(is_storage).filter(|record| !record.leaving).count(),
            gateways: self.state.nodes.values().filter(|record| record.role == Role::Gateway).count(),
            up: count(NodeState::Up),
            leaving: count(NodeState::Leaving),
            down: count(NodeState::Down),
            partitions: self.state.partitions.len(),
            unowned: self.partitions().into_iter().filter(|line| line.owner.is_none()).map(|line| line.group).collect(),
            moves: self.state.placement_rows().filter(|(_, row)| !row.is_settled()).count(),
            may_fail,
            without_quorum,
            fewest_voters: sizes.min().unwrap_or(0),
        }
    }

    /// What whoever runs the cluster is to know of it, in sentences.
    pub fn notes(&self, summary: &Summary) -> Vec<String> {
        let mut notes = Vec::new();
        let replicas = self.state.settings.as_ref().map_or(0, |settings| settings.replicas);
        let groups = |groups: &[GroupId]| groups.iter().map(|group| group_name(*group)).collect::<Vec<_>>().join(", ");
        if summary.storage < 3 {
            notes.push(format!(
                "storage nodes: {}. An acknowledged write is on one disk, and losing its node stops the actors there until \
                 it is back; a second disk and service within 3 seconds of a loss begin at three storage nodes",
                summary.storage
            ));
        } else if replicas < 3 {
            notes.push(format!(
                "the cluster was made with {replicas} replicas: no partition survives the loss of its node"
            ));
        } else if summary.fewest_voters < 3 {
            notes.push(
                "not every group has three voters yet: losing one node may stop actors until it is back".to_owned(),
            );
        }
        if !summary.without_quorum.is_empty() {
            let lost = groups(&summary.without_quorum);
            notes.push(format!("no majority is up of: {lost}. What they hold waits until nodes are back"));
        }
        if !summary.unowned.is_empty() {
            notes.push(format!("partitions that nobody is known to own: {}", groups(&summary.unowned)));
        }
        if !self.silent.is_empty() {
            let silent: Vec<_> = self.silent.iter().map(|node| self.name(*node)).collect();
            notes.push(format!("up, but silent when asked what they hold: {}", silent.join(", ")));
        }
        notes
    }

    /// The sets of nodes of which a majority must live: as the leader says, else as the row does.
    fn electorates(&self, group: GroupId, row: &PartitionRecord) -> Vec<BTreeSet<NodeId>> {
        let of_group = |(node, report): (&NodeId, &Report)| Some((*node, report.group(group)?.clone()));
        let reports: BTreeMap<NodeId, GroupReport> = self.reports.iter().filter_map(of_group).collect();
        let leading = leader_of(&reports).and_then(|leader| reports.get(&leader));
        leading.map_or_else(|| vec![row.voters().map(|placed| placed.node).collect()], GroupReport::electorates)
    }
}

/// Of several that say they lead, the one of the latest term does.
fn leader_of(reports: &BTreeMap<NodeId, GroupReport>) -> Option<NodeId> {
    let leading = reports.iter().filter(|(_, report)| report.leads());
    leading.max_by_key(|(_, report)| report.term).map(|(node, _)| *node)
}

/// How many more nodes may fail, whichever, before a group loses its majority; and the groups that have lost it.
fn tolerance(groups: &[(GroupId, Vec<BTreeSet<NodeId>>)], up: &BTreeSet<NodeId>) -> (usize, Vec<GroupId>) {
    // More are up than a majority needs: that many of them may go. `None`: not even a majority is up.
    let spare = |voters: &BTreeSet<NodeId>| voters.intersection(up).count().checked_sub(voters.len() / 2 + 1);
    let of_group = |sets: &Vec<BTreeSet<NodeId>>| sets.iter().map(spare).min().flatten();
    let lost = groups.iter().filter(|(_, sets)| of_group(sets).is_none()).map(|(group, _)| *group).collect();
    let spare = groups.iter().map(|(_, sets)| of_group(sets).unwrap_or(0)).min().unwrap_or(0);
    (spare, lost)
}

#[cfg(test)]
#[path = "lines_test.rs"]
mod lines_test;
