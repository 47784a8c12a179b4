//! Timers: registered with this node, ticking as ordinary turns of their actors.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callboard_engine::timer::{Error as TimerError, Tick, TimerRequest};
use callboard_types::ActorKey;
use http::StatusCode;

use super::Actors;
use crate::app::path;
use crate::calls::{TickRef, TurnKind};
use crate::clock;
use crate::owner::{AppCall, Error as OwnerError};
use crate::tasks::Kind;

/// Ticks begun at a time.
const BATCH: usize = 256;
/// The table is looked at again at least this often: wall clocks are stepped.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Actors {
    pub fn put_timer(&self, actor: &ActorKey, name: &str, request: TimerRequest) -> Result<(), TimerError> {
        self.inner.host.timers().put(actor, name, request, clock::wall())
    }

    pub fn delete_timer(&self, actor: &ActorKey, name: &str) {
        self.inner.host.timers().remove(actor, name);
    }

    pub fn timers(&self) -> usize {
        self.inner.host.timers().len()
    }

    /// Runs what is due until the tasks stop.
    pub(super) async fn run_timers(self) {
        let tasks = self.inner.tasks.clone();
        loop {
            let now = clock::wall();
            let draining = self.inner.draining.load(Ordering::Acquire);
            let due = if draining { Vec::new() } else { self.inner.host.timers().take_due(now, BATCH) };
            let more = due.len() == BATCH;
            for tick in due {
                tasks.spawn(Kind::Work, "timer", self.clone().tick(tick));
            }
            let sleep = self
                .inner
                .host
                .timers()
                .next_due()
                .filter(|_| !draining)
                .map_or(LOOK_AGAIN, |due| due.saturating_since(now).min(LOOK_AGAIN));
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = self.inner.host.timers().changed() => {}
                () = tokio::time::sleep(if more { Duration::ZERO } else { sleep }) => {}
            }
        }
    }

    /// One tick: failures are logged and nothing else, the schedule goes on.
    async fn tick(self, tick: Tick) {
        if self.inner.host.timers().is_current(&tick.actor, &tick.name, tick.instance, tick.occurrence) {
            let call = AppCall::callback(path::timer(&tick.actor, &tick.name), tick.request.callback_body());
            let (instance, occurrence) = (tick.instance, tick.occurrence);
            let kept = TickRef { node: self.inner.node, name: tick.name.to_string(), instance, occurrence };
            match self.turn(&tick.actor, TurnKind::Timer(kept), None, Arc::new(call)).await {
                Ok(response) if response.status() == StatusCode::OK => {}
                Err(super::Error::Owner(OwnerError::Unwanted)) => {}
                Ok(response) => {
                    tracing::error!(actor = %tick.actor, timer = &*tick.name, status = response.status().as_u16(), "a timer's callback failed");
                }
                Err(error) => {
                    tracing::error!(actor = %tick.actor, timer = &*tick.name, %error, "a timer's callback was not answered");
                }
            }
        }
        self.inner.host.timers().finished(&tick);
    }
}
