//! Which reminders of a partition are due: the owner's window over the durable due-time index.
//!
//! A partition may hold far more reminders than fit in memory, and they lie in a durable index ordered by [`DueKey`]. The
//! owner keeps the earliest of them here. The rule that makes this exact is the *cursor*: every reminder of the index
//! whose key is at or below the cursor is in this table; those above are the index's, and a later scan from the cursor
//! brings them. The table learns of changes from the effects of applied commands ([`DueTable::put`],
//! [`DueTable::remove`]): at or below the cursor they are taken in, above it they are left to the index.
//!
//! *Scans race with effects.* A scan reads the index at some instant, its rows arrive later, and effects arrive in
//! between. So while a scan runs the table notes every reminder that an effect or a resolution touches, and these notes
//! outweigh the rows. What is newer is told by the *version* of a reminder, (generation, occurrence): effects that arrive
//! after a row which already shows their result change nothing. Too many notes, or an eviction below the scan's start,
//! void the scan; it is then asked for again.
//!
//! *One occurrence at a time.* A firing that was taken is *pending* until its outcome is known. While it is, nothing else
//! of that reminder is handed out, whatever is put: a successor is held back until [`DueTable::resolved`]. A pending
//! firing waits for its next attempt here as well.
//!
//! The table is a cache with a memory: it may hand out a firing whose reminder was deleted or moved an instant ago, since
//! effects travel. The shell reads the row right before it dispatches; when the row is absent or of another version it
//! calls [`DueTable::resolved`] and forgets the firing.
//!
//! *Invariants.* Nothing is handed out before it is due. No reminder of the index is forgotten. At most one firing per
//! reminder is pending. Memory: at most 2 x `window` queued, `pending` pending or held, and 2 x `window` notes.
//!
//! *Deliberately absent:* I/O, a clock, failure policies (`reminder`), anything that outlives the epoch: a node that
//! regains a partition makes another table and scans.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use callboard_types::{ActorKey, Timestamp};

/// The name of a reminder within its partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReminderId {
    pub actor: ActorKey,
    pub name: Arc<str>,
}

/// A place in the due-time index. The order is that of the fields: due instant, namespace, type, id, name, texts by their
/// bytes. The durable index scans in exactly this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DueKey {
    pub due: Timestamp,
    pub id: ReminderId,
}

/// A reminder as the index and the effects show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEntry {
    pub key: DueKey,
    /// Tells a re-registered reminder from its predecessor; rises.
    pub generation: u64,
    /// The occurrence that is due; rises within a generation.
    pub occurrence: u64,
}

/// One occurrence to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    pub id: ReminderId,
    pub generation: u64,
    pub occurrence: u64,
    /// The scheduled instant, on every attempt.
    pub due: Timestamp,
    /// Counts from 1.
    pub attempt: u32,
}

/// A scan of the index that the table needs: rows strictly after `after`, in order, at most `limit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub after: Option<DueKey>,
    pub limit: usize,
}

/// What a table holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Reminders queued in memory; up to twice as many for a while. At least 1.
    pub window: usize,
    /// Firings taken and not resolved, those that wait for another attempt included. At the limit only further attempts
    /// are handed out: reminders of an app that cannot be reached then hold up the others of the partition.
    pub pending: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window: 8_192, pending: 65_536 }
    }
}

/// (generation, occurrence): a higher one is a later form of the same reminder.
type Version = (u64, u64);

/// Up to where the table is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cursor {
    /// Nothing was scanned yet.
    Start,
    At(DueKey),
    /// The whole index is in memory.
    End,
}

impl Cursor {
    fn covers(&self, key: &DueKey) -> bool {
        match self {
            Cursor::Start => false,
            Cursor::At(last) => key <= last,
            Cursor::End => true,
        }
    }
}

/// A firing that was taken.
#[derive(Debug)]
struct Pending {
    firing: Firing,
    /// When its next attempt may be taken; `None` while one is under way.
    waits_until: Option<Timestamp>,
    /// No effect has replaced or removed the reminder since it was taken.
    current: bool,
    /// What follows it, held back until it is resolved.
    successor: Option<DueEntry>,
}

/// What happened to a reminder while a scan ran.
#[derive(Debug)]
struct Note {
    /// Rows at or below this version are out of date, or known anyway.
    floor: Version,
    /// The form it was put in last, unless that is gone.
    latest: Option<DueEntry>,
}

#[derive(Debug)]
struct RunningScan {
    after: Option<DueKey>,
    void: bool,
    notes: BTreeMap<ReminderId, Note>,
}

/// The reminders of one partition that are due next.
#[derive(Debug)]
pub struct DueTable {
    limits: Limits,
    cursor: Cursor,
    /// Reminders at or below the cursor that are neither pending nor held back.
    queue: BTreeMap<DueKey, Version>,
    /// The due instant under which each of them is queued.
    queued: HashMap<ReminderId, Timestamp>,
    pending: HashMap<ReminderId, Pending>,
    /// The pending firings that wait, by when.
    waiting: BTreeSet<(Timestamp, ReminderId)>,
    scan: Option<RunningScan>,
}

impl DueTable {
    pub fn new(limits: Limits) -> Self {
        assert!(limits.window > 0 && limits.pending > 0, "a table without room never fires");
        Self {
            limits,
            cursor: Cursor::Start,
            queue: BTreeMap::new(),
            queued: HashMap::new(),
            pending: HashMap::new(),
            waiting: BTreeSet::new(),
            scan: None,
        }
    }

    /// An effect: the reminder exists in this form. Older forms than the known one change nothing.
    pub fn put(&mut self, entry: DueEntry) {
        self.note(&entry.key.id, entry.version(), Some(&entry));
        self.take_in(entry);
        self.evict();
    }

    /// An effect: the reminder of this generation is gone.
    pub fn remove(&mut self, id: &ReminderId, generation: u64) {
        let up_to = (generation, u64::MAX);
        self.note(id, up_to, None);
        self.unqueue(id, up_to);
        let Some(pending) = self.pending.get_mut(id) else { return };
        if pending.successor.as_ref().is_some_and(|next| next.version() <= up_to) {
            pending.successor = None;
        }
        if pending.firing.version() <= up_to {
            pending.current = false;
            if pending.waits_until.is_some() {
                self.release(id);
            }
        }
    }

    /// Takes up to `max` firings whose instant has come, earliest first. Each is pending until [`resolved`](Self::resolved).
    pub fn take_due(&mut self, now: Timestamp, max: usize) -> Vec<Firing> {
        let mut firings = Vec::new();
        while firings.len() < max {
            let waiting = self.waiting.first().map(|(at, _)| *at);
            let queued = self.next_queued();
            let next = match (waiting, queued) {
                (Some(at), Some(due)) if at <= due => self.take_waiting(now),
                (Some(_), None) => self.take_waiting(now),
                (Some(_) | None, Some(_)) => self.take_queued(now),
                (None, None) => None,
            };
            let Some(firing) = next else { break };
            firings.push(firing);
        }
        firings
    }

    /// Whether a firing is still that of a living reminder, as far as effects have told.
    pub fn is_current(&self, firing: &Firing) -> bool {
        self.pending.get(&firing.id).is_some_and(|pending| pending.is_under_way(firing) && pending.current)
    }

    /// The outcome of a firing stands in the log, or its reminder was found changed or gone: nothing of it is repeated,
    /// and what follows it may fire.
    pub fn resolved(&mut self, firing: &Firing) {
        self.note(&firing.id, firing.version(), None);
        if self.pending.get(&firing.id).is_some_and(|pending| pending.firing.version() == firing.version()) {
            self.release(&firing.id);
        }
    }

    /// The app failed an attempt: the next one is taken at `at`. Nothing happens if the reminder was replaced or removed
    /// meanwhile, except that its successor may fire.
    pub fn retry_at(&mut self, firing: &Firing, at: Timestamp) {
        self.wait(firing, at, 1);
    }

    /// The attempt never reached the app (no host, fenced, busy): the same attempt is taken again at `at`.
    pub fn again_at(&mut self, firing: &Firing, at: Timestamp) {
        self.wait(firing, at, 0);
    }

    /// The scan that is needed, if any. It counts as running until [`refill`](Self::refill) or
    /// [`refill_failed`](Self::refill_failed); it must read the index after this call.
    pub fn wants_refill(&mut self) -> Option<Scan> {
        let after = match &self.cursor {
            Cursor::End => return None,
            Cursor::Start => None,
            Cursor::At(key) => Some(key.clone()),
        };
        if self.scan.is_some() || self.queue.len() > self.limits.window / 2 {
            return None;
        }
        self.scan = Some(RunningScan { after: after.clone(), void: false, notes: BTreeMap::new() });
        Some(Scan { after, limit: self.limits.window - self.queue.len() })
    }

    /// The rows of the running scan; `exhausted`: there were none beyond them.
    pub fn refill(&mut self, rows: Vec<DueEntry>, exhausted: bool) {
        let Some(scan) = self.scan.take() else { return };
        if scan.void {
            return;
        }
        let first = scan.after.iter();
        assert!(
            first.chain(rows.iter().map(|row| &row.key)).is_sorted_by(|a, b| a < b),
            "the index scans in key order"
        );
        self.cursor = match rows.last() {
            Some(last) if !exhausted => Cursor::At(last.key.clone()),
            Some(_) | None => Cursor::End,
        };
        for row in rows {
            if scan.notes.get(&row.key.id).is_none_or(|note| row.version() > note.floor) {
                self.take_in(row);
            }
        }
        for entry in scan.notes.into_values().filter_map(|note| note.latest) {
            self.take_in(entry);
        }
        self.evict();
    }

    /// The running scan came to nothing; it is asked for again.
    pub fn refill_failed(&mut self) {
        self.scan = None;
    }

    /// When the next firing may be taken, as far as is in memory.
    pub fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.waiting.first().map(|(at, _)| *at);
        self.next_queued().into_iter().chain(waiting).min()
    }

    /// Firings taken and not resolved.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Reminders queued in memory.
    pub fn loaded(&self) -> usize {
        self.queue.len()
    }

    fn next_queued(&self) -> Option<Timestamp> {
        let room = self.pending.len() < self.limits.pending;
        self.queue.first_key_value().filter(|_| room).map(|(key, _)| key.due)
    }

    fn take_queued(&mut self, now: Timestamp) -> Option<Firing> {
        let first = self.queue.first_entry().filter(|first| first.key().due <= now)?;
        let (DueKey { due, id }, (generation, occurrence)) = first.remove_entry();
        self.queued.remove(&id);
        let firing = Firing { id: id.clone(), generation, occurrence, due, attempt: 1 };
        let pending = Pending { firing: firing.clone(), waits_until: None, current: true, successor: None };
        let before = self.pending.insert(id, pending);
        assert!(before.is_none(), "what is pending is not queued");
        Some(firing)
    }

    fn take_waiting(&mut self, now: Timestamp) -> Option<Firing> {
        if self.waiting.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, id) = self.waiting.pop_first()?;
        let pending = self.pending.get_mut(&id).expect("what waits is pending");
        pending.waits_until = None;
        Some(pending.firing.clone())
    }

    fn wait(&mut self, firing: &Firing, at: Timestamp, consumed: u32) {
        let Some(pending) = self.pending.get_mut(&firing.id) else { return };
        if !pending.is_under_way(firing) {
            return;
        }
        if !pending.current {
            self.release(&firing.id);
            return;
        }
        pending.firing.attempt = pending.firing.attempt.saturating_add(consumed);
        pending.waits_until = Some(at);
        self.waiting.insert((at, firing.id.clone()));
    }

    /// Ends what is pending of a reminder; its successor takes its place in the queue.
    fn release(&mut self, id: &ReminderId) {
        let Some(pending) = self.pending.remove(id) else { return };
        if let Some(at) = pending.waits_until {
            self.waiting.remove(&(at, id.clone()));
        }
        if let Some(next) = pending.successor {
            self.take_in(next);
            self.evict();
        }
    }

    /// Brings the table to a reminder's form, unless it knows a later one. Above the cursor it is left to the index.
    fn take_in(&mut self, entry: DueEntry) {
        let version = entry.version();
        if let Some(pending) = self.pending.get_mut(&entry.key.id) {
            if pending.firing.version() >= version {
                return;
            }
            pending.current = false;
            if pending.waits_until.is_none() {
                let known = pending.successor.as_ref().map(DueEntry::version);
                if known.is_none_or(|known| known < version) {
                    pending.successor = self.cursor.covers(&entry.key).then_some(entry);
                }
                return;
            }
            pending.successor = None;
            self.release(&entry.key.id);
        }
        if let Some(due) = self.queued.get(&entry.key.id) {
            let key = DueKey { due: *due, id: entry.key.id.clone() };
            if self.queue.get(&key).is_some_and(|known| *known >= version) {
                return;
            }
            self.queue.remove(&key);
            self.queued.remove(&key.id);
        }
        if self.cursor.covers(&entry.key) {
            self.queued.insert(entry.key.id.clone(), entry.key.due);
            self.queue.insert(entry.key, version);
        }
    }

    fn unqueue(&mut self, id: &ReminderId, up_to: Version) {
        let Some(due) = self.queued.get(id) else { return };
        let key = DueKey { due: *due, id: id.clone() };
        if self.queue.get(&key).is_some_and(|version| *version <= up_to) {
            self.queue.remove(&key);
            self.queued.remove(id);
        }
    }

    /// Gives the latest of the queue back to the index when there are too many, and lowers the cursor accordingly.
    fn evict(&mut self) {
        if self.queue.len() <= 2 * self.limits.window {
            return;
        }
        while self.queue.len() > self.limits.window {
            let Some((key, _)) = self.queue.pop_last() else { break };
            self.queued.remove(&key.id);
        }
        if let Some((last, _)) = self.queue.last_key_value() {
            self.cursor = Cursor::At(last.clone());
        }
        if let Some(scan) = &mut self.scan {
            scan.make_void();
        }
    }

    /// Remembers, for the rows of a running scan, what is known of a reminder up to `floor`.
    fn note(&mut self, id: &ReminderId, floor: Version, latest: Option<&DueEntry>) {
        let room = 2 * self.limits.window;
        let Some(scan) = self.scan.as_mut().filter(|scan| !scan.void) else { return };
        match scan.notes.get(id) {
            Some(note) if note.floor > floor || (note.floor == floor && latest.is_some()) => {}
            None if scan.notes.len() >= room => scan.make_void(),
            Some(_) | None => {
                scan.notes.insert(id.clone(), Note { floor, latest: latest.cloned() });
            }
        }
    }
}

impl DueEntry {
    fn version(&self) -> Version {
        (self.generation, self.occurrence)
    }
}

impl Firing {
    fn version(&self) -> Version {
        (self.generation, self.occurrence)
    }
}

impl Pending {
    fn is_under_way(&self, firing: &Firing) -> bool {
        self.waits_until.is_none() && self.firing.version() == firing.version()
    }
}

impl RunningScan {
    fn make_void(&mut self) {
        self.void = true;
        self.notes = BTreeMap::new();
    }
}

#[cfg(test)]
#[path = "due/due_test.rs"]
mod tests;

#[cfg(test)]
#[path = "due/model_test.rs"]
mod model_tests;
