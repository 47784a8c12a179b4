//! The timers of this node: volatile schedules of ticks, each of which asks the actor's owner for a turn.
//!
//! They live where they were created and die with the node. The table decides what is due; whoever runs it says when a
//! tick has been answered, because the next tick of a timer waits for that.

use std::sync::Arc;

use callboard_engine::timer::{Error, Tick, TimerRequest, TimerTable};
use callboard_types::{ActorKey, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The node's timers; clones share them.
#[derive(Clone)]
pub struct Timers {
    inner: Arc<Inner>,
}

struct Inner {
    table: Mutex<TimerTable>,
    changed: Notify,
}

impl Timers {
    pub fn new(limit: usize) -> Self {
        Self { inner: Arc::new(Inner { table: Mutex::new(TimerTable::new(limit)), changed: Notify::new() }) }
    }

    /// Creates a timer, or replaces the one of that name.
    pub fn put(&self, actor: &ActorKey, name: &str, request: TimerRequest, now: Timestamp) -> Result<(), Error> {
        self.inner.table.lock().put(actor, name, request, now)?;
        self.inner.changed.notify_one();
        Ok(())
    }

    /// From here on it does not tick, apart from a tick that runs.
    pub fn remove(&self, actor: &ActorKey, name: &str) {
        self.inner.table.lock().remove(actor, name);
    }

    pub fn remove_actor(&self, actor: &ActorKey) {
        self.inner.table.lock().remove_actor(actor);
    }

    pub fn take_due(&self, now: Timestamp, max: usize) -> Vec<Tick> {
        self.inner.table.lock().take_due(now, max)
    }

    /// Whether the timer of a tick still exists; asked right before its callback.
    pub fn is_current(&self, actor: &ActorKey, name: &str, instance: u64, occurrence: u64) -> bool {
        self.inner.table.lock().is_current(actor, name, instance, occurrence)
    }

    /// The tick's callback has returned, well or not.
    pub fn finished(&self, tick: &Tick) {
        self.inner.table.lock().finished(tick);
        self.inner.changed.notify_one();
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.inner.table.lock().next_due()
    }

    /// Resolves when something may be due earlier than before.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    pub fn len(&self) -> usize {
        self.inner.table.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
