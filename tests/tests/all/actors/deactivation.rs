//! The end of an activation: idleness and the end of the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard_tests::app::App;
use callboard_tests::node::Setup;
use callboard_tests::wait::{Gate, PATIENCE, busy, eventually, stays};
use serde_json::json;

use crate::stage::{BRIEF, CAT, stage, unique};

/// actors/grpc/deactivation.go, its HTTP twin; dapr.md 4.1
#[tokio::test]
async fn an_actor_idle_for_its_types_timeout_gets_one_delete() {
    let stage = stage().await;
    let id = unique("idle");
    stage.node.call(BRIEF, &id, "foo").await.expect(200);
    let begun = Instant::now();
    let path = format!("/actors/{BRIEF}/{id}");
    let ended = eventually(Duration::from_secs(5), "the actor gets its DELETE", async || {
        (stage.app.count_of("DELETE", &path) > 0).then(|| begun.elapsed())
    })
    .await;
    assert!(ended > Duration::from_millis(900), "after {ended:?}, before the timeout");
    let deletes: Vec<_> = stage.app.calls_to(&path).into_iter().filter(|call| call.method == "DELETE").collect();
    assert_eq!(deletes.len(), 1);
    assert_eq!(deletes[0].path, path);
    assert!(deletes[0].body.is_empty());
    // It is activated again by the next call.
    stage.node.call(BRIEF, &id, "foo").await.expect(200);
}

/// dapr.md 4.1: a turn resets the deadline.
#[tokio::test]
async fn calls_keep_an_actor_active() {
    let stage = stage().await;
    let id = unique("busy");
    // Over twice its idle timeout.
    stays(Duration::from_millis(2500), "the number of DELETEs", 0, async || {
        stage.node.call(BRIEF, &id, "foo").await.expect(200);
        busy(Duration::from_millis(200)).await;
        stage.app.count_of("DELETE", &format!("/actors/{BRIEF}/{id}"))
    })
    .await;
}

/// actors/deactivation/idle/panic.go, on one host
#[tokio::test]
async fn an_idle_timeout_of_a_nanosecond_loses_no_firing() {
    const REMINDERS: usize = 100;
    let app = App::configured(json!({"entities": [CAT], "actorIdleTimeout": "1ns"})).await;
    let mut node = Setup::default().app(&app).ready().await;
    for n in 0..REMINDERS {
        node.remind(CAT, &format!("a{n}"), "r", json!({"dueTime": "0s", "period": "1s"})).await;
    }
    for n in 0..REMINDERS {
        app.wait_for(2, &format!("/actors/{CAT}/a{n}/method/remind/r"), PATIENCE).await;
    }
    assert!(node.is_running());
    assert!(!node.log().contains("panicked"));
}

/// actors/deactivation/onexit.go; dapr.md 4.2
#[tokio::test]
async fn at_exit_every_active_actor_gets_one_delete_and_no_other_does() {
    let app = App::hosting(&["abc", "def", "xyz"]).await;
    let mut node = Setup::default().app(&app).ready().await;
    for (kind, id) in [("abc", "123"), ("abc", "456"), ("def", "123")] {
        node.call(kind, id, "foo").await.expect(200);
    }
    node.terminate();
    let status = node.wait_end(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{status}");
    for path in ["/actors/abc/123", "/actors/abc/456", "/actors/def/123"] {
        assert_eq!(app.count_of("DELETE", path), 1, "{path}");
    }
    assert_eq!(app.count_of("DELETE", "/actors/xyz"), 0);
    assert_eq!(app.count_of("DELETE", "/actors/"), 3);
}

/// dapr.md 4.2, 3.3: any answer to DELETE ends the actor.
#[tokio::test]
async fn a_delete_the_app_refuses_still_ends_the_activation() {
    let app = App::configured(json!({"entities": [CAT], "actorIdleTimeout": "500ms"})).await;
    let node = Setup::default().app(&app).ready().await;
    app.on("/actors/cat/a", async |call| {
        callboard_tests::app::Reply::status(if call.method == "DELETE" { 500 } else { 200 })
    });
    node.call(CAT, "a", "foo").await.expect(200);
    eventually(PATIENCE, "the DELETE is sent", async || (app.count_of("DELETE", "/actors/cat/a") == 1).then_some(()))
        .await;
    eventually(PATIENCE, "nothing is active", async || (node.active(CAT).await == 0).then_some(())).await;
    node.call(CAT, "a", "foo").await.expect(200);
}

/// DESIGN 2.4: a turn ends when the app's answer is complete, however long that takes.
#[tokio::test]
async fn a_turn_longer_than_the_idle_timeout_runs_to_its_end() {
    let stage = stage().await;
    let id = unique("longturn");
    let gate = Arc::new(Gate::closed());
    let door = gate.clone();
    stage.app.on(&format!("/actors/{BRIEF}/{id}/"), move |_| {
        let door = door.clone();
        async move {
            door.enter().await;
            callboard_tests::app::Reply::ok().body("done")
        }
    });
    let call = tokio::spawn(stage.node.post(&format!("/v1.0/actors/{BRIEF}/{id}/method/foo")).send());
    stage.app.wait_for(1, &format!("/actors/{BRIEF}/{id}/"), PATIENCE).await;
    // Over twice its idle timeout.
    stays(Duration::from_millis(2500), "the number of DELETEs", 0, async || {
        stage.app.count_of("DELETE", &format!("/actors/{BRIEF}/{id}"))
    })
    .await;
    gate.open();
    assert_eq!(call.await.expect("sent").expect(200).text(), "done");
    let calls = stage.app.wait_for(2, &format!("/actors/{BRIEF}/{id}"), PATIENCE).await;
    assert_eq!((calls[0].method.as_str(), calls[1].method.as_str()), ("PUT", "DELETE"));
    assert!(calls[0].ended.is_some_and(|ended| ended <= calls[1].begun), "the DELETE came while the turn ran");
}
