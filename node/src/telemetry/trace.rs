//! W3C trace context: which trace a request belongs to, and the headers that say so.
//!
//! Each request gets a span: a child of the caller's `traceparent`, or the root of a fresh trace when there is none or
//! it is malformed. The span's `traceparent` replaces the caller's in the request that goes on to the app, and is put
//! on the answer unless the app set one. `tracestate` travels with a valid parent only. `baggage` is no trace data: it
//! is checked, passed on unchanged and echoed; a malformed one is the caller's mistake.
//!
//! Deliberately absent: sampling decisions and exporting spans.

use std::fmt::Write;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Limits of the W3C baggage specification.
const BAGGAGE_BYTES: usize = 8_192;
const BAGGAGE_MEMBERS: usize = 180;
const BAGGAGE_MEMBER_BYTES: usize = 4_096;

/// The trace context of one request: what goes to the app and, unless it answers with its own, back to the caller.
#[derive(Debug, Clone)]
pub struct Span {
    pub traceparent: HeaderValue,
    pub tracestate: Option<HeaderValue>,
    pub baggage: Option<HeaderValue>,
}

/// The caller's `baggage` does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid baggage header: {0}")]
pub struct InvalidBaggage(&'static str);

/// Takes the trace headers out of a request and puts in those of its span.
pub fn accept(headers: &mut HeaderMap, random: impl FnOnce() -> (u128, u64)) -> Result<Span, InvalidBaggage> {
    let baggage = match headers.get(&BAGGAGE) {
        Some(value) => {
            check_baggage(value.as_bytes())?;
            Some(value.clone())
        }
        None => None,
    };
    let (fresh_trace, span_id) = random();
    let parent = headers.get(&TRACEPARENT).and_then(|value| parse_traceparent(value.as_bytes()));
    let (trace, flags) = parent.unwrap_or((fresh_trace.max(1), 0));
    let tracestate = if parent.is_some() { headers.get(&TRACESTATE).cloned() } else { None };
    let traceparent = traceparent(trace, span_id.max(1), flags);
    headers.insert(TRACEPARENT, traceparent.clone());
    match &tracestate {
        Some(state) => {
            headers.insert(TRACESTATE, state.clone());
        }
        None => {
            headers.remove(&TRACESTATE);
        }
    }
    // The first value counts: several headers become one.
    if let Some(baggage) = &baggage {
        headers.insert(BAGGAGE, baggage.clone());
    }
    Ok(Span { traceparent, tracestate, baggage })
}

impl Span {
    /// Completes an answer: what the app set stays.
    pub fn answer(self, headers: &mut HeaderMap) {
        if !headers.contains_key(&TRACEPARENT) {
            headers.insert(TRACEPARENT, self.traceparent);
            if let Some(state) = self.tracestate {
                headers.entry(TRACESTATE).or_insert(state);
            }
        }
        if let Some(baggage) = self.baggage {
            headers.entry(BAGGAGE).or_insert(baggage);
        }
    }
}

/// (trace id, flags) of a valid `traceparent` of version 00, or of a later one that starts like it.
fn parse_traceparent(value: &[u8]) -> Option<(u128, u8)> {
    let text = std::str::from_utf8(value).ok()?;
    let lower = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if [(version, 2), (trace, 32), (parent, 16), (flags, 2)]
        .iter()
        .any(|(part, len)| part.len() != *len || !lower(part))
    {
        return None;
    }
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok()?;
    let parent = u64::from_str_radix(parent, 16).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (trace != 0 && parent != 0).then_some((trace, flags & 1))
}

fn traceparent(trace: u128, span: u64, flags: u8) -> HeaderValue {
    let mut text = String::with_capacity(55);
    let written = write!(text, "00-{trace:032x}-{span:016x}-{flags:02x}");
    debug_assert!(written.is_ok());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Checks a `baggage` header: a comma list of `key=value` with optional properties.
fn check_baggage(value: &[u8]) -> Result<(), InvalidBaggage> {
    if value.len() > BAGGAGE_BYTES {
        return Err(InvalidBaggage("it is longer than 8192 bytes"));
    }
    if value.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let mut members = 0;
    for member in value.split(|byte| *byte == b',') {
        members += 1;
        if members > BAGGAGE_MEMBERS {
            return Err(InvalidBaggage("it has more than 180 members"));
        }
        if member.len() > BAGGAGE_MEMBER_BYTES {
            return Err(InvalidBaggage("a member is longer than 4096 bytes"));
        }
        check_member(member)?;
    }
    Ok(())
}

fn check_member(member: &[u8]) -> Result<(), InvalidBaggage> {
    let mut parts = member.split(|byte| *byte == b';');
    let pair = parts.next().unwrap_or_default();
    let Some((key, value)) = split_once(pair, b'=') else {
        return Err(InvalidBaggage("a member has no value"));
    };
    check_key(key)?;
    check_value(value)?;
    for property in parts {
        match split_once(property, b'=') {
            Some((key, value)) => {
                check_key(key)?;
                check_value(value)?;
            }
            None => check_key(property)?,
        }
    }
    Ok(())
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn check_key(key: &[u8]) -> Result<(), InvalidBaggage> {
    let key = key.trim_ascii();
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if key.is_empty() || !key.iter().all(token) {
        return Err(InvalidBaggage("a key is not a token"));
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), InvalidBaggage> {
    let value = value.trim_ascii();
    let octet = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
    if !value.iter().all(octet) {
        return Err(InvalidBaggage("a value has a character that is not allowed"));
    }
    let mut rest = value;
    while let Some((_, after)) = split_once(rest, b'%') {
        if after.len() < 2 || !after[..2].iter().all(u8::is_ascii_hexdigit) {
            return Err(InvalidBaggage("a value has a malformed escape"));
        }
        rest = &after[2..];
    }
    Ok(())
}

/// Fuzz body: `traceparent`, `tracestate` and `baggage`, one a line. What goes on is a valid context, and what was
/// accepted once is accepted again.
pub fn fuzz_context(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for (name, value) in [TRACEPARENT, TRACESTATE, BAGGAGE].into_iter().zip(data.splitn(3, |byte| *byte == b'\n')) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let Ok(span) = accept(&mut headers, || (1, 2)) else { return };
    let parsed = parse_traceparent(span.traceparent.as_bytes());
    assert!(parsed.is_some() && headers.get(&TRACEPARENT) == Some(&span.traceparent));
    assert_eq!(headers.get(&TRACESTATE), span.tracestate.as_ref());
    let again = accept(&mut headers, || (3, 4));
    assert_eq!(again.ok().and_then(|span| parse_traceparent(span.traceparent.as_bytes())), parsed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_request_without_context_gets_a_fresh_trace() {
        let mut map = headers(&[]);
        let span = accept(&mut map, || (0xab, 0xcd)).unwrap();
        assert_eq!(span.traceparent, "00-000000000000000000000000000000ab-00000000000000cd-00");
        assert_eq!(map[TRACEPARENT], span.traceparent);
    }

    #[test]
    fn a_valid_parent_keeps_its_trace_and_state_under_another_span() {
        let mut map = headers(&[("traceparent", PARENT), ("tracestate", "a=1")]);
        let span = accept(&mut map, || (1, 2)).unwrap();
        assert_eq!(span.traceparent, "00-0af7651916cd43dd8448eb211c80319c-0000000000000002-01");
        assert_eq!(map[TRACESTATE], "a=1");
    }

    #[test]
    fn a_malformed_parent_is_ignored_with_its_state() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let mut map = headers(&[("traceparent", bad), ("tracestate", "a=1")]);
            let span = accept(&mut map, || (7, 8)).unwrap();
            assert!(span.traceparent.to_str().unwrap().contains("-00000000000000000000000000000007-"), "{bad}");
            assert!(!map.contains_key(TRACESTATE), "{bad}");
        }
    }

    #[test]
    fn the_answer_keeps_what_the_app_set() {
        let mut map = headers(&[("traceparent", PARENT), ("baggage", "k=v")]);
        let span = accept(&mut map, || (1, 2)).unwrap();
        let mut answer = headers(&[("traceparent", "app")]);
        span.clone().answer(&mut answer);
        assert_eq!(answer[TRACEPARENT], "app");
        assert_eq!(answer[BAGGAGE], "k=v");
        let mut answer = headers(&[]);
        span.clone().answer(&mut answer);
        assert_eq!(answer[TRACEPARENT], span.traceparent);
    }

    #[test]
    fn baggage_is_checked_by_the_w3c_grammar() {
        for good in ["", "k=v", "k = v , k2=v2;prop;p=1", "a=%20b", "key1=value1,key2="] {
            assert_eq!(check_baggage(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in ["k", "=v", "k=a b", "k=v,,", "k=%2", "k=\"v\"", "a b=c", "invalid-baggage", "k=v;;"] {
            assert!(check_baggage(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = format!("k={}", "v".repeat(8_200));
        assert!(check_baggage(long.as_bytes()).is_err());
    }

    #[test]
    fn of_several_baggage_headers_the_first_counts() {
        let mut map = HeaderMap::new();
        map.append(BAGGAGE, HeaderValue::from_static("a=1"));
        map.append(BAGGAGE, HeaderValue::from_static("not valid"));
        accept(&mut map, || (1, 2)).unwrap();
        assert_eq!(map.get_all(BAGGAGE).iter().collect::<Vec<_>>(), ["a=1"]);
    }
}
