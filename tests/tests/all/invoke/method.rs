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

/// What `%XX` stands for, once.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = text.iter();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(*digit).to_digit(16)).expect("an escape");
            decoded.push((digit() * 16 + digit()) as u8);
        } else {
            decoded.push(*byte);
        }
    }
    decoded
}

/// The names of a path as an app reads them: cut at its slashes, then decoded.
fn names(path: &[u8]) -> Vec<String> {
    path.split(|byte| *byte == b'/').map(|name| percent_decoded(name).escape_ascii().to_string()).collect()
}

/// The path that the app is to see, decoded, by dapr.md 1.2 alone; `None` for a method that no app is to see.
fn expected_path(method: &str) -> Option<Vec<u8>> {
    let method = percent_decoded(method.as_bytes());
    if method.iter().any(|byte| b"#?".contains(byte) || byte.is_ascii_control()) {
        return None;
    }
    // Cleaned from its end, so that a `..` takes the name before it; those left over at the front are dropped.
    let (mut names, mut climbs) = (Vec::new(), 0);
    for name in method.split(|byte| *byte == b'/').rev() {
        match name {
            b"" | b"." => {}
            b".." => climbs += 1,
            _ if climbs > 0 => climbs -= 1,
            name => names.push(name),
        }
    }
    names.reverse();
    let path = [b"/".as_slice(), &names.join(&b'/')].concat();
    // What is left of an escaped percent sign must be an escape itself, or there is no URL of it.
    let escapes = path.split(|byte| *byte == b'%').skip(1);
    let mut whole = escapes.map(|rest| rest.iter().take(2).filter(|digit| digit.is_ascii_hexdigit()).count() == 2);
    whole.all(|whole| whole).then_some(path)
}

#[test]
fn the_expected_path_follows_the_table_of_the_specification() {
    for (method, path) in [
        ("a/../b", Some("/b")),
        ("./a", Some("/a")),
        ("a//b", Some("/a/b")),
        ("..%2f../../x/y/..", Some("/x")),
        ("..", Some("/")),
        ("a/b/../../../c", Some("/c")),
        ("a%2Fb/../c%3a", Some("/a/c:")),
        ("%22*\\;", Some("/\"*\\;")),
        ("a%2541", Some("/a%41")),
        ("a%25", None),
        ("a%25zz", None),
        ("a%23b", None),
        ("a%3Fb", None),
        ("a%00", None),
        ("a%7f", None),
    ] {
        assert_eq!(expected_path(method).as_deref(), path.map(str::as_bytes), "{method}");
    }
}

/// daprd/serviceinvocation/http/fuzz.go, with escapes and dots besides: what the app sees is the normal form of the
/// method, and query, header and body as they were.
#[tokio::test]
async fn random_requests_come_back_as_they_were_in_both_forms() {
    const ROUNDS: usize = 300;
    const PATH: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/[]@!$'()+,=";
    const NAME: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-._~";
    const VALUE: &[u8] = b"abcABC0189_ :;.,\\/\"'?!(){}[]@<>=-+*#$&`|~^%";
    const QUERY: &[u8] = b"abcABC0189-._~:/[]@!$'()*+,=&";
    // The last two are escapes of escapes: who decodes twice climbs.
    const HARMLESS: [&str; 12] =
        ["%2F", "%2f", "%2e", "%2E%2E%2F", "%3A", "%22", "%5C", "%20", "%C3%A9", "%ff", "%252F", "%252e%252e%252F"];
    const REFUSED: [&str; 6] = ["%23", "%3F", "%00", "%0a", "%7F", "%25"];
    let app = echoing_body().await;
    let node = Setup::default().app(&app).ready().await;
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    let text = |random: &mut StdRng, from: &[u8], upto: usize| -> String {
        let length = random.random_range(1..upto);
        (0..length).map(|_| char::from(*from.choose(random).expect("not empty"))).collect()
    };
    let mut refused = 0;
    for round in 0..ROUNDS {
        // The first and the last character are no slash: where the method begins is not the question here. A `..` that
        // is not escaped has a name before it, or it would climb out of the URL that says what is to be invoked.
        let mut method = String::from("a");
        for _ in 0..random.random_range(0..6) {
            match random.random_range(0..10) {
                0 => method.push_str("//"),
                1 => method.push_str("/./"),
                2 => method.push_str("/b/../"),
                3 => method.push_str("/%2E%2E/"),
                4 | 5 => method.push_str(HARMLESS.choose(&mut random).expect("not empty")),
                6 if random.random_bool(0.4) => method.push_str(REFUSED.choose(&mut random).expect("not empty")),
                _ => method.push_str(&text(&mut random, PATH, 20)),
            }
        }
        method.push('z');
        let expected = expected_path(&method);
        refused += usize::from(expected.is_none());
        let query = text(&mut random, QUERY, 40);
        let mut body = vec![0; random.random_range(0..100)];
        random.fill_bytes(&mut body);
        let (name, value) = (format!("x-{}", text(&mut random, NAME, 40)), text(&mut random, VALUE, 60));
        for (url, by_header) in
            [(format!("/v1.0/invoke/myapp/method/{method}?{query}"), false), (format!("/{method}?{query}"), true)]
        {
            let what = format!("seed {seed} round {round}: {url}");
            let mut request = node
                .post(&url)
                .header("content-type", "application/octet-stream")
                .header(&name, &value)
                .body(body.clone());
            if by_header {
                request = request.header("dapr-app-id", "myapp");
            }
            app.forget_calls();
            let answer = request.send().await;
            let calls = app.calls();
            let Some(expected) = &expected else {
                assert_eq!((answer.status, calls.len()), (500, 0), "{what}");
                assert_eq!(answer.json()["errorCode"], "ERR_DIRECT_INVOKE", "{what}");
                continue;
            };
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            assert_eq!(answer.body, body, "{what}");
            let [seen] = calls.as_slice() else { panic!("{what}: {} calls", calls.len()) };
            assert_eq!(names(seen.path.as_bytes()), names(expected), "{what}");
            assert_eq!(seen.query.as_deref(), Some(query.as_str()), "{what}");
            assert_eq!(seen.header(&name).map(str::trim), Some(value.trim()), "{what}");
        }
    }
    assert!(refused > 0 && refused < ROUNDS / 2, "seed {seed}: {refused} of {ROUNDS} methods are refused");
}
