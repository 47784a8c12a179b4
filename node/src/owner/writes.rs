//! One command of one actor: proposed under the current epoch, carried to its end, answered when it has applied.

use std::sync::Arc;
use std::time::Duration;

use callboard_engine::mailbox::WriteOutcome;
use callboard_machine::partition::{ActorCommand, ActorOp, Command, Response};
use callboard_raft::ProposeError;
use callboard_types::{Activation, ActorKey, Epoch, FencingToken, WriteNumber};
use tokio::sync::oneshot;

use super::{Error, Owner};
use crate::clock;
use crate::host::order::Turnstile;
use crate::tasks::Kind;

/// Between two proposals of a command that certainly was not proposed.
const PROPOSE_AGAIN: Duration = Duration::from_millis(20);

/// The activation in whose name an app writes, and its place in the order of that activation's writes.
pub struct Author {
    pub token: FencingToken,
    pub number: WriteNumber,
    /// Held until the command has an answer.
    pub turnstile: Turnstile,
}

impl Owner {
    /// Commits the actor's command; on disk when this returns `Ok`. With an author it counts only under the author's
    /// epoch, and the actor gets no turn while the outcome is open.
    pub async fn commit(
        self: &Arc<Self>,
        actor: &ActorKey,
        author: Option<Author>,
        ops: Vec<ActorOp>,
    ) -> Result<(), Error> {
        let epoch = self.with_reign(|reign| {
            let epoch = reign.tenure.epoch();
            match &author {
                Some(author) if author.token.epoch != epoch => Err(Error::Fenced),
                Some(_) => reign.mailboxes.write_started(actor).map(|()| epoch).map_err(Error::from),
                None => Ok(epoch),
            }
        })??;
        let (reply, answer) = oneshot::channel();
        let (owner, actor) = (self.clone(), actor.clone());
        self.common.tasks.spawn(Kind::Work, "commit", async move {
            let write = author.as_ref().map(|author| (author.token.activation, author.number));
            let result = owner.propose(&actor, epoch, write, ops).await;
            if write.is_some() {
                owner.write_ended(&actor, &result);
            }
            drop(author);
            let _ = reply.send(result);
        });
        answer.await.unwrap_or(Err(Error::Unknown("the command's task has ended")))
    }

    async fn propose(
        &self,
        actor: &ActorKey,
        epoch: Epoch,
        write: Option<(Activation, WriteNumber)>,
        ops: Vec<ActorOp>,
    ) -> Result<(), Error> {
        let deadline = clock::monotonic().saturating_add(self.common.limits.retry_for);
        let mut command = ActorCommand { epoch, actor: actor.clone(), write, now: clock::wall(), ops };
        callboard_machine::limits::check(&command)?;
        loop {
            self.tenure()?;
            match self.partition.propose(Command::Actor(command.clone())).await {
                Ok(Response::Done) => return Ok(()),
                Ok(Response::Fenced { .. }) => return Err(Error::Fenced),
                Ok(Response::Rejected(rejection)) => return Err(rejection.into()),
                Ok(Response::Claimed { .. }) => return Err(Error::Unknown("the log answered another command")),
                Err(ProposeError::NotReady(_)) if clock::monotonic() < deadline => {
                    tokio::time::sleep(PROPOSE_AGAIN).await;
                    command.now = clock::wall();
                }
                Err(ProposeError::NotReady(_)) => return Err(Error::NotServing(self.id())),
                Err(ProposeError::Unknown) => return Err(Error::Unknown("no answer from the partition's log")),
                Err(ProposeError::Stopped(_)) => return Err(Error::Unknown("the partition's log has stopped")),
            }
        }
    }

    fn write_ended(self: &Arc<Self>, actor: &ActorKey, result: &Result<(), Error>) {
        let outcome = match result {
            Ok(()) | Err(Error::Rejected(_) | Error::NotServing(_) | Error::TooLarge(_)) => WriteOutcome::Definite,
            Err(Error::Fenced) => WriteOutcome::Fenced,
            Err(
                Error::Unknown(_)
                | Error::NoHost
                | Error::Refused(_)
                | Error::NoTurn(_)
                | Error::App(_)
                | Error::Unwanted
                | Error::Storage(_),
            ) => WriteOutcome::Unknown,
        };
        let effects = self.with_reign(|reign| reign.mailboxes.write_resolved(clock::monotonic(), actor, outcome));
        if let Ok(effects) = effects {
            self.carry_out(effects);
        }
    }
}
