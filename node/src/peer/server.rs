//! Accepting: connections, on each a link, and who may have one.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use callboard_proto::peer::frame::Content;
use callboard_proto::peer::peer_server::{Peer, PeerServer};
use callboard_proto::peer::{Frame, Frames, Hello, Reason};
use callboard_types::NodeId;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;
use tonic::{Request, Response, Status, Streaming};

use super::config::{Lane, PeerConfig};
use super::counters::{Counting, one};
use super::handlers::Handlers;
use super::hello::{self, GenerationSeen, Identity, Introduction, Refusal};
use super::http2::{self, KeepAlive};
use super::outbox::MAX_MESSAGE;
use super::session::{Outbound, Session};
use crate::clock;
use crate::tasks::{self, Tasks};

/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Strangers that are remembered, so that each is named once.
const STRANGERS: usize = 256;
/// What a dismissed peer gets to leave by itself.
const FAREWELL: Duration = Duration::from_secs(1);

/// What every accepted link shares.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub config: Arc<PeerConfig>,
    pub identity: Arc<watch::Sender<Arc<Identity>>>,
    pub generation: GenerationSeen,
    pub counting: Arc<Counting>,
    pub tasks: Tasks,
    pub connections: Arc<Semaphore>,
    pub links: Arc<Semaphore>,
    /// Takes no more connections, links and calls.
    pub closing: CancellationToken,
    /// Cuts what is left.
    pub cut: CancellationToken,
    strangers: Arc<Mutex<HashSet<(NodeId, Reason)>>>,
    requests: Arc<OnceLock<Arc<dyn Requests>>>,
}

/// Requests of other nodes that are no calls: whole HTTP requests, their bodies streamed both ways.
pub trait Requests: Send + Sync + 'static {
    fn serve(&self, request: http::Request<Incoming>) -> BoxFuture<'static, http::Response<tonic::body::Body>>;
}

/// Where such requests go; what follows it is the path they are meant for.
pub const INVOKE_PATH: &str = "/callboard.peer.v1.Invoke";

impl Acceptor {
    pub fn new(
        config: Arc<PeerConfig>,
        identity: Arc<watch::Sender<Arc<Identity>>>,
        generation: GenerationSeen,
        counting: Arc<Counting>,
        tasks: Tasks,
        closing: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(config.accepted_connections));
        let links = Arc::new(Semaphore::new(config.accepted_links));
        let (strangers, requests) = (Arc::default(), Arc::default());
        Self { config, identity, generation, counting, tasks, connections, links, closing, cut, strangers, requests }
    }

    /// Requests under [`INVOKE_PATH`] go to `requests`.
    pub fn requests(&self, requests: Arc<dyn Requests>) {
        // Set once, at boot.
        let _ = self.requests.set(requests);
    }

    /// Accepts on `listener`, which listens already, until the node stops.
    pub fn serve(&self, listener: std::net::TcpListener, handlers: Handlers) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let door = Door { acceptor: self.clone(), handlers: Arc::new(handlers) };
        self.tasks.spawn(tasks::Kind::Service, "peer", async move {
            tokio::select! {
                biased;
                () = door.acceptor.closing.cancelled() => {}
                () = door.accept_all(&listener) => {}
            }
            drop(listener);
            // Its end before the node's would be a failure.
            door.acceptor.tasks.stopping().await;
        });
        Ok(())
    }

    /// Waits until no accepted link is left.
    pub async fn links_ended(&self) {
        let all = u32::try_from(self.config.accepted_links).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.links.acquire_many(all).await;
    }

    fn stranger(&self, node: NodeId, refusal: &Refusal) {
        one(&self.counting.strangers);
        let mut strangers = self.strangers.lock();
        if strangers.len() >= STRANGERS {
            strangers.clear();
        }
        if strangers.insert((node, refusal.reason)) {
            tracing::warn!(%node, why = %refusal, "a node that wants to talk to this one is refused");
        }
    }
}

/// One listener, and what is served on it.
#[derive(Clone)]
struct Door {
    acceptor: Acceptor,
    handlers: Arc<Handlers>,
}

impl Door {
    async fn accept_all(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.on_connection(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection of a peer could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn on_connection(&self, stream: TcpStream) {
        // One too many is closed without a word: whoever dials tries again.
        let Ok(counted) = self.acceptor.connections.clone().try_acquire_owned() else {
            one(&self.acceptor.counting.links_too_many);
            return;
        };
        // It fails on a dead socket only, which the first read reports.
        let _ = stream.set_nodelay(true);
        let door = self.clone();
        self.acceptor.tasks.spawn(tasks::Kind::Work, "peer-connection", async move {
            let cut = door.acceptor.cut.child_token();
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = door.serve(stream) => {}
            }
            drop(counted);
        });
    }

    /// Serves a connection until it ends, or has had no request for a while.
    async fn serve(&self, stream: TcpStream) {
        let config = &self.acceptor.config;
        let keep_alive = KeepAlive {
            every: config.keep_alive,
            // Which lane it is for is not known yet; the calls of the peer do not depend on it.
            timeout: config.bulk.keep_alive_timeout,
        };
        let requests = Arc::new(AtomicUsize::new(0));
        let peers = PeerServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE);
        let service = {
            let requests = requests.clone();
            let others = self.acceptor.requests.clone();
            service_fn(move |request: http::Request<Incoming>| {
                let (mut peers, open) = (peers.clone(), Open::new(&requests));
                let others = others.get().filter(|_| request.uri().path().starts_with(INVOKE_PATH)).cloned();
                async move {
                    let response = match others {
                        Some(others) => others.serve(request).await,
                        None => peers.call(request).await?,
                    };
                    Ok::<_, Infallible>(response.map(|body| open.with(body)))
                }
            })
        };
        let connection =
            http2::server(&self.acceptor.tasks, keep_alive).serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut asked_to_end = false;
        loop {
            let ended = tokio::time::timeout(config.hello_timeout, connection.as_mut()).await;
            match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::trace!(error = %http2::describe(&error), "a peer's connection ended");
                    return;
                }
                Err(_) if requests.load(Ordering::Relaxed) > 0 => {}
                Err(_) if asked_to_end => return,
                Err(_) => {
                    // A request that is on its way at this moment is refused unprocessed, not cut off.
                    asked_to_end = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// A request whose answer has not come to its end.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }

    /// The answer's body, which keeps the request open.
    fn with(self, body: tonic::body::Body) -> tonic::body::Body {
        tonic::body::Body::new(http_body_util::BodyExt::map_frame(body, move |frame| {
            let _held = &self;
            frame
        }))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl Peer for Door {
    type LinkStream = Outbound;

    async fn link(&self, request: Request<Streaming<Frames>>) -> Result<Response<Outbound>, Status> {
        let acceptor = &self.acceptor;
        let mut inbound = request.into_inner();
        let mut identity = acceptor.identity.subscribe();
        let own = identity.borrow_and_update().clone();
        let said = tokio::time::timeout(acceptor.config.hello_timeout, first_message(&mut inbound)).await;
        let said = said.map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        let Introduction { peer, lane, .. } = match hello::check(&own, None, &said) {
            Ok(introduction) => introduction,
            Err(refusal) => {
                acceptor.stranger(NodeId(said.node), &refusal);
                return Ok(Response::new(Outbound::refusal(&refusal)));
            }
        };
        let busy = |text: &str| {
            let refusal = Refusal { reason: Reason::Busy, text: text.to_owned(), generation: own.generation };
            Ok(Response::new(Outbound::refusal(&refusal)))
        };
        if acceptor.closing.is_cancelled() {
            return busy("the node stops");
        }
        let Ok(link) = acceptor.links.clone().try_acquire_owned() else {
            one(&acceptor.counting.links_too_many);
            return busy("too many links");
        };
        acceptor.generation.note_peer(&own, &peer);
        one(&acceptor.counting.links_accepted);
        tracing::debug!(%peer, lane = lane.name(), "a link was accepted");
        let hello = Content::Hello(hello::hello(&own, lane, None, clock::wall()));
        let session = Session::new(
            Arc::new(peer),
            acceptor.config.lane(lane).clone(),
            self.handlers.clone(),
            acceptor.tasks.clone(),
            acceptor.counting.clone(),
            Frame { call: 0, content: Some(hello) },
        );
        let reader = Reader { acceptor: acceptor.clone(), session: session.clone(), said, lane, identity };
        acceptor.tasks.spawn(tasks::Kind::Work, "peer-session", reader.read(inbound));
        Ok(Response::new(Outbound::session(session, link)))
    }
}

async fn first_message(inbound: &mut Streaming<Frames>) -> Result<Hello, Status> {
    let message = inbound.message().await?.unwrap_or_default();
    let mut frames = message.frames.into_iter();
    match (frames.next().and_then(|frame| frame.content), frames.next()) {
        (Some(Content::Hello(hello)), None) => Ok(hello),
        (_, _) => Err(Status::invalid_argument("the first message is a hello and nothing else")),
    }
}

/// Reads what one peer says on one link.
struct Reader {
    acceptor: Acceptor,
    session: Arc<Session>,
    said: Hello,
    lane: Lane,
    identity: watch::Receiver<Arc<Identity>>,
}

impl Reader {
    async fn read(self, mut inbound: Streaming<Frames>) {
        let (session, counting) = (self.session.clone(), self.acceptor.counting.clone());
        // Whatever becomes of this task, what nobody will hear is not worked on.
        let mut ends = EndsSession(Some(&session));
        let mut gathering = session.gathering();
        let (peer, lane) = (session.peer().clone(), self.lane.name());
        let mut dismissed = std::pin::pin!(self.is_dismissed());
        loop {
            let message = tokio::select! {
                biased;
                () = &mut dismissed => return,
                message = next(&session, &mut inbound) => message,
            };
            // A peer that always has something to say is not the only one on this thread.
            tokio::task::coop::consume_budget().await;
            match message {
                Ok(Some(frames)) => {
                    if let Err(violation) = session.on_frames(&mut gathering, frames) {
                        one(&counting.violations);
                        tracing::warn!(%peer, lane, %violation, "a peer does not keep to the protocol");
                        session.violated(violation);
                        ends.by_itself();
                        return;
                    }
                }
                Ok(None) => {
                    // The writer ends it when all is answered.
                    session.heard_all();
                    ends.by_itself();
                    return;
                }
                Err(status) => {
                    tracing::debug!(%peer, lane, why = %http2::describe(&status), "an accepted link was lost");
                    return;
                }
            }
        }
    }

    /// Resolves when the peer is listened to no longer: this node stops, or has become a stranger to it.
    async fn is_dismissed(&self) {
        let (cut, closing) = (self.acceptor.cut.child_token(), self.acceptor.closing.child_token());
        let mut identity = self.identity.clone();
        let stranger = async {
            loop {
                if identity.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let own = identity.borrow_and_update().clone();
                if let Err(refusal) = hello::same_cluster(&own, &self.said.cluster_name, self.session.peer()) {
                    return refusal;
                }
            }
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = closing.cancelled() => {
                let generation = self.identity.borrow().generation;
                let text = "the node stops".to_owned();
                self.session.dismiss(&Refusal { reason: Reason::Busy, text, generation });
                cut.cancelled().await;
            }
            refusal = stranger => {
                self.acceptor.stranger(self.session.peer().node, &refusal);
                self.session.dismiss(&refusal);
                // The connection may be cut before that, and is no loss.
                let _ = tokio::time::timeout(FAREWELL, cut.cancelled()).await;
            }
        }
    }
}

/// The next message, when there is room for the answers to it.
async fn next(session: &Session, inbound: &mut Streaming<Frames>) -> Result<Option<Frames>, Status> {
    session.has_room().await;
    inbound.message().await
}

struct EndsSession<'a>(Option<&'a Session>);

impl EndsSession<'_> {
    /// The session ends when its writer has said all.
    fn by_itself(&mut self) {
        self.0 = None;
    }
}

impl Drop for EndsSession<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.0 {
            session.end();
        }
    }
}
