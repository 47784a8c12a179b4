//! The app against a sidecar that keeps one number.

use super::*;

/// Serves the app on a port of its own, until the answer is dropped.
async fn start(dapr_http_port: u16) -> (SocketAddr, JoinSet<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = Options { port: 0, actor_type: "cat".into(), dapr_http_port, dapr_api_token: Some("t".into()) };
    let mut server = JoinSet::new();
    server.spawn(serve(listener, Arc::new(App::new(options))));
    (address, server)
}

async fn ask(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let mut connection = Connection::open(to).await.unwrap();
    let (status, body) = connection.fetch(&raw::request(method, path, "x", &[], body)).await.unwrap();
    (status, String::from_utf8(body).unwrap())
}

async fn stats(to: SocketAddr) -> Stats {
    serde_json::from_str(&ask(to, "GET", "/stats", b"").await.1).unwrap()
}

/// A sidecar that keeps the last value written, and refuses calls without the token.
async fn sidecar() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let value: Arc<Mutex<Option<u64>>> = Arc::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: http::Request<Incoming>| {
                let value = Arc::clone(&value);
                async move {
                    assert_eq!(request.headers()["dapr-api-token"], "t");
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    if parts.method == Method::GET {
                        assert_eq!(parts.uri.path(), "/v1.0/actors/cat/tom/state/n");
                        let body = (*value.lock()).map_or_else(String::new, |n| n.to_string());
                        let status = if body.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::OK };
                        return Ok::<_, Infallible>(text(status, &body));
                    }
                    assert_eq!(parts.uri.path(), "/v1.0/actors/cat/tom/state");
                    let operations: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    *value.lock() = operations[0]["request"]["value"].as_u64();
                    Ok(text(StatusCode::NO_CONTENT, ""))
                }
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn it_is_an_actor_host_that_echoes_and_counts() {
    let (app, _server) = start(1).await;
    assert_eq!(ask(app, "GET", "/dapr/config", b"").await, (200, r#"{"entities":["cat"]}"#.into()));
    assert_eq!(ask(app, "POST", "/echo", b"hello").await, (200, "hello".into()));
    assert_eq!(ask(app, "PUT", "/actors/cat/tom/method/noop", b"").await, (200, "ok".into()));
    assert_eq!(ask(app, "DELETE", "/actors/cat/tom", b"").await.0, 200);
    assert_eq!(ask(app, "PUT", "/actors/cat/tom/method/none", b"").await.0, 404);
    let seen = stats(app).await;
    assert_eq!((seen.echo, seen.noop, seen.deactivated, seen.rw), (1, 1, 1, 0));
    ask(app, "DELETE", "/stats", b"").await;
    assert_eq!(stats(app).await, Stats::default());
}

#[tokio::test]
async fn rw_reads_what_the_call_before_it_wrote() {
    let (port, _sidecar) = sidecar().await;
    let (app, _server) = start(port).await;
    for number in 1..=3 {
        assert_eq!(ask(app, "PUT", "/actors/cat/tom/method/rw", b"").await, (200, number.to_string()));
    }
    assert_eq!(stats(app).await.rw, 3);
}

#[tokio::test]
async fn rw_without_a_sidecar_fails_and_is_counted() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (app, _server) = start(free).await;
    assert_eq!(ask(app, "PUT", "/actors/cat/tom/method/rw", b"").await.0, 500);
    assert_eq!(stats(app).await.rw_failed, 1);
}

#[tokio::test]
async fn the_lateness_of_reminders_is_told_and_early_ones_are_not_hidden() {
    let (app, _server) = start(1).await;
    let body = |offset: i64| {
        let due = i64::try_from(unix_now().as_micros()).unwrap() + offset;
        format!(r#"{{"data":{{"due":{due}}},"dueTime":"","period":""}}"#).into_bytes()
    };
    ask(app, "PUT", "/actors/cat/tom/method/remind/a", &body(-50_000)).await;
    ask(app, "PUT", "/actors/cat/tom/method/remind/a", &body(-50_000)).await;
    ask(app, "PUT", "/actors/cat/tom/method/remind/b", &body(60_000_000)).await;
    ask(app, "PUT", "/actors/cat/tom/method/remind/c", b"{}").await;
    let seen = stats(app).await.reminders;
    assert_eq!((seen.fired, seen.distinct, seen.early), (4, 3, 1));
    assert!(seen.lateness.max >= 50e3 && seen.lateness.count == 3, "{seen:?}");
}
