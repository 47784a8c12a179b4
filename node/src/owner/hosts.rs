//! Where actors may run, as an owner sees it: in this node's own app, and in those of other nodes.
//!
//! The same verbs reach both. To the own host they are calls of functions; to another they are errands over a link, and
//! what a broken link leaves open is answered here: a dispatch whose answer is lost may have run, and an activation whose
//! host does not answer is over only when that host's lease is ([`Hosts::deactivate`]).
//!
//! Who hosts what comes from outside as a [`Sight`], replaced as a whole. This node's own app is always looked at
//! directly, so that it counts the moment it is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::actor_config::TypeConfig;
use callboard_engine::choice::hosts::Hosts as Choice;
use callboard_engine::guard::{DeleteAnswer, SealReport};
use callboard_machine::meta::MetaState;
use callboard_proto::calls as wire;
use callboard_types::{ActorKey, ClusterId, Epoch, FencingToken, NodeId, PartitionId};
use http::Response;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use crate::app::Error as AppError;
use crate::calls::{convert, failure};
use crate::clock;
use crate::host::{Change, Error as HostError, Host, TurnDispatch};
use crate::links::{Errand, LinkError, Links};

/// An errand about an activation's end is answered within this time, or asked again.
const ERRAND_LIMIT: Duration = Duration::from_secs(35);
/// A host answers a seal at once, or is not waited for.
const SEAL_LIMIT: Duration = Duration::from_secs(2);

/// Handle of the hosts; clones share it.
#[derive(Clone)]
pub struct Hosts {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    cluster: ClusterId,
    /// That of this node's app.
    namespace: Arc<str>,
    local: Host,
    links: Arc<dyn Links>,
    sight: watch::Sender<Arc<Sight>>,
    /// Who is registered with the cluster.
    meta: watch::Receiver<Arc<MetaState>>,
    /// The latest session of each host with this node.
    sessions: Mutex<BTreeMap<NodeId, u64>>,
}

/// What is known of the other nodes' apps.
#[derive(Debug, Default)]
pub struct Sight {
    pub pools: HashMap<(Arc<str>, Arc<str>), Pool>,
}

/// The hosts of one type on other nodes.
#[derive(Debug)]
pub struct Pool {
    pub config: TypeConfig,
    /// Those on other nodes.
    pub hosts: Vec<NodeId>,
    /// Who takes which actor, this node's own app included.
    pub choice: Choice,
}

impl Sight {
    fn pool(&self, actor: &ActorKey) -> Option<&Pool> {
        if self.pools.is_empty() {
            return None;
        }
        self.pools.get(&(actor.namespace.clone(), actor.actor_type.clone()))
    }
}

/// What became of a wish to end an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The host has closed it, or will before it opens another.
    Closed,
    /// The host does not answer.
    Silent,
}

impl Hosts {
    pub fn new(
        node: NodeId,
        cluster: ClusterId,
        namespace: &str,
        local: Host,
        links: Arc<dyn Links>,
        meta: watch::Receiver<Arc<MetaState>>,
    ) -> Self {
        let (namespace, sight, sessions) = (namespace.into(), watch::Sender::new(Arc::default()), Mutex::default());
        Self { inner: Arc::new(Inner { node, cluster, namespace, local, links, sight, meta, sessions }) }
    }

    pub fn local(&self) -> &Host {
        &self.inner.local
    }

    pub fn is_local(&self, host: NodeId) -> bool {
        host == self.inner.node
    }

    /// Replaces what is known of the other nodes.
    pub fn set_sight(&self, sight: Sight) {
        self.inner.sight.send_replace(Arc::new(sight));
    }

    /// Changes of what is known of the other nodes.
    pub fn sights(&self) -> watch::Receiver<Arc<Sight>> {
        self.inner.sight.subscribe()
    }

    /// What holds for the actor's type, if any app hosts it at this moment.
    pub fn type_config(&self, actor: &ActorKey) -> Option<TypeConfig> {
        self.local_config(actor).or_else(|| self.inner.sight.borrow().pool(actor).map(|pool| pool.config))
    }

    /// Whether any app hosts the type.
    pub fn hosts_type(&self, namespace: &str, actor_type: &str) -> bool {
        (*self.inner.namespace == *namespace && self.inner.local.type_config(actor_type).is_some())
            || self.inner.sight.borrow().pools.contains_key(&(namespace.into(), actor_type.into()))
    }

    /// Whether any app hosts anything.
    pub fn any(&self) -> bool {
        self.inner.local.hosted().is_some_and(|hosted| !hosted.types.is_empty())
            || !self.inner.sight.borrow().pools.is_empty()
    }

    /// Whether the node's app hosts the actor's type.
    pub fn hosts(&self, host: NodeId, actor: &ActorKey) -> bool {
        if self.is_local(host) {
            return self.local_config(actor).is_some();
        }
        self.inner.sight.borrow().pool(actor).is_some_and(|pool| pool.hosts.contains(&host))
    }

    /// Where a new activation of the actor lives.
    pub fn choose(&self, actor: &ActorKey) -> Option<NodeId> {
        let me = self.inner.node;
        let here = self.local_config(actor).is_some();
        let sight = self.inner.sight.borrow();
        let Some(pool) = sight.pool(actor) else { return here.then_some(me) };
        let is_there = |host: &NodeId| if *host == me { here } else { pool.hosts.contains(host) };
        // The choice is a moment old: whoever it names may be gone, and this node's app may have come.
        let chosen = pool.choice.choose(me, actor).filter(is_there);
        chosen.or(here.then_some(me)).or_else(|| pool.hosts.first().copied())
    }

    fn local_config(&self, actor: &ActorKey) -> Option<TypeConfig> {
        if actor.namespace != self.inner.namespace {
            return None;
        }
        self.inner.local.type_config(&actor.actor_type)
    }

    /// A host has pinged in this session.
    pub fn pinged(&self, host: NodeId, session: u64) {
        let mut sessions = self.inner.sessions.lock();
        let known = sessions.entry(host).or_insert(session);
        *known = session.max(*known);
    }

    /// Runs one request of a turn at its host. `permitted`: whether the owner still counts.
    pub async fn dispatch(
        &self,
        host: NodeId,
        actor: &ActorKey,
        turn: TurnDispatch,
        permitted: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Response<Bytes>, HostError> {
        if self.is_local(host) {
            return self.inner.local.dispatch(actor, turn, permitted).await;
        }
        let Some(session) = self.inner.sessions.lock().get(&host).copied() else { return Err(HostError::Lapsed) };
        let message = wire::Dispatch {
            actor: Some(convert::put_actor(actor)),
            token: Some(convert::put_token(&turn.token)),
            opens: turn.opens,
            chain: convert::put_chain(turn.chain.as_ref()),
            idle_ms: convert::put_instant(turn.idle_deadline, clock::monotonic()),
            session,
            request: Some(convert::put_request(&turn.call)),
            tick: turn.tick.as_ref().map(convert::put_tick),
        };
        let limit = self.inner.local.turn_limit();
        let lost = |text: String| HostError::App(AppError::Lost(text));
        match self.inner.links.send(host, Errand::Dispatch, message.encode_to_vec().into(), limit).await {
            Ok(body) => wire::AppResponse::decode(body)
                .map_err(|error| lost(error.to_string()))
                .and_then(|response| convert::get_response(response).map_err(|error| lost(error.to_string()))),
            Err(LinkError::NotSent(text)) => Err(HostError::App(AppError::NotSent(text))),
            Err(LinkError::Lost(text)) => Err(lost(text)),
            Err(LinkError::Refused { text, detail }) => match wire::AskError::decode(detail) {
                Ok(error) if error != wire::AskError::default() => Err(failure::get_host(error)),
                Ok(_) | Err(_) => Err(HostError::App(AppError::NotSent(text))),
            },
        }
    }

    /// Ends an activation at its host.
    pub async fn deactivate(&self, host: NodeId, actor: &ActorKey, token: FencingToken) -> Closing {
        if self.is_local(host) {
            // Without an answer the instance stays sealed at the guard, which removes it before the next dispatch.
            let (DeleteAnswer::Answered | DeleteAnswer::NoAnswer) = self.inner.local.deactivate(actor, token).await;
            return Closing::Closed;
        }
        let message =
            wire::Deactivate { actor: Some(convert::put_actor(actor)), token: Some(convert::put_token(&token)) };
        match self.inner.links.send(host, Errand::Deactivate, message.encode_to_vec().into(), ERRAND_LIMIT).await {
            Ok(_answered_or_sealed) => Closing::Closed,
            Err(LinkError::NotSent(_) | LinkError::Lost(_) | LinkError::Refused { .. }) => Closing::Silent,
        }
    }

    /// Every registered node but this one, whether or not it can be reached: any may have an app.
    pub fn others(&self) -> BTreeSet<NodeId> {
        self.inner.meta.borrow().nodes.keys().copied().filter(|node| *node != self.inner.node).collect()
    }

    /// Tells a host of a claim. `None`: it does not answer.
    pub async fn seal(
        &self,
        host: NodeId,
        partition: PartitionId,
        generation: u64,
        epoch: Epoch,
        change: Change,
    ) -> Option<SealReport> {
        if self.is_local(host) {
            return Some(self.inner.local.seal(partition, generation, epoch, change));
        }
        let planned = change == Change::Planned;
        let message = wire::Seal { partition: partition.0, generation, epoch: epoch.0, planned };
        let body = message.encode_to_vec().into();
        let answer = self.inner.links.send(host, Errand::Seal, body, SEAL_LIMIT).await.ok()?;
        convert::get_report(self.inner.cluster, wire::SealReport::decode(answer).ok()?, clock::monotonic()).ok()
    }

    /// Gives instances at rest a token of this owner's epoch. Says which live on.
    pub async fn retoken(&self, host: NodeId, tokens: &[(ActorKey, FencingToken, FencingToken)]) -> Vec<bool> {
        if self.is_local(host) {
            return tokens.iter().map(|(actor, from, to)| self.inner.local.retoken(actor, *from, *to, None)).collect();
        }
        let none = vec![false; tokens.len()];
        let Some(session) = self.inner.sessions.lock().get(&host).copied() else { return none };
        let tokens = tokens.iter().map(|(actor, from, to)| wire::NewToken {
            actor: Some(convert::put_actor(actor)),
            from: Some(convert::put_token(from)),
            to: Some(convert::put_token(to)),
        });
        let body = wire::Retoken { tokens: tokens.collect(), session }.encode_to_vec().into();
        match self.inner.links.send(host, Errand::Retoken, body, SEAL_LIMIT).await.map(wire::Retokened::decode) {
            Ok(Ok(answer)) if answer.lives.len() == none.len() => answer.lives,
            Ok(_) | Err(_) => none,
        }
    }

    /// Waits until nothing of the actor's instance runs at the host, `limit` at most.
    pub async fn quiet_within(&self, host: NodeId, actor: &ActorKey, limit: Duration) {
        if self.is_local(host) {
            return self.inner.local.quiet_within(actor, limit).await;
        }
        let message = wire::Quiet { actor: Some(convert::put_actor(actor)), limit_ms: convert::millis(limit) };
        let asked = self.inner.links.send(host, Errand::Quiet, message.encode_to_vec().into(), limit);
        if asked.await.is_err() {
            tokio::time::sleep(limit).await;
        }
    }
}
