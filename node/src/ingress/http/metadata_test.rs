//! The metadata answer, field by field.

use std::sync::Arc;

use callboard_engine::actor_config;
use serde_json::{Value, json};

use super::*;
use crate::config::HealthCheck;

async fn shown(facts: &Facts<'_>) -> Value {
    let body = get(facts).into_body().collect(1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn hosting(body: &[u8]) -> AppView {
    let hosted = Some(Arc::new(actor_config::parse(body).unwrap()));
    AppView { port_open: true, healthy: true, config_read: true, incarnation: 0, hosted }
}

#[tokio::test]
async fn a_node_without_an_app_shows_only_what_is_not_zero() {
    let (config, resources, extended) = (Config::new("own"), Resources::default(), BTreeMap::new());
    let app = AppView::default();
    let facts = Facts {
        config: &config,
        phase: Phase::Ready,
        app: &app,
        active: vec![],
        resources: &resources,
        extended: &extended,
    };
    assert_eq!(
        shown(&facts).await,
        json!({
            "id": "own",
            "runtimeVersion": RUNTIME_VERSION,
            "enabledFeatures": ["ActorStateTTL"],
            "extended": {"daprRuntimeVersion": RUNTIME_VERSION},
            "appConnectionProperties": {},
            "actorRuntime": {"runtimeStatus": "RUNNING", "hostReady": true, "placement": "placement: connected"},
        })
    );
}

#[tokio::test]
async fn hosted_types_are_listed_with_and_without_activations() {
    let (mut config, resources) = (Config::new("own"), Resources::default());
    let health = HealthCheck {
        path: "/h".into(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(500),
        threshold: 3,
    };
    config.app = Some(AppConfig { max_concurrency: Some(7), health: Some(health), ..AppConfig::new(3000) });
    let extended = BTreeMap::from([("appCommand".to_owned(), "x".to_owned())]);
    let app = hosting(br#"{"entities":["dog","cat"]}"#);
    let active = vec![("cat".to_owned(), 2), ("gone".to_owned(), 1)];
    let facts =
        Facts { config: &config, phase: Phase::Ready, app: &app, active, resources: &resources, extended: &extended };
    let shown = shown(&facts).await;
    let expected = json!([{"type": "cat", "count": 2}, {"type": "dog"}, {"type": "gone", "count": 1}]);
    assert_eq!((&shown["actors"], &shown["actorRuntime"]["activeActors"]), (&expected, &expected));
    assert_eq!(shown["extended"]["appCommand"], "x");
    assert_eq!(
        shown["appConnectionProperties"],
        json!({
            "port": 3000, "protocol": "http", "channelAddress": "127.0.0.1", "maxConcurrency": 7,
            "health": {
                "healthCheckPath": "/h", "healthProbeInterval": "5s", "healthProbeTimeout": "500ms", "healthThreshold": 3
            },
        })
    );
}

#[tokio::test]
async fn the_actor_runtime_initializes_until_the_apps_config_is_read() {
    let (mut config, resources, extended) = (Config::new("own"), Resources::default(), BTreeMap::new());
    config.app = Some(AppConfig::new(3000));
    for (phase, config_read, status) in [
        (Phase::Starting, true, "INITIALIZING"),
        (Phase::Outbound, false, "INITIALIZING"),
        (Phase::Outbound, true, "RUNNING"),
    ] {
        let app = AppView { config_read, ..AppView::default() };
        let facts =
            Facts { config: &config, phase, app: &app, active: vec![], resources: &resources, extended: &extended };
        let runtime = shown(&facts).await["actorRuntime"].clone();
        assert_eq!(runtime["runtimeStatus"], status);
        assert_eq!(runtime["hostReady"], status == "RUNNING");
        assert_eq!(runtime.get("placement").is_some(), status == "RUNNING");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_who_falls_silent_is_told_so_and_changes_nothing() {
    let extended = RwLock::default();
    let (sender, body) = Body::channel(1);
    sender.send(Ok("half".into())).await.unwrap();
    let answer = put(&extended, "k".into(), body, 100).await;
    assert_eq!(answer.extensions().get::<Code>(), Some(&Code::RequestTimeout));
    assert_eq!(answer.status(), 408);
    assert!(extended.read().is_empty());
    drop(sender);
}

#[tokio::test]
async fn what_is_put_is_shown_and_bounded() {
    let extended = RwLock::default();
    assert_eq!(put(&extended, "k".into(), Body::full("v"), 100).await.status(), 204);
    assert_eq!(put(&extended, "k".into(), Body::full("w"), 100).await.status(), 204);
    assert_eq!(extended.read()["k"], "w");
    assert_eq!(put(&extended, "k".into(), Body::full("v".repeat(101)), 100).await.status(), 400);
    for at in 0..EXTENDED_KEYS {
        put(&extended, format!("k{at}"), Body::full("v"), 100).await;
    }
    let full = put(&extended, "more".into(), Body::full("v"), 100).await;
    assert_eq!(full.status(), 429);
    assert!(full.headers().contains_key("retry-after"));
    assert_eq!(put(&extended, "k".into(), Body::full("x"), 100).await.status(), 204, "a known key may still change");
}
