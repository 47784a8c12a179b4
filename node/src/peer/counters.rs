//! What the links of a node have counted since its start.

use std::sync::atomic::{AtomicU64, Ordering};

use callboard_proto::peer::Frames;

use super::outbox::body_length;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Plain numbers, for the metrics page.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct Counting {
            $(pub $name: AtomicU64,)*
        }

        impl Counting {
            pub fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    frames_sent,
    frames_received,
    /// Messages; each carries one or more frames.
    batches_sent,
    batches_received,
    /// Of bodies.
    bytes_sent,
    bytes_received,
    /// Links made by dialling.
    links_dialled,
    /// Those among them that replaced a link that was lost.
    reconnects,
    /// Attempts to dial that made no link, refusals among them.
    dials_failed,
    /// Links accepted.
    links_accepted,
    /// Links that either side refused to the other as a stranger's.
    strangers,
    /// Connections and links that were too many.
    links_too_many,
    /// Links that ended other than by being closed.
    links_lost,
    /// Calls that were refused since too many were being worked on.
    calls_busy,
    /// Calls that did not leave this node.
    calls_not_sent,
    /// Calls that were handed to a link that ended without their answer.
    calls_lost,
    calls_timed_out,
    /// Frames that broke the protocol; each ended its link.
    violations,
}

pub(super) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counting {
    pub fn sent(&self, batch: &Frames) {
        one(&self.batches_sent);
        self.frames_sent.fetch_add(batch.frames.len() as u64, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bodies(batch), Ordering::Relaxed);
    }

    pub fn received(&self, batch: &Frames) {
        one(&self.batches_received);
        self.frames_received.fetch_add(batch.frames.len() as u64, Ordering::Relaxed);
        self.bytes_received.fetch_add(bodies(batch), Ordering::Relaxed);
    }
}

fn bodies(batch: &Frames) -> u64 {
    batch.frames.iter().map(|frame| body_length(frame) as u64).sum()
}
