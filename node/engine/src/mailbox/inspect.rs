//! What can be seen of a table from outside: counts, running turns, activations.
//!
//! For the metadata endpoint, for metrics, and for the hand-over to the next owner. Nothing here changes anything.

use std::sync::Arc;

use callboard_types::{Activation, ActorKey, NodeId};

use super::{CallId, Mailboxes, Phase, ReentrancyId, TurnId, TurnKind};
use crate::Instant;

/// Totals of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub activations: usize,
    /// Entries of turns, deactivations included.
    pub running: usize,
    pub waiting: usize,
    /// Writes under way.
    pub unresolved: usize,
}

impl Counts {
    /// Nothing runs and no write is under way.
    pub(super) const fn is_drained(&self) -> bool {
        self.running == 0 && self.unresolved == 0
    }
}

/// An actor type within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeName {
    pub namespace: Arc<str>,
    pub actor_type: Arc<str>,
}

impl TypeName {
    pub(super) fn of(actor: &ActorKey) -> Self {
        Self { namespace: actor.namespace.clone(), actor_type: actor.actor_type.clone() }
    }
}

/// A call that has not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub call: CallId,
    pub actor: ActorKey,
    pub kind: TurnKind,
}

/// One entry of a running turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub actor: ActorKey,
    pub turn: TurnId,
    /// `None`: a deactivation.
    pub call: Option<CallId>,
    pub kind: TurnKind,
    pub chain: Option<ReentrancyId>,
    pub activation: Activation,
}

/// One activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    pub actor: ActorKey,
    pub activation: Activation,
    pub host: Option<NodeId>,
    pub idle_deadline: Instant,
    pub state: ActiveState,
}

/// What an activation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActiveState {
    AtRest,
    InTurn(TurnKind),
}

impl Mailboxes {
    /// Whether the epoch is over: nothing starts ever again.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Activations per type, in the order of the names; types with none are absent.
    pub fn active_counts(&self) -> Vec<(TypeName, usize)> {
        self.active.iter().map(|(name, &count)| (name.clone(), count)).collect()
    }

    /// How many calls wait for one actor.
    pub fn queue_depth(&self, actor: &ActorKey) -> usize {
        self.index.get(actor).map_or(0, |&slot| self.slots[slot].queue.waiting())
    }

    /// The actor's living activation.
    pub fn activation_of(&self, actor: &ActorKey) -> Option<Activation> {
        let &slot = self.index.get(actor)?;
        self.slots[slot].life.map(|life| life.number)
    }

    /// Every entry of every running turn.
    pub fn running(&self) -> impl Iterator<Item = Running> + '_ {
        self.slots.iter().flat_map(|(number, slot)| {
            let turn = slot.holder.as_ref().zip(slot.life);
            turn.into_iter().flat_map(move |(holder, life)| {
                holder.entries.iter().map(move |entry| Running {
                    actor: slot.actor.clone(),
                    turn: TurnId { slot: number, serial: entry.serial },
                    call: entry.call,
                    kind: holder.kind,
                    chain: holder.chain.clone(),
                    activation: life.number,
                })
            })
        })
    }

    /// Every activation.
    pub fn activations(&self) -> impl Iterator<Item = Active> + '_ {
        self.slots.iter().filter_map(|(_, slot)| {
            let life = slot.life?;
            Some(Active {
                actor: slot.actor.clone(),
                activation: life.number,
                host: life.host,
                idle_deadline: slot.idle_deadline(),
                state: slot.holder.as_ref().map_or(ActiveState::AtRest, |holder| ActiveState::InTurn(holder.kind)),
            })
        })
    }
}
