//! From method and path to one of a closed set of routes: pure, without the node.
//!
//! The *escaped* path is cleaned first (duplicate slashes, `.` and `..`), then split, and only then is each captured
//! segment decoded, once, by the rules of a query (`+` is a space). So an encoded slash never splits a segment, and an
//! encoded `..` never climbs. What matches no route, or a route with another verb, is [`Route::Invoke`]: there is no
//! 405 and no generic 404, since any path may be a call of an app named in a header.
//!
//! Not decided here: whether names are allowed (the actor core checks them) and what an invocation's target is
//! (`invoke::target` reads the *raw* path, because cleaning would damage `http://` targets).

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Actor(ActorRoute),
    /// `GET metadata`
    Metadata,
    /// `PUT metadata/{key}`
    MetadataKey {
        key: String,
    },
    /// `GET healthz`
    Healthz,
    /// `GET healthz/outbound`
    HealthzOutbound,
    /// `POST shutdown`
    Shutdown,
    /// Everything below `/cluster/v1/`, whatever the verb.
    Admin(AdminPath),
    /// Everything else: service invocation, or its 404.
    Invoke,
}

/// The actor of a route: decoded, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorPath {
    pub actor_type: Arc<str>,
    pub actor_id: Arc<str>,
}

/// A call of the actors API. Parameters are decoded; the query string stays in the request's URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorRoute {
    /// `GET|POST|PUT|DELETE actors/{type}/{id}/method/{method}`
    Method { actor: ActorPath, method: String },
    /// `POST|PUT actors/{type}/{id}/state`
    SaveState { actor: ActorPath },
    /// `GET actors/{type}/{id}/state/{key}`
    GetState { actor: ActorPath, key: String },
    /// `POST|PUT actors/{type}/{id}/reminders/{name}`
    PutReminder { actor: ActorPath, name: String },
    /// `GET actors/{type}/{id}/reminders/{name}`
    GetReminder { actor: ActorPath, name: String },
    /// `DELETE actors/{type}/{id}/reminders/{name}`
    DeleteReminder { actor: ActorPath, name: String },
    /// `GET actors/{type}/{id}/reminders`: an extension.
    ListReminders { actor: ActorPath },
    /// `POST|PUT actors/{type}/{id}/timers/{name}`
    PutTimer { actor: ActorPath, name: String },
    /// `DELETE actors/{type}/{id}/timers/{name}`
    DeleteTimer { actor: ActorPath, name: String },
    /// `DELETE actors/{type}/{id}`: an extension; state and reminders go in one commit.
    DeleteActor { actor: ActorPath },
}

impl ActorRoute {
    pub fn actor(&self) -> &ActorPath {
        match self {
            ActorRoute::Method { actor, .. }
            | ActorRoute::SaveState { actor }
            | ActorRoute::GetState { actor, .. }
            | ActorRoute::PutReminder { actor, .. }
            | ActorRoute::GetReminder { actor, .. }
            | ActorRoute::DeleteReminder { actor, .. }
            | ActorRoute::ListReminders { actor }
            | ActorRoute::PutTimer { actor, .. }
            | ActorRoute::DeleteTimer { actor, .. }
            | ActorRoute::DeleteActor { actor } => actor,
        }
    }
}

/// The decoded segments after `/cluster/v1/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminPath(pub Vec<String>);

impl AdminPath {
    /// The segments, to be matched as a slice of strings.
    pub fn segments(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

/// A captured segment that is not a valid escape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to unescape request parameter \"{parameter}\". Error: {why}")]
pub struct RouteError {
    pub parameter: &'static str,
    pub why: UnescapeError,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnescapeError {
    #[error("invalid URL escape \"{0}\"")]
    Escape(String),
    #[error("invalid UTF-8 in \"{0}\"")]
    Utf8(String),
}

/// Routes a request by its verb and its escaped path, which need not be clean.
pub fn route(method: &Method, path: &str) -> Result<Route, RouteError> {
    let path = clean(path);
    match matched(method, &path)? {
        Some(route) => Ok(route),
        None => match path.strip_suffix('/') {
            Some(stripped) if !stripped.is_empty() => Ok(matched(method, stripped)?.unwrap_or(Route::Invoke)),
            Some(_) | None => Ok(Route::Invoke),
        },
    }
}

fn matched(method: &Method, path: &str) -> Result<Option<Route>, RouteError> {
    if let Some(rest) = path.strip_prefix("/v1.0/") {
        return api(method, rest);
    }
    if let Some(rest) = path.strip_prefix("/cluster/v1/") {
        let segments = rest.split('/').map(|segment| unescape("path", segment).map(Cow::into_owned));
        return Ok(Some(Route::Admin(AdminPath(segments.collect::<Result<_, _>>()?))));
    }
    Ok(None)
}

fn api(method: &Method, rest: &str) -> Result<Option<Route>, RouteError> {
    if let Some(rest) = rest.strip_prefix("actors/") {
        return Ok(actors(method, rest)?.map(Route::Actor));
    }
    if let Some(key) = rest.strip_prefix("metadata/") {
        if method == Method::PUT && !key.is_empty() && !key.contains('/') {
            return Ok(Some(Route::MetadataKey { key: unescape("key", key)?.into_owned() }));
        }
        return Ok(None);
    }
    let route = match rest {
        "metadata" if method == Method::GET => Route::Metadata,
        "healthz" if method == Method::GET => Route::Healthz,
        "healthz/outbound" if method == Method::GET => Route::HealthzOutbound,
        "shutdown" if method == Method::POST => Route::Shutdown,
        _ => return Ok(None),
    };
    Ok(Some(route))
}

/// What the part after the actor's id names, before the verb is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Actor,
    Method(&'a str),
    State,
    StateKey(&'a str),
    Reminders,
    Reminder(&'a str),
    Timer(&'a str),
}

fn actors(method: &Method, rest: &str) -> Result<Option<ActorRoute>, RouteError> {
    let mut segments = rest.split('/');
    let (Some(actor_type), Some(actor_id)) = (segments.next(), segments.next()) else { return Ok(None) };
    let part = match (segments.next(), segments.next(), segments.next()) {
        (None, None, None) => Part::Actor,
        (Some("state"), None, None) => Part::State,
        (Some("reminders"), None, None) => Part::Reminders,
        (Some(_), Some(""), None) => return Ok(None),
        (Some("method"), Some(name), None) => Part::Method(name),
        (Some("state"), Some(key), None) => Part::StateKey(key),
        (Some("reminders"), Some(name), None) => Part::Reminder(name),
        (Some("timers"), Some(name), None) => Part::Timer(name),
        _ => return Ok(None),
    };
    if actor_type.is_empty() || actor_id.is_empty() {
        return Ok(None);
    }
    let verb = Verb::of(method);
    let known = match part {
        Part::Actor => verb == Verb::Delete,
        Part::Method(_) => verb != Verb::Other,
        Part::State => verb == Verb::Write,
        Part::StateKey(_) | Part::Reminders => verb == Verb::Get,
        Part::Reminder(_) => verb != Verb::Other,
        Part::Timer(_) => verb == Verb::Write || verb == Verb::Delete,
    };
    if !known {
        return Ok(None);
    }
    let actor = ActorPath {
        actor_type: Arc::from(unescape("actorType", actor_type)?),
        actor_id: Arc::from(unescape("actorId", actor_id)?),
    };
    let owned = |parameter, segment| unescape(parameter, segment).map(Cow::into_owned);
    Ok(Some(match part {
        Part::Actor => ActorRoute::DeleteActor { actor },
        Part::Method(name) => ActorRoute::Method { actor, method: owned("method", name)? },
        Part::State => ActorRoute::SaveState { actor },
        Part::StateKey(key) => ActorRoute::GetState { actor, key: owned("key", key)? },
        Part::Reminders => ActorRoute::ListReminders { actor },
        Part::Reminder(name) => {
            let name = owned("name", name)?;
            match verb {
                Verb::Get => ActorRoute::GetReminder { actor, name },
                Verb::Write => ActorRoute::PutReminder { actor, name },
                Verb::Delete => ActorRoute::DeleteReminder { actor, name },
                Verb::Other => return Ok(None),
            }
        }
        Part::Timer(name) => {
            let name = owned("name", name)?;
            match verb {
                Verb::Write => ActorRoute::PutTimer { actor, name },
                Verb::Delete => ActorRoute::DeleteTimer { actor, name },
                Verb::Get | Verb::Other => return Ok(None),
            }
        }
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    /// POST and PUT are one verb everywhere in the actors API.
    Write,
    Delete,
    Other,
}

impl Verb {
    fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Verb::Get,
            Method::POST | Method::PUT => Verb::Write,
            Method::DELETE => Verb::Delete,
            _ => Verb::Other,
        }
    }
}

fn unescape<'a>(parameter: &'static str, segment: &'a str) -> Result<Cow<'a, str>, RouteError> {
    query_unescape(segment).map_err(|why| RouteError { parameter, why })
}

/// Decodes a query component: `%XX` is a byte, `+` a space. Refuses malformed escapes and what is not UTF-8.
pub fn query_unescape(text: &str) -> Result<Cow<'_, str>, UnescapeError> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = percent_decode(text.as_bytes(), Plus::Space)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Cow::Owned(text)),
        Err(_) => Err(UnescapeError::Utf8(text.to_owned())),
    }
}

/// What `+` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plus {
    /// In a query.
    Space,
    /// In a path.
    Itself,
}

/// Decodes `%XX`. Refuses malformed escapes, quoting at most the three bytes that are wrong.
pub fn percent_decode(text: &[u8], plus: Plus) -> Result<Vec<u8>, UnescapeError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let escape = text.get(at + 1).copied().and_then(hex).zip(text.get(at + 2).copied().and_then(hex));
                let Some((high, low)) = escape else {
                    let wrong = &text[at..text.len().min(at + 3)];
                    return Err(UnescapeError::Escape(String::from_utf8_lossy(wrong).into_owned()));
                };
                decoded.push(high << 4 | low);
                at += 3;
            }
            b'+' if plus == Plus::Space => {
                decoded.push(b' ');
                at += 1;
            }
            byte => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Ok(decoded)
}

/// The value of one hexadecimal digit.
pub fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Cleans an absolute path: one slash between segments, no `.` or `..`. A trailing slash is kept. A clean path is
/// borrowed.
pub fn clean(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut cleaned = String::with_capacity(path.len() + 1);
    for segment in &segments {
        cleaned.push('/');
        cleaned.push_str(segment);
    }
    if cleaned.is_empty() || path.ends_with('/') {
        cleaned.push('/');
    }
    Cow::Owned(cleaned)
}

/// Fuzz body: any bytes are a verb and a path; nothing panics, cleaning is stable and never climbs.
pub fn fuzz_route(data: &[u8]) {
    let (verb, path) = match data.split_first() {
        Some((verb, path)) => (verb % 6, String::from_utf8_lossy(path)),
        None => return,
    };
    let verbs = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
    let cleaned = clean(&path);
    assert!(cleaned.starts_with('/'));
    assert_eq!(clean(&cleaned), cleaned);
    assert!(!cleaned.split('/').any(|segment| segment == ".."), "{cleaned}");
    // The answer is one of the closed set; which one is the table tests' business.
    drop(route(&verbs[usize::from(verb)], &path));
}

#[cfg(test)]
#[path = "route_test.rs"]
mod tests;
