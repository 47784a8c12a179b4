//! Timers: bodies, counts, replacement, the end of them.

use std::time::{Duration, Instant};

use callboard_tests::app::App;
use callboard_tests::node::Setup;
use callboard_tests::wait::{PATIENCE, busy, eventually, stays};
use serde_json::{Value, json};

use crate::stage::{BRIEF, CAT, stage, unique};

fn callback(id: &str, name: &str) -> String {
    format!("/actors/{CAT}/{id}/method/timer/{name}")
}

async fn set(id: &str, name: &str, body: Value) {
    let path = format!("/v1.0/actors/{CAT}/{id}/timers/{name}");
    stage().await.node.post(&path).json(&body).send().await.expect_empty();
}

async fn unset(id: &str, name: &str) {
    stage().await.node.delete(&format!("/v1.0/actors/{CAT}/{id}/timers/{name}")).send().await.expect_empty();
}

/// actors/timers/http.go (twin of grpc.go), actors/timers/callback/http.go, actors/grpc/timer.go's HTTP twin
#[tokio::test]
async fn a_timer_calls_back_with_put_and_its_registered_strings() {
    let stage = stage().await;
    for (registered, body) in [
        (
            r#"{"callback":"mycallback","dueTime":"0s","period":"10s","data":{ "a": [1] }}"#,
            r#"{"data":{"a":[1]},"callback":"mycallback","dueTime":"0s","period":"10s"}"#,
        ),
        (r#"{"dueTime":"0s"}"#, r#"{"callback":"","dueTime":"0s","period":""}"#),
        (r#"{}"#, r#"{"callback":"","dueTime":"","period":""}"#),
        (r#"{"callback":"c","data":null}"#, r#"{"data":null,"callback":"c","dueTime":"","period":""}"#),
        (
            r#"{"callback":"c","data":"timer_state"}"#,
            r#"{"data":"timer_state","callback":"c","dueTime":"","period":""}"#,
        ),
    ] {
        let id = unique("timer");
        let path = format!("/v1.0/actors/{CAT}/{id}/timers/t");
        stage.node.put(&path).body(registered).send().await.expect_empty();
        let calls = stage.app.wait_for(1, &callback(&id, "t"), Duration::from_secs(5)).await;
        assert_eq!(calls[0].method, "PUT");
        assert_eq!(calls[0].header("content-type"), Some("application/json"));
        assert_eq!(calls[0].json(), serde_json::from_str::<Value>(body).expect("JSON"), "registered as {registered}");
        unset(&id, "t").await;
    }
}

/// actors/timers/period/complete.go; dapr.md 5.1: a failing app costs its ticks.
#[tokio::test]
async fn three_repetitions_tick_exactly_three_times_also_when_they_fail() {
    let stage = stage().await;
    for status in [200, 500] {
        let id = unique("three");
        stage.app.answers(&callback(&id, "t"), status, "");
        let begun = Instant::now();
        set(&id, "t", json!({"dueTime": "1s", "period": "R3/PT1S"})).await;
        let calls = stage.app.wait_for(3, &callback(&id, "t"), PATIENCE).await;
        for (n, call) in calls.iter().enumerate() {
            let seen = call.begun - begun;
            assert!(seen >= Duration::from_secs(1 + n as u64), "tick {n} at {seen:?}");
        }
        stays(Duration::from_secs(2), "the number of ticks", 3, async || stage.app.count(&callback(&id, "t"))).await;
    }
}

/// dapr.md 5.1: no drift, and late ticks follow back to back.
#[tokio::test]
async fn a_slow_tick_does_not_move_the_next_ones() {
    let stage = stage().await;
    let id = unique("drift");
    stage.app.on(&callback(&id, "t"), async |_| {
        busy(Duration::from_millis(150)).await;
        callboard_tests::app::Reply::ok()
    });
    let begun = Instant::now();
    set(&id, "t", json!({"dueTime": "200ms", "period": "200ms"})).await;
    let calls = stage.app.wait_for(10, &callback(&id, "t"), PATIENCE).await;
    let last = calls[9].begun - begun;
    assert!(
        (Duration::from_millis(2000)..Duration::from_millis(2700)).contains(&last),
        "the tenth tick after {last:?}"
    );
    unset(&id, "t").await;
}

/// dapr.md 5.1: stop when the next tick would be at or after the expiry.
#[tokio::test]
async fn a_ttl_ends_a_timer_before_the_tick_at_its_end() {
    let stage = stage().await;
    let id = unique("ttl");
    set(&id, "t", json!({"dueTime": "500ms", "period": "500ms", "ttl": "1s"})).await;
    stage.app.wait_for(2, &callback(&id, "t"), PATIENCE).await;
    stays(Duration::from_secs(2), "the number of ticks", 2, async || stage.app.count(&callback(&id, "t"))).await;
}

/// dapr.md 5.1
#[tokio::test]
async fn a_timer_of_the_same_name_replaces_the_old_one() {
    let stage = stage().await;
    let id = unique("replace");
    set(&id, "t", json!({"dueTime": "300ms", "data": "old"})).await;
    set(&id, "t", json!({"dueTime": "600ms", "data": "new"})).await;
    let calls = stage.app.wait_for(1, &callback(&id, "t"), PATIENCE).await;
    assert_eq!(calls[0].json()["data"], "new");
    stays(Duration::from_secs(1), "the number of ticks", 1, async || stage.app.count(&callback(&id, "t"))).await;
}

/// dapr.md 5.1, 2.8
#[tokio::test]
async fn a_deleted_timer_ticks_no_more_and_deleting_none_is_204() {
    let stage = stage().await;
    let id = unique("delete");
    set(&id, "t", json!({"dueTime": "0s", "period": "100ms"})).await;
    stage.app.wait_for(2, &callback(&id, "t"), PATIENCE).await;
    unset(&id, "t").await;
    let at_most = stage.app.count(&callback(&id, "t")) + 1;
    stays(Duration::from_secs(1), "within one more tick", true, async || {
        stage.app.count(&callback(&id, "t")) <= at_most
    })
    .await;
    unset(&id, "t").await;
    unset(&id, "never").await;
}

/// dapr.md 5.1: each tick is a turn.
#[tokio::test]
async fn a_ticking_timer_keeps_its_actor_active() {
    let stage = stage().await;
    let id = unique("awake");
    let path = format!("/v1.0/actors/{BRIEF}/{id}/timers/t");
    stage.node.post(&path).json(&json!({"dueTime": "0s", "period": "400ms"})).send().await.expect_empty();
    stage.app.wait_for(8, &format!("/actors/{BRIEF}/{id}/method/timer/t"), PATIENCE).await;
    assert_eq!(stage.app.count_of("DELETE", &format!("/actors/{BRIEF}/{id}")), 0);
    stage.node.delete(&path).send().await.expect_empty();
    eventually(PATIENCE, "it idles afterwards", async || {
        (stage.app.count_of("DELETE", &format!("/actors/{BRIEF}/{id}")) == 1).then_some(())
    })
    .await;
}

/// dapr.md 5.1: timers are memory.
#[tokio::test]
async fn timers_do_not_survive_their_node() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    let body = json!({"dueTime": "0s", "period": "200ms"});
    node.post("/v1.0/actors/cat/a/timers/t").json(&body).send().await.expect_empty();
    app.wait_for(2, "/actors/cat/a/method/timer/t", PATIENCE).await;
    node.kill();
    let before = app.count("/actors/cat/a/method/timer/t");
    node.restart_ready().await;
    stays(Duration::from_secs(2), "the number of ticks", before, async || app.count("/actors/cat/a/method/timer/t"))
        .await;
}

/// dapr.md 2.8
#[tokio::test]
async fn a_timer_of_a_type_that_is_not_hosted_is_500_and_deleting_it_204() {
    let stage = stage().await;
    let answer = stage.node.post("/v1.0/actors/nobody/a/timers/t").json(&json!({"dueTime": "1h"})).send().await;
    answer.expect_error(
        500,
        "ERR_ACTOR_TIMER_CREATE",
        "error creating actor timer: can't create timer for actor nobody||a: actor type not registered",
    );
    stage.node.delete("/v1.0/actors/nobody/a/timers/t").send().await.expect_empty();
}
