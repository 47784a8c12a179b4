//! Which headers pass from caller to app and back: pure, in place.
//!
//! What concerns one connection only (hop by hop, and whatever `Connection` lists) goes neither way. What the node
//! itself adds overwrites what came, so that a caller cannot pretend. Declared lengths of answers are dropped; the
//! connection states them again from the body that it really sends.

use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};

const CALLER_APP_ID: HeaderName = HeaderName::from_static("dapr-caller-app-id");
const CALLER_NAMESPACE: HeaderName = HeaderName::from_static("dapr-caller-namespace");
const CALLEE_APP_ID: HeaderName = HeaderName::from_static("dapr-callee-app-id");

/// Headers of a fuzz input; a connection takes no more either.
const MAX_FUZZED: usize = 100;

/// What happens to one header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    /// Passes under `dapr-<name>`.
    Prefix,
}

/// Who calls whom.
#[derive(Debug, Clone)]
pub struct Parties {
    pub caller: HeaderValue,
    pub caller_namespace: HeaderValue,
    pub callee: HeaderValue,
}

/// Turns a caller's headers into those of the request to an app or an external endpoint.
pub fn towards_app(headers: &mut HeaderMap) {
    filter(headers, request_fate);
}

/// Names caller and callee, over whatever the caller sent.
pub fn name_parties(headers: &mut HeaderMap, parties: &Parties) {
    headers.insert(CALLER_APP_ID, parties.caller.clone());
    headers.insert(CALLER_NAMESPACE, parties.caller_namespace.clone());
    headers.insert(CALLEE_APP_ID, parties.callee.clone());
}

/// Turns an app's headers into those of the answer to the caller.
pub fn towards_caller(headers: &mut HeaderMap) {
    filter(headers, answer_fate);
}

/// Whether the caller wants events as they come.
pub fn wants_events(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Marks an answer as a stream of events.
pub fn mark_events(headers: &mut HeaderMap, version: http::Version) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if version <= http::Version::HTTP_11 {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
}

fn filter(headers: &mut HeaderMap, fate: fn(&str) -> Fate) {
    // Most requests lose nothing or little: the list stays empty or short.
    let mut doomed: Vec<HeaderName> = Vec::new();
    let mut prefixed: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        match fate(name.as_str()) {
            Fate::Pass => {}
            Fate::Drop => doomed.push(name.clone()),
            Fate::Prefix => prefixed.push(name.clone()),
        }
    }
    if headers.contains_key(CONNECTION) {
        let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        doomed.extend(listed.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()));
    }
    for name in doomed {
        headers.remove(name);
    }
    for name in prefixed {
        let Ok(renamed) = HeaderName::try_from(format!("dapr-{name}")) else { continue };
        let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        headers.remove(name);
        for value in values {
            headers.append(renamed.clone(), value);
        }
    }
}

fn request_fate(name: &str) -> Fate {
    match name {
        "dapr-app-id" | "dapr-api-token" | "destination-app-id" | "host" | "expect" => Fate::Drop,
        name if is_hop_by_hop(name) || name.ends_with("-bin") => Fate::Drop,
        name if name.starts_with("grpc-") => Fate::Prefix,
        _ => Fate::Pass,
    }
}

fn answer_fate(name: &str) -> Fate {
    match name {
        "content-length" | "dapr-app-id" => Fate::Drop,
        name if is_hop_by_hop(name) => Fate::Drop,
        _ => Fate::Pass,
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "te"
            | "trailer"
            | "proxy-authorization"
            | "proxy-authenticate"
    )
}

/// Fuzz body: lines of `name: value`. Whichever way they go, nothing of one connection alone goes along.
pub fn fuzz_headers(data: &[u8]) {
    let mut given = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(MAX_FUZZED) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let parsed = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = parsed {
            given.append(name, value);
        }
    }
    for way in [towards_app, towards_caller] {
        let mut headers = given.clone();
        way(&mut headers);
        assert!(!headers.keys().any(|name| is_hop_by_hop(name.as_str())), "{headers:?}");
        assert!(headers.len() <= given.len());
    }
    let _ = wants_events(&given);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        map.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn what_concerns_one_connection_does_not_pass() {
        let hop = [
            ("connection", "close, X-Mine"),
            ("connection", "other"),
            ("x-mine", "1"),
            ("other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("proxy-authorization", "x"),
            ("proxy-authenticate", "x"),
            ("x-kept", "1"),
        ];
        for way in [towards_app, towards_caller] {
            let mut map = headers(&hop);
            way(&mut map);
            assert_eq!(names(&map), ["x-kept"]);
        }
    }

    #[test]
    fn requests_lose_what_is_for_the_node_alone() {
        let mut map = headers(&[
            ("dapr-app-id", "x"),
            ("dapr-api-token", "secret"),
            ("destination-app-id", "x"),
            ("grpc-trace-bin", "x"),
            ("thing-bin", "x"),
            ("authorization", "Basic x"),
            ("content-type", "application/json; utf-8"),
            ("content-length", "3"),
            ("grpc-timeout", "1S"),
            ("accept-encoding", "gzip"),
        ]);
        towards_app(&mut map);
        let mut left = names(&map);
        left.sort_unstable();
        assert_eq!(left, ["accept-encoding", "authorization", "content-length", "content-type", "dapr-grpc-timeout"]);
    }

    #[test]
    fn answers_lose_their_declared_length() {
        let mut map =
            headers(&[("content-length", "999"), ("dapr-app-id", "x"), ("set-cookie", "a"), ("set-cookie", "b")]);
        towards_caller(&mut map);
        assert_eq!(map.get_all("set-cookie").iter().count(), 2);
        assert_eq!(names(&map), ["set-cookie"]);
    }

    #[test]
    fn parties_overwrite_what_the_caller_pretended() {
        let mut map = headers(&[("dapr-caller-app-id", "admin"), ("dapr-caller-app-id", "root")]);
        let value = HeaderValue::from_static;
        let parties = Parties { caller: value("me"), caller_namespace: value("ns"), callee: value("you") };
        name_parties(&mut map, &parties);
        assert_eq!(map.get_all("dapr-caller-app-id").iter().collect::<Vec<_>>(), ["me"]);
        assert_eq!((&map["dapr-caller-namespace"], &map["dapr-callee-app-id"]), (&value("ns"), &value("you")));
    }

    #[test]
    fn events_are_wanted_by_exactly_that_type() {
        for (accept, wanted) in [(" Text/Event-Stream ", true), ("text/event-stream, */*", false), ("*/*", false)] {
            let mut map = HeaderMap::new();
            map.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_events(&map), wanted, "{accept}");
        }
    }
}
