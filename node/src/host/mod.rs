//! The host: the node whose app executes turns. Every request of a turn reaches the app through here, past the guard.
//!
//! The [`Guard`] decides; this module carries out: it sends what the guard lets through, and removes (`DELETE`) the
//! instances that the guard no longer trusts. An actor is written to the [`opened`] list before its first dispatch, so
//! that a node that crashed knows at its next start which instances its app may still hold.
//!
//! A removal, once begun, is carried to its end by a task of its own: whoever asked for it may leave.

pub mod opened;
pub mod order;
mod passes;
pub mod serve;
pub mod sessions;
pub mod timers;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_engine::actor_config::{HostedTypes, TypeConfig};
use callboard_engine::guard::{
    Close, DeleteAnswer, Dispatch, Guard, GuardLimits, InFlight, Removal, SealReport, SessionId, Verdict, WriteToken,
};
use callboard_engine::mailbox::ReentrancyId;
use callboard_types::{ActorKey, Epoch, FencingToken, NodeId, PartitionId};
use futures_util::future::join_all;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot, watch};

use crate::app::http1::Gate;
use crate::app::path;
use crate::app::{AppChannel, AppView, Error as AppError};
use crate::calls::TickRef;
use crate::owner::AppCall;
use crate::tasks::{Kind, Tasks};
use opened::Opened;
use passes::{InFlightTurn, Reached, Unfinished};
use timers::Timers;

/// Instances in doubt that are removed in the background at a time, and how often that is tried.
const REMOVALS_AT_A_TIME: usize = 64;
const REMOVE_EVERY: Duration = Duration::from_secs(1);
/// A `DELETE` without an answer is given up after this long; the instance then stays sealed.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// How a partition came to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The former owner stood still and handed it over.
    Planned,
    Unplanned,
}

/// One request of a turn, on its way to the app.
pub struct TurnDispatch {
    pub token: FencingToken,
    pub opens: bool,
    pub chain: Option<ReentrancyId>,
    pub idle_deadline: Instant,
    /// The session with an owner on another node; `None`: the owner is on this one.
    pub session: Option<SessionId>,
    /// The timer whose tick this is.
    pub tick: Option<TickRef>,
    pub call: AppCall,
}

/// Why a turn has no answer from the app.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guard refused it and nothing reached the app: the owner opens another activation.
    #[error("the activation is not there")]
    NotActive,
    /// A newer epoch or activation has been seen.
    #[error("the fencing token is superseded")]
    Fenced,
    #[error("too many actors are active in this app")]
    Full,
    /// The owner has not confirmed lately that it is one. Nothing reached the app.
    #[error("the owner has not confirmed its ownership")]
    Lapsed,
    /// The timer of this tick is gone. Nothing reached the app.
    #[error("the timer is gone")]
    Unwanted,
    #[error(transparent)]
    App(#[from] AppError),
}

/// Bounds of a host.
#[derive(Debug, Clone, Copy)]
pub struct HostLimits {
    /// Instances in the app, and those that are being removed.
    pub activations: usize,
    pub timers: usize,
    /// A request of a turn without an answer is given up after this long.
    pub turn: Duration,
}

/// Handle of this node's host; clones share it.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    app: AppChannel,
    view: watch::Receiver<AppView>,
    table: Mutex<Table>,
    opened: Opened,
    node: NodeId,
    timers: Timers,
    /// Wakes those who wait for somebody else's removal.
    removed: Notify,
    /// Wakes those who wait for the last turn of some instance.
    quiet: Notify,
    /// A request of a turn without an answer is given up after this long.
    turn_limit: Duration,
    tasks: Tasks,
}

struct Table {
    guard: Guard,
    /// The app's process life that the guard knows of.
    incarnation: u64,
    /// Actors whose last running turn somebody waits for.
    watched_for_quiet: HashSet<ActorKey>,
}

impl Host {
    /// Takes over the list of instances that an earlier life of this node may have left in the app.
    pub fn start(app: AppChannel, opened: Opened, node: NodeId, limits: HostLimits, tasks: Tasks) -> Self {
        let mut guard = Guard::new(GuardLimits { activations: limits.activations });
        guard.listed(opened.listed());
        let table = Mutex::new(Table { guard, incarnation: 0, watched_for_quiet: HashSet::new() });
        let view = app.watch();
        let host = Self {
            inner: Arc::new(Inner {
                app,
                view,
                table,
                opened,
                node,
                timers: Timers::new(limits.timers),
                removed: Notify::new(),
                quiet: Notify::new(),
                turn_limit: limits.turn,
                tasks: tasks.clone(),
            }),
        };
        tasks.spawn(Kind::Service, "host-removals", host.clone().remove_doubtful());
        host
    }

    /// A request of a turn without an answer is given up after this long.
    pub fn turn_limit(&self) -> Duration {
        self.inner.turn_limit
    }

    /// Whether no turn runs in the app.
    pub fn is_quiet(&self) -> bool {
        self.table().guard.is_quiet()
    }

    /// The timers that were created on this node.
    pub fn timers(&self) -> &Timers {
        &self.inner.timers
    }

    /// What is known of the app: which types it hosts, whether it lives.
    pub fn app(&self) -> watch::Receiver<AppView> {
        self.inner.view.clone()
    }

    /// Whether this node is the sidecar of an app at all.
    pub fn has_app(&self) -> bool {
        self.inner.app.is_initialized()
    }

    pub fn hosted(&self) -> Option<Arc<HostedTypes>> {
        self.inner.view.borrow().hosted.clone()
    }

    /// What holds for a type, if the app hosts it at this moment.
    pub fn type_config(&self, actor_type: &str) -> Option<TypeConfig> {
        self.inner.view.borrow().hosted.as_ref().and_then(|hosted| hosted.types.get(actor_type).copied())
    }

    /// Runs one request of a turn in the app. Must be carried to its end: the caller's turn lasts as long.
    ///
    /// `permitted` says whether the owner who asks for it still counts. It is asked immediately before the first byte
    /// goes to the app, together with the guard: a wait for a connection may be longer than a lease.
    pub async fn dispatch(
        &self,
        actor: &ActorKey,
        turn: TurnDispatch,
        permitted: Gate<'_>,
    ) -> Result<Response<Bytes>, Error> {
        let (pass, record) = loop {
            let removed = self.inner.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            let dispatch = Dispatch {
                token: turn.token,
                opens: turn.opens,
                session: turn.session,
                chain: turn.chain.as_ref(),
                idle_deadline: turn.idle_deadline,
            };
            match self.open(actor, dispatch) {
                Verdict::Go { pass, record } => break (pass, record),
                Verdict::NotActive => return Err(Error::NotActive),
                Verdict::Fenced => return Err(Error::Fenced),
                Verdict::Full => return Err(Error::Full),
                Verdict::Seal(removal) => {
                    if self.remove(actor, removal).await == DeleteAnswer::NoAnswer {
                        return Err(AppError::NotSent("the actor's previous instance cannot be removed".into()).into());
                    }
                }
                Verdict::Sealed => removed.await,
            }
        };
        let in_flight = InFlightTurn { host: self, actor, pass: Some(pass), record };
        if turn.tick.is_some_and(|tick| !self.keeps(actor, &tick)) {
            in_flight.over(Reached::No);
            return Err(Error::Unwanted);
        }
        let gate = || permitted() && self.table().guard.holds(actor, pass);
        let limit = self.inner.turn_limit;
        let answer = match tokio::time::timeout(limit, self.inner.app.call_if(turn.call.into_request(), &gate)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(AppError::TimedOut(format!("no answer within {} s", limit.as_secs()))),
        };
        in_flight.over(match &answer {
            Err(
                AppError::NotInitialized
                | AppError::Unhealthy
                | AppError::NotSent(_)
                | AppError::Forbidden
                | AppError::Invalid(_),
            ) => Reached::No,
            Ok(_) | Err(AppError::Lost(_) | AppError::TimedOut(_) | AppError::TooLarge { .. }) => Reached::Perhaps,
        });
        answer.map_err(|error| match error {
            AppError::Forbidden if permitted() => Error::NotActive,
            AppError::Forbidden => Error::Fenced,
            error @ (AppError::NotInitialized
            | AppError::Unhealthy
            | AppError::NotSent(_)
            | AppError::Lost(_)
            | AppError::TimedOut(_)
            | AppError::Invalid(_)
            | AppError::TooLarge { .. }) => Error::App(error),
        })
    }

    /// Whether the timer of a tick is still there; another node's timers are that node's business.
    fn keeps(&self, actor: &ActorKey, tick: &TickRef) -> bool {
        tick.node != self.inner.node || self.inner.timers.is_current(actor, &tick.name, tick.instance, tick.occurrence)
    }

    /// Asks the guard. An actor that is opened is on the list before anybody else can see it.
    fn open(&self, actor: &ActorKey, dispatch: Dispatch<'_>) -> Verdict {
        let mut table = self.table();
        let verdict = table.guard.open(actor, dispatch);
        if let Verdict::Go { record: true, .. } = verdict {
            self.inner.opened.add(actor);
        }
        verdict
    }

    /// Ends an activation at its owner's wish: `DELETE`, and the answer awaited. Says whether the instance is gone.
    pub async fn deactivate(&self, actor: &ActorKey, token: FencingToken) -> DeleteAnswer {
        loop {
            let removed = self.inner.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            let close = self.table().guard.close(actor, token);
            match close {
                Close::Delete(removal) => return self.remove(actor, removal).await,
                Close::NotActive | Close::Fenced => return DeleteAnswer::Answered,
                Close::Sealed => removed.await,
            }
        }
    }

    /// Whether the app has the actor, and its calls count.
    pub fn is_active(&self, actor: &ActorKey) -> bool {
        self.table().guard.current_token(actor).is_some()
    }

    /// Token and number for the next write of the actor's instance; see [`order`] for the lock to hold meanwhile.
    pub fn write_token(&self, actor: &ActorKey) -> WriteToken {
        self.table().guard.token_for_write(actor)
    }

    /// A claim of the partition was applied: older tokens are refused from here on. After an unplanned change of owner
    /// older instances are removed; after a planned one the owner says which of them live on.
    pub fn seal(&self, partition: PartitionId, generation: u64, epoch: Epoch, change: Change) -> SealReport {
        let mut table = self.table();
        let report = table.guard.seal(partition, generation, epoch);
        match change {
            Change::Planned => {}
            Change::Unplanned => drop(table.guard.supersede(partition)),
        }
        report
    }

    /// An instance at rest lives on under a token of the next owner. False: it does not, and that owner opens another.
    pub fn retoken(&self, actor: &ActorKey, from: FencingToken, to: FencingToken, session: Option<SessionId>) -> bool {
        self.table().guard.retoken(actor, from, to, session)
    }

    /// What an owner opened in this session is in doubt: it may have given those actors away meanwhile.
    pub fn lapsed(&self, session: SessionId, partition: Option<PartitionId>) -> usize {
        self.table().guard.mark_lapsed(session, partition)
    }

    /// The table, in step with the app: when its process is provably gone, every instance is gone with it. Looked at
    /// under the lock, so that no turn of a later process life is taken for one of an earlier.
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.inner.table.lock();
        let incarnation = self.inner.view.borrow().incarnation;
        if table.incarnation != incarnation {
            table.incarnation = incarnation;
            let gone = table.guard.app_gone();
            table.watched_for_quiet.clear();
            self.inner.opened.clear();
            self.inner.quiet.notify_waiters();
            self.inner.removed.notify_waiters();
            if gone > 0 {
                tracing::info!(actors = gone, "the app's process is gone, and its active actors with it");
            }
        }
        table
    }

    /// Takes notice of the app's end, if it has ended.
    pub fn look_at_app(&self) {
        drop(self.table());
    }

    /// Carries a removal to its end in a task of its own.
    async fn remove(&self, actor: &ActorKey, removal: Removal) -> DeleteAnswer {
        let (done, answer) = oneshot::channel();
        let (host, actor) = (self.clone(), actor.clone());
        self.inner.tasks.spawn(Kind::Work, "remove", async move {
            let answer = host.carry_out(&actor, removal).await;
            // Whoever asked may have left.
            let _ = done.send(answer);
        });
        answer.await.unwrap_or(DeleteAnswer::NoAnswer)
    }

    async fn carry_out(&self, actor: &ActorKey, removal: Removal) -> DeleteAnswer {
        if removal.in_flight > 0 {
            // A request of a turn ends by its own limit, so this wait does.
            self.quiet_within(actor, self.inner.turn_limit).await;
        }
        let unfinished = Unfinished { host: self, actor, removal, answer: DeleteAnswer::NoAnswer };
        let answer = if self.table().guard.still_removing(actor, removal.id) {
            match self.delete(actor).await {
                Ok(response) => {
                    if response.status() != http::StatusCode::OK {
                        tracing::error!(%actor, status = response.status().as_u16(), "the app failed to deactivate an actor");
                    }
                    DeleteAnswer::Answered
                }
                Err(error) => {
                    tracing::warn!(%actor, %error, "an actor's deactivation has no answer from the app");
                    DeleteAnswer::NoAnswer
                }
            }
        } else {
            DeleteAnswer::Answered
        };
        unfinished.end(answer);
        answer
    }

    /// Also asked of an app whose health checks fail: what it holds must not outlive the activation.
    async fn delete(&self, actor: &ActorKey) -> Result<Response<Bytes>, AppError> {
        match tokio::time::timeout(DELETE_LIMIT, self.inner.app.call_regardless(delete_request(actor))).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(AppError::Lost(format!("no answer within {} s", DELETE_LIMIT.as_secs()))),
        }
    }

    /// Waits until nothing of the actor's instance runs, `limit` at most.
    pub async fn quiet_within(&self, actor: &ActorKey, limit: Duration) {
        let quiet = async {
            loop {
                let ended = self.inner.quiet.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                {
                    let mut table = self.table();
                    if table.guard.in_flight(actor) == 0 {
                        return;
                    }
                    table.watched_for_quiet.insert(actor.clone());
                }
                ended.await;
            }
        };
        let _elapsed = tokio::time::timeout(limit, quiet).await;
    }

    /// Removes, a few at a time, instances in doubt that no dispatch waits for.
    async fn remove_doubtful(self) {
        loop {
            tokio::select! {
                biased;
                () = self.inner.tasks.stopping() => return,
                () = tokio::time::sleep(REMOVE_EVERY) => {}
            }
            if !self.inner.view.borrow().healthy {
                continue;
            }
            let begun: Vec<_> = {
                let mut table = self.table();
                let doubtful = table.guard.must_delete(REMOVALS_AT_A_TIME);
                doubtful.into_iter().filter_map(|actor| Some((table.guard.begin_removal(&actor)?, actor))).collect()
            };
            join_all(begun.iter().map(|(removal, actor)| self.remove(actor, *removal))).await;
        }
    }
}

impl Table {
    /// Whether the last turn of an instance has ended that somebody waits for.
    fn is_watched_end(&mut self, actor: &ActorKey, in_flight: InFlight) -> bool {
        match in_flight {
            InFlight::Running(_) => false,
            InFlight::Quiet | InFlight::Gone => self.watched_for_quiet.remove(actor),
        }
    }
}

/// `DELETE /actors/{type}/{id}`: ends the instance in the app.
fn delete_request(actor: &ActorKey) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::DELETE;
    *request.uri_mut() = path::actor(actor);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    request
}
