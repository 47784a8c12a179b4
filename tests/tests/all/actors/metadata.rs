//! What metadata says of the actor runtime.

use callboard_tests::app::App;
use callboard_tests::node::Setup;
use callboard_tests::wait::{PATIENCE, eventually};
use serde_json::json;

use crate::stage::CAT;

/// actors/metadata/host.go and daprd/metadata/actors/withplacement.go; dapr.md 7.2
#[tokio::test]
async fn a_hosted_type_is_listed_without_a_count_until_an_actor_is_active() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::default().app(&app).ready().await;
    let metadata = node.metadata().await;
    assert_eq!(
        metadata["actorRuntime"],
        json!({"runtimeStatus": "RUNNING", "activeActors": [{"type": CAT}], "hostReady": true, "placement": "placement: connected"})
    );
    node.call(CAT, "a", "foo").await.expect(200);
    node.call(CAT, "b", "foo").await.expect(200);
    let metadata = node.metadata().await;
    assert_eq!(metadata["actorRuntime"]["activeActors"], json!([{"type": CAT, "count": 2}]));
    assert_eq!(metadata["actors"], json!([{"type": CAT, "count": 2}]));
}

/// actors/metadata/client.go; dapr.md 7.2: a node without types runs all the same.
#[tokio::test]
async fn a_node_without_types_is_running_and_ready() {
    let app = App::plain().await;
    let with_app = Setup::default().app(&app).ready().await;
    let without = Setup::default().ready().await;
    for node in [with_app, without] {
        let runtime = node.metadata().await["actorRuntime"].clone();
        assert_eq!(runtime["runtimeStatus"], "RUNNING");
        assert_eq!(runtime["hostReady"], true);
        assert_eq!(runtime["placement"], "placement: connected");
        assert!(runtime["activeActors"].as_array().is_none_or(Vec::is_empty));
    }
}

/// dapr.md 7.2: before the app's configuration has been read.
#[tokio::test]
async fn before_the_app_answers_the_runtime_is_initializing() {
    let port = callboard_tests::ports::free();
    let mut node = Setup::default().app_at(([127, 0, 0, 1], port).into()).start().await;
    let runtime = node.metadata().await["actorRuntime"].clone();
    assert_eq!(runtime["runtimeStatus"], "INITIALIZING");
    assert_eq!(runtime["hostReady"], false);
    let not_ready = node.get("/v1.0/healthz").send().await;
    not_ready.expect_error(500, "ERR_HEALTH_NOT_READY", "dapr is not ready: ");
    let _app = App::listening(json!({"entities": [CAT]}), port).await;
    node.wait_ready().await;
    eventually(PATIENCE, "the runtime runs", async || {
        (node.metadata().await["actorRuntime"]["runtimeStatus"] == "RUNNING").then_some(())
    })
    .await;
}
