//! One turn of an actor: admission, dispatch, end.
//!
//! The caller asks the mailbox. It gets its turn at once, or waits in line, or is refused. A turn that has started does
//! not end with its caller: it goes on in a task of its own when the caller leaves, and the lock is released when the
//! app's answer is complete or the app is gone, never when somebody stops listening. A caller that leaves while it
//! waits leaves the line without moving anybody else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_engine::actor_config;
use callboard_engine::mailbox::{
    Admission, CallId, Deactivation, ReentrancyId, Refusal, Reopen, Request, RequestKind, Start, TurnEnd, TurnId,
};
use callboard_types::{ActorKey, FencingToken, NodeId};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Request as HttpRequest, Response, Uri};
use tokio::sync::oneshot;

use super::hosts::Closing;
use super::{Error, Reign, Table, mailbox_config};
use crate::app::Error as AppError;
use crate::calls::TickRef;
use crate::clock;
use crate::host::{self, TurnDispatch};
use crate::tasks::Kind;

/// Names the call chain of a turn, on the way to the app and back (`specs`: turns and reentrancy).
pub const REENTRANCY_ID: HeaderName = HeaderName::from_static("dapr-reentrancy-id");

/// An answer waits this long for a lease that has lapsed and may come back.
const CONFIRM: Duration = Duration::from_secs(1);
/// Between two tries to close an activation at a host that does not answer.
const CLOSE_AGAIN: Duration = Duration::from_millis(100);

/// A request for a turn.
pub struct Turn {
    pub actor: ActorKey,
    pub kind: RequestKind,
    /// The reentrancy id that came with the call.
    pub chain: Option<ReentrancyId>,
    pub call: Arc<AppCall>,
    /// Until when it may wait in line.
    pub deadline: Instant,
    /// Asked right before the dispatch: a reminder may have been deleted while it waited.
    pub wanted: Option<Wanted>,
    /// The timer whose tick it is; asked about at the host that keeps it.
    pub tick: Option<TickRef>,
}

/// Whether a turn that has waited is still to be run.
pub type Wanted = Box<dyn Fn() -> bool + Send + Sync>;

/// What the app is asked in a turn. Kept until the turn has ended, since a turn may be dispatched again.
#[derive(Debug, Clone)]
pub struct AppCall {
    /// Path and query.
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl AppCall {
    /// The request to the app: always `PUT`, whatever the caller's verb.
    pub fn into_request(self) -> HttpRequest<Bytes> {
        let mut request = HttpRequest::new(self.body);
        *request.method_mut() = http::Method::PUT;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }

    /// As part of a call chain.
    fn within(&self, chain: Option<&ReentrancyId>) -> Self {
        let mut call = self.clone();
        if let Some(chain) = chain.and_then(|chain| HeaderValue::from_str(chain.as_str()).ok()) {
            call.headers.insert(REENTRANCY_ID, chain);
        }
        call
    }

    /// A callback of the runtime itself: a reminder or a timer.
    pub fn callback(uri: Uri, body: Vec<u8>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { uri, headers, body: body.into() }
    }
}

/// A call's place in line; leaving it early takes the call out of the mailbox.
struct Place<'a> {
    reign: &'a Arc<Reign>,
    actor: &'a ActorKey,
    call: CallId,
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.left {
            let effects = {
                let mut table = self.reign.table.lock();
                table.grants.remove(&self.call);
                table.mailboxes.cancel(clock::monotonic(), self.actor, self.call)
            };
            self.reign.carry_out(effects);
        }
    }
}

/// A turn that has started. Dropped without [`Started::finish`], which only a panic does, it ends as lost: the actor's
/// next call must not wait for ever.
struct Started {
    reign: Arc<Reign>,
    turn: Option<TurnId>,
}

impl Started {
    fn finish(mut self, end: TurnEnd) {
        if let Some(turn) = self.turn.take() {
            self.reign.finish(turn, end);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.reign.finish(turn, TurnEnd::Lost);
        }
    }
}

/// How one dispatch ended.
enum Ended {
    Over(TurnEnd),
    HostRefused,
}

impl Reign {
    /// Runs a turn and returns the app's answer, whatever its status.
    pub async fn turn(self: &Arc<Self>, turn: Arc<Turn>) -> Result<Response<Bytes>, Error> {
        let config = self.common.hosts.type_config(&turn.actor).ok_or(Error::NoHost)?;
        let (call, start) = self.admitted(&turn, config).await?;
        let reign = self.clone();
        // Whether or not anybody still listens.
        self.common.tasks.carry("turn", async move { reign.run_turn(&turn, call, start).await }).await
    }

    /// Waits for the turn.
    async fn admitted(
        self: &Arc<Self>,
        turn: &Turn,
        config: actor_config::TypeConfig,
    ) -> Result<(CallId, Start), Error> {
        let (admission, call, granted) = self.table.lock().admit(turn, config, self.common.limits.turns);
        match admission {
            Admission::Start(start) => Ok((call, start)),
            Admission::Refused(Refusal::EpochOver) => Err(Error::NotServing(self.id())),
            Admission::Refused(refusal) => Err(refusal.into()),
            Admission::Queued { .. } => {
                let mut place = Place { reign: self, actor: &turn.actor, call, left: false };
                let patience = turn.deadline.saturating_since(clock::monotonic());
                match tokio::time::timeout(patience, granted).await {
                    Ok(Ok(start)) => {
                        place.left = true;
                        Ok((call, start))
                    }
                    // The epoch ended and took the queue with it.
                    Ok(Err(_dropped)) => {
                        place.left = true;
                        Err(Error::NotServing(self.id()))
                    }
                    Err(_elapsed) => Err(Error::NoTurn(patience)),
                }
            }
        }
    }

    /// Gives a waiting call its turn; if it has left meanwhile, the turn goes to the next in line.
    pub(super) fn grant(self: &Arc<Self>, call: CallId, start: Start) {
        let turn = start.turn;
        let grant = self.table.lock().grants.remove(&call);
        let taken = grant.is_some_and(|grant| grant.send(start).is_ok());
        if !taken {
            self.finish(turn, TurnEnd::NotDispatched);
        }
    }

    /// Ends an entry of a turn, and performs what follows from it.
    fn finish(self: &Arc<Self>, turn: TurnId, end: TurnEnd) {
        let effects = {
            let mut table = self.table.lock();
            let effects = table.mailboxes.finish(clock::monotonic(), turn, end);
            if table.mailboxes.next_idle_deadline().is_some_and(|deadline| deadline < table.keeper_wakes.idle) {
                self.keeper.notify_one();
            }
            effects
        };
        if !effects.is_empty() {
            self.carry_out(effects);
        }
    }

    /// Dispatches until the app has answered or the turn is refused; then ends the turn, and only then answers.
    async fn run_turn(self: &Arc<Self>, turn: &Turn, call: CallId, mut start: Start) -> Result<Response<Bytes>, Error> {
        loop {
            let started = Started { reign: self.clone(), turn: Some(start.turn) };
            let dispatched = tokio::select! {
                biased;
                () = self.cut.cancelled() => None,
                dispatched = self.dispatch(turn, &start) => Some(dispatched),
            };
            let Some((answer, end)) = dispatched else {
                started.finish(TurnEnd::Lost);
                return Err(Error::NotServing(self.id()));
            };
            match end {
                Ended::HostRefused => start = self.reopen(call, started).await?,
                Ended::Over(end) => {
                    started.finish(end);
                    // A reply is released only by an owner: a later one may have run a turn that this one misses.
                    return match (answer, self.tenure.confirmed(CONFIRM).await) {
                        (Ok(_), Err(_)) => Err(Error::Unknown("the partition has changed its owner".into())),
                        (answer, _) => answer,
                    };
                }
            }
        }
    }

    /// One dispatch to the host.
    async fn dispatch(&self, turn: &Turn, start: &Start) -> (Result<Response<Bytes>, Error>, Ended) {
        let not_dispatched = Ended::Over(TurnEnd::NotDispatched);
        if turn.wanted.as_ref().is_some_and(|wanted| !wanted()) {
            return (Err(Error::Unwanted), not_dispatched);
        }
        if let Err(over) = self.tenure.check() {
            return (Err(over.into()), not_dispatched);
        }
        let Some(host) = self.host_of(turn, start) else { return (Err(Error::NoHost), not_dispatched) };
        let dispatch = TurnDispatch {
            token: self.table.lock().mailboxes.token(start.activation),
            opens: start.opens,
            chain: start.chain.clone(),
            idle_deadline: start.idle_deadline,
            session: None,
            tick: turn.tick.clone(),
            call: turn.call.within(start.chain.as_ref()),
        };
        match self.common.hosts.dispatch(host, &turn.actor, dispatch, &|| self.tenure.check().is_ok()).await {
            Ok(response) => (Ok(response), Ended::Over(TurnEnd::Done)),
            Err(host::Error::NotActive | host::Error::Fenced) => (Err(Error::Fenced), Ended::HostRefused),
            Err(host::Error::Unwanted) => (Err(Error::Unwanted), not_dispatched),
            Err(host::Error::Lapsed) => {
                (Err(Error::App(AppError::NotSent(host::Error::Lapsed.to_string()))), not_dispatched)
            }
            Err(host::Error::Full) => (Err(Refusal::TooManyActivations.into()), not_dispatched),
            Err(host::Error::App(error)) => {
                let end = match &error {
                    AppError::NotInitialized
                    | AppError::Unhealthy
                    | AppError::NotSent(_)
                    | AppError::Forbidden
                    | AppError::Invalid(_) => TurnEnd::NotDispatched,
                    AppError::Lost(_) | AppError::TimedOut(_) => TurnEnd::Lost,
                    AppError::TooLarge { .. } => TurnEnd::Done,
                };
                (Err(Error::App(error)), Ended::Over(end))
            }
        }
    }

    /// Where the turn's activation lives; a new one is given its host here.
    fn host_of(&self, turn: &Turn, start: &Start) -> Option<NodeId> {
        if let Some(host) = start.host {
            return Some(host);
        }
        let host = self.common.hosts.choose(&turn.actor)?;
        self.table.lock().mailboxes.assign_host(start.turn, host);
        Some(host)
    }

    /// The guard refused the activation: the same call again, before all others, under another one.
    async fn reopen(self: &Arc<Self>, call: CallId, mut started: Started) -> Result<Start, Error> {
        let Some(turn) = started.turn.take() else { return Err(Error::NotServing(self.id())) };
        let (grant, granted) = oneshot::channel();
        let (admission, effects) = {
            let mut table = self.table.lock();
            let (admission, effects) = table.mailboxes.reopen(clock::monotonic(), turn, Reopen::HostRefused);
            if matches!(admission, Admission::Queued { .. }) {
                table.grants.insert(call, grant);
            }
            (admission, effects)
        };
        self.carry_out(effects);
        match admission {
            Admission::Start(start) => Ok(start),
            Admission::Queued { .. } => granted.await.map_err(|_dropped| Error::NotServing(self.id())),
            Admission::Refused(Refusal::EpochOver) => Err(Error::NotServing(self.id())),
            Admission::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Ends an activation in its app, then in the mailbox.
    pub(super) fn spawn_deactivation(self: &Arc<Self>, deactivation: Deactivation) {
        let reign = self.clone();
        self.common.tasks.spawn(Kind::Work, "deactivate", async move {
            let Deactivation { actor, turn, activation, host, reason } = deactivation;
            let started = Started { reign: reign.clone(), turn: Some(turn) };
            let token = reign.table.lock().mailboxes.token(activation);
            tracing::debug!(%actor, ?reason, "deactivate");
            if let Some(host) = host {
                reign.close_at(host, &actor, token).await;
            }
            started.finish(TurnEnd::Done);
        });
    }

    /// Ends an activation at its host. One that does not answer is waited for until its lease of this owner is over: then
    /// it dispatches nothing any more, and removes the instance before it is used again.
    async fn close_at(&self, host: NodeId, actor: &ActorKey, token: FencingToken) {
        while self.common.hosts.deactivate(host, actor, token).await == Closing::Silent {
            let silent = self.table.lock().answers.silent_from(host);
            let wait = silent.saturating_since(clock::monotonic());
            if wait.is_zero() || self.is_over() {
                return;
            }
            tokio::time::sleep(wait.min(CLOSE_AGAIN)).await;
        }
    }

    /// Takes the actor's turn for a write from outside its app: its instance is removed first, and the activation ends.
    /// The write is carried to its end, whoever asked for it.
    pub async fn exclusive<F>(
        self: &Arc<Self>,
        actor: &ActorKey,
        deadline: Instant,
        write: impl FnOnce(Arc<Reign>) -> F + Send + 'static,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + Send,
    {
        let call = Arc::new(AppCall { uri: Uri::default(), headers: HeaderMap::new(), body: Bytes::new() });
        let turn = Turn {
            actor: actor.clone(),
            kind: RequestKind::Exclusive,
            chain: None,
            call,
            deadline,
            wanted: None,
            tick: None,
        };
        let config = self.common.hosts.type_config(actor).unwrap_or_default();
        let (_call, start) = self.admitted(&turn, config).await?;
        let (reply, answer) = oneshot::channel();
        let (reign, actor) = (self.clone(), turn.actor);
        self.common.tasks.spawn(Kind::Work, "exclusive", async move {
            let started = Started { reign: reign.clone(), turn: Some(start.turn) };
            if let (false, Some(host)) = (start.opens, start.host) {
                let token = reign.table.lock().mailboxes.token(start.activation);
                reign.close_at(host, &actor, token).await;
            }
            let result = write(reign.clone()).await;
            started.finish(TurnEnd::Done);
            let _ = reply.send(result);
        });
        answer.await.unwrap_or(Err(Error::Unknown("the turn's task has ended".into())))
    }

    /// The node stops: nothing else starts, waiting calls are told to look elsewhere, and every activation ends, those
    /// in a turn after it.
    pub fn close(self: &Arc<Self>, reason: callboard_engine::activation::EndReason) {
        let begun = {
            let mut table = self.table.lock();
            table.closing = true;
            table.mailboxes.quiesce();
            let now = clock::monotonic();
            for parked in table.mailboxes.take_parked(now) {
                table.grants.remove(&parked.call);
            }
            table.mailboxes.deactivate_all(now, reason, |_actor, _host| true)
        };
        for deactivation in begun {
            self.spawn_deactivation(deactivation);
        }
    }

    /// The node will stop: reminders are left for its next start, while calls are still served.
    pub fn stop_firing(&self) {
        self.table.lock().closing = true;
    }
}

impl Table {
    /// Asks the mailbox, and leaves a way to be told of the turn if it comes later. Above `turns` running ones only
    /// calls from inside a turn are admitted: refusing those would keep what runs from ending.
    fn admit(
        &mut self,
        turn: &Turn,
        config: actor_config::TypeConfig,
        turns: usize,
    ) -> (Admission, CallId, oneshot::Receiver<Start>) {
        self.last_call += 1;
        let call = CallId(self.last_call);
        let (grant, granted) = oneshot::channel();
        if turn.chain.is_none() && self.mailboxes.counts().running >= turns {
            return (Admission::Refused(Refusal::TooManyWaiting), call, granted);
        }
        let config = mailbox_config(config);
        let request = Request { actor: &turn.actor, call, kind: turn.kind, chain: turn.chain.as_ref(), config };
        let fresh = || ReentrancyId::from(uuid::Uuid::new_v4().to_string());
        let admission = self.mailboxes.admit(clock::monotonic(), request, fresh);
        if matches!(admission, Admission::Queued { .. }) {
            self.grants.insert(call, grant);
        }
        (admission, call, granted)
    }
}
