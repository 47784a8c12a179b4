//! The meta state as this node knows it, and the way it gets from node to node.
//!
//! A few nodes hold a replica of the meta group; all the others follow its log from any node that is ahead of them: the
//! entries after an index, or the whole state when those are no longer at hand. The [`Board`] is what both kinds have: the
//! state, where it stands, and the last applied commands for others to follow by. A replica that is behind what the
//! board was told (it has just been made here) leaves it alone until it has caught up.
//!
//! A position is an index under a recovery generation. A cluster that went on without its quorum may have taken back what
//! followers have seen, so whoever has seen a lower generation is sent the whole state, and whoever has seen a higher one
//! is told nothing.
//!
//! Invariants: the position never falls; the state is that of the position; the tail holds every command after `from`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use callboard_machine::meta::{MetaCommand, MetaKey, MetaRow, MetaState};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::convert::Storable;
use crate::error::FeedError;

/// Commands kept for followers, and what they take when encoded.
const TAIL_COMMANDS: usize = 1_024;
const TAIL_BYTES: usize = 1 << 20;

/// How much of the meta log a node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MetaAt {
    /// Of recovery.
    pub generation: u64,
    /// Of the log.
    pub index: u64,
}

/// What a node tells one that follows it.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaUpdate {
    /// The commands between `after` and `upto`; entries without one are left out.
    Entries { after: u64, entries: Vec<(u64, Arc<MetaCommand>)>, upto: u64 },
    /// The whole state.
    Snapshot { index: u64, rows: Vec<MetaRow> },
}

impl MetaUpdate {
    /// There was nothing to tell.
    pub fn is_empty(&self) -> bool {
        matches!(self, MetaUpdate::Entries { after, upto, .. } if after == upto)
    }
}

/// The meta state of this node.
#[derive(Default)]
pub struct Board {
    known: Mutex<Known>,
    state: watch::Sender<Arc<MetaState>>,
    at: watch::Sender<MetaAt>,
}

#[derive(Default)]
struct Known {
    state: Arc<MetaState>,
    index: u64,
    tail: VecDeque<(u64, Arc<MetaCommand>, usize)>,
    /// The tail begins after it.
    from: u64,
    bytes: usize,
}

impl Known {
    fn at(&self) -> MetaAt {
        MetaAt { generation: self.state.generation, index: self.index }
    }

    fn push(&mut self, index: u64, command: Arc<MetaCommand>) {
        let bytes = command.encode().len();
        self.bytes += bytes;
        self.tail.push_back((index, command, bytes));
        while self.tail.len() > TAIL_COMMANDS || self.bytes > TAIL_BYTES {
            let Some((index, _, bytes)) = self.tail.pop_front() else { return };
            self.bytes -= bytes;
            self.from = index;
        }
    }

    /// Forgets what led to the state.
    fn restart(&mut self, index: u64, state: Arc<MetaState>) {
        *self = Self { state, index, from: index, ..Self::default() };
    }

    /// What is new after `after`; `None`: nothing.
    fn update(&self, after: MetaAt) -> Option<MetaUpdate> {
        let at = self.at();
        if after >= at {
            return None;
        }
        if after.generation < at.generation || after.index < self.from {
            return Some(MetaUpdate::Snapshot { index: self.index, rows: self.state.rows().collect() });
        }
        let entries = self.tail.iter().filter(|(index, _, _)| *index > after.index);
        let entries = entries.map(|(index, command, _)| (*index, command.clone())).collect();
        Some(MetaUpdate::Entries { after: after.index, entries, upto: self.index })
    }
}

/// What an update has changed.
pub struct Fed {
    /// Where the node stood before.
    pub before: MetaAt,
    pub at: MetaAt,
    pub state: Arc<MetaState>,
    /// `None`: everything.
    pub dirty: Option<Vec<MetaKey>>,
}

impl Board {
    pub fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        self.state.subscribe()
    }

    pub fn state(&self) -> Arc<MetaState> {
        self.state.borrow().clone()
    }

    pub fn at(&self) -> MetaAt {
        self.known.lock().at()
    }

    fn publish(&self, known: &Known) {
        if !Arc::ptr_eq(&self.state.borrow(), &known.state) {
            self.state.send_replace(known.state.clone());
        }
        self.at.send_replace(known.at());
    }

    /// A whole state was read or received, which stands at `index`.
    pub fn load(&self, index: u64, state: Arc<MetaState>) {
        let mut known = self.known.lock();
        if (MetaAt { generation: state.generation, index }) > known.at() {
            known.restart(index, state);
            self.publish(&known);
        }
    }

    /// The replica of this node has applied `commands`, and with them everything up to `index`.
    pub fn applied(&self, index: u64, commands: Vec<(u64, Arc<MetaCommand>)>, state: impl FnOnce() -> Arc<MetaState>) {
        let mut known = self.known.lock();
        if index <= known.index {
            return;
        }
        let after = known.index;
        let fresh: Vec<_> = commands.into_iter().filter(|(index, _)| *index > after).collect();
        if !fresh.is_empty() {
            known.state = state();
        }
        fresh.into_iter().for_each(|(index, command)| known.push(index, command));
        known.index = index;
        self.publish(&known);
    }

    /// Another node has told what it knows. `None`: it is known already.
    pub fn feed(&self, update: MetaUpdate) -> Result<Option<Fed>, FeedError> {
        let mut known = self.known.lock();
        let before = known.at();
        let dirty = match update {
            MetaUpdate::Entries { upto, .. } if upto <= known.index => return Ok(None),
            MetaUpdate::Entries { after, .. } if after > known.index => {
                return Err(FeedError::Gap { has: known.index, needs: after });
            }
            MetaUpdate::Entries { after: _, entries, upto } => {
                let mut dirty = Vec::new();
                let fresh: Vec<_> = entries.into_iter().filter(|(index, _)| *index > before.index).collect();
                if !fresh.is_empty() {
                    let state = Arc::make_mut(&mut known.state);
                    fresh.iter().for_each(|(_, command)| dirty.extend(state.apply(command).1));
                }
                fresh.into_iter().for_each(|(index, command)| known.push(index, command));
                known.index = upto;
                Some(dirty)
            }
            MetaUpdate::Snapshot { index, rows } => {
                let state = MetaState::load(rows);
                let (given, seen) = (state.generation, before.generation);
                if given < seen {
                    return Err(FeedError::Generation { given, seen });
                }
                if (MetaAt { generation: given, index }) <= before {
                    return Ok(None);
                }
                known.restart(index, Arc::new(state));
                None
            }
        };
        self.publish(&known);
        Ok(Some(Fed { before, at: known.at(), state: known.state.clone(), dirty }))
    }

    /// What is new after `after`, as soon as there is something, or an empty update when `wait` is over.
    pub async fn update(&self, after: MetaAt, wait: Duration) -> MetaUpdate {
        let mut at = self.at.subscribe();
        let news = async {
            loop {
                at.mark_unchanged();
                if let Some(update) = self.known.lock().update(after) {
                    return update;
                }
                if at.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let nothing = MetaUpdate::Entries { after: after.index, entries: Vec::new(), upto: after.index };
        tokio::time::timeout(wait, news).await.unwrap_or(nothing)
    }
}

#[cfg(test)]
#[path = "meta_feed/meta_feed_test.rs"]
mod tests;
