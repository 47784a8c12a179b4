//! The cluster's own API, below `/cluster/v1/`: what is stored and scheduled, without waking an actor.
//!
//! | request | answer |
//! |---|---|
//! | `GET actors?type=&prefix=&limit=&after=` | actors that have state or reminders, and their keys |
//! | `GET state?key=app\|\|type\|\|id\|\|key`, or `type=&id=&key=` | one value and its expiry |
//! | `GET state?prefix=app\|\|type\|\|&limit=&after=` | rows as JSON lines |
//! | `GET reminders?type=&id=&limit=&after=` | reminders, and the firings that were given up |
//!
//! A page ends with a cursor (`next`, or `cursor` on each line): an opaque text that goes into `after`. Parts that
//! contain `||` are named by separate parameters. The app id shown is the one that registered the type first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use callboard_machine::meta::MetaState;
use callboard_machine::partition::{DroppedFiring, Reminder, StateValue};
use callboard_raft::StateRow;
use callboard_types::{ActorKey, Timestamp};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use serde_json::json;
use serde_json::value::RawValue;

use super::body::Body;
use super::error::{ApiError, Code, json as json_answer};
use super::route::{AdminPath, query_unescape};
use crate::actors::Error;
use crate::node::Node;
use crate::owner::reads::Wanted;

/// Rows of a page unless asked otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Rows looked at for one page. A prefix or filter that matches little answers with what it has found so far and a
/// cursor to go on from.
const MAX_VISITED: usize = 100_000;
/// Given-up firings shown.
const DROPPED_SHOWN: usize = 1_000;

/// Answers one request of the admin API.
pub async fn handle(node: &Arc<Node>, path: AdminPath, request: Request<Body>) -> Response<Body> {
    let query = match Query::parse(request.uri().query().unwrap_or_default()) {
        Ok(query) => query,
        Err(error) => return error.into_response(),
    };
    let answer = match (request.method(), path.segments().as_slice()) {
        (&Method::GET, ["actors"]) => actors(node, &query).await,
        (&Method::GET, ["state"]) => state(node, &query).await,
        (&Method::GET, ["reminders"]) => reminders(node, &query).await,
        (_, _) => Err(ApiError::new(Code::NotFound, "no such admin resource; there are actors, state and reminders")),
    };
    answer.unwrap_or_else(ApiError::into_response)
}

/// The decoded parameters of a query string.
struct Query(BTreeMap<String, String>);

impl Query {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let mut values = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| query_unescape(text).map(|text| text.into_owned()).map_err(ApiError::bad_request);
            values.insert(decode(name)?, decode(value)?);
        }
        Ok(Self(values))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn limit(&self) -> Result<usize, ApiError> {
        match self.get("limit") {
            None | Some("") => Ok(PAGE),
            Some(text) => match text.parse() {
                Ok(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
                Ok(_) | Err(_) => Err(ApiError::bad_request(format_args!("limit is a number from 1 to {MAX_PAGE}"))),
            },
        }
    }

    /// The cursor in `after`, of `N` parts.
    fn after<const N: usize>(&self) -> Result<Option<[String; N]>, ApiError> {
        let Some(text) = self.get("after").filter(|text| !text.is_empty()) else { return Ok(None) };
        let parts =
            URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice::<Vec<String>>(&bytes).ok());
        let parts = parts.and_then(|parts| <[String; N]>::try_from(parts).ok());
        parts.map(Some).ok_or_else(|| ApiError::bad_request("after is not a cursor of this listing"))
    }
}

fn cursor(parts: &[&str]) -> String {
    URL_SAFE_NO_PAD.encode(json!(parts).to_string())
}

async fn actors(node: &Arc<Node>, query: &Query) -> Result<Response<Body>, ApiError> {
    let limit = query.limit()?;
    let after = query.after::<2>()?.map(|[kind, id]| node.actors.key(kind.into(), id.into()));
    let wanted = Wanted {
        namespace: node.actors.namespace().to_owned(),
        actor_type: query.get("type").filter(|name| !name.is_empty()).map(str::to_owned),
        id_prefix: query.get("prefix").unwrap_or_default().to_owned(),
        after,
        limit,
    };
    let rows = node.actors.scan_actors(wanted).await.map_err(unavailable)?;
    let next =
        rows.last().filter(|_| rows.len() == limit).map(|row| cursor(&[&row.actor.actor_type, &row.actor.actor_id]));
    let actors: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "type": &*row.actor.actor_type, "id": &*row.actor.actor_id,
                "keys": row.keys, "moreKeys": row.more_keys, "reminders": row.reminders,
            })
        })
        .collect();
    Ok(json_answer(json!({ "actors": actors, "next": next }).to_string()))
}

async fn state(node: &Arc<Node>, query: &Query) -> Result<Response<Body>, ApiError> {
    if let Some(prefix) = query.get("prefix") {
        return state_lines(node, prefix, query).await;
    }
    let key = query.get("key").ok_or_else(|| ApiError::bad_request("key or prefix is missing"))?;
    let meta = node.actors.meta().borrow().clone();
    let apps = Apps { meta: &meta, namespace: node.actors.namespace(), own: &node.config.app_id };
    let (actor, key) = match (query.get("type"), query.get("id")) {
        (Some(kind), Some(id)) => (node.actors.key(kind.into(), id.into()), key.to_owned()),
        (None, None) => {
            let parts: Vec<&str> = key.split("||").collect();
            let [app, kind, id, key] = parts.as_slice() else {
                let why = "key is app||type||id||key; parts that contain || go into type=, id= and key=";
                return Err(ApiError::bad_request(why));
            };
            if apps.of(kind) != *app {
                return Err(no_state());
            }
            (node.actors.key((*kind).into(), (*id).into()), (*key).to_owned())
        }
        (Some(_), None) | (None, Some(_)) => return Err(ApiError::bad_request("type and id go together")),
    };
    let value = node.actors.state(&actor, &key).await.map_err(unavailable)?.ok_or_else(no_state)?;
    Ok(json_answer(row_json(&apps, &actor, &key, &value, None)))
}

fn no_state() -> ApiError {
    ApiError::new(Code::NotFound, "nothing is stored under that key")
}

/// Rows below a prefix of `app||type||id||key`, one JSON object a line.
async fn state_lines(node: &Arc<Node>, prefix: &str, query: &Query) -> Result<Response<Body>, ApiError> {
    let limit = query.limit()?;
    let meta = node.actors.meta().borrow().clone();
    let apps = Apps { meta: &meta, namespace: node.actors.namespace(), own: &node.config.app_id };
    let after = query.after::<3>()?;
    let mut after = after.map(|[kind, id, key]| (node.actors.key(kind.into(), id.into()), key));
    // Where the prefix fixes type and id, the scan starts there.
    if after.is_none() {
        let mut parts = prefix.splitn(4, "||").skip(1);
        let (kind, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !kind.is_empty() {
            after = Some((node.actors.key(kind.into(), id.into()), String::new()));
        }
    }
    let mut lines = String::new();
    let (mut found, mut visited) = (0, 0);
    'scan: loop {
        let rows = node.actors.scan_state(after.clone(), limit.max(PAGE)).await.map_err(unavailable)?;
        let last = rows.len() < limit.max(PAGE);
        for StateRow { actor, key, value } in &rows {
            let name = apps.key(actor, key);
            if name.starts_with(prefix) && &*actor.namespace == apps.namespace {
                let cursor = cursor(&[&actor.actor_type, &actor.actor_id, key]);
                lines.push_str(&row_json(&apps, actor, key, value, Some(cursor)));
                lines.push('\n');
                found += 1;
                if found == limit {
                    break 'scan;
                }
            } else if is_beyond(prefix, actor) {
                break 'scan;
            }
        }
        visited += rows.len();
        after = rows.last().map(|row| (row.actor.clone(), row.key.clone()));
        if last {
            break;
        }
        if visited >= MAX_VISITED {
            if let Some((actor, key)) = &after {
                let cursor = cursor(&[&actor.actor_type, &actor.actor_id, key]);
                lines.push_str(&json!({ "more": true, "cursor": cursor }).to_string());
                lines.push('\n');
            }
            break;
        }
    }
    let mut response = Response::new(Body::full(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// Whether rows from this actor on cannot match: its type sorts after the prefix's.
fn is_beyond(prefix: &str, actor: &ActorKey) -> bool {
    match prefix.split("||").nth(1) {
        Some(kind) => &*actor.actor_type > kind && !actor.actor_type.starts_with(kind),
        None => false,
    }
}

async fn reminders(node: &Arc<Node>, query: &Query) -> Result<Response<Body>, ApiError> {
    let limit = query.limit()?;
    let after = query.after::<3>()?.map(|[kind, id, name]| (node.actors.key(kind.into(), id.into()), name));
    let kind = query.get("type").filter(|kind| !kind.is_empty());
    let id = query.get("id").filter(|id| !id.is_empty());
    let wanted = |actor: &ActorKey| {
        kind.is_none_or(|kind| *actor.actor_type == *kind) && id.is_none_or(|id| *actor.actor_id == *id)
    };
    let mut found = Vec::new();
    let mut after = after;
    let mut next = None;
    let mut visited = 0;
    loop {
        let page = limit.max(PAGE);
        let rows = node.actors.scan_reminders(after.clone(), page).await.map_err(unavailable)?;
        let last = rows.len() < page;
        after = rows.last().map(|(actor, name, _)| (actor.clone(), name.clone()));
        for (actor, name, reminder) in rows.into_iter().filter(|(actor, _, _)| wanted(actor)) {
            if found.len() == limit {
                let (actor, name, _): &(ActorKey, String, Reminder) = &found[limit - 1];
                next = Some(cursor(&[&actor.actor_type, &actor.actor_id, name]));
                break;
            }
            found.push((actor, name, reminder));
        }
        visited += page;
        if last || next.is_some() {
            break;
        }
        if visited >= MAX_VISITED {
            next = after.as_ref().map(|(actor, name)| cursor(&[&actor.actor_type, &actor.actor_id, name]));
            break;
        }
    }
    let dropped = node.actors.dropped(DROPPED_SHOWN).await.map_err(unavailable)?;
    let dropped: Vec<_> = dropped.iter().filter(|firing| wanted(&firing.actor)).map(dropped_json).collect();
    let rows: Vec<_> = found.iter().map(|(actor, name, reminder)| reminder_json(actor, name, reminder)).collect();
    Ok(json_answer(json!({ "reminders": rows, "next": next, "givenUp": dropped }).to_string()))
}

fn reminder_json(actor: &ActorKey, name: &str, reminder: &Reminder) -> serde_json::Value {
    json!({
        "type": &*actor.actor_type, "id": &*actor.actor_id, "name": name,
        "due": rfc3339(reminder.due), "occurrence": reminder.occurrence, "dropped": reminder.dropped,
        "dueTime": reminder.spec.due_time, "period": reminder.spec.period, "ttl": reminder.spec.ttl,
        "registered": rfc3339(reminder.registered),
    })
}

fn dropped_json(firing: &DroppedFiring) -> serde_json::Value {
    json!({
        "type": &*firing.actor.actor_type, "id": &*firing.actor.actor_id, "name": firing.name,
        "occurrence": firing.occurrence, "due": rfc3339(firing.due), "droppedAt": rfc3339(firing.dropped_at),
        "reason": firing.reason,
    })
}

/// Which app a type's state keys begin with.
struct Apps<'a> {
    meta: &'a MetaState,
    namespace: &'a str,
    own: &'a str,
}

impl Apps<'_> {
    fn of(&self, actor_type: &str) -> &str {
        let key = (self.namespace.to_owned(), actor_type.to_owned());
        self.meta.types.get(&key).map_or(self.own, String::as_str)
    }

    fn key(&self, actor: &ActorKey, key: &str) -> String {
        format!("{}||{}||{}||{key}", self.of(&actor.actor_type), actor.actor_type, actor.actor_id)
    }
}

fn row_json(apps: &Apps<'_>, actor: &ActorKey, key: &str, value: &StateValue, cursor: Option<String>) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::from("{\"key\":");
    out.push_str(&text(&apps.key(actor, key)));
    let (kind, id) = (text(&actor.actor_type), text(&actor.actor_id));
    let _ = write!(out, ",\"type\":{kind},\"id\":{id},\"stateKey\":{},\"value\":", text(key));
    match std::str::from_utf8(&value.value).ok().filter(|json| serde_json::from_str::<&RawValue>(json).is_ok()) {
        Some(json) => out.push_str(json),
        // Not JSON: written by a caller that stores bytes.
        None => out.push_str(&text(&base64::engine::general_purpose::STANDARD.encode(&value.value))),
    }
    if let Some(expires) = value.expires_at {
        let _ = write!(out, ",\"expiresAt\":{}", text(&rfc3339(expires)));
    }
    if let Some(cursor) = cursor {
        let _ = write!(out, ",\"cursor\":{}", text(&cursor));
    }
    out.push('}');
    out
}

fn rfc3339(at: Timestamp) -> String {
    chrono::DateTime::from_timestamp_micros(at.as_micros())
        .map_or_else(|| "beyond the calendar".to_owned(), |at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

fn unavailable(error: Error) -> ApiError {
    ApiError::new(Code::Unavailable, error.to_string()).retry_after(std::time::Duration::from_secs(1))
}

/// Fuzz body: a query string. Limits hold, and a cursor that is understood is the one it prints as.
pub fn fuzz_query(data: &[u8]) {
    fn check<const N: usize>(query: &Query) {
        let Ok(Some(parts)) = query.after::<N>() else { return };
        let printed = cursor(&parts.each_ref().map(String::as_str));
        let again = Query(BTreeMap::from([("after".to_owned(), printed)]));
        assert_eq!(again.after::<N>().ok().flatten(), Some(parts));
    }
    let Ok(query) = Query::parse(&String::from_utf8_lossy(data)) else { return };
    assert!(query.limit().is_ok_and(|limit| (1..=MAX_PAGE).contains(&limit)) || query.get("limit").is_some());
    check::<2>(&query);
    check::<3>(&query);
}
