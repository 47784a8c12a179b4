//! Health endpoints.

use callboard_tests::app::App;
use callboard_tests::http::request;
use callboard_tests::node::Setup;
use callboard_tests::ports;

/// healthz/daprd.go; dapr.md 7.1
#[tokio::test]
async fn a_ready_node_answers_204_on_the_api_and_the_public_port() {
    let app = App::plain().await;
    let public = ports::free();
    let setup = Setup::default().app(&app).env("DAPR_API_TOKEN", "secret");
    let node = setup.arg(format!("--dapr-public-port={public}")).ready().await;
    let public = ([127, 0, 0, 1], public).into();
    for address in [node.http(), public] {
        for path in ["/v1.0/healthz", "/v1.0/healthz/outbound", "/v1.0/healthz?appid=myapp"] {
            request(address, "GET", path).send().await.expect_empty();
        }
    }
    let answer = node.get("/v1.0/healthz?appid=other").send().await;
    answer.expect_error(500, "ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match");
    // The public port serves metadata without a token, and nothing else.
    assert_eq!(request(public, "GET", "/v1.0/metadata").send().await.expect(200).json()["id"], "myapp");
    for path in ["/v1.0/invoke/myapp/method/a", "/v1.0/actors/cat/a/state/k"] {
        let status = request(public, "GET", path).header("dapr-api-token", "secret").send().await.status;
        assert_eq!(status, 404, "{path}");
    }
}

/// dapr.md 7.1, sdk-clients finding 1
#[tokio::test]
async fn outbound_health_never_waits_for_the_app() {
    let port = ports::free();
    let mut node = Setup::default().app_at(([127, 0, 0, 1], port).into()).start().await;
    node.get("/v1.0/healthz/outbound").send().await.expect_empty();
    node.get("/v1.0/healthz").send().await.expect_error(500, "ERR_HEALTH_NOT_READY", "dapr is not ready: ");
    let _app = App::listening(serde_json::json!({}), port).await;
    node.wait_ready().await;
}
