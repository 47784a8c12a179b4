//! Normalisation of the method, and random methods that must come through.

use callboard_tests::node::{Node, Setup};
use rand::prelude::*;

use super::{echoing_body, echoing_path};

async fn invoke(node: &Node, method: &str) -> (u16, String) {
    let answer = node.get(&format!("/v1.0/invoke/myapp/method/{method}")).send().await;
    (answer.status, answer.text())
}

fn decoded(text: &str) -> String {
    [("%22", "\""), ("%2A", "*"), ("%2a", "*"), ("%5C", "\\"), ("%5c", "\\"), ("%3B", ";"), ("%3b", ";")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// daprd/serviceinvocation/http/reservedchars/pathcorrectness.go; dapr.md 1.2
#[tokio::test]
async fn forbidden_characters_of_a_method_are_500_and_never_reach_the_app() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    for method in ["test%23stream", "test%3Fstream", "test%00stream", "test%0Dstream", "test%7Fstream", "a%23b%3Fc%25d"]
    {
        let answer = node.get(&format!("/v1.0/invoke/myapp/method/{method}")).send().await;
        answer.expect_error(
            500,
            "ERR_DIRECT_INVOKE",
            "failed to invoke, id: myapp, err: rpc error: code = InvalidArgument desc = invalid method: method contains ",
        );
    }
    // A bare percent sign is allowed in a method but makes no URL.
    node.get("/v1.0/invoke/myapp/method/test%25stream").send().await.expect(500);
    node.get("/test%23stream").header("dapr-app-id", "myapp").send().await.expect(500);
    assert_eq!(app.count("/test") + app.count("/a"), 0);
}

/// daprd/serviceinvocation/http/reservedchars/pathcorrectness.go
#[tokio::test]
async fn allowed_characters_and_traversal_arrive_resolved() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    for (method, seen) in [
        ("test%22stream", "/test\"stream|"),
        ("test\"stream", "/test\"stream|"),
        ("test%2Astream", "/test*stream|"),
        ("test*stream", "/test*stream|"),
        ("test%5Cstream", "/test\\stream|"),
        ("test\\stream", "/test\\stream|"),
        ("test;stream", "/test;stream|"),
        ("admin%2F..%2Fpublic", "/public|"),
        ("a/../b", "/b|"),
        ("./a", "/a|"),
        ("a//b", "/a/b|"),
        ("test?stream", "/test|stream"),
    ] {
        let (status, body) = invoke(&node, method).await;
        assert_eq!((status, decoded(&body).as_str()), (200, seen), "{method}");
    }
    for (path, seen) in
        [("/mymethod", "/mymethod|"), ("/admin/../public", "/public|"), ("/admin%2F..%2Fpublic", "/public|")]
    {
        let answer = node.get(path).header("dapr-app-id", "myapp").send().await.expect(200);
        assert_eq!(answer.text(), seen, "{path}");
    }
}

/// dapr.md 1.2: leading traversal is dropped.
#[tokio::test]
async fn a_method_cannot_climb_above_the_apps_root() {
    let app = echoing_path().await;
    let node = Setup::default().app(&app).ready().await;
    for method in ["..%2F..%2Fsecret", "%2E%2E%2Fsecret"] {
        assert_eq!(invoke(&node, method).await, (200, "/secret|".to_owned()), "{method}");
    }
}

/// daprd/serviceinvocation/http/fuzz.go
#[tokio::test]
async fn random_requests_come_back_as_they_were_in_both_forms() {
    const ROUNDS: usize = 300;
    const PATH: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/[]@!$'()+,=";
    const NAME: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-._~";
    const VALUE: &[u8] = b"abcABC0189_ :;.,\\/\"'?!(){}[]@<>=-+*#$&`|~^%";
    const QUERY: &[u8] = b"abcABC0189-._~:/[]@!$'()*+,=&";
    let app = echoing_body().await;
    let node = Setup::default().app(&app).ready().await;
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    let text = |random: &mut StdRng, from: &[u8], upto: usize| -> String {
        let length = random.random_range(1..upto);
        (0..length).map(|_| char::from(*from.choose(random).expect("not empty"))).collect()
    };
    for round in 0..ROUNDS {
        // A segment begins and ends with a letter, so that none is `.` or `..`; a leading one names no scheme.
        let method: Vec<String> = (0..random.random_range(1..6))
            .map(|_| format!("a{}z", text(&mut random, PATH, 20).replace([':', '/'], "-")))
            .collect();
        let method = method.join("/");
        let query = text(&mut random, QUERY, 40);
        let mut body = vec![0; random.random_range(0..100)];
        random.fill_bytes(&mut body);
        let (name, value) = (format!("x-{}", text(&mut random, NAME, 40)), text(&mut random, VALUE, 60));
        for (url, by_header) in
            [(format!("/v1.0/invoke/myapp/method/{method}?{query}"), false), (format!("/{method}?{query}"), true)]
        {
            let mut request = node
                .post(&url)
                .header("content-type", "application/octet-stream")
                .header(&name, &value)
                .body(body.clone());
            if by_header {
                request = request.header("dapr-app-id", "myapp");
            }
            let answer = request.send().await;
            assert_eq!(answer.status, 200, "seed {seed} round {round}: {url}: {}", answer.text());
            assert_eq!(answer.body, body, "seed {seed} round {round}: {url}");
            let seen = app.calls().pop().expect("a call");
            assert_eq!(seen.query.as_deref(), Some(query.as_str()), "seed {seed} round {round}");
            assert_eq!(seen.header(&name).map(str::trim), Some(value.trim()), "seed {seed} round {round}");
        }
    }
}
