//! The server over real sockets: protocols, upgrade, bounds, closing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BufMut;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Notify;

use super::*;

/// Answers `<verb> <target> <version> <body>`, or waits for `release` where the target says so.
#[derive(Clone, Default)]
struct Echo {
    release: Arc<Notify>,
    arrived: Arc<Notify>,
    count: Arc<AtomicUsize>,
}

impl Handler for Echo {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let (head, body) = request.into_parts();
        let body = Body::incoming(body, u64::MAX).collect(u64::MAX).await.unwrap_or_default();
        if head.uri.path() == "/wait" {
            self.arrived.notify_one();
            self.release.notified().await;
        }
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        let text = format!("{} {target} {:?} {}", head.method, head.version, String::from_utf8_lossy(&body));
        Response::new(Answer::from(Body::full(text)))
    }
}

struct Rig {
    tasks: Tasks,
    server: Server,
    address: SocketAddr,
    echo: Echo,
}

impl Rig {
    fn new(protocols: Protocols, limits: ServerLimits) -> Self {
        let (tasks, echo) = (Tasks::new(), Echo::default());
        let server = Server::new(tasks.clone(), protocols, limits);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        server.serve("test", listener, echo.clone()).unwrap();
        Self { tasks, server, address, echo }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) {
        self.tasks.join().await;
    }
}

/// Reads until the text ends as wanted.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads until the peer closes, in whichever way.
async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

fn short(head_time: u64, idle: u64) -> ServerLimits {
    ServerLimits {
        head_time: Duration::from_millis(head_time),
        idle: Duration::from_millis(idle),
        ..ServerLimits::default()
    }
}

#[tokio::test]
async fn http1_connections_are_kept_for_more_requests() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let mut stream = rig.connect().await;
    for at in 0..3 {
        stream.write_all(format!("GET /{at}?x HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
        read_until(&mut stream, &format!("GET /{at}?x HTTP/1.1 ")).await;
    }
    // In one segment, and split inside the head.
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\nPOST /b HTTP/1.1\r\nhost: h\r\ncontent-le").await.unwrap();
    read_until(&mut stream, "GET /a HTTP/1.1 ").await;
    stream.write_all(b"ngth: 2\r\n\r\nhi").await.unwrap();
    read_until(&mut stream, "POST /b HTTP/1.1 hi").await;
    rig.end().await;
}

#[tokio::test]
async fn http2_is_recognised_by_its_preface_even_when_it_comes_in_pieces() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let stream = rig.connect().await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    rig.tasks.spawn(Kind::Work, "client", async move {
        let _ = connection.await;
    });
    let request = Request::builder().uri("http://h/x").body(Body::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = Body::incoming(response.into_body(), 100).collect(100).await.unwrap();
    assert_eq!(body, "GET /x HTTP/2.0 ");
    let mut dribbled = rig.connect().await;
    for byte in connection::PREFACE {
        dribbled.write_all(&[*byte]).await.unwrap();
        dribbled.flush().await.unwrap();
    }
    dribbled.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(frame(&mut dribbled).await.kind, SETTINGS);
    drop(sender);
    rig.end().await;
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

async fn frame(stream: &mut TcpStream) -> Frame {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload).await.unwrap();
    let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Frame { kind: head[3], flags: head[4], stream: number, payload }
}

/// Reads frames until the data of `number` has ended; the acknowledged settings and the data.
async fn answer_of(stream: &mut TcpStream, number: u32) -> (usize, String) {
    let (mut acknowledged, mut text) = (0, Vec::new());
    loop {
        let frame = frame(stream).await;
        match frame.kind {
            SETTINGS if frame.flags & 1 == 1 => acknowledged += 1,
            HEADERS => {
                assert_eq!(frame.stream, number);
                assert_eq!(frame.payload[0], 0x88, "status 200");
            }
            DATA => {
                assert_eq!(frame.stream, number);
                text.extend_from_slice(&frame.payload);
                if frame.flags & 1 == 1 {
                    return (acknowledged, String::from_utf8(text).unwrap());
                }
            }
            _ => {}
        }
    }
}

const OFFER: &str = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";

#[tokio::test]
async fn an_upgrade_is_answered_101_and_the_request_on_stream_one() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    for (request, expected) in [
        (format!("GET /up?x=1 HTTP/1.1\r\nhost: h\r\n{OFFER}\r\n"), "GET /up?x=1 HTTP/2.0 "),
        (format!("POST /up HTTP/1.1\r\nhost: h\r\n{OFFER}content-length: 4\r\n\r\nbody"), "POST /up HTTP/2.0 body"),
    ] {
        let mut stream = rig.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: h2c"), "{head}");
        let mut opening = connection::PREFACE.to_vec();
        opening.extend_from_slice(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        stream.write_all(&opening).await.unwrap();
        let (acknowledged, text) = answer_of(&mut stream, 1).await;
        assert_eq!(text, expected);
        assert_eq!(acknowledged, 1, "one SETTINGS frame is acknowledged once");
        // The connection goes on as any other.
        let mut block = vec![0x82, 0x86, 0x84]; // GET http /
        block.extend_from_slice(&[0x41, 1, b'h']);
        let mut next = Vec::new();
        next.put_uint(block.len() as u64, 3);
        next.extend_from_slice(&[HEADERS, 5]);
        next.put_u32(3);
        next.extend_from_slice(&block);
        stream.write_all(&next).await.unwrap();
        assert_eq!(answer_of(&mut stream, 3).await.1, "GET / HTTP/2.0 ");
    }
    rig.end().await;
}

#[tokio::test]
async fn an_offer_that_cannot_be_taken_is_answered_in_http1() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let http1_only = Rig::new(Protocols::Http1, ServerLimits::default());
    let broken = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: %%\r\n";
    for (rig, offer) in [(&rig, broken), (&http1_only, OFFER)] {
        let mut stream = rig.connect().await;
        stream.write_all(format!("GET /x HTTP/1.1\r\nhost: h\r\n{offer}\r\n").as_bytes()).await.unwrap();
        let text = read_until(&mut stream, "GET /x HTTP/1.1 ").await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }
    rig.end().await;
    http1_only.end().await;
}

#[tokio::test]
async fn after_an_upgrade_anything_but_http2_ends_the_connection() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let mut stream = rig.connect().await;
    stream.write_all(format!("GET /x HTTP/1.1\r\nhost: h\r\n{OFFER}\r\n").as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_to_close(&mut stream).await;
    assert_eq!(rig.echo.count.load(Ordering::SeqCst), 0);
    rig.end().await;
}

#[tokio::test]
async fn a_silent_connection_and_a_dribbled_head_are_cut() {
    let rig = Rig::new(Protocols::Http1AndH2c, short(200, 60_000));
    let mut silent = rig.connect().await;
    let mut dribbling = rig.connect().await;
    dribbling.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    let mut second = rig.connect().await;
    second.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_until(&mut second, "GET /a HTTP/1.1 ").await;
    second.write_all(b"GET /b").await.unwrap();
    for stream in [&mut silent, &mut dribbling, &mut second] {
        assert_eq!(read_to_close(stream).await, "");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_slow_handler_is_not_a_slow_head() {
    let rig = Rig::new(Protocols::Http1AndH2c, short(50, 100));
    let mut stream = rig.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    rig.echo.arrived.notified().await;
    // Another connection lives through its whole idle time meanwhile.
    let mut other = rig.connect().await;
    other.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_to_close(&mut other).await;
    rig.echo.release.notify_one();
    read_until(&mut stream, "GET /wait HTTP/1.1 ").await;
    rig.end().await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let mut stream = rig.connect().await;
    let request = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "v".repeat(5_000));
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_to_close(&mut stream).await.starts_with("HTTP/1.1 431 "));
    let mut endless = rig.connect().await;
    let line = format!("x: {}\r\n", "v".repeat(1_000));
    endless.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    while endless.write_all(line.as_bytes()).await.is_ok() {}
    assert_eq!(rig.echo.count.load(Ordering::SeqCst), 0);
    rig.end().await;
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    for garbage in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all"]
    {
        let mut stream = rig.connect().await;
        stream.write_all(garbage).await.unwrap();
        let text = read_to_close(&mut stream).await;
        assert!(!text.contains(" 200 "), "{text}");
    }
    let mut stream = rig.connect().await;
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_until(&mut stream, "GET /x HTTP/1.1 ").await;
    rig.end().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits { connections: 1, ..ServerLimits::default() });
    let mut first = rig.connect().await;
    first.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_until(&mut first, "GET /x HTTP/1.1 ").await;
    let mut second = rig.connect().await;
    second.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let refusal = read_to_close(&mut second).await;
    let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    drop(first);
    rig.server.shared.connections.ended().await;
    let mut third = rig.connect().await;
    third.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_until(&mut third, "GET /x HTTP/1.1 ").await;
    rig.end().await;
}

#[tokio::test]
async fn closing_waits_for_requests_in_flight_and_refuses_strangers() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let (mut waiting, mut idle) = (rig.connect().await, rig.connect().await);
    idle.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    read_until(&mut idle, "GET /x HTTP/1.1 ").await;
    waiting.write_all(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    rig.echo.arrived.notified().await;
    let mut closing = Box::pin(rig.server.close(Duration::from_secs(60)));
    assert!(futures_util::poll!(&mut closing).is_pending());
    assert_eq!(read_to_close(&mut idle).await, "", "an idle connection is closed at once");
    while TcpStream::connect(rig.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    rig.echo.release.notify_one();
    let text = read_to_close(&mut waiting).await;
    assert!(text.ends_with("GET /wait HTTP/1.1 "), "{text}");
    assert_eq!(closing.await, 0);
    rig.end().await;
}

#[tokio::test]
async fn what_outlives_the_grace_period_is_cut_and_counted() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let mut waiting = rig.connect().await;
    waiting.write_all(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    rig.echo.arrived.notified().await;
    assert_eq!(rig.server.close(Duration::from_millis(1)).await, 1);
    assert_eq!(read_to_close(&mut waiting).await, "");
    rig.end().await;
}

#[tokio::test]
async fn a_unix_socket_is_a_door_like_any_other() {
    let rig = Rig::new(Protocols::Http1AndH2c, ServerLimits::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("door.socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    rig.server.serve_unix("unix", listener, rig.echo.clone()).unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("GET /x HTTP/1.1 "), "{text}");
    rig.end().await;
}
