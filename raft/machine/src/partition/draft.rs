//! What the operations of one command do to the actor's rows, worked out before anything is written.
//!
//! A [`Draft`] takes the operations in order. Each sees the table through what the earlier ones of the same command
//! did, so "delete the reminder, then create it without overwrite" is accepted. The first rejected operation rejects
//! the command, and as nothing has been written by then, nothing has to be undone. What is left at the end are
//! [`Changes`]: one per touched row, the last operation on a row winning.
//!
//! # Invariants
//!
//! - Effects tell the net change: a row that ends as it began has none, and a reminder that several operations of one
//!   command touched has one, at the place of the last of them. Playing the effects of the log in order to an empty map
//!   gives the reminder table.
//! - Two creations of one name in one command would share a generation (the log index). Only the last survives the
//!   command, so no two reminders of one name ever share one.
//!
//! Deliberately absent: size checks (the ingress makes them by [`crate::limits`]; here a large command is only slow),
//! and schedules (the owner says when the next occurrence is due).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use callboard_types::{ActorKey, Timestamp};

use super::command::{ActorCommand, ActorOp, Effect, Rejection};
use super::table::{DroppedFiring, Reminder, ReminderSpec, StateValue, Tables};
use crate::limits;

/// The command's operations so far, over the tables they have not touched yet.
pub(super) struct Draft<'a, T> {
    tables: &'a T,
    index: u64,
    command: &'a ActorCommand,
    changes: Changes,
}

/// What a whole accepted command writes.
#[derive(Default)]
pub(super) struct Changes {
    /// The actor was deleted: its state and last write go first, then `state` is written.
    wipe: bool,
    /// By key; `None`: deleted.
    state: BTreeMap<String, Option<StateValue>>,
    reminders: BTreeMap<String, ReminderChange>,
    /// With the position of the operation that gave the occurrence up.
    dropped: Vec<(u32, DroppedFiring)>,
}

struct ReminderChange {
    /// As in the table.
    before: Option<Reminder>,
    after: Option<Reminder>,
    /// Position of the last operation that touched it.
    position: u32,
}

/// The occurrence that an operation reports on, and when the one after it is due.
struct Occurrence<'a> {
    name: &'a str,
    generation: u64,
    number: u64,
    next: Option<Timestamp>,
}

impl<'a, T: Tables> Draft<'a, T> {
    /// Takes all operations of the command, or none.
    pub(super) fn of(
        tables: &'a T,
        index: u64,
        command: &'a ActorCommand,
    ) -> Result<Result<Changes, Rejection>, T::Error> {
        let mut draft = Draft { tables, index, command, changes: Changes::default() };
        for (position, op) in command.ops.iter().enumerate() {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            if let Err(rejection) = draft.take(position, op)? {
                return Ok(Err(rejection));
            }
        }
        Ok(Ok(draft.changes))
    }

    fn take(&mut self, position: u32, op: &ActorOp) -> Result<Result<(), Rejection>, T::Error> {
        match op {
            ActorOp::Upsert { key, value, expires_at } => {
                let value = StateValue { value: value.clone(), expires_at: *expires_at };
                self.changes.state.insert(key.clone(), Some(value));
            }
            ActorOp::Delete { key } => {
                self.changes.state.insert(key.clone(), None);
            }
            ActorOp::PutReminder { name, spec, due, overwrite } => {
                return self.put_reminder(position, name, spec, *due, *overwrite);
            }
            ActorOp::DeleteReminder { name } => self.touch(position, name)?.after = None,
            ActorOp::ReminderFired { name, generation, occurrence, next } => {
                let of = Occurrence { name, generation: *generation, number: *occurrence, next: *next };
                self.occurrence_fired(position, &of)?;
            }
            ActorOp::ReminderDropped { name, generation, occurrence, next, reason } => {
                let of = Occurrence { name, generation: *generation, number: *occurrence, next: *next };
                self.occurrence_dropped(position, &of, reason)?;
            }
            ActorOp::DeleteActor => self.delete_actor(position)?,
        }
        Ok(Ok(()))
    }

    fn put_reminder(
        &mut self,
        position: u32,
        name: &str,
        spec: &ReminderSpec,
        due: Timestamp,
        overwrite: bool,
    ) -> Result<Result<(), Rejection>, T::Error> {
        let (generation, registered) = (self.index, self.command.now);
        let change = self.touch(position, name)?;
        if change.after.is_some() && !overwrite {
            return Ok(Err(Rejection::ReminderExists { name: name.to_owned() }));
        }
        change.after = Some(Reminder { spec: spec.clone(), generation, occurrence: 1, due, registered, dropped: 0 });
        Ok(Ok(()))
    }

    fn occurrence_fired(&mut self, position: u32, of: &Occurrence<'_>) -> Result<(), T::Error> {
        let change = self.touch(position, of.name)?;
        if let Some(reminder) = change.after.take_if(|reminder| of.is_pending_in(reminder)) {
            change.after = of.advance(reminder);
        }
        Ok(())
    }

    fn occurrence_dropped(&mut self, position: u32, of: &Occurrence<'_>, reason: &str) -> Result<(), T::Error> {
        let change = self.touch(position, of.name)?;
        let Some(mut reminder) = change.after.take_if(|reminder| of.is_pending_in(reminder)) else { return Ok(()) };
        let due = reminder.due;
        reminder.dropped = reminder.dropped.saturating_add(1);
        change.after = of.advance(reminder);
        let firing = DroppedFiring {
            actor: self.command.actor.clone(),
            name: of.name.to_owned(),
            generation: of.generation,
            occurrence: of.number,
            due,
            dropped_at: self.command.now,
            reason: limits::cut(reason, limits::MAX_DROP_REASON_BYTES).to_owned(),
        };
        self.changes.dropped.push((position, firing));
        Ok(())
    }

    /// Dropped firings stay: they are the partition's record of what went wrong, not the actor's data.
    fn delete_actor(&mut self, position: u32) -> Result<(), T::Error> {
        self.changes.wipe = true;
        self.changes.state.clear();
        for (name, reminder) in self.tables.reminders(&self.command.actor)? {
            let untouched = || ReminderChange { before: Some(reminder.clone()), after: Some(reminder), position };
            self.changes.reminders.entry(name).or_insert_with(untouched);
        }
        for change in self.changes.reminders.values_mut() {
            if change.after.take().is_some() {
                change.position = position;
            }
        }
        Ok(())
    }

    /// The reminder as the earlier operations left it.
    fn touch(&mut self, position: u32, name: &str) -> Result<&mut ReminderChange, T::Error> {
        let change = match self.changes.reminders.entry(name.to_owned()) {
            Entry::Occupied(change) => change.into_mut(),
            Entry::Vacant(slot) => {
                let before = self.tables.reminder(&self.command.actor, name)?;
                slot.insert(ReminderChange { after: before.clone(), before, position })
            }
        };
        change.position = position;
        Ok(change)
    }
}

impl Occurrence<'_> {
    /// The rule "an outcome counts only for the occurrence it is of": a reminder that was registered again, or has
    /// moved on, is not touched by what became of its predecessor.
    fn is_pending_in(&self, reminder: &Reminder) -> bool {
        (reminder.generation, reminder.occurrence) == (self.generation, self.number)
    }

    /// The reminder at its next occurrence; `None`: this one was the last.
    fn advance(&self, mut reminder: Reminder) -> Option<Reminder> {
        reminder.due = self.next?;
        reminder.occurrence = reminder.occurrence.saturating_add(1);
        Some(reminder)
    }
}

impl Changes {
    /// Writes everything, and tells what happened to the actor's reminders.
    pub(super) fn write<T: Tables>(
        self,
        tables: &mut T,
        index: u64,
        actor: &ActorKey,
    ) -> Result<Vec<Effect>, T::Error> {
        if self.wipe {
            tables.delete_all_state(actor)?;
            tables.delete_last_write(actor)?;
        }
        for (key, value) in self.state {
            match value {
                Some(value) => tables.put_state(actor, &key, value)?,
                None => tables.delete_state(actor, &key)?,
            }
        }
        if !self.dropped.is_empty() {
            push_dropped(tables, index, self.dropped)?;
        }
        write_reminders(tables, actor, self.reminders)
    }
}

fn write_reminders<T: Tables>(
    tables: &mut T,
    actor: &ActorKey,
    changes: BTreeMap<String, ReminderChange>,
) -> Result<Vec<Effect>, T::Error> {
    let mut changed: Vec<_> = changes.into_iter().filter(|(_, change)| change.before != change.after).collect();
    // Stable: the reminders that one `DeleteActor` removed stay in name order.
    changed.sort_by_key(|(_, change)| change.position);
    let mut effects = Vec::with_capacity(changed.len());
    for (name, change) in changed {
        match (change.before, change.after) {
            (_, Some(reminder)) => {
                tables.put_reminder(actor, &name, reminder.clone())?;
                effects.push(Effect::ReminderSet { actor: actor.clone(), name, reminder });
            }
            (Some(gone), None) => {
                tables.delete_reminder(actor, &name)?;
                effects.push(Effect::ReminderGone { actor: actor.clone(), name, generation: gone.generation });
            }
            (None, None) => {}
        }
    }
    Ok(effects)
}

/// Keeps the newest [`limits::MAX_DROPPED`] rows of the partition.
fn push_dropped<T: Tables>(tables: &mut T, index: u64, dropped: Vec<(u32, DroppedFiring)>) -> Result<(), T::Error> {
    for (position, firing) in dropped {
        tables.push_dropped(index, position, firing)?;
    }
    for _ in limits::MAX_DROPPED..tables.dropped_len()? {
        tables.pop_oldest_dropped()?;
    }
    Ok(())
}
