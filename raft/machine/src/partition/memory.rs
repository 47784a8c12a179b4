//! [`Tables`] in memory: what tests and the simulator run the machine on.
//!
//! Ordered maps throughout, so that iteration is the same in every run, and no empty inner map is kept, so that two
//! tables with the same rows are equal. Nothing fails here and nothing is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use callboard_types::{ActorKey, Timestamp};

use super::table::{DroppedFiring, LastWrite, Ownership, Reminder, StateValue, Tables};

/// The rows of one partition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MemoryTables {
    ownership: Option<Ownership>,
    clock: Timestamp,
    state: BTreeMap<ActorKey, BTreeMap<String, StateValue>>,
    reminders: BTreeMap<ActorKey, BTreeMap<String, Reminder>>,
    /// The index by due time: exactly one entry per row of `reminders`.
    due: BTreeSet<(Timestamp, ActorKey, String)>,
    last_writes: BTreeMap<ActorKey, LastWrite>,
    dropped: BTreeMap<(u64, u32), DroppedFiring>,
}

impl MemoryTables {
    /// Every state row, expired ones included, by actor and key.
    pub fn state_rows(&self) -> impl Iterator<Item = (&ActorKey, &str, &StateValue)> {
        self.state.iter().flat_map(|(actor, keys)| keys.iter().map(move |(key, value)| (actor, key.as_str(), value)))
    }

    /// Every reminder, by actor and name.
    pub fn reminder_rows(&self) -> impl Iterator<Item = (&ActorKey, &str, &Reminder)> {
        self.reminders.iter().flat_map(|(actor, of)| of.iter().map(move |(name, row)| (actor, name.as_str(), row)))
    }

    /// Every reminder, by due time.
    pub fn due_rows(&self) -> impl Iterator<Item = (Timestamp, &ActorKey, &str)> {
        self.due.iter().map(|(due, actor, name)| (*due, actor, name.as_str()))
    }

    /// The last write of every actor that has one.
    pub fn last_write_rows(&self) -> impl Iterator<Item = (&ActorKey, &LastWrite)> {
        self.last_writes.iter()
    }

    /// Dropped firings, oldest first.
    pub fn dropped_rows(&self) -> impl Iterator<Item = &DroppedFiring> {
        self.dropped.values()
    }
}

impl Tables for MemoryTables {
    type Error = Infallible;

    fn ownership(&self) -> Result<Option<Ownership>, Infallible> {
        Ok(self.ownership)
    }

    fn set_ownership(&mut self, ownership: Ownership) -> Result<(), Infallible> {
        self.ownership = Some(ownership);
        Ok(())
    }

    fn clock(&self) -> Result<Timestamp, Infallible> {
        Ok(self.clock)
    }

    fn set_clock(&mut self, clock: Timestamp) -> Result<(), Infallible> {
        self.clock = clock;
        Ok(())
    }

    fn state(&self, actor: &ActorKey, key: &str) -> Result<Option<StateValue>, Infallible> {
        Ok(self.state.get(actor).and_then(|keys| keys.get(key)).cloned())
    }

    fn put_state(&mut self, actor: &ActorKey, key: &str, value: StateValue) -> Result<(), Infallible> {
        self.state.entry(actor.clone()).or_default().insert(key.to_owned(), value);
        Ok(())
    }

    fn delete_state(&mut self, actor: &ActorKey, key: &str) -> Result<(), Infallible> {
        remove_inner(&mut self.state, actor, key);
        Ok(())
    }

    fn delete_all_state(&mut self, actor: &ActorKey) -> Result<(), Infallible> {
        self.state.remove(actor);
        Ok(())
    }

    fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Option<Reminder>, Infallible> {
        Ok(self.reminders.get(actor).and_then(|of| of.get(name)).cloned())
    }

    fn reminders(&self, actor: &ActorKey) -> Result<Vec<(String, Reminder)>, Infallible> {
        let rows = self.reminders.get(actor).into_iter().flatten();
        Ok(rows.map(|(name, reminder)| (name.clone(), reminder.clone())).collect())
    }

    fn put_reminder(&mut self, actor: &ActorKey, name: &str, reminder: Reminder) -> Result<(), Infallible> {
        self.delete_reminder(actor, name)?;
        self.due.insert((reminder.due, actor.clone(), name.to_owned()));
        self.reminders.entry(actor.clone()).or_default().insert(name.to_owned(), reminder);
        Ok(())
    }

    fn delete_reminder(&mut self, actor: &ActorKey, name: &str) -> Result<(), Infallible> {
        if let Some(old) = remove_inner(&mut self.reminders, actor, name) {
            self.due.remove(&(old.due, actor.clone(), name.to_owned()));
        }
        Ok(())
    }

    fn last_write(&self, actor: &ActorKey) -> Result<Option<LastWrite>, Infallible> {
        Ok(self.last_writes.get(actor).cloned())
    }

    fn set_last_write(&mut self, actor: &ActorKey, write: LastWrite) -> Result<(), Infallible> {
        self.last_writes.insert(actor.clone(), write);
        Ok(())
    }

    fn delete_last_write(&mut self, actor: &ActorKey) -> Result<(), Infallible> {
        self.last_writes.remove(actor);
        Ok(())
    }

    fn dropped_len(&self) -> Result<u64, Infallible> {
        Ok(self.dropped.len() as u64)
    }

    fn push_dropped(&mut self, index: u64, position: u32, firing: DroppedFiring) -> Result<(), Infallible> {
        self.dropped.insert((index, position), firing);
        Ok(())
    }

    fn pop_oldest_dropped(&mut self) -> Result<(), Infallible> {
        self.dropped.pop_first();
        Ok(())
    }
}

fn remove_inner<V>(rows: &mut BTreeMap<ActorKey, BTreeMap<String, V>>, actor: &ActorKey, name: &str) -> Option<V> {
    let of = rows.get_mut(actor)?;
    let removed = of.remove(name);
    if of.is_empty() {
        rows.remove(actor);
    }
    removed
}
