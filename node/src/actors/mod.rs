//! Actors, as every door of the node asks for them: one value that finds an actor's owner, on whichever node it is.
//!
//! ```text
//!   road       to the owner of one actor: here, or one forward away   <- the road of an actor call
//!   owners     the partitions of this node, each with its owner
//!   gather     lists over all partitions
//!   ready      whether a command goes through
//!   counters   what went this way
//! ```

mod counters;
mod gather;
mod owners;
mod ready;
pub mod reminders;
mod road;
pub mod state;
pub mod timers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_engine::activation::EndReason;
use callboard_engine::mailbox::{Counts, ReentrancyId};
use callboard_machine::meta::{MetaCommand, MetaResponse, MetaState, NodeRecord, Role};
use callboard_raft::Groups;
use callboard_types::{ActorKey, Class, ClusterId, NodeId};
use http::{HeaderMap, Response};
use tokio::sync::watch;

use crate::app::path;
use crate::calls::{Answer, Ask, TurnKind};
use crate::clock;
use crate::cluster::meta::Meta;
use crate::config::Config;
use crate::host::Host;
use crate::host::order::WriteOrder;
use crate::links::Links;
use crate::owner::hosts::Hosts;
use crate::owner::{AppCall, Common, Error as OwnerError};
use crate::tasks::{Kind, Tasks};

pub use counters::Counters;
pub use owners::Owners;
pub use road::Whereabouts;

/// Between two looks at what still runs.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a call waits in all, for an app that has not been reached yet and for its turn. Below the time-outs of the
/// SDKs' clients, so that they see the reason.
pub const PATIENCE: Duration = Duration::from_secs(55);
/// Between two attempts to register the app's types with the cluster.
const REGISTER_AGAIN: Duration = Duration::from_millis(500);

/// Handle of the node's actors; clones share it.
#[derive(Clone)]
pub struct Actors {
    inner: Arc<Inner>,
}

struct Inner {
    namespace: Arc<str>,
    app_id: String,
    node: NodeId,
    cluster: ClusterId,
    /// How many the cluster has.
    partitions: u32,
    owners: Owners,
    whereabouts: Whereabouts,
    counters: Counters,
    links: Arc<dyn Links>,
    host: Host,
    hosts: Hosts,
    order: WriteOrder,
    meta: Meta,
    /// The node was not told its role.
    may_store: bool,
    limits: Arc<crate::config::Limits>,
    /// The app has been asked what it hosts, in some life of its process.
    reached: AtomicBool,
    /// The node will stop: timers no longer tick.
    draining: AtomicBool,
    /// The node stops: nothing that is not under way is begun.
    closed: AtomicBool,
    tasks: Tasks,
}

/// Why a request about an actor failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("actor runtime is closed")]
    Closed,
    /// No app hosts the type.
    #[error("did not find address for actor '{0}'")]
    NoHost(ActorKey),
    /// A write, or a timer, of an actor that is not active in this node's app.
    #[error("actor instance is missing")]
    NotActive,
    #[error("actor reminder not found: {0}")]
    ReminderNotFound(String),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The request cannot be sent to an app.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::Closed | Error::NoHost(_) => Class::Busy,
            Error::NotActive | Error::ReminderNotFound(_) | Error::Invalid(_) => Class::Rejected,
            Error::Owner(error) => error.class(),
        }
    }
}

/// A call of an actor's method, as it came in.
pub struct Invocation<'a> {
    pub actor: ActorKey,
    /// Normalised.
    pub method: &'a str,
    pub query: Option<&'a str>,
    /// What the app gets to see.
    pub headers: HeaderMap,
    pub chain: Option<&'a str>,
    pub body: Bytes,
}

impl Actors {
    /// Opens the road: owners for every partition of this node, the host's watch over its app, the timers.
    pub fn start(
        config: &Config,
        common: Common,
        groups: &Groups,
        meta: Meta,
        owners: Owners,
        links: Arc<dyn Links>,
        tasks: Tasks,
    ) -> Self {
        owners.follow(groups.partitions(), &common, &tasks);
        let limits = common.limits.clone();
        let partitions = meta.state().settings.as_ref().map_or(1, |settings| settings.partitions);
        tasks.spawn(Kind::Service, "partitions", owners.clone().keep(groups.held(), common.clone(), tasks.clone()));
        let actors = Self {
            inner: Arc::new(Inner {
                namespace: config.namespace.as_str().into(),
                app_id: config.app_id.clone(),
                node: common.node,
                cluster: common.cluster,
                partitions,
                owners,
                whereabouts: Whereabouts::default(),
                counters: Counters::default(),
                links,
                host: common.hosts.local().clone(),
                hosts: common.hosts,
                order: WriteOrder::default(),
                meta,
                may_store: config.role.is_none(),
                limits,
                reached: AtomicBool::new(false),
                draining: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                tasks: tasks.clone(),
            }),
        };
        tasks.spawn(Kind::Service, "app-watch", actors.clone().follow_app());
        tasks.spawn(Kind::Service, "register-types", actors.clone().register_types());
        tasks.spawn(Kind::Service, "timers", actors.clone().run_timers());
        actors
    }

    /// The actor of this node's namespace.
    pub fn key(&self, actor_type: Arc<str>, actor_id: Arc<str>) -> ActorKey {
        ActorKey { namespace: self.inner.namespace.clone(), actor_type, actor_id }
    }

    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    pub fn meta(&self) -> watch::Receiver<Arc<MetaState>> {
        self.inner.meta.watch()
    }

    pub fn owners(&self) -> &Owners {
        &self.inner.owners
    }

    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    pub fn whereabouts(&self) -> &Whereabouts {
        &self.inner.whereabouts
    }

    /// Calls a method and returns the app's answer, whatever its status.
    pub async fn invoke(&self, invocation: Invocation<'_>) -> Result<Response<Bytes>, Error> {
        let uri = path::method(&invocation.actor, invocation.method, invocation.query)
            .map_err(|error| Error::Invalid(format!("the app cannot be asked for that method: {error}")))?;
        let call = Arc::new(AppCall { uri, headers: invocation.headers, body: invocation.body });
        let chain = invocation.chain.map(ReentrancyId::from);
        self.turn(&invocation.actor, TurnKind::Call, chain, call).await
    }

    /// Deletes everything of the actor in one commit, after its activation has ended.
    pub async fn delete(&self, actor: &ActorKey) -> Result<(), Error> {
        self.not_closed()?;
        self.ask(actor, &Ask::Delete { patience: PATIENCE }).await?;
        self.inner.host.timers().remove_actor(actor);
        Ok(())
    }

    /// Runs a turn at the actor's owner.
    async fn turn(
        &self,
        actor: &ActorKey,
        kind: TurnKind,
        chain: Option<ReentrancyId>,
        call: Arc<AppCall>,
    ) -> Result<Response<Bytes>, Error> {
        self.not_closed()?;
        let deadline = clock::monotonic().saturating_add(PATIENCE);
        self.hosted(actor, deadline).await?;
        let patience = deadline.saturating_since(clock::monotonic());
        match self.ask(actor, &Ask::Turn { kind, chain, call, patience }).await? {
            Answer::Response(response) => Ok(response),
            other @ (Answer::Done | Answer::State(_) | Answer::Reminder(_) | Answer::Reminders(_)) => Err(odd(&other)),
        }
    }

    /// Waits, within bounds, until an app hosts the actor's type: for an app that starts, and for one that comes back.
    async fn hosted(&self, actor: &ActorKey, deadline: Instant) -> Result<(), Error> {
        let hosts = &self.inner.hosts;
        if hosts.type_config(actor).is_some() {
            return Ok(());
        }
        let mut app = self.inner.host.app();
        // An app that was reached before and is away is waited for like any host; one that starts may take longer.
        let starting = self.inner.host.has_app() && !self.inner.reached.load(Ordering::Acquire);
        if starting {
            let patience = deadline.saturating_since(clock::monotonic()).saturating_sub(self.inner.limits.host_wait);
            let _ = tokio::time::timeout(patience, app.wait_for(|view| view.config_read)).await;
        }
        let appears = async {
            let mut sights = hosts.sights();
            while hosts.type_config(actor).is_none() {
                tokio::select! {
                    changed = app.changed() => if changed.is_err() { return },
                    changed = sights.changed() => if changed.is_err() { return },
                }
            }
        };
        let _ = tokio::time::timeout(self.inner.limits.host_wait, appears).await;
        if hosts.type_config(actor).is_some() { Ok(()) } else { Err(Error::NoHost(actor.clone())) }
    }

    /// A node that stops begins no turn; what runs may still read and write.
    fn not_closed(&self) -> Result<(), Error> {
        if self.inner.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Active actors by type, for the types the app hosts and those still active.
    pub fn active_counts(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        if let Some(hosted) = self.inner.host.hosted() {
            counts.extend(hosted.types.keys().map(|name| (name.to_string(), 0)));
        }
        for (name, count) in self.inner.owners.all().iter().flat_map(|owner| owner.active_counts()) {
            *counts.entry(name.actor_type.to_string()).or_default() += count;
        }
        counts.into_iter().collect()
    }

    /// Lets the app's life rule the activations: a gone process takes its instances with it, a withdrawn type its own.
    async fn follow_app(self) {
        let mut app = self.inner.host.app();
        // The channel's count begins at 0: an end that came before this task did must not be missed.
        let mut incarnation = 0;
        loop {
            let view = app.borrow_and_update().clone();
            self.inner.host.look_at_app();
            if view.config_read {
                self.inner.reached.store(true, Ordering::Release);
            }
            if view.incarnation != incarnation {
                incarnation = view.incarnation;
                self.end_activations(EndReason::AppGone, |_| true);
            }
            let hosted = view.hosted;
            self.end_activations(EndReason::Withdrawn, |actor| {
                hosted.as_ref().is_none_or(|hosted| !hosted.types.contains_key(&*actor.actor_type))
            });
            tokio::select! {
                biased;
                () = self.inner.tasks.stopping() => return,
                changed = app.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Ends activations in this node's own app, of the partitions it owns.
    fn end_activations(&self, reason: EndReason, selects: impl Fn(&ActorKey) -> bool) {
        let is_local = |host: Option<NodeId>| host.is_none_or(|host| host == self.inner.node);
        for reign in self.inner.owners.reigns() {
            reign.deactivate_all(reason, |actor, host| is_local(host) && selects(actor));
        }
    }

    /// Registers the app's types with the cluster, whenever they change.
    async fn register_types(self) {
        let mut app = self.inner.host.app();
        let mut meta = self.inner.meta.watch();
        let mut registered: Option<u64> = None;
        loop {
            let hosted = app.borrow_and_update().hosted.clone().filter(|hosted| !hosted.types.is_empty());
            meta.mark_unchanged();
            let done = match hosted {
                Some(hosted) if registered != Some(hosted.digest) => {
                    let done = self.register(hosted.types.keys().map(|name| name.to_string()).collect()).await;
                    registered = done.then_some(hosted.digest);
                    done
                }
                // What this node said of itself at its start may come after what it said later, with its role of before.
                Some(_) => self.become_storage().await,
                None => true,
            };
            let again = if done { Duration::MAX } else { REGISTER_AGAIN };
            tokio::select! {
                biased;
                () = self.inner.tasks.stopping() => return,
                changed = app.changed() => if changed.is_err() { return },
                changed = meta.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Tells the cluster which app registered the types; the first one to do so is shown in state keys for good.
    async fn register(&self, types: Vec<String>) -> bool {
        let (namespace, app_id) = (self.inner.namespace.to_string(), self.inner.app_id.clone());
        match self.inner.meta.propose(MetaCommand::RegisterTypes { namespace, app_id, types }).await {
            Ok(MetaResponse::Done) => self.become_storage().await,
            Ok(MetaResponse::Rejected(why)) => {
                tracing::error!(%why, "the cluster does not take the app's actor types; state keys show this node's app id");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the app's actor types are not registered yet");
                false
            }
        }
    }

    /// A node whose app has actors holds partitions from then on, unless it was told its role.
    async fn become_storage(&self) -> bool {
        let state = self.inner.meta.state();
        let node = self.inner.node;
        let gateway = state.nodes.get(&node).filter(|record| record.role == Role::Gateway);
        let (true, Some(record)) = (self.inner.may_store, gateway) else { return true };
        let record = NodeRecord { role: Role::Storage, ..record.clone() };
        self.inner.meta.propose(MetaCommand::PutNode { node, record }).await.is_ok()
    }

    /// Waits for running turns, half the grace at most; then nothing starts any more and every activation ends with its
    /// `DELETE`, within the rest. False: that was not enough.
    pub async fn drain(&self, grace: Duration) -> bool {
        let now = clock::monotonic();
        let (half, end) = (now.saturating_add(grace / 2), now.saturating_add(grace));
        for reign in self.inner.owners.reigns() {
            reign.stop_firing();
        }
        self.inner.draining.store(true, Ordering::Release);
        self.until(half, |_host, counts| counts.running == 0 && counts.waiting == 0).await;
        self.inner.closed.store(true, Ordering::Release);
        for reign in self.inner.owners.reigns() {
            reign.close(EndReason::Shutdown);
        }
        // Turns of owners on other nodes run here, too.
        self.until(end, |host, counts| host.is_quiet() && counts.activations == 0 && counts.running == 0).await
    }

    async fn until(&self, deadline: Instant, done: fn(&Host, Counts) -> bool) -> bool {
        loop {
            let nothing = std::iter::once(Counts::default());
            let counts: Vec<_> = self.inner.owners.all().iter().filter_map(|owner| owner.counts()).collect();
            if counts.into_iter().chain(nothing).all(|counts| done(&self.inner.host, counts)) {
                return true;
            }
            if clock::monotonic() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// An answer to another question, which only a node of another making gives.
fn odd(answer: &Answer) -> Error {
    Error::Owner(OwnerError::Unknown(format!("the owner answered with {answer:?}").into()))
}
