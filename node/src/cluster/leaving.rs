//! Taking this node out of the cluster while everything goes on: first it holds nothing any more, then it is nobody.
//!
//! *Drain* marks the node as leaving, in the registry. From then on the planner counts it out, so that what it holds
//! moves away a few groups at a time; what it leads is handed over at once. Whoever leads the meta group goes on with it,
//! and a drain that was begun needs nobody's attention. The node stays a way in and a host. A restart takes the mark
//! back.
//!
//! *Leave* is a drain after which the node takes itself off the registry and stops.
//!
//! Neither takes the last storage node that is up: there would be nobody to take what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callboard_machine::meta::{MetaCommand, MetaRejection, MetaResponse, NodeRecord, Role};
use callboard_raft::GroupStatus;
use callboard_types::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Running, meta};
use crate::tasks::Kind;

/// How often it is looked at what is left, where nothing tells of it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why it is not begun.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("no other storage node is up: nobody would hold what this one holds")]
    Last,
    #[error("this node is not registered with its cluster yet")]
    Unregistered,
    #[error(transparent)]
    NoLeader(#[from] meta::Error),
    #[error("the cluster refuses: {0}")]
    Rejected(MetaRejection),
}

/// What is still to be moved away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Groups of which this node has a replica, the meta group among them.
    pub held: usize,
    /// Those among them that it leads.
    pub led: usize,
    /// Rows of the table that still name this node.
    pub placed: usize,
    /// It has left: the registry does not know it any more.
    pub left: bool,
}

impl Holding {
    pub fn is_empty(&self) -> bool {
        self.held == 0 && self.placed == 0
    }
}

/// What has been begun on this node. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    handing: Arc<AtomicBool>,
    going: Arc<AtomicBool>,
    left: watch::Sender<bool>,
}

impl Running {
    /// Marks the node as leaving, and begins to hand over what it leads. Repeating it is harmless.
    pub async fn begin_drain(&self) -> Result<(), Error> {
        let placing = &self.placing;
        let (state, node) = (placing.meta.state(), placing.node);
        if *self.leaving.left.borrow() {
            return Ok(());
        }
        let record = state.nodes.get(&node).ok_or(Error::Unregistered)?;
        if !self.holding().is_empty() {
            let view = placing.view.borrow().clone();
            let takes = |(other, record): (&NodeId, &NodeRecord)| {
                *other != node && record.role == Role::Storage && !record.leaving && view.is_up(*other)
            };
            if !state.nodes.iter().any(takes) {
                return Err(Error::Last);
            }
        }
        if !record.leaving {
            let record = NodeRecord { leaving: true, ..record.clone() };
            match placing.meta.propose(MetaCommand::PutNode { node, record }).await? {
                MetaResponse::Done => tracing::info!("this node holds nothing any more as soon as others do"),
                MetaResponse::Rejected(why) => return Err(Error::Rejected(why)),
            }
        }
        if !self.leaving.handing.swap(true, Ordering::AcqRel) {
            let running = self.clone();
            placing.tasks.spawn(Kind::Work, "hand-over", async move {
                running.placing.leave_all().await;
                running.leaving.handing.store(false, Ordering::Release);
            });
        }
        Ok(())
    }

    /// Drains, takes the node off the registry, and has it stop. Goes on when nobody waits for it any more.
    pub async fn begin_leave(&self, stop: CancellationToken) -> Result<(), Error> {
        self.begin_drain().await?;
        if !self.leaving.going.swap(true, Ordering::AcqRel) {
            let running = self.clone();
            let tasks = self.placing.tasks.clone();
            self.placing.tasks.spawn(Kind::Work, "leave", async move {
                tokio::select! {
                    biased;
                    () = tasks.stopping() => {}
                    () = running.go() => stop.cancel(),
                }
            });
        }
        Ok(())
    }

    async fn go(&self) {
        let node = self.placing.node;
        loop {
            self.emptied().await;
            match self.placing.meta.propose(MetaCommand::RemoveNode { node }).await {
                Ok(MetaResponse::Done) => break,
                Ok(MetaResponse::Rejected(why)) => tracing::debug!(%why, "this node does not leave yet"),
                Err(error) => tracing::info!(%error, "this node is not taken off the registry yet"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        tracing::info!("this node has left the cluster");
        self.leaving.left.send_replace(true);
    }

    /// What is left, at once.
    pub fn holding(&self) -> Holding {
        let statuses = self.placing.groups.statuses();
        let state = self.placing.meta.state();
        Holding {
            held: statuses.len(),
            led: statuses.iter().filter(|status| GroupStatus::is_leader(status)).count(),
            placed: state.placement_rows().filter(|(_, row)| row.on(self.placing.node).is_some()).count(),
            left: *self.leaving.left.borrow(),
        }
    }

    /// Waits until nothing is left, `patience` at most; then until the node has left, where it was asked to.
    pub async fn drained(&self, patience: Duration) -> Holding {
        let done = async {
            self.emptied().await;
            if self.leaving.going.load(Ordering::Acquire) {
                let _ = self.leaving.left.subscribe().wait_for(|left| *left).await;
            }
        };
        let _ = tokio::time::timeout(patience, done).await;
        self.holding()
    }

    async fn emptied(&self) {
        let mut changes = self.placing.groups.changes();
        while !self.holding().is_empty() {
            let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_holds_nothing_when_neither_it_nor_the_table_says_so() {
        let holding = |held, placed| Holding { held, led: 0, placed, left: false };
        assert!(holding(0, 0).is_empty());
        assert!(!holding(1, 0).is_empty(), "a replica is still on its disk");
        assert!(!holding(0, 1).is_empty(), "it may be given one at any moment");
    }
}
