//! The way to the other nodes, as the road of a call sees it: an errand goes out, an answer comes back.
//!
//! The peer transport is one; [`Alone`] is what a node has that knows nobody. What matters to a caller is drawn here: an
//! errand that certainly never left may be tried again, one that may have arrived may not.

use std::time::Duration;

use bytes::Bytes;
use callboard_types::NodeId;
use futures_util::future::BoxFuture;

/// What a node asks of another; the body is the message of that name in `calls.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// To the owner of an actor.
    Ask,
    /// To the host of an actor.
    Dispatch,
    Deactivate,
    Seal,
    Retoken,
    Quiet,
    /// What the node's app hosts.
    Hosted,
    /// A host's sign of life to an owner.
    Ping,
    /// A former owner's word to the next one.
    Handing,
    /// To the owner of a partition: rows of it.
    Scan,
    /// To the owner of a partition: that it shows that it is one.
    Prove,
    /// What a node says of itself, for people.
    Report,
}

/// Why an errand has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Certainly nothing arrived.
    #[error("the node cannot be reached: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("the connection to the node was lost: {0}")]
    Lost(String),
    /// It arrived, and was refused whole. The detail is what the errand says about refusals; empty: it was not understood.
    #[error("{text}")]
    Refused { text: String, detail: Bytes },
}

pub trait Links: Send + Sync + 'static {
    /// Sends an errand and waits for the answer, `limit` at most. Dropped early, it is called back where that can be.
    fn send<'a>(
        &'a self,
        to: NodeId,
        errand: Errand,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, LinkError>>;
}

/// A node that knows no other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Links for Alone {
    fn send<'a>(
        &'a self,
        to: NodeId,
        _errand: Errand,
        _body: Bytes,
        _limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, LinkError>> {
        Box::pin(async move { Err(LinkError::NotSent(format!("there is no way to node {to}"))) })
    }
}
