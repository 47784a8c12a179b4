//! Instances of apps beside other nodes: which one a call goes to, and the way there.
//!
//! A call travels as a request of its own over HTTP/2 to the peer port of the instance's node, its body streamed both
//! ways; the node there hands it to its app as if it had come to that node. Connections are kept per node and shared by
//! all calls.
//!
//! With the header `callboard-hash-key` the instance is found on a ring, so that one key stays with one instance; else
//! the own app comes first, then the less loaded of two chosen at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use callboard_engine::choice::invoke::{Instance, InstanceId, keyed, pick};
use callboard_engine::view::View;
use callboard_types::{ClusterId, NodeId};
use futures_util::future::BoxFuture;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Invoker;
use crate::app::answer::{self, Answer};
use crate::app::http1::{OPEN, SendError};
use crate::app::http2::Multiplexed;
use crate::app::net::Address;
use crate::ingress::http::body::Body;
use crate::peer::{Directory, INVOKE_PATH, Requests};
use crate::tasks::Tasks;

/// Which instance a call goes to, where the caller cares.
pub const HASH_KEY: HeaderName = HeaderName::from_static("callboard-hash-key");
/// Of both nodes: a stranger's call is refused.
const CLUSTER: HeaderName = HeaderName::from_static("callboard-cluster");
/// A connection to another node is established within this time, or not at all.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Header list of an answer, in bytes.
const HEAD: usize = 64 << 10;

/// Where an app's instances are, and the connections to their nodes.
pub struct Remote {
    node: NodeId,
    cluster: HeaderValue,
    view: watch::Receiver<Arc<View>>,
    directory: Directory,
    nodes: Mutex<BTreeMap<NodeId, Arc<Way>>>,
    tasks: Tasks,
}

/// The way to one node.
struct Way {
    address: String,
    connections: Arc<Multiplexed>,
    under_way: AtomicU32,
}

/// An instance that a call may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Here,
    At(NodeId),
}

impl Remote {
    pub fn new(
        node: NodeId,
        cluster: ClusterId,
        view: watch::Receiver<Arc<View>>,
        directory: Directory,
        tasks: &Tasks,
    ) -> Self {
        let cluster = HeaderValue::from_str(&cluster.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""));
        Self { node, cluster, view, directory, nodes: Mutex::default(), tasks: tasks.clone() }
    }

    /// The instance of an app for this call. `None`: there is no healthy one.
    pub fn choose(&self, namespace: &str, app_id: &str, key: Option<&HeaderValue>) -> Option<Place> {
        let view = self.view.borrow().clone();
        let instances = view.instances(namespace, app_id)?;
        let known: Vec<_> = instances
            .nodes()
            .iter()
            .map(|instance| Instance {
                id: instance.node.into(),
                local: instance.node == self.node,
                healthy: instance.healthy,
                load: self.load(instance.node),
            })
            .collect();
        let healthy = |id: InstanceId| known.iter().any(|instance| instance.id == id && instance.healthy);
        let chosen = match key {
            Some(key) => keyed(instances.ring(), key.as_bytes(), healthy),
            None => pick(&known, [rand::random(), rand::random()]),
        };
        let node = NodeId(chosen?.0);
        Some(if node == self.node { Place::Here } else { Place::At(node) })
    }

    fn load(&self, node: NodeId) -> u32 {
        self.nodes.lock().get(&node).map_or(0, |way| way.under_way.load(Ordering::Relaxed))
    }

    /// Sends a request to the app beside `node`.
    pub async fn call(&self, node: NodeId, mut request: Request<Body>) -> Result<Response<Body>, SendError> {
        let way = self.way(node).ok_or_else(|| SendError::NotSent("the app's node has no known address".to_owned()))?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() =
            Uri::try_from(format!("{INVOKE_PATH}{path}")).map_err(|error| SendError::NotSent(error.to_string()))?;
        request.headers_mut().insert(CLUSTER, self.cluster.clone());
        let _counted = Counted::new(&way);
        let answer = way.connections.send(request, OPEN).await?;
        let (head, exchange) = answer.into_parts();
        Ok(Response::from_parts(head, answer::streamed(Answer::Http2(exchange), None, None).await))
    }

    fn way(&self, node: NodeId) -> Option<Arc<Way>> {
        let address = self.directory.addresses(node).into_iter().next()?;
        let mut nodes = self.nodes.lock();
        if let Some(way) = nodes.get(&node).filter(|way| way.address == address) {
            return Some(way.clone());
        }
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let to = Address { host, port: port.parse().ok()?, tls: None, timeout: DIAL_TIMEOUT };
        let connections = Multiplexed::new(to, HEAD, self.tasks.clone()).ok()?;
        let way = Arc::new(Way { address, connections, under_way: AtomicU32::new(0) });
        nodes.insert(node, way.clone());
        Some(way)
    }

    /// Whether a request of another node belongs to this cluster.
    fn admits(&self, headers: &HeaderMap) -> bool {
        headers.get(&CLUSTER) == Some(&self.cluster)
    }
}

/// A call that counts as load of its node until its head has come.
struct Counted<'a>(&'a Way);

impl<'a> Counted<'a> {
    fn new(way: &'a Way) -> Self {
        way.under_way.fetch_add(1, Ordering::Relaxed);
        Self(way)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The door for calls that other nodes send to this node's app.
pub struct AppDoor {
    pub invoker: Invoker,
    /// Body of a request, in bytes.
    pub limit: u64,
}

impl Requests for AppDoor {
    fn serve(&self, request: Request<Incoming>) -> BoxFuture<'static, Response<tonic::body::Body>> {
        let invoker = self.invoker.clone();
        let mut request = request.map(|body| Body::incoming(body, self.limit));
        Box::pin(async move {
            let refused = |status| {
                let mut response = Response::new(tonic::body::Body::empty());
                *response.status_mut() = status;
                response.headers_mut().insert(REFUSED, HeaderValue::from_static("1"));
                response
            };
            let admitted = invoker.remote().is_some_and(|remote| remote.admits(request.headers()));
            let path = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(INVOKE_PATH));
            let Some(Ok(path)) = path.filter(|_| admitted).map(Uri::try_from) else {
                return refused(StatusCode::FORBIDDEN);
            };
            *request.uri_mut() = path;
            request.headers_mut().remove(CLUSTER);
            match invoker.forward_here(request).await {
                Ok(mut response) => {
                    // Nodes alone say this.
                    response.headers_mut().remove(&REFUSED);
                    response.map(tonic::body::Body::new)
                }
                Err(error) => {
                    tracing::debug!(%error, "the app did not answer another node's call");
                    let mut response = refused(StatusCode::BAD_GATEWAY);
                    if let Ok(why) = HeaderValue::from_str(&error.to_string()) {
                        response.headers_mut().insert(REFUSED, why);
                    }
                    response
                }
            }
        })
    }
}

/// The answer is not the app's: it says why there is none.
pub const REFUSED: HeaderName = HeaderName::from_static("callboard-refused");
