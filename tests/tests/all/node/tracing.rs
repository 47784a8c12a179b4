//! Trace headers.

use callboard_tests::app::App;
use callboard_tests::node::Setup;

/// The trace id of a valid `traceparent`.
fn trace_id(header: Option<&str>) -> String {
    let header = header.expect("a traceparent");
    let parts: Vec<_> = header.split('-').collect();
    assert!(parts.len() == 4 && parts[0] == "00" && parts[1].len() == 32 && parts[2].len() == 16, "{header}");
    assert!(parts[1].bytes().any(|byte| byte != b'0') && parts[2].bytes().any(|byte| byte != b'0'), "{header}");
    parts[1].to_owned()
}

/// daprd/tracing/serviceinvocation/serviceinvocation.go, HTTP part
#[tokio::test]
async fn the_app_gets_a_traceparent_with_and_without_an_incoming_one() {
    const INCOMING: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let app = App::hosting(&["cat"]).await;
    app.answers("/trace", 200, "");
    let node = Setup::default().app(&app).ready().await;
    for (url, seen) in
        [("/v1.0/invoke/myapp/method/trace", "/trace"), ("/v1.0/actors/cat/a/method/foo", "/actors/cat/a/")]
    {
        let answer = node.post(url).send().await.expect(200);
        let own = trace_id(app.calls_to(seen).pop().expect("a call").header("traceparent"));
        assert_eq!(trace_id(answer.header("traceparent")), own, "the answer names the trace");
        let request = node.post(url).header("traceparent", INCOMING).header("tracestate", "vendor=1");
        let answer = request.send().await.expect(200);
        let call = app.calls_to(seen).pop().expect("a call");
        assert_eq!(trace_id(call.header("traceparent")), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(call.header("tracestate"), Some("vendor=1"));
        assert_eq!(trace_id(answer.header("traceparent")), "0af7651916cd43dd8448eb211c80319c");
    }
    assert!(node.get("/v1.0/healthz").send().await.header("traceparent").is_none(), "health is not traced");
    trace_id(node.get("/v1.0/metadata").send().await.header("traceparent"));
}

/// daprd/tracing/baggage/{http,serviceinvocation}.go
#[tokio::test]
async fn baggage_is_forwarded_and_echoed_unchanged_and_refused_when_invalid() {
    let app = App::plain().await;
    app.answers("/trace", 200, "");
    let node = Setup::default().app(&app).ready().await;
    let url = "/v1.0/invoke/myapp/method/trace";
    for baggage in ["key1=value1,key2=value2", "userId=am%C3%A9lie;prop=1, serverNode=DF%2028"] {
        let answer = node.get(url).header("baggage", baggage).send().await.expect(200);
        assert_eq!(answer.header("baggage"), Some(baggage));
        assert_eq!(app.calls_to("/trace").pop().expect("a call").header("baggage"), Some(baggage));
    }
    let before = app.count("/trace");
    for baggage in ["invalid-baggage", "=value", "key", "a=b,,=c"] {
        let answer = node.get(url).header("baggage", baggage).send().await.expect(400);
        assert!(answer.text().contains("invalid baggage header"), "{baggage}: {}", answer.text());
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    }
    assert_eq!(app.count("/trace"), before);
}
