//! Every bound of the machines' content, on one page.
//!
//! Two kinds. What only the machine can bound, it bounds while applying: rows it keeps, texts it stores for people.
//! What a caller sends is refused at the ingress by [`check`], *before* it is proposed: a committed command of any size
//! is applied, since refusing it by a limit that a later version moves would make replicas of two versions differ.

use callboard_types::ActorKey;

use crate::partition::{ActorCommand, ActorOp, ReminderSpec};

/// Operations in one command.
pub const MAX_OPS: usize = 10_000;
/// Everything a command carries, keys and values together.
pub const MAX_COMMAND_BYTES: usize = 16 << 20;
pub const MAX_NAMESPACE_BYTES: usize = 256;
pub const MAX_ACTOR_TYPE_BYTES: usize = 1_024;
pub const MAX_ACTOR_ID_BYTES: usize = 4_096;
pub const MAX_STATE_KEY_BYTES: usize = 4_096;
pub const MAX_STATE_VALUE_BYTES: usize = 16 << 20;
pub const MAX_REMINDER_NAME_BYTES: usize = 1_024;
pub const MAX_REMINDER_DATA_BYTES: usize = 1 << 20;
/// Each of a reminder's due time, period and TTL, as text.
pub const MAX_TIME_TEXT_BYTES: usize = 256;

/// Dropped firings kept per partition; the oldest make room.
pub const MAX_DROPPED: u64 = 1_024;
/// Of the reason kept with a dropped firing; the rest is cut off.
pub const MAX_DROP_REASON_BYTES: usize = 1_024;

/// Partitions of a cluster.
pub const MAX_PARTITIONS: u32 = 128;
/// Replicas wanted per partition.
pub const MAX_REPLICAS: u32 = 7;
/// Replicas placed for one partition, those being moved in or out included.
pub const MAX_PLACEMENTS: usize = 2 * MAX_REPLICAS as usize;
pub const MAX_NODES: usize = 4_096;
/// Actor types registered in the whole cluster.
pub const MAX_TYPES: usize = 65_536;
/// Names of clusters, nodes, zones and apps.
pub const MAX_META_NAME_BYTES: usize = 256;
/// Lapse of a host session and offset of clocks, in milliseconds.
pub const MAX_SETTING_MS: u64 = 3_600_000;

/// A command is larger than the machine takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is too large: {size}, the limit is {limit}")]
pub struct Exceeded {
    pub what: &'static str,
    pub size: usize,
    pub limit: usize,
}

/// Checks a command before it is proposed.
///
/// # Errors
///
/// The first bound that the command exceeds.
pub fn check(command: &ActorCommand) -> Result<(), Exceeded> {
    check_actor(&command.actor)?;
    within("number of operations", command.ops.len(), MAX_OPS)?;
    let mut total: usize = 0;
    for op in &command.ops {
        total = total.saturating_add(check_op(op)?);
        within("transaction", total, MAX_COMMAND_BYTES)?;
    }
    Ok(())
}

/// Checks the parts of an actor's identity.
///
/// # Errors
///
/// The first part that is too long.
pub fn check_actor(actor: &ActorKey) -> Result<(), Exceeded> {
    within("namespace", actor.namespace.len(), MAX_NAMESPACE_BYTES)?;
    within("actor type", actor.actor_type.len(), MAX_ACTOR_TYPE_BYTES)?;
    within("actor id", actor.actor_id.len(), MAX_ACTOR_ID_BYTES)
}

/// The bytes the operation carries.
fn check_op(op: &ActorOp) -> Result<usize, Exceeded> {
    match op {
        ActorOp::Upsert { key, value, expires_at: _ } => {
            within("state key", key.len(), MAX_STATE_KEY_BYTES)?;
            within("state value", value.len(), MAX_STATE_VALUE_BYTES)?;
            Ok(key.len() + value.len())
        }
        ActorOp::Delete { key } => {
            within("state key", key.len(), MAX_STATE_KEY_BYTES)?;
            Ok(key.len())
        }
        ActorOp::PutReminder { name, spec, due: _, overwrite: _ } => {
            within("reminder name", name.len(), MAX_REMINDER_NAME_BYTES)?;
            Ok(name.len() + check_spec(spec)?)
        }
        ActorOp::DeleteReminder { name } | ActorOp::ReminderFired { name, generation: _, occurrence: _, next: _ } => {
            within("reminder name", name.len(), MAX_REMINDER_NAME_BYTES)?;
            Ok(name.len())
        }
        ActorOp::ReminderDropped { name, generation: _, occurrence: _, next: _, reason } => {
            within("reminder name", name.len(), MAX_REMINDER_NAME_BYTES)?;
            Ok(name.len() + reason.len())
        }
        ActorOp::DeleteActor => Ok(0),
    }
}

fn check_spec(spec: &ReminderSpec) -> Result<usize, Exceeded> {
    let data = spec.data.as_ref().map_or(0, |data| data.len());
    within("reminder data", data, MAX_REMINDER_DATA_BYTES)?;
    within("reminder due time", spec.due_time.len(), MAX_TIME_TEXT_BYTES)?;
    within("reminder period", spec.period.len(), MAX_TIME_TEXT_BYTES)?;
    within("reminder ttl", spec.ttl.len(), MAX_TIME_TEXT_BYTES)?;
    Ok(data + spec.due_time.len() + spec.period.len() + spec.ttl.len())
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), Exceeded> {
    if size > limit {
        return Err(Exceeded { what, size, limit });
    }
    Ok(())
}

/// The longest beginning of `text` that fits `limit` bytes and ends between two characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use callboard_types::{Epoch, Timestamp};

    use super::*;

    fn command(actor_id: &str, ops: Vec<ActorOp>) -> ActorCommand {
        let actor = ActorKey::new("default", "cat", actor_id);
        ActorCommand { epoch: Epoch(1), actor, write: None, now: Timestamp(0), ops }
    }

    fn upsert(key: usize, value: usize) -> ActorOp {
        ActorOp::Upsert { key: "k".repeat(key), value: Bytes::from(vec![0; value]), expires_at: None }
    }

    fn exceeded(command: &ActorCommand) -> Option<&'static str> {
        check(command).err().map(|exceeded| exceeded.what)
    }

    #[test]
    fn every_bound_holds_up_to_its_value_and_no_further() {
        let id = "i".repeat(MAX_ACTOR_ID_BYTES);
        assert_eq!(exceeded(&command(&id, vec![upsert(MAX_STATE_KEY_BYTES, 1)])), None);
        assert_eq!(exceeded(&command(&format!("{id}i"), vec![])), Some("actor id"));
        assert_eq!(exceeded(&command("a", vec![upsert(MAX_STATE_KEY_BYTES + 1, 1)])), Some("state key"));
        assert_eq!(exceeded(&command("a", vec![upsert(1, MAX_STATE_VALUE_BYTES + 1)])), Some("state value"));
        assert_eq!(exceeded(&command("a", vec![ActorOp::DeleteActor; MAX_OPS])), None);
        assert_eq!(exceeded(&command("a", vec![ActorOp::DeleteActor; MAX_OPS + 1])), Some("number of operations"));
        let name = "n".repeat(MAX_REMINDER_NAME_BYTES + 1);
        assert_eq!(exceeded(&command("a", vec![ActorOp::DeleteReminder { name }])), Some("reminder name"));
    }

    #[test]
    fn operations_are_bounded_together_as_well() {
        let half = upsert(1, MAX_COMMAND_BYTES / 2 - 1);
        assert_eq!(exceeded(&command("a", vec![half.clone(), half.clone()])), None);
        assert_eq!(exceeded(&command("a", vec![half.clone(), half, upsert(1, 0)])), Some("transaction"));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        for (limit, cut_to) in [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (4, "aéb"), (9, "aéb")] {
            assert_eq!(cut("aéb", limit), cut_to);
        }
    }
}
