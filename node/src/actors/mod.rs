//! Actors, as every door of the node asks for them: one value that knows where an actor's owner is.
//!
//! The router's rule is written here once ([`Actors::routed`]): a request that certainly had no effect is tried again
//! until its time is up, one that may have had one never is.

pub mod reminders;
pub mod state;
pub mod timers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_engine::activation::EndReason;
use callboard_engine::mailbox::{Counts, ReentrancyId, RequestKind};
use callboard_engine::partition::partition_of_key;
use callboard_machine::meta::{MetaCommand, MetaResponse, MetaState};
use callboard_machine::partition::{ActorOp, Effect};
use callboard_raft::{Groups, MetaHandle, Observer, Partition};
use callboard_types::{ActorKey, Class, PartitionId};
use http::{HeaderMap, Response, Uri};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::app::Error as AppError;
use crate::app::path::{push_method, push_segment};
use crate::clock;
use crate::config::Config;
use crate::host::Host;
use crate::host::order::WriteOrder;
use crate::host::timers::Timers;
use crate::owner::writes::Write;
use crate::owner::{AppCall, Common, Error as OwnerError, Owner, Reign, Turn};
use crate::tasks::{Kind, Tasks};

/// Between two looks of the router for an owner or a host.
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
    owners: Vec<Arc<Owner>>,
    host: Host,
    order: WriteOrder,
    timers: Timers,
    meta: MetaHandle,
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
    /// A limit of this node is reached.
    #[error("{0}")]
    Full(String),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The request cannot be sent to an app.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::Closed | Error::NoHost(_) | Error::Full(_) => Class::Busy,
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
    pub fn start(config: &Config, common: Common, groups: &Groups, observer: &Effects, tasks: Tasks) -> Self {
        let owners: Vec<_> =
            groups.partitions().into_iter().map(|partition: Partition| Owner::new(partition, common.clone())).collect();
        observer.follow(&owners);
        for owner in &owners {
            tasks.spawn(Kind::Service, "owner", owner.clone().run());
        }
        let limits = common.limits.clone();
        let actors = Self {
            inner: Arc::new(Inner {
                namespace: config.namespace.as_str().into(),
                app_id: config.app_id.clone(),
                owners,
                host: common.host.clone(),
                order: WriteOrder::default(),
                timers: Timers::new(limits.timers),
                meta: groups.meta(),
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

    pub fn owners(&self) -> &[Arc<Owner>] {
        &self.inner.owners
    }

    /// Calls a method and returns the app's answer, whatever its status.
    pub async fn invoke(&self, invocation: Invocation<'_>) -> Result<Response<Bytes>, Error> {
        let uri = method_uri(&invocation)?;
        let turn = Turn {
            actor: invocation.actor,
            kind: RequestKind::Call,
            chain: invocation.chain.map(ReentrancyId::from),
            call: AppCall { uri, headers: invocation.headers, body: invocation.body },
            deadline: clock::monotonic().saturating_add(PATIENCE),
            wanted: None,
        };
        self.turn(Arc::new(turn)).await
    }

    /// Deletes everything of the actor in one commit, after its activation has ended.
    pub async fn delete(&self, actor: &ActorKey) -> Result<(), Error> {
        self.not_closed()?;
        let deadline = clock::monotonic().saturating_add(PATIENCE);
        self.routed(actor, |reign| {
            let (actor, key) = (actor.clone(), actor.clone());
            let write = |reign: Arc<Reign>| async move {
                reign.commit(&key, Write { author: None, ops: vec![ActorOp::DeleteActor], now: clock::wall() }).await
            };
            async move { reign.exclusive(&actor, deadline, write).await }
        })
        .await?;
        self.inner.timers.remove_actor(actor);
        Ok(())
    }

    /// Runs a turn at the actor's owner.
    pub(crate) async fn turn(&self, turn: Arc<Turn>) -> Result<Response<Bytes>, Error> {
        self.not_closed()?;
        self.hosted(&turn.actor, turn.deadline).await?;
        let actor = turn.actor.clone();
        self.routed(&actor, |reign| {
            let turn = turn.clone();
            async move { reign.turn(turn).await }
        })
        .await
    }

    /// Waits, within bounds, until an app hosts the actor's type: for an app that starts, and for one that comes back.
    async fn hosted(&self, actor: &ActorKey, deadline: Instant) -> Result<(), Error> {
        if self.inner.host.type_config(&actor.actor_type).is_some() {
            return Ok(());
        }
        let mut app = self.inner.host.app();
        let hosts = |view: &crate::app::AppView| {
            view.hosted.as_ref().is_some_and(|hosted| hosted.types.contains_key(&*actor.actor_type))
        };
        // An app that was reached before and is away is waited for like any host; one that starts may take longer.
        let starting = self.inner.host.has_app() && !self.inner.reached.load(Ordering::Acquire);
        if starting {
            let patience = deadline.saturating_since(clock::monotonic()).saturating_sub(self.inner.limits.host_wait);
            let _ = tokio::time::timeout(patience, app.wait_for(|view| view.config_read)).await;
        }
        match tokio::time::timeout(self.inner.limits.host_wait, app.wait_for(hosts)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::NoHost(actor.clone())),
        }
    }

    /// A node that stops begins no turn; what runs may still read and write.
    fn not_closed(&self) -> Result<(), Error> {
        if self.inner.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Asks the actor's owner, and asks again while that certainly had no effect and its time is not up.
    pub(crate) async fn routed<R, F>(&self, actor: &ActorKey, ask: impl Fn(Arc<Reign>) -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<R, OwnerError>>,
    {
        let owner = self.owner_of(actor);
        let now = clock::monotonic();
        let (owned_by, hosted_by) =
            (now.saturating_add(self.inner.limits.retry_for), now.saturating_add(self.inner.limits.host_wait));
        loop {
            let answer = match owner.reign() {
                Ok(reign) => ask(reign).await,
                Err(error) => Err(error),
            };
            let (error, until) = match answer {
                Ok(answer) => return Ok(answer),
                Err(error @ OwnerError::NotServing(_)) => (error, owned_by),
                Err(error @ OwnerError::NoHost) => (error, hosted_by),
                Err(error @ OwnerError::App(AppError::NotSent(_) | AppError::Unhealthy)) => (error, hosted_by),
                Err(error) => return Err(error.into()),
            };
            if clock::monotonic() >= until || self.inner.tasks.is_stopping() {
                let no_host = matches!(error, OwnerError::NoHost);
                return Err(if no_host { Error::NoHost(actor.clone()) } else { error.into() });
            }
            self.not_closed()?;
            if owner.is_serving() {
                tokio::time::sleep(LOOK_AGAIN).await;
            } else {
                let _ = tokio::time::timeout(LOOK_AGAIN, owner.served()).await;
            }
        }
    }

    fn owner_of(&self, actor: &ActorKey) -> &Arc<Owner> {
        let owners = &self.inner.owners;
        let partition = partition_of_key(actor, owners.len() as u32);
        &owners[partition.0 as usize]
    }

    /// Active actors by type, for the types the app hosts and those still active.
    pub fn active_counts(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        if let Some(hosted) = self.inner.host.hosted() {
            counts.extend(hosted.types.keys().map(|name| (name.to_string(), 0)));
        }
        for (name, count) in self.inner.owners.iter().flat_map(|owner| owner.active_counts()) {
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

    fn end_activations(&self, reason: EndReason, selects: impl Fn(&ActorKey) -> bool) {
        for reign in self.reigns() {
            reign.deactivate_all(reason, |actor, _host| selects(actor));
        }
    }

    fn reigns(&self) -> impl Iterator<Item = Arc<Reign>> + '_ {
        self.inner.owners.iter().filter_map(|owner| owner.reign().ok())
    }

    /// Registers the app's types with the cluster, whenever they change.
    async fn register_types(self) {
        let mut app = self.inner.host.app();
        let mut registered: Option<u64> = None;
        loop {
            let hosted = app.borrow_and_update().hosted.clone().filter(|hosted| !hosted.types.is_empty());
            let again = match hosted {
                Some(hosted) if registered != Some(hosted.digest) => {
                    let done = self.register(hosted.types.keys().map(|name| name.to_string()).collect()).await;
                    registered = done.then_some(hosted.digest);
                    if done { Duration::MAX } else { REGISTER_AGAIN }
                }
                Some(_) | None => Duration::MAX,
            };
            tokio::select! {
                biased;
                () = self.inner.tasks.stopping() => return,
                changed = app.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Tells the cluster which app registered the types; the first one to do so is shown in state keys for good.
    async fn register(&self, types: Vec<String>) -> bool {
        let (namespace, app_id) = (self.inner.namespace.to_string(), self.inner.app_id.clone());
        match self.inner.meta.propose(MetaCommand::RegisterTypes { namespace, app_id, types }).await {
            Ok(MetaResponse::Done) => true,
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

    /// Waits for running turns, half the grace at most; then nothing starts any more and every activation ends with its
    /// `DELETE`, within the rest. False: that was not enough.
    pub async fn drain(&self, grace: Duration) -> bool {
        let now = clock::monotonic();
        let (half, end) = (now.saturating_add(grace / 2), now.saturating_add(grace));
        for reign in self.reigns() {
            reign.stop_firing();
        }
        self.inner.draining.store(true, Ordering::Release);
        self.until(half, |counts| counts.running == 0 && counts.waiting == 0).await;
        self.inner.closed.store(true, Ordering::Release);
        for reign in self.reigns() {
            reign.close(EndReason::Shutdown);
        }
        self.until(end, |counts| counts.activations == 0 && counts.running == 0).await
    }

    async fn until(&self, deadline: Instant, done: fn(Counts) -> bool) -> bool {
        loop {
            if self.inner.owners.iter().filter_map(|owner| owner.counts()).all(done) {
                return true;
            }
            if clock::monotonic() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// `/actors/{type}/{id}/method/{method}?{query}`, each part encoded.
fn method_uri(invocation: &Invocation<'_>) -> Result<Uri, Error> {
    let actor = &invocation.actor;
    let query = invocation.query.map_or(0, |query| query.len() + 1);
    let length = 32 + actor.actor_type.len() + actor.actor_id.len() + invocation.method.len() + query;
    let mut path = String::with_capacity(length);
    path.push_str("/actors/");
    push_segment(&mut path, &actor.actor_type);
    path.push('/');
    push_segment(&mut path, &actor.actor_id);
    path.push_str("/method/");
    push_method(&mut path, invocation.method);
    if let Some(query) = invocation.query {
        path.push('?');
        path.push_str(query);
    }
    Uri::try_from(path).map_err(|error| Error::Invalid(format!("the app cannot be asked for that method: {error}")))
}

/// Brings what the log applied to the owners; made before the groups open, told of the owners after.
#[derive(Clone, Default)]
pub struct Effects {
    owners: Arc<RwLock<Vec<Arc<Owner>>>>,
}

impl Effects {
    fn follow(&self, owners: &[Arc<Owner>]) {
        *self.owners.write() = owners.to_vec();
    }
}

impl Observer for Effects {
    fn applied(&self, partition: PartitionId, effects: &[Effect]) {
        if effects.is_empty() {
            return;
        }
        let owner = self.owners.read().get(partition.0 as usize).cloned();
        if let Some(owner) = owner {
            owner.applied(effects);
        }
    }
}
