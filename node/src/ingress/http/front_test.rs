//! The front door over real sockets, with a handler that shows what it got.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::ingress::http::error::no_content;
use crate::ingress::server::{Handler, Protocols, Server, ServerLimits};
use crate::tasks::Tasks;

/// Answers with the headers it sees; `/wait` waits, `/shout` answers with a trace of its own.
#[derive(Clone)]
struct Mirror {
    front: Arc<Front>,
    release: Arc<Notify>,
    arrived: Arc<Notify>,
}

impl Handler for Mirror {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        self.front
            .serve(request, async |routed, request| {
                let path = request.uri().path().to_owned();
                if path == "/wait" {
                    self.arrived.notify_one();
                    self.release.notified().await;
                }
                if matches!(routed, Ok(Route::Healthz)) {
                    return no_content();
                }
                let headers = format!("{:?}", request.headers());
                match request.into_body().collect(u64::MAX).await {
                    Ok(_) if path == "/shout" => {
                        let mut response = Response::new(Body::full("shout"));
                        response.headers_mut().insert(trace::TRACEPARENT, "mine".parse().unwrap());
                        response
                    }
                    Ok(_) => Response::new(Body::full(headers)),
                    Err(error) => ApiError::bad_request(error).into_response(),
                }
            })
            .await
    }
}

struct Rig {
    tasks: Tasks,
    address: SocketAddr,
    mirror: Mirror,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let (tasks, metrics, mut config) = (Tasks::new(), Metrics::new(), Config::new("own"));
        change(&mut config);
        let front = Arc::new(Front::new(&config, metrics.clone()));
        let mirror = Mirror { front, release: Arc::default(), arrived: Arc::default() };
        let server = Server::new(tasks.clone(), Protocols::Http1AndH2c, ServerLimits::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        server.serve("test", listener, mirror.clone()).unwrap();
        Self { tasks, address, mirror, metrics }
    }

    async fn open(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{}\r\nhost: h\r\nconnection: close\r\n\r\n", head.replace('\n', "\r\n"));
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// Sends a head, given by its lines; the answer as text.
    async fn ask(&self, head: &str) -> String {
        read(&mut self.open(head).await).await
    }

    async fn end(self) {
        self.tasks.join().await;
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.to_lowercase()
}

#[tokio::test]
async fn a_trace_is_made_or_continued_and_told_to_both_sides() {
    let rig = Rig::new(|_| {});
    let fresh = rig.ask("GET /x HTTP/1.1").await;
    let told = fresh.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap();
    assert!(fresh.split("\r\n\r\n").nth(1).unwrap().contains(told), "{fresh}");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let continued = rig.ask(&format!("GET /x HTTP/1.1\ntraceparent: {parent}\nbaggage: k=v")).await;
    assert!(continued.contains("traceparent: 00-0af7651916cd43dd8448eb211c80319c-"), "{continued}");
    assert!(!continued.contains("b7ad6b7169203331") && continued.contains("\r\nbaggage: k=v\r\n"), "{continued}");
    let own = rig.ask("GET /shout HTTP/1.1").await;
    assert!(own.contains("\r\ntraceparent: mine\r\n") && own.matches("traceparent").count() == 1, "{own}");
    assert!(!rig.ask("GET /v1.0/healthz HTTP/1.1").await.contains("traceparent"));
    let invalid = rig.ask("GET /x HTTP/1.1\nbaggage: invalid").await;
    assert!(invalid.starts_with("http/1.1 400 ") && invalid.contains("invalid baggage header"), "{invalid}");
    rig.end().await;
}

#[tokio::test]
async fn a_token_is_asked_for_everywhere_but_for_health_and_preflights() {
    let rig = Rig::new(|config| {
        config.api_token = Some("secret".into());
        config.http.allowed_origins = vec!["http://a".into()];
    });
    for head in ["GET /v1.0/metadata HTTP/1.1", "GET /cluster/v1/x HTTP/1.1", "OPTIONS /x HTTP/1.1\norigin: http://a"] {
        for token in ["", "\ndapr-api-token: wrong"] {
            let refused = rig.ask(&format!("{head}{token}")).await;
            assert!(refused.starts_with("http/1.1 401 ") && refused.ends_with("invalid api token"), "{refused}");
            assert!(refused.contains("content-type: text/plain"), "{refused}");
        }
        let good = rig.ask(&format!("{head}\nDapr-Api-Token: secret")).await;
        assert!(good.starts_with("http/1.1 200 ") && !good.contains("secret"), "{good}");
    }
    assert!(rig.ask("GET /v1.0/healthz HTTP/1.1").await.starts_with("http/1.1 204 "));
    let preflight = "OPTIONS /x HTTP/1.1\norigin: http://a\naccess-control-request-method: PUT";
    let answer = rig.ask(preflight).await;
    assert!(
        answer.starts_with("http/1.1 200 ") && answer.contains("access-control-allow-origin: http://a"),
        "{answer}"
    );
    rig.end().await;
}

#[tokio::test]
async fn a_body_over_the_limit_fails_while_it_is_read() {
    let rig = Rig::new(|config| config.http.max_body = 4);
    for (head, good) in [
        ("content-length: 4\n\nfour", true),
        ("content-length: 5\n\nfives", false),
        ("transfer-encoding: chunked\n\n4\nfour\n1\ns\n0\n", false),
    ] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let request = format!("POST /x HTTP/1.1\nhost: h\nconnection: close\n{head}\n").replace('\n', "\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read(&mut stream).await;
        assert_eq!(answer.starts_with("http/1.1 200 "), good, "{answer}");
        assert_eq!(answer.contains("stream too large"), !good, "{answer}");
    }
    rig.end().await;
}

#[tokio::test]
async fn a_full_node_says_so_and_still_serves_the_callbacks_of_its_calls() {
    let rig = Rig::new(|config| config.limits.requests = 1);
    let mut waiting = rig.open("GET /wait HTTP/1.1").await;
    rig.mirror.arrived.notified().await;
    let refused = rig.ask("GET /x HTTP/1.1").await;
    assert!(refused.starts_with("http/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("err_overloaded"), "{refused}");
    let callback = rig.ask("GET /v1.0/actors/t/i/state/k HTTP/1.1").await;
    assert!(callback.starts_with("http/1.1 200 "), "{callback}");
    rig.mirror.release.notify_one();
    assert!(read(&mut waiting).await.starts_with("http/1.1 200 "));
    assert!(rig.ask("GET /x HTTP/1.1").await.starts_with("http/1.1 200 "));
    let text = rig.metrics.render();
    assert!(text.contains("callboard_http_requests_total{route=\"invoke\",status=\"503\"} 1"), "{text}");
    assert!(text.contains("callboard_error_codes_total{error_code=\"ERR_OVERLOADED\"} 1"), "{text}");
    assert!(text.contains("callboard_http_requests_in_flight 0"), "{text}");
    rig.end().await;
}

#[test]
fn a_token_must_match_in_full() {
    for (given, expected, good) in
        [("a", "a", true), ("", "", true), ("a", "b", false), ("ab", "a", false), ("a", "ab", false)]
    {
        assert_eq!(same(given.as_bytes(), expected.as_bytes()), good, "{given} {expected}");
    }
}
