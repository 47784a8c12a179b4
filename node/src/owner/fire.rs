//! One due occurrence of a reminder: a turn of its actor, and what its outcome does to the schedule.
//!
//! The occurrence is fired as long as the log does not say that it was answered or given up: at least once, never
//! early, never silently skipped. Only an answer of the app, or its silence, uses up an attempt of the failure policy;
//! a host that is away, a full mailbox or a change of owner does not.

use std::sync::Arc;
use std::time::Duration;

use callboard_engine::due::Firing;
use callboard_engine::mailbox::RequestKind;
use callboard_engine::reminder::{AfterFailure, after_failure, callback_body};
use callboard_engine::schedule::Schedule;
use callboard_machine::partition::{ActorOp, Reminder};
use callboard_types::{Class, Timestamp};
use http::{HeaderName, HeaderValue, StatusCode};

use super::writes::Write;
use super::{AppCall, Error, Reign, Turn};
use crate::app::Error as AppError;
use crate::app::path;
use crate::clock;

/// Which occurrence of the reminder it is, from 1.
const OCCURRENCE: HeaderName = HeaderName::from_static("callboard-reminder-occurrence");
/// When it was due, RFC 3339.
const DUE: HeaderName = HeaderName::from_static("callboard-reminder-due");

/// Between two tries that use up no attempt.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A firing waits this long for its actor's turn before it lets others have its place.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// An app whose connection broke is given this long to turn out to be gone.
const GONE_WITHIN: Duration = Duration::from_millis(250);

/// What the app made of an occurrence.
enum Verdict {
    Answered,
    /// It was asked, and failed or kept silent: an attempt of the failure policy is used up.
    Failed(String),
    /// It was not asked, or is gone.
    Again,
    /// Nobody hosts the type.
    NoHost,
    /// It was not asked: the reminder is gone, or another of its name is there.
    Unwanted,
}

impl Reign {
    /// Fires one occurrence.
    pub(super) async fn fire(self: Arc<Self>, firing: Firing) {
        // Taken before the turn: whoever holds a turn must never wait for somebody who may wait for that turn.
        let Ok(_permit) = self.common.reminder_turns.acquire().await else { return };
        let reminder = match self.partition.reader().reminder(&firing.id.actor, &firing.id.name) {
            Ok(Some(reminder))
                if reminder.generation == firing.generation && reminder.occurrence == firing.occurrence =>
            {
                reminder
            }
            Ok(_replaced_or_gone) => return self.resolved(&firing),
            Err(error) => {
                tracing::error!(actor = %firing.id.actor, %error, "a due reminder cannot be read");
                return self.again(&firing);
            }
        };
        match self.ask(&firing, &reminder).await {
            Verdict::Answered => self.conclude(&firing, &reminder, None).await,
            Verdict::Again => self.again(&firing),
            Verdict::Unwanted => self.resolved(&firing),
            Verdict::NoHost => {
                let parked = self.table.lock().due.park(&firing);
                if parked {
                    self.keeper.notify_one();
                } else {
                    self.again(&firing);
                }
            }
            Verdict::Failed(why) => self.failed(&firing, &reminder, why).await,
        }
    }

    async fn failed(self: &Arc<Self>, firing: &Firing, reminder: &Reminder, why: String) {
        match after_failure(reminder.spec.policy, firing.attempt) {
            AfterFailure::Retry { after } => {
                tracing::debug!(actor = %firing.id.actor, attempt = firing.attempt, why, "a reminder failed");
                self.table.lock().due.retry_at(firing, clock::wall().saturating_add(after));
                self.keeper.notify_one();
            }
            AfterFailure::GiveUp => {
                tracing::warn!(actor = %firing.id.actor, attempts = firing.attempt, why, "a reminder's firing is given up");
                self.conclude(firing, reminder, Some(why)).await;
            }
        }
    }

    async fn ask(self: &Arc<Self>, firing: &Firing, reminder: &Reminder) -> Verdict {
        let mut app = self.common.hosts.local().app();
        let incarnation = app.borrow_and_update().incarnation;
        let turn = Turn {
            actor: firing.id.actor.clone(),
            kind: RequestKind::Reminder,
            chain: None,
            call: Arc::new(callback(firing, reminder)),
            deadline: clock::monotonic().saturating_add(TURN_WAIT),
            tick: None,
            wanted: Some(Box::new({
                let (reign, firing) = (self.clone(), firing.clone());
                move || reign.table.lock().due.is_current(&firing)
            })),
        };
        match self.turn(Arc::new(turn)).await {
            Ok(response) if response.status() == StatusCode::OK => Verdict::Answered,
            Ok(response) => {
                let text: String = String::from_utf8_lossy(response.body()).chars().take(256).collect();
                Verdict::Failed(format!("({}) {text}", response.status().as_u16()))
            }
            Err(Error::NoHost) => Verdict::NoHost,
            // Replaced or deleted while it waited.
            Err(Error::Unwanted) => Verdict::Unwanted,
            // A host on another node: its app is lost, or it is.
            Err(Error::App(AppError::Lost(_))) if !self.common.hosts.hosts(self.common.node, &firing.id.actor) => {
                Verdict::Again
            }
            Err(Error::App(AppError::Lost(why))) => {
                let gone = app.wait_for(|view| view.incarnation != incarnation);
                match tokio::time::timeout(GONE_WITHIN, gone).await {
                    Ok(_gone) => Verdict::Again,
                    Err(_lives) => Verdict::Failed(why),
                }
            }
            Err(Error::App(error @ (AppError::TimedOut(_) | AppError::TooLarge { .. }))) => {
                Verdict::Failed(error.to_string())
            }
            Err(error) => match error.class() {
                Class::Rejected => Verdict::Failed(error.to_string()),
                Class::Redirected | Class::Busy | Class::Unknown | Class::Fenced | Class::Fatal => Verdict::Again,
            },
        }
    }

    /// Commits what became of the occurrence; `dropped`: why it was given up. Ends only when the log has it, or the
    /// reign is over and the next one fires the occurrence again.
    async fn conclude(self: &Arc<Self>, firing: &Firing, reminder: &Reminder, dropped: Option<String>) {
        let next = next_due(firing, reminder);
        let name = firing.id.name.to_string();
        let (generation, occurrence) = (firing.generation, firing.occurrence);
        let op = match dropped {
            None => ActorOp::ReminderFired { name, generation, occurrence, next },
            Some(reason) => ActorOp::ReminderDropped { name, generation, occurrence, next, reason },
        };
        loop {
            let write = Write { author: None, ops: vec![op.clone()], now: clock::wall() };
            match self.commit(&firing.id.actor, write).await {
                Ok(()) | Err(Error::Rejected(_) | Error::TooLarge(_)) => return self.resolved(firing),
                Err(_) if self.is_over() || self.common.tasks.is_stopping() => return,
                // It has an effect on this very occurrence only, so it may be proposed again.
                Err(error) => {
                    tracing::debug!(actor = %firing.id.actor, %error, "a firing's outcome is not committed yet");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    fn resolved(&self, firing: &Firing) {
        self.table.lock().due.resolved(firing);
        self.keeper.notify_one();
    }

    fn again(&self, firing: &Firing) {
        self.table.lock().due.again_at(firing, clock::wall().saturating_add(AGAIN_AFTER));
        self.keeper.notify_one();
    }
}

/// The occurrence after this one, from the texts that were registered.
fn next_due(firing: &Firing, reminder: &Reminder) -> Option<Timestamp> {
    let spec = &reminder.spec;
    match Schedule::reminder(&spec.due_time, &spec.period, &spec.ttl, reminder.registered) {
        Ok(schedule) => schedule.next(firing.due, firing.occurrence),
        Err(error) => {
            tracing::error!(actor = %firing.id.actor, %error, "a stored reminder's schedule is unreadable; it ends");
            None
        }
    }
}

fn callback(firing: &Firing, reminder: &Reminder) -> AppCall {
    let uri = path::reminder(&firing.id.actor, &firing.id.name);
    let mut call = AppCall::callback(uri, callback_body(reminder.spec.data.as_deref()));
    call.headers.insert(OCCURRENCE, HeaderValue::from(firing.occurrence));
    let due = chrono::DateTime::from_timestamp_micros(firing.due.as_micros())
        .map(|due| due.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
        .and_then(|due| HeaderValue::from_str(&due).ok());
    if let Some(due) = due {
        call.headers.insert(DUE, due);
    }
    call
}
