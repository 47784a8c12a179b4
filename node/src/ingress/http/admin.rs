//! The cluster's own API, below `/cluster/v1/`: what is stored and scheduled, without waking an actor. What the cluster
//! itself is asked is in [`operate`].
//!
//! | request | answer |
//! |---|---|
//! | `GET actors?type=&prefix=&limit=&after=` | actors that have state or reminders, and their keys; ids with a prefix |
//! | `GET state?key=app\|\|type\|\|id\|\|key`, or `type=&id=&key=` | one value and its expiry |
//! | `GET state?prefix=app\|\|type\|\|&limit=&after=` | rows as JSON lines |
//! | `GET reminders?type=&id=&limit=&after=` | reminders; on the first page the latest firings that were given up |
//!
//! A page ends with a cursor (`next`, or `cursor` on each line): an opaque text that goes into `after`. A listing is at
//! its end when `next` is null; in lines, when there are fewer than asked for and none of them is
//! `{"more":true,"cursor":…}`, which is no row: it says that the rows looked at for one page were too many, and where to
//! go on. Parts that contain `||` are named by separate parameters. The app id shown is the one that registered the
//! type first.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::calls::scan::{ReminderRow, Wanted};
use crate::node::Node;
use crate::owner::Error as OwnerError;
use crate::owner::reads::After;

mod operate;
mod walk;

use walk::{Bounds, Found, Named, Of, walk};

/// Rows of a page unless asked otherwise, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Rows looked at for one page, beyond which no further ones are read. A prefix or filter that matches little answers with what it has found so far and a
/// cursor to go on from.
const MAX_VISITED: usize = 100_000;
const NO_SUCH: &str = "no such admin resource; to get there are actors, state, reminders, status, nodes, partitions, \
                       moves and ready, to post drain and leave";
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
        (&Method::GET, ["status"]) => Ok(operate::status(node).await),
        (&Method::GET, ["nodes"]) => Ok(operate::nodes(node).await),
        (&Method::GET, ["partitions"]) => Ok(operate::partitions(node).await),
        (&Method::GET, ["moves"]) => Ok(operate::moves(node).await),
        (&Method::GET, ["ready"]) => operate::ready(node).await,
        (&Method::POST, ["drain"]) => operate::drain(node, &query).await,
        (&Method::POST, ["leave"]) => operate::leave(node, &query).await,
        (_, _) => Err(ApiError::new(Code::NotFound, NO_SUCH)),
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

fn cursor_at((actor, key): &After) -> String {
    cursor(&[&actor.actor_type, &actor.actor_id, key])
}

async fn actors(node: &Arc<Node>, query: &Query) -> Result<Response<Body>, ApiError> {
    let limit = query.limit()?;
    let after = query.after::<2>()?.map(|[kind, id]| node.actors.key(kind.into(), id.into()));
    let wanted = Wanted {
        namespace: node.actors.namespace().to_owned(),
        actor_type: query.get("type").filter(|name| !name.is_empty()).map(str::to_owned),
        id_prefix: query.get("prefix").unwrap_or_default().to_owned(),
    };
    let rows = node.actors.scan_actors(wanted, after, limit).await.map_err(unavailable)?;
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
    let after = after.map(|[kind, id, key]| (node.actors.key(kind.into(), id.into()), key));
    let filter = Named { namespace: apps.namespace, prefix, apps: apps.all(), app_of: |kind: &str| apps.of(kind) };
    let place = |row: &StateRow| (row.actor.clone(), row.key.clone());
    let read = |after, limit| node.actors.scan_state(Some(after), limit);
    let Found { rows, more } = walk(&filter, after, bounds(limit), place, read).await.map_err(unavailable)?;
    let mut lines = String::new();
    for StateRow { actor, key, value } in &rows {
        let cursor = cursor(&[&actor.actor_type, &actor.actor_id, key]);
        lines.push_str(&row_json(&apps, actor, key, value, Some(cursor)));
        lines.push('\n');
    }
    // A full page goes on at the cursor of its last line.
    if let Some(more) = more.filter(|_| rows.len() < limit) {
        lines.push_str(&json!({ "more": true, "cursor": cursor_at(&more) }).to_string());
        lines.push('\n');
    }
    let mut response = Response::new(Body::full(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

async fn reminders(node: &Arc<Node>, query: &Query) -> Result<Response<Body>, ApiError> {
    let limit = query.limit()?;
    let after = query.after::<3>()?.map(|[kind, id, name]| (node.actors.key(kind.into(), id.into()), name));
    let is_first = after.is_none();
    let filter = Of {
        namespace: node.actors.namespace(),
        actor_type: query.get("type").filter(|kind| !kind.is_empty()),
        id: query.get("id").filter(|id| !id.is_empty()),
    };
    let place = |(actor, name, _): &ReminderRow| (actor.clone(), name.clone());
    let read = |after, limit| node.actors.scan_reminders(Some(after), limit);
    // One more than is shown tells whether this is the end.
    let Found { mut rows, more } = walk(&filter, after, bounds(limit + 1), place, read).await.map_err(unavailable)?;
    let next = if rows.len() > limit {
        rows.truncate(limit);
        rows.last().map(|row| cursor_at(&place(row)))
    } else {
        more.as_ref().map(cursor_at)
    };
    let mut dropped = Vec::new();
    if is_first {
        let wanted = |firing: &DroppedFiring| filter.holds(&firing.actor);
        dropped = node.actors.dropped(wanted, DROPPED_SHOWN + 1).await.map_err(unavailable)?;
    }
    let more_dropped = dropped.len() > DROPPED_SHOWN;
    let dropped: Vec<_> = dropped.iter().take(DROPPED_SHOWN).map(dropped_json).collect();
    let rows: Vec<_> = rows.iter().map(|(actor, name, reminder)| reminder_json(actor, name, reminder)).collect();
    let answer = json!({ "reminders": rows, "next": next, "givenUp": dropped, "moreGivenUp": more_dropped });
    Ok(json_answer(answer.to_string()))
}

fn bounds(limit: usize) -> Bounds {
    Bounds { limit, page: limit.max(PAGE), visited: MAX_VISITED }
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

impl<'a> Apps<'a> {
    fn of(&self, actor_type: &str) -> &'a str {
        let key = (self.namespace.to_owned(), actor_type.to_owned());
        self.meta.types.get(&key).map_or(self.own, String::as_str)
    }

    fn all(&self) -> BTreeSet<&'a str> {
        let registered = self.meta.types.iter().filter(|((namespace, _), _)| namespace == self.namespace);
        registered.map(|(_, app)| app.as_str()).chain([self.own]).collect()
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
    let why = if let Error::Owner(OwnerError::NotServing(partition)) = error {
        format!("partition {partition} has no owner that answers: the answer would lack what is there")
    } else {
        error.to_string()
    };
    ApiError::new(Code::Unavailable, why).retry_after(std::time::Duration::from_secs(1))
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
