//! `GET /cluster/v1/state?prefix=` over more rows than one answer may look at.

use callboard_tests::app::App;
use callboard_tests::http::{Session, request};
use callboard_tests::node::{Node, Setup};
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};

use super::state::encode;
use crate::stage::CAT;

const ACTORS: usize = 105;
/// Keys of one actor, written in one transaction; as many rows are in one page.
const KEYS: usize = 1_000;
/// Rows that one answer looks at (`ingress/http/admin.rs`): fewer than there are.
const VISITED: usize = 100_000;
const _: () = assert!(ACTORS * KEYS > VISITED);

/// Of several lengths, so that their order is not the order of their numbers; all of them before `a||z`.
fn id(n: usize) -> String {
    format!("a{:x}", n * n * 7)
}

fn row(id: &str, key: &str) -> String {
    format!("myapp||cat||{id}||{key}")
}

/// Writes all rows; gives their keys in order.
async fn filled(node: &Node) -> Vec<String> {
    let keys: Vec<_> = (0..KEYS).map(|n| format!("k{n}")).collect();
    let operation = |key: &String| json!({"operation": "upsert", "request": {"key": key, "value": key}});
    let operations = Value::from_iter(keys.iter().map(operation));
    let write = async |n: usize| {
        node.call(CAT, &id(n), "foo").await.expect(200);
        node.post(&format!("/v1.0/actors/{CAT}/{}/state", id(n))).json(&operations).send().await.expect_empty();
    };
    stream::iter(0..ACTORS).map(write).buffer_unordered(8).collect::<Vec<_>>().await;
    // A neighbour on each side, which the prefix leaves out.
    for (kind, id) in [("bat", "a1"), ("dog", "a1")] {
        node.call(kind, id, "foo").await.expect(200);
        node.put_state(kind, id, "k", json!(1)).await.expect_empty();
    }
    // Rows are in the order of type, id and key.
    let mut rows: Vec<_> = (0..ACTORS).flat_map(|n| keys.iter().map(move |key| (id(n), key))).collect();
    rows.sort();
    rows.into_iter().map(|(id, key)| row(&id, key)).collect()
}

/// One page: its lines.
async fn page(session: &mut Session, node: &Node, prefix: &str, limit: usize, after: &str) -> Vec<Value> {
    let url = format!("/cluster/v1/state?prefix={}&limit={limit}&after={after}", encode(prefix));
    let answer = session.send(request(node.http(), "GET", &url)).await.expect("an answer").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.text().lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_hundred_thousand_rows_are_exported_once_each_and_in_order() {
    let app = App::hosting(&["bat", CAT, "dog"]).await;
    let node = Setup::default().app(&app).arg("--partitions=3").ready().await;
    let expected = filled(&node).await;
    let mut session = Session::new(node.http());

    let mut seen = Vec::with_capacity(expected.len());
    let (mut after, mut resumed) = (String::new(), String::new());
    loop {
        let lines = page(&mut session, &node, "myapp||cat||", 1_000, &after).await;
        assert!(lines.len() <= 1_000);
        let Some(last) = lines.last() else { break };
        after = text(last, "cursor").to_owned();
        for line in &lines {
            assert_eq!(text(line, "value"), text(line, "stateKey"));
            seen.push(text(line, "key").to_owned());
        }
        assert!(seen.len() <= expected.len(), "pages repeat themselves");
        if resumed.is_empty() {
            resumed = text(&lines[345], "cursor").to_owned();
        }
    }
    if let Some(at) = (0..expected.len()).find(|at| seen.get(*at) != Some(&expected[*at])) {
        panic!("row {at} is {:?}, not {:?}", seen.get(at), expected[at]);
    }

    // From the middle of a page, of another size.
    let lines = page(&mut session, &node, "myapp||cat||", 700, &resumed).await;
    assert!(lines.iter().map(|line| text(line, "key")).eq(&expected[346..346 + 700]));

    // The only row of this prefix stands behind all others: one answer says how far it has come, the next one has it.
    node.call(CAT, "a%7C%7Cz", "foo").await.expect(200);
    node.put_state(CAT, "a%7C%7Cz", "last", json!(1)).await.expect_empty();
    let lines = page(&mut session, &node, "myapp||cat||a||z", 1_000, "").await;
    let [more] = lines.as_slice() else { panic!("{} lines", lines.len()) };
    assert_eq!((&more["more"], more.get("key")), (&json!(true), None));
    let lines = page(&mut session, &node, "myapp||cat||a||z", 1_000, text(more, "cursor")).await;
    let [last] = lines.as_slice() else { panic!("{} lines", lines.len()) };
    assert_eq!(text(last, "key"), row("a||z", "last"));
}
