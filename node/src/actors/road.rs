//! The road to an actor's owner: on this node, or one forward away.
//!
//! The rule is the engine's (`node/engine/src/router.rs`): what certainly had no effect is tried again until its time is
//! up, what may have had one never is. Here it is carried out ([`Actors::ask`]); a request that is as good twice as once
//! may be tried again in any case.
//!
//! Where an owner is, is a hint ([`Whereabouts`]): a wrong one costs a refusal that names a better one, never an effect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::partition::partition_of_key;
use callboard_engine::router::{Decision, Failure, Origin, Reject, Route, RouteLimits};
use callboard_proto::calls as wire;
use callboard_types::{ActorKey, Epoch, NodeId, PartitionId};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;

use super::{Actors, Error, PATIENCE};
use crate::app::Error as AppError;
use crate::calls::{Answer, Ask, convert, failure};
use crate::clock;
use crate::links::{Errand, LinkError};
use crate::owner::{Error as OwnerError, Owner};

/// Between two looks of the router for an owner or a host.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// No call is tried again when it is older.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// An owner on another node answers a forwarded request within its patience and this much more, or counts as lost.
const ANSWER_MARGIN: Duration = Duration::from_secs(30 * 60);

/// Who owned each partition when that was last heard.
#[derive(Default)]
pub struct Whereabouts {
    known: Mutex<BTreeMap<PartitionId, (Epoch, NodeId)>>,
    changed: Notify,
}

impl Whereabouts {
    /// Word of a claim. The highest epoch counts; word without one ([`Epoch::NONE`]) counts where nothing better is known.
    pub fn learn(&self, partition: PartitionId, epoch: Epoch, owner: NodeId) {
        let mut known = self.known.lock();
        let entry = known.entry(partition).or_insert((epoch, owner));
        if epoch >= entry.0 && *entry != (epoch, owner) {
            *entry = (epoch, owner);
        }
        drop(known);
        self.changed.notify_waiters();
    }

    /// What was known has turned out wrong; it stands again when it is heard again.
    fn doubt(&self, partition: PartitionId, owner: NodeId) {
        let mut known = self.known.lock();
        if known.get(&partition).is_some_and(|(_, known)| *known == owner) {
            known.remove(&partition);
        }
    }

    pub fn owner(&self, partition: PartitionId) -> Option<NodeId> {
        self.known.lock().get(&partition).map(|(_, owner)| *owner)
    }
}

/// What the router makes of an error; a request that may be repeated takes a lost answer for none.
fn failure_of(error: &OwnerError, ask: &Ask) -> Failure {
    match error {
        OwnerError::NotServing(_) => Failure::NotOwner { owner: None },
        OwnerError::NoHost => Failure::NoHost,
        OwnerError::App(AppError::NotSent(_) | AppError::Unhealthy) => Failure::AppAway,
        OwnerError::Unknown(_) if ask.may_repeat() => Failure::Unreachable,
        OwnerError::Refused(_)
        | OwnerError::NoTurn(_)
        | OwnerError::App(_)
        | OwnerError::Unknown(_)
        | OwnerError::Fenced
        | OwnerError::Rejected(_)
        | OwnerError::TooLarge(_)
        | OwnerError::Unwanted
        | OwnerError::TooManyReminders(_)
        | OwnerError::Storage(_) => Failure::Final(error.class()),
    }
}

fn given_up(actor: &ActorKey, error: OwnerError) -> Error {
    if matches!(error, OwnerError::NoHost) { Error::NoHost(actor.clone()) } else { error.into() }
}

/// Where to ask next.
#[derive(Clone)]
pub(super) enum Place {
    Here(Arc<Owner>),
    There(NodeId),
    Nowhere,
}

impl Actors {
    /// Asks the actor's owner, and asks again while that is as good as asking once and the time is not up.
    pub(crate) async fn ask(&self, actor: &ActorKey, ask: &Ask) -> Result<Answer, Error> {
        let partition = partition_of_key(actor, self.inner.partitions);
        let limits = RouteLimits {
            retry_for: self.inner.limits.retry_for,
            host_wait: self.inner.limits.host_wait,
            longest: LONGEST,
            ..RouteLimits::default()
        };
        let asked = clock::monotonic();
        let mut route = Route::new(limits, Origin::Caller, None, asked);
        let mut tries = 0;
        loop {
            let place = self.place(partition, tries);
            tries += 1;
            let began = clock::monotonic();
            let answer = match &place {
                Place::Here(owner) => match owner.reign() {
                    Ok(reign) => reign.answer(actor, ask).await,
                    Err(error) => Err(error),
                },
                Place::There(node) => self.forward(*node, partition, actor, ask).await,
                Place::Nowhere => Err(OwnerError::NotServing(partition)),
            };
            let error = match answer {
                Ok(answer) => {
                    self.inner.counters.answered(ask, asked);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.inner.counters.failed(&error);
            match route.failed(failure_of(&error, ask), began, clock::monotonic()) {
                Decision::Reject(Reject::Failed(_)) => return Err(error.into()),
                Decision::Reject(Reject::TimeUp(_) | Reject::NotHere { .. }) => return Err(given_up(actor, error)),
                Decision::Retry { .. } | Decision::Local | Decision::Forward { .. }
                    if self.inner.tasks.is_stopping() =>
                {
                    return Err(given_up(actor, error));
                }
                Decision::Retry { .. } | Decision::Local | Decision::Forward { .. } => {}
            }
            self.not_closed()?;
            self.pause(&place).await;
        }
    }

    /// The owner here if it serves; else whoever is said to own the partition; else its replicas, one after the other.
    pub(super) fn place(&self, partition: PartitionId, tries: usize) -> Place {
        let here = self.inner.owners.get(partition);
        if let Some(owner) = &here
            && owner.is_serving()
        {
            return Place::Here(owner.clone());
        }
        let me = self.inner.node;
        if let Some(owner) = self.inner.whereabouts.owner(partition).filter(|owner| *owner != me) {
            return Place::There(owner);
        }
        let meta = self.inner.meta.watch().borrow().clone();
        let replicas: Vec<NodeId> = meta
            .partitions
            .get(&partition)
            .into_iter()
            .flat_map(|record| &record.replicas)
            .map(|placed| placed.node)
            .filter(|node| *node != me)
            .collect();
        match (replicas.get(tries % replicas.len().max(1)), here) {
            // Every other look goes to the own replica, which may be about to own the partition.
            (Some(node), None) => Place::There(*node),
            (Some(node), Some(_)) if tries % 2 == 1 => Place::There(*node),
            (_, Some(owner)) => Place::Here(owner),
            (None, None) => Place::Nowhere,
        }
    }

    /// Waits until every partition has an owner that this node knows of.
    pub async fn all_served(&self) {
        for partition in (0..self.inner.partitions).map(PartitionId) {
            let is_served = || {
                let here = self.inner.owners.get(partition).is_some_and(|owner| owner.is_serving());
                here || self.inner.whereabouts.owner(partition).is_some()
            };
            while !is_served() {
                let place = self.inner.owners.get(partition).map_or(Place::Nowhere, Place::Here);
                self.pause(&place).await;
            }
        }
    }

    pub(super) async fn pause(&self, place: &Place) {
        match place {
            Place::Here(owner) if !owner.is_serving() => {
                let _ = tokio::time::timeout(LOOK_AGAIN, owner.served()).await;
            }
            Place::Here(_) => tokio::time::sleep(LOOK_AGAIN).await,
            Place::There(_) | Place::Nowhere => {
                let _ = tokio::time::timeout(LOOK_AGAIN, self.inner.whereabouts.changed.notified()).await;
            }
        }
    }

    /// Asks the owner on another node. What is lost on the way may have had an effect.
    async fn forward(
        &self,
        to: NodeId,
        partition: PartitionId,
        actor: &ActorKey,
        ask: &Ask,
    ) -> Result<Answer, OwnerError> {
        let body = convert::put_ask(actor, ask).encode_to_vec().into();
        let limit = ask.patience().unwrap_or(PATIENCE).saturating_add(ANSWER_MARGIN);
        let garbled = |why: String| OwnerError::Unknown(why.into());
        self.inner.counters.forwarded();
        match self.inner.links.send(to, Errand::Ask, body, limit).await {
            Ok(body) => wire::Answer::decode(body)
                .map_err(|error| garbled(error.to_string()))
                .and_then(|answer| convert::get_answer(answer).map_err(|error| garbled(error.to_string()))),
            Err(error) => Err(self.unanswered(to, partition, error)),
        }
    }

    /// What it means that a node did not answer as a partition's owner, and what is learnt from it about where that is.
    pub(super) fn unanswered(&self, to: NodeId, partition: PartitionId, error: LinkError) -> OwnerError {
        match error {
            LinkError::NotSent(_) => {
                self.inner.whereabouts.doubt(partition, to);
                OwnerError::NotServing(partition)
            }
            LinkError::Lost(text) => {
                self.inner.whereabouts.doubt(partition, to);
                OwnerError::Unknown(text.into())
            }
            LinkError::Refused { text, detail } => match wire::AskError::decode(detail) {
                Ok(error) if error != wire::AskError::default() => {
                    let (error, owner) = failure::get(error);
                    if matches!(error, OwnerError::NotServing(_)) {
                        self.inner.whereabouts.doubt(partition, to);
                        if let Some(owner) = owner.filter(|owner| *owner != to) {
                            self.inner.whereabouts.learn(partition, Epoch::NONE, owner);
                        }
                    }
                    error
                }
                // The other node is full, or does not know what this is: it did nothing.
                Ok(_) | Err(_) => {
                    tracing::debug!(%to, text, "a forwarded call was refused");
                    OwnerError::NotServing(partition)
                }
            },
        }
    }

    /// A request that another node forwards: answered here, or refused with a word of where the owner is.
    pub async fn asked(&self, body: Bytes) -> Result<Bytes, Bytes> {
        let refused = |error: &OwnerError, owner| Bytes::from(failure::put(error, owner).encode_to_vec());
        let malformed = |why: String| refused(&OwnerError::App(AppError::Invalid(why)), None);
        self.inner.counters.taken();
        let message = wire::Ask::decode(body).map_err(|error| malformed(error.to_string()))?;
        let (actor, ask) =
            convert::get_ask(self.inner.cluster, message).map_err(|error| malformed(error.to_string()))?;
        let partition = partition_of_key(&actor, self.inner.partitions);
        let hint = || self.inner.whereabouts.owner(partition).filter(|owner| *owner != self.inner.node);
        let owner = self.inner.owners.get(partition);
        let reign = owner.ok_or(OwnerError::NotServing(partition)).and_then(|owner| owner.reign());
        let answer = match reign {
            Ok(reign) => reign.answer(&actor, &ask).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => Ok(convert::put_answer(answer).encode_to_vec().into()),
            Err(error) => Err(refused(&error, hint())),
        }
    }
}
