//! The meta group as every node uses it: the state to read, commands to propose, and the log to follow without a replica.

use std::sync::Arc;
use std::time::Duration;

use callboard_machine::meta::{MetaCommand, MetaResponse, MetaState};
use callboard_storage::Error;
use callboard_types::GroupId;
use tokio::sync::watch;

use crate::error::{FeedError, ProposeError};
use crate::groups::{Groups, Inner};
use crate::meta_feed::{MetaAt, MetaUpdate};
use crate::type_config::{Answer, Proposal};

/// The meta group, as every node reads it.
#[derive(Clone)]
pub struct MetaHandle {
    inner: Arc<Inner>,
}

impl MetaHandle {
    /// The last received state; changes wake the receiver.
    pub fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        self.inner.board.watch()
    }

    /// The last received state.
    pub fn state(&self) -> Arc<MetaState> {
        self.inner.board.state()
    }

    pub async fn propose(&self, command: MetaCommand) -> Result<MetaResponse, ProposeError> {
        self.inner.propose_meta(command).await
    }
}

impl Groups {
    pub fn meta(&self) -> MetaHandle {
        MetaHandle { inner: self.inner.clone() }
    }

    /// Takes over what another node knows of its cluster, on an empty data directory; it is on disk when this returns.
    pub async fn adopt(&self, update: MetaUpdate) -> Result<MetaAt, FeedError> {
        let at = self.inner.feed(update)?;
        let db = self.inner.stores.state.clone();
        tokio::task::spawn_blocking(move || db.flush()).await.map_err(|_| Error::Stopped)??;
        Ok(at)
    }

    /// How much of the meta log this node knows.
    pub fn meta_at(&self) -> MetaAt {
        self.inner.board.at()
    }

    /// What this node knows of the meta log after `after`: at once if there is something, else when there is, and an
    /// empty update when `wait` is over.
    pub async fn meta_update(&self, after: MetaAt, wait: Duration) -> MetaUpdate {
        self.inner.board.update(after, wait).await
    }

    /// Takes what another node has told of the meta log, and wakes those who watch the state. What is known already
    /// changes nothing.
    pub fn meta_feed(&self, update: MetaUpdate) -> Result<MetaAt, FeedError> {
        self.inner.feed(update)
    }
}

impl Inner {
    pub(crate) async fn propose_meta(&self, command: MetaCommand) -> Result<MetaResponse, ProposeError> {
        let group = GroupId::Meta;
        let replica = self.replica(group).ok_or(ProposeError::NotReady { group, leader: None })?;
        match replica.propose(Proposal::Meta(Arc::new(command))).await?.answer {
            Answer::Meta(response) => Ok(response),
            answer @ (Answer::Blank | Answer::Partition(_)) => {
                Err(ProposeError::Stopped(format!("the meta group answered {answer:?}")))
            }
        }
    }

    /// Takes an update of the meta state, and keeps it for the next start unless a replica of the group does.
    fn feed(&self, update: MetaUpdate) -> Result<MetaAt, FeedError> {
        let mut copy = self.meta_copy.lock();
        let Some(fed) = self.board.feed(update)? else { return Ok(self.board.at()) };
        let (db, index) = (&self.stores.state, fed.at.index);
        match fed.dirty {
            Some(dirty) if copy.follows(fed.before.index) => copy.change(&**db, &fed.state, &dirty, index)?,
            // The copy is behind: a replica has kept the state meanwhile.
            Some(_) if self.replica(GroupId::Meta).is_some() => {}
            Some(_) | None => copy.replace(db, &self.stores.incarnations, &fed.state, index)?,
        }
        Ok(fed.at)
    }

    /// Keeps the meta state, which a replica has kept so far, for the next start.
    pub(crate) fn keep_meta(&self) -> Result<(), Error> {
        let mut copy = self.meta_copy.lock();
        let index = self.board.at().index;
        copy.replace(&self.stores.state, &self.stores.incarnations, &self.board.state(), index)
    }
}
