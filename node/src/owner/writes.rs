//! One command of one actor: proposed under this reign's epoch, carried to its end, answered when it has applied.

use std::sync::Arc;
use std::time::Duration;

use callboard_engine::mailbox::WriteOutcome;
use callboard_machine::limits;
use callboard_machine::partition::{ActorCommand, ActorOp, Command, Response};
use callboard_raft::ProposeError;
use callboard_types::{ActorKey, FencingToken, Timestamp, WriteNumber};

use super::{Error, Reign};
use crate::clock;

/// Between two proposals of a command that certainly was not proposed.
const PROPOSE_AGAIN: Duration = Duration::from_millis(20);

/// A command before it is one.
pub struct Write {
    /// The activation in whose name an app writes, and the number of the write in it; `None`: the node itself, or somebody
    /// outside any activation.
    pub author: Option<(FencingToken, WriteNumber)>,
    pub ops: Vec<ActorOp>,
    /// The wall clock by which relative times were made absolute.
    pub now: Timestamp,
}

/// A write that has been announced to the mailbox. Dropped unresolved, which only a panic does, its outcome is unknown.
struct Announced {
    reign: Arc<Reign>,
    actor: ActorKey,
    resolved: bool,
}

impl Announced {
    fn resolve(mut self, outcome: WriteOutcome) {
        self.resolved = true;
        self.reign.write_resolved(&self.actor, outcome);
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if !self.resolved {
            self.reign.write_resolved(&self.actor, WriteOutcome::Unknown);
        }
    }
}

impl Reign {
    /// Commits the actor's command; on disk when this returns `Ok`. With an author it counts only under the author's
    /// epoch, and the actor gets no turn while the outcome is open.
    pub async fn commit(self: &Arc<Self>, actor: &ActorKey, write: Write) -> Result<(), Error> {
        let announced = match &write.author {
            Some((token, _)) if token.epoch != self.tenure.epoch() => return Err(Error::Fenced),
            Some((token, _)) => {
                let mut table = self.table.lock();
                if !table.mailboxes.is_current(actor, token.activation) {
                    return Err(Error::Fenced);
                }
                table.mailboxes.write_started(actor)?;
                Some(Announced { reign: self.clone(), actor: actor.clone(), resolved: false })
            }
            None => None,
        };
        let (reign, actor) = (self.clone(), actor.clone());
        let command = async move {
            let Write { author, ops, now } = write;
            let number = author.map(|(token, number)| (token.activation, number));
            let result =
                reign.propose(ActorCommand { epoch: reign.tenure.epoch(), actor, write: number, now, ops }).await;
            if let Some(announced) = announced {
                announced.resolve(outcome(&result));
            }
            result
        };
        self.common.tasks.carry("commit", command).await
    }

    async fn propose(&self, command: ActorCommand) -> Result<(), Error> {
        limits::check(&command)?;
        let deadline = clock::monotonic().saturating_add(self.common.limits.retry_for);
        loop {
            self.tenure.check()?;
            match self.partition.propose(Command::Actor(command.clone())).await {
                Ok(Response::Done) => return Ok(()),
                Ok(Response::Fenced { .. }) => return Err(Error::Fenced),
                Ok(Response::Rejected(rejection)) => return Err(rejection.into()),
                Ok(Response::Claimed { .. }) => return Err(Error::Unknown("the log answered another command".into())),
                Err(ProposeError::NotReady { .. }) if clock::monotonic() < deadline => {
                    tokio::time::sleep(PROPOSE_AGAIN).await;
                }
                Err(ProposeError::NotReady { .. }) => return Err(Error::NotServing(self.id())),
                Err(ProposeError::Unknown) => return Err(Error::Unknown("no answer from the partition's log".into())),
                Err(ProposeError::Stopped(_)) => return Err(Error::Unknown("the partition's log has stopped".into())),
            }
        }
    }

    fn write_resolved(self: &Arc<Self>, actor: &ActorKey, outcome: WriteOutcome) {
        let effects = self.table.lock().mailboxes.write_resolved(clock::monotonic(), actor, outcome);
        self.carry_out(effects);
    }

    /// Whether this epoch has ended for good.
    pub(super) fn is_over(&self) -> bool {
        self.table.lock().mailboxes.is_ended()
    }
}

fn outcome(result: &Result<(), Error>) -> WriteOutcome {
    match result {
        Ok(()) | Err(Error::Rejected(_) | Error::NotServing(_) | Error::TooLarge(_)) => WriteOutcome::Definite,
        Err(Error::Fenced) => WriteOutcome::Fenced,
        Err(
            Error::Unknown(_)
            | Error::NoHost
            | Error::Refused(_)
            | Error::NoTurn(_)
            | Error::App(_)
            | Error::Unwanted
            | Error::TooManyReminders(_)
            | Error::Storage(_),
        ) => WriteOutcome::Unknown,
    }
}
