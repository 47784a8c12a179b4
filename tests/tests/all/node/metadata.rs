//! `GET` and `PUT /v1.0/metadata`.

use callboard_tests::app::App;
use callboard_tests::node::Setup;
use serde_json::json;

/// dapr.md 7.2
#[tokio::test]
async fn metadata_names_the_app_and_its_connection_and_omits_what_is_empty() {
    let app = App::plain().await;
    let node = Setup::default().app(&app).ready().await;
    let metadata = node.metadata().await;
    assert_eq!(metadata["id"], "myapp");
    let version = metadata["runtimeVersion"].as_str().expect("a version");
    assert!(!version.is_empty());
    assert_eq!(metadata["extended"]["daprRuntimeVersion"], version);
    let connection = &metadata["appConnectionProperties"];
    assert_eq!(connection["port"], app.port());
    assert_eq!(connection["protocol"], "http");
    assert_eq!(connection["channelAddress"], "127.0.0.1");
    assert!(connection.get("health").is_none());
    for key in ["actors", "httpEndpoints", "subscriptions", "resiliencies", "mcpServers"] {
        assert!(metadata.get(key).is_none(), "{key} is empty and shown: {metadata}");
    }
}

/// dapr.md 7.2
#[tokio::test]
async fn health_settings_are_shown_when_the_check_is_on() {
    let app = App::plain().await;
    let setup = Setup::default().app(&app).args(&["--enable-app-health-check", "--app-health-probe-interval=5"]);
    let node = setup
        .args(&["--app-health-probe-timeout=500", "--app-health-threshold=3", "--app-max-concurrency=7"])
        .ready()
        .await;
    let connection = node.metadata().await["appConnectionProperties"].clone();
    assert_eq!(connection["maxConcurrency"], 7);
    assert_eq!(
        connection["health"],
        json!({"healthCheckPath": "/healthz", "healthProbeInterval": "5s", "healthProbeTimeout": "500ms", "healthThreshold": 3})
    );
}

/// dapr.md 7.2
#[tokio::test]
async fn a_label_that_is_put_is_shown_in_extended() {
    let node = Setup::default().ready().await;
    for (key, value) in [("mood", "fine"), ("mood", "better"), ("other", "{\"a\": 1}")] {
        node.put(&format!("/v1.0/metadata/{key}"))
            .header("content-type", "text/plain")
            .body(value)
            .send()
            .await
            .expect_empty();
        assert_eq!(node.metadata().await["extended"][key], value);
    }
    assert!(node.metadata().await["extended"]["daprRuntimeVersion"].is_string());
}

/// dapr.md 3.1, 1.10: concurrency of calls into the app.
#[tokio::test]
async fn calls_into_the_app_never_exceed_its_concurrency() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let app = App::plain().await;
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, peak) = (inside.clone(), most.clone());
    app.on("/work", move |_| {
        let (counter, peak) = (counter.clone(), peak.clone());
        async move {
            peak.fetch_max(counter.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            counter.fetch_sub(1, Ordering::SeqCst);
            callboard_tests::app::Reply::ok()
        }
    });
    let node = Setup::default().app(&app).arg("--app-max-concurrency=3").ready().await;
    let calls: Vec<_> = (0..15).map(|_| tokio::spawn(node.get("/v1.0/invoke/myapp/method/work").send())).collect();
    for call in calls {
        call.await.expect("sent").expect(200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}
