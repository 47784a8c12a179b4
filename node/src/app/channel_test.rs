//! The channel against real sockets: what is sent, what is reused, and what each failure says.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use http::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};

use super::fake::{FakeApp, Seen, answer, read_request, send};
use super::*;

const LIMITS: ChannelLimits = ChannelLimits { head: 4_096, body: 1 << 20, answer: Duration::from_secs(60) };

struct Rig {
    tasks: Tasks,
    channel: AppChannel,
}

impl Rig {
    fn new(tasks: Tasks, config: AppConfig) -> Self {
        let channel = AppChannel::start(Some(config), "own", Some("app-token".into()), &tasks, LIMITS);
        Self { tasks, channel }
    }

    async fn until(&self, what: impl FnMut(&AppView) -> bool) -> AppView {
        self.channel.watch().wait_for(what).await.unwrap().clone()
    }

    async fn end(self) {
        self.tasks.join().await;
    }
}

fn put(path: &str, body: &'static str) -> Request<Bytes> {
    Request::builder().method("PUT").uri(path).body(Bytes::from_static(body.as_bytes())).unwrap()
}

fn hosts(seen: &Seen) -> Response<Body> {
    match seen.target.as_str() {
        "/dapr/config" => answer(200, r#"{"entities":["cat"]}"#),
        _ => answer(200, "ok"),
    }
}

#[tokio::test]
async fn a_call_carries_host_and_app_token_and_returns_the_whole_answer() {
    let tasks = Tasks::new();
    let mut app = FakeApp::start(&tasks, |_| answer(207, "done")).await;
    let rig = Rig::new(tasks, app.config());
    let mut request = put("/actors/t/i/method/m?q=1", "body");
    request.headers_mut().insert(API_TOKEN, HeaderValue::from_static("of the caller"));
    let response = rig.channel.call(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body().as_ref()), (207, &b"done"[..]));
    let seen = app.saw().await;
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), seen.body.as_ref()),
        ("PUT", "/actors/t/i/method/m?q=1", &b"body"[..])
    );
    assert_eq!(seen.headers[HOST], app.address.to_string().as_str());
    assert_eq!(seen.headers[API_TOKEN], "app-token");
    rig.end().await;
}

#[tokio::test]
async fn calls_one_after_another_share_a_connection() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, hosts).await;
    let rig = Rig::new(tasks, app.config());
    rig.until(|view| view.config_read).await;
    for _ in 0..10 {
        rig.channel.call(put("/x", "")).await.unwrap();
    }
    // The supervisor's dials (one to find the port, then one a second) carry no request.
    assert!(app.accepted() <= 5, "{}", app.accepted());
    rig.end().await;
}

#[tokio::test]
async fn a_connection_that_the_app_closed_while_idle_is_replaced_before_anything_is_sent() {
    let tasks = Tasks::new();
    let (count, counted) = (Arc::new(AtomicUsize::new(0)), mpsc::unbounded_channel());
    let (closed, mut was_closed) = counted;
    let requests = count.clone();
    let app = FakeApp::raw(&tasks, move |mut stream| {
        let (requests, closed) = (requests.clone(), closed.clone());
        async move {
            let mut first = [0; 1];
            if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            let request = read_request(&mut stream).await;
            if request.starts_with("PUT") {
                requests.fetch_add(1, Ordering::SeqCst);
            }
            // A connection that looks as if it stayed open.
            send(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            drop(stream);
            closed.send(request).unwrap();
        }
    })
    .await;
    let rig = Rig::new(tasks, app.config());
    for _ in 0..3 {
        let response = rig.channel.call(put("/x", "b")).await.unwrap();
        assert_eq!(response.body(), "ok");
        while !was_closed.recv().await.unwrap().starts_with("PUT") {}
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
    rig.end().await;
}

#[tokio::test]
async fn an_app_that_hangs_up_after_the_request_may_have_run_it_and_is_not_asked_twice() {
    let tasks = Tasks::new();
    let count = Arc::new(AtomicUsize::new(0));
    let requests = count.clone();
    let app = FakeApp::raw(&tasks, move |mut stream| {
        let requests = requests.clone();
        async move {
            let mut first = [0; 1];
            if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            if read_request(&mut stream).await.starts_with("PUT") {
                requests.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let rig = Rig::new(tasks, AppConfig { read_config: false, ..app.config() });
    let error = rig.channel.call(put("/x", "b")).await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    assert!(error.to_string().starts_with("error invoking app channel: "));
    assert_eq!(count.load(Ordering::SeqCst), 1);
    rig.end().await;
}

#[tokio::test]
async fn nobody_on_the_port_means_that_nothing_was_sent() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, hosts).await;
    let config = app.config();
    drop(app);
    let rig = Rig::new(tasks, config);
    // The listener goes when its task has seen the end; until then a call may succeed or be reset while dialling.
    let refusal = loop {
        match rig.channel.call(put("/x", "")).await {
            Err(Error::NotSent(text)) if text.contains("connection refused") => break text,
            Err(Error::NotSent(_)) | Ok(_) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(refusal.starts_with("dial tcp 127.0.0.1:"), "{refusal}");
    rig.end().await;
}

#[tokio::test]
async fn an_app_that_went_away_and_came_back_is_another_incarnation_and_is_asked_again() {
    let tasks = Tasks::new();
    let mut app = FakeApp::start(&tasks, hosts).await;
    let address = app.address;
    let rig = Rig::new(tasks.clone(), app.config());
    let config = app.saw_config().await;
    assert_eq!(config.headers["dapr-app-id"], "own");
    assert_eq!(config.headers["content-type"], "application/json");
    assert_eq!(config.headers[API_TOKEN], "app-token");
    let view = rig.until(|view| view.hosted.is_some()).await;
    assert_eq!(view.incarnation, 0);
    assert!(view.hosted.unwrap().types.contains_key("cat"));
    drop(app);
    let view = rig.until(|view| view.incarnation == 1).await;
    assert!(view.hosted.is_none() && !view.healthy);
    let mut app = FakeApp::start_at(&tasks, address, hosts).await;
    app.saw_config().await;
    let view = rig.until(|view| view.hosted.is_some()).await;
    assert_eq!(view.incarnation, 1);
    rig.end().await;
}

#[tokio::test]
async fn an_app_without_a_config_hosts_nothing_and_is_not_asked_again() {
    let tasks = Tasks::new();
    let mut app = FakeApp::start(&tasks, |seen| match seen.target.as_str() {
        "/dapr/config" => answer(404, r#"{"entities":["cat"]}"#),
        _ => answer(200, "ok"),
    })
    .await;
    let rig = Rig::new(tasks, app.config());
    let view = rig.until(|view| view.config_read).await;
    assert!(view.hosted.is_none_or(|hosted| hosted.types.is_empty()));
    app.saw_config().await;
    rig.channel.call(put("/x", "")).await.unwrap();
    assert_eq!(app.saw().await.target, "/x");
    rig.end().await;
}

#[tokio::test]
async fn a_body_shorter_than_declared_is_delivered_while_the_app_lives() {
    let tasks = Tasks::new();
    let app = FakeApp::raw(&tasks, |mut stream| async move {
        let mut first = [0; 1];
        if stream.peek(&mut first).await.unwrap_or(0) == 0 {
            return;
        }
        read_request(&mut stream).await;
        send(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nshort").await;
    })
    .await;
    let rig = Rig::new(tasks, AppConfig { read_config: false, ..app.config() });
    assert_eq!(rig.channel.call(put("/x", "")).await.unwrap().body(), "short");
    let streamed = rig.channel.forward(put("/x", "").map(Body::full)).await.unwrap();
    assert_eq!(streamed.into_body().collect(1_000).await.unwrap(), "short");
    rig.end().await;
}

#[tokio::test]
async fn a_body_cut_by_the_apps_death_is_no_answer() {
    let tasks = Tasks::new();
    let (die, dying) = oneshot::channel::<()>();
    let dying = Arc::new(Mutex::new(Some(dying)));
    let (began, mut begun) = mpsc::unbounded_channel();
    let app = FakeApp::raw(&tasks, move |mut stream| {
        let (dying, began) = (dying.clone(), began.clone());
        async move {
            let mut first = [0; 1];
            if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            read_request(&mut stream).await;
            send(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nshort").await;
            began.send(()).unwrap();
            let dying = dying.lock().take().unwrap();
            let _ = dying.await;
        }
    })
    .await;
    let rig = Rig::new(tasks, AppConfig { read_config: false, ..app.config() });
    rig.until(|view| view.port_open).await;
    let (channel, call) = (rig.channel.clone(), oneshot::channel());
    rig.tasks.spawn(Kind::Work, "call", async move {
        call.0.send(channel.call(put("/x", "")).await).unwrap();
    });
    begun.recv().await.unwrap();
    // The port goes before the connection, as when a process ends.
    drop(app);
    rig.until(|view| view.incarnation == 1).await;
    drop(die);
    let error = call.1.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    rig.end().await;
}

#[tokio::test]
async fn an_answers_body_has_a_limit_and_so_has_its_head() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, |seen| match seen.target.as_str() {
        "/head" => {
            let mut response = answer(200, "");
            response.headers_mut().insert("x", "v".repeat(5_000).parse().unwrap());
            response
        }
        "/body" => Response::new(Body::full(vec![b'x'; (1 << 20) + 1])),
        _ => answer(404, ""),
    })
    .await;
    let rig = Rig::new(tasks, app.config());
    assert!(matches!(rig.channel.call(put("/head", "")).await, Err(Error::Lost(_))));
    assert!(matches!(rig.channel.call(put("/body", "")).await, Err(Error::TooLarge { limit: 1_048_576 })));
    rig.end().await;
}

#[tokio::test]
async fn max_concurrency_makes_calls_wait_and_a_cancelled_one_gives_its_slot_back() {
    let tasks = Tasks::new();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let app = FakeApp::raw(&tasks, move |mut stream| {
        let arrived = arrived.clone();
        async move {
            let mut first = [0; 1];
            if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            let request = read_request(&mut stream).await;
            let hangs = request.starts_with("PUT /hang");
            arrived.send(()).unwrap();
            if hangs {
                // Until the caller hangs up.
                let _ = stream.read_u8().await;
            } else {
                send(&mut stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let rig = Rig::new(tasks, AppConfig { max_concurrency: Some(1), read_config: false, ..app.config() });
    let mut hanging = Box::pin(rig.channel.call(put("/hang", "")));
    tokio::select! {
        biased;
        answer = &mut hanging => panic!("{answer:?}"),
        arrival = arrivals.recv() => arrival.unwrap(),
    }
    let mut waiting = Box::pin(rig.channel.call(put("/x", "")));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(arrivals.try_recv().is_err(), "the second call waits outside");
    drop(hanging);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    rig.end().await;
}

#[tokio::test]
async fn a_forwarded_body_arrives_chunk_by_chunk_in_both_directions() {
    let tasks = Tasks::new();
    let (step, mut steps) = mpsc::unbounded_channel::<&'static str>();
    let script = Arc::new(tokio::sync::Mutex::new(Some(step)));
    let app = FakeApp::raw(&tasks, move |mut stream| {
        let script = script.clone();
        async move {
            let mut first = [0; 1];
            if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            let step = script.lock().await.take().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"3\r\none\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            step.send("saw one").unwrap();
            send(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
            let mut rest = Vec::new();
            while !rest.ends_with(b"0\r\n\r\n") {
                rest.push(stream.read_u8().await.unwrap());
            }
            assert!(String::from_utf8_lossy(&rest).contains("two"));
            send(&mut stream, "1\r\nb\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let rig = Rig::new(tasks, AppConfig { read_config: false, ..app.config() });
    let (sender, body) = Body::channel(1);
    sender.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
    let request = Request::builder().method("POST").uri("/stream").body(body).unwrap();
    let response = rig.channel.forward(request).await.unwrap();
    assert_eq!(steps.recv().await.unwrap(), "saw one");
    let mut answered = response.into_body();
    assert_eq!(answered.next_chunk().await.unwrap().unwrap(), "a");
    sender.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
    drop(sender);
    assert_eq!(answered.next_chunk().await.unwrap().unwrap(), "b");
    assert!(answered.next_chunk().await.unwrap().is_none());
    rig.end().await;
}

#[tokio::test]
async fn dropping_an_answer_closes_its_connection() {
    let tasks = Tasks::new();
    let (closed, mut was_closed) = mpsc::unbounded_channel();
    let app = FakeApp::raw(&tasks, move |mut stream| {
        let closed = closed.clone();
        async move {
            let mut first = [0; 1];
            if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                return;
            }
            read_request(&mut stream).await;
            send(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
            assert!(stream.read_u8().await.is_err());
            closed.send(()).unwrap();
        }
    })
    .await;
    let rig = Rig::new(tasks, AppConfig { read_config: false, ..app.config() });
    let response = rig.channel.forward(put("/x", "").map(Body::full)).await.unwrap();
    drop(response);
    was_closed.recv().await.unwrap();
    rig.end().await;
}

#[tokio::test]
async fn a_failing_health_check_shuts_the_gate_and_a_good_one_opens_it() {
    let tasks = Tasks::new();
    let well = Arc::new(AtomicBool::new(false));
    let state = well.clone();
    let app = FakeApp::start(&tasks, move |seen| match seen.target.as_str() {
        "/custom" if state.load(Ordering::SeqCst) => answer(204, ""),
        "/custom" => answer(503, ""),
        _ => hosts(seen),
    })
    .await;
    let health = HealthCheck {
        path: "/custom".into(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        threshold: 2,
    };
    let rig = Rig::new(tasks, AppConfig { health: Some(health), ..app.config() });
    rig.until(|view| view.port_open).await;
    assert!(matches!(rig.channel.call(put("/x", "")).await, Err(Error::Unhealthy)));
    well.store(true, Ordering::SeqCst);
    rig.until(|view| view.hosted.is_some()).await;
    rig.channel.call(put("/x", "")).await.unwrap();
    well.store(false, Ordering::SeqCst);
    let view = rig.until(|view| !view.healthy).await;
    assert!(view.hosted.is_none() && view.incarnation == 0);
    assert!(matches!(rig.channel.call(put("/x", "")).await, Err(Error::Unhealthy)));
    well.store(true, Ordering::SeqCst);
    rig.until(|view| view.hosted.is_some()).await;
    rig.end().await;
}

#[tokio::test]
async fn without_an_app_the_channel_is_not_initialized() {
    let tasks = Tasks::new();
    let channel = AppChannel::start(None, "own", None, &tasks, LIMITS);
    assert!(matches!(channel.call(put("/x", "")).await, Err(Error::NotInitialized)));
    let grpc = AppConfig { protocol: AppProtocol::Grpc, ..AppConfig::new(1) };
    let channel = AppChannel::start(Some(grpc), "own", None, &tasks, LIMITS);
    assert!(matches!(channel.call(put("/x", "")).await, Err(Error::NotInitialized)));
    tasks.join().await;
}

#[tokio::test]
async fn an_h2c_app_is_called_over_one_connection() {
    let tasks = Tasks::new();
    let mut app = FakeApp::start(&tasks, |seen| Response::new(Body::full(seen.body.clone()))).await;
    let rig = Rig::new(tasks, AppConfig { protocol: AppProtocol::H2c, read_config: false, ..app.config() });
    let bodies: [&'static str; 3] = ["null", "{\"a\":1}", ""];
    let calls = bodies.map(|body| rig.channel.call(put("/x?y=1", body)));
    for (answered, body) in futures_util::future::join_all(calls).await.into_iter().zip(bodies) {
        assert_eq!(answered.unwrap().body(), body);
    }
    let seen = app.saw().await;
    assert_eq!(seen.target, "/x?y=1");
    assert_eq!(seen.headers[API_TOKEN], "app-token");
    rig.end().await;
}

#[tokio::test]
async fn an_https_app_is_called_whatever_its_certificate() {
    let tasks = Tasks::new();
    let certified = rcgen::generate_simple_self_signed(["somewhere.else".to_owned()]).unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let server = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let (record, mut seen) = mpsc::unbounded_channel();
    let app = FakeApp::raw(&tasks, move |stream| {
        let (acceptor, record) = (acceptor.clone(), record.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                super::fake::serve(stream, record, Arc::new(|_: &Seen| answer(200, "tls"))).await;
            }
        }
    })
    .await;
    let rig = Rig::new(tasks, AppConfig { protocol: AppProtocol::Https, read_config: false, ..app.config() });
    assert_eq!(rig.channel.call(put("/x", "")).await.unwrap().body(), "tls");
    assert_eq!(seen.recv().await.unwrap().target, "/x");
    rig.end().await;
}

#[tokio::test]
async fn word_of_the_childs_exit_is_another_incarnation_at_once() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, hosts).await;
    let rig = Rig::new(tasks, app.config());
    rig.until(|view| view.hosted.is_some()).await;
    rig.channel.process_gone();
    let view = rig.channel.watch().borrow().clone();
    assert_eq!((view.incarnation, view.hosted.is_none()), (1, true));
    rig.until(|view| view.hosted.is_some()).await;
    rig.end().await;
}
