//! When reminders fire: counts, periods, TTL, precision.

use std::time::{Duration, Instant};

use callboard_tests::wait::{PATIENCE, busy, stays};
use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::stage::{CAT, stage, unique};

/// Registers, waits for `count` firings, shows that there are no more; gives their instants after registration.
async fn fires(body: Value, count: usize, quiet: Duration) -> Vec<Duration> {
    let stage = stage().await;
    let id = unique("fires");
    let callback = format!("/actors/{CAT}/{id}/method/remind/r");
    let begun = Instant::now();
    stage.node.remind(CAT, &id, "r", body).await;
    let calls = stage.app.wait_for(count, &callback, PATIENCE).await;
    let instants = calls.iter().map(|call| call.begun - begun).collect();
    stays(quiet, "the number of firings", count, async || stage.app.count(&callback)).await;
    stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}/reminders/r")).send().await.expect_empty();
    instants
}

/// No firing before its instant, none later than `late` after it.
fn on_time(instants: &[Duration], first: Duration, period: Duration, late: Duration) {
    for (n, seen) in instants.iter().enumerate() {
        let due = first + period * n as u32;
        // Registration is timed by the client, so the node's own clock starts a little later.
        assert!(*seen >= due, "firing {n} at {seen:?}, before {due:?}");
        assert!(*seen < due + late, "firing {n} at {seen:?}, due {due:?}");
    }
}

/// actors/reminders/period.go on one host
#[tokio::test]
async fn five_repetitions_fire_exactly_five_times() {
    let instants = fires(json!({"dueTime": "1s", "period": "R5/PT1S"}), 5, Duration::from_secs(3)).await;
    on_time(&instants, Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(1));
}

/// actors/reminders/scheduler/precision.go
#[tokio::test]
async fn a_second_for_five_seconds_fires_five_times() {
    let instants = fires(json!({"period": "1s", "ttl": "5s"}), 5, Duration::from_secs(3)).await;
    on_time(&instants, Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(1));
}

/// actors/reminders/scheduler/precision.go
#[tokio::test]
async fn a_millisecond_for_ten_milliseconds_fires_ten_times() {
    let instants = fires(json!({"period": "1ms", "ttl": "10ms"}), 10, Duration::from_secs(2)).await;
    on_time(&instants, Duration::from_millis(1), Duration::from_millis(1), Duration::from_secs(1));
}

/// dapr.md 5.2: the end is inclusive; without dueTime the first firing is one period after creation.
#[tokio::test]
async fn a_second_for_three_seconds_fires_three_times() {
    let instants = fires(json!({"period": "PT1S", "ttl": "3s"}), 3, Duration::from_secs(2)).await;
    on_time(&instants, Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(1));
}

/// dapr.md 2.9: a ttl that is a duration counts from the first due time.
#[tokio::test]
async fn a_ttl_counts_from_the_due_time() {
    let instants = fires(json!({"dueTime": "2s", "period": "2s", "ttl": "3s"}), 2, Duration::from_secs(3)).await;
    on_time(&instants, Duration::from_secs(2), Duration::from_secs(2), Duration::from_secs(1));
}

/// dapr.md 2.9
#[tokio::test]
async fn a_count_without_interval_fires_that_often_back_to_back() {
    let begun = Instant::now();
    fires(json!({"dueTime": "0s", "period": "R3"}), 3, Duration::from_secs(1)).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// dapr.md 2.9: a due time that is past is due.
#[tokio::test]
async fn a_due_time_in_the_past_fires_at_once() {
    let past = (Utc::now() - chrono::Duration::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let instants = fires(json!({"dueTime": past}), 1, Duration::from_secs(1)).await;
    assert!(instants[0] < Duration::from_secs(2));
}

/// dapr.md 2.9: sub-second precision of an instant is kept.
#[tokio::test]
async fn an_instant_with_nanoseconds_is_kept() {
    let due = Utc::now() + chrono::Duration::milliseconds(1234);
    let begun = Instant::now();
    let wait = (due - Utc::now()).to_std().expect("in the future");
    let instants =
        fires(json!({"dueTime": due.to_rfc3339_opts(SecondsFormat::Nanos, true)}), 1, Duration::from_millis(500)).await;
    let shift = begun.elapsed().min(Duration::from_millis(50));
    assert!(instants[0] + shift >= wait, "at {:?}, due after {wait:?}", instants[0]);
    assert!(instants[0] < wait + Duration::from_secs(1));
}

/// dapr.md 5.2: previous scheduled instant + period, so a slow callback makes the rest catch up and shifts nothing.
#[tokio::test]
async fn a_slow_callback_does_not_move_the_schedule() {
    let stage = stage().await;
    let id = unique("drift");
    let callback = format!("/actors/{CAT}/{id}/method/remind/r");
    stage.app.on(&callback, async |_| {
        busy(Duration::from_millis(150)).await;
        callboard_tests::app::Reply::ok()
    });
    let begun = Instant::now();
    stage.node.remind(CAT, &id, "r", json!({"period": "200ms"})).await;
    let calls = stage.app.wait_for(10, &callback, PATIENCE).await;
    let last = calls[9].begun - begun;
    assert!(last < Duration::from_millis(2000 + 700), "the tenth firing came after {last:?}");
    assert!(last >= Duration::from_millis(2000), "the tenth firing came after {last:?}");
    stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}/reminders/r")).send().await.expect_empty();
}
