//! What nodes ask of each other about actors, in the words of the program.
//!
//! An [`Ask`] goes to the owner of one actor, on this node or another: the same value is answered by the local reign or
//! sent over a link, and the same [`Answer`] or error comes back, so that whoever asks need not know where the owner is.
//! `convert` and `failure` turn these values into the messages of `calls.proto` and back. What arrives is checked there:
//! a message that lacks what its meaning needs is refused and changes nothing.

pub mod convert;
pub mod failure;
pub mod report;
pub mod scan;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::mailbox::ReentrancyId;
use callboard_machine::partition::{ActorOp, Reminder, StateValue};
use callboard_types::{FencingToken, NodeId, Timestamp, WriteNumber};
use http::Response;

use crate::owner::AppCall;

/// What is asked of an actor's owner.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A turn, and the app's answer, whatever its status.
    Turn {
        kind: TurnKind,
        chain: Option<ReentrancyId>,
        call: Arc<AppCall>,
        patience: Duration,
    },
    /// One command, on disk when it is answered.
    Commit {
        author: Option<(FencingToken, WriteNumber)>,
        ops: Vec<ActorOp>,
        now: Timestamp,
    },
    State {
        key: String,
    },
    Reminder {
        name: String,
    },
    /// The actor's reminders by name, `limit` at most.
    Reminders {
        limit: usize,
    },
    /// Everything of the actor in one commit, after its activation has ended.
    Delete {
        patience: Duration,
    },
}

impl Ask {
    /// Whether asking twice is as good as asking once: reads, writes that carry a number, and what is the same the second
    /// time.
    pub fn may_repeat(&self) -> bool {
        match self {
            Ask::State { .. } | Ask::Reminder { .. } | Ask::Reminders { .. } | Ask::Delete { .. } => true,
            Ask::Commit { author, .. } => author.is_some(),
            Ask::Turn { .. } => false,
        }
    }

    /// How long it may wait for a turn, if it needs one.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Ask::Turn { patience, .. } | Ask::Delete { patience } => Some(*patience),
            Ask::Commit { .. } | Ask::State { .. } | Ask::Reminder { .. } | Ask::Reminders { .. } => None,
        }
    }
}

/// What a turn is asked for from outside its owner; reminders are the owner's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnKind {
    Call,
    Timer(TickRef),
}

/// Names one tick of one creation of a timer, to the node that keeps it: the tick of a timer that is gone is not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickRef {
    pub node: NodeId,
    pub name: String,
    pub instance: u64,
    pub occurrence: u64,
}

#[derive(Debug)]
pub enum Answer {
    Response(Response<Bytes>),
    Done,
    State(Option<StateValue>),
    Reminder(Option<Reminder>),
    Reminders(Vec<(String, Reminder)>),
}
