//! What a node says of itself to whoever asks on behalf of people: its version and its replicas.
//!
//! Nothing decides on it. A report is of one moment, and those of several nodes are of several moments.

use std::collections::BTreeSet;
use std::time::Duration;

use callboard_proto::calls as wire;
use callboard_raft::{GroupStatus, ReplicaRole};
use callboard_types::{Epoch, GroupId, NodeId, PartitionId, ReplicaId};

use super::convert::Invalid;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub version: String,
    /// By group.
    pub groups: Vec<GroupReport>,
}

/// A replica of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    pub group: GroupId,
    pub replica: ReplicaId,
    pub role: ReplicaRole,
    /// Of two that lead, the one of the higher term does.
    pub term: u64,
    pub last_log: u64,
    pub applied: u64,
    /// The node owns the partition at this epoch.
    pub epoch: Option<Epoch>,
    /// How long ago a quorum last answered; a leader's only.
    pub quorum_ack: Option<Duration>,
    /// As this replica knows them.
    pub members: Vec<Member>,
    /// Voters change at this moment.
    pub is_joint: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub replica: ReplicaId,
    pub node: NodeId,
    pub votes: bool,
    /// It votes when the change of voters is done; while there is none, this says nothing.
    pub incoming: bool,
}

impl Report {
    pub fn group(&self, group: GroupId) -> Option<&GroupReport> {
        self.groups.iter().find(|report| report.group == group)
    }
}

impl GroupReport {
    pub fn of(status: &GroupStatus, epoch: Option<Epoch>) -> Self {
        let votes = |set: usize, replica: &ReplicaId| status.voters.get(set).is_some_and(|set| set.contains(replica));
        let member = |(replica, node): (&ReplicaId, &NodeId)| Member {
            replica: *replica,
            node: *node,
            votes: votes(0, replica),
            incoming: votes(1, replica),
        };
        Self {
            group: status.group,
            replica: status.replica,
            role: status.role,
            term: status.term,
            last_log: status.last_log,
            applied: status.applied,
            epoch,
            quorum_ack: status.quorum_ack.filter(|_| status.is_leader()),
            members: status.members.iter().map(member).collect(),
            is_joint: status.voters.len() > 1,
        }
    }

    pub fn leads(&self) -> bool {
        self.role == ReplicaRole::Leader
    }

    /// Each set of nodes of which a majority must live.
    pub fn electorates(&self) -> Vec<BTreeSet<NodeId>> {
        let set = |votes: fn(&Member) -> bool| -> BTreeSet<NodeId> {
            self.members.iter().filter(|member| votes(member)).map(|member| member.node).collect()
        };
        let mut sets = vec![set(|member| member.votes)];
        if self.is_joint {
            sets.push(set(|member| member.incoming));
        }
        sets
    }
}

pub fn put(report: &Report) -> wire::Report {
    wire::Report { version: report.version.clone(), groups: report.groups.iter().map(put_group).collect() }
}

fn put_group(report: &GroupReport) -> wire::GroupReport {
    let member = |member: &Member| wire::GroupMember {
        replica: member.replica.0,
        node: member.node.0,
        votes: member.votes,
        incoming: member.incoming,
    };
    wire::GroupReport {
        partition: match report.group {
            GroupId::Meta => None,
            GroupId::Partition(partition) => Some(partition.0),
        },
        replica: report.replica.0,
        role: match report.role {
            ReplicaRole::Leader => wire::GroupRole::Leader,
            ReplicaRole::Candidate => wire::GroupRole::Candidate,
            ReplicaRole::Follower => wire::GroupRole::Follower,
            ReplicaRole::Learner => wire::GroupRole::Learner,
        }
        .into(),
        term: report.term,
        last_log: report.last_log,
        applied: report.applied,
        epoch: report.epoch.map(|epoch| epoch.0),
        quorum_ack_us: report.quorum_ack.map(|ago| u64::try_from(ago.as_micros()).unwrap_or(u64::MAX)),
        members: report.members.iter().map(member).collect(),
        joint: report.is_joint,
    }
}

pub fn get(message: wire::Report) -> Result<Report, Invalid> {
    let groups = message.groups.into_iter().map(get_group).collect::<Result<_, _>>()?;
    Ok(Report { version: message.version, groups })
}

fn get_group(message: wire::GroupReport) -> Result<GroupReport, Invalid> {
    let role = match message.role() {
        wire::GroupRole::Leader => ReplicaRole::Leader,
        wire::GroupRole::Candidate => ReplicaRole::Candidate,
        wire::GroupRole::Follower => ReplicaRole::Follower,
        wire::GroupRole::Learner => ReplicaRole::Learner,
        wire::GroupRole::Unspecified => return Err(Invalid::Missing("role")),
    };
    let member = |member: wire::GroupMember| Member {
        replica: ReplicaId(member.replica),
        node: NodeId(member.node),
        votes: member.votes,
        incoming: member.incoming,
    };
    Ok(GroupReport {
        group: message.partition.map_or(GroupId::Meta, |partition| GroupId::Partition(PartitionId(partition))),
        replica: ReplicaId(message.replica),
        role,
        term: message.term,
        last_log: message.last_log,
        applied: message.applied,
        epoch: message.epoch.map(Epoch),
        quorum_ack: message.quorum_ack_us.map(Duration::from_micros),
        members: message.members.into_iter().map(member).collect(),
        is_joint: message.joint,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let member =
            |node, votes, incoming| Member { replica: ReplicaId(node * 10), node: NodeId(node), votes, incoming };
        let group = |group, role, epoch, is_joint| GroupReport {
            group,
            replica: ReplicaId(10),
            role,
            term: 3,
            last_log: 9,
            applied: 8,
            epoch,
            quorum_ack: epoch.map(|_| Duration::from_micros(7)),
            members: vec![member(1, true, false), member(2, false, true)],
            is_joint,
        };
        let groups = vec![
            group(GroupId::Meta, ReplicaRole::Follower, None, false),
            group(GroupId::Partition(PartitionId(0)), ReplicaRole::Leader, Some(Epoch(4)), true),
        ];
        let report = Report { version: "1".into(), groups };
        let bytes = put(&report).encode_to_vec();
        assert_eq!(get(wire::Report::decode(&*bytes).expect("a message")).expect("it means something"), report);
        let nodes = |sets: Vec<BTreeSet<NodeId>>| -> Vec<Vec<u64>> {
            sets.into_iter().map(|set| set.into_iter().map(|node| node.0).collect()).collect()
        };
        assert_eq!(nodes(report.groups[0].electorates()), [vec![1]]);
        assert_eq!(nodes(report.groups[1].electorates()), [vec![1], vec![2]], "two while voters change");
    }
}
