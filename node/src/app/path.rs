//! Building the path of a request to an app: what must be percent-encoded. Pure.
//!
//! Ids and names are encoded per segment, so that an app's router sees as many segments as the node meant. Methods of
//! invocations pass as they are, as in Dapr: an escape that is left in them is sent on, a lone `%` cannot be.

use crate::ingress::http::route::{Plus, hex, percent_decode};

/// Longest URI that the HTTP library holds.
const MAX_URI: usize = u16::MAX as usize - 1;

/// A `%` that starts no escape, in a path that must be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL escape \"{0}\"")]
pub struct BadEscape(pub String);

/// Appends one segment: everything that would end or change it is encoded, `/` and `%` too.
pub fn push_segment(path: &mut String, segment: &str) {
    for byte in segment.bytes() {
        if byte != b'/' && byte != b'%' && is_plain(byte) {
            path.push(byte as char);
        } else {
            push_escaped(path, byte);
        }
    }
}

/// Appends a normalised method: slashes separate, everything else is encoded as in a segment.
pub fn push_method(path: &mut String, method: &str) {
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
    use super::*;

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
