//! The time grammar: what registers, what is refused, and how it is said.

use serde_json::{Value, json};

use crate::stage::{CAT, stage, unique};

const REMINDER: &str = "ERR_ACTOR_REMINDER_CREATE";
const TIMER: &str = "ERR_ACTOR_TIMER_CREATE";

async fn register(kind: &str, body: &Value) -> callboard_tests::http::Answer {
    let stage = stage().await;
    let id = unique("time");
    let path = format!("/v1.0/actors/{CAT}/{id}/{kind}/t");
    let answer = stage.node.post(&path).json(body).send().await;
    // What fires soon must not go on under other tests.
    stage.node.delete(&path).send().await.expect_empty();
    answer
}

/// dapr.md 2.9 together with sdk-clients 5; DESIGN 5
#[tokio::test]
async fn reminders_accept_the_union_of_what_sdks_send() {
    let far = "2552-01-01T00:00:00Z";
    for body in [
        json!({"dueTime": "1h2m3s4ms"}),
        json!({"dueTime": "0h30m5s0ms0μs"}),
        json!({"dueTime": "0h30m5s0ms0µs"}),
        json!({"dueTime": "24h0m1s250ms0us"}),
        json!({"dueTime": "1.5h"}),
        json!({"dueTime": "PT1H"}),
        json!({"dueTime": "P1D"}),
        json!({"dueTime": "P1Y2M3W4DT5H6M7S"}),
        json!({"dueTime": "PT90000S"}),
        json!({"dueTime": "PT3600.5S"}),
        json!({"dueTime": far}),
        json!({"dueTime": "2552-01-01T00:00:00.123456789Z"}),
        json!({"dueTime": "2552-01-01T00:00:00+02:00"}),
        json!({"period": "1h"}),
        json!({"period": "PT1H"}),
        json!({"period": "P1D"}),
        json!({"period": "P2W"}),
        json!({"period": "P1Y"}),
        json!({"period": "P1M"}),
        json!({"period": "PT3600.5S"}),
        json!({"period": "R5/PT1H"}),
        json!({"period": "R5/P1D"}),
        json!({"dueTime": "1h", "period": "R5"}),
        json!({"dueTime": "1h", "period": "R5/"}),
        json!({"dueTime": "1h", "period": ""}),
        json!({"dueTime": "1h", "period": null}),
        json!({"dueTime": "1h", "period": "1h", "ttl": "3h"}),
        json!({"dueTime": "1h", "period": "1h", "ttl": "PT3H"}),
        json!({"dueTime": "1h", "period": "1h", "ttl": far}),
        json!({"dueTime": "1h", "period": "1h", "ttl": ""}),
    ] {
        let answer = register("reminders", &body).await;
        assert_eq!(answer.status, 204, "{body}: {}", answer.text());
    }
}

/// dapr.md 2.5; DESIGN 5: `R0` is refused.
#[tokio::test]
async fn reminders_refuse_what_has_no_meaning() {
    for (body, message) in [
        (json!({"dueTime": "1h", "period": "sometimes"}), "unsupported period format: sometimes"),
        (json!({"dueTime": "sometime"}), "due time format not recognized"),
        (json!({"dueTime": "R3/PT1S"}), "repeats not supported for due time"),
        (json!({"dueTime": "1h", "period": "1h", "ttl": "sometime"}), "ttl format not recognized"),
        (json!({"dueTime": "1h", "period": "1h", "ttl": "2000-01-01T00:00:00Z"}), "ttl must be greater than due time"),
        (json!({}), "job must have either a due time or a schedule"),
        (json!({"data": "x", "dueTime": "", "period": ""}), "job must have either a due time or a schedule"),
        (json!({"dueTime": "1h", "ttl": "2h"}), "job must have a schedule to have a ttl"),
        (json!({"dueTime": "1h", "period": "R0/PT1S"}), "unsupported period format: R0/PT1S"),
        (json!({"dueTime": "1h", "period": "R0"}), "unsupported period format: R0"),
    ] {
        let answer = register("reminders", &body).await;
        assert_eq!(answer.status, 500, "{body}: {}", answer.text());
        answer.expect_error(500, REMINDER, &format!("error creating actor reminder: {message}"));
    }
}

/// sdk-clients 5: a negative duration is no endless loop.
#[tokio::test]
async fn a_negative_or_zero_period_is_one_shot_or_refused() {
    let stage = stage().await;
    for period in ["-1h59m59s0ms0μs", "-1s", "0s", "PT0S"] {
        let id = unique("spin");
        let path = format!("/v1.0/actors/{CAT}/{id}/reminders/t");
        let answer = stage.node.post(&path).json(&json!({"dueTime": "0s", "period": period})).send().await;
        assert!([204, 400, 500].contains(&answer.status), "{period}: {}", answer.status);
        let callback = format!("/actors/{CAT}/{id}/method/remind/t");
        if answer.status == 204 {
            stage.app.wait_for(1, &callback, callboard_tests::wait::PATIENCE).await;
        }
        let quiet = std::time::Duration::from_millis(500);
        callboard_tests::wait::stays(quiet, "at most one firing", true, async || stage.app.count(&callback) <= 1).await;
    }
}

/// dapr.md 2.9
#[tokio::test]
async fn timers_accept_the_union_of_what_sdks_send() {
    let far = "2552-01-01T00:00:00Z";
    for body in [
        json!({"dueTime": "1h2m3s4ms"}),
        json!({"dueTime": "0h30m5s0ms0μs"}),
        json!({"dueTime": "PT1H"}),
        json!({"dueTime": "P1Y2M3W4DT5H6M7S"}),
        json!({"dueTime": far}),
        json!({"dueTime": "1h", "period": "1h"}),
        json!({"dueTime": "1h", "period": "P1D"}),
        json!({"dueTime": "1h", "period": "R5/PT1H"}),
        json!({"dueTime": "1h", "period": "R5"}),
        json!({"dueTime": "1h", "period": "R5/"}),
        json!({"dueTime": "1h", "period": null}),
        json!({"dueTime": "1h", "period": "1h", "ttl": "3h"}),
        json!({"dueTime": "1h", "period": "1h", "ttl": far}),
        json!({"dueTime": "PT0.1S"}),
    ] {
        let answer = register("timers", &body).await;
        assert_eq!(answer.status, 204, "{body}: {}", answer.text());
    }
}

/// dapr.md 2.8
#[tokio::test]
async fn timers_refuse_what_has_no_meaning() {
    for (body, message) in [
        (json!({"dueTime": "sometime"}), "error parsing timer due time: "),
        (json!({"dueTime": "R3/PT1S"}), "error parsing timer due time: "),
        (json!({"dueTime": "1h", "period": "sometimes"}), "invalid timer period: "),
        (json!({"dueTime": "1h", "period": "R0/PT1S"}), "invalid timer period: has zero repetitions"),
        (json!({"dueTime": "1h", "period": "1h", "ttl": "sometime"}), "error parsing timer TTL: "),
        (json!({"dueTime": "1h", "ttl": "2000-01-01T00:00:00Z"}), "has already expired"),
    ] {
        let answer = register("timers", &body).await;
        assert_eq!(answer.status, 500, "{body}: {}", answer.text());
        let said = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(said.starts_with("error creating actor timer: ") && said.contains(message), "{body}: {said}");
        answer.expect_error(500, TIMER, message);
    }
}
