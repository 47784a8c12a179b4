//! What happens to a firing the app does not take: the failure policy.

use std::time::Duration;

use callboard_tests::app::Reply;
use callboard_tests::wait::{PATIENCE, stays};
use serde_json::{Value, json};

use crate::stage::{CAT, stage, unique};

/// The app fails `failures` times with `status`, then succeeds; expects `attempts` in all.
async fn attempts_are(failures: usize, status: u16, policy: Value, attempts: usize, quiet: Duration) {
    let stage = stage().await;
    let id = unique("policy");
    let callback = format!("/actors/{CAT}/{id}/method/remind/test");
    let seen = std::sync::atomic::AtomicUsize::new(0);
    stage.app.on(&callback, move |_| {
        let fails = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < failures;
        async move { Reply::status(if fails { status } else { 200 }) }
    });
    let mut body = json!({"dueTime": "0s"});
    body.as_object_mut().expect("an object").extend(policy.as_object().expect("an object").clone());
    stage.node.remind(CAT, &id, "test", body).await;
    stage.app.wait_answered(attempts, &callback, PATIENCE).await;
    stays(quiet, "the number of attempts", attempts, async || stage.app.count(&callback)).await;
    let url = format!("/v1.0/actors/{CAT}/{id}/reminders/test");
    stage.node.get(&url).send().await.expect(404);
}

/// actors/reminders/failurepolicy/noset/allfail.go
#[tokio::test]
async fn without_a_policy_a_firing_is_tried_four_times_a_second_apart() {
    let begun = std::time::Instant::now();
    attempts_are(usize::MAX, 500, json!({}), 4, Duration::from_secs(3)).await;
    assert!(begun.elapsed() >= Duration::from_secs(6), "three waits of a second and three quiet ones");
}

/// actors/reminders/failurepolicy/noset/failsecond.go
#[tokio::test]
async fn without_a_policy_two_failures_make_three_attempts() {
    attempts_are(2, 500, json!({}), 3, Duration::from_secs(2)).await;
}

/// actors/reminders/failurepolicy/noset/failthird.go
#[tokio::test]
async fn without_a_policy_three_failures_make_four_attempts() {
    attempts_are(3, 500, json!({}), 4, Duration::from_secs(2)).await;
}

/// actors/reminders/failurepolicy/notfound.go
#[tokio::test]
async fn a_404_counts_as_a_failure_and_is_tried_four_times() {
    attempts_are(usize::MAX, 404, json!({}), 4, Duration::from_secs(2)).await;
}

/// actors/reminders/failurepolicy/constant/maxretries.go; both spellings over HTTP (DESIGN 5)
#[tokio::test]
async fn four_retries_at_most_make_exactly_five_attempts() {
    for policy in [
        json!({"failure_policy": {"constant": {"interval": "10ms", "max_retries": 4}}}),
        json!({"failurePolicy": {"constant": {"interval": "0.01s", "maxRetries": 4}}}),
    ] {
        attempts_are(usize::MAX, 500, policy, 5, Duration::from_secs(1)).await;
    }
}

/// dapr.md 5.2: an interval that is not given is none.
#[tokio::test]
async fn a_constant_policy_without_interval_retries_at_once() {
    let begun = std::time::Instant::now();
    let policy = json!({"failurePolicy": {"constant": {"maxRetries": 20}}});
    attempts_are(usize::MAX, 500, policy, 21, Duration::from_millis(500)).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// dapr.md 5.2: no limit of retries is no limit.
#[tokio::test]
async fn a_constant_policy_without_limit_retries_until_it_succeeds() {
    let policy = json!({"failurePolicy": {"constant": {"interval": "20ms"}}});
    attempts_are(25, 500, policy, 26, Duration::from_millis(500)).await;
}

/// actors/reminders/failurepolicy/drop/failed.go
#[tokio::test]
async fn a_drop_policy_makes_one_attempt() {
    attempts_are(usize::MAX, 500, json!({"failure_policy": {"drop": {}}}), 1, Duration::from_secs(5)).await;
}

/// actors/reminders/failurepolicy/drop/success.go
#[tokio::test]
async fn a_drop_policy_with_success_makes_one_attempt() {
    attempts_are(0, 200, json!({"failurePolicy": {"drop": {}}}), 1, Duration::from_secs(2)).await;
}

/// dapr.md 5.2: the firing is given up, the schedule goes on, and `/cluster/v1/reminders` tells.
#[tokio::test]
async fn a_firing_that_is_given_up_is_shown_and_the_schedule_goes_on() {
    let stage = stage().await;
    let id = unique("dropped");
    let callback = format!("/actors/{CAT}/{id}/method/remind/r");
    stage.app.answers(&callback, 500, "");
    let body = json!({"dueTime": "0s", "period": "300ms", "failurePolicy": {"drop": {}}});
    stage.node.remind(CAT, &id, "r", body).await;
    stage.app.wait_answered(3, &callback, PATIENCE).await;
    callboard_tests::wait::eventually(PATIENCE, "the given-up firings are shown", async || {
        let answer = stage.node.get("/cluster/v1/reminders?limit=1000").send().await.expect(200).json();
        let given_up = answer["givenUp"].as_array().expect("a list");
        (given_up.iter().filter(|firing| firing["id"] == id).count() >= 3).then_some(())
    })
    .await;
    stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}/reminders/r")).send().await.expect_empty();
}

/// dapr.md 3.3: the cancel header counts as success and cancels nothing.
#[tokio::test]
async fn a_cancel_header_in_a_callback_is_a_success_and_stops_no_schedule() {
    let stage = stage().await;
    let id = unique("cancel");
    let callback = format!("/actors/{CAT}/{id}/method/remind/r");
    stage.app.on(&callback, async |_| Reply::ok().header("X-DaprReminderCancel", "true"));
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "0s", "period": "R3/PT0.2S"})).await;
    stage.app.wait_for(3, &callback, PATIENCE).await;
    stays(Duration::from_secs(1), "the number of firings", 3, async || stage.app.count(&callback)).await;
}
