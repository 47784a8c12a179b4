//! `GET /cluster/v1/state`: the outside query of the seed.

use callboard_tests::app::App;
use callboard_tests::node::{Node, Setup};
use serde_json::{Value, json};

use crate::stage::CAT;

pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

async fn node_with_state() -> (App, Node) {
    let app = App::hosting(&[CAT, "dog"]).await;
    let node = Setup::default().app(&app).ready().await;
    node.call(CAT, "hobbit", "foo").await.expect(200);
    node.put_state(CAT, "hobbit", "food", json!("ants")).await.expect_empty();
    (app, node)
}

#[tokio::test]
async fn a_full_key_gives_value_and_expiry() {
    let (_app, node) = node_with_state().await;
    let answer = node
        .get(&format!("/cluster/v1/state?key={}", encode("myapp||cat||hobbit||food")))
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(answer["value"], "ants");
    assert!(answer.get("expiresAt").is_none(), "{answer}");
    let with =
        json!([{"operation": "upsert", "request": {"key": "t", "value": 1, "metadata": {"ttlInSeconds": "3600"}}}]);
    node.post("/v1.0/actors/cat/hobbit/state").json(&with).send().await.expect_empty();
    let answer =
        node.get(&format!("/cluster/v1/state?key={}", encode("myapp||cat||hobbit||t"))).send().await.expect(200).json();
    assert_eq!(answer["value"], 1);
    let shown = node.get_state(CAT, "hobbit", "t").await.expect(200);
    let expiry = answer["expiresAt"].as_str();
    let expiry = chrono::DateTime::parse_from_rfc3339(expiry.expect("an expiry")).expect("RFC 3339");
    let header = shown.header("metadata.ttlExpireTime").expect("shown");
    assert_eq!(expiry.timestamp(), chrono::DateTime::parse_from_rfc3339(header).expect("RFC 3339").timestamp());
    for key in ["myapp||cat||hobbit||none", "myapp||cat||nobody||food", "other||cat||hobbit||food"] {
        node.get(&format!("/cluster/v1/state?key={}", encode(key))).send().await.expect(404);
    }
    for query in ["", "?key=nonsense", "?key=a%7C%7Cb", "?limit=5"] {
        let status = node.get(&format!("/cluster/v1/state{query}")).send().await.status;
        assert_eq!(status, 400, "{query}");
    }
}

#[tokio::test]
async fn parts_that_contain_bars_are_given_one_by_one() {
    let (_app, node) = node_with_state().await;
    let id = "a%7C%7Cb";
    node.call(CAT, id, "foo").await.expect(200);
    node.put_state(CAT, id, "c||d", json!("odd")).await.expect_empty();
    let url = format!("/cluster/v1/state?type=cat&id={id}&key={}", encode("c||d"));
    assert_eq!(node.get(&url).send().await.expect(200).json()["value"], "odd");
    let url = "/cluster/v1/state?type=cat&id=hobbit&key=food";
    assert_eq!(node.get(url).send().await.expect(200).json()["value"], "ants");
}

/// An app id may contain bars like any other part; `||` then separates more than four.
#[tokio::test]
async fn an_app_id_that_contains_bars_is_shown_and_found_by_parts_and_by_prefix() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::new("a||b").app(&app).ready().await;
    node.call(CAT, "hobbit", "foo").await.expect(200);
    node.put_state(CAT, "hobbit", "food", json!("ants")).await.expect_empty();
    let answer = node.get("/cluster/v1/state?type=cat&id=hobbit&key=food").send().await.expect(200).json();
    assert_eq!((&answer["key"], &answer["value"]), (&json!("a||b||cat||hobbit||food"), &json!("ants")));
    node.get(&format!("/cluster/v1/state?key={}", encode("a||b||cat||hobbit||food"))).send().await.expect(400);
    for (prefix, found) in [("a||b||cat||", 1), ("a||", 1), ("a||b||cat||hobbit||f", 1), ("a||cat||", 0), ("b||", 0)] {
        let url = format!("/cluster/v1/state?prefix={}", encode(prefix));
        assert_eq!(node.get(&url).send().await.expect(200).text().lines().count(), found, "{prefix}");
    }
}

/// Pages as JSON lines; `after` goes on where a page ended.
#[tokio::test]
async fn a_prefix_pages_through_all_partitions_as_json_lines() {
    let (_app, node) = node_with_state().await;
    let mut expected = vec!["myapp||cat||hobbit||food".to_owned()];
    for n in 0..40 {
        let id = format!("c{n:02}");
        node.call(CAT, &id, "foo").await.expect(200);
        for key in ["x", "y"] {
            node.put_state(CAT, &id, key, json!({"n": n})).await.expect_empty();
            expected.push(format!("myapp||cat||{id}||{key}"));
        }
    }
    node.call("dog", "rex", "foo").await.expect(200);
    node.put_state("dog", "rex", "x", json!(1)).await.expect_empty();
    expected.sort();
    for limit in [3, 17, 1000] {
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let url = format!("/cluster/v1/state?prefix={}&limit={limit}{after}", encode("myapp||cat||"));
            let text = node.get(&url).send().await.expect(200).text();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
            assert!(lines.len() <= limit);
            let Some(last) = lines.last() else { break };
            after = format!("&after={}", encode(last["cursor"].as_str().expect("a cursor on each line")));
            seen.extend(lines.iter().map(|line| line["key"].as_str().expect("a key").to_owned()));
            assert!(seen.len() <= expected.len(), "pages repeat themselves");
        }
        seen.sort();
        assert_eq!(seen, expected, "limit {limit}");
    }
    let url = format!("/cluster/v1/state?prefix={}&limit=100", encode("myapp||cat||c07||"));
    assert_eq!(node.get(&url).send().await.expect(200).text().lines().count(), 2);
}
