//! Registrations that are refused for their form, reminders and timers alike.

use serde_json::json;

use crate::stage::{CAT, stage, unique};

/// dapr.md 2.5, 2.8
#[tokio::test]
async fn a_registration_that_is_not_json_is_400() {
    let stage = stage().await;
    let id = unique("json");
    for kind in ["reminders", "timers"] {
        for body in
            ["{", "[]", "\"x\"", "12", "{\"dueTime\":1}", "{\"dueTime\":\"1h\",\"period\":{}}", "{\"dueTime\":\"1h\"}x"]
        {
            let answer = stage.node.post(&format!("/v1.0/actors/{CAT}/{id}/{kind}/r")).body(body).send().await;
            assert_eq!(answer.status, 400, "{kind} {body}: {}", answer.text());
            answer.expect_error(400, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: ");
        }
    }
    let body = json!({"dueTime": "1h", "overwrite": "yes"});
    let answer = stage.node.post(&format!("/v1.0/actors/{CAT}/{id}/reminders/r")).json(&body).send().await;
    answer.expect_error(400, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: ");
}

/// dapr.md 2.5, 2.2
#[tokio::test]
async fn a_name_with_forbidden_characters_is_400() {
    let stage = stage().await;
    let id = unique("name");
    for kind in ["reminders", "timers"] {
        for name in ["a%2Fb", "a%5Cb", "a%23b", "a%3Fb", "a%00b", "a%0Ab"] {
            let path = format!("/v1.0/actors/{CAT}/{id}/{kind}/{name}");
            let answer = stage.node.post(&path).json(&json!({"dueTime": "1h"})).send().await;
            answer.expect_error(400, "ERR_BAD_REQUEST", "invalid request: name contains ");
        }
    }
}

/// dapr.md 2.5: the scheduler's limit of names.
#[tokio::test]
async fn a_reminder_name_of_500_characters_is_accepted_and_one_of_600_refused() {
    let stage = stage().await;
    let id = unique("long");
    let url = |length: usize| format!("/v1.0/actors/{CAT}/{id}/reminders/{}", "n".repeat(length));
    stage.node.post(&url(400)).json(&json!({"dueTime": "1h"})).send().await.expect_empty();
    let answer = stage.node.post(&url(600)).json(&json!({"dueTime": "1h"})).send().await;
    assert!([400, 500].contains(&answer.status), "{}", answer.status);
    assert!(answer.json()["errorCode"].is_string());
}
