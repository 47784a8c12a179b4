//! All that the table knows of one actor.
//!
//! A slot exists as long as there is something to know: an activation, a turn, a waiter, an unresolved write or a hold.
//! The last of them to go frees it.

use callboard_types::ActorKey;

use super::queue::Queue;
use super::reentrancy::{Holder, ReentrancyId};
use super::turn::{TurnKind, TypeConfig};
use crate::Instant;
use crate::activation::Life;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) actor: ActorKey,
    pub(super) config: TypeConfig,
    pub(super) life: Option<Life>,
    /// The turn that holds the lock.
    pub(super) holder: Option<Holder>,
    pub(super) queue: Queue,
    /// Writes that may still take effect: no turn starts while there is one.
    pub(super) unresolved: usize,
    /// A turn of an older epoch may still run somewhere: no turn starts.
    pub(super) hold: Option<Hold>,
}

/// A turn under an older epoch, as its host reported it.
#[derive(Debug)]
pub(super) struct Hold {
    /// Calls of this chain come from inside that turn: they are refused, since to wait for it would be to wait for
    /// themselves.
    pub(super) chain: Option<ReentrancyId>,
}

impl Slot {
    pub(super) fn new(actor: ActorKey, config: TypeConfig) -> Self {
        Self { actor, config, life: None, holder: None, queue: Queue::default(), unresolved: 0, hold: None }
    }

    /// No turn runs, and nothing forbids the next one.
    pub(super) fn is_open(&self) -> bool {
        self.holder.is_none() && self.unresolved == 0 && self.hold.is_none()
    }

    /// Nothing runs, waits or is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_open() && self.queue.is_empty()
    }

    /// Nothing stands between the actor and rest but the deactivation that runs: what comes next opens an activation.
    pub(super) fn is_settling(&self) -> bool {
        let holder = self.holder.as_ref();
        let ending = holder.is_none_or(|holder| holder.kind == TurnKind::Deactivate);
        ending && self.unresolved == 0 && self.hold.is_none() && self.queue.is_empty()
    }

    /// When the activation is idle if nothing else reaches it.
    pub(super) fn idle_deadline(&self) -> Instant {
        self.life.map_or(Instant::MAX, |life| life.idle_deadline(self.config.idle_timeout))
    }
}
