//! Bytes that are not HTTP, or not all of it.

use std::time::Duration;

use callboard_tests::raw::{Ending, Raw};
use callboard_tests::wait::eventually;

use super::Victim;
use crate::stage::{gives_back, settled};

/// The read-header timeout is 10 s (dapr.md 0.1); a little more for a busy machine.
const HEADER_BOUND: Duration = Duration::from_secs(15);

async fn send(victim: &Victim, bytes: &[u8]) -> Ending {
    let mut raw = Raw::connect(victim.node.http()).await;
    // The node may close while it is still being written to.
    let _ = raw.write(bytes).await;
    raw.ending(HEADER_BOUND).await
}

fn is_refused(ending: &Ending, what: &str) {
    match ending {
        Ending::Answered(status, _) => assert!((400..500).contains(status), "{what}: {status}"),
        Ending::Closed => {}
        Ending::Hangs => panic!("{what}: neither answered nor closed"),
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let victim = Victim::start().await;
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1 << 20));
    let long_header = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(50_000));
    for (what, bytes) in [
        ("noise", &b"\x00\x01\x02\x03\r\n\r\n"[..]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("no version", b"GET /\r\n\r\n"),
        ("a strange version", b"GET / HTTP/9.9\r\n\r\n"),
        ("a space in a header's name", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("a NUL in a header", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n"),
        ("a header without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n"),
        ("a negative length", b"POST /v1.0/metadata HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n"),
        ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a length that is no number", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\nhello"),
        ("a broken preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("a request line of a mebibyte", long_line.as_bytes()),
        ("a header of a mebibyte", long_header.as_bytes()),
        ("fifty thousand headers", many_headers.as_bytes()),
    ] {
        is_refused(&send(&victim, bytes).await, what);
    }
    victim.must_be_unharmed().await;
}

#[tokio::test]
async fn bad_chunking_is_refused_and_runs_no_method() {
    let victim = Victim::start().await;
    let head = "POST /v1.0/actors/cat/chunk/method/foo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "5\r\nhello",
        "ffffffffffffffffff\r\nx\r\n",
        "5hello\r\n0\r\n\r\n",
        "5;\x00\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut raw = Raw::connect(victim.node.http()).await;
        let _ = raw.write(format!("{head}{body}").as_bytes()).await;
        raw.finish_writing().await;
        let ending = raw.ending(HEADER_BOUND).await;
        match &ending {
            // A chunk extension is the server's to tolerate.
            Ending::Answered(200, _) if body.contains(';') => {}
            other @ (Ending::Answered(..) | Ending::Closed | Ending::Hangs) => is_refused(other, body),
        }
    }
    assert!(victim.app.count("/actors/cat/chunk/") <= 1);
    victim.must_be_unharmed().await;
}

/// dapr.md 0.1: ten seconds for the head of a request.
#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let victim = Victim::start().await;
    let mut silent = Raw::connect(victim.node.http()).await;
    let mut half = Raw::connect(victim.node.http()).await;
    half.write(b"GET /v1.0/healthz HTTP/1.1\r\nHost: a\r\nX-").await.expect("written");
    let mut slow = Raw::connect(victim.node.http()).await;
    let address = victim.node.http();
    let dripping = tokio::spawn(async move {
        // A header a second, for ever.
        slow.write(b"GET /v1.0/healthz HTTP/1.1\r\n").await.expect("written");
        for n in 0..60 {
            if slow.write(format!("X-{n}: 1\r\n").as_bytes()).await.is_err() {
                return true;
            }
            if !matches!(slow.ending(Duration::from_secs(1)).await, Ending::Hangs) {
                return true;
            }
        }
        false
    });
    is_refused(&half.ending(HEADER_BOUND).await, "half a head");
    assert!(dripping.await.expect("dripped"), "a head that drips is never cut at {address}");
    // One that says nothing at all may idle, as keep-alive does, but must not stop others.
    drop(silent.ending(Duration::from_millis(10)).await);
    victim.must_be_unharmed().await;
}

/// A pause inside a body is given up after 30 s.
const BODY_BOUND: Duration = Duration::from_secs(45);

/// A body that never comes holds its own connection only, and ends with it, or with the node's patience.
#[tokio::test]
async fn bodies_that_stop_half_way_do_no_harm() {
    let victim = Victim::start().await;
    let mut open = Vec::new();
    for n in 0..50 {
        let mut raw = Raw::connect(victim.node.http()).await;
        let request =
            format!("POST /v1.0/actors/cat/half{n}/method/foo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc");
        raw.write(request.as_bytes()).await.expect("written");
        open.push(raw);
    }
    let mut patient = Vec::new();
    for path in ["actors/cat/half/state", "actors/cat/half/reminders/r", "actors/cat/half/method/foo", "metadata/half"]
    {
        let mut raw = Raw::connect(victim.node.http()).await;
        let request = format!("PUT /v1.0/{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n[");
        raw.write(request.as_bytes()).await.expect("written");
        patient.push((path, raw));
    }
    // Others are served meanwhile.
    for n in 0..20 {
        victim.node.call("cat", &format!("other{n}"), "foo").await.expect(200);
    }
    for mut raw in open.drain(..25) {
        raw.finish_writing().await;
        is_refused(&raw.ending(HEADER_BOUND).await, "a body that ends early");
    }
    drop(open);
    for (path, mut raw) in patient {
        let text = String::from_utf8_lossy(&raw.read_to_end(BODY_BOUND).await).into_owned();
        assert!(text.starts_with("HTTP/1.1 408 "), "{path}: {text}");
        assert!(text.contains("\"errorCode\":\"ERR_REQUEST_TIMEOUT\""), "{path}: {text}");
    }
    assert_eq!(victim.app.count("/actors/cat/half"), 0, "half a request is none");
    victim.must_be_unharmed().await;
}

/// Hundreds of connections that say nothing, and go.
#[tokio::test]
async fn silent_connections_cost_no_service_and_are_given_back() {
    const SILENT: usize = 500;
    let victim = Victim::start().await;
    victim.node.call("cat", "meanwhile", "foo").await.expect(200);
    let before = settled(&victim.node, &victim.app).await;
    let mut open = Vec::new();
    for _ in 0..SILENT {
        open.push(Raw::connect(victim.node.http()).await);
    }
    eventually(HEADER_BOUND, "the node has them all", async || {
        (victim.node.held().await.sockets >= before.sockets + SILENT).then_some(())
    })
    .await;
    victim.node.call("cat", "meanwhile", "foo").await.expect(200);
    drop(open);
    gives_back(&victim.node, &victim.app, &before).await;
    victim.must_be_unharmed().await;
}

/// Smuggling: a request with both framings is refused, or its chunks count and the length does not.
#[tokio::test]
async fn a_request_with_two_framings_is_refused_or_read_by_its_chunks() {
    let victim = Victim::start().await;
    let bytes = b"POST /v1.0/actors/cat/first/method/foo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPUT /v1.0/actors/cat/second/method/foo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let mut raw = Raw::connect(victim.node.http()).await;
    let _ = raw.write(bytes).await;
    raw.finish_writing().await;
    raw.read_to_end(Duration::from_secs(2)).await;
    let (first, second) = (victim.app.calls_to("/actors/cat/first/"), victim.app.count("/actors/cat/second/"));
    assert!(first.len() <= 1 && second <= first.len(), "first {}, second {second}", first.len());
    assert!(first.iter().all(|call| call.body.is_empty()), "bytes of the second request became a body of the first");
    victim.must_be_unharmed().await;
}
