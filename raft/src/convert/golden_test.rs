//! The bytes of every record. A change here is a change of the disk format.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use callboard_machine::meta::{MetaCommand, MetaRow, NodeRecord, PartitionRecord, Placement, Role, Settings};
use callboard_machine::partition::{
    ActorCommand, ActorOp, Claim, Command, DroppedFiring, LastWrite, Ownership, Rejection, Reminder, ReminderSpec,
    Response,
};
use callboard_storage::Table;
use callboard_types::{
    Activation, ActorKey, ClusterId, Epoch, FailurePolicy, GroupId, NodeId, PartitionId, ReplicaId, Timestamp,
    WriteNumber,
};
use proptest::prelude::*;

use super::{
    Chunk, ClockRecord, DroppedCount, MetaCopyRecord, ReplicaRecord, Storable, decode_meta_row, encode_meta_key,
    encode_meta_row,
};
use crate::type_config::{
    Entry, LeaderId, LogId, Member, Membership, Payload, Proposal, StoredMembership, Vote, log_id,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tom() -> ActorKey {
    ActorKey::new("default", "cat", "tom")
}

fn membership() -> Membership {
    let member = |node| Member { node: NodeId(node), address: format!("10.0.0.{node}:50002") };
    let voters = vec![BTreeSet::from([1, 2])];
    Membership::new(voters, BTreeMap::from([(1, member(7)), (2, member(8)), (3, member(9))])).unwrap()
}

fn spec(policy: FailurePolicy) -> ReminderSpec {
    ReminderSpec {
        data: Some(Bytes::from_static(b"\"fish\"")),
        due_time: "10s".into(),
        period: "R3/PT1M".into(),
        ttl: "1h".into(),
        repeats: Some(3),
        expires_at: Some(Timestamp(9)),
        policy,
    }
}

fn reminder(policy: FailurePolicy) -> Reminder {
    let (due, registered) = (Timestamp(1_700_000_000_000_001), Timestamp(1_700_000_000_000_000));
    Reminder { spec: spec(policy), generation: 12, occurrence: 2, due, registered, dropped: 1 }
}

fn settings() -> Settings {
    Settings {
        name: "default".into(),
        partitions: 16,
        replicas: 3,
        hash_version: 1,
        ring_version: 2,
        host_lease_ms: 600,
        max_clock_offset_ms: 1_000,
        ephemeral: true,
    }
}

fn node() -> NodeRecord {
    let (address, leaving) = (String::new(), false);
    NodeRecord { name: "n".into(), role: Role::Storage, zone: "z".into(), incarnation: 4, address, leaving }
}

fn leaving_node() -> NodeRecord {
    NodeRecord { address: "10.0.0.7:50002".into(), leaving: true, ..node() }
}

fn placement() -> Placement {
    Placement { node: NodeId(7), replica: ReplicaId(3), learner: false }
}

fn learner() -> Placement {
    Placement { node: NodeId(8), replica: ReplicaId(4), learner: true }
}

fn every_op() -> Vec<ActorOp> {
    let name = || "feed".to_owned();
    vec![
        ActorOp::Upsert { key: "food".into(), value: Bytes::from_static(b"fish"), expires_at: Some(Timestamp(-5)) },
        ActorOp::Delete { key: "old".into() },
        ActorOp::PutReminder { name: name(), spec: spec(FailurePolicy::Drop), due: Timestamp(7), overwrite: true },
        ActorOp::DeleteReminder { name: name() },
        ActorOp::ReminderFired { name: name(), generation: 1, occurrence: 2, next: Some(Timestamp(3)) },
        ActorOp::ReminderDropped { name: name(), generation: 1, occurrence: 2, next: None, reason: "no".into() },
        ActorOp::DeleteActor,
    ]
}

fn every_command() -> Vec<Command> {
    let claim = Claim {
        node: NodeId(7),
        replica: ReplicaId(3),
        nonce: 99,
        now: Timestamp(1_700_000_000_000_000),
        max_clock_offset_micros: 1_000_000,
    };
    let write = Some((Activation(5), WriteNumber(6)));
    vec![
        Command::Claim(claim),
        Command::Actor(ActorCommand { epoch: Epoch(4), actor: tom(), write, now: Timestamp(8), ops: every_op() }),
        Command::Noop { epoch: Epoch(4) },
    ]
}

fn every_meta_command() -> Vec<MetaCommand> {
    let cluster = ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    vec![
        MetaCommand::Bootstrap { cluster, settings: settings(), now: Timestamp(5) },
        MetaCommand::PutNode { node: NodeId(7), record: node() },
        MetaCommand::RemoveNode { node: NodeId(7) },
        MetaCommand::Place { partition: PartitionId(2), version: 1, replicas: vec![placement()] },
        MetaCommand::RegisterTypes { namespace: "d".into(), app_id: "zoo".into(), types: vec!["cat".into()] },
        MetaCommand::GroupInitialized { partition: PartitionId(2) },
        MetaCommand::PutNode { node: NodeId(7), record: leaving_node() },
        MetaCommand::PlaceMeta { version: 2, replicas: vec![placement(), learner()] },
        MetaCommand::Settled { group: GroupId::Partition(PartitionId(2)), version: 1 },
        MetaCommand::Settled { group: GroupId::Meta, version: 1 },
        MetaCommand::RaiseGeneration { generation: 3 },
    ]
}

fn every_payload() -> Vec<Payload> {
    let partition = every_command().into_iter().map(|command| Payload::Normal(Proposal::Partition(Arc::new(command))));
    let meta = every_meta_command().into_iter().map(|command| Payload::Normal(Proposal::Meta(Arc::new(command))));
    [Payload::Blank, Payload::Membership(membership())].into_iter().chain(partition).chain(meta).collect()
}

fn every_meta_row() -> Vec<MetaRow> {
    let record = PartitionRecord { version: 5, replicas: vec![placement()], initialized: true, settled: 0 };
    let moving = PartitionRecord { replicas: vec![placement(), learner()], settled: 4, ..record.clone() };
    let cluster = |generation| MetaRow::Cluster {
        cluster: ClusterId(u128::MAX - 1),
        settings: settings(),
        next_replica: 17,
        generation,
    };
    vec![
        cluster(0),
        MetaRow::Node(NodeId(7), node()),
        MetaRow::Partition(PartitionId(2), record),
        MetaRow::Type { namespace: "d".into(), actor_type: "cat".into(), app_id: "zoo".into() },
        cluster(3),
        MetaRow::Node(NodeId(7), leaving_node()),
        MetaRow::Partition(PartitionId(2), moving.clone()),
        MetaRow::Meta(moving),
    ]
}

/// Name and bytes of each record, checked to be read back as they were.
#[derive(Default)]
struct Records(String);

impl Records {
    fn add<T: Storable + PartialEq + Debug>(&mut self, name: &str, value: &T) {
        let record = value.encode();
        assert_eq!(&T::decode(&record).unwrap(), value);
        self.line(name, &record);
    }

    fn line(&mut self, name: &str, bytes: &[u8]) {
        self.0.extend([name, " ", &hex(bytes), "\n"]);
    }
}

fn add_raft(records: &mut Records) {
    for (number, payload) in every_payload().into_iter().enumerate() {
        records.add(&format!("log entry {number}"), &Entry { log_id: log_id(3, 300), payload });
    }
    records.add("log id", &log_id(3, 300));
    records.add("vote", &Vote { leader_id: LeaderId { term: 3, voted_for: 1 }, committed: true });
    records.add("membership", &StoredMembership::new(Some(log_id(3, 300)), membership()));
    records.add("no membership", &StoredMembership::default());
    records.add("replica", &ReplicaRecord { replica: 3, incarnation: 5, dropped: false });
    records.add("dropped replica", &ReplicaRecord { replica: 3, incarnation: 5, dropped: true });
}

fn add_partition(records: &mut Records) {
    records.add("reminder, drop", &reminder(FailurePolicy::Drop));
    let forever = FailurePolicy::Constant { interval_micros: 5, max_retries: None };
    records.add("reminder, retry for ever", &reminder(forever));
    records.add("reminder, default", &reminder(FailurePolicy::default()));
    let firing = DroppedFiring {
        actor: tom(),
        name: "feed".into(),
        generation: 12,
        occurrence: 2,
        due: Timestamp(7),
        dropped_at: Timestamp(8),
        reason: "no".into(),
    };
    records.add("dropped firing", &firing);
    let owner = Ownership { epoch: Epoch(4), node: NodeId(7), replica: ReplicaId(3), nonce: 99 };
    records.add("ownership", &owner);
    records.add("clock", &ClockRecord(Timestamp(1_700_000_000_000_000)));
    records.add("dropped count", &DroppedCount(5));
    let responses = [
        Response::Done,
        Response::Claimed { epoch: Epoch(4) },
        Response::Fenced { current: Epoch(9) },
        Response::Rejected(Rejection::ReminderExists { name: "feed".into() }),
        Response::Rejected(Rejection::StaleWrite { given: 1, last: 2 }),
    ];
    for (number, response) in responses.into_iter().enumerate() {
        let last = LastWrite { epoch: Epoch(4), activation: Activation(5), number: WriteNumber(6), response };
        records.add(&format!("last write {number}"), &last);
    }
}

fn add_meta(records: &mut Records) {
    for row in every_meta_row() {
        let (table, name, value) = encode_meta_row(&row);
        assert_eq!(encode_meta_key(&row.key()), (table, name.clone()));
        assert_eq!(decode_meta_row(table, &value).unwrap(), row);
        records.line(&format!("meta key {table}"), &name);
        records.line(&format!("meta row {table}"), &value);
    }
    records.add("meta copy", &MetaCopyRecord { incarnation: 6 });
}

fn add_snapshot(records: &mut Records) {
    let row = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
    records.add("snapshot rows", &Chunk::Rows { table: Table::Reminder, rows: vec![row] });
    records.add("snapshot end", &Chunk::End { rows: 1 });
}

#[test]
fn every_record_keeps_its_bytes() {
    let mut records = Records::default();
    add_raft(&mut records);
    add_partition(&mut records);
    add_meta(&mut records);
    add_snapshot(&mut records);
    assert_eq!(records.0, include_str!("golden.txt"));
}

#[test]
fn a_record_of_a_later_version_is_refused_and_names_it() {
    let mut record = log_id(3, 300).encode().to_vec();
    record[0] = 2;
    let refused = LogId::decode(&record).unwrap_err().to_string();
    assert_eq!(refused, "unreadable log id: version 2; this program reads up to 1");
}

#[test]
fn a_record_without_what_it_needs_is_refused() {
    let empty = [1];
    assert!(Entry::decode(&empty).is_err());
    assert!(Reminder::decode(&empty).is_err());
    assert!(DroppedFiring::decode(&empty).is_err());
    assert!(LastWrite::decode(&empty).is_err());
    assert!(StoredMembership::decode(&empty).is_err());
    assert!([1, 2, 3, 5].into_iter().all(|table| decode_meta_row(table, &empty).is_err()));
    assert!(decode_meta_row(9, &empty).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(mut data in prop::collection::vec(any::<u8>(), 0..200)) {
        super::fuzz_records(&data);
        crate::fuzz_snapshot(&data);
        // The same behind a valid version byte.
        data.insert(0, 1);
        super::fuzz_records(&data);
    }

    #[test]
    fn a_damaged_record_is_decoded_or_refused(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let entries = every_payload().into_iter().map(|payload| Entry { log_id: log_id(3, 300), payload }.encode());
        let rows = every_meta_row().into_iter().map(|row| encode_meta_row(&row).2);
        let others = [reminder(FailurePolicy::default()).encode(), StoredMembership::new(None, membership()).encode()];
        let records: Vec<Bytes> = entries.chain(rows).chain(others).collect();
        let mut record = which.get(&records).to_vec();
        let at = at.index(record.len());
        record[at] = to;
        super::fuzz_records(&record);
        record.truncate(at);
        super::fuzz_records(&record);
    }
}
