//! Invocation of what is outside: URLs in the target's place and HTTPEndpoint resources.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use callboard_tests::app::{App, Reply};
use callboard_tests::node::Setup;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

fn endpoint(name: &str, spec: &str) -> String {
    format!("apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata:\n  name: {name}\nspec:\n{spec}")
}

async fn outside() -> App {
    let outside = App::plain().await;
    outside.on("/", async |call| Reply::ok().body(format!("{}|{}", call.path, call.query.unwrap_or_default())));
    outside
}

/// daprd/serviceinvocation/http/httpendpoints.go: the URL form; dapr.md 1.1, 1.11
#[tokio::test]
async fn a_url_in_the_targets_place_is_called_directly() {
    let outside = outside().await;
    let node = Setup::default().ready().await;
    let port = outside.port();
    for target in [
        format!("http://localhost:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("http:%2F%2F127.0.0.1:{port}"),
        format!("http%3A%2F%2F127.0.0.1%3A{port}"),
    ] {
        let answer = node.get(&format!("/v1.0/invoke/{target}/method/hello/x?a=1")).send().await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert_eq!(answer.text(), "/hello/x|a=1", "{target}");
    }
    let answer = node.get("/hello").header("dapr-app-id", &format!("http://127.0.0.1:{port}")).send().await.expect(200);
    assert_eq!(answer.text(), "/hello|");
    for call in outside.calls() {
        for name in [
            "dapr-caller-app-id",
            "dapr-callee-app-id",
            "x-forwarded-for",
            "x-forwarded-host",
            "forwarded",
            "dapr-app-id",
        ] {
            assert_eq!(call.header(name), None, "{name} went outside");
        }
    }
}

/// dapr.md 1.5: the URL form does not follow redirects.
/// daprd/serviceinvocation/http/redirect.go: a client that does arrives.
#[tokio::test]
async fn a_redirect_of_a_url_target_is_the_callers_to_follow() {
    let outside = App::plain().await;
    let goal = format!("http://127.0.0.1:{}/goal", outside.port());
    let to = goal.clone();
    outside.on("/start", move |_| {
        let reply = Reply::status(301).header("location", &to);
        async { reply }
    });
    outside.answers("/goal", 200, "arrived");
    let node = Setup::default().ready().await;
    let answer =
        node.get(&format!("/v1.0/invoke/http://127.0.0.1:{}/method/start", outside.port())).send().await.expect(301);
    assert_eq!(answer.header("location"), Some(goal.as_str()));
    assert_eq!(outside.count("/goal"), 0);
    let followed = callboard_tests::http::request(outside.address, "GET", "/goal").send().await.expect(200);
    assert_eq!(followed.text(), "arrived");
}

/// daprd/serviceinvocation/http/httpendpoints.go: the named form; dapr.md 1.11
#[tokio::test]
async fn a_named_endpoint_is_called_with_its_headers_and_listed_in_metadata() {
    let outside = outside().await;
    outside.on("/base/moved", async |_| Reply::status(302).header("location", "/base/goal"));
    let spec = format!(
        "  baseUrl: http://127.0.0.1:{}/base\n  headers:\n  - name: x-own\n    value: set\n  - name: X-Kept\n    value: over\n",
        outside.port()
    );
    let node = Setup::default()
        .resource("one.yaml", &endpoint("shop", &spec))
        .resource("two.yaml", &endpoint("bank", "  baseUrl: http://127.0.0.1:1\n"))
        .ready()
        .await;
    let metadata = node.metadata().await;
    let mut names: Vec<_> = metadata["httpEndpoints"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["name"].as_str().expect("a name"))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["bank", "shop"]);
    let answer =
        node.post("/v1.0/invoke/shop/method/hello?a=1").header("x-kept", "mine").body("b").send().await.expect(200);
    assert_eq!(answer.text(), "/base/hello|a=1");
    let call = outside.calls_to("/base/hello").pop().expect("a call");
    assert_eq!(call.header("x-own"), Some("set"));
    assert_eq!(call.header("x-kept"), Some("over"));
    assert_eq!(call.header("dapr-caller-app-id"), None);
    // Its own client follows redirects.
    assert_eq!(node.get("/v1.0/invoke/shop/method/moved").send().await.expect(200).text(), "/base/goal|");
    let begun = std::time::Instant::now();
    node.get("/v1.0/invoke/bank/method/hello").send().await.expect_error(
        500,
        "ERR_DIRECT_INVOKE",
        "failed to invoke, id: bank, err: ",
    );
    assert!(begun.elapsed().as_secs() < 3, "a refused connection is not retried");
}

/// dapr.md 12: scopes and namespaces choose who sees a resource.
#[tokio::test]
async fn a_resource_for_others_is_not_loaded() {
    let scoped = format!("{}scopes:\n- other\n", endpoint("theirs", "  baseUrl: http://127.0.0.1:1\n"));
    let own = format!("{}scopes:\n- myapp\n", endpoint("ours", "  baseUrl: http://127.0.0.1:1\n"));
    let unknown = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: redis\nspec:\n  type: pubsub.redis\n  version: v1\n";
    let both = format!("{own}---\n{unknown}");
    let node = Setup::default().resource("one.yaml", &scoped).resource("two.yaml", &both).ready().await;
    assert_eq!(node.metadata().await["httpEndpoints"], serde_json::json!([{"name": "ours"}]));
}

/// daprd/serviceinvocation/http/sse.go: through an endpoint
#[tokio::test]
async fn ten_events_of_an_endpoint_arrive() {
    let outside = App::plain().await;
    outside.on("/events", async |_| {
        let (reply, sender) = Reply::ok().header("content-type", "text/event-stream").stream();
        tokio::spawn(async move {
            for n in 0..10 {
                sender.send(Bytes::from(format!("data: {n}\n\n"))).await.expect("the node reads on");
            }
        });
        reply
    });
    let spec = format!("  baseUrl: http://127.0.0.1:{}\n", outside.port());
    let node = Setup::default().resource("one.yaml", &endpoint("feed", &spec)).ready().await;
    let answer =
        node.get("/v1.0/invoke/feed/method/events").header("accept", "text/event-stream").send().await.expect(200);
    assert_eq!(answer.text().matches("data: ").count(), 10);
}

/// A server that demands a certificate of the same issuer.
struct Tls {
    address: SocketAddr,
    root: String,
    certificate: String,
    key: String,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn tls() -> Tls {
    let issuer = issuer("callboard test root");
    let (server, server_key) = leaf(&issuer);
    let (client, client_key) = leaf(&issuer);
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).expect("a root of our own");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("a verifier");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], server_key.serialize_der().try_into().expect("a key"))
        .expect("a server configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A refused client is what one of the tests is about.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(async |_: Request<Incoming>| {
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from_static(b"ok-TLS")).boxed()))
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Tls { address, root: issuer.pem(), certificate: client.pem(), key: client_key.serialize_pem(), accepting }
}

fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root")
}

fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    (certificate, key)
}

fn tls_spec(address: SocketAddr, root: Option<&str>, pair: Option<(&str, &str)>) -> String {
    let value = |name: &str, pem: &str| {
        let lines: Vec<_> = pem.lines().map(|line| format!("        {line}")).collect();
        format!("    {name}:\n      value: |\n{}\n", lines.join("\n"))
    };
    let mut spec = format!("  baseUrl: https://localhost:{}\n", address.port());
    if root.is_some() || pair.is_some() {
        spec += "  clientTLS:\n";
    }
    if let Some(root) = root {
        spec += &value("rootCA", root);
    }
    if let Some((certificate, key)) = pair {
        spec += &value("certificate", certificate);
        spec += &value("privateKey", key);
    }
    spec
}

/// daprd/serviceinvocation/http/httpendpoints.go and daprd/httpendpoints/{rootca,pki}.go: TLS both ways, with material
/// given in place and in a secret store
#[tokio::test]
async fn an_endpoint_with_client_pki_is_reached_and_one_with_a_strange_certificate_is_500() {
    let tls = tls().await;
    let stranger = issuer("somebody else");
    let (wrong, wrong_key) = leaf(&stranger);
    let (wrong, wrong_key) = (wrong.pem(), wrong_key.serialize_pem());
    let secrets = serde_json::json!({"root": tls.root, "pair": {"certificate": tls.certificate, "key": tls.key}});
    let setup = Setup::default();
    let file = setup.home().join("secrets.json");
    std::fs::write(&file, secrets.to_string()).expect("write the secrets");
    let settings = format!("[{{name: secretsFile, value: {}}}, {{name: multiValued, value: true}}]", file.display());
    let by_name = format!(
        "  baseUrl: https://localhost:{}\n  clientTLS:\n    rootCA:\n      secretKeyRef: {{name: root}}\n    certificate:\n      secretKeyRef: {{name: pair, key: certificate}}\n    privateKey:\n      secretKeyRef: {{name: pair, key: key}}\nauth: {{secretStore: file}}\n",
        tls.address.port()
    );
    let node = setup
        .resource("file.yaml", &secret_store("file", "local.file", &settings))
        .resource("secret.yaml", &endpoint("secret", &by_name))
        .resource(
            "good.yaml",
            &endpoint("good", &tls_spec(tls.address, Some(&tls.root), Some((&tls.certificate, &tls.key)))),
        )
        .resource("wrong.yaml", &endpoint("wrong", &tls_spec(tls.address, Some(&tls.root), Some((&wrong, &wrong_key)))))
        .resource(
            "distrust.yaml",
            &endpoint("distrust", &tls_spec(tls.address, None, Some((&tls.certificate, &tls.key)))),
        )
        .ready()
        .await;
    for name in ["good", "secret"] {
        let answer = node.get(&format!("/v1.0/invoke/{name}/method/a")).send().await.expect(200);
        assert_eq!(answer.text(), "ok-TLS", "{name}");
    }
    let answer = node.get("/v1.0/invoke/wrong/method/a").send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "failed to invoke, id: wrong, err: ");
    assert_eq!(node.error_count("ERR_DIRECT_INVOKE").await, 1);
    let answer = node.get("/v1.0/invoke/distrust/method/a").send().await;
    answer.expect_error(500, "ERR_DIRECT_INVOKE", "failed to verify certificate");
}

fn secret_store(name: &str, kind: &str, metadata: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: secretstores.{kind}\n  version: v1\n  metadata: {metadata}\n"
    )
}

/// dapr.md 12: headers by `secretKeyRef`, from the stores that this machine can hold.
#[tokio::test]
async fn headers_of_an_endpoint_come_from_a_secret_store() {
    let outside = outside().await;
    let headers = |name: &str, store: &str, headers: &str| {
        let spec = format!("  baseUrl: http://127.0.0.1:{}\n  headers:\n{headers}", outside.port());
        format!("{}auth:\n  secretStore: {store}\n", endpoint(name, &spec))
    };
    let by_env = "  - name: authorization\n    secretKeyRef:\n      name: SHOP_TOKEN\n      key: SHOP_TOKEN\n";
    let by_file = "  - name: x-user\n    secretKeyRef:\n      name: shop:user\n      key: shop:user\n  - name: x-own\n    value: set\n";
    let setup = Setup::default();
    let file = setup.home().join("secrets.json");
    std::fs::write(&file, r#"{"shop": {"user": "hobbit"}}"#).expect("write the secrets");
    let settings = format!("[{{name: secretsFile, value: {}}}]", file.display());
    let node = setup
        .env("SHOP_TOKEN", "Bearer of the environment")
        // A store may stand in a later file than those who ask it.
        .resource("1.yaml", &headers("by-env", "env", by_env))
        .resource("2.yaml", &headers("by-file", "file", by_file))
        .resource("3.yaml", &secret_store("env", "local.env", "[]"))
        .resource("4.yaml", &secret_store("file", "local.file", &settings))
        .ready()
        .await;
    node.get("/v1.0/invoke/by-env/method/a").header("authorization", "mine").send().await.expect(200);
    assert_eq!(outside.calls_to("/a")[0].header("authorization"), Some("Bearer of the environment"));
    node.get("/v1.0/invoke/by-file/method/b").send().await.expect(200);
    let call = &outside.calls_to("/b")[0];
    assert_eq!((call.header("x-user"), call.header("x-own")), (Some("hobbit"), Some("set")));
}

/// An endpoint without its secret is known by its name and calls nobody: what it says is what it lacks, at once.
#[tokio::test]
async fn an_endpoint_that_lacks_a_secret_is_listed_and_refuses_calls() {
    let outside = outside().await;
    let reference = "  headers:\n  - name: authorization\n    secretKeyRef:\n      name: SHOP_TOKEN\n";
    let spec = format!("  baseUrl: http://127.0.0.1:{}\n{reference}", outside.port());
    let node = Setup::default()
        .resource("one.yaml", &endpoint("storeless", &spec))
        .resource("two.yaml", &format!("{}auth:\n  secretStore: env\n", endpoint("unset", &spec)))
        .resource("env.yaml", &secret_store("env", "local.env", "[]"))
        .ready()
        .await;
    let names = serde_json::json!([{"name": "storeless"}, {"name": "unset"}]);
    assert_eq!(node.metadata().await["httpEndpoints"], names);
    for (name, why) in [("storeless", "names no auth.secretStore"), ("unset", "store \"env\" has no text")] {
        let begun = std::time::Instant::now();
        let answer = node.get(&format!("/v1.0/invoke/{name}/method/a")).header("authorization", "mine").send().await;
        let answer = answer.expect_error(500, "ERR_DIRECT_INVOKE", why);
        let message = answer.json()["message"].as_str().expect("a message").to_owned();
        let start = format!("failed to invoke, id: {name}, err: the endpoint lacks a secret: header \"authorization\"");
        assert!(message.starts_with(&start), "{message}");
        assert!(begun.elapsed().as_secs() < 3, "what is missing is not looked for again");
    }
    assert_eq!(outside.calls().len(), 0);
}
