//! Actor state: transactions of the app's own active actors, reads of any.

use callboard_engine::guard::WriteToken;
use callboard_machine::partition::{ActorOp, StateValue};
use callboard_raft::StateRow;
use callboard_types::{ActorKey, Timestamp};

use super::{Actors, Error};
use crate::owner::reads::{After, Wanted};
use crate::owner::writes::{Author, Write};

impl Actors {
    /// Commits an app's transaction in the name of the actor's activation in it: on disk when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NotActive`] when the app was not given the actor, or its activation is superseded.
    pub async fn transact(&self, actor: &ActorKey, ops: Vec<ActorOp>, now: Timestamp) -> Result<(), Error> {
        let author = self.author(actor).await?.ok_or(Error::NotActive)?;
        // Not routed again: the token is of one epoch, and a later owner would refuse it.
        let write = Write { author: Some(author), ops, now };
        Ok(self.owner_of(actor).reign()?.commit(actor, write).await?)
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
        self.routed(actor, |reign| std::future::ready(reign.state(actor, key))).await
    }

    /// Rows of all partitions in the order of actor and key, after `after`, `limit` at most.
    pub async fn scan_state(&self, after: Option<After>, limit: usize) -> Result<Vec<StateRow>, Error> {
        let mut rows = Vec::new();
        for owner in self.owners() {
            let owner = owner.reign()?;
            rows.extend(owner.scan_state(after.clone(), limit).await?);
        }
        rows.sort_by(|a, b| (&a.actor, &a.key).cmp(&(&b.actor, &b.key)));
        rows.truncate(limit);
        Ok(rows)
    }

    /// Actors of all partitions that have something stored, in order, `limit` at most.
    pub async fn scan_actors(&self, wanted: Wanted) -> Result<Vec<callboard_raft::ActorRow>, Error> {
        let mut rows = Vec::new();
        for owner in self.owners() {
            let owner = owner.reign()?;
            rows.extend(owner.scan_actors(wanted.clone()).await?);
        }
        rows.sort_by(|a, b| a.actor.cmp(&b.actor));
        rows.truncate(wanted.limit);
        Ok(rows)
    }
}
