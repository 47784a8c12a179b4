//! The calls of one link, at the end that makes them: which wait to be sent, which wait for an answer.
//!
//! Pure: no clock, no wakers, no channel. `W` is whoever waits. The one question that matters here is how a call ends
//! when the link does, or when its time is up: *unsent* calls certainly had no effect, all others may have had one. Both
//! the end and the hand-over of frames to the stream are methods of this one value, which its owner locks, so that there
//! is no moment between the two.

use std::collections::HashMap;

use bytes::Bytes;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::{Cancel, Failure as WireFailure, Frame, Frames};

use super::config::LaneLimits;
use super::error::{Failure, PeerError};
use super::gathering::{Begun, Gathering, Violation};
use super::outbox::{Head, Outbox};

pub(super) type Outcome = Result<Bytes, PeerError>;

#[derive(Debug)]
pub(super) struct Calls<W> {
    outbox: Outbox,
    /// Calls without an answer, whether sent or not.
    pending: HashMap<u64, W>,
    answers: Gathering<Option<WireFailure>>,
    /// Numbers given out.
    last: u64,
    limits: LaneLimits,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Takes no more calls; those it has come to their end.
    Retired,
    Ended,
}

/// Why a call was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// A bound is reached; its name.
    Full(&'static str),
    /// The link takes no more calls; another one may.
    Closed,
}

/// How far a call had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// No byte of it left the queue.
    Unsent,
    /// It was handed to the stream, at least in part.
    Stream,
}

impl<W> Calls<W> {
    pub fn new(limits: LaneLimits) -> Self {
        let answers = Gathering::new(limits.max_body, limits.gathered_bytes);
        Self { outbox: Outbox::default(), pending: HashMap::new(), answers, last: 0, limits, phase: Phase::Open }
    }

    /// Queues a call, and gives it a number.
    pub fn submit(&mut self, kind: i32, timeout_ms: u32, body: Bytes, waiter: W) -> Result<u64, NotTaken> {
        if self.phase != Phase::Open {
            return Err(NotTaken::Closed);
        }
        if self.pending.len() >= self.limits.pending_calls {
            return Err(NotTaken::Full("calls in flight"));
        }
        if self.outbox.calls() >= self.limits.queued_calls {
            return Err(NotTaken::Full("calls in the queue"));
        }
        let bytes = self.outbox.bytes();
        if bytes > 0 && bytes.saturating_add(body.len()) > self.limits.queued_bytes {
            return Err(NotTaken::Full("bytes in the queue"));
        }
        self.last += 1;
        self.outbox.push(self.last, Head::Request { kind, timeout_ms }, body);
        self.pending.insert(self.last, waiter);
        Ok(self.last)
    }

    pub fn push_control(&mut self, content: Content) {
        self.outbox.push_control(Frame { call: 0, content: Some(content) });
    }

    /// What goes to the stream next.
    pub fn next_batch(&mut self) -> Option<Frames> {
        self.outbox.next_batch()
    }

    /// Nothing will be sent any more.
    pub fn has_sent_all(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Retired => self.outbox.is_empty(),
            Phase::Ended => true,
        }
    }

    /// A frame of an answer, or of what is none of these calls' business.
    pub fn on_frame(&mut self, call: u64, content: Content) -> Result<Option<(W, Outcome)>, Violation> {
        match content {
            Content::Response(response) => {
                if self.outbox.is_unsent(call) {
                    return Err(Violation("an answer to what was not asked"));
                }
                let length = response.length;
                match self.answers.begin(call, response.failure, length, response.body)? {
                    Begun::Whole(head, body) => Ok(self.answered(call, head, body)),
                    Begun::Open => {
                        if !self.pending.contains_key(&call) {
                            // Its caller has left.
                            self.answers.drop_call(call);
                        }
                        Ok(None)
                    }
                    Begun::TooLarge(_) | Begun::NoRoom(_) => {
                        let lost = PeerError::Lost(format!("the answer's {length} bytes are too many"));
                        Ok(self.close(call).map(|waiter| (waiter, Err(lost))))
                    }
                }
            }
            Content::Part(part) => match self.answers.part(call, &part.body)? {
                Some((head, body)) => Ok(self.answered(call, head, body)),
                None => Ok(None),
            },
            Content::Hello(_) | Content::Request(_) | Content::Cancel(_) | Content::Ping(_) => {
                Err(Violation("a frame that the dialled side does not send"))
            }
            // The owner's of this value.
            Content::Refusal(_) | Content::Pong(_) => Ok(None),
        }
    }

    fn answered(&mut self, call: u64, failure: Option<WireFailure>, body: Bytes) -> Option<(W, Outcome)> {
        let waiter = self.close(call)?;
        let outcome = match failure {
            None => Ok(body),
            Some(head) => Err(PeerError::Refused(Failure::from_wire(head, body))),
        };
        Some((waiter, outcome))
    }

    /// Ends a call that nobody waits for any more, and says how far it had come. `None` when it has ended before: then
    /// its outcome is on its way.
    pub fn leave(&mut self, call: u64) -> Option<Reached> {
        self.pending.remove(&call)?;
        if self.outbox.take_back(call) {
            return Some(Reached::Unsent);
        }
        self.outbox.drop_rest(call);
        self.answers.drop_call(call);
        if self.phase == Phase::Open {
            self.outbox.push_control(Frame { call, content: Some(Content::Cancel(Cancel {})) });
        }
        Some(Reached::Stream)
    }

    /// Takes no more calls.
    pub fn retire(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Retired;
        }
    }

    /// The stream is no more. Gives every call that was open, and how far it had come.
    pub fn end(&mut self) -> Vec<(W, Reached)> {
        self.phase = Phase::Ended;
        let outbox = std::mem::take(&mut self.outbox);
        let reached = |call| if outbox.is_unsent(call) { Reached::Unsent } else { Reached::Stream };
        self.pending.drain().map(|(call, waiter)| (waiter, reached(call))).collect()
    }

    /// Calls without an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn close(&mut self, call: u64) -> Option<W> {
        // A request that was answered before it was said to its end need not be.
        self.outbox.drop_rest(call);
        self.answers.drop_call(call);
        self.pending.remove(&call)
    }
}

#[cfg(test)]
#[path = "calls_test.rs"]
mod calls_test;
