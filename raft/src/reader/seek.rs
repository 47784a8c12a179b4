//! From actor to actor, through the two tables in which one may have a row.
//!
//! Every step is a seek: neither an actor's keys nor the ids that are not asked for are gone through. Where ids of every
//! type are asked for by their beginning, that is a few seeks per type and table, however many ids there are.

use std::ops::Range;

use bytes::Bytes;
use callboard_machine::partition::visible;
use callboard_storage::{Error, StateView, Table, keyspace};
use callboard_types::{ActorKey, Timestamp};

use super::{ActorQuery, ActorRow, MAX_SCAN};
use crate::tables::state_value;

/// Goes through the actors of a query that have a row of state or a reminder.
pub struct ActorSeek<'a> {
    view: Box<dyn StateView>,
    incarnation: u64,
    id_prefix: &'a str,
    state: Walk,
    reminders: Walk,
}

impl<'a> ActorSeek<'a> {
    pub fn new(view: Box<dyn StateView>, incarnation: u64, query: &ActorQuery<'a>) -> Self {
        let (state, reminders) = (Walk::new(&STATE, incarnation, query), Walk::new(&REMINDERS, incarnation, query));
        let mut seek = Self { view, incarnation, id_prefix: query.id_prefix, state, reminders };
        if let Some(actor) = query.after {
            seek.pass(actor);
        }
        seek
    }

    /// Goes on behind every row of `actor`.
    fn pass(&mut self, actor: &ActorKey) {
        self.state.pass(self.incarnation, actor);
        self.reminders.pass(self.incarnation, actor);
    }

    pub fn next(&mut self) -> Result<Option<ActorKey>, Error> {
        let with_state = self.state.first(&*self.view, self.incarnation, self.id_prefix)?;
        let with_reminder = self.reminders.first(&*self.view, self.incarnation, self.id_prefix)?;
        let actor = match (with_state, with_reminder) {
            (Some(state), Some(reminder)) => Some(state.min(reminder)),
            (state, reminder) => state.or(reminder),
        };
        if let Some(actor) = &actor {
            self.pass(actor);
        }
        Ok(actor)
    }

    pub fn describe(&self, actor: ActorKey, max_keys: usize, clock: Timestamp) -> Result<ActorRow, Error> {
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

/// How a table's rows are found.
struct Rows {
    table: Table,
    actor_of: fn(&[u8]) -> Result<ActorKey, Error>,
    of_namespace: fn(u64, &str) -> Range<Bytes>,
    /// Of the actors of a type whose ids begin so.
    of_type: fn(u64, &str, &str, &str) -> Range<Bytes>,
    of_actor: fn(u64, &ActorKey) -> Range<Bytes>,
}

static STATE: Rows = Rows {
    table: Table::State,
    actor_of: |key| Ok(keyspace::parse_actor_state(key)?.1),
    of_namespace: keyspace::namespace_range,
    of_type: keyspace::type_range,
    of_actor: keyspace::actor_range,
};

static REMINDERS: Rows = Rows {
    table: Table::Reminder,
    actor_of: |key| Ok(keyspace::parse_reminder(key)?.1),
    of_namespace: keyspace::namespace_reminders_range,
    of_type: keyspace::type_reminders_range,
    of_actor: keyspace::actor_reminders_range,
};

/// What is left of a table to go through.
struct Walk {
    rows: &'static Rows,
    left: Range<Bytes>,
}

impl Walk {
    fn new(rows: &'static Rows, incarnation: u64, query: &ActorQuery<'_>) -> Self {
        let left = match query.actor_type {
            Some(actor_type) => (rows.of_type)(incarnation, query.namespace, actor_type, query.id_prefix),
            None => (rows.of_namespace)(incarnation, query.namespace),
        };
        Self { rows, left }
    }

    fn pass(&mut self, incarnation: u64, actor: &ActorKey) {
        let behind = (self.rows.of_actor)(incarnation, actor).end;
        if behind > self.left.start {
            self.left.start = behind;
        }
    }

    /// The first actor left whose id begins so; what is before it is left no more.
    fn first(&mut self, view: &dyn StateView, incarnation: u64, id_prefix: &str) -> Result<Option<ActorKey>, Error> {
        while !self.left.is_empty() {
            let Some((key, _)) = view.scan(self.rows.table, self.left.clone(), 1)?.into_iter().next() else { break };
            let actor = (self.rows.actor_of)(&key)?;
            if actor.actor_id.starts_with(id_prefix) {
                return Ok(Some(actor));
            }
            let ids = |prefix: &str| (self.rows.of_type)(incarnation, &actor.namespace, &actor.actor_type, prefix);
            let wanted = ids(id_prefix).start;
            self.left.start = if key < wanted { wanted } else { ids("").end };
        }
        Ok(None)
    }
}
