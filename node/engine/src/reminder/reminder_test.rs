//! Requests, views, callbacks and failure policies of reminders.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn request(body: &str) -> ReminderRequest {
    ReminderRequest::from_json(body.as_bytes()).unwrap()
}

fn policy(body: &str) -> Result<FailurePolicy, json::Error> {
    ReminderRequest::from_json(body.as_bytes()).map(|request| request.policy)
}

fn view(request: &ReminderRequest) -> String {
    ReminderView {
        actor_type: "foo",
        actor_id: "1234",
        data: request.data.as_deref(),
        due_time: &request.due_time,
        period: &request.period,
        ttl: &request.ttl,
    }
    .to_json()
}

#[test]
fn a_request_keeps_its_texts_and_its_data() {
    let made = request(
        r#"{"data":{ "foo": [ 12, 4.50 ] },"dueTime":"1s","period":"R5/PT1S","ttl":"9s","overwrite":false,"unknown":1}"#,
    );
    assert_eq!(
        made,
        ReminderRequest {
            data: Some(Bytes::from_static(br#"{"foo":[12,4.50]}"#)),
            due_time: "1s".into(),
            period: "R5/PT1S".into(),
            ttl: "9s".into(),
            overwrite: false,
            policy: FailurePolicy::default(),
        }
    );
    let second = 1_000_000;
    assert_eq!(
        made.plan(NOW),
        Ok(Plan { due: Timestamp(NOW.0 + second), repeats: Some(5), expires_at: Some(Timestamp(NOW.0 + 10 * second)) })
    );
}

#[test]
fn absent_null_and_empty_times_are_none_but_absent_and_null_data_differ() {
    let absent = request("{}");
    assert_eq!((absent.data.as_deref(), absent.overwrite, absent.period.as_str()), (None, true, ""));
    let null = request(r#"{"data":null,"dueTime":null,"period":null,"ttl":null,"overwrite":null}"#);
    assert_eq!(null, ReminderRequest { data: Some(Bytes::from_static(b"null")), ..absent.clone() });
    assert_eq!(request(r#"{"PERIOD":"","duetime":""}"#), absent);
    assert_eq!(absent.plan(NOW), Err(schedule::Error::NothingScheduled));
}

#[test]
fn malformed_bodies_are_refused() {
    for body in ["", "[]", "{", r#"{"dueTime":5}"#, r#"{"overwrite":"yes"}"#, r#"{"period":{}}"#, r#"{"ttl":["1s"]}"#] {
        assert!(ReminderRequest::from_json(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn failure_policies_are_read_in_every_spelling() {
    let constant = |interval_micros, max_retries| FailurePolicy::Constant { interval_micros, max_retries };
    let cases = [
        (r#"{}"#, FailurePolicy::default()),
        (r#"{"failurePolicy":null}"#, FailurePolicy::default()),
        (r#"{"failurePolicy":{}}"#, FailurePolicy::default()),
        (r#"{"failurePolicy":{"drop":{}}}"#, FailurePolicy::Drop),
        (r#"{"failure_policy":{"drop":{}}}"#, FailurePolicy::Drop),
        (r#"{"failure_policy":{"constant":{"interval":"1s","maxRetries":3}}}"#, constant(1_000_000, Some(3))),
        (
            r#"{"failurePolicy":{"constant":{"interval":"0h0m2s0ms0\u03bcs","maxRetries":4}}}"#,
            constant(2_000_000, Some(4)),
        ),
        (r#"{"failure_policy":{"constant":{"interval":"0.5s","max_retries":"7"}}}"#, constant(500_000, Some(7))),
        (r#"{"failure_policy":{"constant":{"interval":2}}}"#, constant(2_000_000, None)),
        (r#"{"failure_policy":{"constant":{"interval":0.25,"max_retries":0}}}"#, constant(250_000, Some(0))),
        (r#"{"failure_policy":{"constant":{"maxRetries":1}}}"#, constant(0, Some(1))),
        (r#"{"failure_policy":{"constant":{"interval":null,"maxRetries":null}}}"#, constant(0, None)),
        (r#"{"failure_policy":{"constant":{}}}"#, constant(0, None)),
    ];
    for (body, expected) in cases {
        assert_eq!(policy(body), Ok(expected), "{body}");
    }
}

#[test]
fn unknown_failure_policies_are_refused() {
    for body in [
        r#"{"failurePolicy":"drop"}"#,
        r#"{"failurePolicy":{"exponential":{}}}"#,
        r#"{"failurePolicy":{"drop":{},"constant":{}}}"#,
        r#"{"failurePolicy":{"drop":true}}"#,
        r#"{"failurePolicy":{"constant":{"interval":"-1s"}}}"#,
        r#"{"failurePolicy":{"constant":{"interval":-1}}}"#,
        r#"{"failurePolicy":{"constant":{"interval":"soon"}}}"#,
        r#"{"failurePolicy":{"constant":{"interval":1e300}}}"#,
        r#"{"failurePolicy":{"constant":{"interval":true}}}"#,
        r#"{"failurePolicy":{"constant":{"maxRetries":-1}}}"#,
        r#"{"failurePolicy":{"constant":{"maxRetries":1.5}}}"#,
        r#"{"failurePolicy":{"constant":{"maxRetries":4294967296}}}"#,
    ] {
        assert!(policy(body).is_err(), "{body}");
    }
}

#[test]
fn the_default_policy_makes_four_attempts_a_second_apart() {
    let second = AfterFailure::Retry { after: Duration::from_secs(1) };
    let after: Vec<_> = (1..=5).map(|attempts| after_failure(FailurePolicy::default(), attempts)).collect();
    assert_eq!(after, [second, second, second, AfterFailure::GiveUp, AfterFailure::GiveUp]);
}

#[test]
fn a_policy_makes_one_attempt_more_than_its_retries() {
    assert_eq!(after_failure(FailurePolicy::Drop, 1), AfterFailure::GiveUp);
    let four = FailurePolicy::Constant { interval_micros: 0, max_retries: Some(4) };
    assert_eq!(after_failure(four, 4), AfterFailure::Retry { after: Duration::ZERO });
    assert_eq!(after_failure(four, 5), AfterFailure::GiveUp);
    let none = FailurePolicy::Constant { interval_micros: 5, max_retries: Some(0) };
    assert_eq!(after_failure(none, 1), AfterFailure::GiveUp);
}

#[test]
fn many_retries_never_occupy_the_app_without_pause() {
    let many = FailurePolicy::Constant { interval_micros: 0, max_retries: Some(u32::MAX) };
    assert_eq!(after_failure(many, UNPACED_ATTEMPTS - 1), AfterFailure::Retry { after: Duration::ZERO });
    assert_eq!(after_failure(many, UNPACED_ATTEMPTS), AfterFailure::Retry { after: RETRY_FLOOR });
    let spinning = FailurePolicy::Constant { interval_micros: 0, max_retries: None };
    assert_eq!(after_failure(spinning, u32::MAX), AfterFailure::Retry { after: RETRY_FLOOR });
    let slow = FailurePolicy::Constant { interval_micros: 5_000_000, max_retries: None };
    assert_eq!(after_failure(slow, 1), AfterFailure::Retry { after: Duration::from_secs(5) });
}

#[test]
fn a_view_shows_what_dapr_shows() {
    assert_eq!(
        view(&request(r#"{"data":"reminderdata","dueTime":"1s","period":"1s","ttl":"2552-01-01T00:00:00Z"}"#)),
        r#"{"actorID":"1234","actorType":"foo","data":"reminderdata","dueTime":"1s","period":"@every 1s","ttl":"2552-01-01T00:00:00Z"}"#
    );
    assert_eq!(view(&request(r#"{"dueTime":"1s"}"#)), r#"{"actorID":"1234","actorType":"foo","dueTime":"1s"}"#);
    assert_eq!(
        view(&request(r#"{"data":null,"period":"R5/PT1M","ttl":"5s"}"#)),
        r#"{"actorID":"1234","actorType":"foo","data":null,"period":"@every 1m0s"}"#
    );
}

#[test]
fn a_period_with_months_is_shown_as_given_without_its_count() {
    assert!(view(&request(r#"{"period":"R5/P1M"}"#)).ends_with(r#""period":"P1M"}"#));
    assert!(view(&request(r#"{"period":"P1Y"}"#)).ends_with(r#""period":"P1Y"}"#));
    assert!(view(&request(r#"{"period":"P1D"}"#)).ends_with(r#""period":"@every 24h0m0s"}"#));
    assert_eq!(view(&request(r#"{"period":"-1s"}"#)), r#"{"actorID":"1234","actorType":"foo"}"#);
}

#[test]
fn data_that_is_no_json_is_left_out_of_a_view() {
    let broken = ReminderRequest { data: Some(Bytes::from_static(b"}\xff")), ..request("{}") };
    assert_eq!(view(&broken), r#"{"actorID":"1234","actorType":"foo"}"#);
}

#[test]
fn ids_are_escaped_in_a_view() {
    let odd = ReminderView { actor_type: "a\"b", actor_id: "é|", data: None, due_time: "", period: "", ttl: "" };
    assert_eq!(odd.to_json(), r#"{"actorID":"é|","actorType":"a\"b"}"#);
}

#[test]
fn a_callback_always_has_empty_times() {
    assert_eq!(callback_body(Some(b"\"bXlkYXRh\"")), br#"{"data":"bXlkYXRh","dueTime":"","period":""}"#);
    assert_eq!(callback_body(None), br#"{"dueTime":"","period":""}"#);
    assert_eq!(callback_body(Some(b"null")), br#"{"data":null,"dueTime":"","period":""}"#);
}

proptest! {
    #[test]
    fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_request(&data);
    }

    #[test]
    fn no_object_panics(
        key in "data|dueTime|period|ttl|overwrite|failurePolicy",
        value in r#"[0-9]{1,4}|"[^"\\\x00-\x1f]{0,8}"|\{"(drop|constant)": ?\{("interval":[0-9e"s]{1,5})?\}\}|\[ [0-9] ?\]|null|true"#,
        due in "[0-9]{1,3}[smh]|P[0-9]D|",
    ) {
        fuzz_request(format!(r#"{{"period":"1s","dueTime":"{due}","{key}":{value}}}"#).as_bytes());
    }
}
