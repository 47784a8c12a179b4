//! Well-formed HTTP with bad content.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_tests::app::Reply;
use callboard_tests::http::Answer;
use callboard_tests::node::Setup;
use callboard_tests::raw::{Raw, Whole};
use callboard_tests::wait::PATIENCE;
use rand::prelude::*;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Victim;

/// Never valid, wherever they are sent: no JSON, or JSON of a shape that no request has.
const REFUSED: [&str; 21] = [
    "",
    "{",
    "[",
    "[{",
    "\"",
    "nul",
    "tru",
    "[[]]",
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
];

const MALFORMED: &str = "ERR_MALFORMED_REQUEST";

/// What has the shape of a request, with the one answer it gets: a success, or the error that says what it lacks.
const TOLERATED: [(&str, &str, u16, &str); 9] = [
    ("state", "[]", 204, ""),
    ("state", "[null]", 500, "ERR_ACTOR_STATE_TRANSACTION_SAVE"),
    ("state", "{}", 400, MALFORMED),
    ("state", "null", 400, MALFORMED),
    ("reminders/r", "[]", 400, MALFORMED),
    ("reminders/r", "{}", 500, "ERR_ACTOR_REMINDER_CREATE"),
    ("reminders/r", "null", 500, "ERR_ACTOR_REMINDER_CREATE"),
    ("timers/t", "{}", 204, ""),
    ("timers/t", "null", 204, ""),
];

fn is_refused(answer: &Answer, what: &str) {
    assert!((400..=499).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
}

fn is_answered(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    if !code.is_empty() {
        assert_eq!(answer.json()["errorCode"], code, "{what}");
    }
}

#[tokio::test]
async fn bodies_that_are_never_valid_are_400_everywhere() {
    let victim = Victim::start().await;
    victim.node.call("cat", "a", "foo").await.expect(200);
    let texts = REFUSED.iter().map(|body| body.as_bytes().to_vec());
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes();
    let deep_object = "{\"a\":".repeat(50_000).into_bytes();
    let no_text = b"[{\"operation\":\"upsert\",\"request\":{\"key\":\"\xff\xfe\",\"value\":\"\xc3\x28\"}}]".to_vec();
    for body in texts.chain([deep, deep_object, no_text, vec![0; 64], vec![0xff; 64]]) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        for path in ["state", "reminders/r", "timers/t"] {
            let answer = victim.node.post(&format!("/v1.0/actors/cat/a/{path}")).body(body.clone()).send().await;
            is_answered(&answer, 400, MALFORMED, &format!("{path} {shown}"));
        }
    }
    let ttl = "[{\"operation\":\"upsert\",\"request\":{\"key\":\"k\",\"metadata\":{\"ttlInSeconds\":{}}}}]";
    let answer = victim.node.post("/v1.0/actors/cat/a/state").body(ttl).send().await;
    is_refused(&answer, "a TTL of the wrong type");
    victim.node.get_state("cat", "a", "k").await.expect_empty();
    victim.must_be_unharmed().await;
}

#[tokio::test]
async fn bodies_that_lack_something_get_their_one_answer() {
    let victim = Victim::start().await;
    victim.node.call("cat", "a", "foo").await.expect(200);
    for (path, body, status, code) in TOLERATED {
        let answer = victim.node.post(&format!("/v1.0/actors/cat/a/{path}")).body(body).send().await;
        is_answered(&answer, status, code, &format!("{path} {body}"));
    }
    let long = format!("{{\"dueTime\":\"{}\"}}", "9".repeat(100_000));
    for (path, code) in [("reminders/r", "ERR_ACTOR_REMINDER_CREATE"), ("timers/t", "ERR_ACTOR_TIMER_CREATE")] {
        let answer = victim.node.post(&format!("/v1.0/actors/cat/a/{path}")).body(long.clone()).send().await;
        is_answered(&answer, 500, code, &format!("{path} with a due time of 100,000 digits"));
    }
    // A body of a DELETE is looked at for reminders alone.
    for (path, status) in [("state", 404), ("reminders/r", 400), ("timers/t", 204)] {
        let answer = victim.node.delete(&format!("/v1.0/actors/cat/a/{path}")).body("{").send().await;
        is_answered(&answer, status, "", &format!("DELETE {path}"));
    }
    victim.must_be_unharmed().await;
}

/// A value nested deeper than a parser's stack allows is a value all the same, and so is one of megabytes.
#[tokio::test]
async fn deep_and_large_values_are_stored_as_they_are() {
    let victim = Victim::start().await;
    victim.node.call("cat", "a", "foo").await.expect(200);
    let deep = [10, 127, 128, 1_000, 100_000].map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    for value in deep.into_iter().chain([format!("\"{}\"", "x".repeat(3_500_000))]) {
        let what = format!("{} bytes", value.len());
        let body = format!("[{{\"operation\":\"upsert\",\"request\":{{\"key\":\"k\",\"value\":{value}}}}}]");
        let answer = victim.node.post("/v1.0/actors/cat/a/state").body(body).send().await;
        is_answered(&answer, 204, "", &what);
        assert!(victim.node.get_state("cat", "a", "k").await.expect(200).text() == value, "{what}");
    }
    victim.must_be_unharmed().await;
}

#[tokio::test]
async fn giant_names_and_keys_are_refused() {
    let victim = Victim::start().await;
    let roomy = Setup::default().app(&victim.app).arg("--read-buffer-size=256Ki").ready().await;
    victim.node.call("cat", "a", "foo").await.expect(200);
    for length in [5_000, 60_000] {
        let name = "x".repeat(length);
        let named = [
            ("GET", format!("/v1.0/actors/cat/{name}/state/k")),
            ("GET", format!("/v1.0/actors/{name}/a/state/k")),
            ("POST", format!("/v1.0/actors/cat/{name}/method/a")),
            ("POST", format!("/v1.0/actors/cat/a/reminders/{name}")),
            ("GET", format!("/cluster/v1/state?key={name}")),
        ];
        for (method, url) in &named {
            let answer = roomy.request(method, url).body("{\"dueTime\":\"1h\"}").send().await;
            is_answered(&answer, 400, "ERR_BAD_REQUEST", &format!("{method} with {length}"));
        }
        let unbounded = [
            ("GET", format!("/v1.0/actors/cat/a/state/{name}")),
            ("POST", format!("/v1.0/actors/cat/a/method/{name}")),
            ("GET", format!("/v1.0/invoke/myapp/method/{name}")),
            ("GET", format!("/v1.0/invoke/{name}/method/a")),
            ("PUT", format!("/v1.0/metadata/{name}")),
        ];
        // A head over the buffer is refused, or cut while it is still being sent.
        for (method, url) in named.iter().chain(&unbounded) {
            if let Ok(answer) = victim.node.request(method, url).body("x").try_send().await {
                is_refused(&answer, &format!("{method} with {length}"));
            }
        }
    }
    for length in [5_000, 60_000, 3_000_000] {
        let operations = json!([{"operation": "upsert", "request": {"key": "k".repeat(length), "value": 1}}]);
        let answer = victim.node.post("/v1.0/actors/cat/a/state").json(&operations).send().await;
        is_answered(&answer, 400, "ERR_BAD_REQUEST", &format!("a key of {length}"));
    }
    let operations: Vec<_> =
        (0..20_000).map(|n| json!({"operation": "upsert", "request": {"key": format!("k{n}"), "value": n}})).collect();
    let answer = victim.node.post("/v1.0/actors/cat/a/state").json(&operations).send().await;
    is_answered(&answer, 400, "ERR_BAD_REQUEST", "twenty thousand operations");
    drop(roomy);
    victim.must_be_unharmed().await;
}

/// What names something is checked; what is only looked up (a timer, an app, a label) is not there, or is only text.
#[tokio::test]
async fn nul_and_traversal_in_names_are_refused_and_never_reach_the_app() {
    let victim = Victim::start().await;
    let before = victim.app.calls().len();
    let send = async |method: &str, url: &str| {
        (victim.node.request(method, url).body("{\"dueTime\":\"1h\"}").send().await, format!("{method} {url}"))
    };
    for bad in
        ["%00", "a%00b", "..%2F..%2Fetc%2Fpasswd", "%2e%2e%2f", "..", "%5c..%5c", "a%0d%0aX:%20y", "%ff%fe", "%c0%af"]
    {
        for (method, url) in [
            ("GET", format!("/v1.0/actors/{bad}/a/state/k")),
            ("GET", format!("/v1.0/actors/cat/{bad}/state/k")),
            ("POST", format!("/v1.0/actors/cat/{bad}/reminders/r")),
            ("POST", format!("/v1.0/actors/cat/a/reminders/{bad}")),
            ("DELETE", format!("/v1.0/actors/cat/{bad}")),
            ("GET", format!("/v1.0/actors/cat/{bad}/reminders")),
            ("GET", format!("/cluster/v1/state?key={bad}")),
            ("GET", format!("/cluster/v1/state?prefix={bad}&limit=-1")),
            ("GET", format!("/cluster/v1/actors?type={bad}&limit=99999999999999999999&after={bad}")),
        ] {
            let (answer, what) = send(method, &url).await;
            is_refused(&answer, &what);
        }
        let is_text = !["%ff%fe", "%c0%af"].contains(&bad);
        let (answer, what) = send("DELETE", &format!("/v1.0/actors/cat/a/timers/{bad}")).await;
        is_answered(&answer, if is_text { 204 } else { 400 }, "", &what);
        let (answer, what) = send("PUT", &format!("/v1.0/metadata/{bad}")).await;
        let label = match bad {
            ".." => 404,
            _ if is_text => 204,
            _ => 400,
        };
        is_answered(&answer, label, "", &what);
        let (answer, what) = send("GET", &format!("/v1.0/invoke/{bad}/method/a")).await;
        is_answered(&answer, 500, "ERR_DIRECT_INVOKE", &what);
    }
    // An escaped percent sign is one: the name is `a%00`, of four plain characters.
    let (answer, what) = send("POST", "/v1.0/actors/cat/a%2500/reminders/r").await;
    is_answered(&answer, 204, "", &what);
    assert_eq!(victim.app.calls().len(), before);
    victim.must_be_unharmed().await;
}

/// How many random requests are sent; more by `CALLBOARD_RANDOM_REQUESTS`.
const RANDOM_REQUESTS: usize = 1_500;
/// Some wait for a host or a name that nobody has: they wait side by side.
const AT_A_TIME: usize = 250;

/// A request by chance: words that mean something to one route or another, and words that mean nothing anywhere.
fn random_request(random: &mut StdRng) -> String {
    const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"];
    const WORDS: [&str; 24] = [
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
    const ROUTES: [&str; 12] = [
        "/v1.0/actors/cat/a",
        "/v1.0/actors/cat/a/state",
        "/v1.0/actors/cat/a/method",
        "/v1.0/actors/cat/a/method/k",
        "/v1.0/actors/cat/a/reminders",
        "/v1.0/actors/cat/a/reminders/k",
        "/v1.0/actors/cat/a/timers",
        "/v1.0/actors/cat/a/timers/k",
        "/v1.0/invoke/myapp/method",
        "/v1.0/metadata",
        "/v1.0/healthz",
        "/cluster/v1",
    ];
    const BODIES: [&str; 4] =
        ["", "{}", "{\"dueTime\":\"1h\"}", "[{\"operation\":\"upsert\",\"request\":{\"key\":\"k\",\"value\":1}}]"];
    const PIECES: [&str; 17] = [
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
    // Not a target that is nowhere: looking for it takes seconds.
    const TARGETS: [&str; 5] = ["myapp", "a.b.c", "myapp.default", "..", "%00"];
    fn some(random: &mut StdRng, from: &[&'static str]) -> &'static str {
        from.choose(random).expect("not empty")
    }
    let (mut path, words) = match random.random_bool(0.6) {
        true => (some(random, &ROUTES).to_owned(), random.random_range(0..3)),
        false => (String::new(), random.random_range(1..8)),
    };
    for _ in 0..words {
        path.push('/');
        path.push_str(some(random, &WORDS));
    }
    let body: String = match random.random_bool(0.3) {
        true => some(random, &BODIES).to_owned(),
        false => (0..random.random_range(0..12)).map(|_| some(random, &PIECES)).collect(),
    };
    let target = match random.random_bool(0.2) {
        true => format!("dapr-app-id: {}\r\n", some(random, &TARGETS)),
        false => String::new(),
    };
    let (method, length) = (some(random, &METHODS), body.len());
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n{target}\r\n{body}"
    )
}

/// What the node itself answers has a meaning and a form; what the app answers is the app's.
fn is_an_answer(answer: &Whole, what: &str) {
    if answer.header("x-of") == Some("app") {
        return;
    }
    let text = String::from_utf8_lossy(&answer.body);
    let kind = answer.header("content-type").unwrap_or_default();
    match answer.status {
        200 | 204 => {}
        // Its answers have no body to look at.
        400 | 404 | 500 if what.starts_with("HEAD ") => {}
        // dapr.md 0.1: an escape that is none is told in plain words.
        400 if kind.starts_with("text/plain") => {
            assert!(text.contains("invalid URL escape") || text.contains("invalid UTF-8"), "{what}: {text}");
        }
        // 409: a DELETE of an actor whose turn runs.
        400 | 404 | 409 | 500 => {
            assert!(kind.starts_with("application/json"), "{what}: {} of {kind:?}: {text}", answer.status);
            let error: Value =
                serde_json::from_slice(&answer.body).unwrap_or_else(|why| panic!("{what}: {why}: {text}"));
            for part in ["errorCode", "message"] {
                assert!(error[part].as_str().is_some_and(|part| !part.is_empty()), "{what}: no {part}: {text}");
            }
        }
        other => panic!("{what}: {other}: {text}"),
    }
}

/// Random methods, paths, headers and bodies by a printed seed: each gets one answer in good form, and an actor that none
/// of them names is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn random_requests_are_answered() {
    let victim = Victim::start().await;
    victim.app.on("/", async |call| {
        let known = call.path.starts_with("/actors/");
        Reply::status(if known { 200 } else { 404 }).header("x-of", "app")
    });
    victim.node.call("cat", "keeper", "foo").await.expect(200);
    victim.node.put_state("cat", "keeper", "k", json!({"kept": [1, 2, 3]})).await.expect_empty();
    victim.node.remind("cat", "keeper", "r", json!({"dueTime": "10h", "data": "kept"})).await;

    let count =
        std::env::var("CALLBOARD_RANDOM_REQUESTS").map_or(RANDOM_REQUESTS, |count| count.parse().expect("a number"));
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut sent = JoinSet::new();
    let mut statuses = BTreeMap::<u16, usize>::new();
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    for _ in 0..count {
        let request = random_request(&mut random);
        let (to, places) = (victim.node.http(), places.clone());
        sent.spawn(async move {
            let _place = places.acquire().await.expect("never closed");
            let answer = Raw::connect(to).await.exchange(request.as_bytes(), PATIENCE).await;
            (answer, request)
        });
    }
    while let Some(answered) = sent.join_next().await {
        let (answer, request) = answered.expect("sent");
        let answer = answer.unwrap_or_else(|why| panic!("{request:?}: {why}"));
        is_an_answer(&answer, &request);
        *statuses.entry(answer.status).or_default() += 1;
    }
    println!("{statuses:?}");
    // Not one big refusal.
    assert!([200, 204, 400, 404, 500].iter().all(|status| statuses.contains_key(status)), "{statuses:?}");

    assert_eq!(victim.app.count("/actors/cat/keeper/"), 1);
    victim.node.call("cat", "keeper", "bar").await.expect(200);
    assert_eq!(victim.app.count("/actors/cat/keeper/"), 2);
    assert_eq!(victim.node.get_state("cat", "keeper", "k").await.expect(200).json(), json!({"kept": [1, 2, 3]}));
    let reminder = victim.node.get("/v1.0/actors/cat/keeper/reminders/r").send().await.expect(200).json();
    assert_eq!(reminder["data"], "kept");
    victim.must_be_unharmed().await;
}
