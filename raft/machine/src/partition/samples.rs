//! What the tests of this module build their commands and partitions from.

use bytes::Bytes;
use callboard_types::{Activation, ActorKey, Epoch, FailurePolicy, NodeId, ReplicaId, Timestamp, WriteNumber};

use super::{
    ActorCommand, ActorOp, Claim, Command, MemoryTables, Outcome, Reminder, ReminderSpec, Response, Tables, apply,
};

pub(super) const SECOND: i64 = 1_000_000;

/// A partition and the log that made it.
pub(super) struct Partition {
    pub tables: MemoryTables,
    pub index: u64,
}

impl Partition {
    /// Claimed `epochs` times, at clock zero.
    pub(super) fn claimed(epochs: u64) -> Self {
        let mut partition = Self { tables: MemoryTables::default(), index: 0 };
        for nonce in 1..=epochs {
            assert_eq!(partition.apply(&claim(nonce, 0)).response, Response::Claimed { epoch: Epoch(nonce) });
        }
        partition
    }

    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let Ok(outcome) = apply(&mut self.tables, self.index, command);
        outcome
    }

    /// Applies a command that must leave every row as it is.
    pub(super) fn apply_in_vain(&mut self, command: &Command) -> Outcome {
        let before = self.tables.clone();
        let outcome = self.apply(command);
        assert_eq!(self.tables, before, "{command:?} wrote");
        assert_eq!(outcome.effects, [], "{command:?} had an effect");
        outcome
    }

    /// Applies operations of the owner at epoch 1, and returns the outcome.
    pub(super) fn run(&mut self, ops: Vec<ActorOp>) -> Outcome {
        self.apply(&owners(1, ops))
    }

    pub(super) fn value(&self, key: &str) -> Option<Bytes> {
        let Ok(value) = self.tables.state(&cat(), key);
        value.map(|value| value.value)
    }

    pub(super) fn reminder(&self, name: &str) -> Option<Reminder> {
        let Ok(reminder) = self.tables.reminder(&cat(), name);
        reminder
    }

    pub(super) fn clock(&self) -> Timestamp {
        let Ok(clock) = self.tables.clock();
        clock
    }
}

pub(super) fn cat() -> ActorKey {
    ActorKey::new("default", "cat", "hobbit")
}

pub(super) fn claim(nonce: u64, now: i64) -> Command {
    Command::Claim(Claim {
        node: NodeId(7),
        replica: ReplicaId(3),
        nonce,
        now: Timestamp(now),
        max_clock_offset_micros: SECOND as u64,
    })
}

/// The owner's own command: without a write number.
pub(super) fn owners(epoch: u64, ops: Vec<ActorOp>) -> Command {
    Command::Actor(ActorCommand { epoch: Epoch(epoch), actor: cat(), write: None, now: Timestamp(0), ops })
}

/// A command of an activation.
pub(super) fn write(epoch: u64, activation: u64, number: u64, ops: Vec<ActorOp>) -> Command {
    let write = Some((Activation(activation), WriteNumber(number)));
    Command::Actor(ActorCommand { epoch: Epoch(epoch), actor: cat(), write, now: Timestamp(0), ops })
}

pub(super) fn at(now: i64, command: Command) -> Command {
    match command {
        Command::Actor(command) => Command::Actor(ActorCommand { now: Timestamp(now), ..command }),
        Command::Claim(claim) => Command::Claim(Claim { now: Timestamp(now), ..claim }),
        Command::Noop { epoch } => Command::Noop { epoch },
    }
}

pub(super) fn upsert(key: &str, value: &'static str) -> ActorOp {
    ActorOp::Upsert { key: key.to_owned(), value: Bytes::from_static(value.as_bytes()), expires_at: None }
}

pub(super) fn delete(key: &str) -> ActorOp {
    ActorOp::Delete { key: key.to_owned() }
}

pub(super) fn spec(period: &str) -> ReminderSpec {
    ReminderSpec {
        data: None,
        due_time: "1s".to_owned(),
        period: period.to_owned(),
        ttl: String::new(),
        repeats: None,
        expires_at: None,
        policy: FailurePolicy::default(),
    }
}

pub(super) fn put_reminder(name: &str, due: i64, overwrite: bool) -> ActorOp {
    ActorOp::PutReminder { name: name.to_owned(), spec: spec("1s"), due: Timestamp(due), overwrite }
}

pub(super) fn delete_reminder(name: &str) -> ActorOp {
    ActorOp::DeleteReminder { name: name.to_owned() }
}

pub(super) fn fired(name: &str, generation: u64, occurrence: u64, next: Option<i64>) -> ActorOp {
    ActorOp::ReminderFired { name: name.to_owned(), generation, occurrence, next: next.map(Timestamp) }
}

pub(super) fn dropped(name: &str, generation: u64, occurrence: u64, next: Option<i64>) -> ActorOp {
    let reason = "the app answered 500".to_owned();
    ActorOp::ReminderDropped { name: name.to_owned(), generation, occurrence, next: next.map(Timestamp), reason }
}
