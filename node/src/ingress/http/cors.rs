//! Cross-origin requests: which origins a browser's pages may call the API from. Pure.
//!
//! Without configured origins there is no such layer at all: no header is added and OPTIONS is a request like any
//! other. With it, a preflight is answered here, before the token is asked for, with 200 whether or not the origin is
//! allowed; what is allowed shows in the headers.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, Response};

use super::body::Body;

#[derive(Debug, Clone)]
pub struct Cors {
    any: bool,
    origins: Vec<String>,
}

impl Cors {
    /// `None` without origins.
    pub fn new(origins: &[String]) -> Option<Self> {
        let origins: Vec<String> = origins.iter().map(|origin| origin.trim().to_ascii_lowercase()).collect();
        let origins: Vec<String> = origins.into_iter().filter(|origin| !origin.is_empty()).collect();
        (!origins.is_empty()).then(|| Self { any: origins.iter().any(|origin| origin == "*"), origins })
    }

    /// The whole answer to a preflight; `None` for every other request.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        if method != Method::OPTIONS {
            return None;
        }
        let mut response = Response::new(Body::empty());
        let answer = response.headers_mut();
        for name in ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"] {
            answer.append(VARY, HeaderValue::from_static(name));
        }
        if let (Some(origin), Some(method)) = (self.allowed(headers), allowed_method(asked)) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
            if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
        }
        Some(response)
    }

    /// What to add to the answer of a request that is no preflight.
    pub fn grant(&self, headers: &HeaderMap) -> Grant {
        Grant { origin: self.allowed(headers) }
    }

    /// What `Access-Control-Allow-Origin` says to this caller, if anything.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.origins.contains(&text).then(|| origin.clone())
    }
}

/// Headers of an answer to a cross-origin request.
#[derive(Debug)]
pub struct Grant {
    origin: Option<HeaderValue>,
}

impl Grant {
    pub fn answer(self, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }
}

fn allowed_method(asked: &HeaderValue) -> Option<HeaderValue> {
    let asked = asked.to_str().ok()?.to_ascii_uppercase();
    let known = ["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    if known.contains(&asked.as_str()) { HeaderValue::try_from(asked).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Option<Cors> {
        Cors::new(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>())
    }

    fn from(origin: &str, asked: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        if let Some(asked) = asked {
            headers.insert(ACCESS_CONTROL_REQUEST_METHOD, asked.parse().unwrap());
        }
        headers
    }

    #[test]
    fn no_origins_means_no_layer() {
        assert!(cors(&[]).is_none());
        assert!(cors(&["", " "]).is_none());
    }

    #[test]
    fn a_preflight_shows_only_allowed_origins_and_verbs() {
        let cors = cors(&["http://a.example", "http://B.example"]).unwrap();
        for (origin, asked, allowed) in [
            ("http://a.example", "put", true),
            ("http://b.example", "DELETE", true),
            ("http://c.example", "GET", false),
            ("http://a.example", "BREW", false),
        ] {
            let response = cors.preflight(&Method::OPTIONS, &from(origin, Some(asked))).unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.headers().contains_key(VARY));
            let shown = response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(shown.map(|value| value == origin), allowed.then_some(true), "{origin} {asked}");
        }
    }

    #[test]
    fn only_options_with_a_requested_method_is_a_preflight() {
        let cors = cors(&["*"]).unwrap();
        assert!(cors.preflight(&Method::OPTIONS, &from("http://a", None)).is_none());
        assert!(cors.preflight(&Method::GET, &from("http://a", Some("GET"))).is_none());
        let response = cors.preflight(&Method::OPTIONS, &from("http://a", Some("GET"))).unwrap();
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }

    #[test]
    fn answers_vary_by_origin_whether_or_not_it_is_allowed() {
        let cors = cors(&["http://a"]).unwrap();
        let (mut good, mut bad) = (HeaderMap::new(), HeaderMap::new());
        cors.grant(&from("http://a", None)).answer(&mut good);
        cors.grant(&from("http://b", None)).answer(&mut bad);
        assert_eq!(good[ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
        assert!(good.contains_key(VARY) && bad.contains_key(VARY) && !bad.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}
