//! Headers: what passes, what is stripped, what is added, in both directions.

use callboard_tests::app::{App, Reply};
use callboard_tests::node::Setup;

const HOP_BY_HOP: [&str; 7] =
    ["keep-alive", "proxy-connection", "te", "trailer", "proxy-authorization", "proxy-authenticate", "http2-settings"];

/// dapr.md 1.4, 15.5
#[tokio::test]
async fn hop_by_hop_headers_and_those_named_in_connection_stay_behind() {
    let app = App::plain().await;
    app.on("/hop", async |_| {
        Reply::ok()
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("x-public", "2")
            .header("content-type", "x/own; odd")
            .header("dapr-app-id", "echoed")
            .body("ok")
    });
    let node = Setup::default().app(&app).ready().await;
    let mut request =
        node.get("/v1.0/invoke/myapp/method/hop").header("connection", "close, x-secret").header("x-secret", "1");
    for name in HOP_BY_HOP {
        request = request.header(name, if name == "te" { "trailers" } else { "x" });
    }
    let answer = request
        .header("x-kept", "kept")
        .header("X-Upper", "Value")
        .header("data-bin", "x")
        .header("destination-app-id", "x")
        .header("dapr-api-token", "token")
        .header("grpc-timeout", "1S")
        .send()
        .await
        .expect(200);
    let seen = &app.calls_to("/hop")[0];
    for name in
        HOP_BY_HOP.iter().chain(&["x-secret", "data-bin", "destination-app-id", "dapr-api-token", "dapr-app-id"])
    {
        assert_eq!(seen.header(name), None, "{name} reached the app");
    }
    assert_eq!(seen.header("x-kept"), Some("kept"));
    assert_eq!(seen.header("x-upper"), Some("Value"));
    assert_eq!(seen.header("dapr-grpc-timeout"), Some("1S"));
    assert_eq!(seen.header("grpc-timeout"), None);
    assert_eq!(seen.header("content-type"), None, "an absent content type stays absent");
    for name in ["x-private", "keep-alive", "dapr-app-id"] {
        assert_eq!(answer.header(name), None, "{name} came back");
    }
    assert_eq!(answer.header("x-public"), Some("2"));
    assert_eq!(answer.header("content-type"), Some("x/own; odd"));
}

/// dapr.md 1.4, 15.6
#[tokio::test]
async fn caller_and_callee_are_the_nodes_own_and_cannot_be_forged() {
    let app = App::plain().await;
    app.answers("/who", 200, "");
    let node = Setup::default().app(&app).ready().await;
    let request = node.get("/v1.0/invoke/myapp/method/who");
    let request = request.header("dapr-caller-app-id", "liar").header("dapr-callee-app-id", "liar");
    request.header("dapr-caller-namespace", "lies").send().await.expect(200);
    let seen = &app.calls_to("/who")[0];
    assert_eq!(seen.header("dapr-caller-app-id"), Some("myapp"));
    assert_eq!(seen.header("dapr-callee-app-id"), Some("myapp"));
    assert_eq!(seen.header("dapr-caller-namespace"), Some("default"));
    for name in ["x-forwarded-for", "x-forwarded-host", "forwarded"] {
        assert_eq!(seen.header(name), None, "{name} on a self-invocation");
    }
}

/// A header given twice stays two values; cookies of an answer are not joined.
#[tokio::test]
async fn repeated_headers_stay_repeated() {
    let app = App::plain().await;
    app.on("/twice", async |_| Reply::ok().header("set-cookie", "a=1").header("set-cookie", "b=2"));
    let node = Setup::default().app(&app).ready().await;
    let request = node.get("/v1.0/invoke/myapp/method/twice").header("x-many", "1").header("x-many", "2");
    let answer = request.send().await.expect(200);
    let cookies: Vec<_> =
        answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("text")).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    let seen = &app.calls_to("/twice")[0];
    let many: Vec<_> = seen.headers.get_all("x-many").iter().map(|value| value.to_str().expect("text")).collect();
    assert_eq!(many, ["1", "2"]);
}
