//! Method calls: what reaches the app and what comes back.

use std::time::Duration;

use bytes::Bytes;
use callboard_tests::app::{App, Reply};
use callboard_tests::node::Setup;
use callboard_tests::raw::RawApp;
use callboard_tests::wait::{PATIENCE, busy, stays};
use serde_json::json;

use crate::stage::{CAT, DOG, at, stage, unique};

/// actors/call/local.go
#[tokio::test]
async fn a_call_reaches_the_handler_of_its_own_type_only() {
    let stage = stage().await;
    let id = unique("local");
    for round in 1..=2 {
        for kind in [CAT, DOG] {
            stage.node.call(kind, &id, "foo").await.expect(200);
            assert_eq!(stage.app.count(&at(kind, &id)), round);
        }
    }
}

/// dapr.md 2, 3.3
#[tokio::test]
async fn every_listed_verb_arrives_at_the_app_as_put() {
    let stage = stage().await;
    for verb in ["GET", "POST", "PUT", "DELETE"] {
        let id = unique("verb");
        let path = format!("/v1.0/actors/{CAT}/{id}/method/foo?a=1&b=x%20y");
        stage.node.request(verb, &path).body("in").header("x-own", "1").send().await.expect(200);
        let calls = stage.app.calls_to(&at(CAT, &id));
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].method, "PUT");
        assert_eq!(calls[0].path, format!("/actors/{CAT}/{id}/method/foo"));
        assert_eq!(calls[0].query.as_deref(), Some("a=1&b=x%20y"));
        assert_eq!(calls[0].text(), "in");
        assert_eq!(calls[0].header("x-own"), Some("1"));
        assert_eq!(calls[0].header("dapr-api-call"), Some("true"));
    }
}

/// dapr.md 0.2, 2
#[tokio::test]
async fn a_verb_that_is_not_listed_is_an_invoke_attempt_without_app_id() {
    let stage = stage().await;
    let id = unique("patch");
    let answer = stage.node.request("PATCH", &format!("/v1.0/actors/{CAT}/{id}/method/foo")).send().await;
    answer.expect_error(
        404,
        "ERR_DIRECT_INVOKE",
        "failed getting app id either from the URL path or the header dapr-app-id",
    );
    assert_eq!(stage.app.count(&at(CAT, &id)), 0);
}

/// actors/call/badmethod.go
#[tokio::test]
async fn a_method_the_app_does_not_know_is_500() {
    let stage = stage().await;
    let id = unique("bad");
    stage.app.answers(&at(CAT, &id), 404, "");
    stage.node.call(CAT, &id, "foo").await.expect_error(
        500,
        "ERR_ACTOR_INVOKE_METHOD",
        &format!("error invoke actor method: actor method not found: actors/{CAT}/{id}/method/foo"),
    );
}

/// dapr.md 2.2: only 200 is success.
#[tokio::test]
async fn any_other_status_of_the_app_is_500_with_status_and_body_in_the_text() {
    let stage = stage().await;
    for status in [201, 204, 302, 400, 403, 500, 503] {
        let id = unique("status");
        let body = if status == 204 { "" } else { "custom error" };
        stage.app.answers(&at(CAT, &id), status, body);
        stage.node.call(CAT, &id, "foo").await.expect_error(
            500,
            "ERR_ACTOR_INVOKE_METHOD",
            &format!("error invoke actor method: error from actor service: ({status}) {body}"),
        );
        assert_eq!(stage.app.count(&at(CAT, &id)), 1, "an error of the app is not retried");
    }
}

/// dapr.md 2.2
#[tokio::test]
async fn an_error_response_header_passes_with_status_200() {
    let stage = stage().await;
    let id = unique("errorheader");
    stage.app.on(&at(CAT, &id), async |_| Reply::ok().header("X-DaprErrorResponseHeader", "true").body("<fault/>"));
    let answer = stage.node.call(CAT, &id, "foo").await.expect(200);
    assert_eq!(answer.header("x-daprerrorresponseheader"), Some("true"));
    assert_eq!(answer.text(), "<fault/>");
}

/// dapr.md 2.2
#[tokio::test]
async fn a_reminder_cancel_header_on_a_plain_method_is_500() {
    let stage = stage().await;
    let id = unique("cancelheader");
    stage.app.on(&at(CAT, &id), async |_| Reply::ok().header("X-DaprReminderCancel", "true"));
    let answer = stage.node.call(CAT, &id, "foo").await;
    answer.expect_error(500, "ERR_ACTOR_INVOKE_METHOD", "error invoke actor method: reminder has been canceled");
}

/// actors/call/responsebody.go, local part
#[tokio::test]
async fn a_response_body_comes_back_byte_for_byte() {
    let stage = stage().await;
    for (body, kind) in bodies() {
        let id = unique("body");
        let sent = body.clone();
        stage.app.on(&at(CAT, &id), move |_| {
            let reply = Reply::ok().header("content-type", kind).body(sent.clone());
            async { reply }
        });
        let answer = stage.node.call(CAT, &id, "foo").await.expect(200);
        assert_eq!(answer.body, body);
        assert_eq!(answer.header("content-type"), Some(kind), "also when it is no valid media type");
        if let Some(length) = answer.header("content-length") {
            assert_eq!(length, body.len().to_string());
        }
    }
}

fn bodies() -> Vec<(Bytes, &'static str)> {
    vec![
        (Bytes::from("null"), "application/json"),
        (Bytes::new(), "text/plain"),
        (Bytes::from(r#"{"key":"value"}"#), "application/json; utf-8"),
        (Bytes::from("hello world"), "text/plain"),
        (Bytes::from(vec![b'x'; 8192]), "application/octet-stream"),
        (Bytes::from("false"), "application/json"),
        (Bytes::from("0"), "application/json"),
        (Bytes::from(r#""""#), "application/json"),
        (Bytes::from(vec![0, 255, 128, 10]), "application/octet-stream"),
    ]
}

/// actors/call/responsebody.go: a stale Content-Length
#[tokio::test]
async fn a_content_length_of_the_app_that_is_too_large_is_ignored() {
    let app = RawApp::start(|path| match path {
        "/dapr/config" => {
            let config = r#"{"entities":["cat"]}"#;
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{config}", config.len()).into()
        }
        _ => "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n\"ok\"".into(),
    })
    .await;
    let node = Setup::default().app_at(app.address).ready().await;
    let answer = node.call(CAT, "a", "foo").await.expect(200);
    assert_eq!(answer.text(), "\"ok\"");
    assert!(answer.header("content-length").is_none_or(|length| length == "4"));
}

/// actors/call/h2c/responsebody.go, actors/call/h2c/resiliency.go, local parts without the timeout policy
#[tokio::test]
async fn bodies_of_an_h2c_app_are_intact_also_when_the_head_is_flushed_first() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::default().app(&app).arg("--app-protocol=h2c").ready().await;
    for (body, _) in bodies() {
        let sent = body.clone();
        app.on("/actors/", move |_| {
            let reply = Reply::ok().body(sent.clone());
            async { reply }
        });
        for _ in 0..5 {
            assert_eq!(node.call(CAT, "a", "foo").await.expect(200).body, body);
        }
    }
    app.on("/actors/", async |_| {
        let (reply, sender) = Reply::ok().stream();
        tokio::spawn(async move {
            // The head is on its way before the first byte of the body exists.
            busy(Duration::from_millis(50)).await;
            for _ in 0..8 {
                sender.send(Bytes::from(vec![b'y'; 1024])).await.expect("the node reads on");
            }
        });
        reply
    });
    for _ in 0..3 {
        assert_eq!(node.call(CAT, "a", "foo").await.expect(200).body, vec![b'y'; 8192]);
    }
    let calls = app.calls_to("/actors/");
    assert!(calls.iter().all(|call| call.version == http::Version::HTTP_2));
}

/// actors/call/acl.go
#[tokio::test]
async fn traversal_in_a_method_never_leaves_the_actors_prefix() {
    let stage = stage().await;
    let id = unique("secret");
    for method in ["..%2F..%2F..%2F..%2Fsecret", "..%2F..%2F..%2Fsecret", "foo%2F..%2F..%2F..%2Fsecret"] {
        stage.node.call(CAT, &id, method).await.expect(200);
    }
    let paths: Vec<_> = stage.app.calls_to(&at(CAT, &id)).into_iter().map(|call| call.path).collect();
    assert_eq!(paths, vec![format!("/actors/{CAT}/{id}/method/secret"); 3]);
    for path in ["../../../../secret", "foo/../../../../../secret"] {
        let answer = stage.node.post(&format!("/v1.0/actors/{CAT}/{id}/method/{path}")).send().await;
        answer.expect_error(404, "ERR_DIRECT_INVOKE", "failed getting app id");
    }
    assert_eq!(stage.app.count("/secret"), 0);
}

/// dapr.md 1.2, 2.2
#[tokio::test]
async fn forbidden_characters_in_type_id_or_method_are_400_before_the_app() {
    let stage = stage().await;
    let id = unique("chars");
    for method in ["a%23b", "a%3Fb", "a%00b"] {
        let answer = stage.node.call(CAT, &id, method).await;
        answer.expect_error(400, "ERR_BAD_REQUEST", "method contains forbidden character");
    }
    for method in ["a%0Db", "a%7Fb", "a%1Fb"] {
        let answer = stage.node.call(CAT, &id, method).await;
        answer.expect_error(400, "ERR_BAD_REQUEST", "method contains control character at position 1");
    }
    for bad in ["a%23b", "a%3Fb", "a%00b", "a%2Fb", "a%5Cb", "a%0Ab", "%2E", "%2E%2E"] {
        let answer = stage.node.call(CAT, bad, "foo").await;
        // `.` and `..` are cleaned away with the path when they stand there undecoded only.
        answer.expect_error(400, "ERR_BAD_REQUEST", "invalid request: invalid actorId");
        let answer = stage.node.call(bad, &id, "foo").await;
        answer.expect_error(400, "ERR_BAD_REQUEST", "invalid request: invalid actorType");
    }
    assert_eq!(stage.app.count(&at(CAT, &id)), 0);
}

/// dapr.md 1.2, 0.1: one decoding per segment, `+` is a space.
#[tokio::test]
async fn an_unusual_id_reaches_the_app_as_the_same_id() {
    let stage = stage().await;
    let tail = unique("x");
    for (sent, arrives) in [
        (format!("a%20b-{tail}"), format!("a%20b-{tail}")),
        (format!("a+b-{tail}"), format!("a%20b-{tail}")),
        (format!("%C3%BC-{tail}"), format!("%C3%BC-{tail}")),
        (format!("pct%2541-{tail}"), format!("pct%2541-{tail}")),
        (format!("a%7C%7Cb@c:d-{tail}"), format!("a%7C%7Cb@c:d-{tail}")),
    ] {
        let before = stage.app.calls().len();
        stage.node.call(CAT, &sent, "foo").await.expect(200);
        let decoded = percent(&arrives);
        let seen = stage.app.calls()[before..]
            .iter()
            .any(|call| percent(&call.path) == format!("/actors/cat/{decoded}/method/foo"));
        assert!(seen, "{sent} did not arrive as {decoded}");
    }
}

fn percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// dapr.md 2.2
#[tokio::test]
async fn a_body_over_the_limit_is_400_and_never_reaches_the_app() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::default().app(&app).arg("--max-body-size=1k").ready().await;
    let path = "/v1.0/actors/cat/a/method/foo";
    node.post(path).body(vec![b'x'; 1000]).send().await.expect(200);
    let answer = node.post(path).body(vec![b'x'; 1001]).send().await;
    answer.expect_error(400, "ERR_BAD_REQUEST", "invalid request: failed to read body: stream too large");
    assert_eq!(app.count("/actors/"), 1);
}

/// dapr.md 2.2
#[tokio::test]
async fn a_call_to_a_type_nobody_hosts_fails_after_the_host_wait() {
    let stage = stage().await;
    let begun = std::time::Instant::now();
    stage.node.call("nobody", "a", "foo").await.expect_error(
        500,
        "ERR_ACTOR_INVOKE_METHOD",
        "error invoke actor method: failed to lookup actor: api error: code = FailedPrecondition desc = did not find address for actor 'nobody/a'",
    );
    let waited = begun.elapsed().as_secs_f64();
    assert!((4.0..8.0).contains(&waited), "waited {waited:.1} s instead of about 5");
}

/// dapr.md 2.1, 15.10: before the actor runtime is ready, calls wait.
#[tokio::test]
async fn a_call_made_before_the_app_is_there_waits_for_it() {
    let port = callboard_tests::ports::free();
    let node = Setup::default().app_at(([127, 0, 0, 1], port).into()).start().await;
    let call = tokio::spawn(node.post("/v1.0/actors/cat/a/method/foo").send());
    let while_away = Duration::from_millis(500);
    stays(while_away, "that the call is answered", false, async || call.is_finished()).await;
    let app = App::listening(json!({"entities": [CAT]}), port).await;
    call.await.expect("the call is made").expect(200);
    assert_eq!(app.wait_for(1, "/actors/cat/a", PATIENCE).await.len(), 1);
}

/// actors/grpc/content_roundtrip.go, its HTTP twin
#[tokio::test]
async fn request_data_and_content_type_reach_the_app() {
    let stage = stage().await;
    let id = unique("roundtrip");
    stage.app.on(&at(CAT, &id), async |call| Reply::ok().header("content-type", "x/echo").body(call.body));
    let path = format!("/v1.0/actors/{CAT}/{id}/method/foo");
    let answer = stage.node.post(&path).header("content-type", "x/own; utf-8").body("data").send().await.expect(200);
    assert_eq!(answer.text(), "data");
    assert_eq!(answer.header("content-type"), Some("x/echo"));
    assert_eq!(stage.app.calls_to(&at(CAT, &id))[0].header("content-type"), Some("x/own; utf-8"));
}

/// dapr.md 2.2
#[tokio::test]
async fn caller_headers_of_a_client_are_replaced_by_the_nodes_own() {
    let stage = stage().await;
    let id = unique("caller");
    let path = format!("/v1.0/actors/{CAT}/{id}/method/foo");
    let request = stage.node.post(&path).header("dapr-caller-app-id", "liar").header("dapr-caller-namespace", "lies");
    request.send().await.expect(200);
    let call = &stage.app.calls_to(&at(CAT, &id))[0];
    assert_ne!(call.header("dapr-caller-app-id"), Some("liar"));
    assert_ne!(call.header("dapr-caller-namespace"), Some("lies"));
}
