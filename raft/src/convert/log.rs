//! Raft's own records: entries, log ids, votes and memberships.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use callboard_machine::meta::MetaCommand;
use callboard_machine::partition::Command;
use callboard_proto::disk;
use callboard_types::NodeId;

use super::{FromDisk, Invalid, ReadAs, ToDisk, need, stores};
use crate::type_config::{Entry, LeaderId, LogId, Member, Membership, Payload, Proposal, StoredMembership, Vote};
use crate::type_config::{log_id, term_of};

stores! {
    Entry => LogEntry,
    LogId => LogId,
    Vote => Vote,
    StoredMembership => StoredMembership,
}

impl ToDisk<disk::LogId> for LogId {
    fn to_disk(&self) -> disk::LogId {
        disk::LogId { term: term_of(self), index: self.index }
    }
}

impl FromDisk<disk::LogId> for LogId {
    fn from_disk(id: disk::LogId) -> Result<Self, Invalid> {
        Ok(log_id(id.term, id.index))
    }
}

impl ToDisk<disk::Vote> for Vote {
    fn to_disk(&self) -> disk::Vote {
        disk::Vote { term: self.leader_id.term, voted_for: self.leader_id.voted_for, committed: self.committed }
    }
}

impl FromDisk<disk::Vote> for Vote {
    fn from_disk(vote: disk::Vote) -> Result<Self, Invalid> {
        let leader_id = LeaderId { term: vote.term, voted_for: vote.voted_for };
        Ok(Vote { leader_id, committed: vote.committed })
    }
}

impl ToDisk<disk::Membership> for Membership {
    fn to_disk(&self) -> disk::Membership {
        let sets = self.get_joint_config().iter();
        let members = self.nodes().map(|(replica, member)| disk::Member {
            replica: *replica,
            node: member.node.0,
            address: member.address.clone(),
        });
        disk::Membership {
            voters: sets.map(|set| disk::VoterSet { replicas: set.iter().copied().collect() }).collect(),
            members: members.collect(),
        }
    }
}

impl FromDisk<disk::Membership> for Membership {
    fn from_disk(membership: disk::Membership) -> Result<Self, Invalid> {
        let voters: Vec<BTreeSet<u64>> =
            membership.voters.into_iter().map(|set| set.replicas.into_iter().collect()).collect();
        let members: BTreeMap<u64, Member> = membership
            .members
            .into_iter()
            .map(|member| (member.replica, Member { node: NodeId(member.node), address: member.address }))
            .collect();
        // No membership at all is what a group has before it is initialised.
        if voters.is_empty() && members.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(voters, members).map_err(|error| Invalid::Inconsistent(error.to_string()))
    }
}

impl ToDisk<disk::StoredMembership> for StoredMembership {
    fn to_disk(&self) -> disk::StoredMembership {
        disk::StoredMembership {
            log_id: self.log_id().as_ref().map(LogId::to_disk),
            membership: Some(self.membership().to_disk()),
        }
    }
}

impl FromDisk<disk::StoredMembership> for StoredMembership {
    fn from_disk(stored: disk::StoredMembership) -> Result<Self, Invalid> {
        let log_id = stored.log_id.map(LogId::from_disk).transpose()?;
        Ok(StoredMembership::new(log_id, need("membership", stored.membership)?.read()?))
    }
}

impl ToDisk<disk::LogEntry> for Entry {
    fn to_disk(&self) -> disk::LogEntry {
        use disk::log_entry::Payload as Stored;
        let payload = match &self.payload {
            Payload::Blank => Stored::Blank(disk::Blank {}),
            Payload::Membership(membership) => Stored::Membership(membership.to_disk()),
            Payload::Normal(Proposal::Partition(command)) => Stored::Partition(command.to_disk()),
            Payload::Normal(Proposal::Meta(command)) => Stored::Meta(command.to_disk()),
        };
        disk::LogEntry { id: Some(self.log_id.to_disk()), payload: Some(payload) }
    }
}

impl FromDisk<disk::LogEntry> for Entry {
    fn from_disk(entry: disk::LogEntry) -> Result<Self, Invalid> {
        use disk::log_entry::Payload as Stored;
        let log_id = need("id", entry.id)?.read()?;
        let payload = match need("payload", entry.payload)? {
            Stored::Blank(disk::Blank {}) => Payload::Blank,
            Stored::Membership(membership) => Payload::Membership(membership.read()?),
            Stored::Partition(command) => Payload::Normal(Proposal::Partition(Arc::new(Command::from_disk(command)?))),
            Stored::Meta(command) => Payload::Normal(Proposal::Meta(Arc::new(MetaCommand::from_disk(command)?))),
        };
        Ok(Entry { log_id, payload })
    }
}
