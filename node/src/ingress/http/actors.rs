//! The actors API: requests into the words of [`Actors`](crate::actors::Actors), answers into Dapr's.
//!
//! Nothing is decided here but texts and statuses (`specs`: actors HTTP API). Bodies are read whatever their content
//! type says, because SDKs disagree about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::json::{self, Fields};
use callboard_engine::mailbox::Refusal;
use callboard_engine::names;
use callboard_engine::reminder::{ReminderRequest, ReminderView};
use callboard_engine::timer::TimerRequest;
use callboard_machine::partition::{ActorOp, Rejection, Reminder};
use callboard_types::{ActorKey, Timestamp};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use serde_json::value::RawValue;

use super::body::Body;
use super::error::{ApiError, Code, json as json_answer, no_content};
use super::route::ActorRoute;
use crate::actors::{Error, Invocation};
use crate::clock;
use crate::invoke::{headers, method};
use crate::node::Node;
use crate::owner::{Error as OwnerError, REENTRANCY_ID};

/// Types of Dapr's own workflow engine: nobody else's business.
const RESERVED: &str = "dapr.internal.";
/// Tells an app that the call came through the API.
const API_CALL: HeaderName = HeaderName::from_static("dapr-api-call");
const CALLER_APP_ID: HeaderName = HeaderName::from_static("dapr-caller-app-id");
const CALLER_NAMESPACE: HeaderName = HeaderName::from_static("dapr-caller-namespace");
/// Set by an app to say that a reminder need not fire again; means failure on any other call.
const REMINDER_CANCEL: HeaderName = HeaderName::from_static("x-daprremindercancel");
const TTL_EXPIRES: HeaderName = HeaderName::from_static("metadata.ttlexpiretime");

/// Answers one call of the actors API.
pub async fn handle(node: &Arc<Node>, route: ActorRoute, request: Request<Body>) -> Response<Body> {
    answered(node, route, request).await.unwrap_or_else(ApiError::into_response)
}

async fn answered(node: &Arc<Node>, route: ActorRoute, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let path = route.actor();
    names::check_type(&path.actor_type).map_err(ApiError::bad_request)?;
    names::check_id(&path.actor_id).map_err(ApiError::bad_request)?;
    let actor = node.actors.key(path.actor_type.clone(), path.actor_id.clone());
    callboard_machine::limits::check_actor(&actor).map_err(ApiError::bad_request)?;
    let is_method = matches!(route, ActorRoute::Method { .. });
    if !is_method && actor.actor_type.starts_with(RESERVED) {
        return Err(reserved(&actor));
    }
    match route {
        ActorRoute::Method { method, .. } => invoke(node, actor, &method, request).await,
        ActorRoute::SaveState { .. } => save_state(node, &actor, request).await,
        ActorRoute::GetState { key, .. } => get_state(node, &actor, &key).await,
        ActorRoute::PutReminder { name, .. } => put_reminder(node, &actor, &name, request).await,
        ActorRoute::GetReminder { name, .. } => get_reminder(node, &actor, &name).await,
        ActorRoute::DeleteReminder { name, .. } => delete_reminder(node, &actor, &name, request).await,
        ActorRoute::ListReminders { .. } => list_reminders(node, &actor).await,
        ActorRoute::PutTimer { name, .. } => put_timer(node, &actor, &name, request).await,
        ActorRoute::DeleteTimer { name, .. } => {
            node.actors.delete_timer(&actor, &name);
            Ok(no_content())
        }
        ActorRoute::DeleteActor { .. } => delete_actor(node, &actor).await,
    }
}

async fn invoke(
    node: &Arc<Node>,
    actor: ActorKey,
    method: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let method = method::normalize(method).map_err(ApiError::bad_request)?;
    let (mut head, body) = request.into_parts();
    let body = body
        .collect(node.config.http.max_body)
        .await
        .map_err(|error| ApiError::bad_request(format_args!("failed to read body: {error}")))?;
    let chain = head.headers.remove(REENTRANCY_ID);
    headers::towards_app(&mut head.headers);
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(API_CALL, HeaderValue::from_static("true"));
    insert_text(&mut head.headers, CALLER_APP_ID, &node.config.app_id);
    insert_text(&mut head.headers, CALLER_NAMESPACE, &node.config.namespace);
    let invocation = Invocation {
        actor: actor.clone(),
        method: &method,
        query: head.uri.query(),
        headers: head.headers,
        chain: chain.as_ref().and_then(|chain| chain.to_str().ok()).filter(|chain| !chain.is_empty()),
        body,
    };
    let response = node.actors.invoke(invocation).await.map_err(|error| invoke_error(&error))?;
    method_answer(&actor, &method, response)
}

/// Only 200 is an answer; anything else of the app becomes an error that carries it (`specs`: method invocation).
fn method_answer(actor: &ActorKey, method: &str, response: Response<Bytes>) -> Result<Response<Body>, ApiError> {
    let (mut head, body) = response.into_parts();
    let why = match head.status {
        StatusCode::OK if !head.headers.get(REMINDER_CANCEL).is_some_and(is_truthy) => {
            headers::towards_caller(&mut head.headers);
            return Ok(Response::from_parts(head, Body::full(body)));
        }
        StatusCode::OK => "reminder has been canceled".to_owned(),
        StatusCode::NOT_FOUND => {
            format!("actor method not found: actors/{}/{}/method/{method}", actor.actor_type, actor.actor_id)
        }
        status => format!("error from actor service: ({}) {}", status.as_u16(), String::from_utf8_lossy(&body)),
    };
    Err(ApiError::new(Code::ActorInvokeMethod, format!("error invoke actor method: {why}")))
}

async fn save_state(node: &Arc<Node>, actor: &ActorKey, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let body = read(node, request).await?;
    let rows: Vec<&RawValue> = serde_json::from_slice(&body).map_err(ApiError::malformed)?;
    let failed = |why: &dyn std::fmt::Display| {
        ApiError::new(Code::ActorStateTransactionSave, format!("error saving actor transaction state: {why}"))
    };
    let now = clock::wall();
    let ops: Vec<_> = rows.into_iter().map(|row| operation(row, now)).collect();
    if let Some(Err(OperationError::Malformed(error))) =
        ops.iter().find(|op| matches!(op, Err(OperationError::Malformed(_))))
    {
        return Err(ApiError::malformed(error));
    }
    let ops = match ops.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(ops) => ops,
        // An actor that is not active is told so first.
        Err(error) if node.actors.is_active(actor) => return Err(failed(&error)),
        Err(_) => return Err(ApiError::new(Code::ActorInstanceMissing, "actor instance is missing")),
    };
    match node.actors.transact(actor, ops, now).await {
        Ok(()) => Ok(no_content()),
        Err(error @ Error::NotActive) => Err(ApiError::new(Code::ActorInstanceMissing, error.to_string())),
        Err(error) => Err(common_error(&error).unwrap_or_else(|| failed(&error))),
    }
}

/// Why one operation of a transaction is not one.
#[derive(Debug, thiserror::Error)]
enum OperationError {
    #[error(transparent)]
    Malformed(#[from] json::Error),
    #[error("operation is empty")]
    NoOperation,
    #[error("operation type {0} not supported")]
    Unsupported(String),
    #[error("request data is empty")]
    NoRequest,
    #[error("missing key")]
    NoKey,
    #[error("value for ttlInSeconds is not an integer: {0}")]
    Ttl(String),
}

fn operation(row: &RawValue, now: Timestamp) -> Result<ActorOp, OperationError> {
    let fields = Fields::parse(row.get().as_bytes())?;
    let operation = fields.string("operation")?.unwrap_or_default();
    if operation.is_empty() {
        return Err(OperationError::NoOperation);
    }
    let request =
        fields.raw("request").filter(|request| *request != "null").map(|request| Fields::parse(request.as_bytes()));
    let request = request.transpose()?;
    let key = |request: Option<&Fields<'_>>| -> Result<String, OperationError> {
        let key = request.ok_or(OperationError::NoRequest)?.string("key")?.unwrap_or_default();
        if key.is_empty() { Err(OperationError::NoKey) } else { Ok(key) }
    };
    match operation.as_str() {
        "upsert" => {
            let key = key(request.as_ref())?;
            let request = request.ok_or(OperationError::NoRequest)?;
            // A value that is left out is stored as null (Python's None).
            let value = json::compact(request.raw("value").unwrap_or("null"));
            Ok(ActorOp::Upsert { key, value: value.into(), expires_at: expiry(&request, now)? })
        }
        "delete" => Ok(ActorOp::Delete { key: key(request.as_ref())? }),
        _unknown => Err(OperationError::Unsupported(operation)),
    }
}

/// `metadata.ttlInSeconds`, an integer or a string with one: not positive means none.
fn expiry(request: &Fields<'_>, now: Timestamp) -> Result<Option<Timestamp>, OperationError> {
    let Some(metadata) = request.raw("metadata").filter(|metadata| *metadata != "null") else { return Ok(None) };
    let metadata = Fields::parse(metadata.as_bytes())?;
    let Some(ttl) = metadata.raw("ttlInSeconds").filter(|ttl| *ttl != "null") else { return Ok(None) };
    let seconds: i64 = if ttl.starts_with('"') {
        let text = metadata.string("ttlInSeconds")?.unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map_err(|_| OperationError::Ttl(text.chars().take(64).collect()))?
    } else {
        let wrong = json::Error::Field { field: "ttlInSeconds", expected: "an integer or a string with one" };
        ttl.parse().map_err(|_| wrong)?
    };
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|s| now.saturating_add(Duration::from_secs(s))))
}

async fn get_state(node: &Arc<Node>, actor: &ActorKey, key: &str) -> Result<Response<Body>, ApiError> {
    let value = node.actors.state(actor, key).await.map_err(|error| {
        common_error(&error)
            .unwrap_or_else(|| ApiError::new(Code::ActorStateGet, format!("error getting actor state: {error}")))
    })?;
    let Some(value) = value.filter(|value| !value.value.is_empty()) else { return Ok(no_content()) };
    let mut response = json_answer(value.value);
    if let Some(expires) = value.expires_at.and_then(rfc3339_seconds) {
        insert_text(response.headers_mut(), TTL_EXPIRES, &expires);
    }
    Ok(response)
}

async fn put_reminder(
    node: &Arc<Node>,
    actor: &ActorKey,
    name: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let body = read(node, request).await?;
    let request = ReminderRequest::from_json(&body).map_err(ApiError::malformed)?;
    names::check_reminder_name(name).map_err(ApiError::bad_request)?;
    hosted(node, actor).await?;
    let failed = |why: &dyn std::fmt::Display| {
        ApiError::new(Code::ActorReminderCreate, format!("error creating actor reminder: {why}"))
    };
    let now = clock::wall();
    let plan = request.plan(now).map_err(|error| failed(&error))?;
    match node.actors.put_reminder(actor, name, request, plan, now).await {
        Ok(()) => Ok(no_content()),
        Err(Error::Owner(OwnerError::Rejected(error @ Rejection::ReminderExists { .. }))) => {
            Err(ApiError::new(Code::ActorReminderAlreadyExists, error.to_string()))
        }
        Err(error) => Err(common_error(&error).unwrap_or_else(|| failed(&error))),
    }
}

async fn get_reminder(node: &Arc<Node>, actor: &ActorKey, name: &str) -> Result<Response<Body>, ApiError> {
    names::check_reminder_name(name).map_err(ApiError::bad_request)?;
    hosted(node, actor).await?;
    match node.actors.reminder(actor, name).await {
        Ok(reminder) => Ok(json_answer(view(actor, &reminder).to_json())),
        Err(error @ Error::ReminderNotFound(_)) => Err(ApiError::new(Code::ActorReminderNotFound, error.to_string())),
        Err(error) => Err(common_error(&error).unwrap_or_else(|| {
            ApiError::new(Code::ActorReminderGet, format!("error getting actor reminder: {error}"))
        })),
    }
}

async fn delete_reminder(
    node: &Arc<Node>,
    actor: &ActorKey,
    name: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let body = read(node, request).await?;
    if !body.is_empty() {
        serde_json::from_slice::<&RawValue>(&body).map_err(ApiError::malformed)?;
    }
    names::check_reminder_name(name).map_err(ApiError::bad_request)?;
    hosted(node, actor).await?;
    node.actors.delete_reminder(actor, name).await.map_err(|error| {
        common_error(&error).unwrap_or_else(|| {
            ApiError::new(Code::ActorReminderDelete, format!("error deleting actor reminder: {error}"))
        })
    })?;
    Ok(no_content())
}

/// `{"reminders":[{"name":…, …as in GET}]}`
async fn list_reminders(node: &Arc<Node>, actor: &ActorKey) -> Result<Response<Body>, ApiError> {
    hosted(node, actor).await?;
    let reminders = node.actors.reminders(actor).await.map_err(|error| {
        common_error(&error)
            .unwrap_or_else(|| ApiError::new(Code::ActorReminderGet, format!("error getting actor reminder: {error}")))
    })?;
    let mut out = String::from("{\"reminders\":[");
    for (number, (actor, name, reminder)) in reminders.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        let view = view(actor, reminder).to_json();
        out.push_str("{\"name\":");
        out.push_str(&serde_json::Value::from(name.as_str()).to_string());
        out.push(',');
        out.push_str(view.strip_prefix('{').unwrap_or(&view));
    }
    out.push_str("]}");
    Ok(json_answer(out))
}

async fn put_timer(
    node: &Arc<Node>,
    actor: &ActorKey,
    name: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let body = read(node, request).await?;
    let request = TimerRequest::from_json(&body).map_err(ApiError::malformed)?;
    names::check_timer_name(name).map_err(ApiError::bad_request)?;
    let failed = |why: &dyn std::fmt::Display| {
        ApiError::new(Code::ActorTimerCreate, format!("error creating actor timer: {why}"))
    };
    if !node.actors.hosts(&actor.actor_type).await {
        let (kind, id) = (&actor.actor_type, &actor.actor_id);
        return Err(failed(&format_args!("can't create timer for actor {kind}||{id}: actor type not registered")));
    }
    node.actors.put_timer(actor, name, request).map_err(|error| failed(&error))?;
    Ok(no_content())
}

async fn delete_actor(node: &Arc<Node>, actor: &ActorKey) -> Result<Response<Body>, ApiError> {
    match node.actors.delete(actor).await {
        Ok(()) => Ok(no_content()),
        Err(Error::Owner(OwnerError::Refused(refusal @ Refusal::TurnRunning))) => {
            Err(ApiError::new(Code::Conflict, refusal.to_string()))
        }
        Err(error) => Err(common_error(&error).unwrap_or_else(|| {
            ApiError::new(Code::ActorStateTransactionSave, format!("error deleting actor: {error}"))
        })),
    }
}

/// Reminders of a type are the business of nodes that host it.
async fn hosted(node: &Arc<Node>, actor: &ActorKey) -> Result<(), ApiError> {
    if node.actors.hosts(&actor.actor_type).await {
        return Ok(());
    }
    let message = "operations on actor reminders are only possible on hosted actor types";
    Err(ApiError::new(Code::ActorReminderNonHosted, message))
}

async fn read(node: &Arc<Node>, request: Request<Body>) -> Result<Bytes, ApiError> {
    request.into_body().collect(node.config.http.max_body).await.map_err(ApiError::malformed)
}

fn reserved(actor: &ActorKey) -> ApiError {
    let message = format!(
        "actor type \"{}\" is reserved for the Dapr workflow runtime; direct actor API access is not permitted",
        actor.actor_type
    );
    ApiError::new(Code::ActorTypeReserved, message)
}

fn view<'a>(actor: &'a ActorKey, reminder: &'a Reminder) -> ReminderView<'a> {
    ReminderView {
        actor_type: &actor.actor_type,
        actor_id: &actor.actor_id,
        data: reminder.spec.data.as_deref(),
        due_time: &reminder.spec.due_time,
        period: &reminder.spec.period,
        ttl: &reminder.spec.ttl,
    }
}

fn invoke_error(error: &Error) -> ApiError {
    if let Some(error) = common_error(error) {
        return error;
    }
    let why = match error {
        Error::NoHost(actor) => format!(
            "failed to lookup actor: api error: code = FailedPrecondition desc = did not find address for actor '{}/{}'",
            actor.actor_type, actor.actor_id
        ),
        Error::Closed
        | Error::NotActive
        | Error::ReminderNotFound(_)
        | Error::Full(_)
        | Error::Owner(_)
        | Error::Invalid(_) => error.to_string(),
    };
    ApiError::new(Code::ActorInvokeMethod, format!("error invoke actor method: {why}"))
}

/// Errors that say the same on every endpoint: limits, ownership, unknown outcomes. `None`: the endpoint's own code.
fn common_error(error: &Error) -> Option<ApiError> {
    let owner = match error {
        Error::Closed => return Some(ApiError::new(Code::ActorRuntimeClosed, error.to_string())),
        Error::Full(_) => return Some(ApiError::new(Code::Overloaded, error.to_string()).retry_after(SOON)),
        Error::NoHost(_) | Error::NotActive | Error::ReminderNotFound(_) | Error::Invalid(_) => return None,
        Error::Owner(owner) => owner,
    };
    let code = match owner {
        OwnerError::Refused(Refusal::StackDepth) => Code::ActorStackDepth,
        OwnerError::Refused(Refusal::MailboxFull) => Code::TooManyRequests,
        OwnerError::Refused(Refusal::TooManyWaiting | Refusal::TooManyActivations) => Code::Overloaded,
        OwnerError::Refused(Refusal::TurnRunning) => Code::Conflict,
        OwnerError::NotServing(_) | OwnerError::NoTurn(_) | OwnerError::Refused(Refusal::EpochOver) => {
            Code::Unavailable
        }
        OwnerError::Unknown(_) | OwnerError::Refused(Refusal::Superseded) => Code::OutcomeUnknown,
        OwnerError::TooLarge(_) => Code::BadRequest,
        OwnerError::NoHost
        | OwnerError::Unwanted
        | OwnerError::App(_)
        | OwnerError::Fenced
        | OwnerError::Rejected(_)
        | OwnerError::Storage(_) => return None,
    };
    let answer = ApiError::new(code, owner.to_string());
    Some(match answer.status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => answer.retry_after(SOON),
        _other => answer,
    })
}

/// What a caller is told to wait before it asks again.
const SOON: Duration = Duration::from_secs(1);

fn rfc3339_seconds(at: Timestamp) -> Option<String> {
    let at = chrono::DateTime::from_timestamp_micros(at.as_micros())?;
    Some(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

fn insert_text(headers: &mut http::HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn is_truthy(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(crate::resources::is_truthy)
}

/// Fuzz body: a state transaction. What is stored has a key and is JSON, and expires in the future if at all.
pub fn fuzz_transaction(data: &[u8]) {
    let now = Timestamp::from_secs(1);
    for row in serde_json::from_slice::<Vec<&RawValue>>(data).unwrap_or_default() {
        match operation(row, now) {
            Ok(ActorOp::Upsert { key, value, expires_at }) => {
                assert!(!key.is_empty() && expires_at.is_none_or(|at| at > now));
                assert!(serde_json::from_slice::<&RawValue>(&value).is_ok());
            }
            Ok(ActorOp::Delete { key }) => assert!(!key.is_empty()),
            Ok(other) => panic!("a transaction has no {other:?}"),
            Err(_refused) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ActorOp, String> {
        let raw = RawValue::from_string(text.to_owned()).expect("JSON");
        operation(&raw, Timestamp::from_secs(100)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_upsert_keeps_the_value_as_compact_json() {
        let op = parse(r#"{"operation":"upsert","request":{"key":"k","value":{ "a" : 1.50, "b":"\u00e9" }}}"#);
        let ActorOp::Upsert { key, value, expires_at } = op.expect("an operation") else { panic!("an upsert") };
        assert_eq!((key.as_str(), &value[..], expires_at), ("k", &br#"{"a":1.50,"b":"\u00e9"}"#[..], None));
    }

    #[test]
    fn a_value_left_out_is_null_and_one_of_a_delete_is_ignored() {
        let op = parse(r#"{"operation":"upsert","request":{"key":"k"}}"#).expect("an operation");
        assert_eq!(op, ActorOp::Upsert { key: "k".into(), value: "null".into(), expires_at: None });
        let op = parse(r#"{"operation":"delete","request":{"key":"k","value":{"old":1}}}"#).expect("an operation");
        assert_eq!(op, ActorOp::Delete { key: "k".into() });
    }

    #[test]
    fn ttl_is_whole_seconds_and_not_positive_means_none() {
        let with = |ttl: &str| {
            parse(&format!(
                r#"{{"operation":"upsert","request":{{"key":"k","value":1,"metadata":{{"ttlInSeconds":{ttl}}}}}}}"#
            ))
        };
        let expiry = |op: Result<ActorOp, String>| {
            let ActorOp::Upsert { expires_at, .. } = op.expect("an operation") else { panic!("an upsert") };
            expires_at
        };
        assert_eq!(expiry(with("\"5\"")), Some(Timestamp::from_secs(105)));
        assert_eq!(expiry(with("5")), Some(Timestamp::from_secs(105)));
        assert_eq!(expiry(with("\"0\"")), None);
        assert_eq!(expiry(with("\"-1\"")), None);
        assert_eq!(expiry(with(&format!("\"{}\"", i64::MAX))), Some(Timestamp::MAX));
        assert!(with("\"soon\"").unwrap_err().contains("soon"));
    }

    #[test]
    fn a_ttl_that_is_neither_a_string_nor_an_integer_makes_the_request_malformed() {
        for ttl in ["{}", "[]", "[5]", "true", "1.5", "1e2", "99999999999999999999"] {
            let text = format!(
                r#"{{"operation":"upsert","request":{{"key":"k","value":1,"metadata":{{"ttlInSeconds":{ttl}}}}}}}"#
            );
            let raw = RawValue::from_string(text).expect("JSON");
            let refused = operation(&raw, Timestamp::from_secs(100));
            assert!(matches!(refused, Err(OperationError::Malformed(_))), "{ttl}: {refused:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(parse(r#"{"request":{"key":"k"}}"#).unwrap_err(), "operation is empty");
        assert_eq!(parse(r#"{"operation":"upsert"}"#).unwrap_err(), "request data is empty");
        assert_eq!(parse(r#"{"operation":"upsert","request":{"value":1}}"#).unwrap_err(), "missing key");
        assert_eq!(parse(r#"{"operation":"merge","request":{}}"#).unwrap_err(), "operation type merge not supported");
    }

    #[test]
    fn only_200_of_the_app_is_an_answer() {
        let actor = ActorKey::new("default", "T", "I");
        let answer = |status: u16, body: &'static str| {
            let response = Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).expect("valid");
            method_answer(&actor, "M", response).map(|ok| ok.status()).map_err(|error| error.message.into_owned())
        };
        assert_eq!(answer(200, "x"), Ok(StatusCode::OK));
        assert_eq!(
            answer(404, "x").unwrap_err(),
            "error invoke actor method: actor method not found: actors/T/I/method/M"
        );
        assert_eq!(answer(201, "made").unwrap_err(), "error invoke actor method: error from actor service: (201) made");
    }
}
