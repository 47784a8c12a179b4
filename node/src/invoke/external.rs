//! Calls of URLs outside the cluster: connections per origin, TLS, and redirects where they are followed.
//!
//! A URL given in the call goes by the machine's trust store and returns redirects to the caller. A named endpoint
//! has headers and TLS material of its own, and its redirects are followed as Go's client does it: 301, 302 and 303
//! turn other verbs into GET, 307 and 308 repeat the request if its body is at hand, credentials stay with the host
//! they were meant for. Connections are kept per origin and TLS material, in a bounded number of pools.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use parking_lot::Mutex;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::app::answer::{self, Answer};
use crate::app::http1::{Limits, OPEN, Pool, SendError};
use crate::app::net::{Address, Tls};
use crate::app::tls;
use crate::ingress::http::body::Body;
use crate::invoke::target::is_url;
use crate::resources::HttpEndpoint;
use crate::tasks::{Kind, Tasks};

const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
const LIMITS: Limits = Limits { connections: 1_024, idle: 16, idle_for: Duration::from_secs(30), head: 64 << 10 };
/// Origins that connections are kept for.
const POOLS: usize = 256;
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// A chain of redirects is given up after this many.
const REDIRECTS: usize = 10;
/// Bodies up to this size are kept so that a redirect can repeat them.
const REPEATABLE: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid URL {0:?}")]
    Url(String),
    #[error("{0}")]
    Tls(#[from] tls::Error),
    #[error("{0}")]
    Send(#[from] SendError),
    #[error("{0}")]
    Body(#[from] crate::ingress::http::body::Error),
    #[error("stopped after 10 redirects")]
    Redirects,
    #[error("the endpoint lacks a secret: {0}")]
    Lacks(String),
}

/// Connections are shared by calls that agree in all of this.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    /// Whose TLS material is used; empty for URLs given in calls.
    endpoint: String,
    https: bool,
    host: String,
    port: u16,
}

#[derive(Default)]
pub struct External {
    pools: Mutex<HashMap<Origin, Arc<Pool>>>,
}

impl External {
    /// Keeps the connections tidy until the tasks stop.
    pub fn start(tasks: &Tasks) -> Arc<Self> {
        let external = Arc::new(Self::default());
        let (swept, tasks_of) = (external.clone(), tasks.clone());
        tasks.spawn(Kind::Service, "external-sweep", async move {
            loop {
                tokio::select! {
                    biased;
                    () = tasks_of.stopping() => return,
                    () = tokio::time::sleep(SWEEP_EVERY) => swept.sweep(),
                }
            }
        });
        external
    }

    /// Calls `<url>/<path and query of the request>`, and returns whatever comes back.
    pub async fn call_url(&self, url: &str, request: Request<Body>) -> Result<Response<Body>, Error> {
        let url = joined(url, request.uri())?;
        self.send(&url, None, request).await
    }

    /// Calls a named endpoint and follows its redirects.
    pub async fn call_endpoint(
        &self,
        endpoint: &HttpEndpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Error> {
        if let Some(what) = &endpoint.lacks {
            return Err(Error::Lacks(what.clone()));
        }
        let mut url = joined(&endpoint.base_url, request.uri())?;
        for (name, value) in &endpoint.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let mut replay = Replay::of(&mut request).await?;
        for _ in 0..=REDIRECTS {
            let response = self.send(&url, Some(endpoint), request).await?;
            let Some(next) = target(&response, &url) else { return Ok(response) };
            if !replay.follow(response.status(), &url, &next) {
                return Ok(response);
            }
            request = replay.request();
            url = next;
        }
        Err(Error::Redirects)
    }

    async fn send(
        &self,
        url: &Uri,
        endpoint: Option<&HttpEndpoint>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Error> {
        let pool = self.pool(url, endpoint)?;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or(authority);
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(|_| Error::Url(url.to_string()))?);
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| Error::Url(url.to_string()))?;
        *request.version_mut() = http::Version::HTTP_11;
        let (head, exchange) = pool.send(request, OPEN).await?.into_parts();
        let body = answer::streamed(Answer::Http1(exchange), None, None).await;
        Ok(Response::from_parts(head, body))
    }

    fn pool(&self, url: &Uri, endpoint: Option<&HttpEndpoint>) -> Result<Arc<Pool>, Error> {
        let invalid = || Error::Url(url.to_string());
        let https = url.scheme_str() == Some("https");
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let name = endpoint.map(|endpoint| endpoint.name.clone()).unwrap_or_default();
        let origin = Origin { endpoint: name, https, host: host.to_owned(), port };
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(&origin) {
            return Ok(pool.clone());
        }
        let tls = if https {
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare).map_err(|_| invalid())?;
            let config = endpoint.map_or_else(|| Ok(tls::public()), |endpoint| tls::endpoint(&endpoint.tls))?;
            Some(Tls { config, name })
        } else {
            None
        };
        if pools.len() >= POOLS {
            // Those in use live on in their exchanges.
            pools.retain(|_, pool| !pool.is_unused());
            if pools.len() >= POOLS {
                pools.clear();
            }
        }
        let address = Address { host: host.to_owned(), port, tls, timeout: DIAL_TIMEOUT };
        let pool = Pool::new(address, LIMITS);
        pools.insert(origin, pool.clone());
        Ok(pool)
    }

    fn sweep(&self) {
        let pools: Vec<Arc<Pool>> = self.pools.lock().values().cloned().collect();
        for pool in pools {
            pool.sweep();
        }
    }
}

/// `base`, a slash unless there is one, and the path and query of `uri`.
fn joined(base: &str, uri: &Uri) -> Result<Uri, Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let parsed: Uri = url.parse().map_err(|_| Error::Url(url.clone()))?;
    // Without a path of its own, `http:` reads as a host.
    let is_whole = parsed.scheme().is_some() && parsed.host().is_some_and(|host| !host.is_empty());
    if is_whole { Ok(parsed) } else { Err(Error::Url(url)) }
}

/// Where a redirect leads.
fn target(response: &Response<Body>, from: &Uri) -> Option<Uri> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&response.status()) {
        return None;
    }
    resolve(from, response.headers().get(LOCATION)?.to_str().ok()?)
}

/// Resolves a `Location` against the URL that answered with it.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (from.scheme_str()?, from.authority()?.as_str());
    let absolute = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{}", clean_target(location))
    } else if let Some(query) = location.strip_prefix('?') {
        format!("{scheme}://{authority}{}?{query}", from.path())
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{}", clean_target(&format!("{folder}/{location}")))
    };
    absolute.parse().ok()
}

/// Cleans the path of a target and leaves its query alone.
fn clean_target(target: &str) -> String {
    match target.split_once('?') {
        Some((path, query)) => format!("{}?{query}", crate::ingress::http::route::clean(path)),
        None => crate::ingress::http::route::clean(target).into_owned(),
    }
}

/// What is needed to send a request again somewhere else.
struct Replay {
    method: Method,
    headers: HeaderMap,
    /// `None` when the body streamed away.
    body: Option<Bytes>,
}

impl Replay {
    async fn of(request: &mut Request<Body>) -> Result<Self, Error> {
        let small = request.body().known_length().is_some_and(|length| length <= REPEATABLE);
        if small && request.body().as_full().is_none() {
            let whole = std::mem::take(request.body_mut()).collect(REPEATABLE).await?;
            *request.body_mut() = Body::full(whole);
        }
        let body = request.body().as_full();
        Ok(Self { method: request.method().clone(), headers: request.headers().clone(), body })
    }

    /// Becomes the request that a redirect asks for. Whether it can be sent.
    fn follow(&mut self, status: StatusCode, from: &Uri, to: &Uri) -> bool {
        let repeats = status == StatusCode::TEMPORARY_REDIRECT || status == StatusCode::PERMANENT_REDIRECT;
        if repeats && self.body.is_none() {
            return false;
        }
        if !repeats {
            if self.method != Method::GET && self.method != Method::HEAD {
                self.method = Method::GET;
            }
            self.body = Some(Bytes::new());
            self.headers.remove(CONTENT_LENGTH);
            self.headers.remove(CONTENT_TYPE);
        }
        if from.authority() != to.authority() {
            for name in [AUTHORIZATION, COOKIE, WWW_AUTHENTICATE] {
                self.headers.remove(name);
            }
        }
        true
    }

    fn request(&self) -> Request<Body> {
        let mut request = Request::new(self.body.clone().map_or_else(Body::empty, Body::full));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Fuzz body: a base URL, a path and a `Location`, one a line. What is called or redirected to is a URL of HTTP.
pub fn fuzz_url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (base, path, location) = (line(), line(), line());
    let Ok(path) = path.parse::<Uri>() else { return };
    let Some(url) = Some(base).filter(|base| is_url(base)).and_then(|base| joined(base, &path).ok()) else { return };
    let external = External::default();
    for url in [Some(&url), resolve(&url, location).as_ref()].into_iter().flatten() {
        assert!(matches!(url.scheme_str(), Some("http" | "https")), "{url}");
        if let Ok(pool) = external.pool(url, None) {
            assert!(!pool.address().host.is_empty() && HeaderValue::from_str(&pool.address().authority()).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_and_a_path_join_with_one_slash() {
        for (base, path, joined_url) in [
            ("http://h", "/m?q=1", "http://h/m?q=1"),
            ("http://h:8080/", "/m", "http://h:8080/m"),
            ("https://h/api/", "/m", "https://h/api/m"),
        ] {
            assert_eq!(joined(base, &path.parse().unwrap()).unwrap().to_string(), joined_url);
        }
        for bad in ["http://", "http://a b", "https://[::1"] {
            assert!(joined(bad, &"/m".parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn locations_resolve_against_where_they_came_from() {
        let from: Uri = "http://h:1/a/b?x=1".parse().unwrap();
        for (location, url) in [
            ("https://other/c", "https://other/c"),
            ("//other/c", "http://other/c"),
            ("/c?y=2", "http://h:1/c?y=2"),
            ("c", "http://h:1/a/c"),
            ("../c#part", "http://h:1/c"),
            ("?y=2", "http://h:1/a/b?y=2"),
        ] {
            assert_eq!(resolve(&from, location).unwrap().to_string(), url, "{location}");
        }
    }

    #[test]
    fn redirects_change_verbs_and_keep_secrets_at_home() {
        let replay = || Replay {
            method: Method::POST,
            headers: [(AUTHORIZATION, HeaderValue::from_static("x"))].into_iter().collect(),
            body: Some(Bytes::from_static(b"body")),
        };
        let (here, there): (Uri, Uri) = ("http://a/".parse().unwrap(), "http://b/".parse().unwrap());
        let mut found = replay();
        assert!(found.follow(StatusCode::FOUND, &here, &here));
        assert_eq!((&found.method, found.body.as_deref()), (&Method::GET, Some(&b""[..])));
        assert!(found.headers.contains_key(AUTHORIZATION));
        let mut repeated = replay();
        assert!(repeated.follow(StatusCode::TEMPORARY_REDIRECT, &here, &there));
        assert_eq!((&repeated.method, repeated.body.as_deref()), (&Method::POST, Some(&b"body"[..])));
        assert!(!repeated.headers.contains_key(AUTHORIZATION));
        let mut streamed = Replay { body: None, ..replay() };
        assert!(!streamed.follow(StatusCode::PERMANENT_REDIRECT, &here, &here));
    }
}
