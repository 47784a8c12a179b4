//! Actor state: transactions, reads, TTL.

use std::time::Duration;

use callboard_tests::wait::{PATIENCE, eventually};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::stage::{CAT, stage, unique};

const SAVE: &str = "ERR_ACTOR_STATE_TRANSACTION_SAVE";

/// An actor that has had a turn, and so may write.
async fn active(prefix: &str) -> String {
    let id = unique(prefix);
    stage().await.node.call(CAT, &id, "wake").await.expect(200);
    id
}

async fn write(id: &str, operations: Value) -> callboard_tests::http::Answer {
    stage().await.node.post(&format!("/v1.0/actors/{CAT}/{id}/state")).json(&operations).send().await
}

/// actors/state/http.go (twin of grpc.go), actors/state/empty.go
#[tokio::test]
async fn an_unset_key_of_an_active_actor_is_204() {
    let stage = stage().await;
    let id = active("unset").await;
    stage.node.get_state(CAT, &id, "none").await.expect_empty();
}

/// dapr.md 2.4
#[tokio::test]
async fn a_read_needs_neither_an_activation_nor_a_hosted_type() {
    let stage = stage().await;
    stage.node.get_state(CAT, &unique("asleep"), "none").await.expect_empty();
    stage.node.get_state("nobody", "a", "none").await.expect_empty();
}

/// actors/state/http.go (twin of grpc.go): inactive
#[tokio::test]
async fn a_write_to_an_actor_that_is_not_active_is_refused() {
    let stage = stage().await;
    let id = unique("inactive");
    let answer = write(&id, json!([{"operation": "upsert", "request": {"key": "k", "value": 1}}])).await;
    answer.expect_error(400, "ERR_ACTOR_INSTANCE_MISSING", "actor instance is missing");
    stage.node.get_state(CAT, &id, "k").await.expect_empty();
    assert_eq!(stage.app.count(&format!("/actors/{CAT}/{id}")), 0, "a write does not wake an actor");
}

/// dapr.md 2.3, 2.4, 6
#[tokio::test]
async fn what_is_written_is_read_back_as_compact_json() {
    let stage = stage().await;
    let id = active("values").await;
    for value in [
        json!("value1"),
        json!(0),
        json!(false),
        json!(-1.5e10),
        json!([12, 4]),
        json!({"food": {"a": [1, null]}}),
        json!("ü \u{1F408} \"quoted\" \\ "),
        json!(""),
    ] {
        write(&id, json!([{"operation": "upsert", "request": {"key": "k", "value": value}}])).await.expect_empty();
        let answer = stage.node.get_state(CAT, &id, "k").await.expect(200);
        assert_eq!(answer.json(), value);
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let body = r#"[ { "operation" : "upsert" , "request" : { "key" : "k" , "value" : { "foo" : [ 12, 4 ] } } } ]"#;
    // As .NET sends it: no JSON content type.
    let path = format!("/v1.0/actors/{CAT}/{id}/state");
    stage.node.put(&path).header("content-type", "text/plain").body(body).send().await.expect_empty();
    assert_eq!(stage.node.get_state(CAT, &id, "k").await.expect(200).text(), r#"{"foo":[12,4]}"#);
}

/// dapr.md 2, 2.3, 6: operations take effect in the order given, in one commit.
#[tokio::test]
async fn operations_of_a_transaction_apply_in_order() {
    let stage = stage().await;
    let id = active("order").await;
    let operations = json!([
        {"operation": "upsert", "request": {"key": "a", "value": 1}},
        {"operation": "upsert", "request": {"key": "a", "value": 2}},
        {"operation": "upsert", "request": {"key": "b", "value": 3}},
        {"operation": "delete", "request": {"key": "b", "value": {"old": true}}},
        {"operation": "delete", "request": {"key": "never"}},
        {"operation": "upsert", "request": {"key": "c", "value": "c", "etag": "1", "metadata": {"partitionKey": "x"}}}
    ]);
    write(&id, operations).await.expect_empty();
    assert_eq!(stage.node.get_state(CAT, &id, "a").await.expect(200).text(), "2");
    stage.node.get_state(CAT, &id, "b").await.expect_empty();
    assert_eq!(stage.node.get_state(CAT, &id, "c").await.expect(200).text(), "\"c\"");
}

/// dapr.md 2.3: any failure leaves nothing written.
#[tokio::test]
async fn a_refused_transaction_writes_nothing() {
    let stage = stage().await;
    let id = active("refused").await;
    let good = json!({"operation": "upsert", "request": {"key": "good", "value": 1}});
    for (bad, message) in [
        (json!({"operation": "upsert", "request": {"key": "", "value": 1}}), "missing key"),
        (json!({"operation": "upsert", "request": {"value": 1}}), "missing key"),
        (json!({"operation": "delete", "request": {"key": ""}}), "missing key"),
        (json!({"operation": "upsert"}), "request data is empty"),
        (json!({"operation": "", "request": {"key": "k"}}), "operation is empty"),
        (json!({"request": {"key": "k"}}), "operation is empty"),
        (json!({"operation": "increment", "request": {"key": "k"}}), "operation type increment not supported"),
    ] {
        let answer = write(&id, json!([good, bad])).await;
        answer.expect_error(500, SAVE, &format!("error saving actor transaction state: {message}"));
        stage.node.get_state(CAT, &id, "good").await.expect_empty();
    }
    write(&id, json!([])).await.expect_empty();
}

/// dapr.md 2.3
#[tokio::test]
async fn a_transaction_that_is_not_json_is_400() {
    let stage = stage().await;
    let id = active("notjson").await;
    let path = format!("/v1.0/actors/{CAT}/{id}/state");
    for body in ["", "{", "[{]", "\"text\"", "{}", "12", "[1]", "[{\"operation\":1}]"] {
        let answer = stage.node.post(&path).body(body).send().await;
        answer.expect_error(400, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: ");
    }
}

/// actors/http/ttl.go (actors/grpc/ttl.go's twin)
#[tokio::test]
async fn a_key_with_a_ttl_shows_its_expiry_and_is_gone_after_it() {
    let stage = stage().await;
    let id = active("ttl").await;
    let begun = Utc::now();
    let operations = json!([
        {"operation": "upsert", "request": {"key": "short", "value": "v", "metadata": {"ttlInSeconds": "2"}}},
        {"operation": "upsert", "request": {"key": "long", "value": "v"}}
    ]);
    write(&id, operations).await.expect_empty();
    let answer = stage.node.get_state(CAT, &id, "short").await.expect(200);
    assert_eq!(answer.text(), "\"v\"");
    let expiry = answer.header("metadata.ttlExpireTime").expect("the expiry is shown");
    let expiry = DateTime::parse_from_rfc3339(expiry).expect("an RFC 3339 instant").to_utc();
    let off = (expiry - begun).num_milliseconds() - 2000;
    assert!(off.abs() <= 1000, "the expiry is {off} ms from two seconds after the write");
    assert!(stage.node.get_state(CAT, &id, "long").await.expect(200).header("metadata.ttlExpireTime").is_none());
    eventually(Duration::from_secs(5), "the key is gone", async || {
        let answer = stage.node.get_state(CAT, &id, "short").await;
        (answer.status == 204).then(|| answer.expect_empty())
    })
    .await;
    assert!(Utc::now() >= begun + chrono::Duration::seconds(2), "gone before its time");
    stage.node.get_state(CAT, &id, "long").await.expect(200);
}

/// dapr.md 6
#[tokio::test]
async fn a_write_without_ttl_clears_the_old_one() {
    let stage = stage().await;
    let id = active("clear").await;
    let with = json!([{"operation": "upsert", "request": {"key": "k", "value": 1, "metadata": {"ttlInSeconds": "1"}}}]);
    write(&id, with).await.expect_empty();
    stage.node.put_state(CAT, &id, "k", json!(2)).await.expect_empty();
    assert!(stage.node.get_state(CAT, &id, "k").await.expect(200).header("metadata.ttlExpireTime").is_none());
    let witness =
        json!([{"operation": "upsert", "request": {"key": "w", "value": 1, "metadata": {"ttlInSeconds": "1"}}}]);
    write(&id, witness).await.expect_empty();
    eventually(PATIENCE, "the witness is gone", async || {
        (stage.node.get_state(CAT, &id, "w").await.status == 204).then_some(())
    })
    .await;
    assert_eq!(stage.node.get_state(CAT, &id, "k").await.expect(200).text(), "2");
}

/// dapr.md 6
#[tokio::test]
async fn a_ttl_of_zero_or_less_never_expires_and_one_that_is_no_integer_is_refused() {
    let stage = stage().await;
    let id = active("ttlvalue").await;
    let operation = |ttl: &str| json!([{"operation": "upsert", "request": {"key": "k", "value": 1, "metadata": {"ttlInSeconds": ttl}}}]);
    for ttl in ["0", "-1"] {
        write(&id, operation(ttl)).await.expect_empty();
        assert!(stage.node.get_state(CAT, &id, "k").await.expect(200).header("metadata.ttlExpireTime").is_none());
    }
    for ttl in ["soon", "1.5"] {
        write(&id, operation(ttl)).await.expect_error(500, SAVE, "error saving actor transaction state: ");
    }
}

/// dapr.md 6: keys of the general state API's rules do not apply.
#[tokio::test]
async fn a_state_key_may_contain_bars_and_unicode() {
    let stage = stage().await;
    let id = active("bars").await;
    for (key, encoded) in [("a||b", "a%7C%7Cb"), ("a b", "a%20b"), ("ü", "%C3%BC"), ("a/b", "a%2Fb")] {
        stage.node.put_state(CAT, &id, key, json!(key)).await.expect_empty();
        assert_eq!(stage.node.get_state(CAT, &id, encoded).await.expect(200).json(), json!(key));
    }
    // `x||y` of actor `id` and `y` of actor `id||x` are different keys.
    let other = format!("{id}||x");
    stage.node.call(CAT, &other.replace('|', "%7C"), "wake").await.expect(200);
    stage.node.put_state(CAT, &other.replace('|', "%7C"), "y", json!("theirs")).await.expect_empty();
    stage.node.put_state(CAT, &id, "x||y", json!("ours")).await.expect_empty();
    assert_eq!(stage.node.get_state(CAT, &id, "x%7C%7Cy").await.expect(200).json(), json!("ours"));
    assert_eq!(stage.node.get_state(CAT, &other.replace('|', "%7C"), "y").await.expect(200).json(), json!("theirs"));
}

/// Actors of two types with one id share nothing.
#[tokio::test]
async fn state_belongs_to_type_and_id() {
    let stage = stage().await;
    let id = active("owner").await;
    stage.node.call("dog", &id, "wake").await.expect(200);
    stage.node.put_state(CAT, &id, "k", json!("cat")).await.expect_empty();
    stage.node.get_state("dog", &id, "k").await.expect_empty();
    stage.node.put_state("dog", &id, "k", json!("dog")).await.expect_empty();
    assert_eq!(stage.node.get_state(CAT, &id, "k").await.expect(200).json(), json!("cat"));
}

/// dapr.md 2.1
#[tokio::test]
async fn a_type_reserved_for_workflows_is_403_for_state_reminders_and_timers() {
    let stage = stage().await;
    let kind = "dapr.internal.default.myapp.workflow";
    let message = format!(
        "actor type \"{kind}\" is reserved for the Dapr workflow runtime; direct actor API access is not permitted"
    );
    let base = format!("/v1.0/actors/{kind}/a");
    for (verb, path, body) in [
        ("POST", "state", "[]"),
        ("GET", "state/k", ""),
        ("POST", "reminders/r", "{\"dueTime\":\"1h\"}"),
        ("GET", "reminders/r", ""),
        ("DELETE", "reminders/r", ""),
        ("POST", "timers/t", "{\"dueTime\":\"1h\"}"),
        ("DELETE", "timers/t", ""),
    ] {
        let answer = stage.node.request(verb, &format!("{base}/{path}")).body(body).send().await;
        answer.expect_error(403, "ERR_ACTOR_TYPE_RESERVED", &message);
    }
}
