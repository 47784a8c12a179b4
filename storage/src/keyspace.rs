//! Every key of both stores, on one page. `order` has the rules by which parts become bytes; in short: numbers sort,
//! texts end themselves, and nothing is joined by a separator that could occur inside a part.
//!
//! | store, place | key | row |
//! |---|---|---|
//! | log, `log` | group u32, index u64 | an entry |
//! | log, `meta` | group u32, slot u8 | vote, committed, purged, first index |
//! | log, `meta` | `node/` name | pairing id of the two stores |
//! | state, [`Table::State`] | incarnation, namespace, type, id, key | a value of an actor |
//! | state, [`Table::Reminder`] | incarnation, 1, namespace, type, id, name | a reminder |
//! | | incarnation, 2, due, namespace, type, id, name | its place in the order of due times |
//! | state, [`Table::System`] | incarnation, 1..=5 | applied, membership, ownership, clock, snapshot |
//! | | incarnation, 6, counter u8 | a counter |
//! | | incarnation, 7, namespace, type, id | the last write of an actor |
//! | | incarnation, 8, index u64, position u32 | a firing given up by policy |
//! | | incarnation, 9, table u8, key | a row of the meta group |
//! | | 0, 1, group u32 | the incarnation a group lives under |
//! | | 0, 2 and 0, 3 | next incarnation, pairing id |
//! | | 0, 4 | the incarnation of a copy of the meta state |
//!
//! A *replica incarnation* is a number local to this node, never used twice on it. A received snapshot is loaded under
//! one that nothing refers to, then the group's pointer row moves to it. Incarnation 0 is the node's own and holds no
//! replica. All rows of an incarnation in one table are one range; so are the rows of a type, of the ids of a type
//! with a common beginning, and of one actor.
//!
//! Changing any of these bytes is a change of the disk format: golden tests hold them.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use callboard_types::{ActorKey, GroupId, Timestamp};

use crate::{Error, LogSlot, StateView, Table};

mod order;

pub use order::after;
use order::{KeyBuilder, KeyParser};

/// The incarnation that holds the rows of the node itself.
pub const NODE: u64 = 0;

const REMINDER: u8 = 1;
const DUE: u8 = 2;

const APPLIED: u8 = 1;
const MEMBERSHIP: u8 = 2;
const OWNERSHIP: u8 = 3;
const CLOCK: u8 = 4;
const SNAPSHOT: u8 = 5;
const COUNTER: u8 = 6;
const LAST_WRITE: u8 = 7;
const DROPPED: u8 = 8;
const META_ROW: u8 = 9;

const NODE_POINTER: u8 = 1;
const NODE_NEXT_INCARNATION: u8 = 2;
const NODE_PAIRING: u8 = 3;
const NODE_META_COPY: u8 = 4;

fn in_incarnation(incarnation: u64) -> KeyBuilder {
    KeyBuilder::new().u64(incarnation)
}

// ---- log store ----

/// Place of one entry.
pub fn log_entry(group: GroupId, index: u64) -> Bytes {
    KeyBuilder::new().u32(group.to_u32()).u64(index).finish()
}

pub fn parse_log_entry(key: &[u8]) -> Result<(GroupId, u64), Error> {
    let mut key = KeyParser::new("log entry key", key);
    let parsed = (GroupId::from_u32(key.u32()?), key.u64()?);
    key.end().map(|()| parsed)
}

/// Every entry of a group, or (in `meta`) every slot.
pub fn log_group_range(group: GroupId) -> Range<Bytes> {
    KeyBuilder::new().u32(group.to_u32()).range()
}

/// Entries of `indexes`.
pub fn log_range(group: GroupId, indexes: Range<u64>) -> Range<Bytes> {
    log_entry(group, indexes.start)..log_entry(group, indexes.end)
}

/// Entries at `from` and above, the highest possible index among them.
pub fn log_range_from(group: GroupId, from: u64) -> Range<Bytes> {
    log_entry(group, from)..log_group_range(group).end
}

pub fn log_slot(group: GroupId, slot: LogSlot) -> Bytes {
    let slot = match slot {
        LogSlot::Vote => 1,
        LogSlot::Committed => 2,
        LogSlot::Purged => 3,
    };
    KeyBuilder::new().u32(group.to_u32()).u8(slot).finish()
}

/// Lowest index that may be present: what is below it is purged, whether or not its bytes are gone.
pub fn log_first_index(group: GroupId) -> Bytes {
    KeyBuilder::new().u32(group.to_u32()).u8(4).finish()
}

/// The group of a row of `meta`; `None` for a row of the node.
pub fn parse_log_meta(key: &[u8]) -> Result<Option<GroupId>, Error> {
    if key.starts_with(LOG_NODE) {
        return Ok(None);
    }
    let mut key = KeyParser::new("log slot key", key);
    let group = GroupId::from_u32(key.u32()?);
    match key.u8()? {
        1..=4 => key.end().map(|()| Some(group)),
        slot => Err(Error::corrupt("log slot key", format!("slot {slot}"))),
    }
}

/// Longer than a slot's key and above every group that can exist, so that neither is taken for the other.
const LOG_NODE: &[u8] = b"\xFF\xFF\xFF\xFFnode/";

pub fn log_pairing() -> Bytes {
    KeyBuilder::new().tail(LOG_NODE).tail(b"pairing").finish()
}

/// Every row of `meta`.
pub fn log_meta_range() -> Range<Bytes> {
    Bytes::new()..KeyBuilder::new().tail(LOG_NODE).range().end
}

// ---- state store: incarnations ----

/// Every row of an incarnation, in any table.
pub fn incarnation_range(incarnation: u64) -> Range<Bytes> {
    in_incarnation(incarnation).range()
}

/// The incarnation of any row, and its key within.
pub fn split_incarnation(key: &[u8]) -> Result<(u64, &[u8]), Error> {
    let mut key = KeyParser::new("state key", key);
    Ok((key.u64()?, key.tail()))
}

/// The inverse of [`split_incarnation`]: a row moves to another incarnation by changing these eight bytes.
pub fn join_incarnation(incarnation: u64, key: &[u8]) -> Bytes {
    in_incarnation(incarnation).tail(key).finish()
}

/// Every incarnation that has a row in any table, the node's own left out. One step per incarnation and table.
pub fn incarnations(view: &(impl StateView + ?Sized)) -> Result<BTreeSet<u64>, Error> {
    let mut found = BTreeSet::new();
    let end = incarnation_range(u64::MAX).end;
    for table in Table::ALL {
        let mut from = incarnation_range(NODE).end;
        while let Some((key, _)) = view.scan(table, from..end.clone(), 1)?.into_iter().next() {
            let (incarnation, _) = split_incarnation(&key)?;
            found.insert(incarnation);
            from = incarnation_range(incarnation).end;
        }
    }
    Ok(found)
}

// ---- state store: actor state ----

pub fn actor_state(incarnation: u64, actor: &ActorKey, key: &str) -> Bytes {
    in_incarnation(incarnation).actor(actor).tail(key.as_bytes()).finish()
}

pub fn parse_actor_state(key: &[u8]) -> Result<(u64, ActorKey, String), Error> {
    let mut key = KeyParser::new("actor state key", key);
    Ok((key.u64()?, key.actor()?, key.tail_text()?))
}

/// Every value of one actor.
pub fn actor_range(incarnation: u64, actor: &ActorKey) -> Range<Bytes> {
    in_incarnation(incarnation).actor(actor).range()
}

/// The values of one actor whose key starts with `key_prefix`.
pub fn actor_key_prefix_range(incarnation: u64, actor: &ActorKey, key_prefix: &str) -> Range<Bytes> {
    in_incarnation(incarnation).actor(actor).tail(key_prefix.as_bytes()).range()
}

/// Every value of the actors of a type whose id starts with `id_prefix`, by id.
pub fn type_range(incarnation: u64, namespace: &str, actor_type: &str, id_prefix: &str) -> Range<Bytes> {
    in_incarnation(incarnation).text(namespace).text(actor_type).text_prefix(id_prefix).range()
}

/// Every value of a namespace's actors, by type and id.
pub fn namespace_range(incarnation: u64, namespace: &str) -> Range<Bytes> {
    in_incarnation(incarnation).text(namespace).range()
}

// ---- state store: reminders ----

pub fn reminder(incarnation: u64, actor: &ActorKey, name: &str) -> Bytes {
    in_incarnation(incarnation).u8(REMINDER).actor(actor).tail(name.as_bytes()).finish()
}

pub fn parse_reminder(key: &[u8]) -> Result<(u64, ActorKey, String), Error> {
    let mut key = KeyParser::new("reminder key", key);
    let incarnation = key.u64()?;
    key.tag(REMINDER)?;
    Ok((incarnation, key.actor()?, key.tail_text()?))
}

/// Every reminder of an incarnation, by actor and name; their due index is left out.
pub fn reminders_range(incarnation: u64) -> Range<Bytes> {
    in_incarnation(incarnation).u8(REMINDER).range()
}

/// Every reminder of one actor.
pub fn actor_reminders_range(incarnation: u64, actor: &ActorKey) -> Range<Bytes> {
    in_incarnation(incarnation).u8(REMINDER).actor(actor).range()
}

/// Every reminder of the actors of a type whose id starts with `id_prefix`, by id.
pub fn type_reminders_range(incarnation: u64, namespace: &str, actor_type: &str, id_prefix: &str) -> Range<Bytes> {
    in_incarnation(incarnation).u8(REMINDER).text(namespace).text(actor_type).text_prefix(id_prefix).range()
}

/// Every reminder of a namespace's actors, by type and id.
pub fn namespace_reminders_range(incarnation: u64, namespace: &str) -> Range<Bytes> {
    in_incarnation(incarnation).u8(REMINDER).text(namespace).range()
}

/// A reminder's place in the order of due times.
pub fn due(incarnation: u64, at: Timestamp, actor: &ActorKey, name: &str) -> Bytes {
    in_incarnation(incarnation).u8(DUE).time(at).actor(actor).tail(name.as_bytes()).finish()
}

pub fn parse_due(key: &[u8]) -> Result<(u64, Timestamp, ActorKey, String), Error> {
    let mut key = KeyParser::new("due key", key);
    let incarnation = key.u64()?;
    key.tag(DUE)?;
    Ok((incarnation, key.time()?, key.actor()?, key.tail_text()?))
}

/// The due index from `from` on (inclusive) to `until` (exclusive).
pub fn due_range(incarnation: u64, from: Timestamp, until: Timestamp) -> Range<Bytes> {
    let bound = |at| in_incarnation(incarnation).u8(DUE).time(at).finish();
    bound(from)..bound(until)
}

/// The whole due index of an incarnation.
pub fn due_all(incarnation: u64) -> Range<Bytes> {
    in_incarnation(incarnation).u8(DUE).range()
}

// ---- state store: system rows ----

/// The last log id whose writes the incarnation holds.
pub fn applied(incarnation: u64) -> Bytes {
    in_incarnation(incarnation).u8(APPLIED).finish()
}

pub fn membership(incarnation: u64) -> Bytes {
    in_incarnation(incarnation).u8(MEMBERSHIP).finish()
}

pub fn ownership(incarnation: u64) -> Bytes {
    in_incarnation(incarnation).u8(OWNERSHIP).finish()
}

/// The highest proposer clock seen.
pub fn clock(incarnation: u64) -> Bytes {
    in_incarnation(incarnation).u8(CLOCK).finish()
}

/// What the last snapshot was taken or received at.
pub fn snapshot(incarnation: u64) -> Bytes {
    in_incarnation(incarnation).u8(SNAPSHOT).finish()
}

/// What is counted beside the rows themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Kept rows of firings given up by policy.
    DroppedFirings,
}

pub fn counter(incarnation: u64, counter: Counter) -> Bytes {
    let counter = match counter {
        Counter::DroppedFirings => 1,
    };
    in_incarnation(incarnation).u8(COUNTER).u8(counter).finish()
}

/// The last write of an actor, by which a repeat is answered.
pub fn last_write(incarnation: u64, actor: &ActorKey) -> Bytes {
    in_incarnation(incarnation).u8(LAST_WRITE).actor(actor).finish()
}

pub fn parse_last_write(key: &[u8]) -> Result<(u64, ActorKey), Error> {
    let mut key = KeyParser::new("last write key", key);
    let incarnation = key.u64()?;
    key.tag(LAST_WRITE)?;
    let parsed = (incarnation, key.actor()?);
    key.end().map(|()| parsed)
}

/// A firing given up by policy: the oldest sorts first.
pub fn dropped(incarnation: u64, index: u64, position: u32) -> Bytes {
    in_incarnation(incarnation).u8(DROPPED).u64(index).u32(position).finish()
}

pub fn parse_dropped(key: &[u8]) -> Result<(u64, u64, u32), Error> {
    let mut key = KeyParser::new("dropped firing key", key);
    let incarnation = key.u64()?;
    key.tag(DROPPED)?;
    let parsed = (incarnation, key.u64()?, key.u32()?);
    key.end().map(|()| parsed)
}

pub fn dropped_range(incarnation: u64) -> Range<Bytes> {
    in_incarnation(incarnation).u8(DROPPED).range()
}

/// A row of the meta group; `table` and `row` are the meta machine's.
pub fn meta_row(incarnation: u64, table: u8, row: &[u8]) -> Bytes {
    in_incarnation(incarnation).u8(META_ROW).u8(table).tail(row).finish()
}

pub fn parse_meta_row(key: &[u8]) -> Result<(u64, u8, &[u8]), Error> {
    let mut key = KeyParser::new("meta row key", key);
    let incarnation = key.u64()?;
    key.tag(META_ROW)?;
    Ok((incarnation, key.u8()?, key.tail()))
}

/// Every row of one table of the meta group.
pub fn meta_table_range(incarnation: u64, table: u8) -> Range<Bytes> {
    in_incarnation(incarnation).u8(META_ROW).u8(table).range()
}

/// Every row of the meta group, by table.
pub fn meta_range(incarnation: u64) -> Range<Bytes> {
    in_incarnation(incarnation).u8(META_ROW).range()
}

// ---- state store: rows of the node ----

/// Which incarnation a group lives under.
pub fn pointer(group: GroupId) -> Bytes {
    in_incarnation(NODE).u8(NODE_POINTER).u32(group.to_u32()).finish()
}

pub fn parse_pointer(key: &[u8]) -> Result<GroupId, Error> {
    let mut key = KeyParser::new("group pointer key", key);
    match key.u64()? {
        NODE => key.tag(NODE_POINTER)?,
        incarnation => return Err(Error::corrupt("group pointer key", format!("incarnation {incarnation}"))),
    }
    let group = GroupId::from_u32(key.u32()?);
    key.end().map(|()| group)
}

/// The pointer of every group.
pub fn pointers_range() -> Range<Bytes> {
    in_incarnation(NODE).u8(NODE_POINTER).range()
}

/// The lowest incarnation never used on this node.
pub fn next_incarnation() -> Bytes {
    in_incarnation(NODE).u8(NODE_NEXT_INCARNATION).finish()
}

/// The pairing id of the two stores, here and under [`log_pairing`].
pub fn state_pairing() -> Bytes {
    in_incarnation(NODE).u8(NODE_PAIRING).finish()
}

/// Where a node without a replica of the meta group keeps the meta state it was told.
pub fn meta_copy() -> Bytes {
    in_incarnation(NODE).u8(NODE_META_COPY).finish()
}

/// Any bytes are parsed or refused by every parser, and what is parsed builds the same bytes.
pub fn fuzz_decode(data: &[u8]) {
    let rebuilt = [
        parse_log_entry(data).ok().map(|(group, index)| log_entry(group, index)),
        parse_actor_state(data).ok().map(|(inc, actor, key)| actor_state(inc, &actor, &key)),
        parse_reminder(data).ok().map(|(inc, actor, name)| reminder(inc, &actor, &name)),
        parse_due(data).ok().map(|(inc, at, actor, name)| due(inc, at, &actor, &name)),
        parse_last_write(data).ok().map(|(inc, actor)| last_write(inc, &actor)),
        parse_dropped(data).ok().map(|(inc, index, position)| dropped(inc, index, position)),
        parse_meta_row(data).ok().map(|(inc, table, row)| meta_row(inc, table, row)),
        parse_pointer(data).ok().map(pointer),
        split_incarnation(data).ok().map(|(inc, key)| join_incarnation(inc, key)),
    ];
    for key in rebuilt.into_iter().flatten() {
        assert_eq!(key, data);
    }
    if let Ok(Some(group)) = parse_log_meta(data) {
        assert!(log_group_range(group).contains(data));
    }
}

#[cfg(test)]
#[path = "keyspace/keyspace_test.rs"]
mod tests;
