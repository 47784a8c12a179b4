//! Building the path of a request to an app: where an actor is found in it, and what must be percent-encoded. Pure.
//!
//! Ids and names are encoded per segment, so that an app's router sees as many segments as the node meant. Methods of
//! invocations pass as they are, as in Dapr: an escape that is left in them is sent on, a lone `%` cannot be.
//!
//! The length of names is bounded where they come in, far below the longest URI: a path of names alone is always one.

use callboard_types::ActorKey;
use http::Uri;
use http::uri::InvalidUri;

use crate::ingress::http::route::{Plus, hex, percent_decode};

/// Longest URI that the HTTP library holds.
const MAX_URI: usize = u16::MAX as usize - 1;

/// A `%` that starts no escape, in a path that must be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL escape \"{0}\"")]
pub struct BadEscape(pub String);

/// `/actors/{type}/{id}`: the actor's instance.
pub fn actor(actor: &ActorKey) -> Uri {
    of_names(instance(actor, 0))
}

/// `/actors/{type}/{id}/method/remind/{name}`
pub fn reminder(actor: &ActorKey, name: &str) -> Uri {
    callback(actor, "/method/remind/", name)
}

/// `/actors/{type}/{id}/method/timer/{name}`
pub fn timer(actor: &ActorKey, name: &str) -> Uri {
    callback(actor, "/method/timer/", name)
}

/// `/actors/{type}/{id}/method/{method}?{query}`, the method normalised and the query as it came.
///
/// # Errors
///
/// The query is none of a URI, or all together is too long.
pub fn method(actor: &ActorKey, method: &str, query: Option<&str>) -> Result<Uri, InvalidUri> {
    let mut path = instance(actor, "/method/?".len() + method.len() + query.map_or(0, str::len));
    path.push_str("/method/");
    push_method(&mut path, method);
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    Uri::try_from(path)
}

fn callback(actor: &ActorKey, of: &str, name: &str) -> Uri {
    let mut path = instance(actor, of.len() + name.len());
    path.push_str(of);
    push_segment(&mut path, name);
    of_names(path)
}

/// With room for `more` bytes behind it.
fn instance(actor: &ActorKey, more: usize) -> String {
    let mut path = String::with_capacity("/actors//".len() + actor.actor_type.len() + actor.actor_id.len() + more);
    path.push_str("/actors/");
    push_segment(&mut path, &actor.actor_type);
    path.push('/');
    push_segment(&mut path, &actor.actor_id);
    path
}

/// What is encoded and bounded is a URI; the fallback only spares a panic path.
fn of_names(path: String) -> Uri {
    Uri::try_from(path).unwrap_or_default()
}

/// Appends one segment: everything that would end or change it is encoded, `/` and `%` too.
fn push_segment(path: &mut String, segment: &str) {
    for byte in segment.bytes() {
        if byte != b'/' && byte != b'%' && is_plain(byte) {
            path.push(byte as char);
        } else {
            push_escaped(path, byte);
        }
    }
}

/// Appends a normalised method: slashes separate, everything else is encoded as in a segment.
fn push_method(path: &mut String, method: &str) {
    for byte in method.bytes() {
        if byte != b'%' && is_plain(byte) {
            path.push(byte as char);
        } else {
            push_escaped(path, byte);
        }
    }
}

/// Appends a normalised method as it is: escapes in it stay escapes, and a `%` that starts none is an error.
pub fn push_verbatim(path: &mut String, method: &[u8]) -> Result<(), BadEscape> {
    for (at, byte) in method.iter().copied().enumerate() {
        if byte == b'%' {
            let digits = method.get(at + 1).copied().and_then(hex).zip(method.get(at + 2).copied().and_then(hex));
            if digits.is_none() {
                let wrong = &method[at..method.len().min(at + 3)];
                return Err(BadEscape(String::from_utf8_lossy(wrong).into_owned()));
            }
            path.push('%');
        } else if is_plain(byte) {
            path.push(byte as char);
        } else {
            push_escaped(path, byte);
        }
    }
    Ok(())
}

/// Characters of a path that need no escape.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]".contains(&byte)
}

fn push_escaped(path: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    path.push('%');
    path.push(DIGITS[usize::from(byte >> 4)] as char);
    path.push(DIGITS[usize::from(byte & 15)] as char);
}

/// Fuzz body: a segment stays one, a method keeps its slashes, both decode to what they were, and every path is a URI.
pub fn fuzz_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut segment, mut method, mut verbatim) = ("/".to_owned(), "/".to_owned(), "/".to_owned());
    push_segment(&mut segment, &text);
    push_method(&mut method, &text);
    assert_eq!(segment.matches('/').count(), 1);
    assert_eq!(method.matches('/').count(), 1 + text.matches('/').count());
    for path in [&segment, &method] {
        assert_eq!(percent_decode(&path.as_bytes()[1..], Plus::Itself).as_deref(), Ok(text.as_bytes()));
    }
    let sent = push_verbatim(&mut verbatim, data);
    for path in [Some(segment), Some(method), sent.is_ok().then_some(verbatim)].into_iter().flatten() {
        let is_uri = path.parse::<http::Uri>().is_ok_and(|uri| uri.path() == path && uri.query().is_none());
        assert!(is_uri || path.len() > MAX_URI, "{path}");
    }
}

#[cfg(test)]
mod tests {
    use callboard_engine::names::MAX_NAME;

    use super::*;

    #[test]
    fn an_actors_paths_have_the_segments_that_apps_route_by() {
        let of = ActorKey::new("default", "a cat", "x/y%||\u{fc}");
        let at = "/actors/a%20cat/x%2Fy%25%7C%7C%C3%BC";
        assert_eq!(actor(&of), at);
        assert_eq!(reminder(&of, "r/?").to_string(), format!("{at}/method/remind/r%2F%3F"));
        assert_eq!(timer(&of, "t%").to_string(), format!("{at}/method/timer/t%25"));
        assert_eq!(method(&of, "a/b c", None).unwrap().to_string(), format!("{at}/method/a/b%20c"));
        assert_eq!(method(&of, "m", Some("q=%41&r")).unwrap().to_string(), format!("{at}/method/m?q=%41&r"));
    }

    #[test]
    fn the_longest_names_make_a_path_and_only_a_method_may_be_too_long() {
        let longest = "\u{10ffff}".repeat(MAX_NAME);
        let of = ActorKey::new("default", longest.as_str(), longest.as_str());
        for path in [actor(&of), reminder(&of, &longest), timer(&of, &longest)] {
            assert!(path.path().starts_with("/actors/%F4%8F%BF%BF"), "{path}");
        }
        assert!(method(&of, &"m".repeat(MAX_URI), None).is_err());
        assert!(method(&of, "m", Some("a b")).is_err());
    }

    #[test]
    fn a_segment_never_becomes_two() {
        let mut path = String::new();
        push_segment(&mut path, "a/b c%41?#\u{fc}|");
        assert_eq!(path, "a%2Fb%20c%2541%3F%23%C3%BC%7C");
    }

    #[test]
    fn a_method_keeps_its_slashes() {
        let mut path = String::new();
        push_method(&mut path, "a/b%c");
        assert_eq!(path, "a/b%25c");
    }

    #[test]
    fn a_verbatim_method_keeps_escapes_and_refuses_a_lone_percent() {
        let mut path = String::new();
        push_verbatim(&mut path, b"a%41/\"*\\ \xff").unwrap();
        assert_eq!(path, "a%41/%22*%5C%20%FF");
        assert_eq!(push_verbatim(&mut path, b"x%pu").unwrap_err().to_string(), "invalid URL escape \"%pu\"");
        assert_eq!(push_verbatim(&mut path, b"x%").unwrap_err().to_string(), "invalid URL escape \"%\"");
    }
}
