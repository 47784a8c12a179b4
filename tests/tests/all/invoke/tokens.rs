//! The API token of callers and the token of the app share one header and never meet.

use callboard_tests::app::App;
use callboard_tests::node::Setup;

/// daprd/serviceinvocation/http/appapitoken/selfwithtoken.go
#[tokio::test]
async fn the_app_sees_its_own_token_on_every_call() {
    let app = App::hosting(&["cat"]).await;
    app.answers("/hello", 200, "");
    let setup = Setup::default().app(&app).env("APP_API_TOKEN", "abc").arg("--enable-app-health-check");
    let node = setup.arg("--app-health-probe-interval=1").ready().await;
    node.get("/v1.0/invoke/myapp/method/hello").header("dapr-api-token", "other").send().await.expect(200);
    node.call("cat", "a", "foo").await.expect(200);
    for path in ["/hello", "/actors/cat/a", "/dapr/config", "/healthz"] {
        let calls = app.calls_to(path);
        assert!(!calls.is_empty(), "{path}");
        assert!(calls.iter().all(|call| call.header("dapr-api-token") == Some("abc")), "{path}");
        assert!(calls.iter().all(|call| call.headers.get_all("dapr-api-token").iter().count() == 1), "{path}");
    }
}

/// daprd/serviceinvocation/http/appapitoken/selfnotoken.go
#[tokio::test]
async fn without_an_app_token_the_app_sees_none() {
    let app = App::plain().await;
    app.answers("/hello", 200, "");
    let node = Setup::default().app(&app).ready().await;
    node.get("/v1.0/invoke/myapp/method/hello").header("dapr-api-token", "other").send().await.expect(200);
    assert_eq!(app.calls_to("/hello")[0].header("dapr-api-token"), None);
}

/// dapr.md 7.4
#[tokio::test]
async fn the_api_token_is_asked_for_everywhere_but_at_the_health_endpoints() {
    let app = App::plain().await;
    app.answers("/hello", 200, "");
    let node = Setup::default().app(&app).env("DAPR_API_TOKEN", "secret").ready().await;
    for path in ["/v1.0/metadata", "/v1.0/invoke/myapp/method/hello", "/v1.0/actors/cat/a/state/k", "/nothing"] {
        for token in [None, Some("wrong"), Some("")] {
            let mut request = node.get(path);
            if let Some(token) = token {
                request = request.header("dapr-api-token", token);
            }
            let answer = request.send().await.expect(401);
            assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
            assert_eq!(answer.text().trim(), "invalid api token");
        }
    }
    assert_eq!(app.count("/hello"), 0);
    for path in ["/v1.0/healthz", "/v1.0/healthz/outbound"] {
        node.get(path).send().await.expect_empty();
    }
    node.get("/v1.0/metadata").header("dapr-api-token", "secret").send().await.expect(200);
    node.get("/v1.0/invoke/myapp/method/hello").header("dapr-api-token", "secret").send().await.expect(200);
    assert_eq!(app.calls_to("/hello")[0].header("dapr-api-token"), None, "the API token is not the app's");
}
