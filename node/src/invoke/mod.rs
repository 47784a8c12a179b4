//! Service invocation: a request names an app or a URL, and gets that one's answer, unchanged.
//!
//! The road: `target` finds whom the request calls, `method` brings the method into its normal form, the resolver says
//! where the callee is, `headers` keeps to itself what is not for others, and the app channel or `external` carries the
//! bodies both ways as they come. Status, headers and body of the callee are returned as they are, whatever they are;
//! every failure of the node itself is 500 `ERR_DIRECT_INVOKE`.
//!
//! A callee that cannot be found is looked for again ([`RETRIES`] times, [`RETRY_PAUSE`] apart), but only for requests
//! whose length is known. An answer, of whatever status, is never a reason to send a request again.

mod external;
pub(crate) mod headers;
pub mod method;
pub mod remote;
pub mod target;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use callboard_types::NodeId;
use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode, Uri};

use crate::app::http1::SendError;
use crate::app::path::push_verbatim;
use crate::app::{AppChannel, Error as AppError};
use crate::config::Config;
use crate::ingress::http::body::Body;
use crate::ingress::http::error::{ApiError, Code, text};
use crate::resources::{HttpEndpoint, Resources};
use crate::tasks::Tasks;

pub use external::fuzz_url;
pub use headers::fuzz_headers;

use external::External;
use headers::Parties;
use remote::{HASH_KEY, Place, REFUSED, Remote};
use target::{AppName, Found, Target};

/// Dapr's built-in policy for calls of apps.
const RETRIES: usize = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where a callee is.
enum Destination {
    /// The app of this node.
    Local,
    /// An instance beside another node.
    Node(NodeId),
    /// A URL given in the call.
    Url(String),
    /// A named HTTPEndpoint.
    Endpoint(Arc<HttpEndpoint>),
}

/// Why there is no destination.
enum Unresolved {
    /// Nobody of that name is known at the moment.
    Nowhere,
    Invalid(String),
}

/// Knows where apps are.
struct Resolver {
    app_id: String,
    namespace: String,
    resources: Arc<Resources>,
}

impl Resolver {
    fn resolve(
        &self,
        target: &str,
        remote: Option<&Remote>,
        key: Option<&HeaderValue>,
    ) -> Result<Destination, Unresolved> {
        if let Some(endpoint) = self.resources.endpoint(target) {
            return Ok(Destination::Endpoint(endpoint.clone()));
        }
        match target::parse(target) {
            Ok(Target::Url(url)) => Ok(Destination::Url(url.to_owned())),
            Ok(Target::App(name)) => self.instance(name, remote, key),
            Err(invalid) => Err(Unresolved::Invalid(invalid.to_string())),
        }
    }

    /// The own app, unless a key says otherwise or only others of its name are healthy; else one beside another node.
    fn instance(
        &self,
        name: AppName<'_>,
        remote: Option<&Remote>,
        key: Option<&HeaderValue>,
    ) -> Result<Destination, Unresolved> {
        let namespace = name.namespace.unwrap_or(&self.namespace);
        match remote.and_then(|remote| remote.choose(namespace, name.app_id, key)) {
            Some(Place::At(node)) => Ok(Destination::Node(node)),
            Some(Place::Here) => Ok(Destination::Local),
            None if self.is_own(name) => Ok(Destination::Local),
            None => Err(Unresolved::Nowhere),
        }
    }

    fn is_own(&self, name: AppName<'_>) -> bool {
        name.app_id == self.app_id && name.namespace.is_none_or(|namespace| namespace == self.namespace)
    }
}

/// Invokes services; clones share it.
#[derive(Clone)]
pub struct Invoker {
    inner: Arc<Inner>,
}

struct Inner {
    resolver: Resolver,
    app: AppChannel,
    external: Arc<External>,
    /// Set when the node is one of a cluster.
    remote: OnceLock<Remote>,
    /// Of a call of the own app.
    own: Parties,
}

impl Invoker {
    pub fn start(config: &Config, app: AppChannel, resources: Arc<Resources>, tasks: &Tasks) -> Self {
        // Characters that a header cannot carry are refused when the configuration is read.
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        let (app_id, namespace) = (config.app_id.clone(), config.namespace.clone());
        let own = Parties { caller: value(&app_id), caller_namespace: value(&namespace), callee: value(&app_id) };
        let resolver = Resolver { app_id, namespace, resources };
        Self {
            inner: Arc::new(Inner { resolver, app, external: External::start(tasks), remote: OnceLock::new(), own }),
        }
    }

    /// Answers a request of the HTTP API that is no other route.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        match target::find(request.uri().path(), request.headers()) {
            Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
            Ok(Found::NoTarget) => no_target().into_response(),
            Ok(Found::NoMethod { target }) => no_method(&target).into_response(),
            Ok(Found::Call { target, method }) => match self.invoke(&target, &method, request).await {
                Ok(response) => response,
                Err(error) => error.into_response(),
            },
        }
    }

    /// Calls `method` of `target` with the headers, query and body of `request`.
    pub async fn invoke(
        &self,
        target: &str,
        method: &[u8],
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let failed = |why: &dyn std::fmt::Display| ApiError::invoke(target, why);
        let method = method::normalize_bytes(method)
            .map_err(|why| failed(&format_args!("rpc error: code = InvalidArgument desc = invalid method: {why}")))?;
        let key = request.headers_mut().remove(&HASH_KEY);
        let known_length = request.body().known_length().is_some();
        let destination = self.resolve(target, key.as_ref(), known_length).await?;
        if request.method() == Method::CONNECT {
            return Err(failed(&"the method CONNECT cannot be invoked"));
        }
        if request.body().is_declared_too_large() {
            request.body_mut().discard().await;
            return Err(failed(&"stream too large"));
        }
        *request.uri_mut() = uri(&method, request.uri().query()).map_err(|why| failed(&why))?;
        known_verb(request.method_mut());
        let (version, events) = (request.version(), headers::wants_events(request.headers()));
        headers::towards_app(request.headers_mut());
        let external = &self.inner.external;
        // Calls of the outside are boxed: they are the larger and the rarer ones.
        let mut response = match destination {
            Destination::Local => self.call_local(request).await.map_err(|why| failed(&why))?,
            Destination::Node(node) => {
                Box::pin(self.call_node(node, target, request)).await.map_err(|why| failed(&why))?
            }
            Destination::Url(url) => Box::pin(external.call_url(&url, request)).await.map_err(|why| failed(&why))?,
            Destination::Endpoint(endpoint) => {
                Box::pin(external.call_endpoint(&endpoint, request)).await.map_err(|why| failed(&why))?
            }
        };
        headers::towards_caller(response.headers_mut());
        // The version is each connection's own.
        *response.version_mut() = http::Version::HTTP_11;
        if events && response.status().is_success() {
            headers::mark_events(response.headers_mut(), version);
        }
        Ok(response)
    }

    async fn resolve(
        &self,
        target: &str,
        key: Option<&HeaderValue>,
        known_length: bool,
    ) -> Result<Destination, ApiError> {
        let mut retries = 0;
        loop {
            match self.inner.resolver.resolve(target, self.remote(), key) {
                Ok(destination) => return Ok(destination),
                Err(Unresolved::Invalid(why)) => return Err(ApiError::invoke(target, why)),
                Err(Unresolved::Nowhere) if known_length && retries < RETRIES => {
                    retries += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(Unresolved::Nowhere) => {
                    let why = format!(
                        "failed to invoke target {target} after {retries} retries. Error: couldn't find service: {target}"
                    );
                    return Err(ApiError::invoke(target, why));
                }
            }
        }
    }

    /// Other nodes' apps can be called from now on, and this node's by them.
    pub fn connect(&self, remote: Remote) {
        // Done once, at boot.
        let _ = self.inner.remote.set(remote);
    }

    fn remote(&self) -> Option<&Remote> {
        self.inner.remote.get()
    }

    /// Calls an instance beside another node. The callee is named by its app id alone, as everywhere.
    async fn call_node(
        &self,
        node: NodeId,
        target: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, LocalError> {
        let remote = self.remote().ok_or(LocalError::NoApp)?;
        let callee = target.split('.').next().unwrap_or(target);
        let callee = HeaderValue::from_str(callee).unwrap_or_else(|_| HeaderValue::from_static(""));
        headers::name_parties(request.headers_mut(), &Parties { callee, ..self.inner.own.clone() });
        let mut response = remote.call(node, request).await.map_err(LocalError::Node)?;
        if let Some(why) = response.headers_mut().remove(&REFUSED) {
            return Err(LocalError::Refused(String::from_utf8_lossy(why.as_bytes()).into_owned()));
        }
        Ok(response)
    }

    /// A call that another node has sent here.
    async fn forward_here(&self, request: Request<Body>) -> Result<Response<Body>, LocalError> {
        if !self.inner.app.is_initialized() {
            return Err(LocalError::NoApp);
        }
        Ok(self.inner.app.forward(request).await?)
    }

    async fn call_local(&self, mut request: Request<Body>) -> Result<Response<Body>, LocalError> {
        if !self.inner.app.is_initialized() {
            return Err(LocalError::NoApp);
        }
        headers::name_parties(request.headers_mut(), &self.inner.own);
        Ok(self.inner.app.forward(request).await?)
    }
}

#[derive(Debug, thiserror::Error)]
enum LocalError {
    #[error("cannot invoke local endpoint: app channel not initialized")]
    NoApp,
    #[error(transparent)]
    App(#[from] AppError),
    #[error("the node of the app: {0}")]
    Node(SendError),
    /// In the words of the node beside the app.
    #[error("{0}")]
    Refused(String),
}

fn no_target() -> ApiError {
    ApiError::new(Code::DirectInvoke, "failed getting app id either from the URL path or the header dapr-app-id")
        .with_status(StatusCode::NOT_FOUND)
}

fn no_method(target: &str) -> ApiError {
    ApiError::new(Code::DirectInvoke, format!("the URL names no method of app {target}: use /method/<name>"))
        .with_status(StatusCode::BAD_REQUEST)
}

/// The path of the callee, with the query as it came.
fn uri(method: &[u8], query: Option<&str>) -> Result<Uri, String> {
    let mut path = String::with_capacity(method.len() + 2 + query.map_or(0, |query| query.len() + 1));
    path.push('/');
    push_verbatim(&mut path, method).map_err(|error| error.to_string())?;
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    Uri::try_from(path).map_err(|error| error.to_string())
}

/// Verbs that Dapr's own enumeration lacks become POST.
fn known_verb(method: &mut Method) {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    if !known.contains(method) {
        *method = Method::POST;
    }
}

#[cfg(test)]
#[path = "invoke_test.rs"]
mod tests;
