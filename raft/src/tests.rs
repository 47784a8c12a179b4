//! A node's groups from outside: what survives a restart or a crash, who may write, and what a log may lose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_machine::meta::{NodeRecord, Role, Settings};
use callboard_machine::partition::{ActorCommand, ActorOp, Command, Effect, ReminderSpec, StateValue};
use callboard_storage::{LogWriter, Memory, Stores};
use callboard_types::{ActorKey, Epoch, FailurePolicy, NodeId, PartitionId, Timestamp};
use parking_lot::Mutex;

use crate::flusher::FlushPolicy;
use crate::groups::Tuning;
use crate::{Groups, GroupsConfig, NoPeers, Observer, Partition, StartError, Tenure};

mod chaos_test;
mod cluster;
mod flush_test;
mod forgotten_test;
mod lease_test;
mod lifecycle_test;
mod membership_test;
mod meta_test;
mod purge_test;
mod reader_test;
mod replication_test;
mod snapshot_test;
mod suite_test;
mod tenure_test;

pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
pub const NODE: NodeId = NodeId(7);

pub fn config() -> GroupsConfig {
    GroupsConfig {
        node: NODE,
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(700),
        flush_bytes: u64::MAX,
        flush_every: Duration::from_secs(3_600),
        max_proposals: 64,
    }
}

/// Purges whatever may be purged, and outlives a failed commit.
pub fn eager() -> Tuning {
    Tuning {
        flush: FlushPolicy { every: Duration::from_secs(3_600), keep_entries: 0, min_purge: 1 },
        start_writer: |db, config| LogWriter::start_with(db, config, Box::new(|_| ())),
    }
}

pub fn settings(partitions: u32) -> Settings {
    Settings {
        name: "default".to_owned(),
        partitions,
        replicas: 1,
        hash_version: 1,
        ring_version: 1,
        host_lease_ms: 600,
        max_clock_offset_ms: 1_000,
        ephemeral: false,
    }
}

pub fn node_record() -> NodeRecord {
    let (zone, address) = (String::new(), String::new());
    NodeRecord { name: "node".to_owned(), role: Role::Storage, zone, incarnation: 1, address, leaving: false }
}

#[derive(Default)]
pub struct Seen(Mutex<Vec<(PartitionId, Effect)>>);

impl Seen {
    pub fn all(&self) -> Vec<(PartitionId, Effect)> {
        self.0.lock().clone()
    }
}

impl Observer for Seen {
    fn applied(&self, partition: PartitionId, effects: &[Effect]) {
        self.0.lock().extend(effects.iter().map(|effect| (partition, effect.clone())));
    }
}

pub async fn open(stores: Stores) -> Groups {
    open_with(config(), stores).await.expect("the groups open")
}

pub async fn open_with(config: GroupsConfig, stores: Stores) -> Result<Groups, StartError> {
    Groups::open_with(config, eager(), stores, Arc::new(Seen::default()), Arc::new(NoPeers)).await
}

/// A cluster of one, made or found.
pub async fn start(stores: Stores, partitions: u32) -> Groups {
    let groups = open(stores).await;
    if groups.is_empty() {
        groups.bootstrap(settings(partitions), node_record(), NOW).await.expect("the cluster forms");
    }
    groups
}

pub async fn start_in(memory: &Memory, partitions: u32) -> Groups {
    start(memory.open(), partitions).await
}

pub fn first(groups: &Groups) -> Partition {
    groups.partition(PartitionId(0)).expect("partition 0 is here")
}

pub async fn claim(partition: &Partition) -> Tenure {
    partition.claim(1, NOW, Duration::from_secs(1)).await.expect("the claim applies")
}

pub fn actor(id: &str) -> ActorKey {
    ActorKey::new("default", "cat", id)
}

pub fn command(epoch: Epoch, actor: ActorKey, ops: Vec<ActorOp>) -> Command {
    Command::Actor(ActorCommand { epoch, actor, write: None, now: NOW, ops })
}

pub fn upsert(key: &str, value: impl Into<Bytes>) -> ActorOp {
    ActorOp::Upsert { key: key.to_owned(), value: value.into(), expires_at: None }
}

pub fn value(value: &'static str) -> StateValue {
    StateValue { value: Bytes::from_static(value.as_bytes()), expires_at: None }
}

pub fn put_reminder(name: &str, due: Timestamp) -> ActorOp {
    let spec = ReminderSpec {
        data: Some(Bytes::from_static(b"{\"food\":\"fish\"}")),
        due_time: "10s".to_owned(),
        period: "1m".to_owned(),
        ttl: String::new(),
        repeats: Some(3),
        expires_at: Some(Timestamp::MAX),
        policy: FailurePolicy::default(),
    };
    ActorOp::PutReminder { name: name.to_owned(), spec, due, overwrite: true }
}
