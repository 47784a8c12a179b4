//! A partition's commands, and the parts of them that are stored as rows too.

use callboard_machine::partition::{ActorCommand, ActorOp, Claim, Command, Rejection, ReminderSpec, Response};
use callboard_proto::disk;
use callboard_types::{Activation, ActorKey, Epoch, FailurePolicy, NodeId, ReplicaId, Timestamp, WriteNumber};

use super::{FromDisk, Invalid, ReadAs, ToDisk, need, stores};

stores! {
    ActorCommand => ActorCommand,
}

pub fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_micros)
}

pub fn instant(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp::from_micros)
}

pub fn actor_to_disk(actor: &ActorKey) -> disk::ActorKey {
    disk::ActorKey {
        namespace: actor.namespace.as_ref().into(),
        actor_type: actor.actor_type.as_ref().into(),
        actor_id: actor.actor_id.as_ref().into(),
    }
}

pub fn actor_from_disk(actor: disk::ActorKey) -> ActorKey {
    ActorKey::new(actor.namespace, actor.actor_type, actor.actor_id)
}

impl ToDisk<disk::PartitionCommand> for Command {
    fn to_disk(&self) -> disk::PartitionCommand {
        use disk::partition_command::Command as Stored;
        let command = match self {
            Command::Claim(claim) => Stored::Claim(disk::Claim {
                node: claim.node.0,
                replica: claim.replica.0,
                nonce: claim.nonce,
                now: claim.now.as_micros(),
                max_clock_offset_micros: claim.max_clock_offset_micros,
            }),
            Command::Actor(command) => Stored::Actor(command.to_disk()),
            Command::Noop { epoch } => Stored::Noop(disk::Noop { epoch: epoch.0 }),
        };
        disk::PartitionCommand { command: Some(command) }
    }
}

impl FromDisk<disk::PartitionCommand> for Command {
    fn from_disk(command: disk::PartitionCommand) -> Result<Self, Invalid> {
        use disk::partition_command::Command as Stored;
        Ok(match need("partition command", command.command)? {
            Stored::Claim(claim) => Command::Claim(Claim {
                node: NodeId(claim.node),
                replica: ReplicaId(claim.replica),
                nonce: claim.nonce,
                now: Timestamp::from_micros(claim.now),
                max_clock_offset_micros: claim.max_clock_offset_micros,
            }),
            Stored::Actor(command) => Command::Actor(command.read()?),
            Stored::Noop(noop) => Command::Noop { epoch: Epoch(noop.epoch) },
        })
    }
}

impl ToDisk<disk::ActorCommand> for ActorCommand {
    fn to_disk(&self) -> disk::ActorCommand {
        disk::ActorCommand {
            epoch: self.epoch.0,
            actor: Some(actor_to_disk(&self.actor)),
            write: self.write.map(|(activation, number)| disk::WriteId { activation: activation.0, number: number.0 }),
            now: self.now.as_micros(),
            ops: self.ops.iter().map(ActorOp::to_disk).collect(),
        }
    }
}

impl FromDisk<disk::ActorCommand> for ActorCommand {
    fn from_disk(command: disk::ActorCommand) -> Result<Self, Invalid> {
        Ok(Self {
            epoch: Epoch(command.epoch),
            actor: actor_from_disk(need("actor", command.actor)?),
            write: command.write.map(|write| (Activation(write.activation), WriteNumber(write.number))),
            now: Timestamp::from_micros(command.now),
            ops: command.ops.into_iter().map(ActorOp::from_disk).collect::<Result<_, _>>()?,
        })
    }
}

impl ToDisk<disk::ActorOp> for ActorOp {
    fn to_disk(&self) -> disk::ActorOp {
        use disk::actor_op::Op;
        let op = match self {
            ActorOp::Upsert { key, value, expires_at } => {
                Op::Upsert(disk::Upsert { key: key.clone(), value: value.clone(), expires_at: micros(*expires_at) })
            }
            ActorOp::Delete { key } => Op::Delete(disk::Delete { key: key.clone() }),
            ActorOp::PutReminder { name, spec, due, overwrite } => Op::PutReminder(disk::PutReminder {
                name: name.clone(),
                spec: Some(spec.to_disk()),
                due: due.as_micros(),
                overwrite: *overwrite,
            }),
            ActorOp::DeleteReminder { name } => Op::DeleteReminder(disk::DeleteReminder { name: name.clone() }),
            ActorOp::ReminderFired { name, generation, occurrence, next } => Op::ReminderFired(disk::ReminderFired {
                name: name.clone(),
                generation: *generation,
                occurrence: *occurrence,
                next: micros(*next),
            }),
            ActorOp::ReminderDropped { name, generation, occurrence, next, reason } => {
                Op::ReminderDropped(disk::ReminderDropped {
                    name: name.clone(),
                    generation: *generation,
                    occurrence: *occurrence,
                    next: micros(*next),
                    reason: reason.clone(),
                })
            }
            ActorOp::DeleteActor => Op::DeleteActor(disk::DeleteActor {}),
        };
        disk::ActorOp { op: Some(op) }
    }
}

impl FromDisk<disk::ActorOp> for ActorOp {
    fn from_disk(op: disk::ActorOp) -> Result<Self, Invalid> {
        use disk::actor_op::Op;
        Ok(match need("operation", op.op)? {
            Op::Upsert(upsert) => {
                ActorOp::Upsert { key: upsert.key, value: upsert.value, expires_at: instant(upsert.expires_at) }
            }
            Op::Delete(delete) => ActorOp::Delete { key: delete.key },
            Op::PutReminder(put) => ActorOp::PutReminder {
                name: put.name,
                spec: need("reminder spec", put.spec)?.read()?,
                due: Timestamp::from_micros(put.due),
                overwrite: put.overwrite,
            },
            Op::DeleteReminder(delete) => ActorOp::DeleteReminder { name: delete.name },
            Op::ReminderFired(fired) => ActorOp::ReminderFired {
                name: fired.name,
                generation: fired.generation,
                occurrence: fired.occurrence,
                next: instant(fired.next),
            },
            Op::ReminderDropped(dropped) => ActorOp::ReminderDropped {
                name: dropped.name,
                generation: dropped.generation,
                occurrence: dropped.occurrence,
                next: instant(dropped.next),
                reason: dropped.reason,
            },
            Op::DeleteActor(disk::DeleteActor {}) => ActorOp::DeleteActor,
        })
    }
}

impl ToDisk<disk::ReminderSpec> for ReminderSpec {
    fn to_disk(&self) -> disk::ReminderSpec {
        use disk::failure_policy::Policy;
        let policy = match self.policy {
            FailurePolicy::Drop => Policy::Drop(disk::DropPolicy {}),
            FailurePolicy::Constant { interval_micros, max_retries } => {
                Policy::Constant(disk::ConstantPolicy { interval_micros, max_retries })
            }
        };
        disk::ReminderSpec {
            data: self.data.clone(),
            due_time: self.due_time.clone(),
            period: self.period.clone(),
            ttl: self.ttl.clone(),
            repeats: self.repeats,
            expires_at: micros(self.expires_at),
            policy: Some(disk::FailurePolicy { policy: Some(policy) }),
        }
    }
}

impl FromDisk<disk::ReminderSpec> for ReminderSpec {
    fn from_disk(spec: disk::ReminderSpec) -> Result<Self, Invalid> {
        use disk::failure_policy::Policy;
        let policy = match need("failure policy", spec.policy.and_then(|policy| policy.policy))? {
            Policy::Drop(disk::DropPolicy {}) => FailurePolicy::Drop,
            Policy::Constant(constant) => {
                FailurePolicy::Constant { interval_micros: constant.interval_micros, max_retries: constant.max_retries }
            }
        };
        Ok(Self {
            data: spec.data,
            due_time: spec.due_time,
            period: spec.period,
            ttl: spec.ttl,
            repeats: spec.repeats,
            expires_at: instant(spec.expires_at),
            policy,
        })
    }
}

impl ToDisk<disk::Response> for Response {
    fn to_disk(&self) -> disk::Response {
        use disk::response::Response as Stored;
        let response = match self {
            Response::Claimed { epoch } => Stored::Claimed(disk::Claimed { epoch: epoch.0 }),
            Response::Done => Stored::Done(disk::Done {}),
            Response::Fenced { current } => Stored::Fenced(disk::Fenced { current: current.0 }),
            Response::Rejected(Rejection::ReminderExists { name }) => {
                Stored::ReminderExists(disk::ReminderExists { name: name.clone() })
            }
            Response::Rejected(Rejection::StaleWrite { given, last }) => {
                Stored::StaleWrite(disk::StaleWrite { given: *given, last: *last })
            }
        };
        disk::Response { response: Some(response) }
    }
}

impl FromDisk<disk::Response> for Response {
    fn from_disk(response: disk::Response) -> Result<Self, Invalid> {
        use disk::response::Response as Stored;
        Ok(match need("response", response.response)? {
            Stored::Claimed(claimed) => Response::Claimed { epoch: Epoch(claimed.epoch) },
            Stored::Done(disk::Done {}) => Response::Done,
            Stored::Fenced(fenced) => Response::Fenced { current: Epoch(fenced.current) },
            Stored::ReminderExists(exists) => Response::Rejected(Rejection::ReminderExists { name: exists.name }),
            Stored::StaleWrite(stale) => {
                Response::Rejected(Rejection::StaleWrite { given: stale.given, last: stale.last })
            }
        })
    }
}
