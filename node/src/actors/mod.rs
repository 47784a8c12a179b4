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
use callboard_engine::activation::EndReason;
use callboard_engine::mailbox::{ReentrancyId, RequestKind};
use callboard_engine::partition::partition_of_key;
use callboard_machine::meta::{MetaCommand, MetaState};
use callboard_machine::partition::{ActorOp, Effect};
use callboard_raft::{Groups, MetaHandle, Observer, Partition};
use callboard_types::{ActorKey, Class, PartitionId};
use http::{HeaderMap, Response, Uri};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::app::path::{push_method, push_segment};
use crate::clock;
use crate::config::Config;
use crate::host::Host;
use crate::host::order::WriteOrder;
use crate::host::timers::Timers;
use crate::owner::{AppCall, Common, Error as OwnerError, Owner, Turn};
use crate::tasks::{Kind, Tasks};

/// Between two looks of the router for an owner or a host.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a call waits for an app that has not been reached yet. Below the time-outs of the SDKs' clients.
const STARTUP_WAIT: Duration = Duration::from_secs(50);
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
            tasks.spawn(Kind::Service, "keeper", owner.clone().keep());
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
                closed: AtomicBool::new(false),
                tasks: tasks.clone(),
            }),
        };
        tasks.spawn(Kind::Service, "app-watch", actors.clone().follow_app());
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
            wanted: None,
        };
        self.turn(Arc::new(turn)).await
    }

    /// Deletes everything of the actor in one commit, after its activation has ended.
    pub async fn delete(&self, actor: &ActorKey) -> Result<(), Error> {
        self.inner.timers.remove_actor(actor);
        self.routed(actor, |owner| {
            let (actor, writer, key) = (actor.clone(), owner.clone(), actor.clone());
            let write = async move { writer.commit(&key, None, vec![ActorOp::DeleteActor]).await };
            async move { owner.exclusive(&actor, write).await }
        })
        .await
    }

    /// Runs a turn at the actor's owner.
    pub(crate) async fn turn(&self, turn: Arc<Turn>) -> Result<Response<Bytes>, Error> {
        self.hosted(&turn.actor).await?;
        let actor = turn.actor.clone();
        self.routed(&actor, |owner| {
            let turn = turn.clone();
            async move { owner.turn(turn).await }
        })
        .await
    }

    /// Waits, within bounds, until an app hosts the actor's type: for an app that starts, and for one that comes back.
    async fn hosted(&self, actor: &ActorKey) -> Result<(), Error> {
        if self.inner.host.type_config(&actor.actor_type).is_some() {
            return Ok(());
        }
        let mut app = self.inner.host.app();
        let hosts = |view: &crate::app::AppView| {
            view.hosted.as_ref().is_some_and(|hosted| hosted.types.contains_key(&*actor.actor_type))
        };
        let starting = self.inner.host.has_app() && !app.borrow().config_read;
        if starting {
            let _ = tokio::time::timeout(STARTUP_WAIT, app.wait_for(|view| view.config_read)).await;
        }
        match tokio::time::timeout(self.inner.limits.host_wait, app.wait_for(hosts)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::NoHost(actor.clone())),
        }
    }

    /// Asks the actor's owner, and asks again while that certainly had no effect and its time is not up.
    pub(crate) async fn routed<R, F>(&self, actor: &ActorKey, ask: impl Fn(Arc<Owner>) -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<R, OwnerError>>,
    {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let owner = self.owner_of(actor);
        let deadline = clock::monotonic().saturating_add(self.inner.limits.retry_for);
        let host_deadline = clock::monotonic().saturating_add(self.inner.limits.host_wait);
        loop {
            let (error, until) = match ask(owner.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error @ OwnerError::NotServing(_)) => (error, deadline),
                Err(OwnerError::NoHost) => {
                    if clock::monotonic() >= host_deadline {
                        return Err(Error::NoHost(actor.clone()));
                    }
                    (OwnerError::NoHost, host_deadline)
                }
                Err(error) => return Err(error.into()),
            };
            if clock::monotonic() >= until || self.inner.tasks.is_stopping() {
                return Err(error.into());
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, owner.served()).await;
            if owner.is_serving() && matches!(error, OwnerError::NoHost) {
                tokio::time::sleep(LOOK_AGAIN).await;
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
        let mut incarnation = app.borrow().incarnation;
        let mut registered: Option<u64> = None;
        loop {
            let view = app.borrow_and_update().clone();
            if view.incarnation != incarnation {
                incarnation = view.incarnation;
                self.inner.host.app_gone();
                self.end_activations(EndReason::AppGone, |_| true);
            }
            let hosted = view.hosted.clone();
            self.end_activations(EndReason::Withdrawn, |actor| {
                hosted.as_ref().is_none_or(|hosted| !hosted.types.contains_key(&*actor.actor_type))
            });
            let digest = view.hosted.as_ref().filter(|hosted| !hosted.types.is_empty()).map(|hosted| hosted.digest);
            if let Some(hosted) = view.hosted.filter(|_| digest.is_some() && digest != registered) {
                if self.register(hosted.types.keys().map(|name| name.to_string()).collect()).await {
                    registered = digest;
                } else {
                    tokio::time::sleep(REGISTER_AGAIN).await;
                    continue;
                }
            }
            tokio::select! {
                biased;
                () = self.inner.tasks.stopping() => return,
                changed = app.changed() => if changed.is_err() { return },
            }
        }
    }

    fn end_activations(&self, reason: EndReason, selects: impl Fn(&ActorKey) -> bool) {
        for owner in &self.inner.owners {
            owner.deactivate_all(reason, |actor, _host| selects(actor));
        }
    }

    /// Tells the cluster which app registered the types; the first one to do so is shown in state keys for good.
    async fn register(&self, types: Vec<String>) -> bool {
        let (namespace, app_id) = (self.inner.namespace.to_string(), self.inner.app_id.clone());
        match self.inner.meta.propose(MetaCommand::RegisterTypes { namespace, app_id, types }).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "the app's actor types are not registered yet");
                false
            }
        }
    }

    /// Waits for running turns, then ends every activation with its `DELETE`; `grace` at most for both.
    pub async fn drain(&self, grace: Duration) {
        let deadline = clock::monotonic().saturating_add(grace);
        let until = |done: fn(callboard_engine::mailbox::Counts) -> bool| async move {
            while clock::monotonic() < deadline {
                if self.inner.owners.iter().filter_map(|owner| owner.counts()).all(done) {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        until(|counts| counts.running == 0 && counts.waiting == 0).await;
        self.inner.closed.store(true, Ordering::Release);
        self.end_activations(EndReason::Shutdown, |_| true);
        until(|counts| counts.activations == 0).await;
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
