//! The HTTP listener: protocols, path cleaning, limits of headers.

use std::time::Duration;

use callboard_tests::app::App;
use callboard_tests::node::Setup;
use callboard_tests::raw::{Ending, Raw};
use callboard_tests::wait::PATIENCE;
use http::Version;
use tokio::net::TcpStream;

/// daprd/httpserver/httpserver.go
#[tokio::test]
async fn http_1_and_h2c_by_prior_knowledge_and_upgrade_are_served() {
    let node = Setup::default().ready().await;
    let answer = node.get("/v1.0/healthz").send().await.expect_empty();
    assert_eq!(answer.version, Version::HTTP_11);
    let answer = node.get("/v1.0/healthz").h2().send().await.expect_empty();
    assert_eq!(answer.version, Version::HTTP_2);
    let mut raw = Raw::connect(node.http()).await;
    let upgrade = "GET /v1.0/healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    raw.write(upgrade.as_bytes()).await.expect("written");
    match raw.ending(PATIENCE).await {
        Ending::Answered(101, bytes) => {
            let head = String::from_utf8_lossy(&bytes).to_lowercase();
            assert!(head.contains("upgrade: h2c"), "{head}");
        }
        other @ (Ending::Answered(..) | Ending::Closed | Ending::Hangs) => panic!("{other:?}"),
    }
}

/// dapr.md 0.1
#[tokio::test]
async fn h2c_can_be_switched_off() {
    let node = Setup::default().env("DAPR_HTTP_DISABLE_H2C", "true").ready().await;
    node.get("/v1.0/healthz").send().await.expect_empty();
    assert!(node.get("/v1.0/healthz").h2().within(Duration::from_secs(5)).try_send().await.is_err());
}

/// dapr.md 0.1; sdk-clients 5: Python asks `//v1.0/...`.
#[tokio::test]
async fn paths_are_cleaned_before_they_are_routed() {
    let node = Setup::default().ready().await;
    for path in ["//v1.0/healthz", "/v1.0//healthz", "/x/../v1.0/healthz", "/./v1.0/./healthz", "/v1.0/healthz/"] {
        let answer = node.get(path).send().await;
        assert_eq!(answer.status, 204, "{path}: {}", answer.text());
    }
}

/// dapr.md 0.1
#[tokio::test]
async fn a_malformed_escape_in_a_parameter_is_400_in_text() {
    let app = App::hosting(&["cat"]).await;
    let node = Setup::default().app(&app).ready().await;
    for path in ["/v1.0/actors/cat/a%zz/state/k", "/v1.0/actors/cat/a%/state/k", "/v1.0/actors/cat/a/state/k%2"] {
        let answer = node.get(path).send().await.expect(400);
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/plain"), "{path}: {kind}");
        assert!(answer.text().starts_with("failed to unescape request parameter "), "{path}: {}", answer.text());
    }
}

/// dapr.md 0.1, 8: the header buffer.
#[tokio::test]
async fn headers_up_to_the_buffer_pass_and_larger_ones_are_refused() {
    let app = App::plain().await;
    app.answers("/a", 200, "");
    let small = Setup::default().app(&app).ready().await;
    let large = Setup::default().app(&app).arg("--read-buffer-size=64Ki").ready().await;
    let url = "/v1.0/invoke/myapp/method/a";
    small.get(url).header("x-long", &"x".repeat(3000)).send().await.expect(200);
    large.get(url).header("x-long", &"x".repeat(60_000)).send().await.expect(200);
    for node in [&small, &large] {
        let answer = node.get(url).header("x-long", &"x".repeat(200_000)).try_send().await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| (400..500).contains(&answer.status)));
        node.get("/v1.0/healthz").send().await.expect_empty();
    }
}

/// ports/daprd.go and ports/internalgrpc.go, the port of peers among them; sdk-clients 5: `localhost` may be IPv6.
#[tokio::test]
async fn the_ports_are_open_on_ipv4_and_ipv6() {
    let app = App::plain().await;
    let public = callboard_tests::ports::free();
    let node = Setup::default().app(&app).arg(format!("--dapr-public-port={public}")).ready().await;
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let own = [node.http(), node.grpc(), node.peer(), node.metrics()].map(|address| address.port());
    for port in own.into_iter().chain([app.port(), public]) {
        TcpStream::connect(("127.0.0.1", port)).await.unwrap_or_else(|error| panic!("port {port}: {error}"));
        if has_ipv6 && port != app.port() {
            TcpStream::connect(("::1", port)).await.unwrap_or_else(|error| panic!("port {port} on ::1: {error}"));
        }
    }
}

/// dapr.md 8: `--unix-domain-socket`.
#[tokio::test]
async fn a_unix_socket_serves_the_api() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().expect("a folder");
    let node = Setup::default().arg(format!("--unix-domain-socket={}", folder.path().display())).spawn();
    let path = folder.path().join("dapr-myapp-http.socket");
    let mut stream = callboard_tests::wait::eventually(PATIENCE, "the socket answers", async || {
        tokio::net::UnixStream::connect(&path).await.ok()
    })
    .await;
    stream.write_all(b"GET /v1.0/metadata HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    drop(node);
}
