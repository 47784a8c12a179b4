//! The app's health check and what depends on it.

use std::time::Duration;

use callboard_tests::app::{App, Reply};
use callboard_tests::node::Setup;
use callboard_tests::wait::{PATIENCE, eventually, stays};
use serde_json::json;

use crate::stage::CAT;

const CHECKED: [&str; 3] = ["--enable-app-health-check", "--app-health-probe-interval=1", "--app-health-threshold=1"];

/// actors/healthz/endpoint/allenabled.go
#[tokio::test]
async fn with_the_check_on_and_types_the_app_is_polled_and_called() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::default().app(&app).args(&CHECKED).ready().await;
    app.wait_for(3, "/healthz", PATIENCE).await;
    node.call(CAT, "a", "foo").await.expect(200);
    let runtime = &node.metadata().await["actorRuntime"];
    assert_eq!(runtime["hostReady"], true);
    assert_eq!(runtime["placement"], "placement: connected");
}

/// actors/healthz/endpoint/noapp.go
#[tokio::test]
async fn without_the_check_the_health_path_is_never_asked() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::default().app(&app).ready().await;
    node.call(CAT, "a", "foo").await.expect(200);
    stays(Duration::from_secs(2), "health probes", 0, async || app.count("/healthz")).await;
    let paths: Vec<_> =
        app.calls().into_iter().map(|call| call.path).filter(|path| !path.starts_with("/actors/")).collect();
    assert!(paths.iter().all(|path| path == "/dapr/config"), "{paths:?}");
}

/// actors/healthz/endpoint/noappentities.go, the part of the sidecar itself
#[tokio::test]
async fn without_types_and_check_the_health_path_is_never_asked() {
    let app = App::plain().await;
    let _node = Setup::default().app(&app).ready().await;
    stays(Duration::from_secs(2), "health probes", 0, async || app.count("/healthz")).await;
}

/// actors/healthz/endpoint/noentities.go, the part of the sidecar itself
#[tokio::test]
async fn with_the_check_on_an_app_without_types_is_polled() {
    let app = App::plain().await;
    let node = Setup::default().app(&app).args(&CHECKED).ready().await;
    app.wait_for(2, "/healthz", PATIENCE).await;
    assert_eq!(node.metadata().await["actorRuntime"]["runtimeStatus"], "RUNNING");
}

/// actors/healthz/endpoint/path.go
#[tokio::test]
async fn a_custom_health_path_is_used() {
    let app = App::hosting(&[CAT]).await;
    app.answers("/customhealthz", 200, "");
    app.answers("/healthz", 500, "");
    let node = Setup::default().app(&app).args(&CHECKED).arg("--app-health-check-path=/customhealthz").ready().await;
    app.wait_for(2, "/customhealthz", PATIENCE).await;
    assert_eq!(app.count("/healthz"), 0);
    assert_eq!(node.metadata().await["actorRuntime"]["runtimeStatus"], "RUNNING");
    node.call(CAT, "a", "foo").await.expect(200);
}

/// dapr.md 3.2: any 2xx is healthy.
#[tokio::test]
async fn every_2xx_of_the_probe_is_healthy() {
    let app = App::hosting(&[CAT]).await;
    app.answers("/healthz", 299, "");
    let node = Setup::default().app(&app).args(&CHECKED).ready().await;
    node.call(CAT, "a", "foo").await.expect(200);
}

/// dapr.md 3.1, 3.2: asked once, after the first healthy probe.
#[tokio::test]
async fn the_configuration_is_asked_for_once_and_after_the_first_healthy_probe() {
    let app = App::hosting(&[CAT]).await;
    app.answers("/healthz", 500, "");
    let mut node = Setup::default().app(&app).args(&CHECKED).start().await;
    app.wait_for(2, "/healthz", PATIENCE).await;
    assert_eq!(app.count("/dapr/config"), 0);
    app.answers("/healthz", 200, "");
    node.wait_ready().await;
    node.call(CAT, "a", "foo").await.expect(200);
    let asked = app.calls_to("/dapr/config");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("dapr-app-id"), Some("myapp"));
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
}

/// dapr.md 3.2, 1.6, 4.2
#[tokio::test]
async fn an_unhealthy_app_is_called_by_nobody_until_it_recovers() {
    let app = App::hosting(&[CAT]).await;
    app.answers("/hello", 200, "hi");
    let node = Setup::default().app(&app).args(&CHECKED).ready().await;
    node.call(CAT, "a", "foo").await.expect(200);
    app.answers("/healthz", 500, "");
    eventually(PATIENCE, "the app counts as unhealthy", async || {
        let answer = node.get("/v1.0/invoke/myapp/method/hello").send().await;
        (answer.status == 500).then(|| answer.expect_error(500, "ERR_DIRECT_INVOKE", "app is not in a healthy state"))
    })
    .await;
    let invoked = app.count("/hello");
    node.get("/v1.0/invoke/myapp/method/hello").send().await.expect(500);
    assert_eq!(app.count("/hello"), invoked, "the app is not touched");
    eventually(PATIENCE, "its actors are deactivated", async || {
        (app.count_of("DELETE", "/actors/cat/a") == 1).then_some(())
    })
    .await;
    eventually(PATIENCE, "its types are withdrawn", async || {
        node.metadata().await["actorRuntime"]["activeActors"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await;
    app.answers("/healthz", 200, "");
    node.call(CAT, "a", "foo").await.expect(200);
    node.get("/v1.0/invoke/myapp/method/hello").send().await.expect(200);
    assert_eq!(app.count("/dapr/config"), 1, "what it said is remembered");
}

/// dapr.md 3.2: a probe that takes too long has failed.
#[tokio::test]
async fn a_probe_over_its_timeout_is_a_failure() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::default().app(&app).args(&CHECKED).arg("--app-health-probe-timeout=100").ready().await;
    app.on("/healthz", async |_| {
        std::future::pending::<()>().await;
        Reply::ok()
    });
    app.answers("/hello", 200, "hi");
    eventually(PATIENCE, "the app counts as unhealthy", async || {
        (node.get("/v1.0/invoke/myapp/method/hello").send().await.status == 500).then_some(())
    })
    .await;
}

/// dapr.md 3.1: what SDK hosts really answer.
#[tokio::test]
async fn odd_configurations_of_sdk_hosts_are_understood() {
    for (config, kind) in [
        // Python: a µ written as Greek mu, a reentrancy block per entity.
        (
            json!({"actorIdleTimeout": "1h0m0s0ms0μs", "actorScanInterval": "0h0m30s0ms0μs", "drainRebalancedActors": true,
                "entitiesConfig": [{"entities": ["cat"], "reentrancy": {"enabled": true, "maxStackDepth": 32}}], "entities": ["cat"]}),
            "application/json; utf-8",
        ),
        // Go: empty strings mean default, no content type of JSON.
        (
            json!({"entities": ["cat"], "actorIdleTimeout": "", "actorScanInterval": "", "drainOngoingCallTimeout": "", "drainRebalancedActors": false}),
            "text/plain; charset=utf-8",
        ),
        // Java: a misspelt key.
        (json!({"entities": ["cat"], "drainBalancedActors": true, "unknown": {"a": [1]}}), "application/json"),
        // .NET
        (
            json!({"entities": ["cat"], "actorIdleTimeout": "0h10m0s0ms", "reentrancy": {"enabled": false}, "remindersStoragePartitions": 7}),
            "application/json",
        ),
    ] {
        let app = App::plain().await;
        let body = serde_json::to_vec(&config).expect("JSON");
        app.on("/dapr/config", move |_| {
            let reply = Reply::ok().header("content-type", kind).body(body.clone());
            async { reply }
        });
        let node = Setup::default().app(&app).ready().await;
        node.call(CAT, "a", "foo").await.expect(200);
    }
}

/// dapr.md 3.1: not 200, or not JSON, or null: an app without actors.
#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_an_empty_one() {
    for (status, body) in [(404, "{\"entities\":[\"cat\"]}"), (200, "{"), (200, "{\"entities\":null}"), (200, "")] {
        let app = App::plain().await;
        app.answers("/dapr/config", status, body);
        let node = Setup::default().app(&app).ready().await;
        let metadata = node.metadata().await;
        assert_eq!(metadata["actorRuntime"]["runtimeStatus"], "RUNNING");
        assert!(metadata["actorRuntime"]["activeActors"].as_array().is_none_or(Vec::is_empty), "{status} {body}");
    }
}

/// dapr.md 3.1: an invalid duration at the top hosts nothing; one in a block falls back to the default.
#[tokio::test]
async fn an_invalid_duration_costs_the_types_at_the_top_and_nothing_in_a_block() {
    let app = App::configured(json!({"entities": [CAT], "actorIdleTimeout": "sometimes"})).await;
    let node = Setup::default().app(&app).ready().await;
    assert!(node.metadata().await["actorRuntime"]["activeActors"].as_array().is_none_or(Vec::is_empty));
    let app = App::configured(json!({
        "entities": [CAT], "entitiesConfig": [{"entities": [CAT], "actorIdleTimeout": "sometimes"}]
    }))
    .await;
    let node = Setup::default().app(&app).ready().await;
    node.call(CAT, "a", "foo").await.expect(200);
}
