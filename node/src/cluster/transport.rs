//! The links to other nodes, in the words of those who use them: the groups' messages, and the errands of the road.

use std::time::Duration;

use bytes::Bytes;
use callboard_raft::{Lane as GroupLane, Target, Transport, TransportError};
use callboard_types::NodeId;
use futures_util::future::BoxFuture;

use crate::links::{Errand, LinkError, Links};
use crate::peer::{Kind, Lane, PeerError, Peers};

/// Carries the messages of all groups.
pub struct GroupTransport(pub Peers);

impl Transport for GroupTransport {
    fn send<'a>(
        &'a self,
        to: Target<'a>,
        lane: GroupLane,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let lane = match lane {
            GroupLane::Raft => Lane::Raft,
            GroupLane::Bulk => Lane::Bulk,
        };
        Box::pin(async move {
            if self.0.directory().addresses(to.node).is_empty() && !to.address.is_empty() {
                self.0.directory().learn(to.node, to.address.to_owned());
            }
            self.0.call(to.node, lane, Kind::Raft, body, timeout).await.map_err(|error| match error {
                PeerError::NotSent(text) => TransportError::Unreachable(text),
                PeerError::Lost(text) => TransportError::Lost(text),
                PeerError::TimedOut => TransportError::TimedOut,
                // It does not hold that replica, or is full.
                PeerError::Refused(failure) => TransportError::Unreachable(failure.text),
            })
        })
    }
}

/// Carries the errands of actor calls.
pub struct PeerLinks(pub Peers);

const fn kind(errand: Errand) -> Kind {
    match errand {
        Errand::Ask => Kind::Ask,
        Errand::Dispatch => Kind::Dispatch,
        Errand::Deactivate => Kind::Deactivate,
        Errand::Seal => Kind::Seal,
        Errand::Retoken => Kind::Retoken,
        Errand::Quiet => Kind::Quiet,
        Errand::Hosted => Kind::Hosted,
        Errand::Ping => Kind::HostPing,
        Errand::Handing => Kind::Handing,
        Errand::Scan => Kind::Scan,
        Errand::Prove => Kind::Prove,
        Errand::Report => Kind::Admin,
    }
}

impl Links for PeerLinks {
    fn send<'a>(
        &'a self,
        to: NodeId,
        errand: Errand,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, LinkError>> {
        Box::pin(async move {
            self.0.call(to, Lane::Calls, kind(errand), body, limit).await.map_err(|error| match error {
                PeerError::NotSent(text) => LinkError::NotSent(text),
                PeerError::Lost(text) => LinkError::Lost(text),
                PeerError::TimedOut => LinkError::Lost("no answer in time".to_owned()),
                PeerError::Refused(failure) => LinkError::Refused { text: failure.text, detail: failure.detail },
            })
        })
    }
}
