//! One reminder: what a request asks for, what a listing shows, what the app is sent, and what follows a failed attempt.
//!
//! The texts of a request are kept as given, because answers echo them and the owner rebuilds the [`Schedule`] from
//! them. [`ReminderRequest::plan`] turns the relative ones into absolute instants, once, with the clock of whoever
//! proposes the command.
//!
//! Failures. A policy decides how many *attempts* one occurrence gets; an attempt is consumed only by the app's answer or
//! by its silence, never by a lost host or a fenced owner. After the last attempt the occurrence is given up and the
//! schedule goes on. Many retries without an interval would occupy the app without pause, so after [`UNPACED_ATTEMPTS`], or
//! at once where the policy has no limit, attempts are at least [`RETRY_FLOOR`] apart.
//!
//! *Deliberately absent:* the machine's row types (this crate does not know them; the fields match one to one), the due
//! table (`due`), a clock.

use std::time::Duration;

use bytes::Bytes;
use callboard_types::{FailurePolicy, Timestamp};
use serde_json::value::RawValue;

use crate::duration::{self, When, parse_period, parse_when};
use crate::json::{self, Fields, compact, quoted};
use crate::schedule::{self, Schedule};

/// The least time between attempts of a policy that never gives up, or that has had its unpaced ones.
pub const RETRY_FLOOR: Duration = Duration::from_millis(100);

/// How many attempts of a policy with a limit follow each other as fast as its interval says.
pub const UNPACED_ATTEMPTS: u32 = 16;

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    Retry { after: Duration },
    GiveUp,
}

/// `attempts`: how many the occurrence has had, the failed one included.
pub fn after_failure(policy: FailurePolicy, attempts: u32) -> AfterFailure {
    let FailurePolicy::Constant { interval_micros, max_retries } = policy else { return AfterFailure::GiveUp };
    if max_retries.is_some_and(|max| attempts > max) {
        return AfterFailure::GiveUp;
    }
    let unpaced = max_retries.is_some() && attempts < UNPACED_ATTEMPTS;
    let floor = if unpaced { Duration::ZERO } else { RETRY_FLOOR };
    AfterFailure::Retry { after: Duration::from_micros(interval_micros).max(floor) }
}

/// The body of a reminder registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReminderRequest {
    /// Compact JSON text; `None`: no `data` was given, which is not the same as `null`.
    pub data: Option<Bytes>,
    pub due_time: String,
    pub period: String,
    pub ttl: String,
    /// `false`: an existing reminder of the name is an error.
    pub overwrite: bool,
    pub policy: FailurePolicy,
}

/// A request in absolute terms: what the command carries beside the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// When the first occurrence is due.
    pub due: Timestamp,
    /// Total number of firings; `None`: no limit.
    pub repeats: Option<u64>,
    /// No occurrence is due after this instant (inclusive).
    pub expires_at: Option<Timestamp>,
}

impl ReminderRequest {
    /// Reads the JSON body of a registration.
    ///
    /// # Errors
    ///
    /// Not a JSON object, or a known member of the wrong type.
    pub fn from_json(body: &[u8]) -> Result<Self, json::Error> {
        let fields = Fields::parse(body)?;
        Ok(Self {
            data: data_member(&fields),
            due_time: fields.string("dueTime")?.unwrap_or_default(),
            period: fields.string("period")?.unwrap_or_default(),
            ttl: fields.string("ttl")?.unwrap_or_default(),
            overwrite: fields.bool("overwrite")?.unwrap_or(true),
            policy: policy_member(&fields)?,
        })
    }

    /// # Errors
    ///
    /// The texts make no schedule.
    pub fn plan(&self, now: Timestamp) -> Result<Plan, schedule::Error> {
        let schedule = Schedule::reminder(&self.due_time, &self.period, &self.ttl, now)?;
        Ok(Plan { due: schedule.first_due(), repeats: schedule.repeats(), expires_at: schedule.expires_at() })
    }
}

/// The `data` member as compact JSON text.
pub(crate) fn data_member(fields: &Fields<'_>) -> Option<Bytes> {
    fields.raw("data").map(|text| Bytes::from(compact(text)))
}

/// Protobuf-JSON of Dapr's `JobFailurePolicy`, under its own key or the one that Python's SDK sends.
fn policy_member(fields: &Fields<'_>) -> Result<FailurePolicy, json::Error> {
    const SHAPE: &str = "{\"drop\":{}} or {\"constant\":{\"interval\":...,\"maxRetries\":...}}";
    let malformed = json::Error::Field { field: "failurePolicy", expected: SHAPE };
    let policy = match fields.object("failure_policy")? {
        None => fields.object("failurePolicy")?,
        some => some,
    };
    let Some(policy) = policy else { return Ok(FailurePolicy::default()) };
    match (policy.object("drop")?, policy.object("constant")?) {
        (None, None) if policy.is_empty() => Ok(FailurePolicy::default()),
        (Some(_), None) => Ok(FailurePolicy::Drop),
        (None, Some(constant)) => Ok(FailurePolicy::Constant {
            interval_micros: constant.given("interval").map_or(Some(0), interval_micros).ok_or(malformed.clone())?,
            max_retries: match constant.given("maxRetries").or_else(|| constant.given("max_retries")) {
                None => None,
                Some(text) => Some(text.trim_matches('"').parse().map_err(|_| malformed)?),
            },
        }),
        (None, None) | (Some(_), Some(_)) => Err(malformed),
    }
}

/// A length of time in JSON: a Go duration (`"1s"`, `"0h0m1s0ms0µs"`, protobuf's `"1.5s"`) or a number of seconds.
fn interval_micros(text: &str) -> Option<u64> {
    let span = match serde_json::from_str::<serde_json::Value>(text).ok()? {
        serde_json::Value::String(text) if text.is_empty() => Duration::ZERO,
        serde_json::Value::String(text) => duration::parse_go_duration(&text).ok()?,
        serde_json::Value::Number(seconds) => Duration::try_from_secs_f64(seconds.as_f64()?).ok()?,
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => return None,
    };
    u64::try_from(span.as_nanos().div_ceil(1_000)).ok()
}

/// A reminder as its GET and its listing show it.
#[derive(Debug, Clone, Copy)]
pub struct ReminderView<'a> {
    pub actor_type: &'a str,
    pub actor_id: &'a str,
    /// Compact JSON text.
    pub data: Option<&'a [u8]>,
    /// The texts as given.
    pub due_time: &'a str,
    pub period: &'a str,
    pub ttl: &'a str,
}

impl ReminderView<'_> {
    /// `@every <Go duration>`, without a repeat count; a period with months has no Go duration and is shown as given.
    /// A negative one is none.
    pub fn period(&self) -> Option<String> {
        let period = parse_period(self.period).ok()??;
        if period.interval.is_negative() {
            return None;
        }
        Some(match period.interval.go_text() {
            Some(text) => format!("@every {text}"),
            None => self.period.split_once('/').map_or(self.period, |(_, iso)| iso).to_owned(),
        })
    }

    /// Only an instant is shown: a length of time says nothing without the registration's clock.
    pub fn ttl(&self) -> Option<&str> {
        match parse_when(self.ttl) {
            Ok(Some(When::At(_))) => Some(self.ttl),
            Ok(Some(When::In(_)) | None) | Err(_) => None,
        }
    }

    /// The JSON object, absent members left out.
    pub fn to_json(&self) -> String {
        let mut out = format!("{{\"actorID\":{},\"actorType\":{}", quoted(self.actor_id), quoted(self.actor_type));
        let mut member = |name: &str, json: &str| {
            out.push_str(&format!(",\"{name}\":{json}"));
        };
        if let Some(data) = self.data.and_then(json_text) {
            member("data", data);
        }
        if !self.due_time.is_empty() {
            member("dueTime", &quoted(self.due_time));
        }
        if let Some(period) = self.period() {
            member("period", &quoted(&period));
        }
        if let Some(ttl) = self.ttl() {
            member("ttl", &quoted(ttl));
        }
        out.push('}');
        out
    }
}

/// The body of a reminder's callback: due time and period are always there and always empty.
pub fn callback_body(data: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::with_capacity(data.map_or(0, <[u8]>::len) + 40);
    body.push(b'{');
    if let Some(data) = data {
        body.extend_from_slice(b"\"data\":");
        body.extend_from_slice(data);
        body.push(b',');
    }
    body.extend_from_slice(b"\"dueTime\":\"\",\"period\":\"\"}");
    body
}

/// Stored data as JSON text; what is not JSON is left out rather than breaking the object around it.
fn json_text(data: &[u8]) -> Option<&str> {
    serde_json::from_slice::<&RawValue>(data).ok().map(RawValue::get)
}

/// Fuzz body: a registration from arbitrary bytes; what is accepted shows as valid JSON.
pub fn fuzz_request(data: &[u8]) {
    let Ok(request) = ReminderRequest::from_json(data) else { return };
    let _ = request.plan(Timestamp::from_secs(1_700_000_000));
    let view = ReminderView {
        actor_type: "T",
        actor_id: "I",
        data: request.data.as_deref(),
        due_time: &request.due_time,
        period: &request.period,
        ttl: &request.ttl,
    };
    let json = |text: &[u8]| serde_json::from_slice::<&RawValue>(text).is_ok();
    assert!(json(view.to_json().as_bytes()));
    assert!(json(&callback_body(request.data.as_deref())));
}

#[cfg(test)]
#[path = "reminder/reminder_test.rs"]
mod tests;
