//! Which reminders of a partition are due: the owner's window over the durable due-time index.
//!
//! A partition may hold far more reminders than fit in memory, and they lie in a durable index ordered by [`DueKey`]. The
//! owner keeps the earliest of them here. The rule that makes this exact is the *cursor*: every reminder of the index
//! whose key is at or below the cursor is in this table, or left out for a named reason (below); those above are the
//! index's, and a later scan from the cursor brings them. The table learns of changes from the effects of applied commands
//! ([`DueTable::put`], [`DueTable::remove`]): at or below the cursor they are taken in, above it they are left to the index.
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
//! *A few firings per actor.* Turns of an actor are serial, so an actor has at most `pending_per_actor` firings pending;
//! its other reminders are set aside and hold up nobody (`queue`).
//!
//! *Types that nobody hosts.* The reminders of a type without a host stay due in the index, but are of no use here: the
//! shell *parks* the type ([`DueTable::park`]), and nothing of it is in memory until [`DueTable::unpark`] finds it hosted.
//! A firing that was handed out before hosts changed says nothing of the present ones, so it cannot park.
//!
//! *Starting over.* What was left to the index below the cursor (a parked type, too many reminders of one actor) comes
//! back in one way: the queue is forgotten, the cursor returns to the start, a running scan is void. What is pending
//! stays, so nothing is handed out twice at a time.
//!
//! The table is a cache with a memory: it may hand out a firing whose reminder was deleted or moved an instant ago, since
//! effects travel. The shell reads the row right before it dispatches; when the row is absent or of another version it
//! calls [`DueTable::resolved`] and forgets the firing.
//!
//! *Invariants.* Nothing is handed out before it is due. No reminder of the index is forgotten. At most one firing per
//! reminder is pending. Memory: at most 2 x `window` queued or set aside, `pending` pending or held, 2 x `window` notes,
//! `parked_types` types.
//!
//! *Deliberately absent:* I/O, a clock, failure policies (`reminder`), anything that outlives the epoch: a node that
//! regains a partition makes another table and scans.

mod queue;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use callboard_types::{ActorKey, Timestamp};

use queue::Queue;
use vocabulary::Version;
pub use vocabulary::{DueEntry, DueKey, Firing, Limits, ReminderId, Scan};

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
    /// Of which hosts its latest attempt was asked: [`DueTable::hosts`] at that time.
    hosts: u64,
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
    /// Reminders at or below the cursor that are neither pending nor held back, of types that are not parked.
    queue: Queue,
    pending: HashMap<ReminderId, Pending>,
    /// The pending firings that wait, by when.
    waiting: BTreeSet<(Timestamp, ReminderId)>,
    /// Namespace and type of reminders that nobody hosts.
    parked: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Counts the reported changes of hosts.
    hosts: u64,
    scan: Option<RunningScan>,
}

impl DueTable {
    pub fn new(limits: Limits) -> Self {
        let room = limits.window.min(limits.pending).min(limits.pending_per_actor);
        assert!(room > 0, "a table without room never fires");
        Self {
            limits,
            cursor: Cursor::Start,
            queue: Queue::new(&limits),
            pending: HashMap::new(),
            waiting: BTreeSet::new(),
            parked: BTreeSet::new(),
            hosts: 0,
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
        if self.queue.version(id).is_some_and(|known| known <= up_to) {
            self.queue.remove(id);
        }
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

    /// Nobody hosts the type of this firing: the firing leaves memory, though the index has it as due, and until
    /// [`unpark`](Self::unpark) nothing of the type is queued, counted or handed out. Firings of the type that are under
    /// way stay pending until their own outcome; those that wait leave, and begin with attempt 1 when they come back.
    ///
    /// False: nothing happened, and the firing wants [`again_at`](Self::again_at). Too many types are parked, or hosts
    /// have changed since the firing was handed out.
    #[must_use]
    pub fn park(&mut self, firing: &Firing) -> bool {
        let Some(pending) = self.pending.get(&firing.id).filter(|pending| pending.is_under_way(firing)) else {
            return true;
        };
        if pending.hosts != self.hosts {
            return false;
        }
        let actor = &firing.id.actor;
        if !self.is_parked(actor) {
            if self.parked.len() >= self.limits.parked_types {
                return false;
            }
            self.parked.insert((actor.namespace.clone(), actor.actor_type.clone()));
            let is_of_type =
                |other: &ActorKey| (&other.namespace, &other.actor_type) == (&actor.namespace, &actor.actor_type);
            self.queue.retain(|other| !is_of_type(other));
            let waiting = self.waiting.iter().map(|(_, id)| id).filter(|id| is_of_type(&id.actor));
            for id in waiting.cloned().collect::<Vec<_>>() {
                self.release(&id);
            }
        }
        self.release(&firing.id);
        true
    }

    /// The hosts may have changed: `hosts` says of a (namespace, type) whether somebody hosts it. Types that are hosted
    /// again fire again. To be called after each change.
    pub fn unpark(&mut self, hosts: impl Fn(&str, &str) -> bool) {
        self.hosts += 1;
        let before = self.parked.len();
        self.parked.retain(|(namespace, actor_type)| !hosts(namespace, actor_type));
        if self.parked.len() < before {
            self.start_over();
        }
    }

    /// The scan that is needed, if any. It counts as running until [`refill`](Self::refill) or
    /// [`refill_failed`](Self::refill_failed); it must read the index after this call.
    pub fn wants_refill(&mut self) -> Option<Scan> {
        if self.scan.is_some() {
            return None;
        }
        // Not before the window is complete: starting over serves all actors that wait for it at once.
        if self.queue.is_starved() && !self.has_room_beyond_the_cursor() {
            self.start_over();
        }
        if !self.has_room_beyond_the_cursor() {
            return None;
        }
        let after = match &self.cursor {
            Cursor::End | Cursor::Start => None,
            Cursor::At(key) => Some(key.clone()),
        };
        self.scan = Some(RunningScan { after: after.clone(), void: false, notes: BTreeMap::new() });
        Some(Scan { after, limit: self.limits.window - self.queue.ready() })
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

    /// Reminders queued in memory, those set aside included.
    pub fn loaded(&self) -> usize {
        self.queue.len()
    }

    fn has_room_beyond_the_cursor(&self) -> bool {
        self.cursor != Cursor::End && self.queue.ready() <= self.limits.window / 2
    }

    fn next_queued(&self) -> Option<Timestamp> {
        self.queue.next().filter(|_| self.pending.len() < self.limits.pending)
    }

    fn take_queued(&mut self, now: Timestamp) -> Option<Firing> {
        let (DueKey { due, id }, (generation, occurrence)) = self.queue.begin(now)?;
        let firing = Firing { id: id.clone(), generation, occurrence, due, attempt: 1 };
        let pending =
            Pending { firing: firing.clone(), waits_until: None, current: true, successor: None, hosts: self.hosts };
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
        pending.hosts = self.hosts;
        Some(pending.firing.clone())
    }

    fn wait(&mut self, firing: &Firing, at: Timestamp, consumed: u32) {
        let parked = self.is_parked(&firing.id.actor);
        let Some(pending) = self.pending.get_mut(&firing.id).filter(|pending| pending.is_under_way(firing)) else {
            return;
        };
        if parked || !pending.current {
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
        self.queue.end(&id.actor);
        if let Some(next) = pending.successor {
            self.take_in(next);
            self.evict();
        }
    }

    /// Brings the table to a reminder's form, unless it knows a later one. What it does not cover is left to the index.
    fn take_in(&mut self, entry: DueEntry) {
        let version = entry.version();
        let covered = self.covers(&entry.key);
        if let Some(pending) = self.pending.get_mut(&entry.key.id) {
            if pending.firing.version() >= version {
                return;
            }
            pending.current = false;
            if pending.waits_until.is_none() {
                let known = pending.successor.as_ref().map(DueEntry::version);
                if known.is_none_or(|known| known < version) {
                    pending.successor = covered.then_some(entry);
                }
                return;
            }
            pending.successor = None;
            self.release(&entry.key.id);
        }
        match self.queue.version(&entry.key.id) {
            Some(known) if known >= version => return,
            Some(_older) => self.queue.remove(&entry.key.id),
            None => {}
        }
        if self.covers(&entry.key) {
            self.queue.insert(entry.key, version);
        }
    }

    /// Whether a reminder at this place belongs in memory.
    fn covers(&self, key: &DueKey) -> bool {
        self.cursor.covers(key) && !self.is_parked(&key.id.actor) && !self.queue.leaves_out(key)
    }

    fn is_parked(&self, actor: &ActorKey) -> bool {
        !self.parked.is_empty() && self.parked.contains(&(actor.namespace.clone(), actor.actor_type.clone()))
    }

    /// Gives the latest of the queue back to the index when there are too many, and lowers the cursor accordingly.
    fn evict(&mut self) {
        if self.queue.len() <= 2 * self.limits.window {
            return;
        }
        if let Some(last) = self.queue.evict(self.limits.window) {
            self.cursor = Cursor::At(last);
        }
        self.void_scan();
    }

    /// Forgets what is queued; the index is to be scanned from its start.
    fn start_over(&mut self) {
        self.queue.clear();
        self.cursor = Cursor::Start;
        self.void_scan();
    }

    fn void_scan(&mut self) {
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
#[path = "due/sharing_test.rs"]
mod sharing_tests;

#[cfg(test)]
#[path = "due/model_test.rs"]
mod model_tests;
