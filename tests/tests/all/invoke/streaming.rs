//! Streaming: bodies pass as they come, in both directions, whatever their size.

use std::time::Duration;

use bytes::Bytes;
use callboard_tests::app::{App, Reply};
use callboard_tests::node::Setup;
use callboard_tests::process::{forget_peak, peak};
use callboard_tests::wait::{PATIENCE, busy};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

const MIB: usize = 1 << 20;
/// What a transfer may add to the node's memory while it runs, by dapr.md 1.8.
const MEMORY: u64 = 80 << 20;

async fn feed(sender: mpsc::Sender<Bytes>, chunk: Bytes, times: usize) {
    for _ in 0..times {
        // The reader may leave early; the test sees it by the answer.
        if sender.send(chunk.clone()).await.is_err() {
            return;
        }
    }
}

async fn count(mut body: Incoming) -> usize {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.expect("the body is whole").data_ref().map_or(0, Bytes::len);
    }
    length
}

/// daprd/serviceinvocation/http/streaming/chunkedrequest.go
#[tokio::test]
async fn a_chunked_request_of_a_mebibyte_arrives_complete_in_one_call() {
    let app = App::plain().await;
    app.on("/up", async |call| Reply::ok().body(call.body.len().to_string()));
    let node = Setup::default().app(&app).ready().await;
    let (request, sender) = node.post("/v1.0/invoke/myapp/method/up").chunked();
    tokio::spawn(feed(sender, Bytes::from(vec![b'c'; 4096]), 256));
    assert_eq!(request.send().await.expect(200).text(), MIB.to_string());
    assert_eq!(app.count("/up"), 1);
    let seen = &app.calls_to("/up")[0];
    assert_eq!(seen.header("content-length"), None, "an unknown length stays unknown");
}

/// daprd/serviceinvocation/http/streaming/streamerror.go
#[tokio::test]
async fn a_large_error_answer_to_a_chunked_request_is_whole_and_not_retried() {
    let app = App::plain().await;
    app.on("/fail", async |_| Reply::status(500).body(vec![b'e'; MIB]));
    let node = Setup::default().app(&app).ready().await;
    let (request, sender) = node.post("/v1.0/invoke/myapp/method/fail").chunked();
    tokio::spawn(feed(sender, Bytes::from_static(b"chunk"), 10));
    let answer = request.send().await.expect(500);
    assert_eq!(answer.body, vec![b'e'; MIB]);
    assert_eq!(app.count("/fail"), 1);
}

/// daprd/serviceinvocation/http/streaming/streamresponse.go
#[tokio::test]
async fn a_large_answer_to_a_chunked_request_is_whole() {
    let app = App::plain().await;
    app.on("/down", async |_| Reply::ok().body(vec![b'd'; MIB]));
    let node = Setup::default().app(&app).ready().await;
    let (request, sender) = node.post("/v1.0/invoke/myapp/method/down").chunked();
    tokio::spawn(feed(sender, Bytes::from_static(b"chunk"), 10));
    assert_eq!(request.send().await.expect(200).body, vec![b'd'; MIB]);
}

/// dapr.md 1.8: each chunk is passed on at once, in both directions.
#[tokio::test]
async fn chunks_pass_before_the_body_ends() {
    let app = App::plain().await;
    app.on_stream("/talk", async |request| {
        let (reply, sender) = Reply::ok().stream();
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(data) = frame.data_ref() {
                    sender.send(data.clone()).await.expect("the node reads on");
                }
            }
        });
        reply
    });
    let node = Setup::default().app(&app).ready().await;
    let (request, sender) = node.post("/v1.0/invoke/myapp/method/talk").chunked();
    let opening = tokio::spawn(request.open());
    sender.send(Bytes::from_static(b"one")).await.expect("sent");
    let mut answer = opening.await.expect("sent").expect("an answer").into_body();
    let next = async |body: &mut Incoming| {
        let frame =
            tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("a frame").expect("whole");
        frame.into_data().expect("data")
    };
    assert_eq!(next(&mut answer).await, "one");
    sender.send(Bytes::from_static(b"two")).await.expect("sent");
    assert_eq!(next(&mut answer).await, "two");
    drop(sender);
    assert!(answer.frame().await.is_none());
}

/// daprd/serviceinvocation/http/sse.go for the own app; dapr.md 1.8
#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let app = App::plain().await;
    let (release, gate) = mpsc::channel::<()>(1);
    let gate = std::sync::Arc::new(tokio::sync::Mutex::new(gate));
    app.on("/events", move |_| {
        let gate = gate.clone();
        async move {
            let (reply, sender) = Reply::ok().header("content-type", "text/event-stream").stream();
            tokio::spawn(async move {
                for n in 0..10 {
                    gate.lock().await.recv().await.expect("released");
                    sender.send(Bytes::from(format!("data: {n}\n\n"))).await.expect("the node reads on");
                }
            });
            reply
        }
    });
    let node = Setup::default().app(&app).ready().await;
    let request = node.get("/v1.0/invoke/myapp/method/events").header("accept", "text/event-stream");
    let answer = request.open().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-cache");
    let mut body = answer.into_body();
    for n in 0..10 {
        release.send(()).await.expect("the app listens");
        let frame =
            tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("a frame").expect("whole");
        assert_eq!(frame.into_data().expect("data"), format!("data: {n}\n\n"));
    }
}

/// daprd/serviceinvocation/http/streaming/requestmemory.go
#[tokio::test]
async fn an_upload_of_256_mebibytes_grows_the_node_by_less_than_80() {
    let app = App::plain().await;
    app.on_stream("/up", async |request| Reply::ok().body(count(request.into_body()).await.to_string()));
    let node = Setup::default().app(&app).arg("--max-body-size=512Mi").ready().await;
    let before = forget_peak(node.id());
    let (request, sender) = node.post("/v1.0/invoke/myapp/method/up").chunked();
    tokio::spawn(feed(sender, Bytes::from(vec![b'u'; MIB]), 256));
    let answer = request.within(Duration::from_secs(120)).send().await.expect(200);
    assert_eq!(answer.text(), (256 * MIB).to_string());
    let grown = peak(node.id()) - before;
    assert!(grown < MEMORY, "the node has grown by {} MiB", grown >> 20);
}

/// daprd/serviceinvocation/http/streaming/responsememory.go
#[tokio::test]
async fn a_download_of_256_mebibytes_grows_the_node_by_less_than_80() {
    let app = App::plain().await;
    app.on("/down", async |_| {
        let (reply, sender) = Reply::ok().stream();
        tokio::spawn(feed(sender, Bytes::from(vec![b'd'; MIB]), 256));
        reply
    });
    let node = Setup::default().app(&app).ready().await;
    let before = forget_peak(node.id());
    let answer = node.get("/v1.0/invoke/myapp/method/down").open().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(count(answer.into_body()).await, 256 * MIB);
    let grown = peak(node.id()) - before;
    assert!(grown < MEMORY, "the node has grown by {} MiB", grown >> 20);
}

/// daprd/serviceinvocation/http/streaming/idlepurge.go: the part that users see.
#[tokio::test]
async fn a_slow_stream_is_not_cut_as_idle() {
    /// Longer than a connection may idle here.
    const BETWEEN: Duration = Duration::from_millis(1500);
    let app = App::plain().await;
    app.on("/slow", async |_| {
        let (reply, sender) = Reply::ok().stream();
        tokio::spawn(async move {
            for _ in 0..4 {
                sender.send(Bytes::from_static(b"tick")).await.expect("the node reads on");
                busy(BETWEEN).await;
            }
        });
        reply
    });
    let setup = Setup::default().app(&app).env("DAPR_GRPC_MAX_CONN_IDLE", "1s");
    let node = setup.env("DAPR_GRPC_CONN_COLLECTOR_INTERVAL", "500ms").ready().await;
    assert_eq!(node.get("/v1.0/invoke/myapp/method/slow").send().await.expect(200).body, "tick".repeat(4));
}

/// An app that breaks off in the middle does not look like one that has finished.
#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_on_as_whole() {
    let app = callboard_tests::raw::RawApp::start(|path| match path {
        "/dapr/config" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
        _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".into(),
    })
    .await;
    let node = Setup::default().app_at(app.address).ready().await;
    let answer = node.get("/v1.0/invoke/myapp/method/broken").try_send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 500));
}
