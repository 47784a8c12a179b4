//! Reads of one partition's applied rows.
//!
//! A read is of this replica's state, whatever it is: linearizable only between two checks of a valid
//! [`Tenure`](crate::Tenure). Expired values are hidden by the later of the caller's clock and the partition's own, so
//! that what has expired once stays expired. Calls may touch the disk: cheap when cached, so single reads are made in
//! place; scans belong on a blocking thread.
//!
//! Listing actors goes from actor to actor (`seek`): one with a million keys costs as much as one with the few that are
//! shown.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use callboard_machine::partition::{DroppedFiring, Reminder, StateValue, visible};
use callboard_storage::{Error, Pair, StateDb, Table, keyspace};
use callboard_types::{ActorKey, Timestamp};

use crate::convert::{Storable, corrupt};
use crate::group_state::GroupState;
use crate::rules::Live;
use crate::tables::state_value;

mod seek;

use seek::ActorSeek;

/// Rows of one step of a scan: what is read beyond the last row that is wanted.
const SCAN_STEP: usize = 64;
/// Most rows that a scan returns, whatever its caller asks for.
pub const MAX_SCAN: usize = 10_000;

/// A row of actor state, as listed.
#[derive(Debug, Clone, PartialEq)]
pub struct StateRow {
    pub actor: ActorKey,
    pub key: String,
    pub value: StateValue,
}

/// Where a scan by due time stands: everything before it has been seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueCursor {
    pub due: Timestamp,
    pub actor: ActorKey,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    pub cursor: DueCursor,
    pub reminder: Reminder,
}

/// Which actors are listed.
#[derive(Debug, Clone)]
pub struct ActorQuery<'a> {
    pub namespace: &'a str,
    /// `None`: of every type.
    pub actor_type: Option<&'a str>,
    /// How their ids begin.
    pub id_prefix: &'a str,
    /// The last actor that was seen.
    pub after: Option<&'a ActorKey>,
    pub limit: usize,
    /// State keys listed per actor.
    pub keys_per_actor: usize,
}

/// An actor that has state or reminders.
#[derive(Debug, Clone, PartialEq)]
pub struct ActorRow {
    pub actor: ActorKey,
    /// The first of its visible state keys.
    pub keys: Vec<String>,
    /// There may be more keys than `keys`.
    pub more_keys: bool,
    /// Its reminders; counted up to [`MAX_SCAN`].
    pub reminders: usize,
}

#[derive(Clone)]
pub struct Reader {
    db: Arc<dyn StateDb>,
    state: Arc<GroupState>,
    live: Arc<Live>,
}

impl Reader {
    pub(crate) fn new(db: Arc<dyn StateDb>, state: Arc<GroupState>, live: Arc<Live>) -> Self {
        Self { db, state, live }
    }

    /// The highest proposer clock applied: what has expired by it is never returned.
    pub fn clock(&self) -> Result<Timestamp, Error> {
        Ok(self.live.clock())
    }

    /// A visible value: not expired at `max(now, clock())`.
    pub fn state(&self, actor: &ActorKey, key: &str, now: Timestamp) -> Result<Option<StateValue>, Error> {
        let clock = now.max(self.live.clock());
        let row = self.db.get(Table::State, &keyspace::actor_state(self.state.incarnation(), actor, key))?;
        let value = row.map(|row| state_value(&row)).transpose()?;
        Ok(value.filter(|value| visible(value, clock)))
    }

    /// Visible rows in key order, after `(actor, key)`; one actor's only, where `of` is given.
    pub fn scan_state(
        &self,
        of: Option<&ActorKey>,
        after: Option<&(ActorKey, String)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<StateRow>, Error> {
        let incarnation = self.state.incarnation();
        let all = match of {
            Some(actor) => keyspace::actor_range(incarnation, actor),
            None => keyspace::incarnation_range(incarnation),
        };
        let after = after.map(|(actor, key)| keyspace::actor_state(incarnation, actor, key));
        let clock = now.max(self.live.clock());
        let mut rows = Vec::new();
        self.scan(Table::State, from(all, after), limit, |(key, row)| {
            let value = state_value(row)?;
            if visible(&value, clock) {
                let (_, actor, key) = keyspace::parse_actor_state(key)?;
                rows.push(StateRow { actor, key, value });
            }
            Ok(rows.len())
        })?;
        Ok(rows)
    }

    pub fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Option<Reminder>, Error> {
        let row = self.db.get(Table::Reminder, &keyspace::reminder(self.state.incarnation(), actor, name))?;
        row.map(|row| Reminder::decode(&row)).transpose()
    }

    /// Reminders in key order, after `(actor, name)`; one actor's only, where `of` is given.
    pub fn scan_reminders(
        &self,
        of: Option<&ActorKey>,
        after: Option<&(ActorKey, String)>,
        limit: usize,
    ) -> Result<Vec<(ActorKey, String, Reminder)>, Error> {
        let incarnation = self.state.incarnation();
        let all = match of {
            Some(actor) => keyspace::actor_reminders_range(incarnation, actor),
            None => keyspace::reminders_range(incarnation),
        };
        let after = after.map(|(actor, name)| keyspace::reminder(incarnation, actor, name));
        let mut rows = Vec::new();
        self.scan(Table::Reminder, from(all, after), limit, |(key, row)| {
            let (_, actor, name) = keyspace::parse_reminder(key)?;
            rows.push((actor, name, Reminder::decode(row)?));
            Ok(rows.len())
        })?;
        Ok(rows)
    }

    /// Reminders by due time, strictly after `after`.
    pub fn scan_due(&self, after: Option<&DueCursor>, limit: usize) -> Result<Vec<Due>, Error> {
        let incarnation = self.state.incarnation();
        // Index and reminders of one moment: a reminder that moves is seen in one place.
        let view = self.db.view()?;
        let after = after.map(|cursor| keyspace::due(incarnation, cursor.due, &cursor.actor, &cursor.name));
        let range = from(keyspace::due_all(incarnation), after);
        let keys = view.scan(Table::Reminder, range, limit.min(MAX_SCAN))?;
        keys.iter()
            .map(|(key, _)| {
                let (_, due, actor, name) = keyspace::parse_due(key)?;
                let row = view.get(Table::Reminder, &keyspace::reminder(incarnation, &actor, &name))?;
                let row =
                    row.ok_or_else(|| corrupt("due index", format!("reminder {name} of {actor} is not there")))?;
                Ok(Due { cursor: DueCursor { due, actor, name }, reminder: Reminder::decode(&row)? })
            })
            .collect()
    }

    /// Firings given up by policy, newest first.
    pub fn dropped(&self, limit: usize) -> Result<Vec<DroppedFiring>, Error> {
        let range = keyspace::dropped_range(self.state.incarnation());
        let rows = self.db.scan_back(Table::System, range, limit.min(MAX_SCAN))?;
        rows.iter().map(|(_, row)| DroppedFiring::decode(row)).collect()
    }

    /// Actors that have visible state or reminders, in key order.
    pub fn scan_actors(&self, query: &ActorQuery<'_>, now: Timestamp) -> Result<Vec<ActorRow>, Error> {
        let clock = now.max(self.live.clock());
        let mut seek = ActorSeek::new(self.db.view()?, self.state.incarnation(), query);
        let mut rows = Vec::new();
        while rows.len() < query.limit.min(MAX_SCAN) {
            let Some(actor) = seek.next()? else { break };
            let row = seek.describe(actor, query.keys_per_actor.min(MAX_SCAN), clock)?;
            if !row.keys.is_empty() || row.more_keys || row.reminders > 0 {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Feeds the rows of `range` to `take`, which says how many it has kept, until that is `limit`.
    fn scan(
        &self,
        table: Table,
        mut range: Range<Bytes>,
        limit: usize,
        mut take: impl FnMut(&Pair) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        let limit = limit.min(MAX_SCAN);
        let mut kept = 0;
        while kept < limit {
            let step = self.db.scan(table, range.clone(), SCAN_STEP)?;
            let Some((last, _)) = step.last() else { break };
            range.start = keyspace::after(last);
            for pair in &step {
                if kept < limit {
                    kept = take(pair)?;
                }
            }
        }
        Ok(())
    }
}

/// The part of `all` behind the key `after`.
fn from(all: Range<Bytes>, after: Option<Bytes>) -> Range<Bytes> {
    match after {
        Some(key) => all.start.max(keyspace::after(&key))..all.end,
        None => all,
    }
}
