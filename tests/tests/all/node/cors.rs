//! CORS.

use callboard_tests::app::App;
use callboard_tests::node::Setup;

const ORIGIN: &str = "https://page.example";

/// daprd/httpserver/corsdefault.go
#[tokio::test]
async fn without_origins_there_is_no_cors() {
    let app = App::plain().await;
    let node = Setup::default().app(&app).ready().await;
    let preflight = node.request("OPTIONS", "/v1.0/metadata").header("origin", ORIGIN);
    let answer = preflight.header("access-control-request-method", "GET").send().await.expect(404);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("vary"), None);
    let answer = node.get("/v1.0/metadata").header("origin", ORIGIN).send().await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

/// daprd/httpserver/corsallowall.go
#[tokio::test]
async fn a_star_allows_every_origin() {
    let node = Setup::default().arg("--allowed-origins=*").ready().await;
    let preflight = node.request("OPTIONS", "/v1.0/metadata").header("origin", ORIGIN);
    let answer = preflight.header("access-control-request-method", "PUT").send().await.expect(200);
    let allowed = answer.header("access-control-allow-origin").expect("the origin is allowed");
    assert!([ORIGIN, "*"].contains(&allowed));
    assert!(answer.header("vary").is_some());
    assert!(answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains("PUT")));
    let answer = node.get("/v1.0/metadata").header("origin", ORIGIN).send().await.expect(200);
    assert!(answer.header("access-control-allow-origin").is_some());
}

/// dapr.md 0.1
#[tokio::test]
async fn a_list_allows_exactly_its_origins() {
    let node = Setup::default().arg(format!("--allowed-origins={ORIGIN},https://other.example")).ready().await;
    for (origin, allowed) in [(ORIGIN, true), ("https://other.example", true), ("https://evil.example", false)] {
        for method in ["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"] {
            let request = node.request("OPTIONS", "/v1.0/metadata").header("origin", origin);
            let request = request
                .header("access-control-request-method", method)
                .header("access-control-request-headers", "x-any");
            let answer = request.send().await.expect(200);
            assert_eq!(answer.header("access-control-allow-origin"), allowed.then_some(origin), "{origin} {method}");
            assert!(answer.header("vary").is_some());
        }
    }
}

/// daprd/httpserver/corsdefaultapitoken.go; dapr.md 0.1
#[tokio::test]
async fn a_preflight_needs_no_token_with_cors_and_is_401_without() {
    let preflight = |node: &callboard_tests::node::Node| {
        let request = node.request("OPTIONS", "/v1.0/metadata").header("origin", ORIGIN);
        request.header("access-control-request-method", "GET").send()
    };
    let without = Setup::default().env("DAPR_API_TOKEN", "secret").ready().await;
    preflight(&without).await.expect(401);
    let with = Setup::default().env("DAPR_API_TOKEN", "secret").arg("--allowed-origins=*").ready().await;
    preflight(&with).await.expect(200);
    with.get("/v1.0/metadata").header("origin", ORIGIN).send().await.expect(401);
}
