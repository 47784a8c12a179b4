//! How replicas of a group talk to each other.
//!
//! The node gives a [`Transport`], which carries one opaque body to another node and brings back one opaque answer.
//! Everything that Raft means by them is here: [`client`] is the side that asks, [`server`] the one that answers, and
//! [`incoming`] what a snapshot leaves on its way.
//!
//! Invariants: a message names the replica it is for, and no other takes it; whoever was not reached has granted nothing;
//! every wait has an end.

use std::time::Duration;

use bytes::Bytes;
use callboard_types::{GroupId, NodeId};
use futures_util::future::BoxFuture;

pub mod client;
pub mod incoming;
pub mod server;

/// Which of a node's links carries a message: small and urgent ones never wait behind large ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    Raft,
    Bulk,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    pub node: NodeId,
    /// Of the group's membership: a hint, and empty where nobody has given one.
    pub address: &'a str,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// Nothing has left this node, or the other one has refused it.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// It may have arrived.
    #[error("lost on the way: {0}")]
    Lost(String),
    #[error("no answer in time")]
    TimedOut,
}

/// The way to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// Brings `body` to the replicas of another node, which answer it by [`Groups::receive`](crate::Groups::receive).
    fn send<'a>(
        &'a self,
        to: Target<'a>,
        lane: Lane,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>>;
}

/// The transport of a node that has no others.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send<'a>(
        &'a self,
        to: Target<'a>,
        _lane: Lane,
        _body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async move { Err(TransportError::Unreachable(format!("there is no way to node {}", to.node))) })
    }
}

/// Why a message of another node has no answer. Nothing was done, or it is as if nothing was: all of them are to be
/// tried again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReceiveError {
    /// A wiped disk does not answer under an old id.
    #[error("replica {replica} of {group} is not here")]
    NotHere { group: GroupId, replica: u64 },
    #[error("not at the moment: {0}")]
    Busy(String),
    #[error("{0}")]
    Malformed(String),
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}
