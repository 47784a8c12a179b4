//! What waits to be sent on one stream, and what goes into the next message.
//!
//! Everything that waits goes out together: under load a message carries many frames, and the cost of a message is paid
//! once for all of them. Small bodies go whole and in order. A body above [`PART`] goes in parts, one part per message,
//! a few bodies taking turns: however large it is, a small call waits for one part of it, not for the whole.
//!
//! A call is *unsent* until [`Outbox::next_batch`] has given out its first frame. That is the line between "not sent" and
//! "lost" (`calls`), which is why there is exactly one place where a frame leaves the queue.

use std::collections::VecDeque;

use bytes::Bytes;
use callboard_proto::peer::frame::Content;
use callboard_proto::peer::{Failure, Frame, Frames, Part, Request, Response};

/// Longest piece of a body in one frame.
pub(super) const PART: usize = 64 << 10;
/// A message is closed when it has this many bytes, or frames. It then holds less than [`MAX_MESSAGE`].
const BATCH_BYTES: usize = 64 << 10;
const BATCH_FRAMES: usize = 512;
/// Longest message that either side takes.
pub(super) const MAX_MESSAGE: usize = 256 << 10;
/// Bytes of a frame apart from body and text, at most.
const OVERHEAD: usize = 64;
/// Large bodies that are under way at a time; the other side gathers as many.
pub(super) const UNDER_WAY: usize = 4;
/// Frames beside the calls that wait at a time. Each of them may be left out.
const CONTROL: usize = 1_024;
/// Taken-back places that are left standing before the queue is swept.
const SWEEP: usize = 64;

/// What the first frame of a body says beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Head {
    Request { kind: i32, timeout_ms: u32 },
    Answer,
    Failure(Failure),
}

impl Head {
    fn frame(self, call: u64, length: usize, body: Bytes) -> Frame {
        let length = length as u64;
        let content = match self {
            Head::Request { kind, timeout_ms } => Content::Request(Request { kind, timeout_ms, length, body }),
            Head::Answer => Content::Response(Response { failure: None, length, body }),
            Head::Failure(failure) => Content::Response(Response { failure: Some(failure), length, body }),
        };
        Frame { call, content: Some(content) }
    }

    fn size(&self) -> usize {
        match self {
            Head::Request { .. } | Head::Answer => OVERHEAD,
            Head::Failure(failure) => OVERHEAD + failure.text.len(),
        }
    }
}

#[derive(Debug)]
struct Waiting {
    call: u64,
    /// `None` once it was taken back.
    load: Option<(Head, Bytes)>,
}

#[derive(Debug)]
struct Rest {
    call: u64,
    body: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: VecDeque<Frame>,
    /// Bodies that fit into one frame.
    small: VecDeque<Waiting>,
    taken_back: usize,
    /// Bodies that do not, unsent.
    large: VecDeque<(u64, Head, Bytes)>,
    /// What is left of those whose first part was sent.
    rests: VecDeque<Rest>,
    bytes: usize,
}

impl Outbox {
    /// Queues a call's body. Calls are pushed with rising numbers wherever they may be taken back.
    pub fn push(&mut self, call: u64, head: Head, body: Bytes) {
        self.bytes += body.len();
        if body.len() <= PART {
            self.small.push_back(Waiting { call, load: Some((head, body)) });
        } else {
            self.large.push_back((call, head, body));
        }
    }

    /// Queues a frame that goes before all calls. It is left out when too many wait.
    pub fn push_control(&mut self, frame: Frame) {
        if self.control.len() < CONTROL {
            self.control.push_back(frame);
        }
    }

    /// Bodies that wait, or of which a part waits.
    pub fn calls(&self) -> usize {
        self.small.len() - self.taken_back + self.large.len() + self.rests.len()
    }

    /// Bytes of bodies that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.calls() == 0
    }

    /// No byte of `call` was given out.
    pub fn is_unsent(&self, call: u64) -> bool {
        self.small_place(call).is_some() || self.large_place(call).is_some()
    }

    /// Takes a call back that is unsent; `false` when it is not.
    pub fn take_back(&mut self, call: u64) -> bool {
        if let Some(place) = self.small_place(call) {
            if let Some((_, body)) = self.small[place].load.take() {
                self.bytes -= body.len();
            }
            self.taken_back += 1;
            self.sweep();
            return true;
        }
        let large = self.large_place(call).and_then(|place| self.large.remove(place));
        if let Some((_, _, body)) = &large {
            self.bytes -= body.len();
        }
        large.is_some()
    }

    /// Forgets what is left of a body that nobody waits for.
    pub fn drop_rest(&mut self, call: u64) {
        if let Some(place) = self.rests.iter().position(|rest| rest.call == call)
            && let Some(rest) = self.rests.remove(place)
        {
            self.bytes -= rest.body.len();
        }
    }

    /// The next message; `None` when nothing waits.
    pub fn next_batch(&mut self) -> Option<Frames> {
        let mut frames = Vec::with_capacity((self.control.len() + self.calls()).min(BATCH_FRAMES));
        while frames.len() < BATCH_FRAMES
            && let Some(frame) = self.control.pop_front()
        {
            frames.push(frame);
        }
        frames.extend(self.next_part());
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && frames.len() < BATCH_FRAMES
            && let Some(Waiting { call, load }) = self.small.pop_front()
        {
            let Some((head, body)) = load else {
                self.taken_back -= 1;
                continue;
            };
            bytes += head.size() + body.len();
            self.bytes -= body.len();
            frames.push(head.frame(call, body.len(), body));
        }
        (!frames.is_empty()).then_some(Frames { frames })
    }

    /// The next part of a large body: the first of another one while few are under way, else of the one whose turn it is.
    fn next_part(&mut self) -> Option<Frame> {
        let (frame, rest) = match self.large.pop_front_if(|_| self.rests.len() < UNDER_WAY) {
            Some((call, head, mut body)) => {
                let length = body.len();
                let part = body.split_to(PART);
                (head.frame(call, length, part), Rest { call, body })
            }
            None => {
                let mut rest = self.rests.pop_front()?;
                let part = rest.body.split_to(rest.body.len().min(PART));
                (Frame { call: rest.call, content: Some(Content::Part(Part { body: part })) }, rest)
            }
        };
        self.bytes -= body_length(&frame);
        if !rest.body.is_empty() {
            self.rests.push_back(rest);
        }
        Some(frame)
    }

    fn small_place(&self, call: u64) -> Option<usize> {
        let place = self.small.binary_search_by_key(&call, |waiting| waiting.call).ok()?;
        self.small[place].load.is_some().then_some(place)
    }

    fn large_place(&self, call: u64) -> Option<usize> {
        self.large.binary_search_by_key(&call, |(call, _, _)| *call).ok()
    }

    /// Keeps the places of calls that were taken back from outnumbering the others.
    fn sweep(&mut self) {
        if self.taken_back > SWEEP && self.taken_back > self.small.len() / 2 {
            self.small.retain(|waiting| waiting.load.is_some());
            self.taken_back = 0;
        }
    }
}

pub(super) fn body_length(frame: &Frame) -> usize {
    match &frame.content {
        Some(Content::Request(request)) => request.body.len(),
        Some(Content::Response(response)) => response.body.len(),
        Some(Content::Part(part)) => part.body.len(),
        Some(Content::Hello(_) | Content::Refusal(_) | Content::Cancel(_) | Content::Ping(_) | Content::Pong(_))
        | None => 0,
    }
}

#[cfg(test)]
#[path = "outbox_test.rs"]
mod outbox_test;
