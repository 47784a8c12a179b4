//! Invocation against real apps and real external servers.

use std::io::Write;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::app::ChannelLimits;
use crate::app::fake::{self, FakeApp, Seen, answer};
use crate::config::AppConfig;
use crate::resources::Reader;

struct Rig {
    tasks: Tasks,
    invoker: Invoker,
}

impl Rig {
    fn new(tasks: &Tasks, app: Option<AppConfig>, yaml: &str) -> Self {
        let mut config = Config::new("own");
        config.app = app.map(|app| AppConfig { read_config: false, ..app });
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        file.write_all(yaml.as_bytes()).unwrap();
        let reader = Reader { app_id: "own", namespace: None, env: |_| None };
        let resources = Arc::new(Resources::load(&[file.path().to_owned()], &[], reader).unwrap());
        let token = Some("app-token".to_owned());
        let app = AppChannel::start(config.app.clone(), &config.app_id, token, tasks, ChannelLimits::of(&config));
        Self { tasks: tasks.clone(), invoker: Invoker::start(&config, app, resources, tasks) }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.send(Request::builder().uri(path).body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let (head, body) = self.invoker.handle(request).await.into_parts();
        let body = body.collect(1 << 24).await.unwrap();
        (head.status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn message(&self, path: &str) -> (u16, String) {
        let (status, body) = self.get(path).await;
        let json: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
        assert_eq!(json["errorCode"], "ERR_DIRECT_INVOKE");
        (status.as_u16(), json["message"].as_str().unwrap().to_owned())
    }

    async fn end(self) {
        self.tasks.join().await;
    }
}

/// Answers with what it was asked: `<path>|<query>`.
fn path_and_query(seen: &Seen) -> Response<Body> {
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    Response::new(Body::full(format!("{path}|{query}")))
}

#[tokio::test]
async fn every_form_of_address_reaches_the_own_app() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, path_and_query).await;
    let rig = Rig::new(&tasks, Some(app.config()), "");
    for (path, expected) in [
        ("/v1.0/invoke/own/method/foo/bar?a=1&b=%20", "/foo/bar|a=1&b=%20"),
        ("/v1.0//invoke//own/method//foo", "/foo|"),
        ("/v1.0/invoke/own.default/method/foo", "/foo|"),
        ("/v1.0/invoke/own/method/admin%2F..%2Fpublic", "/public|"),
        ("/v1.0/invoke/own/method/stream?x", "/stream|x"),
        ("/v1.0/invoke/own/method/a%22b", "/a%22b|"),
        ("/v1.0/invoke/own/method/a\"b", "/a%22b|"),
        ("/v1.0/invoke/own/method/a*b", "/a*b|"),
        ("/v1.0/invoke/own/method/a%5Cb", "/a%5Cb|"),
        ("/v1.0/invoke/own/method/foo/", "/foo|"),
    ] {
        assert_eq!(rig.get(path).await, (StatusCode::OK, expected.to_owned()), "{path}");
    }
    for (name, value) in [("dapr-app-id", "own"), ("authorization", "Basic ZGFwci1hcHAtaWQ6b3du")] {
        for (path, expected) in [("/x/y?q", "/x/y|q"), ("/", "/|"), ("/a/../b", "/b|")] {
            let request = Request::builder().uri(path).header(name, value).body(Body::empty()).unwrap();
            assert_eq!(rig.send(request).await, (StatusCode::OK, expected.to_owned()), "{name} {path}");
        }
    }
    rig.end().await;
}

#[tokio::test]
async fn methods_that_would_change_the_path_are_500() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, path_and_query).await;
    let rig = Rig::new(&tasks, Some(app.config()), "");
    for (path, expected) in [
        (
            "a%23b",
            r#"rpc error: code = InvalidArgument desc = invalid method: method contains forbidden character: "a#b""#,
        ),
        (
            "a%3Fb",
            r#"rpc error: code = InvalidArgument desc = invalid method: method contains forbidden character: "a?b""#,
        ),
        (
            "a%00b",
            r#"rpc error: code = InvalidArgument desc = invalid method: method contains forbidden character: "a\x00b""#,
        ),
        (
            "a%0Db",
            r#"rpc error: code = InvalidArgument desc = invalid method: method contains control character at position 1: "a\rb""#,
        ),
        ("a%25x", r#"invalid URL escape "%x""#),
    ] {
        let (status, message) = rig.message(&format!("/v1.0/invoke/own/method/{path}")).await;
        assert_eq!((status, message), (500, format!("failed to invoke, id: own, err: {expected}")), "{path}");
    }
    assert_eq!(rig.get("/v1.0/invoke/own/method/%zz").await.0, 400);
    rig.end().await;
}

#[tokio::test]
async fn the_app_sees_the_callers_headers_without_those_of_the_hop_and_with_those_of_the_node() {
    let tasks = Tasks::new();
    let mut app = FakeApp::start(&tasks, |_| {
        let mut response = answer(418, "teapot");
        for (name, value) in [("x-mine", "1"), ("keep-alive", "x"), ("dapr-app-id", "x"), ("content-type", "a; b")] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    })
    .await;
    let rig = Rig::new(&tasks, Some(app.config()), "");
    let request = Request::builder()
        .method("PATCH")
        .uri("/v1.0/invoke/own/method/m")
        .header("x-kept", "1")
        .header("x-kept", "2")
        .header("content-type", "application/json; utf-8")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("te", "trailers")
        .header("dapr-api-token", "of the node")
        .header("dapr-caller-app-id", "pretended")
        .header("host", "elsewhere")
        .body(Body::full("{}"))
        .unwrap();
    let response = rig.invoker.handle(request).await;
    assert_eq!(response.status(), 418);
    assert_eq!(
        (&response.headers()["x-mine"], &response.headers()["content-type"]),
        (&"1".parse().unwrap(), &"a; b".parse().unwrap())
    );
    for gone in ["keep-alive", "dapr-app-id", "content-length"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    let seen = app.saw().await;
    assert_eq!((seen.method.as_str(), seen.body.as_ref()), ("PATCH", &b"{}"[..]));
    assert_eq!(seen.headers.get_all("x-kept").iter().count(), 2);
    for (name, value) in [
        ("content-type", "application/json; utf-8"),
        ("dapr-api-token", "app-token"),
        ("dapr-caller-app-id", "own"),
        ("dapr-caller-namespace", "default"),
        ("dapr-callee-app-id", "own"),
        ("host", app.address.to_string().as_str()),
    ] {
        assert_eq!(seen.headers[name], value, "{name}");
    }
    for gone in ["te", "x-hop", "connection", "x-forwarded-for", "forwarded"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    rig.end().await;
}

#[tokio::test]
async fn statuses_and_bodies_of_the_app_pass_unchanged() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, |seen| {
        let status = seen.target.trim_start_matches('/').parse().unwrap();
        let mut response = answer(status, if status == 204 || status == 304 { "" } else { "null" });
        response.headers_mut().insert("location", HeaderValue::from_static("/elsewhere"));
        response
    })
    .await;
    let rig = Rig::new(&tasks, Some(app.config()), "");
    for status in [200, 201, 204, 301, 302, 304, 307, 400, 404, 500, 503, 599] {
        let (answered, body) = rig.get(&format!("/v1.0/invoke/own/method/{status}")).await;
        let expected = if status == 204 || status == 304 { "" } else { "null" };
        assert_eq!((answered.as_u16(), body.as_str()), (status, expected));
    }
    rig.end().await;
}

#[tokio::test]
async fn verbs_unknown_to_dapr_become_post() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, |seen| Response::new(Body::full(seen.method.as_str().to_owned()))).await;
    let rig = Rig::new(&tasks, Some(app.config()), "");
    for (verb, expected) in [("GET", "GET"), ("OPTIONS", "OPTIONS"), ("PATCH", "PATCH"), ("BREW", "POST")] {
        let request = Request::builder().method(verb).uri("/v1.0/invoke/own/method/m").body(Body::empty()).unwrap();
        assert_eq!(rig.send(request).await.1, expected);
    }
    let request = Request::builder().method("CONNECT").uri("/v1.0/invoke/own/method/m").body(Body::empty()).unwrap();
    assert_eq!(rig.send(request).await.0, 500);
    rig.end().await;
}

#[tokio::test]
async fn a_request_that_names_nobody_or_nothing_is_told_so() {
    let tasks = Tasks::new();
    let rig = Rig::new(&tasks, None, "");
    let nobody = "failed getting app id either from the URL path or the header dapr-app-id";
    for path in ["/", "/v1.0/nothing", "/v1.0/invoke", "/v1.0/actors/t/i/method/m"] {
        assert_eq!(rig.message(path).await, (404, nobody.to_owned()), "{path}");
    }
    for path in ["/v1.0/invoke/app", "/v1.0/invoke/app/method", "/v1.0/invoke/app/method/"] {
        assert_eq!(rig.message(path).await.0, 400, "{path}");
    }
    let (status, message) = rig.message("/v1.0/invoke/a.b.c/method/m").await;
    assert_eq!((status, message.as_str()), (500, "failed to invoke, id: a.b.c, err: invalid app id a.b.c"));
    let (status, message) = rig.message("/v1.0/invoke/own/method/m").await;
    let text = "failed to invoke, id: own, err: cannot invoke local endpoint: app channel not initialized";
    assert_eq!((status, message.as_str()), (500, text));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_app_is_looked_for_four_times_when_the_length_is_known() {
    let tasks = Tasks::new();
    let rig = Rig::new(&tasks, None, "");
    let started = tokio::time::Instant::now();
    let (status, message) = rig.message("/v1.0/invoke/stranger/method/m").await;
    let text = "failed to invoke, id: stranger, err: failed to invoke target stranger after 3 retries. Error: couldn't find service: stranger";
    assert_eq!((status, message.as_str()), (500, text));
    assert_eq!(started.elapsed().as_secs(), 3);
    let (_sender, body) = Body::channel(1);
    let request = Request::builder().uri("/v1.0/invoke/own.other/method/m").body(body).unwrap();
    let started = tokio::time::Instant::now();
    let (_, body) = rig.send(request).await;
    assert!(body.contains("after 0 retries"), "{body}");
    assert_eq!(started.elapsed().as_millis(), 0);
    rig.end().await;
}

#[tokio::test]
async fn an_app_that_is_not_there_is_500_in_the_words_of_dapr() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, path_and_query).await;
    let config = app.config();
    drop(app);
    let rig = Rig::new(&tasks, Some(config), "");
    let message = loop {
        let (status, body) = rig.get("/v1.0/invoke/own/method/m").await;
        if status == 500 && body.contains("refused") {
            break body;
        }
        tokio::task::yield_now().await;
    };
    assert!(message.contains("failed to invoke, id: own, err: error invoking app channel: dial tcp"), "{message}");
    rig.end().await;
}

#[tokio::test]
async fn a_url_is_called_without_following_redirects_and_an_endpoint_with() {
    let tasks = Tasks::new();
    let mut outside = FakeApp::start(&tasks, |seen| match seen.target.as_str() {
        "/hello?a=1" => answer(200, "outside"),
        "/moved" => {
            let mut response = answer(301, "");
            response.headers_mut().insert("location", HeaderValue::from_static("/hello?a=1"));
            response
        }
        _ => answer(404, "nothing"),
    })
    .await;
    let at = outside.address;
    let yaml = format!(
        "kind: HTTPEndpoint\nmetadata:\n  name: ext.end.point\nspec:\n  baseUrl: http://{at}\n  headers:\n  - {{name: x-key, value: k}}\n"
    );
    let rig = Rig::new(&tasks, None, &yaml);
    for target in [format!("http://{at}"), format!("http%3A%2F%2F{at}"), "ext.end.point".to_owned()] {
        let answered = rig.get(&format!("/v1.0/invoke/{target}/method/hello?a=1")).await;
        assert_eq!(answered, (StatusCode::OK, "outside".to_owned()), "{target}");
        let seen = outside.saw().await;
        assert_eq!(seen.headers.contains_key("x-key"), target == "ext.end.point");
        assert_eq!(seen.headers["host"], at.to_string().as_str());
        assert!(!seen.headers.contains_key("dapr-caller-app-id") && !seen.headers.contains_key("dapr-api-token"));
    }
    assert_eq!(rig.get(&format!("/v1.0/invoke/http://{at}/method/moved")).await.0, 301);
    assert_eq!(rig.get("/v1.0/invoke/ext.end.point/method/moved").await, (StatusCode::OK, "outside".to_owned()));
    let posted = Request::builder().method("POST").uri("/v1.0/invoke/ext.end.point/method/moved");
    assert_eq!(rig.send(posted.body(Body::full("x")).unwrap()).await.1, "outside");
    rig.end().await;
}

#[tokio::test]
async fn events_are_marked_and_arrive_one_by_one() {
    let tasks = Tasks::new();
    let (next, nexts) = mpsc::unbounded_channel::<&'static str>();
    let nexts = Arc::new(tokio::sync::Mutex::new(nexts));
    let outside = FakeApp::raw(&tasks, move |mut stream| {
        let nexts = nexts.clone();
        async move {
            fake::read_request(&mut stream).await;
            fake::send(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while let Some(event) = nexts.lock().await.recv().await {
                fake::send(&mut stream, &format!("{:x}\r\n{event}\r\n", event.len())).await;
            }
            fake::send(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    let rig = Rig::new(&tasks, None, "");
    let request = Request::builder()
        .uri(format!("/v1.0/invoke/http://{}/method/events", outside.address))
        .header("accept", " Text/Event-Stream ")
        .body(Body::empty())
        .unwrap();
    let response = rig.invoker.handle(request).await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("connection", "keep-alive")]
    {
        assert_eq!(response.headers()[name], value);
    }
    let mut body = response.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        next.send(event).unwrap();
        assert_eq!(body.next_chunk().await.unwrap().unwrap(), event);
    }
    drop(next);
    assert!(body.next_chunk().await.unwrap().is_none());
    rig.end().await;
}

#[tokio::test]
async fn a_body_that_becomes_too_large_on_its_way_is_500_with_the_reason() {
    let tasks = Tasks::new();
    let app = FakeApp::start(&tasks, path_and_query).await;
    let rig = Rig::new(&tasks, Some(app.config()), "");
    let (sender, body) = Body::channel(2);
    sender.send(Ok(bytes::Bytes::from_static(b"so far"))).await.unwrap();
    sender.send(Err(crate::ingress::http::body::Error::TooLarge)).await.unwrap();
    let request = Request::builder().method("POST").uri("/v1.0/invoke/own/method/m").body(body).unwrap();
    let (status, body) = rig.send(request).await;
    assert_eq!(status, 500);
    assert!(body.contains("failed to invoke, id: own, err: stream too large"), "{body}");
    rig.end().await;
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for localhost and its key.
    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }
}

/// A TLS server that demands a certificate of `authority` from its clients.
async fn secured(tasks: &Tasks, authority: &Authority) -> FakeApp {
    let (certificate, key) = authority.issue();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (record, mut seen) = mpsc::unbounded_channel();
    let drain = tasks.clone();
    tasks.spawn(crate::tasks::Kind::Work, "drain", async move {
        tokio::select! {
            biased;
            () = drain.stopping() => {}
            () = async { while seen.recv().await.is_some() {} } => {}
        }
    });
    FakeApp::raw(tasks, move |stream| {
        let (acceptor, record) = (acceptor.clone(), record.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                fake::serve(stream, record, Arc::new(|_: &Seen| answer(200, "ok-TLS"))).await;
            }
        }
    })
    .await
}

fn endpoint(name: &str, port: u16, root: Option<&str>, client: Option<&(rcgen::Certificate, KeyPair)>) -> String {
    let block = |field: &str, pem: &str| {
        let lines: String = pem.lines().map(|line| format!("        {line}\n")).collect();
        format!("    {field}:\n      value: |\n{lines}")
    };
    let mut yaml = format!(
        "---\nkind: HTTPEndpoint\nmetadata:\n  name: {name}\nspec:\n  baseUrl: https://localhost:{port}\n  clientTLS:\n    renegotiation: RenegotiateNever\n"
    );
    if let Some(root) = root {
        yaml += &block("rootCA", root);
    }
    if let Some((certificate, key)) = client {
        yaml += &block("certificate", &certificate.pem());
        yaml += &block("privateKey", &key.serialize_pem());
    }
    yaml
}

#[tokio::test]
async fn a_tls_endpoint_needs_the_right_root_and_the_right_client_certificate() {
    let tasks = Tasks::new();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = secured(&tasks, &authority).await;
    let port = server.address.port();
    let (right, wrong) = (authority.issue(), stranger.issue());
    let yaml = [
        endpoint("right", port, Some(&authority.pem), Some(&right)),
        endpoint("wrong-client", port, Some(&authority.pem), Some(&wrong)),
        endpoint("wrong-root", port, Some(&stranger.pem), Some(&right)),
        endpoint("no-root", port, None, Some(&right)),
    ]
    .concat();
    let rig = Rig::new(&tasks, None, &yaml);
    assert_eq!(rig.get("/v1.0/invoke/right/method/x").await, (StatusCode::OK, "ok-TLS".to_owned()));
    assert_eq!(rig.message("/v1.0/invoke/wrong-client/method/x").await.0, 500);
    for name in ["wrong-root", "no-root"] {
        let (status, message) = rig.message(&format!("/v1.0/invoke/{name}/method/x")).await;
        assert_eq!(status, 500);
        assert!(message.contains("tls: failed to verify certificate"), "{message}");
    }
    rig.end().await;
}
