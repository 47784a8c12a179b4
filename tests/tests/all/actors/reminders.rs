//! Reminders over HTTP: registering, reading, deleting, and what the callback carries.

use std::time::{Duration, Instant};

use callboard_tests::app::App;
use callboard_tests::node::Setup;
use callboard_tests::wait::{PATIENCE, stays};
use serde_json::{Value, json};

use crate::stage::{CAT, DOG, stage, unique};

fn path(id: &str, name: &str) -> String {
    format!("/v1.0/actors/{CAT}/{id}/reminders/{name}")
}

fn callback(id: &str, name: &str) -> String {
    format!("/actors/{CAT}/{id}/method/remind/{name}")
}

/// actors/reminders/basic.go and scheduler/basic.go; actors/grpc/reminder_delivery.go's HTTP twin
#[tokio::test]
async fn a_one_shot_reminder_fires_once_with_its_data() {
    let stage = stage().await;
    let id = unique("once");
    let begun = Instant::now();
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "1s", "data": "reminderdata"})).await;
    let calls = stage.app.wait_for(1, &callback(&id, "r"), Duration::from_secs(10)).await;
    let waited = calls[0].begun - begun;
    assert!(waited >= Duration::from_millis(999), "fired after {waited:?}: early");
    assert_eq!(calls[0].method, "PUT");
    assert_eq!(calls[0].header("content-type"), Some("application/json"));
    assert_eq!(calls[0].json(), json!({"data": "reminderdata", "dueTime": "", "period": ""}));
    stays(Duration::from_secs(2), "the number of firings", 1, async || stage.app.count(&callback(&id, "r"))).await;
    stage.node.get(&path(&id, "r")).send().await.expect_error(
        404,
        "ERR_ACTOR_REMINDER_NOT_FOUND",
        "actor reminder not found: r",
    );
}

/// actors/reminders/data.go, scheduler/data.go, scheduler/hdata.go over HTTP; dapr.md 3.3
#[tokio::test]
async fn the_callback_body_is_exact_for_every_kind_of_data() {
    let stage = stage().await;
    for (registered, body) in [
        (r#"{"dueTime":"0s"}"#, r#"{"dueTime":"","period":""}"#),
        (r#"{"dueTime":"0s","data":null}"#, r#"{"data":null,"dueTime":"","period":""}"#),
        (r#"{"dueTime":"0s","data":"x"}"#, r#"{"data":"x","dueTime":"","period":""}"#),
        (r#"{"dueTime":"0s","data":{ "foo": [ 12, 4 ] }}"#, r#"{"data":{"foo":[12,4]},"dueTime":"","period":""}"#),
        (r#"{"dueTime":"0s","data":0}"#, r#"{"data":0,"dueTime":"","period":""}"#),
        (r#"{"dueTime":"0s","data":false}"#, r#"{"data":false,"dueTime":"","period":""}"#),
        (r#"{"dueTime":"0s","data":""}"#, r#"{"data":"","dueTime":"","period":""}"#),
        (r#"{"dueTime":"0s","period":null,"data":12.50}"#, r#"{"data":12.50,"dueTime":"","period":""}"#),
        (
            r#"{"reminderName":"r","dueTime":"0s","data":"cmVt","other":{"a":1}}"#,
            r#"{"data":"cmVt","dueTime":"","period":""}"#,
        ),
    ] {
        let id = unique("data");
        stage.node.put(&path(&id, "r")).body(registered).send().await.expect_empty();
        let calls = stage.app.wait_for(1, &callback(&id, "r"), PATIENCE).await;
        assert_eq!(calls[0].text(), body, "registered as {registered}");
    }
}

/// DESIGN 2.6: what the body must not carry is in headers.
#[tokio::test]
async fn each_firing_carries_its_occurrence_and_due_instant_in_headers() {
    let stage = stage().await;
    let id = unique("occurrence");
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "100ms", "period": "R3/PT0.2S"})).await;
    let calls = stage.app.wait_for(3, &callback(&id, "r"), PATIENCE).await;
    let numbers: Vec<u64> = calls
        .iter()
        .map(|call| call.header("callboard-reminder-occurrence").expect("a number").parse().expect("a number"))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    assert!(calls.iter().all(|call| call.header("callboard-reminder-due").is_some_and(|due| !due.is_empty())));
}

/// actors/reminders/duetime.go, scheduler/duetime.go over HTTP
#[tokio::test]
async fn a_due_time_of_zero_fires_at_once_and_the_period_waits() {
    let stage = stage().await;
    let id = unique("zero");
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "0s", "period": "PT1M"})).await;
    stage.app.wait_for(1, &callback(&id, "r"), Duration::from_secs(5)).await;
    stays(Duration::from_secs(2), "the number of firings", 1, async || stage.app.count(&callback(&id, "r"))).await;
    stage.node.delete(&path(&id, "r")).send().await.expect_empty();
}

/// dapr.md 2.6; actors/reminders/scheduler/get.go over HTTP
#[tokio::test]
async fn a_reminder_reads_back_as_registered_with_its_period_as_every() {
    let stage = stage().await;
    let id = unique("get");
    let body = json!({"data": "reminderdata", "dueTime": "1s", "period": "1s", "ttl": "2552-01-01T00:00:00Z"});
    stage.node.remind(CAT, &id, "r", body).await;
    let expected = json!({
        "actorID": id, "actorType": CAT, "data": "reminderdata",
        "dueTime": "1s", "period": "@every 1s", "ttl": "2552-01-01T00:00:00Z"
    });
    assert_eq!(stage.node.get(&path(&id, "r")).send().await.expect(200).json(), expected);
    // Absent members are left out; a ttl that is a duration is not shown; the count of repetitions neither.
    stage.node.remind(CAT, &id, "s", json!({"period": "R5/PT1H30M", "ttl": "10h"})).await;
    let shown = stage.node.get(&path(&id, "s")).send().await.expect(200).json();
    assert_eq!(shown, json!({"actorID": id, "actorType": CAT, "period": "@every 1h30m0s"}));
    for name in ["r", "s"] {
        stage.node.delete(&path(&id, name)).send().await.expect_empty();
    }
}

/// actors/reminders/delete.go, scheduler/remove.go over HTTP; dapr.md 2.7
#[tokio::test]
async fn a_deleted_reminder_fires_no_more_and_deleting_none_is_204() {
    let stage = stage().await;
    let id = unique("delete");
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "0s", "period": "200ms"})).await;
    stage.app.wait_for(2, &callback(&id, "r"), PATIENCE).await;
    stage.node.delete(&path(&id, "r")).send().await.expect_empty();
    // One may be under way.
    let at_most = stage.app.count(&callback(&id, "r")) + 1;
    stays(Duration::from_secs(1), "within one more firing", true, async || {
        stage.app.count(&callback(&id, "r")) <= at_most
    })
    .await;
    stage.node.get(&path(&id, "r")).send().await.expect(404);
    for name in ["r", "never"] {
        stage.node.delete(&path(&id, name)).send().await.expect_empty();
    }
    stage.node.delete(&path(&id, "r")).body("{}").send().await.expect_empty();
    stage.node.delete(&path(&id, "r")).body("{").send().await.expect(400);
}

/// dapr.md 2.5, 5.2; actors/reminders/scheduler/upsert.go over HTTP
#[tokio::test]
async fn registering_again_replaces_everything() {
    let stage = stage().await;
    let id = unique("upsert");
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "1h", "data": "old"})).await;
    stays(Duration::from_millis(1500), "the number of firings", 0, async || stage.app.count(&callback(&id, "r"))).await;
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "1s", "data": "new"})).await;
    let calls = stage.app.wait_for(1, &callback(&id, "r"), Duration::from_secs(10)).await;
    assert_eq!(calls[0].json()["data"], "new");
    stage.node.remind(CAT, &id, "r", json!({"period": "500ms"})).await;
    stage.app.wait_for(3, &callback(&id, "r"), Duration::from_secs(10)).await;
    stage.node.delete(&path(&id, "r")).send().await.expect_empty();
}

/// dapr.md 2.5
#[tokio::test]
async fn overwrite_false_refuses_an_existing_name_with_409() {
    let stage = stage().await;
    let id = unique("keep");
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "1h", "overwrite": false, "data": 1})).await;
    let again = stage.node.post(&path(&id, "r")).json(&json!({"dueTime": "2h", "overwrite": false})).send().await;
    again.expect_error(409, "ERR_ACTOR_REMINDER_ALREADY_EXISTS", "actor reminder already exists: r");
    let shown = stage.node.get(&path(&id, "r")).send().await.expect(200).json();
    assert_eq!((shown["dueTime"].as_str(), shown["data"].as_u64()), (Some("1h"), Some(1)));
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "2h", "overwrite": true})).await;
    assert_eq!(stage.node.get(&path(&id, "r")).send().await.expect(200).json()["dueTime"], "2h");
}

/// actors/reminders/specialchars.go over HTTP
#[tokio::test]
async fn unusual_names_and_ids_arrive_whole_in_the_callback_path() {
    let stage = stage().await;
    let tail = unique("s");
    for (id, name, seen) in [
        ("a", "remind%7Cme@now", "remind|me@now"),
        ("a", "remind%7C%7Cme%7C%7Cnow", "remind||me||now"),
        ("x%7C%7Cy%7Cz", "r", "r"),
        ("a", "with%20space", "with space"),
        ("a", "%C3%BC", "ü"),
    ] {
        let id = format!("{id}-{tail}");
        stage.node.remind(CAT, &id, name, json!({"dueTime": "0s"})).await;
        let wanted = format!("/actors/{CAT}/{}/method/remind/{seen}", id.replace("%7C", "|"));
        callboard_tests::wait::eventually(PATIENCE, &format!("a callback to {wanted}"), async || {
            let calls = stage.app.calls();
            let decoded = |path: &str| {
                path.replace("%7C", "|")
                    .replace("%7c", "|")
                    .replace("%40", "@")
                    .replace("%20", " ")
                    .replace("%C3%BC", "ü")
            };
            calls.iter().any(|call| decoded(&call.path) == wanted).then_some(())
        })
        .await;
    }
}

/// actors/reminders/list.go over HTTP, by actor: what belongs to one is not shown for another.
#[tokio::test]
async fn the_reminders_of_an_actor_are_listed_by_exact_id() {
    let stage = stage().await;
    let id = unique("list");
    let list = async |id: &str| -> Vec<Value> {
        let answer = stage.node.get(&format!("/v1.0/actors/{CAT}/{id}/reminders")).send().await.expect(200).json();
        let entries = answer.as_array().cloned().or_else(|| answer["reminders"].as_array().cloned());
        entries.unwrap_or_else(|| panic!("no list in {answer}"))
    };
    assert!(list(&id).await.is_empty());
    for n in 0..5 {
        stage.node.remind(CAT, &id, &format!("r{n}"), json!({"dueTime": "1h", "period": "1m", "data": n})).await;
    }
    stage.node.remind(CAT, &format!("{id}-x"), "r0", json!({"dueTime": "1h"})).await;
    stage.node.remind(DOG, &id, "r9", json!({"dueTime": "1h"})).await;
    let entries = list(&id).await;
    assert_eq!(entries.len(), 5);
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(entry["name"], format!("r{n}"));
        assert_eq!(entry["data"], n);
        assert_eq!(entry["dueTime"], "1h");
        assert_eq!(entry["period"], "@every 1m0s");
    }
    assert_eq!(list(&format!("{id}-x")).await.len(), 1);
    let prefix = &id[..id.len() - 1];
    assert!(list(prefix).await.is_empty(), "a prefix of an id is another id");
    assert_eq!(stage.app.count(&format!("/actors/{CAT}/{id}")), 0, "listing wakes nobody");
}

/// dapr.md 2.5, 2.6, 2.7
#[tokio::test]
async fn reminders_of_a_type_that_is_not_hosted_here_are_403() {
    let stage = stage().await;
    let url = "/v1.0/actors/nobody/a/reminders/r";
    let message = "operations on actor reminders are only possible on hosted actor types";
    for (verb, body) in [("POST", "{\"dueTime\":\"1h\"}"), ("PUT", "{\"dueTime\":\"1h\"}"), ("GET", ""), ("DELETE", "")]
    {
        let answer = stage.node.request(verb, url).body(body).send().await;
        answer.expect_error(403, "ERR_ACTOR_REMINDER_NON_HOSTED", message);
    }
}

/// actors/reminders/scheduler/idtypes.go on one host
#[tokio::test]
async fn each_type_and_id_fires_exactly_once() {
    let app = App::hosting(&["t0", "t1", "t2"]).await;
    let node = Setup::default().app(&app).ready().await;
    for kind in 0..3 {
        for id in 0..10 {
            node.remind(&format!("t{kind}"), &format!("i{id}"), "r", json!({"dueTime": "500ms"})).await;
        }
    }
    for kind in 0..3 {
        for id in 0..10 {
            app.wait_for(1, &format!("/actors/t{kind}/i{id}/method/remind/r"), PATIENCE).await;
        }
    }
    stays(Duration::from_secs(1), "the number of firings", 30, async || app.count_of("PUT", "/actors/")).await;
}

/// actors/reminders/scheduler/hop.go on one host
#[tokio::test]
async fn a_hundred_reminders_of_one_actor_all_fire() {
    let stage = stage().await;
    let id = unique("hundred");
    for n in 0..100 {
        stage.node.remind(CAT, &id, &format!("r{n}"), json!({"dueTime": "500ms"})).await;
    }
    let all = stage.app.wait_for(100, &format!("/actors/{CAT}/{id}/method/remind/"), PATIENCE).await;
    let mut names: Vec<_> = all.iter().map(|call| call.path.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 100);
}

/// actors/reminders/scheduler/staging.go on one node: the type is hosted when the app comes back with it.
#[tokio::test]
async fn a_reminder_of_a_type_hosted_nowhere_waits_for_a_host() {
    let app = App::hosting(&[CAT]).await;
    let port = app.port();
    let mut node = Setup::default().app(&app).ready().await;
    node.remind(CAT, "a", "r", json!({"dueTime": "1s"})).await;
    node.terminate();
    node.wait_end(PATIENCE).await;
    app.stop().await;
    let other = App::listening(json!({"entities": [DOG]}), port).await;
    node.restart_ready().await;
    stays(Duration::from_secs(3), "calls for the reminder", 0, async || other.count("/actors/")).await;
    other.stop().await;
    let app = App::listening(json!({"entities": [CAT]}), port).await;
    node.restart_ready().await;
    app.wait_for(1, "/actors/cat/a/method/remind/r", PATIENCE).await;
    stays(Duration::from_secs(1), "the number of firings", 1, async || app.count("/actors/cat/a/method/remind/r"))
        .await;
}

/// A callback that registers its own name again replaces what fires.
#[tokio::test]
async fn a_callback_may_register_its_own_name_again() {
    let stage = stage().await;
    let id = unique("again");
    let (node, url) = (stage.node.http(), path(&id, "r"));
    stage.app.on(&callback(&id, "r"), move |call| {
        let url = url.clone();
        async move {
            let round = call.json()["data"].as_u64().expect("a number");
            if round < 3 {
                let body = json!({"dueTime": "100ms", "data": round + 1});
                callboard_tests::http::request(node, "POST", &url).json(&body).send().await.expect_empty();
            }
            callboard_tests::app::Reply::ok()
        }
    });
    stage.node.remind(CAT, &id, "r", json!({"dueTime": "0s", "data": 0})).await;
    let calls = stage.app.wait_answered(4, &callback(&id, "r"), PATIENCE).await;
    let rounds: Vec<_> = calls.iter().map(|call| call.json()["data"].as_u64().expect("a number")).collect();
    assert_eq!(rounds, [0, 1, 2, 3]);
    stays(Duration::from_secs(1), "the number of firings", 4, async || stage.app.count(&callback(&id, "r"))).await;
}

/// dapr.md 4: a reminder's callback has no chain of its own to come back by.
#[tokio::test]
async fn a_reminder_callback_carries_no_reentrancy_id() {
    let stage = stage().await;
    let id = unique("nochain");
    stage.node.remind("loop", &id, "r", json!({"dueTime": "0s"})).await;
    let calls = stage.app.wait_for(1, &format!("/actors/loop/{id}/method/remind/r"), PATIENCE).await;
    assert_eq!(calls[0].header("dapr-reentrancy-id"), None);
}
