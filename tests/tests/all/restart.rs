//! What a node keeps over its death and what it forgets.

use std::time::Duration;

use callboard_tests::app::{App, Reply};
use callboard_tests::node::Setup;
use callboard_tests::wait::{PATIENCE, eventually, stays};
use serde_json::json;

use crate::stage::CAT;

/// P2
#[tokio::test]
async fn state_and_reminders_survive_kill_9() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    for n in 0..20 {
        let id = format!("a{n}");
        node.call(CAT, &id, "foo").await.expect(200);
        node.put_state(CAT, &id, "k", json!({"n": n})).await.expect_empty();
    }
    node.remind(CAT, "a0", "far", json!({"dueTime": "1h", "data": "kept"})).await;
    node.remind(CAT, "a1", "near", json!({"dueTime": "3s"})).await;
    node.kill();
    node.restart_ready().await;
    for n in 0..20 {
        let answer = node.get_state(CAT, &format!("a{n}"), "k").await.expect(200);
        assert_eq!(answer.json(), json!({"n": n}));
    }
    let far = node.get("/v1.0/actors/cat/a0/reminders/far").send().await.expect(200).json();
    assert_eq!(far["data"], "kept");
    app.wait_for(1, "/actors/cat/a1/method/remind/near", PATIENCE).await;
}

/// dapr.md 5.2: `R2/PT3S` registered before a restart completes after it.
#[tokio::test]
async fn a_repetition_begun_before_a_restart_is_completed_after_it() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    let callback = "/actors/cat/a/method/remind/r";
    node.remind(CAT, "a", "r", json!({"dueTime": "0s", "period": "R2/PT3S"})).await;
    app.wait_answered(1, callback, PATIENCE).await;
    // The first firing is committed when the list shows the second; then the node may die.
    eventually(PATIENCE, "the first firing is committed", async || {
        let listed = node.get("/cluster/v1/reminders?type=cat&id=a").send().await.expect(200).json();
        (listed["reminders"][0]["occurrence"] == 2).then_some(())
    })
    .await;
    node.kill();
    node.restart_ready().await;
    app.wait_for(2, callback, PATIENCE).await;
    stays(Duration::from_secs(4), "the number of firings", 2, async || app.count(callback)).await;
    node.get("/v1.0/actors/cat/a/reminders/r").send().await.expect(404);
}

/// dapr.md 5.2: missed instants are all delivered.
#[tokio::test]
async fn instants_missed_while_the_node_was_down_are_caught_up() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    let callback = "/actors/cat/a/method/remind/r";
    node.remind(CAT, "a", "r", json!({"dueTime": "1s", "period": "R8/PT0.5S"})).await;
    node.kill();
    // The last of the eight instants is at 4.5 s.
    stays(Duration::from_secs(5), "the number of firings", 0, async || app.count(callback)).await;
    node.restart_ready().await;
    app.wait_for(8, callback, Duration::from_secs(10)).await;
    stays(Duration::from_secs(2), "the number of firings", 8, async || app.count(callback)).await;
}

/// DESIGN 2.3: the app keeps instances a node no longer knows: each gets a DELETE before its next activation.
#[tokio::test]
async fn an_instance_left_in_the_app_is_deleted_before_the_actor_lives_again() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    node.call(CAT, "a", "first").await.expect(200);
    node.kill();
    node.restart_ready().await;
    node.call(CAT, "a", "second").await.expect(200);
    let seen: Vec<_> = app
        .calls_to("/actors/cat/a")
        .into_iter()
        .map(|call| format!("{} {}", call.method, call.path.rsplit('/').next().expect("a last part")))
        .collect();
    assert_eq!(seen, ["PUT first", "DELETE a", "PUT second"]);
    // Never for an actor this app was not given.
    node.call(CAT, "b", "first").await.expect(200);
    assert_eq!(app.count_of("DELETE", "/actors/cat/b"), 0);
}

/// A turn that runs when its node dies has no effect afterwards: its writes need an activation.
#[tokio::test]
async fn a_write_of_a_turn_that_outlived_its_node_is_refused() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    node.call(CAT, "a", "foo").await.expect(200);
    node.kill();
    node.restart_ready().await;
    node.put_state(CAT, "a", "k", json!("stale")).await.expect_error(
        400,
        "ERR_ACTOR_INSTANCE_MISSING",
        "actor instance is missing",
    );
    node.get_state(CAT, "a", "k").await.expect_empty();
}

/// Many restarts on one directory: terms rise, nothing is lost, the log is purged.
#[tokio::test]
async fn ten_restarts_in_a_row_keep_everything() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    for round in 0..10 {
        node.call(CAT, "a", "foo").await.expect(200);
        node.put_state(CAT, "a", &format!("k{round}"), json!(round)).await.expect_empty();
        if round % 2 == 0 {
            node.kill();
        } else {
            node.terminate();
            assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
        }
        node.restart_ready().await;
        for earlier in 0..=round {
            assert_eq!(node.get_state(CAT, "a", &format!("k{earlier}")).await.expect(200).text(), earlier.to_string());
        }
    }
}

/// The settings of the first start hold: another number of partitions is not a reason to lose keys.
#[tokio::test]
async fn a_restart_with_other_partitions_keeps_the_clusters_own() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).arg("--partitions=3").ready().await;
    for n in 0..12 {
        node.call(CAT, &format!("a{n}"), "foo").await.expect(200);
        node.put_state(CAT, &format!("a{n}"), "k", json!(n)).await.expect_empty();
    }
    node.kill();
    node.change(|setup| setup.arg("--partitions=9"));
    node.restart_ready().await;
    assert!(node.log().contains("--partitions has no effect"), "{}", node.log());
    assert_eq!(node.metric("callboard_partitions_owned").await, 3);
    for n in 0..12 {
        assert_eq!(node.get_state(CAT, &format!("a{n}"), "k").await.expect(200).text(), n.to_string());
    }
}

/// A paused node answers when it goes on, and loses nothing.
#[tokio::test]
async fn a_node_that_was_stopped_for_seconds_goes_on() {
    let app = App::hosting(&[CAT]).await;
    app.on("/actors/cat/a/method/foo", async |_| Reply::ok().body("ok"));
    let node = Setup::default().app(&app).ready().await;
    node.call(CAT, "a", "foo").await.expect(200);
    node.put_state(CAT, "a", "k", json!(1)).await.expect_empty();
    node.remind(CAT, "a", "r", json!({"dueTime": "1s"})).await;
    node.pause();
    let callback = "/actors/cat/a/method/remind/r";
    stays(Duration::from_secs(3), "the number of firings", 0, async || app.count(callback)).await;
    node.resume();
    app.wait_for(1, callback, PATIENCE).await;
    assert_eq!(node.get_state(CAT, "a", "k").await.expect(200).text(), "1");
    node.call(CAT, "a", "foo").await.expect(200);
    node.put_state(CAT, "a", "k", json!(2)).await.expect_empty();
}
