//! Reads of one partition's applied rows.
//!
//! A read is of this replica's state, whatever it is: linearizable only between two checks of a valid
//! [`Tenure`](crate::Tenure). Expired values are hidden by the later of the caller's clock and the partition's own, so
//! that what has expired once stays expired. Calls may touch the disk: cheap when cached, so single reads are made in
//! place; scans belong on a blocking thread.
//!
//! Listing actors goes from actor to actor by seeks in two tables: an actor with a million keys costs as much as one with
//! the few that are shown.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use callboard_machine::partition::{DroppedFiring, Reminder, StateValue, visible};
use callboard_storage::{Error, Pair, StateDb, StateView, Table, keyspace};
use callboard_types::{ActorKey, Timestamp};

use crate::convert::{Storable, corrupt};
use crate::group_state::GroupState;
use crate::rules::Live;
use crate::tables::state_value;

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
    /// `None`: of every type, and then of every id.
    pub actor_type: Option<&'a str>,
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

/// Goes through the actors that have a row of state or a reminder.
struct ActorSeek {
    view: Box<dyn StateView>,
    incarnation: u64,
    state: Range<Bytes>,
    reminders: Range<Bytes>,
}

impl ActorSeek {
    fn new(view: Box<dyn StateView>, incarnation: u64, query: &ActorQuery<'_>) -> Self {
        let (state, reminders) = match query.actor_type {
            Some(actor_type) => (
                keyspace::type_range(incarnation, query.namespace, actor_type, query.id_prefix),
                keyspace::type_reminders_range(incarnation, query.namespace, actor_type, query.id_prefix),
            ),
            None => (
                keyspace::namespace_range(incarnation, query.namespace),
                keyspace::namespace_reminders_range(incarnation, query.namespace),
            ),
        };
        let mut seek = Self { view, incarnation, state, reminders };
        if let Some(actor) = query.after {
            seek.pass(actor);
        }
        seek
    }

    /// Goes on behind every row of `actor`.
    fn pass(&mut self, actor: &ActorKey) {
        let state = keyspace::actor_range(self.incarnation, actor).end;
        let reminders = keyspace::actor_reminders_range(self.incarnation, actor).end;
        self.state.start = self.state.start.clone().max(state);
        self.reminders.start = self.reminders.start.clone().max(reminders);
    }

    fn next(&mut self) -> Result<Option<ActorKey>, Error> {
        let first = |table, range: &Range<Bytes>| {
            if range.start >= range.end {
                return Ok(None);
            }
            Ok::<_, Error>(self.view.scan(table, range.clone(), 1)?.into_iter().next())
        };
        let with_state = match first(Table::State, &self.state)? {
            Some((key, _)) => Some(keyspace::parse_actor_state(&key)?.1),
            None => None,
        };
        let with_reminder = match first(Table::Reminder, &self.reminders)? {
            Some((key, _)) => Some(keyspace::parse_reminder(&key)?.1),
            None => None,
        };
        let actor = match (with_state, with_reminder) {
            (Some(state), Some(reminder)) => Some(state.min(reminder)),
            (state, reminder) => state.or(reminder),
        };
        if let Some(actor) = &actor {
            self.pass(actor);
        }
        Ok(actor)
    }

    fn describe(&self, actor: ActorKey, max_keys: usize, clock: Timestamp) -> Result<ActorRow, Error> {
        let range = keyspace::actor_range(self.incarnation, &actor);
        let rows = self.view.scan(Table::State, range, max_keys.saturating_add(1))?;
        let mut keys = Vec::new();
        for (key, row) in rows.iter().take(max_keys) {
            if visible(&state_value(row)?, clock) {
                keys.push(keyspace::parse_actor_state(key)?.2);
            }
        }
        let reminders = keyspace::actor_reminders_range(self.incarnation, &actor);
        let reminders = self.view.scan(Table::Reminder, reminders, MAX_SCAN)?.len();
        Ok(ActorRow { actor, keys, more_keys: rows.len() > max_keys, reminders })
    }
}
