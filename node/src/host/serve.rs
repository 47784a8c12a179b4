//! What owners on other nodes ask of this host, from message to message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::guard::{DeleteAnswer, SessionId};
use callboard_proto::calls as wire;
use callboard_types::{ClusterId, Epoch, NodeId, PartitionId};
use prost::Message;

use super::sessions::HostSessions;
use super::{Change, Error, Host, TurnDispatch};
use crate::calls::convert::{self, Invalid};
use crate::calls::failure;
use crate::clock;
use crate::tasks::Tasks;

/// Longest wait that an owner may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Why a request has no answer: the detail for the owner, or the reason why it was not understood.
#[derive(Debug)]
pub enum Refused {
    Detail(Bytes),
    Malformed(String),
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        Refused::Malformed(invalid.to_string())
    }
}

impl From<prost::DecodeError> for Refused {
    fn from(error: prost::DecodeError) -> Self {
        Refused::Malformed(error.to_string())
    }
}

/// The host's door for other nodes; clones share it.
#[derive(Clone)]
pub struct HostDoor {
    pub host: Host,
    pub sessions: HostSessions,
    pub cluster: ClusterId,
    pub tasks: Tasks,
}

impl HostDoor {
    /// Runs one request of a turn. Carried to its end, whether or not the owner still listens.
    pub async fn dispatch(&self, from: NodeId, body: Bytes) -> Result<Bytes, Refused> {
        let message = wire::Dispatch::decode(body)?;
        let actor = convert::get_actor(message.actor)?;
        let token = convert::get_token(self.cluster, message.token)?;
        let call = convert::get_request(message.request)?;
        let session = SessionId { owner: from, number: message.session };
        let turn = TurnDispatch {
            token,
            opens: message.opens,
            chain: convert::get_chain(message.chain),
            idle_deadline: convert::get_instant(message.idle_ms, clock::monotonic()),
            session: Some(session),
            tick: message.tick.map(convert::get_tick),
            call,
        };
        let door = self.clone();
        let carried = self.tasks.carry("dispatch", async move {
            if !door.sessions.confirmed(session, token.partition).await {
                return Err(Error::Lapsed);
            }
            let permitted = || door.sessions.permits(session, token.partition);
            door.host.dispatch(&actor, turn, &permitted).await
        });
        match carried.await {
            Ok(response) => Ok(convert::put_response(response).encode_to_vec().into()),
            Err(error) => Err(Refused::Detail(failure::put_host(&error).encode_to_vec().into())),
        }
    }

    pub async fn deactivate(&self, body: Bytes) -> Result<Bytes, Refused> {
        let message = wire::Deactivate::decode(body)?;
        let actor = convert::get_actor(message.actor)?;
        let token = convert::get_token(self.cluster, message.token)?;
        let answered = self.host.deactivate(&actor, token).await == DeleteAnswer::Answered;
        Ok(wire::Deactivated { answered }.encode_to_vec().into())
    }

    pub fn seal(&self, body: Bytes) -> Result<Bytes, Refused> {
        let message = wire::Seal::decode(body)?;
        let change = if message.planned { Change::Planned } else { Change::Unplanned };
        let report = self.host.seal(PartitionId(message.partition), message.generation, Epoch(message.epoch), change);
        Ok(convert::put_report(&report, clock::monotonic()).encode_to_vec().into())
    }

    pub fn retoken(&self, from: NodeId, body: Bytes) -> Result<Bytes, Refused> {
        let message = wire::Retoken::decode(body)?;
        let session = SessionId { owner: from, number: message.session };
        let mut lives = Vec::with_capacity(message.tokens.len());
        for token in message.tokens {
            let actor = convert::get_actor(token.actor)?;
            let (old, new) =
                (convert::get_token(self.cluster, token.from)?, convert::get_token(self.cluster, token.to)?);
            lives.push(self.host.retoken(&actor, old, new, Some(session)));
        }
        Ok(wire::Retokened { lives }.encode_to_vec().into())
    }

    /// Answers when nothing of the actor's instance runs any more, or the limit is over.
    pub async fn quiet(&self, body: Bytes) -> Result<Bytes, Refused> {
        let message = wire::Quiet::decode(body)?;
        let actor = convert::get_actor(message.actor)?;
        self.host.quiet_within(&actor, convert::span(message.limit_ms).min(MAX_WAIT)).await;
        Ok(wire::Nothing {}.encode_to_vec().into())
    }

    pub fn hosted(&self) -> Bytes {
        let hosted =
            self.host.hosted().unwrap_or_else(|| Arc::new(callboard_engine::actor_config::HostedTypes::none()));
        convert::put_hosted(&hosted).encode_to_vec().into()
    }
}
