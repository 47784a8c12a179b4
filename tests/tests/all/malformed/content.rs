//! Well-formed HTTP with bad content.

use callboard_tests::http::Answer;
use serde_json::json;

use super::Victim;

const BODIES: [&str; 26] = [
    "",
    "{",
    "[",
    "[{",
    "\"",
    "nul",
    "tru",
    "{}",
    "[]",
    "[null]",
    "[[]]",
    "null",
    "true",
    "0",
    "1e999",
    "-",
    "\"\\u12\"",
    "\"\\ud800\"",
    "{\"dueTime\":{}}",
    "{\"dueTime\":[]}",
    "{\"dueTime\":1e400}",
    "{\"data\":\"x\",\"dueTime\":\"1s\"",
    "[{\"operation\":[],\"request\":{}}]",
    "[{\"operation\":\"upsert\",\"request\":[]}]",
    "[{\"operation\":\"upsert\",\"request\":{\"key\":1}}]",
    "[{\"operation\":\"upsert\",\"request\":{\"key\":\"k\",\"metadata\":{\"ttlInSeconds\":{}}}}]",
];

/// Every answer is one: a success, a refusal of the client or the listed 500s, in time.
fn is_an_answer(answer: &Answer, what: &str) {
    assert!((200..=500).contains(&answer.status), "{what}: {}", answer.status);
    if answer.status == 500 {
        assert!(answer.json()["errorCode"].is_string(), "{what}: {}", answer.text());
    }
}

#[tokio::test]
async fn bad_bodies_of_every_kind_are_answered() {
    let victim = Victim::start().await;
    victim.node.call("cat", "a", "foo").await.expect(200);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = "{\"a\":".repeat(50_000);
    let long = format!("{{\"dueTime\":\"{}\"}}", "9".repeat(100_000));
    let invalid = [
        b"[{\"operation\":\"upsert\",\"request\":{\"key\":\"\xff\xfe\",\"value\":\"\xc3\x28\"}}]".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
    ];
    for path in ["state", "reminders/r", "timers/t"] {
        let url = format!("/v1.0/actors/cat/a/{path}");
        let texts = BODIES.iter().map(|body| body.as_bytes().to_vec());
        let large = [deep.as_bytes(), deep_object.as_bytes(), long.as_bytes()].map(<[u8]>::to_vec);
        for body in texts.chain(large).chain(invalid.clone()) {
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let answer = victim.node.post(&url).body(body).send().await;
            is_an_answer(&answer, &format!("{path} {shown}"));
        }
        victim.node.delete(&url).body("{").send().await;
    }
    for name in ["r", "t"] {
        victim.node.delete(&format!("/v1.0/actors/cat/a/reminders/{name}")).send().await;
        victim.node.delete(&format!("/v1.0/actors/cat/a/timers/{name}")).send().await;
    }
    victim.must_be_unharmed().await;
}

/// A value nested deeper than a parser's stack allows is a value all the same, or refused.
#[tokio::test]
async fn deeply_nested_values_do_no_harm() {
    let victim = Victim::start().await;
    victim.node.call("cat", "a", "foo").await.expect(200);
    for depth in [10, 100, 127, 128, 1000, 100_000] {
        let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!("[{{\"operation\":\"upsert\",\"request\":{{\"key\":\"k\",\"value\":{value}}}}}]");
        let answer = victim.node.post("/v1.0/actors/cat/a/state").body(body).send().await;
        is_an_answer(&answer, &format!("depth {depth}"));
        if depth <= 100 {
            assert_eq!(answer.status, 204);
            assert_eq!(victim.node.get_state("cat", "a", "k").await.expect(200).text(), value);
        }
    }
    victim.must_be_unharmed().await;
}

#[tokio::test]
async fn giant_names_and_keys_are_answered() {
    let victim = Victim::start().await;
    victim.node.call("cat", "a", "foo").await.expect(200);
    for length in [1_000, 3_000, 60_000] {
        let name = "x".repeat(length);
        for (method, url) in [
            ("GET", format!("/v1.0/actors/cat/{name}/state/k")),
            ("GET", format!("/v1.0/actors/{name}/a/state/k")),
            ("GET", format!("/v1.0/actors/cat/a/state/{name}")),
            ("POST", format!("/v1.0/actors/cat/a/method/{name}")),
            ("GET", format!("/v1.0/invoke/myapp/method/{name}")),
            ("GET", format!("/v1.0/invoke/{name}/method/a")),
            ("PUT", format!("/v1.0/metadata/{name}")),
            ("GET", format!("/cluster/v1/state?key={name}")),
        ] {
            // A head over the buffer may be cut instead of answered.
            if let Ok(answer) = victim.node.request(method, &url).body("x").try_send().await {
                is_an_answer(&answer, &format!("{method} with {length}"));
            }
        }
        let operations = json!([{"operation": "upsert", "request": {"key": name, "value": 1}}]);
        let answer = victim.node.post("/v1.0/actors/cat/a/state").json(&operations).send().await;
        is_an_answer(&answer, &format!("a key of {length}"));
    }
    let key = "k".repeat(3_000_000);
    let operations = json!([{"operation": "upsert", "request": {"key": key, "value": 1}}]);
    let answer = victim.node.post("/v1.0/actors/cat/a/state").json(&operations).send().await;
    is_an_answer(&answer, "a key of three megabytes");
    let operations: Vec<_> =
        (0..20_000).map(|n| json!({"operation": "upsert", "request": {"key": format!("k{n}"), "value": n}})).collect();
    let answer = victim.node.post("/v1.0/actors/cat/a/state").json(&operations).send().await;
    is_an_answer(&answer, "twenty thousand operations");
    victim.must_be_unharmed().await;
}

#[tokio::test]
async fn nul_and_traversal_in_names_are_answered_and_never_reach_the_app() {
    let victim = Victim::start().await;
    let before = victim.app.calls().len();
    for bad in [
        "%00",
        "a%00b",
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e%2f",
        "..",
        "%5c..%5c",
        "a%0d%0aX:%20y",
        "%ff%fe",
        "%c0%af",
        "a%2500",
    ] {
        for (method, url) in [
            ("GET", format!("/v1.0/actors/{bad}/a/state/k")),
            ("GET", format!("/v1.0/actors/cat/{bad}/state/k")),
            ("POST", format!("/v1.0/actors/cat/{bad}/reminders/r")),
            ("POST", format!("/v1.0/actors/cat/a/reminders/{bad}")),
            ("DELETE", format!("/v1.0/actors/cat/a/timers/{bad}")),
            ("DELETE", format!("/v1.0/actors/cat/{bad}")),
            ("GET", format!("/v1.0/actors/cat/{bad}/reminders")),
            ("PUT", format!("/v1.0/metadata/{bad}")),
            ("GET", format!("/cluster/v1/state?key={bad}")),
            ("GET", format!("/cluster/v1/state?prefix={bad}&limit=-1")),
            ("GET", format!("/cluster/v1/actors?type={bad}&limit=99999999999999999999&after={bad}")),
            ("GET", format!("/v1.0/invoke/{bad}/method/a")),
        ] {
            let answer = victim.node.request(method, &url).body("{\"dueTime\":\"1h\"}").send().await;
            is_an_answer(&answer, &format!("{method} {url}"));
        }
    }
    assert_eq!(victim.app.calls().len(), before);
    victim.must_be_unharmed().await;
}

/// Random bodies and paths by a printed seed.
#[tokio::test]
async fn random_requests_are_answered() {
    use rand::prelude::*;
    let victim = Victim::start().await;
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    let words = [
        "v1.0",
        "actors",
        "cat",
        "a",
        "state",
        "reminders",
        "timers",
        "method",
        "invoke",
        "myapp",
        "metadata",
        "cluster",
        "v1",
        "..",
        ".",
        "",
        "%2F",
        "%",
        "%zz",
        "%00",
        "||",
        "healthz",
        "outbound",
        "k",
    ];
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "\"dueTime\"",
        ":",
        ",",
        "\"1s\"",
        "null",
        "\"operation\"",
        "\"upsert\"",
        "\"request\"",
        "\"key\"",
        "-1",
        "\\",
        "\u{0}",
        "é",
    ];
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"];
    for round in 0..1_500 {
        let path: String = (0..random.random_range(0..8))
            .map(|_| format!("/{}", words.choose(&mut random).expect("a word")))
            .collect();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        if path.contains("shutdown") {
            continue;
        }
        let body: String =
            (0..random.random_range(0..12)).map(|_| *pieces.choose(&mut random).expect("a piece")).collect();
        let method = methods.choose(&mut random).expect("a method");
        let mut request = victim.node.request(method, &path).body(body);
        if random.random_bool(0.2) {
            // Not one that is nowhere: looking for it takes seconds.
            let target = ["myapp", "", "a.b.c", "myapp.default", "..", "%00"].choose(&mut random).expect("a target");
            request = request.header("dapr-app-id", target);
        }
        let answer = request
            .try_send()
            .await
            .unwrap_or_else(|error| panic!("seed {seed} round {round}: {method} {path}: {error}"));
        // The answer to HEAD has no body to look at.
        if *method != "HEAD" {
            is_an_answer(&answer, &format!("seed {seed} round {round}: {method} {path}"));
        }
    }
    victim.must_be_unharmed().await;
}
