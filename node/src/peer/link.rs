//! One link at the end that dialled it: a stream of messages out, one in, and the calls between them.
//!
//! Whoever calls puts a frame into the queue and wakes the writer; the writer is the request body of the stream, which
//! the HTTP/2 machinery polls whenever it can take more, so that what waits meanwhile becomes one message. The reader is
//! a task of its own. All three meet in one short lock around [`Calls`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::{Frame, Frames, Kind, Ping};
use callboard_types::Timestamp;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, NotTaken, Outcome, Reached};
use super::config::LaneLimits;
use super::counters::Counting;
use super::error::PeerError;
use super::gathering::Violation;
use super::hello::Refusal;
use super::offset::{Offsets, RoundTrip};
use crate::clock;

pub(super) struct Link {
    state: Mutex<State>,
    counting: Arc<Counting>,
    offsets: Arc<Mutex<Offsets>>,
    /// Cancelled when the connection is to end at once.
    cut: CancellationToken,
    /// Cancelled when the link takes no more calls.
    leaving: CancellationToken,
    /// Cancelled when the link has ended, whatever the reason.
    ended: CancellationToken,
}

struct State {
    calls: Calls<oneshot::Sender<Outcome>>,
    /// Goes out before anything else.
    hello: Option<Frame>,
    writer: Option<Waker>,
    /// The last question for the peer's clock.
    ping: (u64, Timestamp, Instant),
}

impl Link {
    pub fn new(
        limits: LaneLimits,
        hello: Frame,
        counting: Arc<Counting>,
        offsets: Arc<Mutex<Offsets>>,
        cut: CancellationToken,
    ) -> Arc<Self> {
        let state = State {
            calls: Calls::new(limits),
            hello: Some(hello),
            writer: None,
            ping: (0, Timestamp::default(), Instant::ZERO),
        };
        let [leaving, ended] = std::array::from_fn(|_| CancellationToken::new());
        Arc::new(Self { state: Mutex::new(state), counting, offsets, cut, leaving, ended })
    }

    /// The messages to the peer.
    pub fn outbound(self: &Arc<Self>) -> Outbound {
        Outbound { link: self.clone() }
    }

    /// Queues a call.
    pub fn submit(self: &Arc<Self>, kind: Kind, timeout: Duration, body: Bytes) -> Result<Waiting, NotTaken> {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let (sender, outcome) = oneshot::channel();
        let call = self.change(|state| state.calls.submit(kind.into(), timeout_ms, body, sender))?;
        Ok(Waiting { link: self.clone(), call, outcome, done: false })
    }

    /// Asks for the peer's clock.
    pub fn ping(&self) {
        let (wall, now) = (clock::wall(), clock::monotonic());
        self.change(|state| {
            let number = state.ping.0 + 1;
            state.ping = (number, wall, now);
            state.calls.push_control(Content::Ping(Ping { number }));
        });
    }

    /// Takes in what the peer said; fails when it does not keep to the protocol. A refusal is a farewell: the peer takes
    /// no more calls and answers those it has.
    pub fn on_frames(&self, message: Frames) -> Result<Option<Refusal>, Violation> {
        self.counting.received(&message);
        let mut outcomes = Vec::with_capacity(message.frames.len());
        let mut result = Ok(None);
        {
            let mut state = self.state.lock();
            for Frame { call, content } in message.frames {
                match content {
                    // From a later minor version: nothing that must be understood.
                    None => {}
                    Some(Content::Pong(pong)) => self.on_pong(&state.ping, pong.number, Timestamp(pong.wall)),
                    Some(Content::Refusal(refusal)) => result = Ok(Some(Refusal::from_wire(&refusal))),
                    Some(content) => match state.calls.on_frame(call, content) {
                        Ok(outcome) => outcomes.extend(outcome),
                        Err(violation) => {
                            result = Err(violation);
                            break;
                        }
                    },
                }
            }
        }
        for (waiter, outcome) in outcomes {
            // A caller that has just left does not listen.
            let _ = waiter.send(outcome);
        }
        if let Ok(Some(_)) = &result {
            self.retire();
        }
        result
    }

    fn on_pong(&self, ping: &(u64, Timestamp, Instant), number: u64, theirs: Timestamp) {
        let (last, asked_wall, asked) = *ping;
        if number == last {
            self.offsets.lock().add(RoundTrip { asked_wall, asked, answered: clock::monotonic(), theirs });
        }
    }

    /// Takes no more calls, says those it has to their end, and then ends.
    pub fn retire(&self) {
        self.leaving.cancel();
        self.change(|state| state.calls.retire());
    }

    /// Resolves when the link takes no more calls.
    pub async fn leaving(&self) {
        self.leaving.cancelled().await;
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Tells the peer, which was not recognised, why, and nothing else.
    pub fn refuse(&self, refusal: &Refusal) {
        self.leaving.cancel();
        self.change(|state| {
            state.calls.push_control(Content::Refusal(refusal.to_wire()));
            state.calls.retire();
        });
    }

    /// Cancelled when the connection is to end at once.
    pub fn cutting(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Resolves when the link is to end at once.
    pub async fn is_cut(&self) {
        self.cut.cancelled().await;
    }

    /// The stream is no more: every call without an answer ends.
    pub fn end(&self, why: &str) {
        let ended = self.change(|state| state.calls.end());
        for (waiter, reached) in ended {
            let error = match reached {
                Reached::Unsent => PeerError::NotSent(format!("the link ended: {why}")),
                Reached::Stream => PeerError::Lost(why.to_owned()),
            };
            let _ = waiter.send(Err(error));
        }
        self.cut.cancel();
        self.ended.cancel();
    }

    /// Resolves when the link has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Calls without an answer.
    pub fn pending(&self) -> usize {
        self.state.lock().calls.pending()
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

/// What is sent: the hello, then whatever waits when it is asked for.
pub(super) struct Outbound {
    link: Arc<Link>,
}

impl Stream for Outbound {
    type Item = Frames;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frames>> {
        let mut state = self.link.state.lock();
        let batch = match state.hello.take() {
            Some(hello) => Some(Frames { frames: vec![hello] }),
            None => state.calls.next_batch(),
        };
        if let Some(batch) = batch {
            drop(state);
            self.link.counting.sent(&batch);
            return Poll::Ready(Some(batch));
        }
        if state.calls.has_sent_all() {
            return Poll::Ready(None);
        }
        match &mut state.writer {
            Some(writer) => writer.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// A call under way. Dropping it tells the peer that nobody waits.
pub(super) struct Waiting {
    link: Arc<Link>,
    call: u64,
    outcome: oneshot::Receiver<Outcome>,
    done: bool,
}

impl Waiting {
    /// The answer, or what is known of the call at `deadline`.
    pub async fn until(mut self, deadline: tokio::time::Instant) -> Outcome {
        let in_time = tokio::time::timeout_at(deadline, &mut self.outcome).await;
        let outcome = match in_time {
            Ok(outcome) => outcome,
            Err(_) => match self.leave() {
                Some(Reached::Unsent) => return Err(PeerError::NotSent("its time ended in the queue".to_owned())),
                Some(Reached::Stream) => return Err(PeerError::TimedOut),
                None => (&mut self.outcome).await,
            },
        };
        self.done = true;
        // Whoever takes a waiter out of the table sends to it.
        outcome.unwrap_or_else(|_| Err(PeerError::Lost("the link is gone".to_owned())))
    }

    fn leave(&mut self) -> Option<Reached> {
        self.done = true;
        self.link.change(|state| state.calls.leave(self.call))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.done {
            self.leave();
        }
    }
}
