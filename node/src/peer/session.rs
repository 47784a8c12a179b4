//! One link at the end that was dialled: calls in, answers out.
//!
//! A call holds one of the link's places from its beginning until its answer was handed to the stream, so that a peer
//! that asks and does not listen runs out of places, and everything that is kept for it has a bound: one call more is
//! refused at once. What the refusals themselves take is bounded by reading no more while too much waits to be sent.
//!
//! A call begins on the reader's own task, in order, and is moved to a task of its own only when it is not ready at
//! once. Its work ends with its caller only where the handler was registered so; a turn runs to its end, answer or not.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::{Frame, Frames, Pong};
use callboard_types::Class;
use futures_util::Stream;
use futures_util::future::{AbortHandle, BoxFuture, CatchUnwind, FutureExt as _, abortable};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::Status;

use super::config::LaneLimits;
use super::counters::{Counting, one};
use super::error::Failure;
use super::gathering::{Begun, Gathering, Violation};
use super::handlers::{Call, End, Entry, Handlers};
use super::hello::{PeerId, Refusal};
use super::outbox::{Head, Outbox};
use crate::clock;
use crate::tasks::{self, Tasks};

type Outcome = Result<Bytes, Failure>;
type Work = CatchUnwind<AssertUnwindSafe<BoxFuture<'static, Outcome>>>;

pub(super) struct Session {
    peer: Arc<PeerId>,
    limits: LaneLimits,
    handlers: Arc<Handlers>,
    tasks: Tasks,
    counting: Arc<Counting>,
    state: Mutex<State>,
    /// Rung when less waits to be sent than before.
    room: Notify,
}

struct State {
    outbox: Outbox,
    /// Calls that handlers work on.
    running: usize,
    /// Those among them that end with their callers.
    cancellable: HashMap<u64, AbortHandle>,
    phase: Phase,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Open,
    /// No call begins any more, for this reason; those that have begun are answered.
    Dismissed(String),
    /// The peer says no more; what has begun is answered, and then the stream ends.
    Ending,
    /// The peer broke the protocol; it is told so.
    Violated(Violation),
    Ended,
}

/// What a request says beside its body.
pub(super) struct Asked {
    kind: i32,
    timeout: Duration,
}

impl Session {
    pub fn new(
        peer: Arc<PeerId>,
        limits: LaneLimits,
        handlers: Arc<Handlers>,
        tasks: Tasks,
        counting: Arc<Counting>,
        hello: Frame,
    ) -> Arc<Self> {
        let mut outbox = Outbox::default();
        outbox.push_control(hello);
        let state = State { outbox, running: 0, cancellable: HashMap::new(), phase: Phase::Open, writer: None };
        Arc::new(Self { peer, limits, handlers, tasks, counting, state: Mutex::new(state), room: Notify::new() })
    }

    pub fn peer(&self) -> &Arc<PeerId> {
        &self.peer
    }

    /// Bodies of requests that come in parts. Kept by the reader.
    pub fn gathering(&self) -> Gathering<Asked> {
        Gathering::new(self.limits.max_body, self.limits.gathered_bytes)
    }

    /// Waits until what is to be sent leaves room for the answers of another message.
    pub async fn has_room(&self) {
        loop {
            let rung = self.room.notified();
            if !self.is_crowded(&self.state.lock()) {
                return;
            }
            rung.await;
        }
    }

    fn is_crowded(&self, state: &State) -> bool {
        let waiting = state.outbox.calls();
        waiting > self.limits.handlers.saturating_mul(2) || state.outbox.bytes() > self.limits.gathered_bytes
    }

    /// Takes in what the peer said.
    pub fn on_frames(self: &Arc<Self>, gathering: &mut Gathering<Asked>, message: Frames) -> Result<(), Violation> {
        self.counting.received(&message);
        let mut answers = Vec::with_capacity(message.frames.len());
        let mut result = Ok(());
        for Frame { call, content } in message.frames {
            // From a later minor version: nothing that must be understood.
            let Some(content) = content else { continue };
            if let Err(violation) = self.on_frame(gathering, call, content, &mut answers) {
                result = Err(violation);
                break;
            }
        }
        if !answers.is_empty() {
            self.change(|state| answers.drain(..).for_each(|(call, outcome)| state.answer(call, outcome)));
        }
        result
    }

    fn on_frame(
        self: &Arc<Self>,
        gathering: &mut Gathering<Asked>,
        call: u64,
        content: Content,
        answers: &mut Vec<(u64, Outcome)>,
    ) -> Result<(), Violation> {
        match content {
            Content::Request(request) => {
                let timeout = Duration::from_millis(request.timeout_ms.into());
                let asked = Asked { kind: request.kind, timeout };
                match gathering.begin(call, asked, request.length, request.body)? {
                    Begun::Whole(asked, body) => answers.extend(self.begin(call, asked, body)),
                    Begun::Open => {}
                    Begun::TooLarge(_) => {
                        let text = format!("a body of {} bytes; {} is the most", request.length, self.limits.max_body);
                        answers.push((call, Err(Failure::transport(Class::Rejected, text))));
                    }
                    Begun::NoRoom(_) => answers.push((call, Err(self.busy("too many large bodies at once")))),
                }
            }
            Content::Part(part) => {
                if let Some((asked, body)) = gathering.part(call, &part.body)? {
                    answers.extend(self.begin(call, asked, body));
                }
            }
            Content::Cancel(_) => {
                gathering.drop_call(call);
                let mut state = self.state.lock();
                state.outbox.drop_rest(call);
                if let Some(abort) = state.cancellable.remove(&call) {
                    abort.abort();
                }
            }
            Content::Ping(ping) => {
                let pong = Content::Pong(Pong { number: ping.number, wall: clock::wall().as_micros() });
                self.change(|state| state.outbox.push_control(Frame { call: 0, content: Some(pong) }));
            }
            Content::Hello(_) | Content::Response(_) | Content::Pong(_) | Content::Refusal(_) => {
                return Err(Violation("a frame that the dialling side does not send"));
            }
        }
        Ok(())
    }

    /// Begins a call; gives its outcome if that is known at once.
    fn begin(self: &Arc<Self>, call: u64, asked: Asked, body: Bytes) -> Option<(u64, Outcome)> {
        let Some(entry) = self.handlers.get(asked.kind) else {
            let failure = Failure::transport(Class::Rejected, format!("calls of kind {} are not served", asked.kind));
            return Some((call, Err(failure)));
        };
        if let Err(failure) = self.take_place() {
            return Some((call, Err(failure)));
        }
        let mut work = self.work(entry, &asked, body);
        // Nobody needs to be woken: what is not ready is polled again where it goes on.
        match work.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => {
                self.state.lock().running -= 1;
                return Some((call, settled(outcome)));
            }
            Poll::Pending => {}
        }
        match entry.end {
            End::OfItsOwn => {
                let place = Place { session: self.clone(), call };
                self.tasks.spawn(tasks::Kind::Work, "peer-call", async move {
                    let outcome = settled(work.await);
                    place.answer(outcome);
                });
            }
            End::WithCaller => {
                let (work, abort) = abortable(work);
                if let Some(other) = self.state.lock().cancellable.insert(call, abort) {
                    // A number is used once; nobody could tell the answers apart.
                    other.abort();
                }
                let place = Place { session: self.clone(), call };
                self.tasks.spawn(tasks::Kind::Work, "peer-call", async move {
                    // Otherwise nobody waits: its caller left, or its time is up there, too.
                    if let Ok(Ok(outcome)) = tokio::time::timeout(asked.timeout, work).await {
                        place.answer(settled(outcome));
                    }
                });
            }
        }
        None
    }

    fn work(&self, entry: &Entry, asked: &Asked, body: Bytes) -> Work {
        let call = Call { from: self.peer.clone(), kind: entry.kind, body, timeout: asked.timeout };
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| entry.handler.handle(call)));
        let work = made.unwrap_or_else(|panic| Box::pin(async move { Err(panicked(&*panic)) }));
        AssertUnwindSafe(work).catch_unwind()
    }

    fn take_place(&self) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if let Phase::Dismissed(why) = &state.phase {
            return Err(self.busy(why));
        }
        if state.running + state.outbox.calls() >= self.limits.handlers {
            return Err(self.busy("too many calls are being worked on"));
        }
        state.running += 1;
        Ok(())
    }

    fn busy(&self, why: &str) -> Failure {
        one(&self.counting.calls_busy);
        Failure::transport(Class::Busy, why)
    }

    /// Begins no more calls, and tells the peer, which then calls elsewhere or not at all.
    pub fn dismiss(&self, refusal: &Refusal) {
        self.change(|state| {
            if state.phase == Phase::Open {
                state.phase = Phase::Dismissed(refusal.text.clone());
                let farewell = Content::Refusal(refusal.to_wire());
                state.outbox.push_control(Frame { call: 0, content: Some(farewell) });
            }
        });
    }

    /// The peer says no more.
    pub fn heard_all(&self) {
        self.change(|state| match state.phase {
            Phase::Open | Phase::Dismissed(_) => state.phase = Phase::Ending,
            Phase::Ending | Phase::Violated(_) | Phase::Ended => {}
        });
    }

    /// The peer broke the protocol.
    pub fn violated(&self, violation: Violation) {
        self.end_as(Phase::Violated(violation));
    }

    /// The stream is no more.
    pub fn end(&self) {
        self.end_as(Phase::Ended);
    }

    fn end_as(&self, phase: Phase) {
        let cancellable = self.change(|state| {
            if state.phase != Phase::Ended {
                state.phase = phase;
            }
            state.outbox = Outbox::default();
            std::mem::take(&mut state.cancellable)
        });
        cancellable.into_values().for_each(|abort| abort.abort());
        self.room.notify_one();
    }

    /// Changes the state, and wakes the writer where it waits for a change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, writer) = {
            let mut state = self.state.lock();
            (change(&mut state), state.writer.take())
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        result
    }
}

impl State {
    fn answer(&mut self, call: u64, outcome: Outcome) {
        match self.phase {
            Phase::Open | Phase::Dismissed(_) | Phase::Ending => {}
            // Nobody is there to hear it.
            Phase::Violated(_) | Phase::Ended => return,
        }
        match outcome {
            Ok(body) => self.outbox.push(call, Head::Answer, body),
            Err(failure) => self.outbox.push(call, Head::Failure(failure.to_wire()), failure.detail),
        }
    }
}

/// A call that is being worked on. Its place is free again when this is dropped.
struct Place {
    session: Arc<Session>,
    call: u64,
}

impl Place {
    fn answer(self, outcome: Outcome) {
        self.session.change(|state| state.answer(self.call, outcome));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.session.change(|state| {
            state.running -= 1;
            state.cancellable.remove(&self.call);
        });
    }
}

fn settled(outcome: Result<Outcome, Box<dyn std::any::Any + Send>>) -> Outcome {
    outcome.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text, "the handler of a peer's call failed");
    // How far it came nobody knows.
    Failure::transport(Class::Unknown, "the call's handler failed")
}

/// What is sent to the peer: the answers of a session, or one refusal and nothing else.
pub(super) enum Outbound {
    Session(Heard),
    Refusal(Option<Frame>),
}

/// Ends its session when it is dropped: the stream is no more.
pub(super) struct Heard {
    session: Arc<Session>,
    /// Held as long as the stream is there.
    _link: tokio::sync::OwnedSemaphorePermit,
}

impl Outbound {
    pub fn session(session: Arc<Session>, link: tokio::sync::OwnedSemaphorePermit) -> Self {
        Self::Session(Heard { session, _link: link })
    }

    pub fn refusal(refusal: &Refusal) -> Self {
        Self::Refusal(Some(Frame { call: 0, content: Some(Content::Refusal(refusal.to_wire())) }))
    }
}

impl Stream for Outbound {
    type Item = Result<Frames, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Refusal(frame) => Poll::Ready(frame.take().map(|frame| Ok(Frames { frames: vec![frame] }))),
            Self::Session(heard) => heard.session.poll_batch(cx),
        }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.session.end();
    }
}

impl Session {
    fn poll_batch(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frames, Status>>> {
        let mut state = self.state.lock();
        let was_crowded = self.is_crowded(&state);
        if let Some(batch) = state.outbox.next_batch() {
            let has_room = was_crowded && !self.is_crowded(&state);
            drop(state);
            if has_room {
                self.room.notify_one();
            }
            self.counting.sent(&batch);
            return Poll::Ready(Some(Ok(batch)));
        }
        match &state.phase {
            Phase::Open | Phase::Dismissed(_) => {}
            Phase::Ending if state.running > 0 => {}
            Phase::Ending | Phase::Ended => return Poll::Ready(None),
            Phase::Violated(violation) => {
                let status = Status::invalid_argument(violation.to_string());
                state.phase = Phase::Ended;
                return Poll::Ready(Some(Err(status)));
            }
        }
        match &mut state.writer {
            Some(writer) => writer.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}
