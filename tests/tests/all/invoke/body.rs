//! Status and body of the app, as the caller gets them.

use bytes::Bytes;
use callboard_tests::app::{App, Reply};
use callboard_tests::node::Setup;
use callboard_tests::raw::RawApp;
use callboard_tests::wait::{PATIENCE, eventually};

use super::echoing_body;

/// daprd/serviceinvocation/http/contentlength.go, local part
#[tokio::test]
async fn a_response_body_comes_back_byte_for_byte() {
    let app = App::plain().await;
    let node = Setup::default().app(&app).ready().await;
    for body in
        [&b"null"[..], b"", b"{\"key\":\"value\"}", b"hello world", &[b'x'; 8192], b"false", b"0", b"\"\"", &[0, 255]]
    {
        app.on("/body", move |_| async move { Reply::ok().header("content-type", "x/own").body(body) });
        let answer = node.get("/v1.0/invoke/myapp/method/body").send().await.expect(200);
        assert_eq!(answer.body, body);
        assert!(answer.header("content-length").is_none_or(|length| length == body.len().to_string()));
    }
}

/// daprd/serviceinvocation/http/contentlength.go: a stale Content-Length
#[tokio::test]
async fn a_content_length_of_the_app_that_is_too_large_is_ignored() {
    let app = RawApp::start(|path| match path {
        "/dapr/config" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
        _ => "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n\"ok\"".into(),
    })
    .await;
    let node = Setup::default().app_at(app.address).ready().await;
    let answer = node.get("/v1.0/invoke/myapp/method/stale").send().await.expect(200);
    assert_eq!(answer.text(), "\"ok\"");
    assert!(answer.header("content-length").is_none_or(|length| length == "4"));
}

/// dapr.md 1.5
#[tokio::test]
async fn every_status_of_the_app_passes_unchanged() {
    let app = App::plain().await;
    let node = Setup::default().app(&app).ready().await;
    for status in [200, 201, 202, 204, 301, 302, 304, 307, 400, 401, 404, 409, 418, 429, 500, 502, 503, 504, 599] {
        let body = if [204, 304].contains(&status) { "" } else { "the app's own" };
        app.on("/status", move |_| async move {
            Reply::status(status).header("location", "/elsewhere").header("x-own", "1").body(body)
        });
        let answer = node.get("/v1.0/invoke/myapp/method/status").send().await.expect(status);
        assert_eq!(answer.text(), body);
        assert_eq!(answer.header("x-own"), Some("1"));
    }
    assert_eq!(app.count("/elsewhere"), 0, "redirects are the caller's to follow");
    assert_eq!(app.count("/status"), 19, "no status of an app is retried");
}

/// daprd/serviceinvocation/http/streaming/smallerror.go
#[tokio::test]
async fn an_error_with_a_json_body_passes_through() {
    let app = App::plain().await;
    app.on("/bad", async |_| Reply::status(400).header("content-type", "application/json").body("{\"error\":\"bad\"}"));
    let node = Setup::default().app(&app).ready().await;
    let answer = node.post("/v1.0/invoke/myapp/method/bad").body("x").send().await.expect(400);
    assert_eq!(answer.text(), "{\"error\":\"bad\"}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

/// daprd/serviceinvocation/http/streaming/fixedlengthrequest.go; bodies on verbs that seldom have one
#[tokio::test]
async fn a_fixed_length_body_reaches_the_app_with_its_length() {
    let app = echoing_body().await;
    let node = Setup::default().app(&app).ready().await;
    for verb in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        let body = Bytes::from(vec![b'f'; 100_000]);
        let answer = node.request(verb, "/v1.0/invoke/myapp/method/fixed").body(body.clone()).send().await.expect(200);
        assert_eq!(answer.body, body);
        assert_eq!(app.calls().pop().expect("a call").header("content-length"), Some("100000"));
    }
}

/// dapr.md 1.8, 10
#[tokio::test]
async fn a_body_over_the_limit_is_500_and_one_at_the_limit_passes() {
    let app = echoing_body().await;
    let node = Setup::default().app(&app).arg("--max-body-size=10k").ready().await;
    let url = "/v1.0/invoke/myapp/method/big";
    node.post(url).body(vec![b'x'; 10_000]).send().await.expect(200);
    let answer = node.post(url).body(vec![b'x'; 10_001]).send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "stream too large");
    let node = Setup::default().app(&app).ready().await;
    node.post(url).body(vec![b'x'; 4 << 20]).send().await.expect(200);
    node.post(url).body(vec![b'x'; (4 << 20) + 1]).send().await.expect(500);
}

/// dapr.md 1.8: responses are not limited.
#[tokio::test]
async fn a_response_may_be_larger_than_the_limit_of_requests() {
    let app = App::plain().await;
    app.on("/large", async |_| Reply::ok().body(vec![b'z'; 10 << 20]));
    let node = Setup::default().app(&app).ready().await;
    assert_eq!(node.get("/v1.0/invoke/myapp/method/large").send().await.expect(200).body.len(), 10 << 20);
}

/// dapr.md 10: pooled connections of apps with a short keep-alive are not used when they are stale. This app closes each
/// right after its first answer, without a word of it in the answer.
#[tokio::test]
async fn a_connection_that_the_app_has_closed_is_not_used_again() {
    let app = RawApp::start(|path| match path {
        "/dapr/config" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
    })
    .await;
    let node = Setup::default().app_at(app.address).ready().await;
    for n in 0..20 {
        let closed = app.closed();
        assert_eq!(
            node.post("/v1.0/invoke/myapp/method/a").body("x").send().await.expect(200).text(),
            "ok",
            "call {n}"
        );
        eventually(PATIENCE, "the app closes the connection", async || (app.closed() > closed).then_some(())).await;
    }
}
