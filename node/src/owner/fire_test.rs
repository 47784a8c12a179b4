//! An occurrence of a reminder: fired until the log has its outcome, and not after.

use callboard_engine::due::{DueEntry, DueKey, Firing, ReminderId};
use callboard_machine::partition::{ActorOp, Effect, Reminder, ReminderSpec};
use callboard_types::{FailurePolicy, Timestamp};

use super::stage_test::{Stage, answered, cat};
use super::writes::Write;
use crate::clock;

const FIRES: &str = "PUT /actors/Cat/felix/method/remind/nap";

async fn commit(stage: &Stage, op: ActorOp) {
    let write = Write { author: None, ops: vec![op], now: clock::wall() };
    answered(stage.reign.commit(&cat("felix"), write)).await.expect("it commits");
}

fn stored(stage: &Stage) -> Option<Reminder> {
    stage.reign.reminder(&cat("felix"), "nap").expect("it is read")
}

/// A reminder of felix that is due, and due again every hour.
async fn with_reminder() -> (Stage, Reminder) {
    let stage = Stage::open().await;
    let spec = ReminderSpec {
        data: None,
        due_time: "0s".to_owned(),
        period: "1h".to_owned(),
        ttl: String::new(),
        repeats: None,
        expires_at: None,
        policy: FailurePolicy::default(),
    };
    commit(&stage, ActorOp::PutReminder { name: "nap".to_owned(), spec, due: clock::wall(), overwrite: true }).await;
    let reminder = stored(&stage).expect("it stands in the store");
    (stage, reminder)
}

/// What the due table hands out for the reminder in this form.
fn handed_out(stage: &Stage, reminder: &Reminder) -> Firing {
    let id = ReminderId { actor: cat("felix"), name: "nap".into() };
    let key = DueKey { due: reminder.due, id };
    let mut table = stage.reign.table.lock();
    // A scan may be under way since the reign began.
    let _ = table.due.wants_refill();
    table.due.refill(Vec::new(), true);
    table.due.put(DueEntry { key, generation: reminder.generation, occurrence: reminder.occurrence });
    table.due.take_due(Timestamp::MAX, 1).pop().expect("it is due")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_occurrence_stands_in_the_log_before_it_is_forgotten() {
    let (mut stage, reminder) = with_reminder().await;
    let mut fired = Box::pin(stage.reign.clone().fire(handed_out(&stage, &reminder)));
    let asked = stage.asked_by(&mut fired).await;
    assert_eq!(asked.line, FIRES);
    assert_eq!(stored(&stage).expect("it repeats").occurrence, 1);
    asked.answer();
    answered(fired).await;
    assert_eq!(stored(&stage).expect("it repeats").occurrence, 2);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_occurrence_that_was_answered_is_not_fired_again() {
    let (mut stage, reminder) = with_reminder().await;
    let mut fired = Box::pin(stage.reign.clone().fire(handed_out(&stage, &reminder)));
    stage.asked_by(&mut fired).await.answer();
    answered(fired).await;
    // Word of the first occurrence that was long under way.
    let late = stage.reign.clone().fire(handed_out(&stage, &reminder));
    stage.answered_unasked(late).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reminder_that_is_deleted_while_it_waits_for_its_turn_is_not_fired() {
    let (mut stage, reminder) = with_reminder().await;
    let mut call = stage.call("felix");
    let running = stage.asked_by(&mut call).await;
    let mut fired = Box::pin(stage.reign.clone().fire(handed_out(&stage, &reminder)));
    stage.not_asked_by(&mut fired).await;
    let gone = Effect::ReminderGone { actor: cat("felix"), name: "nap".to_owned(), generation: reminder.generation };
    stage.reign.applied(&[gone]);
    running.answer();
    answered(call).await.expect("an answer");
    stage.answered_unasked(fired).await;
    stage.end().await;
}
