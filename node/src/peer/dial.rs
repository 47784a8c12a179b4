//! From an address to a link: connect, say hello, hear who is there, go on or refuse.
//!
//! Nobody has the link before the other side was recognised, so a call to a stranger is one that was not sent.

use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::peer_client::PeerClient;
use callboard_proto::peer::{Frame, Frames, Hello, Reason};
use callboard_types::{NodeId, Timestamp};
use http::Uri;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use super::config::{Lane, PeerConfig};
use super::counters::{Counting, one};
use super::hello::{self, GenerationSeen, Identity, Introduction, PeerId, Refusal};
use super::http2::{self, KeepAlive};
use super::link::Link;
use super::offset::{Offsets, RoundTrip};
use super::outbox::MAX_MESSAGE;
use crate::clock;
use crate::tasks::{self, Tasks};

/// What a stranger gets to read why it is one.
const FAREWELL: Duration = Duration::from_millis(500);

/// What links are made with.
#[derive(Clone)]
pub(super) struct Dialler {
    pub config: Arc<PeerConfig>,
    pub identity: Arc<watch::Sender<Arc<Identity>>>,
    pub generation: GenerationSeen,
    pub counting: Arc<Counting>,
    pub tasks: Tasks,
    /// Cuts every link.
    pub cut: CancellationToken,
    /// Links that were made and have not ended.
    pub live: TaskTracker,
}

/// Whom to dial.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub address: &'a str,
    /// `None` when only the address is known.
    pub node: Option<NodeId>,
    pub lane: Lane,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DialError {
    /// Nobody answered as a peer does.
    Failed(String),
    /// Somebody did, and one side wants nothing of the other.
    Stranger(Refusal),
}

impl DialError {
    pub fn text(&self) -> &str {
        match self {
            DialError::Failed(text) => text,
            DialError::Stranger(refusal) => &refusal.text,
        }
    }
}

impl Dialler {
    /// Makes a link, whose reading goes on in a task of its own.
    pub async fn dial(
        &self,
        target: Target<'_>,
        offsets: &Arc<Mutex<Offsets>>,
    ) -> Result<(Arc<Link>, PeerId), DialError> {
        let own = self.identity.borrow().clone();
        let (wall, asked) = (clock::wall(), clock::monotonic());
        let hello = Content::Hello(hello::hello(&own, target.lane, target.node, wall));
        let hello = Frame { call: 0, content: Some(hello) };
        let limits = self.config.lane(target.lane).clone();
        let link = Link::new(limits, hello, self.counting.clone(), offsets.clone(), self.cut.child_token());
        // A link that comes to nothing must not leave its connection behind.
        let unmade = Unmade(Some(&link));
        let mut inbound = self.connect(target, &link).await?;
        let first = tokio::time::timeout(self.config.hello_timeout, first_message(&mut inbound)).await;
        let first = first.map_err(|_| DialError::Failed("no hello in time".to_owned()))??;
        let (theirs, rest) = match first {
            First::Refused(refusal) if refusal.reason == Reason::Busy => {
                return Err(DialError::Failed(format!("{}: {refusal}", target.address)));
            }
            First::Refused(refusal) => {
                one(&self.counting.strangers);
                self.generation.note_refusal(&refusal);
                return Err(DialError::Stranger(refusal));
            }
            First::Hello(theirs, rest) => (theirs, rest),
        };
        let Introduction { peer, wall: their_wall, .. } = match hello::check(&own, target.node, &theirs) {
            Ok(introduction) => introduction,
            Err(refusal) => {
                one(&self.counting.strangers);
                self.part_from(&link, &refusal, inbound);
                unmade.keep();
                return Err(DialError::Stranger(refusal));
            }
        };
        self.generation.note_peer(&own, &peer);
        self.measure(offsets, wall, asked, their_wall);
        one(&self.counting.links_dialled);
        self.read(link.clone(), peer.clone(), target.lane, inbound, rest);
        unmade.keep();
        Ok((link, peer))
    }

    async fn connect(&self, target: Target<'_>, link: &Arc<Link>) -> Result<Streaming<Frames>, DialError> {
        let failed = |text: String| DialError::Failed(format!("{}: {text}", target.address));
        let keep_alive =
            KeepAlive { every: self.config.keep_alive, timeout: self.config.lane(target.lane).keep_alive_timeout };
        let connecting = http2::connect(target.address, keep_alive, link.cutting(), &self.tasks);
        let connection = tokio::time::timeout(self.config.connect_timeout, connecting).await;
        let connection = connection.map_err(|_| failed("no connection in time".to_owned()))?.map_err(failed)?;
        let mut client =
            PeerClient::with_origin(connection, Uri::from_static("http://peer")).max_decoding_message_size(MAX_MESSAGE);
        let opened = tokio::time::timeout(self.config.hello_timeout, client.link(link.outbound())).await;
        match opened {
            Err(_) => Err(failed("no answer in time".to_owned())),
            Ok(Err(status)) => Err(failed(http2::describe(&status))),
            Ok(Ok(response)) => Ok(response.into_inner()),
        }
    }

    /// Their clock, by the exchange of hellos.
    fn measure(&self, offsets: &Mutex<Offsets>, asked_wall: Timestamp, asked: Instant, theirs: Timestamp) {
        offsets.lock().add(RoundTrip { asked_wall, asked, answered: clock::monotonic(), theirs });
    }

    /// Tells a stranger that it is one, and why, before the connection is cut.
    fn part_from(&self, link: &Arc<Link>, refusal: &Refusal, mut inbound: Streaming<Frames>) {
        link.refuse(refusal);
        let link = link.clone();
        self.tasks.spawn(tasks::Kind::Work, "peer-farewell", async move {
            let heard = async { while let Ok(Some(_)) = inbound.message().await {} };
            // Whether it has listened changes nothing.
            let _ = tokio::time::timeout(FAREWELL, heard).await;
            link.end("a stranger");
        });
    }

    /// Reads what the peer says until the link ends.
    fn read(&self, link: Arc<Link>, peer: PeerId, lane: Lane, mut inbound: Streaming<Frames>, rest: Frames) {
        let (dialler, live) = (self.clone(), self.live.token());
        self.tasks.spawn(tasks::Kind::Work, "peer-link", async move {
            let _live = live;
            // Whatever becomes of this task, nobody waits for answers that nobody reads.
            let _end = EndsLink(&link);
            let mut look = tokio::time::interval(dialler.config.clock_every);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut cut = std::pin::pin!(link.is_cut());
            let mut message = Ok(Some(rest));
            let why = loop {
                match message {
                    Ok(Some(frames)) => {
                        if let Err(why) = dialler.on_frames(&link, &peer, frames) {
                            break why;
                        }
                    }
                    Ok(None) => break "the peer closed the link".to_owned(),
                    Err(status) => break http2::describe(&status),
                }
                message = tokio::select! {
                    biased;
                    () = &mut cut => break "the link was cut".to_owned(),
                    _ = look.tick() => {
                        if link.is_leaving() && link.pending() == 0 {
                            break "nothing is left to be answered".to_owned();
                        }
                        if lane == Lane::Raft {
                            link.ping();
                        }
                        Ok(Some(Frames::default()))
                    }
                    message = inbound.message() => message,
                };
                // A peer that always has something to say is not the only one on this thread.
                tokio::task::coop::consume_budget().await;
            };
            if !link.is_leaving() {
                one(&dialler.counting.links_lost);
                tracing::debug!(%peer, lane = lane.name(), why, "a link was lost");
            }
            link.end(&why);
        });
    }

    fn on_frames(&self, link: &Arc<Link>, peer: &PeerId, frames: Frames) -> Result<(), String> {
        if frames.frames.is_empty() {
            return Ok(());
        }
        match link.on_frames(frames) {
            Ok(None) => Ok(()),
            Ok(Some(refusal)) => {
                self.generation.note_refusal(&refusal);
                tracing::debug!(%peer, why = %refusal, "a peer takes no more calls");
                Ok(())
            }
            Err(violation) => {
                one(&self.counting.violations);
                tracing::warn!(%peer, %violation, "a peer does not keep to the protocol");
                Err(violation.to_string())
            }
        }
    }
}

/// Who answered, and what came with it.
enum First {
    Hello(Hello, Frames),
    Refused(Refusal),
}

async fn first_message(inbound: &mut Streaming<Frames>) -> Result<First, DialError> {
    let message = match inbound.message().await {
        Ok(Some(message)) => message,
        Ok(None) => return Err(DialError::Failed("closed without a hello".to_owned())),
        Err(status) => return Err(DialError::Failed(http2::describe(&status))),
    };
    let mut frames = message.frames.into_iter();
    let first = frames.next().and_then(|frame| frame.content);
    match first {
        Some(Content::Hello(theirs)) => Ok(First::Hello(theirs, Frames { frames: frames.collect() })),
        Some(Content::Refusal(refusal)) => Ok(First::Refused(Refusal::from_wire(&refusal))),
        Some(
            Content::Request(_)
            | Content::Response(_)
            | Content::Part(_)
            | Content::Cancel(_)
            | Content::Ping(_)
            | Content::Pong(_),
        )
        | None => Err(DialError::Failed("no hello at the beginning".to_owned())),
    }
}

/// Ends a link that is not made.
struct Unmade<'a>(Option<&'a Arc<Link>>);

impl Unmade<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.0 {
            link.end("it was not made");
        }
    }
}

struct EndsLink<'a>(&'a Arc<Link>);

impl Drop for EndsLink<'_> {
    fn drop(&mut self) {
        self.0.end("its reader is gone");
    }
}
