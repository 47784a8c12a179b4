//! Well-formed HTTP with bad content.

use callboard_tests::http::Answer;
use callboard_tests::node::Setup;
use serde_json::json;

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

/// For what is drawn at random: a success, a refusal of the client or one of the listed 500s.
fn is_an_answer(answer: &Answer, what: &str) {
    assert!((200..=500).contains(&answer.status), "{what}: {}", answer.status);
    if answer.status == 500 {
        assert!(answer.json()["errorCode"].is_string(), "{what}: {}", answer.text());
    }
}

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
