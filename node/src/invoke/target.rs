//! Whom a request calls, and which method: pure, from its raw path and its headers.
//!
//! Three forms, in this order: the header `dapr-app-id`, Basic credentials of the user `dapr-app-id`, and the path
//! `/v1.0/invoke/<target>/method/<method>`. With the first two, the whole path is the method. The path is read raw and
//! decoded once, since cleaning it first would damage `http://` targets; slashes around the segments do not matter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::ingress::http::route::{Plus, UnescapeError, clean, percent_decode, query_unescape};

pub const APP_ID: HeaderName = HeaderName::from_static("dapr-app-id");

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// `method` is decoded, and not yet in its normal form.
    Call {
        target: String,
        method: Vec<u8>,
    },
    /// The path names a target, and nothing to call there.
    NoMethod {
        target: String,
    },
    NoTarget,
}

/// A target, by the rules for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// `http://…` or `https://…`.
    Url(&'a str),
    App(AppName<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppName<'a> {
    pub app_id: &'a str,
    /// `None` is the caller's own.
    pub namespace: Option<&'a str>,
}

/// Two or more dots, or an empty part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid app id {0}")]
pub struct InvalidAppId(pub String);

/// Finds target and method.
pub fn find(path: &str, headers: &HeaderMap) -> Result<Found, UnescapeError> {
    let decoded = percent_decode(path.as_bytes(), Plus::Itself)?;
    if let Some(target) = named_in_headers(headers) {
        return Ok(Found::Call { target, method: decoded });
    }
    match in_path(&decoded) {
        Found::NoTarget => {
            let cleaned = percent_decode(clean(path).as_bytes(), Plus::Itself)?;
            Ok(in_path(&cleaned))
        }
        found @ (Found::Call { .. } | Found::NoMethod { .. }) => Ok(found),
    }
}

fn named_in_headers(headers: &HeaderMap) -> Option<String> {
    let named = headers.get(&APP_ID).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if let Some(target) = named.filter(|target| !target.is_empty()) {
        return Some(target);
    }
    let credentials = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let credentials = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (user, target) = credentials.split_once(':')?;
    let names = user.eq_ignore_ascii_case("dapr-app-id") && !target.is_empty() && !target.contains(':');
    names.then(|| target.to_owned())
}

fn in_path(path: &[u8]) -> Found {
    let Some(rest) = after_segment(path, b"v1.0").and_then(|rest| after_segment(rest, b"invoke")) else {
        return Found::NoTarget;
    };
    let rest = trim_start_slashes(rest);
    const METHOD: &[u8] = b"/method/";
    let at = rest.windows(METHOD.len()).position(|window| window == METHOD);
    let (target, method) = match at {
        Some(at) => (&rest[..at], Some(&rest[at + METHOD.len()..])),
        None => (rest, None),
    };
    let target = trim_end_slashes(target.strip_suffix(b"/method").filter(|_| method.is_none()).unwrap_or(target));
    if target.is_empty() {
        return Found::NoTarget;
    }
    let target = match method {
        Some(_) => target,
        // Without the separator the target ends at the first slash, unless it is a URL.
        None if target.starts_with(b"http:/") || target.starts_with(b"https:/") => target,
        None => target.split(|byte| *byte == b'/').next().unwrap_or(target),
    };
    let target = String::from_utf8_lossy(target);
    let target = query_unescape(&target).map_or_else(|_| target.to_string(), |decoded| decoded.into_owned());
    match method {
        // The root of an external URL may be called; the root of an app is not named by a URL without a method.
        Some(method) if !trim_start_slashes(method).is_empty() || is_url(&target) => {
            Found::Call { target, method: method.to_vec() }
        }
        Some(_) | None => Found::NoMethod { target },
    }
}

/// What follows the segment `name`, if the path begins with it; slashes before it may be doubled.
fn after_segment<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let inner = path.strip_prefix(b"/")?;
    trim_start_slashes(inner).strip_prefix(name).filter(|rest| rest.first() == Some(&b'/'))
}

fn trim_start_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    &path[start..]
}

fn trim_end_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    &path[..end]
}

pub fn is_url(target: &str) -> bool {
    target.starts_with("http://") || target.starts_with("https://")
}

/// Reads a target that is not the name of an HTTPEndpoint.
pub fn parse(target: &str) -> Result<Target<'_>, InvalidAppId> {
    if is_url(target) {
        return Ok(Target::Url(target));
    }
    let invalid = || InvalidAppId(target.to_owned());
    let mut parts = target.split('.');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(app_id), None, _) => AppName { app_id, namespace: None },
        (Some(app_id), Some(namespace), None) if !namespace.is_empty() => {
            AppName { app_id, namespace: Some(namespace) }
        }
        _ => return Err(invalid()),
    };
    if name.app_id.is_empty() { Err(invalid()) } else { Ok(Target::App(name)) }
}

/// Fuzz body: a path and the values of `dapr-app-id` and `authorization`, one a line. What is found is never nameless,
/// and what the headers name comes before the path.
pub fn fuzz_target(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let path = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for (name, value) in [APP_ID, AUTHORIZATION].into_iter().zip(lines) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let named = named_in_headers(&headers);
    match find(&path, &headers) {
        Ok(Found::Call { target, .. }) => {
            assert!(!target.is_empty() && named.is_none_or(|named| named == target));
            if let Ok(Target::App(name)) = parse(&target) {
                assert!(!name.app_id.is_empty() && name.namespace != Some(""));
            }
        }
        Ok(Found::NoMethod { target }) => assert!(!target.is_empty() && named.is_none()),
        Ok(Found::NoTarget) => assert!(named.is_none()),
        Err(UnescapeError::Escape(_) | UnescapeError::Utf8(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn call(target: &str, method: &str) -> Found {
        Found::Call { target: target.into(), method: method.as_bytes().to_vec() }
    }

    #[test]
    fn the_path_form_tolerates_slashes_and_splits_at_the_first_method() {
        for (path, expected) in [
            ("/v1.0/invoke/app/method/foo", call("app", "foo")),
            ("/v1.0//invoke//app/method//foo", call("app", "/foo")),
            ("//v1.0/invoke/app//method/foo", call("app", "foo")),
            ("/v1.0/invoke/app/method/a/method/b", call("app", "a/method/b")),
            ("/v1.0/invoke/app.ns/method/foo", call("app.ns", "foo")),
            ("/v1.0/invoke/app/method/a%2Fb%23", call("app", "a/b#")),
            ("/v1.0/invoke/http://localhost:80/method/x", call("http://localhost:80", "x")),
            ("/v1.0/invoke/http%3A%2F%2Flocalhost%3A80/method/x", call("http://localhost:80", "x")),
            ("/v1.0/invoke/https://h/api/method/x", call("https://h/api", "x")),
            ("/v1.0/invoke/https://h/method/", call("https://h", "")),
            ("/v1.0/x/../invoke/app/method/foo", call("app", "foo")),
            ("/v1.0/invoke/a+b/method/c+d", call("a b", "c+d")),
        ] {
            assert_eq!(find(path, &headers(&[])), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_path_without_a_method_names_only_its_target() {
        for path in [
            "/v1.0/invoke/app",
            "/v1.0/invoke/app/",
            "/v1.0/invoke/app/method",
            "/v1.0/invoke/app/method/",
            "/v1.0/invoke/app/foo",
        ] {
            assert_eq!(find(path, &headers(&[])), Ok(Found::NoMethod { target: "app".into() }), "{path}");
        }
    }

    #[test]
    fn other_paths_name_no_target() {
        for path in ["/", "", "*", "/v1.0", "/v1.0/invoke", "/v1.0/invoke/", "/v1.0/invokes/app/method/m", "/foo"] {
            assert_eq!(find(path, &headers(&[])), Ok(Found::NoTarget), "{path}");
        }
    }

    #[test]
    fn the_header_comes_before_everything_and_makes_the_path_the_method() {
        let by_header = headers(&[("dapr-app-id", "x"), ("authorization", "Basic ZGFwci1hcHAtaWQ6eQ==")]);
        assert_eq!(find("/foo/bar", &by_header), Ok(call("x", "/foo/bar")));
        assert_eq!(find("/v1.0/invoke/app/method/m", &by_header), Ok(call("x", "/v1.0/invoke/app/method/m")));
        let by_credentials = headers(&[("authorization", "Basic ZGFwci1hcHAtaWQ6eQ==")]);
        assert_eq!(find("/foo", &by_credentials), Ok(call("y", "/foo")));
    }

    #[test]
    fn only_well_formed_credentials_of_that_user_count() {
        let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (credentials, expected) in [
            (encoded("DAPR-App-Id:x"), call("x", "/foo")),
            (encoded("dapr-app-id:x:y"), Found::NoTarget),
            (encoded("someone:x"), Found::NoTarget),
            (encoded("dapr-app-id"), Found::NoTarget),
            (encoded("dapr-app-id:"), Found::NoTarget),
            ("Basic !!".to_owned(), Found::NoTarget),
            ("Bearer x".to_owned(), Found::NoTarget),
        ] {
            let map = headers(&[("authorization", &credentials)]);
            assert_eq!(find("/foo", &map), Ok(expected), "{credentials}");
        }
    }

    #[test]
    fn a_malformed_escape_is_an_error() {
        assert_eq!(find("/v1.0/invoke/app/method/%zz", &headers(&[])), Err(UnescapeError::Escape("%zz".into())));
    }

    #[test]
    fn dots_separate_the_namespace() {
        let app = |app_id, namespace| Ok(Target::App(AppName { app_id, namespace }));
        assert_eq!(parse("app"), app("app", None));
        assert_eq!(parse("app.ns"), app("app", Some("ns")));
        assert_eq!(parse("http://a.b.c"), Ok(Target::Url("http://a.b.c")));
        for bad in ["a.b.c", "", ".ns", "app.", "..."] {
            assert_eq!(parse(bad).unwrap_err().to_string(), format!("invalid app id {bad}"));
        }
    }

    #[test]
    fn no_bytes_make_the_search_panic() {
        let alphabet: [&[u8]; 12] =
            [b"/", b"..", b".", b"%", b"%2F", b"%2e", b"/method/", b"/v1.0/invoke/", b"http://", b"\xff", b"%00", b"a"];
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut data = b"/v1.0/invoke/a".to_vec();
            for _ in 0..8 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                data.extend_from_slice(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            fuzz_target(&data);
        }
    }
}
