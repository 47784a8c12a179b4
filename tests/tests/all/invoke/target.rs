//! How the target and the method are found in a request.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use callboard_tests::node::Setup;
use serde_json::json;

use super::echoing_path;

const NO_APP_ID: &str = "failed getting app id either from the URL path or the header dapr-app-id";

/// dapr.md 1.1
#[tokio::test]
async fn path_header_and_basic_forms_reach_the_same_method() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    for path in [
        "/v1.0/invoke/myapp/method/a/b?x=1&y=%20",
        "/v1.0//invoke//myapp/method//a/b?x=1&y=%20",
        "/v1.0/invoke/myapp/method/a//b?x=1&y=%20",
    ] {
        assert_eq!(node.get(path).send().await.expect(200).text(), "/a/b|x=1&y=%20", "{path}");
    }
    let answer = node.get("/a/b?x=1&y=%20").header("dapr-app-id", "myapp").send().await.expect(200);
    assert_eq!(answer.text(), "/a/b|x=1&y=%20");
    for user in ["dapr-app-id", "Dapr-App-ID"] {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:myapp")));
        let answer = node.get("/a/b?x=1&y=%20").header("authorization", &basic).send().await.expect(200);
        assert_eq!(answer.text(), "/a/b|x=1&y=%20");
        let seen = app.calls().pop().expect("a call");
        assert_eq!(seen.header("authorization"), Some(basic.as_str()), "the authorization is forwarded");
    }
    // The header names the target, so the path is the method, whatever it looks like.
    let answer = node.get("/v1.0/other/thing").header("dapr-app-id", "myapp").send().await.expect(200);
    assert_eq!(answer.text(), "/v1.0/other/thing|");
    assert_eq!(node.get("/").header("dapr-app-id", "myapp").send().await.expect(200).text(), "/|");
    assert!(app.calls().iter().all(|call| call.header("dapr-app-id").is_none() || call.path == "/dapr/config"));
}

/// dapr.md 0.2: a real route comes first.
#[tokio::test]
async fn an_app_id_header_on_a_real_route_is_ignored() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    let metadata = node.get("/v1.0/metadata").header("dapr-app-id", "myapp").send().await.expect(200).json();
    assert_eq!(metadata["id"], "myapp");
    // With another verb the route is not there, and the call is the app's.
    let answer = node.delete("/v1.0/metadata").header("dapr-app-id", "myapp").send().await.expect(200);
    assert_eq!(answer.text(), "/v1.0/metadata|");
}

/// dapr.md 0.2, 1.6, 15.1
#[tokio::test]
async fn a_path_that_names_no_app_is_404_in_the_error_form() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    for (verb, path) in [
        ("GET", "/"),
        ("GET", "/v1.0"),
        ("GET", "/v1.0/nothing"),
        ("POST", "/v1.0/metadata"),
        ("PUT", "/v1.0/healthz"),
        ("DELETE", "/v1.0/shutdown"),
        ("PATCH", "/v1.0/actors/cat/a/state"),
        ("GET", "/v1.0/actors/cat/a"),
        ("OPTIONS", "/v1.0/metadata"),
    ] {
        let answer = node.request(verb, path).send().await;
        assert_eq!(answer.status, 404, "{verb} {path}");
        answer.expect_error(404, "ERR_DIRECT_INVOKE", NO_APP_ID);
    }
    // A user other than `dapr-app-id`, or more than one colon, names no target.
    for user in ["someone:myapp", "dapr-app-id:myapp:x", "dapr-app-id"] {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(user));
        let answer = node.get("/a").header("authorization", &basic).send().await;
        answer.expect_error(404, "ERR_DIRECT_INVOKE", NO_APP_ID);
    }
}

/// DESIGN 5: where the seeds win.
#[tokio::test]
async fn an_invoke_url_with_an_app_but_no_method_is_400() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    for path in ["/v1.0/invoke/myapp/method", "/v1.0/invoke/myapp/method/", "/v1.0/invoke/myapp"] {
        let answer = node.get(path).send().await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.json()["errorCode"].is_string());
    }
    assert_eq!(app.calls().iter().filter(|call| call.path != "/dapr/config").count(), 0);
}

/// dapr.md 1.3, 1.6
#[tokio::test]
async fn a_target_names_an_app_its_namespace_or_nothing() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    assert_eq!(node.get("/v1.0/invoke/myapp.default/method/a").send().await.expect(200).text(), "/a|");
    assert_eq!(node.get("/a").header("dapr-app-id", "myapp.default").send().await.expect(200).text(), "/a|");
    let answer = node.get("/v1.0/invoke/a.b.c/method/a").send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "failed to invoke, id: a.b.c, err: invalid app id a.b.c");
    let answer = node.get("/v1.0/invoke/stranger/method/a").send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "failed to invoke, id: stranger, err: ");
    let answer = node.get("/v1.0/invoke/myapp.elsewhere/method/a").send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "failed to invoke, id: myapp.elsewhere, err: ");
}

/// dapr.md 1.3: the namespace of a node is `NAMESPACE`.
#[tokio::test]
async fn the_own_namespace_comes_from_the_environment() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).env("NAMESPACE", "theatre").ready().await;
    for target in ["myapp", "myapp.theatre"] {
        node.get(&format!("/v1.0/invoke/{target}/method/a")).send().await.expect(200);
        let seen = app.calls().pop().expect("a call");
        assert_eq!(seen.header("dapr-caller-namespace"), Some("theatre"));
    }
    node.get("/v1.0/invoke/myapp.default/method/a").send().await.expect(500);
}

/// dapr.md 1.1: every verb is forwarded as it is.
#[tokio::test]
async fn verbs_reach_the_app_unchanged() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    for verb in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        node.request(verb, "/v1.0/invoke/myapp/method/verb").send().await.expect(200);
        assert_eq!(app.calls().pop().expect("a call").method.as_str(), verb);
    }
}

/// dapr.md 1.6
#[tokio::test]
async fn invoking_a_node_without_an_app_says_so() {
    let node = Setup::default().ready().await;
    let answer = node.get("/v1.0/invoke/myapp/method/a").send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "app channel");
}

/// dapr.md 1.6: the app is gone.
#[tokio::test]
async fn invoking_an_app_that_is_gone_is_500() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    node.get("/v1.0/invoke/myapp/method/a").send().await.expect(200);
    app.stop().await;
    let answer = node.get("/v1.0/invoke/myapp/method/a").send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "failed to invoke, id: myapp, err: ");
}

/// dapr.md 1.6: an app that closes instead of answering.
#[tokio::test]
async fn an_app_that_hangs_up_is_500_and_called_once() {
    let app = callboard_tests::app::App::plain().await;
    app.on("/bye", async |_| callboard_tests::app::Reply::hang_up());
    let node = Setup::default().app(&app).ready().await;
    let answer = node.post("/v1.0/invoke/myapp/method/bye").json(&json!({})).send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "error invoking app channel: ");
    assert_eq!(app.count("/bye"), 1, "a request that was written is not repeated");
}

/// daprd/metrics/errorcodemetrics.go: what no route and no target answers is an error with a code, and counted.
#[tokio::test]
async fn errors_are_counted_by_their_code() {
    const CODE: &str = "ERR_DIRECT_INVOKE";
    let node = Setup::default().ready().await;
    assert_eq!(node.error_count(CODE).await, 0);
    for (n, path) in ["/v1.0/nowhere", "/nowhere/at/all", "/v1.0/actors"].into_iter().enumerate() {
        node.get(path).send().await.expect_error(404, CODE, "");
        assert_eq!(node.error_count(CODE).await, n as u64 + 1, "{path}");
    }
    assert_eq!(node.error_count("ERR_BAD_REQUEST").await, 0, "another code is not counted");
}
