//! The timers of one node: which tick is due, and when the next one is queued.
//!
//! Timers live in the memory of the node where they were created and die with it. Each tick asks the actor's owner for a
//! turn like any caller, and the node reports back with [`TimerTable::finished`]: only then is the next tick queued, at
//! the previous *scheduled* instant plus the period. So ticks of one timer never overlap, lateness does not accumulate,
//! and ticks that came due while a callback ran follow back to back.
//!
//! A timer is replaced by creating one of its name. Every creation has its own `instance` number: a tick that was taken
//! before a replacement or deletion is no longer current, which the node asks right before it dispatches
//! ([`TimerTable::is_current`]), so a deletion takes effect at once.
//!
//! *Invariants.* At most one tick of an instance is out; no tick is taken before it is due; `Rn` counts ticks whether or
//! not the callback succeeded; at most `limit` timers.
//!
//! *Deliberately absent:* retries (a failed tick is only logged), persistence, a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use callboard_types::{ActorKey, Class, Timestamp};

use crate::json::{self, Fields, quoted};
use crate::reminder::data_member;
use crate::schedule::{self, Schedule};

/// How many timers one node holds unless configured otherwise.
pub const DEFAULT_TIMER_LIMIT: usize = 1_000_000;

/// Why a timer was not created. The text follows Dapr's "error creating actor timer: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Schedule(#[from] schedule::Error),
    #[error("this node holds its limit of {limit} timers")]
    Full { limit: usize },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::Schedule(error) => error.class(),
            Error::Full { limit: _ } => Class::Busy,
        }
    }
}

/// The body of a timer registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerRequest {
    /// Compact JSON text; `None`: no `data` was given.
    pub data: Option<Bytes>,
    pub callback: String,
    pub due_time: String,
    pub period: String,
    pub ttl: String,
}

impl TimerRequest {
    /// Reads the JSON body of a registration.
    ///
    /// # Errors
    ///
    /// Not a JSON object, or a known member of the wrong type.
    pub fn from_json(body: &[u8]) -> Result<Self, json::Error> {
        let fields = Fields::parse(body)?;
        Ok(Self {
            data: data_member(&fields),
            callback: fields.string("callback")?.unwrap_or_default(),
            due_time: fields.string("dueTime")?.unwrap_or_default(),
            period: fields.string("period")?.unwrap_or_default(),
            ttl: fields.string("ttl")?.unwrap_or_default(),
        })
    }

    /// The body of a tick's callback: the texts as registered, always there.
    pub fn callback_body(&self) -> Vec<u8> {
        let mut body = vec![b'{'];
        if let Some(data) = &self.data {
            body.extend_from_slice(b"\"data\":");
            body.extend_from_slice(data);
            body.push(b',');
        }
        let rest = format!(
            "\"callback\":{},\"dueTime\":{},\"period\":{}}}",
            quoted(&self.callback),
            quoted(&self.due_time),
            quoted(&self.period)
        );
        body.extend_from_slice(rest.as_bytes());
        body
    }
}

/// One tick to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    pub actor: ActorKey,
    pub name: Arc<str>,
    /// Which creation of the name this tick belongs to.
    pub instance: u64,
    /// Counts from 1.
    pub occurrence: u64,
    pub due: Timestamp,
    pub request: Arc<TimerRequest>,
}

#[derive(Debug)]
struct Entry {
    instance: u64,
    schedule: Schedule,
    request: Arc<TimerRequest>,
    /// The tick that is queued or out.
    occurrence: u64,
    due: Timestamp,
    out: bool,
}

/// The timers of one node.
#[derive(Debug)]
pub struct TimerTable {
    limit: usize,
    len: usize,
    /// Rises with every creation; never reused.
    last_instance: u64,
    timers: BTreeMap<ActorKey, BTreeMap<Arc<str>, Entry>>,
    /// Exactly the entries that are not out.
    queue: BTreeSet<(Timestamp, u64, ActorKey, Arc<str>)>,
}

impl TimerTable {
    /// `limit`: how many timers it holds; more are refused.
    pub fn new(limit: usize) -> Self {
        Self { limit, len: 0, last_instance: 0, timers: BTreeMap::new(), queue: BTreeSet::new() }
    }

    /// Creates a timer, or replaces the one of its name.
    ///
    /// # Errors
    ///
    /// The texts make no schedule, or the table is full. An existing timer of the name then stays.
    pub fn put(&mut self, actor: &ActorKey, name: &str, request: TimerRequest, now: Timestamp) -> Result<(), Error> {
        let key = format!("{}||{}||{}", actor.actor_type, actor.actor_id, name);
        let schedule = Schedule::timer(&key, &request.due_time, &request.period, &request.ttl, now)?;
        if self.entry(actor, name).is_none() && self.len >= self.limit {
            return Err(Error::Full { limit: self.limit });
        }
        self.remove(actor, name);
        self.last_instance += 1;
        let (instance, due) = (self.last_instance, schedule.first_due());
        let name: Arc<str> = name.into();
        self.queue.insert((due, instance, actor.clone(), Arc::clone(&name)));
        let entry = Entry { instance, schedule, request: Arc::new(request), occurrence: 1, due, out: false };
        self.timers.entry(actor.clone()).or_default().insert(name, entry);
        self.len += 1;
        Ok(())
    }

    /// Deletes a timer; says whether it was there.
    pub fn remove(&mut self, actor: &ActorKey, name: &str) -> bool {
        let Some(of_actor) = self.timers.get_mut(actor) else { return false };
        let Some((name, entry)) = of_actor.remove_entry(name) else { return false };
        if of_actor.is_empty() {
            self.timers.remove(actor);
        }
        self.queue.remove(&(entry.due, entry.instance, actor.clone(), name));
        self.len -= 1;
        true
    }

    /// Deletes all timers of an actor (its activation ended); says how many there were.
    pub fn remove_actor(&mut self, actor: &ActorKey) -> usize {
        let Some(of_actor) = self.timers.remove(actor) else { return 0 };
        let count = of_actor.len();
        for (name, entry) in of_actor {
            self.queue.remove(&(entry.due, entry.instance, actor.clone(), name));
        }
        self.len -= count;
        count
    }

    /// Takes up to `max` ticks that are due, earliest first. Each is out until [`finished`](Self::finished).
    pub fn take_due(&mut self, now: Timestamp, max: usize) -> Vec<Tick> {
        let mut ticks = Vec::new();
        while ticks.len() < max && self.queue.first().is_some_and(|(due, ..)| *due <= now) {
            let Some((due, instance, actor, name)) = self.queue.pop_first() else { break };
            let entry = self.entry_mut(&actor, &name);
            let entry = entry.filter(|entry| entry.instance == instance && !entry.out);
            let entry = entry.expect("the queue holds exactly the entries that are not out");
            entry.out = true;
            let (occurrence, request) = (entry.occurrence, Arc::clone(&entry.request));
            ticks.push(Tick { actor, name, instance, occurrence, due, request });
        }
        ticks
    }

    /// Whether a tick that was taken is still to be delivered: `false` once its timer was replaced or deleted.
    pub fn is_current(&self, actor: &ActorKey, name: &str, instance: u64, occurrence: u64) -> bool {
        self.entry(actor, name).is_some_and(|entry| entry.is_out_with(instance, occurrence))
    }

    /// The callback of a tick has returned, well or not: queues the next tick or ends the timer.
    pub fn finished(&mut self, tick: &Tick) {
        let Some(entry) = self.entry_mut(&tick.actor, &tick.name) else { return };
        if !entry.is_out_with(tick.instance, tick.occurrence) {
            return;
        }
        let Some(next) = entry.schedule.next(entry.due, entry.occurrence) else {
            self.remove(&tick.actor, &tick.name);
            return;
        };
        entry.due = next;
        entry.occurrence += 1;
        entry.out = false;
        self.queue.insert((next, tick.instance, tick.actor.clone(), Arc::clone(&tick.name)));
    }

    /// When the next tick is due, as far as it is known.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.queue.first().map(|(due, ..)| *due)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many timers an actor has.
    pub fn count_of(&self, actor: &ActorKey) -> usize {
        self.timers.get(actor).map_or(0, BTreeMap::len)
    }

    fn entry(&self, actor: &ActorKey, name: &str) -> Option<&Entry> {
        self.timers.get(actor)?.get(name)
    }

    fn entry_mut(&mut self, actor: &ActorKey, name: &str) -> Option<&mut Entry> {
        self.timers.get_mut(actor)?.get_mut(name)
    }
}

impl Entry {
    fn is_out_with(&self, instance: u64, occurrence: u64) -> bool {
        self.out && self.instance == instance && self.occurrence == occurrence
    }
}

/// Fuzz body: a registration from arbitrary bytes; a timer that is accepted ticks and ends in order.
pub fn fuzz_timer(data: &[u8]) {
    let Ok(request) = TimerRequest::from_json(data) else { return };
    assert!(serde_json::from_slice::<serde_json::Value>(&request.callback_body()).is_ok() || request.data.is_some());
    let mut table = TimerTable::new(1);
    let actor = ActorKey::new("default", "T", "I");
    if table.put(&actor, "N", request, Timestamp::from_secs(1_700_000_000)).is_err() {
        return;
    }
    for _ in 0..16 {
        let ticks = table.take_due(Timestamp::MAX, 2);
        assert!(ticks.len() <= 1 && table.next_due().is_none());
        let Some(tick) = ticks.first() else { break };
        table.finished(tick);
    }
}

#[cfg(test)]
#[path = "timer/timer_test.rs"]
mod tests;
