//! Reminders, as an app registers and reads them.

use std::cmp::Ordering;
use std::sync::atomic;

use callboard_engine::reminder::{Plan, ReminderRequest};
use callboard_machine::partition::{ActorOp, DroppedFiring, Reminder, ReminderSpec};
use callboard_types::{ActorKey, Timestamp};

use super::{Actors, Error, odd};
use crate::calls::scan::{List, ReminderRow, Scan};
use crate::calls::{Answer, Ask};
use crate::clock;
use crate::owner::reads::After;

/// Firings that a partition keeps of those that were given up.
const DROPPED_KEPT: usize = callboard_machine::limits::MAX_DROPPED as usize;

impl Actors {
    /// Whether this node's app hosts the type, which registering reminders and timers needs. Waits for an app that has
    /// not been reached yet.
    pub async fn hosts(&self, actor_type: &str) -> bool {
        let mut app = self.inner.host.app();
        if self.inner.host.has_app() && !self.inner.reached.load(atomic::Ordering::Acquire) {
            let _ = tokio::time::timeout(super::PATIENCE, app.wait_for(|view| view.config_read)).await;
        }
        self.inner.host.type_config(actor_type).is_some()
    }

    /// Registers a reminder; on disk when this returns.
    pub async fn put_reminder(
        &self,
        actor: &ActorKey,
        name: &str,
        request: ReminderRequest,
        plan: Plan,
        now: Timestamp,
    ) -> Result<(), Error> {
        let spec = ReminderSpec {
            data: request.data,
            due_time: request.due_time,
            period: request.period,
            ttl: request.ttl,
            repeats: plan.repeats,
            expires_at: plan.expires_at,
            policy: request.policy,
        };
        let name = name.to_owned();
        self.commit(actor, ActorOp::PutReminder { name, spec, due: plan.due, overwrite: request.overwrite }, now).await
    }

    pub async fn delete_reminder(&self, actor: &ActorKey, name: &str) -> Result<(), Error> {
        self.commit(actor, ActorOp::DeleteReminder { name: name.to_owned() }, clock::wall()).await
    }

    pub async fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Reminder, Error> {
        match self.ask(actor, &Ask::Reminder { name: name.to_owned() }).await? {
            Answer::Reminder(reminder) => reminder.ok_or_else(|| Error::ReminderNotFound(name.to_owned())),
            other @ (Answer::Response(_) | Answer::Done | Answer::State(_) | Answer::Reminders(_)) => Err(odd(&other)),
        }
    }

    /// The actor's reminders, by name.
    pub async fn reminders(&self, actor: &ActorKey) -> Result<Vec<(String, Reminder)>, Error> {
        match self.ask(actor, &Ask::Reminders { limit: self.inner.limits.reminders_per_actor }).await? {
            Answer::Reminders(reminders) => Ok(reminders),
            other @ (Answer::Response(_) | Answer::Done | Answer::State(_) | Answer::Reminder(_)) => Err(odd(&other)),
        }
    }

    /// Reminders of all partitions in the order of actor and name, after `after`, `limit` at most.
    pub async fn scan_reminders(&self, after: Option<After>, limit: usize) -> Result<Vec<ReminderRow>, Error> {
        let by_name = |a: &ReminderRow, b: &ReminderRow| (&a.0, &a.1).cmp(&(&b.0, &b.1));
        self.gather(Scan { list: List::Reminders { after }, limit }, limit, by_name, |_| true).await
    }

    /// The `limit` latest of the firings of all partitions that were given up and are `wanted`, the latest first.
    pub async fn dropped(
        &self,
        wanted: impl Fn(&DroppedFiring) -> bool,
        limit: usize,
    ) -> Result<Vec<DroppedFiring>, Error> {
        // All that a partition keeps: one that is wanted may be older than many that are not.
        self.gather(Scan { list: List::Dropped, limit: DROPPED_KEPT }, limit, latest_first, wanted).await
    }

    /// In the name of the actor's activation where there is one, so that a superseded one changes nothing.
    async fn commit(&self, actor: &ActorKey, op: ActorOp, now: Timestamp) -> Result<(), Error> {
        if let Some(author) = self.author(actor).await? {
            return self.write_as(author, actor, vec![op], now).await;
        }
        self.ask(actor, &Ask::Commit { author: None, ops: vec![op], now }).await.map(|_done| ())
    }
}

fn latest_first(a: &DroppedFiring, b: &DroppedFiring) -> Ordering {
    b.dropped_at.cmp(&a.dropped_at)
}

#[cfg(test)]
mod tests {
    use super::super::gather::merge;
    use super::*;

    fn firing(id: &str, at: i64) -> DroppedFiring {
        DroppedFiring {
            actor: ActorKey::new("ns", "T", id),
            name: "r".into(),
            generation: 1,
            occurrence: 1,
            due: Timestamp::from_secs(0),
            dropped_at: Timestamp::from_secs(at),
            reason: String::new(),
        }
    }

    #[test]
    fn firings_that_are_not_wanted_take_no_place_of_those_that_are() {
        let mut rows = Vec::new();
        for start in [0, 1] {
            let mut kept: Vec<_> = (1..=DROPPED_KEPT as i64).map(|n| firing("noisy", 1_000 * n)).collect();
            kept.extend([firing("quiet", 10 + start), firing("quiet", 20 + start)]);
            merge(&mut rows, kept, 3, latest_first, |firing| &*firing.actor.actor_id == "quiet");
        }
        let at: Vec<_> = rows.iter().map(|firing| firing.dropped_at).collect();
        assert_eq!(at, [21, 20, 11].map(Timestamp::from_secs), "the latest three, the latest first");
    }
}
