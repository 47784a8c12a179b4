//! Applying one entry of the meta log.
//!
//! Each command is checked whole before anything changes. An accepted one names the rows it changed, once each; a
//! command that changes nothing (a repeat) names none.
//!
//! # Invariants
//!
//! - A replica id is handed out once: a placement that is not in the partition's record has an id that no record ever
//!   had, because every accepted one moves `next_replica` past it.
//! - Every node that holds a replica is in the registry.
//! - A partition's record exists from bootstrap on, and its table version rises by one with each placement.
//! - A row is never settled beyond its version, and never less than before.
//! - The recovery generation never falls.

use std::collections::BTreeSet;

use callboard_types::{ClusterId, GroupId, NodeId, PartitionId};

use super::command::{FIRST_META_REPLICA, MetaCommand, MetaRejection, MetaResponse};
use super::row::MetaKey;
use super::state::{MetaState, NodeRecord, PartitionRecord, Placement, Role, Settings};
use crate::limits;

/// The rows that changed, or why none did.
type Applied = Result<Vec<MetaKey>, MetaRejection>;

impl MetaState {
    /// Applies one command and names the rows that changed. Never panics; a rejected command changes nothing.
    pub fn apply(&mut self, command: &MetaCommand) -> (MetaResponse, Vec<MetaKey>) {
        let applied = match command {
            MetaCommand::Bootstrap { cluster, settings, now: _ } => self.bootstrap(*cluster, settings),
            MetaCommand::PutNode { node, record } => self.put_node(*node, record),
            MetaCommand::RemoveNode { node } => self.remove_node(*node),
            MetaCommand::Place { partition, version, replicas } => {
                self.place(GroupId::Partition(*partition), *version, replicas)
            }
            MetaCommand::RegisterTypes { namespace, app_id, types } => self.register_types(namespace, app_id, types),
            MetaCommand::GroupInitialized { partition } => self.group_initialized(*partition),
            MetaCommand::PlaceMeta { version, replicas } => self.place(GroupId::Meta, *version, replicas),
            MetaCommand::Settled { group, version } => self.settled(*group, *version),
            MetaCommand::RaiseGeneration { generation } => self.raise_generation(*generation),
        };
        match applied {
            Ok(dirty) => (MetaResponse::Done, dirty),
            Err(rejection) => (MetaResponse::Rejected(rejection), Vec::new()),
        }
    }

    fn bootstrap(&mut self, cluster: ClusterId, settings: &Settings) -> Applied {
        if self.cluster.is_some() {
            return Err(MetaRejection::AlreadyBootstrapped);
        }
        check_settings(settings)?;
        self.cluster = Some(cluster);
        self.settings = Some(settings.clone());
        self.next_replica = 1;
        self.partitions = (0..settings.partitions).map(|p| (PartitionId(p), PartitionRecord::default())).collect();
        let partitions = self.partitions.keys().copied().map(MetaKey::Partition);
        Ok(std::iter::once(MetaKey::Cluster).chain(partitions).collect())
    }

    fn put_node(&mut self, node: NodeId, record: &NodeRecord) -> Applied {
        self.check_bootstrapped()?;
        check_name("node name", &record.name)?;
        check_optional_name("zone", &record.zone)?;
        check_optional_name("address", &record.address)?;
        if self.nodes.get(&node) == Some(record) {
            return Ok(Vec::new());
        }
        if !self.nodes.contains_key(&node) && self.nodes.len() >= limits::MAX_NODES {
            return Err(MetaRejection::TooMany { what: "nodes".into(), limit: limits::MAX_NODES });
        }
        self.nodes.insert(node, record.clone());
        Ok(vec![MetaKey::Node(node)])
    }

    fn remove_node(&mut self, node: NodeId) -> Applied {
        self.check_bootstrapped()?;
        if let Some((group, _)) = self.placement_rows().find(|(_, record)| record.on(node).is_some()) {
            return Err(MetaRejection::NodeInUse { node, group });
        }
        Ok(self.nodes.remove(&node).map(|_| MetaKey::Node(node)).into_iter().collect())
    }

    fn place(&mut self, group: GroupId, version: u64, replicas: &[Placement]) -> Applied {
        self.check_bootstrapped()?;
        let stored = self.row_mut(group)?;
        if stored.version.checked_add(1) != Some(version) {
            return Err(MetaRejection::StaleTable { given: version, stored: stored.version });
        }
        let held = stored.replicas.clone();
        self.check_nodes_of(replicas)?;
        let is_held = |placed: &Placement| held.iter().any(|held| held.is_same_replica(placed));
        // The replica that formed the meta group has an id that nobody handed out.
        let formed =
            |placed: &Placement| group == GroupId::Meta && version == 1 && placed.replica == FIRST_META_REPLICA;
        let fresh: Vec<_> = replicas.iter().copied().filter(|placed| !is_held(placed) && !formed(placed)).collect();
        let next_replica = self.hand_out(&fresh)?;
        let row = self.row_mut(group)?;
        (row.version, row.replicas) = (version, replicas.to_vec());
        let mut dirty = vec![row_key(group)];
        if next_replica != self.next_replica {
            self.next_replica = next_replica;
            dirty.push(MetaKey::Cluster);
        }
        Ok(dirty)
    }

    fn settled(&mut self, group: GroupId, version: u64) -> Applied {
        self.check_bootstrapped()?;
        let row = self.row_mut(group)?;
        if version > row.version {
            return Err(MetaRejection::NotPlaced { group, given: version, stored: row.version });
        }
        if version <= row.settled {
            return Ok(Vec::new());
        }
        row.settled = version;
        Ok(vec![row_key(group)])
    }

    fn raise_generation(&mut self, generation: u64) -> Applied {
        self.check_bootstrapped()?;
        let stored = self.generation;
        if generation < stored {
            return Err(MetaRejection::GenerationFalls { given: generation, stored });
        }
        self.generation = generation;
        Ok(if generation == stored { Vec::new() } else { vec![MetaKey::Cluster] })
    }

    fn row_mut(&mut self, group: GroupId) -> Result<&mut PartitionRecord, MetaRejection> {
        match group {
            GroupId::Meta => Ok(&mut self.meta),
            GroupId::Partition(partition) => {
                self.partitions.get_mut(&partition).ok_or(MetaRejection::UnknownPartition(partition))
            }
        }
    }

    fn register_types(&mut self, namespace: &str, app_id: &str, types: &[String]) -> Applied {
        self.check_bootstrapped()?;
        check_name("app id", app_id)?;
        check_name_within("namespace", namespace, 0..=limits::MAX_NAMESPACE_BYTES)?;
        for actor_type in types {
            check_name_within("actor type", actor_type, 1..=limits::MAX_ACTOR_TYPE_BYTES)?;
        }
        let keys: BTreeSet<_> = types.iter().map(|actor_type| (namespace.to_owned(), actor_type.clone())).collect();
        let unknown: Vec<_> = keys.into_iter().filter(|key| !self.types.contains_key(key)).collect();
        if self.types.len().saturating_add(unknown.len()) > limits::MAX_TYPES {
            return Err(MetaRejection::TooMany { what: "actor types".into(), limit: limits::MAX_TYPES });
        }
        self.types.extend(unknown.iter().map(|key| (key.clone(), app_id.to_owned())));
        Ok(unknown.into_iter().map(|(namespace, actor_type)| MetaKey::Type { namespace, actor_type }).collect())
    }

    /// A group is initialised by the one replica it is placed on, so its membership is what the row says.
    fn group_initialized(&mut self, partition: PartitionId) -> Applied {
        self.check_bootstrapped()?;
        let record = self.row_mut(GroupId::Partition(partition))?;
        if record.initialized {
            return Ok(Vec::new());
        }
        record.initialized = true;
        record.settled = record.version;
        Ok(vec![MetaKey::Partition(partition)])
    }

    fn check_bootstrapped(&self) -> Result<(), MetaRejection> {
        self.cluster.map(|_| ()).ok_or(MetaRejection::NotBootstrapped)
    }

    fn check_nodes_of(&self, replicas: &[Placement]) -> Result<(), MetaRejection> {
        if replicas.is_empty() || replicas.len() > limits::MAX_PLACEMENTS {
            return Err(MetaRejection::ReplicaCount { given: replicas.len(), max: limits::MAX_PLACEMENTS });
        }
        if replicas.iter().all(|placed| placed.learner) {
            return Err(MetaRejection::NoVoter);
        }
        let mut seen = BTreeSet::new();
        for placed in replicas {
            if !self.nodes.contains_key(&placed.node) {
                return Err(MetaRejection::UnknownNode(placed.node));
            }
            if !seen.insert(placed.node) {
                return Err(MetaRejection::NodeTwice(placed.node));
            }
        }
        Ok(())
    }

    /// What `next_replica` becomes. The rule "a replica id is never reused": each fresh replica has its own id at or
    /// above `next_replica`, which then moves past all of them. A node that has turned gateway keeps what it holds but
    /// is given nothing more.
    fn hand_out(&self, fresh: &[Placement]) -> Result<u64, MetaRejection> {
        let mut next = self.next_replica;
        let mut seen = BTreeSet::new();
        for placed in fresh {
            if self.nodes.get(&placed.node).is_none_or(|record| record.role != Role::Storage) {
                return Err(MetaRejection::NotStorage(placed.node));
            }
            let not_fresh = MetaRejection::ReplicaNotFresh { given: placed.replica, next: self.next_replica };
            if placed.replica.0 < self.next_replica || !seen.insert(placed.replica) {
                return Err(not_fresh);
            }
            next = next.max(placed.replica.0.checked_add(1).ok_or(not_fresh)?);
        }
        Ok(next)
    }
}

fn check_settings(settings: &Settings) -> Result<(), MetaRejection> {
    let invalid = |why: String| Err(MetaRejection::InvalidSetting(why));
    check_name("cluster name", &settings.name)?;
    if !(1..=limits::MAX_PARTITIONS).contains(&settings.partitions) {
        return invalid(format!("partitions is {}, not 1 to {}", settings.partitions, limits::MAX_PARTITIONS));
    }
    if settings.replicas.is_multiple_of(2) || settings.replicas > limits::MAX_REPLICAS {
        return invalid(format!("replicas is {}, not odd and 1 to {}", settings.replicas, limits::MAX_REPLICAS));
    }
    if !(1..=limits::MAX_SETTING_MS).contains(&settings.host_lease_ms) {
        return invalid(format!("host lease is {} ms, not 1 to {}", settings.host_lease_ms, limits::MAX_SETTING_MS));
    }
    if !(1..=limits::MAX_SETTING_MS).contains(&settings.max_clock_offset_ms) {
        let given = settings.max_clock_offset_ms;
        return invalid(format!("clock offset is {given} ms, not 1 to {}", limits::MAX_SETTING_MS));
    }
    Ok(())
}

fn check_name(what: &'static str, name: &str) -> Result<(), MetaRejection> {
    check_name_within(what, name, 1..=limits::MAX_META_NAME_BYTES)
}

fn check_optional_name(what: &'static str, name: &str) -> Result<(), MetaRejection> {
    check_name_within(what, name, 0..=limits::MAX_META_NAME_BYTES)
}

fn check_name_within(
    what: &'static str,
    name: &str,
    bytes: std::ops::RangeInclusive<usize>,
) -> Result<(), MetaRejection> {
    if !bytes.contains(&name.len()) {
        return Err(MetaRejection::InvalidName { what: what.into(), limit: *bytes.end() });
    }
    Ok(())
}

fn row_key(group: GroupId) -> MetaKey {
    match group {
        GroupId::Meta => MetaKey::Meta,
        GroupId::Partition(partition) => MetaKey::Partition(partition),
    }
}
