//! `DELETE /v1.0/actors/{type}/{id}` and `GET /cluster/v1/actors`.

use std::sync::Arc;

use callboard_tests::app::{App, Reply};
use callboard_tests::node::{Node, Setup};
use callboard_tests::wait::{Gate, PATIENCE};
use serde_json::{Value, json};

use crate::stage::{CAT, at, stage, unique};

/// State and reminders go in one commit, after the app has been told.
#[tokio::test]
async fn deleting_an_actor_deletes_its_state_and_its_reminders() {
    let stage = stage().await;
    let id = unique("delete");
    stage.node.call(CAT, &id, "foo").await.expect(200);
    for key in ["a", "b", "c||d"] {
        stage.node.put_state(CAT, &id, key, json!(key)).await.expect_empty();
    }
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "1s"})).await;
    stage.node.remind(CAT, &id, "s", json!({"dueTime": "1h"})).await;
    stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}")).send().await.expect_empty();
    for key in ["a", "b", "c%7C%7Cd"] {
        stage.node.get_state(CAT, &id, key).await.expect_empty();
    }
    for name in ["r", "s"] {
        stage.node.get(&format!("/v1.0/actors/{CAT}/{id}/reminders/{name}")).send().await.expect(404);
    }
    assert_eq!(stage.app.count_of("DELETE", &format!("/actors/{CAT}/{id}")), 1, "its activation has ended");
    let quiet = std::time::Duration::from_millis(1500);
    callboard_tests::wait::stays(quiet, "firings", 0, async || {
        stage.app.count(&format!("/actors/{CAT}/{id}/method/remind"))
    })
    .await;
    // It always exists: the next call finds it empty.
    stage.node.call(CAT, &id, "foo").await.expect(200);
    stage.node.get_state(CAT, &id, "a").await.expect_empty();
}

/// An actor that has nothing, or is not active, is deleted all the same.
#[tokio::test]
async fn deleting_what_is_not_there_is_204_and_calls_no_app() {
    let stage = stage().await;
    let id = unique("nothing");
    for _ in 0..2 {
        stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}")).send().await.expect_empty();
    }
    assert_eq!(stage.app.count(&format!("/actors/{CAT}/{id}")), 0);
}

/// DESIGN 2.4: 409 while a turn runs.
#[tokio::test]
async fn an_actor_is_not_deleted_while_a_turn_runs() {
    let stage = stage().await;
    let id = unique("running");
    let gate = Arc::new(Gate::closed());
    let door = gate.clone();
    stage.app.on(&at(CAT, &id), move |_| {
        let door = door.clone();
        async move {
            door.enter().await;
            Reply::ok()
        }
    });
    let call = tokio::spawn(stage.node.post(&format!("/v1.0/actors/{CAT}/{id}/method/foo")).send());
    stage.app.wait_for(1, &at(CAT, &id), PATIENCE).await;
    stage.node.put_state(CAT, &id, "k", json!(1)).await.expect_empty();
    stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}")).send().await.expect(409);
    gate.open();
    call.await.expect("sent").expect(200);
    stage.node.get_state(CAT, &id, "k").await.expect(200);
    stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}")).send().await.expect_empty();
    stage.node.get_state(CAT, &id, "k").await.expect_empty();
}

/// All entries over all pages.
async fn list(node: &Node, query: &str, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let url = format!("/cluster/v1/actors?limit={limit}{query}{after}");
        let page = node.get(&url).send().await.expect(200).json();
        let entries = page["actors"].as_array().unwrap_or_else(|| panic!("no actors in {page}")).clone();
        assert!(entries.len() <= limit, "{} entries with limit {limit}", entries.len());
        all.extend(entries);
        match page.get("next").and_then(Value::as_str) {
            Some(next) => {
                after = format!(
                    "&after={}",
                    next.replace('%', "%25").replace('|', "%7C").replace('&', "%26").replace('+', "%2B")
                )
            }
            None => return all,
        }
    }
}

/// DESIGN: a prefix is of the id, whatever the type.
#[tokio::test]
async fn a_prefix_without_a_type_lists_the_ids_of_every_type_that_begin_so() {
    let app = App::hosting(&[CAT, "dog"]).await;
    let node = Setup::default().app(&app).ready().await;
    for n in 0..5 {
        for (kind, id) in [(CAT, format!("a{n}")), (CAT, format!("b{n}")), ("dog", format!("c{n}"))] {
            node.call(kind, &id, "foo").await.expect(200);
            node.put_state(kind, &id, "food", json!(n)).await.expect_empty();
        }
        node.remind("dog", &format!("b{n}"), "walk", json!({"dueTime": "1h"})).await;
    }
    let names = |entries: Vec<Value>| {
        let name = |entry: &Value| [&entry["type"], &entry["id"]].map(|part| part.as_str().expect("a text").to_owned());
        entries.iter().map(name).collect::<Vec<_>>()
    };
    let of = |kind: &str, letter: char| (0..5).map(|n| [kind.to_owned(), format!("{letter}{n}")]).collect::<Vec<_>>();
    for limit in [1, 3, 100] {
        assert_eq!(names(list(&node, "&prefix=b", limit).await), [of(CAT, 'b'), of("dog", 'b')].concat());
        assert_eq!(names(list(&node, "&prefix=c", limit).await), of("dog", 'c'));
        assert_eq!(names(list(&node, "&prefix=d", limit).await), Vec::<[String; 2]>::new());
    }
}

/// What has state or reminders is listed with its keys, by type and prefix, page by page, and nothing wakes.
#[tokio::test]
async fn actors_with_state_or_reminders_are_listed_without_waking_them() {
    let app = App::hosting(&[CAT, "dog"]).await;
    let mut node = Setup::default().app(&app).ready().await;
    for n in 0..30 {
        let id = format!("p{}-{n:02}", n % 3);
        node.call(CAT, &id, "foo").await.expect(200);
        node.put_state(CAT, &id, "food", json!(n)).await.expect_empty();
        node.put_state(CAT, &id, "mood", json!(n)).await.expect_empty();
    }
    node.remind(CAT, "only-reminder", "r", json!({"dueTime": "1h"})).await;
    node.remind("dog", "rex", "walk", json!({"dueTime": "1h"})).await;
    node.call(CAT, "stateless", "foo").await.expect(200);
    // Nothing is active after this.
    node.restart_ready().await;
    app.forget_calls();
    let ids = |entries: &[Value]| {
        let mut ids: Vec<_> = entries.iter().map(|entry| entry["id"].as_str().expect("an id").to_owned()).collect();
        ids.sort();
        ids
    };
    for limit in [1, 7, 1000] {
        let cats = list(&node, "&type=cat", limit).await;
        assert_eq!(cats.len(), 31, "limit {limit}");
        let names = ids(&cats);
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "an actor is listed twice");
        assert!(!names.contains(&"stateless".to_owned()));
    }
    assert_eq!(ids(&list(&node, "&type=cat&prefix=p1-", 4).await).len(), 10);
    let rex = list(&node, "&type=dog", 10).await;
    assert_eq!(rex.len(), 1);
    assert_eq!(rex[0]["type"], "dog");
    assert_eq!((&rex[0]["keys"], &rex[0]["reminders"]), (&json!([]), &json!(1)));
    let one = list(&node, "&type=cat&prefix=p0-00", 10).await;
    assert_eq!((&one[0]["keys"], &one[0]["reminders"]), (&json!(["food", "mood"]), &json!(0)));
    assert_eq!(list(&node, "", 5).await.len(), 32);
    // The instances that the app still held from before have got their DELETE, which wakes nobody.
    assert_eq!(app.count_of("PUT", "/actors/"), 0, "listing wakes nobody");
    assert_eq!(node.active(CAT).await, 0);
}
