//! Actor state: transactions of the app's own active actors, reads of any.

use callboard_engine::guard::WriteToken;
use callboard_machine::partition::{ActorOp, StateValue};
use callboard_raft::{ActorRow, StateRow};
use callboard_types::{ActorKey, FencingToken, Timestamp, WriteNumber};

use super::{Actors, Error, odd};
use crate::calls::scan::{List, Scan, Wanted};
use crate::calls::{Answer, Ask};
use crate::host::order::Turnstile;
use crate::owner::reads::After;

/// The activation in whose name an app writes, and its place in the order of that activation's writes.
pub(super) struct Author {
    token: FencingToken,
    number: WriteNumber,
    /// Held until the command has an answer.
    turnstile: Turnstile,
}

impl Actors {
    /// Commits an app's transaction in the name of the actor's activation in it: on disk when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NotActive`] when the app was not given the actor, or its activation is superseded.
    pub async fn transact(&self, actor: &ActorKey, ops: Vec<ActorOp>, now: Timestamp) -> Result<(), Error> {
        let author = self.author(actor).await?.ok_or(Error::NotActive)?;
        self.write_as(author, actor, ops, now).await
    }

    /// Commits in the name of an activation. Whether or not anybody still listens, its next write is numbered only when
    /// this one has an answer.
    pub(super) async fn write_as(
        &self,
        author: Author,
        actor: &ActorKey,
        ops: Vec<ActorOp>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (actors, actor) = (self.clone(), actor.clone());
        let write = async move {
            let ask = Ask::Commit { author: Some((author.token, author.number)), ops, now };
            let result = actors.ask(&actor, &ask).await;
            drop(author.turnstile);
            result.map(|_done| ())
        };
        self.inner.tasks.carry("write", write).await
    }

    /// Whether the actor is active in this node's app.
    pub fn is_active(&self, actor: &ActorKey) -> bool {
        self.inner.host.is_active(actor)
    }

    /// The activation that writes, if the actor is active in this node's app.
    pub(super) async fn author(&self, actor: &ActorKey) -> Result<Option<Author>, Error> {
        let turnstile = self.inner.order.enter(actor).await;
        match self.inner.host.write_token(actor) {
            WriteToken::Token(token, number) => Ok(Some(Author { token, number, turnstile })),
            WriteToken::Missing => Ok(None),
            WriteToken::Sealed => Err(Error::NotActive),
        }
    }

    /// What is stored under a key, active or not, hosted or not.
    pub async fn state(&self, actor: &ActorKey, key: &str) -> Result<Option<StateValue>, Error> {
        match self.ask(actor, &Ask::State { key: key.to_owned() }).await? {
            Answer::State(value) => Ok(value),
            other @ (Answer::Response(_) | Answer::Done | Answer::Reminder(_) | Answer::Reminders(_)) => {
                Err(odd(&other))
            }
        }
    }

    /// Rows of all partitions in the order of actor and key, after `after`, `limit` at most.
    pub async fn scan_state(&self, after: Option<After>, limit: usize) -> Result<Vec<StateRow>, Error> {
        let by_key = |a: &StateRow, b: &StateRow| (&a.actor, &a.key).cmp(&(&b.actor, &b.key));
        self.gather(Scan { list: List::State { after }, limit }, limit, by_key, |_| true).await
    }

    /// Actors of all partitions that have something stored, in order, after `after`, `limit` at most.
    pub async fn scan_actors(
        &self,
        wanted: Wanted,
        after: Option<ActorKey>,
        limit: usize,
    ) -> Result<Vec<ActorRow>, Error> {
        let by_actor = |a: &ActorRow, b: &ActorRow| a.actor.cmp(&b.actor);
        self.gather(Scan { list: List::Actors { wanted, after }, limit }, limit, by_actor, |_| true).await
    }
}
