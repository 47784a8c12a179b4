//! Writes under way: the gate between an actor's commands and its next turn.
//!
//! A command that was proposed may take effect at any moment until it is applied, refused, or the epoch is over. A turn
//! that starts meanwhile could read the state without it and see it appear later. So the next turn waits; the running
//! one, to which the command belongs, goes on, nested entries included.
//!
//! The caller of a write may be told "unknown" before the log knows. That is [`Mailboxes::write_doubtful`]: the
//! activation is doomed, since the app may believe something else than is stored, but the gate stays shut until
//! [`Mailboxes::write_resolved`]. If the log never answers, the leadership is gone and `end_all` follows.

use callboard_types::{Activation, ActorKey};

use super::{Effects, Mailboxes, Phase, Refusal, TypeConfig, WriteOutcome};
use crate::Instant;
use crate::activation::EndReason;

impl Mailboxes {
    /// A command of the actor is about to be proposed. Each is followed by one `write_resolved`.
    ///
    /// # Errors
    ///
    /// The epoch is over, or the actor is not in the table and the table is full: the command must not be proposed.
    pub fn write_started(&mut self, actor: &ActorKey) -> Result<(), Refusal> {
        let slot = self.slot_for(actor)?;
        self.slots[slot].unresolved += 1;
        self.counts.unresolved += 1;
        Ok(())
    }

    /// Whether the actor's activation of this number has not ended. A write of an earlier one counts for nothing: another
    /// may have begun elsewhere.
    pub fn is_current(&self, actor: &ActorKey, activation: Activation) -> bool {
        let slot = self.index.get(actor).map(|&slot| &self.slots[slot]);
        slot.and_then(|slot| slot.life).is_some_and(|life| life.number == activation)
    }

    /// Somebody was told that the outcome of a command is unknown, before it was resolved.
    pub fn write_doubtful(&mut self, actor: &ActorKey) {
        if self.index.get(actor).is_some_and(|&slot| self.slots[slot].unresolved > 0) {
            self.doom(actor, EndReason::WriteUnknown);
        }
    }

    /// A command can no longer take effect in the future: it has, was refused, or the log has passed it.
    pub fn write_resolved(&mut self, now: Instant, actor: &ActorKey, outcome: WriteOutcome) -> Effects {
        let mut effects = Effects::new();
        let Some(&slot) = self.index.get(actor) else { return effects };
        if self.slots[slot].unresolved == 0 {
            return effects;
        }
        self.slots[slot].unresolved -= 1;
        self.counts.unresolved -= 1;
        match outcome {
            WriteOutcome::Definite => {}
            WriteOutcome::Unknown => self.doom(actor, EndReason::WriteUnknown),
            WriteOutcome::Fenced => self.doom(actor, EndReason::WriteFenced),
        }
        self.settle(now, slot, &mut effects);
        self.report_drained(&mut effects);
        effects
    }

    /// The actor's slot, made if there is none.
    pub(super) fn slot_for(&mut self, actor: &ActorKey) -> Result<usize, Refusal> {
        if self.phase == Phase::Ended {
            return Err(Refusal::EpochOver);
        }
        if let Some(&slot) = self.index.get(actor) {
            return Ok(slot);
        }
        if self.slots.len() >= self.limits.activations {
            return Err(Refusal::TooManyActivations);
        }
        Ok(self.insert(actor, TypeConfig::default()))
    }

    fn doom(&mut self, actor: &ActorKey, reason: EndReason) {
        if let Some(&slot) = self.index.get(actor)
            && let Some(life) = &mut self.slots[slot].life
        {
            life.end_for(reason);
        }
    }
}
