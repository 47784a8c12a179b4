//! One turn of an actor: admission, dispatch, end.
//!
//! The caller asks the mailbox. It gets its turn at once, or waits in line, or is refused. A turn that has started runs
//! in a task of its own, because it must not end with its caller: the lock is released when the app's answer is
//! complete or the app is gone, never when somebody stops listening. A caller that leaves while it waits leaves the
//! line without moving anybody else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::mailbox::{
    Admission, CallId, Deactivation, ReentrancyId, Refusal, Reopen, Request, RequestKind, Start, TurnEnd,
    TypeConfig as MailboxConfig,
};
use callboard_engine::{actor_config, mailbox};
use callboard_types::ActorKey;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Request as HttpRequest, Response, Uri};
use tokio::sync::oneshot;

use super::{Error, Owner, Reign};
use crate::app::Error as AppError;
use crate::clock;
use crate::host::{self, TurnDispatch};
use crate::tasks::Kind;

/// Names the call chain of a turn, on the way to the app and back (`specs/dapr.md` 4).
pub const REENTRANCY_ID: HeaderName = HeaderName::from_static("dapr-reentrancy-id");

/// A call waits this long for its turn. Below the time-outs of the SDKs' clients, so that they see the reason.
pub const QUEUE_WAIT: Duration = Duration::from_secs(55);

/// A request for a turn.
pub struct Turn {
    pub actor: ActorKey,
    pub kind: RequestKind,
    /// The reentrancy id that came with the call.
    pub chain: Option<ReentrancyId>,
    pub call: AppCall,
    /// Asked right before the dispatch: a timer may have been deleted while its tick waited.
    pub wanted: Option<Wanted>,
}

/// Whether a turn that has waited is still to be run.
pub type Wanted = Box<dyn Fn() -> bool + Send + Sync>;

/// What the app is asked in a turn. Kept until the turn has ended, since a turn may be dispatched again.
pub struct AppCall {
    /// Path and query.
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl AppCall {
    /// The request to the app: always `PUT`, whatever the caller's verb.
    fn request(&self, chain: Option<&ReentrancyId>) -> HttpRequest<Bytes> {
        let mut request = HttpRequest::new(self.body.clone());
        *request.method_mut() = http::Method::PUT;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(chain) = chain.and_then(|chain| HeaderValue::from_str(chain.as_str()).ok()) {
            request.headers_mut().insert(REENTRANCY_ID, chain);
        }
        request
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
    owner: &'a Arc<Owner>,
    actor: &'a ActorKey,
    call: CallId,
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let effects = self.owner.with_reign(|reign| {
            reign.grants.remove(&self.call);
            reign.mailboxes.cancel(clock::monotonic(), self.actor, self.call)
        });
        if let Ok(effects) = effects {
            self.owner.carry_out(effects);
        }
    }
}

impl Owner {
    /// Runs a turn and returns the app's answer, whatever its status.
    pub async fn turn(self: &Arc<Self>, turn: Arc<Turn>) -> Result<Response<Bytes>, Error> {
        let config = self.common.host.type_config(&turn.actor.actor_type).ok_or(Error::NoHost)?;
        let (call, start) = self.admitted(&turn, config).await?;
        let (reply, answer) = oneshot::channel();
        let owner = self.clone();
        self.common.tasks.spawn(Kind::Work, "turn", async move {
            // Nobody may be listening any more; the turn has been run to its end all the same.
            let _ = reply.send(owner.run_turn(&turn, call, start).await);
        });
        answer.await.unwrap_or(Err(Error::Unknown("the turn's task has ended")))
    }

    /// Waits for the turn.
    async fn admitted(
        self: &Arc<Self>,
        turn: &Turn,
        config: actor_config::TypeConfig,
    ) -> Result<(CallId, Start), Error> {
        let (admission, call, granted) = self.with_reign(|reign| reign.admit(turn, config))?;
        match admission {
            Admission::Start(start) => {
                if start.opens {
                    self.wake_keeper_for_idle();
                }
                Ok((call, start))
            }
            Admission::Refused(refusal) => Err(refusal.into()),
            Admission::Queued { .. } => {
                let mut place = Place { owner: self, actor: &turn.actor, call, left: false };
                match tokio::time::timeout(QUEUE_WAIT, granted).await {
                    Ok(Ok(start)) => {
                        place.left = true;
                        Ok((call, start))
                    }
                    // The epoch ended and took the queue with it.
                    Ok(Err(_dropped)) => {
                        place.left = true;
                        Err(Error::NotServing(self.id()))
                    }
                    Err(_elapsed) => Err(Error::NoTurn(QUEUE_WAIT)),
                }
            }
        }
    }

    /// Gives a waiting call its turn; if it has left meanwhile, the turn goes to the next in line.
    pub(super) fn grant(self: &Arc<Self>, call: CallId, start: Start) {
        let turn = start.turn;
        let effects = self.with_reign(|reign| {
            let grant = reign.grants.remove(&call);
            match grant.map(|grant| grant.send(start)) {
                Some(Ok(())) => mailbox::Effects::new(),
                Some(Err(_)) | None => reign.mailboxes.finish(clock::monotonic(), turn, TurnEnd::NotDispatched),
            }
        });
        if let Ok(effects) = effects
            && !effects.is_empty()
        {
            self.carry_out(effects);
        }
    }

    /// Dispatches until the app has answered or the turn is refused; then ends the turn, and only then answers.
    async fn run_turn(self: &Arc<Self>, turn: &Turn, call: CallId, mut start: Start) -> Result<Response<Bytes>, Error> {
        loop {
            let (answer, end) = self.dispatch(turn, &start).await;
            let end = match end {
                Ended::Over(end) => end,
                Ended::HostRefused => match self.reopen(call, &start).await {
                    Ok(again) => {
                        start = again;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let (effects, tenure) = self
                .with_reign(|reign| (reign.mailboxes.finish(clock::monotonic(), start.turn, end), reign.tenure.clone()))
                .map_err(|_| Error::Unknown("the partition has changed its owner"))?;
            self.carry_out(effects);
            // A reply is released only by an owner: a later one may already have run a turn that this one misses.
            return match answer {
                Ok(response) => match tenure.check() {
                    Ok(()) => Ok(response),
                    Err(_) => Err(Error::Unknown("the partition has changed its owner")),
                },
                Err(error) => Err(error),
            };
        }
    }

    /// One dispatch to the host.
    async fn dispatch(&self, turn: &Turn, start: &Start) -> (Result<Response<Bytes>, Error>, Ended) {
        let not_dispatched = Ended::Over(TurnEnd::NotDispatched);
        let _permit = match turn.kind {
            RequestKind::Reminder => self.common.reminder_turns.acquire().await.ok(),
            RequestKind::Call | RequestKind::Timer | RequestKind::Exclusive => None,
        };
        if turn.wanted.as_ref().is_some_and(|wanted| !wanted()) {
            return (Err(Error::Unwanted), not_dispatched);
        }
        let token =
            match self.with_reign(|reign| reign.tenure.check().map(|()| reign.mailboxes.token(start.activation))) {
                Ok(Ok(token)) => token,
                Ok(Err(over)) => return (Err(over.into()), not_dispatched),
                Err(error) => return (Err(error), not_dispatched),
            };
        let dispatch = TurnDispatch {
            token,
            opens: start.opens,
            chain: start.chain.clone(),
            idle_deadline: start.idle_deadline,
            request: turn.call.request(start.chain.as_ref()),
        };
        match self.common.host.dispatch(&turn.actor, dispatch).await {
            Ok(response) => (Ok(response), Ended::Over(TurnEnd::Done)),
            Err(host::Error::NotActive | host::Error::Fenced) => (Err(Error::Fenced), Ended::HostRefused),
            Err(host::Error::Full) => (Err(Refusal::TooManyActivations.into()), not_dispatched),
            Err(host::Error::App(error)) => {
                let end = match &error {
                    AppError::NotInitialized | AppError::Unhealthy | AppError::NotSent(_) | AppError::Invalid(_) => {
                        TurnEnd::NotDispatched
                    }
                    AppError::Lost(_) => TurnEnd::Lost,
                    AppError::TooLarge { .. } => TurnEnd::Done,
                };
                (Err(Error::App(error)), Ended::Over(end))
            }
        }
    }

    /// The guard refused the activation: the same call again, before all others, under another one.
    async fn reopen(self: &Arc<Self>, call: CallId, start: &Start) -> Result<Start, Error> {
        let (grant, granted) = oneshot::channel();
        let (admission, effects) = self.with_reign(|reign| {
            let (admission, effects) = reign.mailboxes.reopen(clock::monotonic(), start.turn, Reopen::HostRefused);
            if matches!(admission, Admission::Queued { .. }) {
                reign.grants.insert(call, grant);
            }
            (admission, effects)
        })?;
        self.carry_out(effects);
        match admission {
            Admission::Start(start) => Ok(start),
            Admission::Queued { .. } => granted.await.map_err(|_dropped| Error::NotServing(self.id())),
            Admission::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Ends an activation in its app, then in the mailbox.
    pub(super) fn spawn_deactivation(self: &Arc<Self>, deactivation: Deactivation) {
        let owner = self.clone();
        self.common.tasks.spawn(Kind::Work, "deactivate", async move {
            let Deactivation { actor, turn, activation, reason, .. } = deactivation;
            if let Ok(token) = owner.with_reign(|reign| reign.mailboxes.token(activation)) {
                tracing::debug!(%actor, ?reason, "deactivate");
                // Without an answer the instance stays sealed at the guard, which removes it before the next dispatch.
                owner.common.host.deactivate(&actor, token).await;
            }
            let effects = owner.with_reign(|reign| reign.mailboxes.finish(clock::monotonic(), turn, TurnEnd::Done));
            if let Ok(effects) = effects {
                owner.carry_out(effects);
            }
        });
    }
}

/// How one dispatch ended.
enum Ended {
    Over(TurnEnd),
    HostRefused,
}

impl Reign {
    /// Asks the mailbox, and leaves a way to be told of the turn if it comes later.
    fn admit(
        &mut self,
        turn: &Turn,
        config: actor_config::TypeConfig,
    ) -> (Admission, CallId, oneshot::Receiver<Start>) {
        self.last_call += 1;
        let call = CallId(self.last_call);
        let reentrancy = config.reentrancy;
        let config = MailboxConfig {
            idle_timeout: config.idle_timeout,
            reentrancy: mailbox::Reentrancy { enabled: reentrancy.enabled, max_depth: reentrancy.max_stack_depth },
        };
        let request = Request { actor: &turn.actor, call, kind: turn.kind, chain: turn.chain.as_ref(), config };
        let fresh = || ReentrancyId::from(uuid::Uuid::new_v4().to_string());
        let admission = self.mailboxes.admit(clock::monotonic(), request, fresh);
        let (grant, granted) = oneshot::channel();
        if matches!(admission, Admission::Queued { .. }) {
            self.grants.insert(call, grant);
        }
        (admission, call, granted)
    }
}

impl Owner {
    /// Takes the actor's turn for a write from outside its app: its instance is removed first, and the activation ends.
    /// The write is carried to its end, whoever asked for it.
    pub async fn exclusive<F>(self: &Arc<Self>, actor: &ActorKey, write: F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let turn = Turn {
            actor: actor.clone(),
            kind: RequestKind::Exclusive,
            chain: None,
            call: AppCall { uri: Uri::default(), headers: HeaderMap::new(), body: Bytes::new() },
            wanted: None,
        };
        let config = self.common.host.type_config(&actor.actor_type).unwrap_or_default();
        let (_call, start) = self.admitted(&turn, config).await?;
        let (reply, answer) = oneshot::channel();
        let (owner, actor) = (self.clone(), turn.actor);
        self.common.tasks.spawn(Kind::Work, "exclusive", async move {
            let _ = reply.send(owner.run_exclusive(&actor, &start, write).await);
        });
        answer.await.unwrap_or(Err(Error::Unknown("the turn's task has ended")))
    }

    async fn run_exclusive<F>(self: &Arc<Self>, actor: &ActorKey, start: &Start, write: F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        if !start.opens {
            let token = self.with_reign(|reign| reign.mailboxes.token(start.activation))?;
            self.common.host.deactivate(actor, token).await;
        }
        let result = write.await;
        let effects = self.with_reign(|reign| reign.mailboxes.finish(clock::monotonic(), start.turn, TurnEnd::Done));
        if let Ok(effects) = effects {
            self.carry_out(effects);
        }
        result
    }
}
