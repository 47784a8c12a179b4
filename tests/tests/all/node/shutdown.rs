//! The end of a node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard_tests::app::{App, Reply};
use callboard_tests::http::request;
use callboard_tests::node::{Node, Setup};
use callboard_tests::wait::{Gate, PATIENCE, eventually};
use serde_json::json;

/// An app whose `/block` waits at a gate, and a call that is inside.
async fn blocked(setup: Setup) -> (App, Arc<Gate>, Node, tokio::task::JoinHandle<Option<u16>>) {
    let app = App::plain().await;
    let gate = Arc::new(Gate::closed());
    let door = gate.clone();
    app.on("/block", move |_| {
        let door = door.clone();
        async move {
            door.enter().await;
            Reply::ok().body("done")
        }
    });
    app.answers("/quick", 200, "");
    let node = setup.app(&app).ready().await;
    let request = node.get("/v1.0/invoke/myapp/method/block");
    let call = tokio::spawn(async move { request.try_send().await.ok().map(|answer| answer.status) });
    app.wait_for(1, "/block", PATIENCE).await;
    (app, gate, node, call)
}

/// daprd/shutdown/api/graceful.go (twin of gracefulgrpc.go); dapr.md 7.3
#[tokio::test]
async fn shutdown_by_the_api_ends_with_code_0() {
    let app = App::plain().await;
    let mut node = Setup::default().app(&app).ready().await;
    node.post("/v1.0/shutdown").send().await.expect_empty();
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
}

/// daprd/shutdown/api/force.go (twin of forcegrpc.go); dapr.md 7.3
#[tokio::test]
async fn a_forced_shutdown_answers_and_ends_with_code_1() {
    for value in ["true", "True"] {
        let (_app, _gate, mut node, _call) = blocked(Setup::default()).await;
        let begun = Instant::now();
        node.post("/v1.0/shutdown").header("dapr-force-shutdown", value).send().await.expect_empty();
        assert_eq!(node.wait_end(PATIENCE).await.code(), Some(1));
        assert!(begun.elapsed() < Duration::from_secs(3), "it waits for nobody");
    }
}

/// daprd/shutdown/graceful/timein.go
#[tokio::test]
async fn an_idle_node_ends_within_its_grace() {
    let app = App::plain().await;
    let mut node = Setup::default().app(&app).ready().await;
    node.terminate();
    assert_eq!(node.wait_end(Duration::from_secs(5)).await.code(), Some(0));
}

/// daprd/shutdown/graceful/timeout.go
#[tokio::test]
async fn a_call_that_outlasts_the_grace_is_cut_and_the_node_ends_with_code_1() {
    let (_app, _gate, mut node, call) = blocked(Setup::default().arg("--dapr-graceful-shutdown-seconds=2")).await;
    let begun = Instant::now();
    node.terminate();
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(1));
    assert!(begun.elapsed() >= Duration::from_millis(1900), "after {:?}", begun.elapsed());
    assert!(call.await.expect("sent").is_none_or(|status| status >= 500), "the caller sees no success");
}

/// daprd/shutdown/graceful/invocation/http/local.go
#[tokio::test]
async fn a_call_under_way_finishes_and_later_ones_fail() {
    let (app, gate, mut node, call) = blocked(Setup::default().arg("--dapr-graceful-shutdown-seconds=20")).await;
    node.terminate();
    eventually(PATIENCE, "new calls are refused", async || {
        let answer = node.get("/v1.0/invoke/myapp/method/quick").within(Duration::from_secs(5)).try_send().await;
        (!answer.is_ok_and(|answer| answer.status == 200)).then_some(())
    })
    .await;
    assert!(node.is_running());
    gate.open();
    assert_eq!(call.await.expect("sent"), Some(200));
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
    assert_eq!(app.count("/block"), 1);
}

/// daprd/shutdown/graceful/httpendpoints.go
#[tokio::test]
async fn a_call_to_an_endpoint_under_way_finishes() {
    let outside = App::plain().await;
    let gate = Arc::new(Gate::closed());
    let door = gate.clone();
    outside.on("/block", move |_| {
        let door = door.clone();
        async move {
            door.enter().await;
            Reply::ok()
        }
    });
    let mut node = Setup::default().arg("--dapr-graceful-shutdown-seconds=20").ready().await;
    let request = node.get(&format!("/v1.0/invoke/http://127.0.0.1:{}/method/block", outside.port()));
    let call = tokio::spawn(request.send());
    outside.wait_for(1, "/block", PATIENCE).await;
    node.terminate();
    gate.open();
    call.await.expect("sent").expect(200);
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
}

/// The rule for the console: the first interrupt drains, the second ends at once.
#[tokio::test]
async fn a_second_interrupt_ends_at_once() {
    let (_app, _gate, mut node, _call) = blocked(Setup::default().arg("--dapr-graceful-shutdown-seconds=60")).await;
    node.interrupt();
    eventually(PATIENCE, "new calls are refused", async || {
        let answer = node.get("/v1.0/invoke/myapp/method/quick").within(Duration::from_secs(5)).try_send().await;
        (!answer.is_ok_and(|answer| answer.status == 200)).then_some(())
    })
    .await;
    assert!(node.is_running());
    node.interrupt();
    let status = node.wait_end(Duration::from_secs(5)).await;
    assert!(!status.success(), "{status}");
}

/// daprd/shutdown/block/timeout.go; dapr.md 7.3
#[tokio::test]
async fn a_blocked_shutdown_serves_until_its_duration_has_passed() {
    let app = App::plain().await;
    app.answers("/quick", 200, "");
    let mut node = Setup::default().app(&app).arg("--dapr-block-shutdown-duration=3s").ready().await;
    let begun = Instant::now();
    node.terminate();
    while begun.elapsed() < Duration::from_secs(2) {
        node.get("/v1.0/invoke/myapp/method/quick").send().await.expect(200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(3), "after {:?}", begun.elapsed());
}

/// daprd/shutdown/block/app/{healthy,unhealthy}.go
#[tokio::test]
async fn a_blocked_shutdown_ends_when_the_app_turns_unhealthy() {
    let app = App::plain().await;
    app.answers("/quick", 200, "");
    let setup = Setup::default().app(&app).args(&["--enable-app-health-check", "--app-health-probe-interval=1"]);
    let mut node = setup.args(&["--app-health-threshold=1", "--dapr-block-shutdown-duration=180s"]).ready().await;
    node.terminate();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        node.get("/v1.0/invoke/myapp/method/quick").send().await.expect(200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    app.answers("/healthz", 503, "");
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
}

/// daprd/shutdown/block/app/invocation/callee.go, with the node as both ends
#[tokio::test]
async fn a_call_under_way_finishes_in_a_blocked_shutdown() {
    let (_app, gate, mut node, call) = blocked(Setup::default().arg("--dapr-block-shutdown-duration=2s")).await;
    node.terminate();
    gate.open();
    assert_eq!(call.await.expect("sent"), Some(200));
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
}

/// dapr.md 2.1; DESIGN 2.4: the end of an activation is a turn, which may save; new calls are told that it is over.
#[tokio::test]
async fn while_a_node_drains_an_ending_actor_may_save_and_new_calls_are_503() {
    let app = App::hosting(&["cat"]).await;
    let mut node = Setup::default().app(&app).arg("--dapr-graceful-shutdown-seconds=20").ready().await;
    let gate = Arc::new(Gate::closed());
    let (door, address) = (gate.clone(), node.http());
    app.on("/actors/cat/a", move |call| {
        let door = door.clone();
        async move {
            if call.method == "DELETE" {
                door.enter().await;
                let last = json!([{"operation": "upsert", "request": {"key": "last", "value": "words"}}]);
                let saved = request(address, "PUT", "/v1.0/actors/cat/a/state").json(&last).try_send().await;
                return Reply::status(if saved.is_ok_and(|saved| saved.status == 204) { 200 } else { 500 });
            }
            Reply::ok()
        }
    });
    node.call("cat", "a", "foo").await.expect(200);
    node.terminate();
    eventually(PATIENCE, "the DELETE is sent", async || (app.count_of("DELETE", "/actors/cat/a") == 1).then_some(()))
        .await;
    let answer = node.post("/v1.0/actors/cat/b/method/foo").within(Duration::from_secs(10)).send().await;
    answer.expect_error(503, "ERR_ACTOR_RUNTIME_CLOSED", "actor runtime is closed");
    assert_eq!(app.count("/actors/cat/b"), 0);
    gate.open();
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
    node.restart_ready().await;
    assert_eq!(node.get_state("cat", "a", "last").await.expect(200).json(), "words");
}
