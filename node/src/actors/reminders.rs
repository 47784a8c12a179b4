//! Reminders, as an app registers and reads them.

use std::sync::atomic::Ordering;

use callboard_engine::reminder::{FailurePolicy as EnginePolicy, Plan, ReminderRequest};
use callboard_machine::partition::{ActorOp, DroppedFiring, FailurePolicy, Reminder, ReminderSpec};
use callboard_types::{ActorKey, Timestamp};

use super::{Actors, Error};
use crate::clock;
use crate::owner::reads::After;
use crate::owner::writes::Write;

/// Firings that a partition keeps of those that were given up.
const DROPPED_KEPT: usize = callboard_machine::limits::MAX_DROPPED as usize;

impl Actors {
    /// Whether this node's app hosts the type, which registering reminders and timers needs. Waits for an app that has
    /// not been reached yet.
    pub async fn hosts(&self, actor_type: &str) -> bool {
        let mut app = self.inner.host.app();
        if self.inner.host.has_app() && !self.inner.reached.load(Ordering::Acquire) {
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
        self.room_for_reminder(actor, name).await?;
        let spec = ReminderSpec {
            data: request.data,
            due_time: request.due_time,
            period: request.period,
            ttl: request.ttl,
            repeats: plan.repeats,
            expires_at: plan.expires_at,
            policy: policy(request.policy),
        };
        let name = name.to_owned();
        self.commit(actor, ActorOp::PutReminder { name, spec, due: plan.due, overwrite: request.overwrite }, now).await
    }

    pub async fn delete_reminder(&self, actor: &ActorKey, name: &str) -> Result<(), Error> {
        self.commit(actor, ActorOp::DeleteReminder { name: name.to_owned() }, clock::wall()).await
    }

    pub async fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Reminder, Error> {
        let reminder = self.routed(actor, |owner| std::future::ready(owner.reminder(actor, name))).await?;
        reminder.ok_or_else(|| Error::ReminderNotFound(name.to_owned()))
    }

    /// The actor's reminders, by name.
    pub async fn reminders(&self, actor: &ActorKey) -> Result<Vec<(ActorKey, String, Reminder)>, Error> {
        let limit = self.inner.limits.reminders_per_actor;
        self.routed(actor, |owner| {
            let of = Some(actor.clone());
            async move { owner.scan_reminders(of, None, limit).await }
        })
        .await
    }

    /// Reminders of all partitions in the order of actor and name, after `after`, `limit` at most.
    pub async fn scan_reminders(
        &self,
        after: Option<After>,
        limit: usize,
    ) -> Result<Vec<(ActorKey, String, Reminder)>, Error> {
        let mut rows = Vec::new();
        for owner in self.owners() {
            let owner = owner.reign()?;
            rows.extend(owner.scan_reminders(None, after.clone(), limit).await?);
        }
        rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        rows.truncate(limit);
        Ok(rows)
    }

    /// The `limit` latest of the firings of all partitions that were given up and are `wanted`, the latest first.
    pub async fn dropped(
        &self,
        wanted: impl Fn(&DroppedFiring) -> bool,
        limit: usize,
    ) -> Result<Vec<DroppedFiring>, Error> {
        let mut rows = Vec::new();
        for owner in self.owners() {
            // All that a partition keeps: one that is wanted may be older than many that are not.
            let kept = owner.reign()?.dropped(DROPPED_KEPT).await?;
            latest(&mut rows, kept, &wanted, limit);
        }
        Ok(rows)
    }

    /// In the name of the actor's activation where there is one, so that a superseded one changes nothing.
    async fn commit(&self, actor: &ActorKey, op: ActorOp, now: Timestamp) -> Result<(), Error> {
        if let Some(author) = self.author(actor).await? {
            let write = Write { author: Some(author), ops: vec![op], now };
            return Ok(self.owner_of(actor).reign()?.commit(actor, write).await?);
        }
        self.routed(actor, |reign| {
            let (actor, write) = (actor.clone(), Write { author: None, ops: vec![op.clone()], now });
            async move { reign.commit(&actor, write).await }
        })
        .await
    }

    async fn room_for_reminder(&self, actor: &ActorKey, name: &str) -> Result<(), Error> {
        let limit = self.inner.limits.reminders_per_actor;
        let full = self
            .routed(actor, |owner| {
                let exists = owner.reminder(actor, name).map(|reminder| reminder.is_some());
                let of = Some(actor.clone());
                async move { Ok(!exists? && owner.scan_reminders(of, None, limit).await?.len() >= limit) }
            })
            .await?;
        if full { Err(Error::Full(format!("an actor has at most {limit} reminders"))) } else { Ok(()) }
    }
}

/// Keeps the `limit` latest of `rows` and those of `more` that are wanted.
fn latest(
    rows: &mut Vec<DroppedFiring>,
    more: Vec<DroppedFiring>,
    wanted: impl Fn(&DroppedFiring) -> bool,
    limit: usize,
) {
    rows.extend(more.into_iter().filter(|firing| wanted(firing)));
    rows.sort_by_key(|firing| std::cmp::Reverse(firing.dropped_at));
    rows.truncate(limit);
}

fn policy(requested: EnginePolicy) -> FailurePolicy {
    match requested {
        EnginePolicy::Drop => FailurePolicy::Drop,
        EnginePolicy::Constant { interval_micros, max_retries } => {
            FailurePolicy::Constant { interval_micros, max_retries }
        }
    }
}

#[cfg(test)]
mod tests {
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
            latest(&mut rows, kept, |firing| &*firing.actor.actor_id == "quiet", 3);
        }
        let at: Vec<_> = rows.iter().map(|firing| firing.dropped_at).collect();
        assert_eq!(at, [21, 20, 11].map(Timestamp::from_secs), "the latest three, the latest first");
    }
}
