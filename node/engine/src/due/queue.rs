//! The reminders that a due table has in memory, in due order, with no more than a few pending firings per actor.
//!
//! Turns of an actor are serial, so an actor gets at most `pending_per_actor` firings at a time. When a reminder of an
//! actor at its cap becomes the first of the queue it is *set aside*, and those behind it move up; when the actor gets
//! below its cap, the earliest that was set aside goes back. So one actor with many due reminders delays only itself.
//!
//! *Bounds.* What is set aside must not crowd out the reminders of others: an actor sets aside at most an eighth of the
//! window, all together half of it. Beyond that the actor's latest are *left out*: from a key on, nothing of that actor
//! is in memory, as if the actor had a cursor of its own. When nothing of it is set aside any more and it is below its
//! cap, the queue is *starved*: the table scans the index from its start, which ends all leaving out.
//!
//! *Invariants.* The first of the queue belongs to an actor below its cap. An actor with reminders set aside has earlier
//! ones in the queue, as many as it may still have firings. What was left out is brought back by a scan from the start
//! that is due already, or will be when firings of the actor are resolved.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use callboard_types::{ActorKey, Timestamp};

use super::vocabulary::{DueKey, Limits, ReminderId, Version};

/// The place of a reminder among those of its actor.
type Place = (Timestamp, Arc<str>);

/// An actor with firings pending or reminders set aside.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) pending: usize,
    pub(super) aside: BTreeMap<Place, Version>,
    /// From here on the actor's reminders are not in memory. Above all that are set aside.
    pub(super) left_from: Option<Place>,
}

/// Loaded reminders, and how many firings of each actor are pending.
#[derive(Debug)]
pub(super) struct Queue {
    pending_per_actor: usize,
    aside_per_actor: usize,
    aside_total: usize,
    /// Those that are not set aside.
    pub(super) ready: BTreeMap<DueKey, Version>,
    /// The due instant of each reminder in `ready` or set aside.
    pub(super) due_of: HashMap<ReminderId, Timestamp>,
    pub(super) lines: BTreeMap<ActorKey, Line>,
    starved: bool,
}

impl Queue {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            pending_per_actor: limits.pending_per_actor,
            aside_per_actor: limits.window.div_ceil(8),
            aside_total: limits.window / 2,
            ready: BTreeMap::new(),
            due_of: HashMap::new(),
            lines: BTreeMap::new(),
            starved: false,
        }
    }

    /// All that are in memory.
    pub(super) fn len(&self) -> usize {
        self.due_of.len()
    }

    /// Those that are not set aside.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// When the first may be taken.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.ready.first_key_value().map(|(key, _)| key.due)
    }

    /// Whether an actor waits for reminders that were left out.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether reminders of this actor at this place are left to the index.
    pub(super) fn leaves_out(&self, key: &DueKey) -> bool {
        let from = self.lines.get(&key.id.actor).and_then(|line| line.left_from.as_ref());
        from.is_some_and(|(due, name)| (due, name) <= (&key.due, &key.id.name))
    }

    /// The form in which a reminder is in memory.
    pub(super) fn version(&self, id: &ReminderId) -> Option<Version> {
        let due = *self.due_of.get(id)?;
        let key = DueKey { due, id: id.clone() };
        self.ready.get(&key).or_else(|| self.lines.get(&id.actor)?.aside.get(&(due, id.name.clone()))).copied()
    }

    /// Takes in a reminder that is not in memory.
    pub(super) fn insert(&mut self, key: DueKey, version: Version) {
        let before = self.due_of.insert(key.id.clone(), key.due);
        assert!(before.is_none(), "a reminder is queued once");
        self.ready.insert(key, version);
        self.settle();
    }

    pub(super) fn remove(&mut self, id: &ReminderId) {
        let Some(due) = self.due_of.remove(id) else { return };
        if self.ready.remove(&DueKey { due, id: id.clone() }).is_none()
            && let Some(line) = self.lines.get_mut(&id.actor)
        {
            line.aside.remove(&(due, id.name.clone()));
        }
        self.refresh(&id.actor);
        self.settle();
    }

    /// Takes the first if its instant has come, and counts it as pending.
    pub(super) fn begin(&mut self, now: Timestamp) -> Option<(DueKey, Version)> {
        let first = self.ready.first_entry().filter(|first| first.key().due <= now)?;
        let (key, version) = first.remove_entry();
        self.due_of.remove(&key.id);
        let line = self.lines.entry(key.id.actor.clone()).or_default();
        assert!(line.pending < self.pending_per_actor, "an actor at its cap is not first");
        line.pending += 1;
        self.settle();
        Some((key, version))
    }

    /// A firing of the actor is pending no longer.
    pub(super) fn end(&mut self, actor: &ActorKey) {
        let line = self.lines.get_mut(actor).expect("an actor with a pending firing has a line");
        line.pending = line.pending.checked_sub(1).expect("a firing that began ends once");
        self.refresh(actor);
        self.settle();
    }

    /// Drops the reminders of all other actors.
    pub(super) fn retain(&mut self, keeps: impl Fn(&ActorKey) -> bool) {
        self.ready.retain(|key, _| keeps(&key.id.actor));
        self.due_of.retain(|id, _| keeps(&id.actor));
        self.lines.retain(|actor, line| {
            if !keeps(actor) {
                line.forget();
            }
            line.is_needed()
        });
        self.settle();
    }

    /// Drops the latest until `keep` are left, and says which is the last: nothing above it is in memory.
    pub(super) fn evict(&mut self, keep: usize) -> Option<DueKey> {
        while self.len() > keep {
            let Some((key, _)) = self.ready.pop_last() else { break };
            self.due_of.remove(&key.id);
        }
        let last = self.ready.last_key_value().map(|(last, _)| last.clone())?;
        self.lines.retain(|actor, line| {
            let is_above = |(due, name): &Place| (due, actor, name) > (&last.due, &last.id.actor, &last.id.name);
            while let Some(latest) = line.aside.last_entry().filter(|latest| is_above(latest.key())) {
                let ((_, name), _) = latest.remove_entry();
                self.due_of.remove(&ReminderId { actor: actor.clone(), name });
            }
            line.left_from = line.left_from.take().filter(|from| !is_above(from));
            line.is_needed()
        });
        Some(last)
    }

    /// Drops all reminders, and leaves none out; the counts of pending firings stay.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.due_of.clear();
        self.lines.retain(|_, line| {
            line.forget();
            line.is_needed()
        });
        self.starved = false;
    }

    /// Lets an actor below its cap go on: its earliest goes back to the queue. To be called whenever a firing of the actor
    /// ends or one of its reminders is removed; so there are as many in the queue as it may have firings.
    fn refresh(&mut self, actor: &ActorKey) {
        let Entry::Occupied(mut entry) = self.lines.entry(actor.clone()) else { return };
        let line = entry.get_mut();
        let has_room = line.pending < self.pending_per_actor;
        if has_room && let Some(((due, name), version)) = line.aside.pop_first() {
            self.ready.insert(DueKey { due, id: ReminderId { actor: actor.clone(), name } }, version);
        }
        if has_room && line.aside.is_empty() && line.left_from.is_some() {
            self.starved = true;
        }
        if !line.is_needed() {
            entry.remove();
        }
    }

    /// Clears the front of the queue of reminders that cannot be taken.
    fn settle(&mut self) {
        while let Some(first) = self.ready.first_entry() {
            let Some(line) = self.lines.get_mut(&first.key().id.actor) else { return };
            let place = (first.key().due, first.key().id.name.clone());
            let left_out = line.left_from.as_ref().is_some_and(|from| *from <= place);
            if !left_out && line.pending < self.pending_per_actor {
                return;
            }
            let (DueKey { id, .. }, version) = first.remove_entry();
            if left_out {
                self.due_of.remove(&id);
                continue;
            }
            line.aside.insert(place, version);
            let all = self.due_of.len() - self.ready.len();
            if line.aside.len() > self.aside_per_actor || all > self.aside_total {
                let (last, _) = line.aside.pop_last().expect("one was just set aside");
                self.due_of.remove(&ReminderId { actor: id.actor, name: last.1.clone() });
                line.left_from = Some(last);
            }
        }
    }
}

impl Line {
    fn forget(&mut self) {
        self.aside.clear();
        self.left_from = None;
    }

    /// An actor of which nothing is pending or set aside needs no line: if some of its reminders were left out, the
    /// queue is starved already.
    fn is_needed(&self) -> bool {
        self.pending > 0 || !self.aside.is_empty()
    }
}
