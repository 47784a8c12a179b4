//! What ends or suspends more than one turn: deactivation, quiescence, the end of the epoch, and hand-over.
//!
//! A deactivation is a turn. When the actor is at rest it begins at once; else it is a mark on the activation, and
//! begins when the running turn has ended, before all waiters. Whoever wants it done gets it as a [`Deactivation`],
//! from the verb that asked or later from `finish`.
//!
//! Quiescence stops starts and nothing else: the running turns end at their own pace, with their nested entries, and
//! doomed activations are deactivated. Calls that arrive wait in their actors' mailboxes under the ordinary limits, so
//! their order holds whether the table resumes or hands them over.

use callboard_types::{Activation, ActorKey, NodeId};

use super::{
    Counts, Deactivation, Effect, Effects, Mailboxes, Phase, Place, ReentrancyId, Refusal, Running, TypeConfig,
    TypeName, Waiting,
};
use crate::Instant;
use crate::activation::{EndReason, Life};
use crate::mailbox::slot::Hold;

/// How far a table is from standing still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Nothing runs and no write is under way.
    Drained,
    /// [`Effect::Drained`] follows when these have ended.
    Running { turns: usize, writes: usize },
}

/// What an epoch leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochEnd {
    /// Calls that never started, in order of arrival: refuse them with [`Refusal::EpochOver`], or route them again.
    pub waiting: Vec<Waiting>,
    /// Entries that were running: their turns are dead, and `finish` of them does nothing.
    pub running: Vec<Running>,
}

impl Mailboxes {
    /// When to call `expire` next: never later than the earliest idle deadline, sometimes earlier. `None`: nothing
    /// becomes idle.
    pub fn next_idle_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open => self.idle.next(),
            Phase::Quiesced { .. } | Phase::Ended => None,
        }
    }

    /// Begins the deactivation of at most `max` activations whose idle deadline has passed. When it returns `max`, more
    /// may be due.
    pub fn expire(&mut self, now: Instant, max: usize) -> Vec<Deactivation> {
        let mut begun = Vec::new();
        if self.phase != Phase::Open {
            return begun;
        }
        while begun.len() < max
            && let Some(slot) = self.idle.pop(now)
        {
            let state = &self.slots[slot];
            if !state.is_at_rest() {
                // It is told to rest again when what keeps it has ended.
                continue;
            }
            let deadline = state.idle_deadline();
            if deadline > now {
                self.idle.rest(slot, deadline);
            } else {
                begun.push(self.begin_deactivation(now, slot, EndReason::Idle));
            }
        }
        begun
    }

    /// Ends the activation of one actor: at once, or after its running turn. Nothing if it is not active or ends already.
    pub fn deactivate(&mut self, now: Instant, actor: &ActorKey, reason: EndReason) -> Effects {
        let mut effects = Effects::new();
        if let Some(&slot) = self.index.get(actor) {
            self.doom_slot(now, slot, reason, &mut effects);
        }
        effects
    }

    /// Ends all activations that `selects` names by actor and host. Those at rest begin here; those with a running turn
    /// follow as effects when it ends.
    pub fn deactivate_all(
        &mut self,
        now: Instant,
        reason: EndReason,
        selects: impl Fn(&ActorKey, Option<NodeId>) -> bool,
    ) -> Vec<Deactivation> {
        let selected: Vec<usize> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.life.is_some_and(|life| selects(&slot.actor, life.host)))
            .map(|(number, _)| number)
            .collect();
        let mut effects = Effects::new();
        for slot in selected {
            self.doom_slot(now, slot, reason, &mut effects);
        }
        effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Deactivate(deactivation) => Some(deactivation),
                Effect::Start { .. } | Effect::Drained => None,
            })
            .collect()
    }

    fn doom_slot(&mut self, now: Instant, slot: usize, reason: EndReason, effects: &mut Effects) {
        if let Some(life) = &mut self.slots[slot].life {
            life.end_for(reason);
            self.settle(now, slot, effects);
        }
    }

    /// Stops starts: every request waits in its actor's mailbox, except entries of running turns.
    pub fn quiesce(&mut self) -> Drain {
        let drained = self.counts.is_drained();
        match self.phase {
            Phase::Open => self.phase = Phase::Quiesced { reported: drained },
            Phase::Quiesced { .. } | Phase::Ended => {}
        }
        if drained {
            Drain::Drained
        } else {
            Drain::Running { turns: self.counts.running, writes: self.counts.unresolved }
        }
    }

    /// Turns start again, those that waited first.
    pub fn resume(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::Quiesced { .. } => self.phase = Phase::Open,
            Phase::Open | Phase::Ended => return Vec::new(),
        }
        let slots: Vec<usize> = self.slots.iter().map(|(slot, _)| slot).collect();
        let mut effects = Effects::new();
        for slot in slots {
            self.settle(now, slot, &mut effects);
        }
        effects.into_vec()
    }

    /// Takes all waiting calls away, in order of arrival, to be forwarded to the next owner.
    pub fn take_parked(&mut self, now: Instant) -> Vec<Waiting> {
        let waiting = self.take_waiting();
        let slots: Vec<usize> = self.slots.iter().map(|(slot, _)| slot).collect();
        let mut effects = Effects::new();
        for slot in slots {
            self.settle(now, slot, &mut effects);
        }
        assert!(effects.is_empty(), "an empty queue starts nothing, and a doomed activation at rest has begun to end");
        waiting
    }

    fn take_waiting(&mut self) -> Vec<Waiting> {
        let mut taken = Vec::with_capacity(self.counts.waiting);
        for (_, slot) in &mut self.slots {
            for Place { kind, members, .. } in slot.queue.drain() {
                let actor = &slot.actor;
                taken.extend(
                    members
                        .into_iter()
                        .map(|member| (member.serial, Waiting { call: member.call, actor: actor.clone(), kind })),
                );
            }
        }
        self.counts.waiting = 0;
        taken.sort_unstable_by_key(|&(serial, _)| serial);
        taken.into_iter().map(|(_, waiting)| waiting).collect()
    }

    /// The epoch is over: nothing starts ever again, and running turns are dead.
    pub fn end_all(&mut self) -> EpochEnd {
        let waiting = self.take_waiting();
        let running = self.running().collect();
        self.phase = Phase::Ended;
        self.index.clear();
        self.slots.clear();
        self.idle.clear();
        self.active.clear();
        self.counts = Counts::default();
        EpochEnd { waiting, running }
    }

    /// A turn of this actor may still run on a host under an older epoch: no turn starts until `release`. A call of
    /// `chain` comes from inside that turn and is refused.
    ///
    /// # Errors
    ///
    /// The epoch is over, or the table is full.
    pub fn hold(&mut self, actor: &ActorKey, chain: Option<ReentrancyId>) -> Result<(), Refusal> {
        let slot = self.slot_for(actor)?;
        self.slots[slot].hold = Some(Hold { chain });
        Ok(())
    }

    /// The older turn has ended, or its drain time has.
    pub fn release(&mut self, now: Instant, actor: &ActorKey) -> Effects {
        let mut effects = Effects::new();
        if let Some(&slot) = self.index.get(actor)
            && self.slots[slot].hold.take().is_some()
        {
            self.settle(now, slot, &mut effects);
        }
        effects
    }

    /// Takes over an activation at rest that lives on `host` since an earlier epoch, under a number of this one. Returns
    /// the number: the host must be told before the next dispatch.
    ///
    /// # Errors
    ///
    /// The actor is active or waited for here already, the epoch is over, or the table is full.
    pub fn adopt(
        &mut self,
        actor: &ActorKey,
        host: NodeId,
        config: TypeConfig,
        idle_deadline: Instant,
    ) -> Result<Activation, Refusal> {
        let slot = self.slot_for(actor)?;
        let state = &mut self.slots[slot];
        if !state.is_at_rest() || state.life.is_some() {
            return Err(Refusal::TurnRunning);
        }
        self.minted += 1;
        let number = Activation(self.minted);
        let last_start = idle_deadline.saturating_sub(config.idle_timeout);
        state.config = config;
        state.life = Some(Life { number, host: Some(host), opened: true, last_start, ending: None });
        self.idle.rest(slot, state.idle_deadline());
        self.counts.activations += 1;
        *self.active.entry(TypeName::of(&state.actor)).or_default() += 1;
        Ok(number)
    }
}
