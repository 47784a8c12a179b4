//! The mailboxes of one partition under one epoch: who may run, who waits, who is refused.
//!
//! Picture a stage door with one bell per actor. Whoever rings is let in if the stage is empty, joins the line if it is
//! not, and is turned away if the line is full. One person on stage may call out for a companion (a nested call of the
//! same chain): the companion goes straight in, past the line, because the scene cannot end without him. When the scene
//! is over the next in line enters. Nobody pushes in, and somebody who leaves the line leaves no gap behind.
//!
//! The table is data under the shell's short mutex. The caller's own task runs its turn: [`Mailboxes::admit`] says
//! whether it may, [`Mailboxes::finish`] says whom to wake. There is no task per actor, no channel and no clock; an
//! actor at rest costs its slot and nothing else, and an uncontended turn costs one hash look-up and no allocation.
//!
//! What holds at every moment:
//!
//! - Turns of one actor never overlap, except the entries of one call chain, which are one turn.
//! - Strict first in, first out per actor, over calls, reminders and timers alike. The exceptions are named: a nested
//!   entry joins the running turn; a call of a chain that already waits joins that place; [`Mailboxes::reopen`] puts a
//!   call that had started back to the front; a deactivation goes before all waiters, which then open the next
//!   activation.
//! - Every queued call is started, cancelled, or handed back by `take_parked` or `end_all`, exactly once.
//! - An activation that may have reached an app ends only through a turn of kind `Deactivate` or `Exclusive`, and the
//!   next one has a higher number.
//! - No turn and no activation starts while a write of the actor is unresolved.
//! - After [`Mailboxes::end_all`] nothing starts ever again: a regained epoch is another table.
//!
//! Absent on purpose: the choice of the host (the shell assigns it), deadlines of callers (the shell cancels), fairness
//! between actors (they are independent), eviction of an activation to make room for another (the limit refuses
//! instead: an idle timeout is the user's to choose), and anything durable: locks and queues die with the epoch.

mod control;
mod inspect;
mod queue;
pub mod reentrancy;
mod slot;
pub mod turn;
mod writes;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod turns_test;

use std::collections::{BTreeMap, HashMap};

use callboard_types::{Activation, ActorKey, FencingToken, NodeId};
use slab::Slab;

use self::queue::{Member, Place};
use self::reentrancy::{Entry, Holder};
use self::slot::Slot;
use crate::Instant;
use crate::activation::{EndReason, Life};
use crate::idle::IdleQueue;

pub use self::control::{Drain, EpochEnd};
pub use self::inspect::{Active, ActiveState, Counts, Running, TypeName, Waiting};
pub use self::reentrancy::{Reentrancy, ReentrancyId};
pub use self::turn::{
    Admission, CallId, Deactivation, Effect, Effects, EpochToken, Limits, Refusal, Reopen, Request, RequestKind, Start,
    TurnEnd, TurnId, TurnKind, TypeConfig, WriteOutcome,
};

/// The mailboxes and activations of one partition under one epoch.
#[derive(Debug)]
pub struct Mailboxes {
    base: EpochToken,
    limits: Limits,
    /// Looked up by key, never iterated: the order of a hash map is nobody's business.
    index: HashMap<ActorKey, usize>,
    slots: Slab<Slot>,
    idle: IdleQueue,
    active: BTreeMap<TypeName, usize>,
    counts: Counts,
    /// The number of the last activation.
    minted: u64,
    /// The last serial number of an entry or a waiter.
    serial: u64,
    phase: Phase,
}

/// Whether turns start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Only entries of running turns and deactivations start. `reported`: `Drained` was.
    Quiesced {
        reported: bool,
    },
    /// The epoch is over.
    Ended,
}

/// What becomes of a request that is not refused.
enum Way {
    /// A turn of its own begins.
    Start,
    /// It is an entry of the running turn.
    Enter,
    /// It waits at this place of the queue, with its chain.
    Join(usize),
    /// It waits at the end.
    Wait,
}

impl Mailboxes {
    pub fn new(base: EpochToken, limits: Limits) -> Self {
        Self {
            base,
            limits,
            index: HashMap::new(),
            slots: Slab::new(),
            idle: IdleQueue::default(),
            active: BTreeMap::new(),
            counts: Counts::default(),
            minted: 0,
            serial: 0,
            phase: Phase::Open,
        }
    }

    /// The fencing token of an activation of this table.
    pub const fn token(&self, activation: Activation) -> FencingToken {
        self.base.token(activation)
    }

    /// Asks for a turn. `fresh` names the chain of a top-level call: it is called only for a call to a type with
    /// reentrancy on that came without an id, and only if the call is not refused.
    pub fn admit(&mut self, now: Instant, request: Request<'_>, fresh: impl FnOnce() -> ReentrancyId) -> Admission {
        let reentrancy = request.config.reentrancy;
        let kind = TurnKind::from(request.kind);
        let given = reentrancy.chain_of(kind, request.chain);
        let found = self.index.get(request.actor).copied();
        let way = match found {
            Some(slot) => self.way_in(slot, &request, given),
            None => self.way_of_newcomer(),
        };
        let way = match way {
            Ok(way) => way,
            Err(refusal) => return Admission::Refused(refusal),
        };
        let slot = found.unwrap_or_else(|| self.insert(request.actor, request.config));
        self.slots[slot].config = request.config;
        let chain = || given.cloned().or_else(|| reentrancy.applies_to(kind).then(fresh));
        match way {
            Way::Start => {
                self.begin(now, slot, kind, chain());
                Admission::Start(self.enter(now, slot, Some(request.call), false))
            }
            Way::Enter => Admission::Start(self.enter(now, slot, Some(request.call), true)),
            Way::Join(at) => {
                let member = self.arrival(request.call);
                Admission::Queued { position: self.slots[slot].queue.join(at, member) }
            }
            Way::Wait => {
                let member = self.arrival(request.call);
                let place = Place::new(kind, chain(), member);
                Admission::Queued { position: self.slots[slot].queue.push_back(place) }
            }
        }
    }

    /// An entry of a turn has ended. When it was the last one, the turn has: the next in line starts.
    ///
    /// A turn that is not running (ended before, or of an ended epoch) has no effect.
    pub fn finish(&mut self, now: Instant, turn: TurnId, end: TurnEnd) -> Effects {
        let mut effects = Effects::new();
        let Some(entry) = self.entry_of(turn) else { return effects };
        self.leave(turn.slot, entry);
        let slot = &mut self.slots[turn.slot];
        let holder = slot.holder.as_ref().expect("an entry has a turn");
        let (kind, over) = (holder.kind, holder.entries.is_empty());
        if let Some(life) = &mut slot.life {
            after_entry(life, kind, end);
        }
        if over {
            slot.holder = None;
            // Nothing of it can be in an app: it never was, or its `DELETE` has been answered.
            if kind == TurnKind::Deactivate || slot.life.is_some_and(|life| !life.opened) {
                self.end_life(turn.slot);
            }
            self.settle(now, turn.slot, &mut effects);
        }
        self.report_drained(&mut effects);
        effects
    }

    /// A waiting call leaves the queue; nobody else's order changes. A call that has its turn but has not been
    /// dispatched gives it back. After the dispatch a call is never cancelled but finished, when the app's answer is in.
    pub fn cancel(&mut self, now: Instant, actor: &ActorKey, call: CallId) -> Effects {
        let mut effects = Effects::new();
        let Some(&slot) = self.index.get(actor) else { return effects };
        if self.slots[slot].queue.remove(call) {
            self.counts.waiting -= 1;
            self.settle(now, slot, &mut effects);
            return effects;
        }
        let holder = self.slots[slot].holder.as_ref();
        match holder.and_then(|holder| holder.entries.iter().find(|entry| entry.call == Some(call))) {
            Some(entry) => self.finish(now, TurnId { slot, serial: entry.serial }, TurnEnd::NotDispatched),
            None => effects,
        }
    }

    /// The same call again, before all others, under another activation.
    ///
    /// It may start at once, or wait (for the `DELETE` of the old activation among the effects, or an unresolved
    /// write). It had its turn before, so it takes its place even in a full mailbox. A call that came from inside a turn
    /// of the old activation is refused instead: the handler that waits for it counts for nothing any more.
    pub fn reopen(&mut self, now: Instant, turn: TurnId, why: Reopen) -> (Admission, Effects) {
        let mut effects = Effects::new();
        let Some(entry) = self.entry_of(turn) else {
            let refusal = if self.phase == Phase::Ended { Refusal::EpochOver } else { Refusal::Superseded };
            return (Admission::Refused(refusal), effects);
        };
        let slot = &mut self.slots[turn.slot];
        let holder = slot.holder.as_ref().expect("an entry has a turn");
        let (kind, chain, alone) = (holder.kind, holder.chain.clone(), holder.entries.len() == 1);
        let Some(call) = entry.call else {
            // A deactivation of what the host does not have is done.
            return (Admission::Refused(Refusal::Superseded), self.finish(now, turn, TurnEnd::Done));
        };
        let life = slot.life.as_mut().expect("a turn has an activation");
        let again = match why {
            Reopen::HostRefused => {
                life.opened &= !alone;
                life.end_for(EndReason::Superseded);
                alone
            }
            Reopen::Cut => {
                life.opened = true;
                life.end_for(EndReason::Moved);
                !entry.nested
            }
        };
        if again {
            // Before the turn is left: it must find its place taken when it settles.
            let member = self.arrival(call);
            self.slots[turn.slot].queue.push_front(Place::new(kind, chain, member));
        }
        self.leave(turn.slot, entry);
        if alone {
            self.slots[turn.slot].holder = None;
            self.settle(now, turn.slot, &mut effects);
        }
        self.report_drained(&mut effects);
        if !again {
            return (Admission::Refused(Refusal::Superseded), effects);
        }
        match take_start(&mut effects, call) {
            Some(start) => (Admission::Start(start), effects),
            None => (Admission::Queued { position: 0 }, effects),
        }
    }

    /// Where the activation of a running turn lives. Its later starts carry it.
    pub fn assign_host(&mut self, turn: TurnId, host: NodeId) {
        if self.entry_of(turn).is_some()
            && let Some(life) = &mut self.slots[turn.slot].life
        {
            life.host = Some(host);
        }
    }

    /// How a request to a known actor goes on.
    fn way_in(&self, slot: usize, request: &Request<'_>, chain: Option<&ReentrancyId>) -> Result<Way, Refusal> {
        let slot = &self.slots[slot];
        let reentrancy = request.config.reentrancy;
        if let Some(chain) = chain {
            if slot.hold.as_ref().is_some_and(|hold| hold.chain.as_ref() == Some(chain)) {
                return Err(Refusal::Superseded);
            }
            if let Some(holder) = slot.holder.as_ref().filter(|holder| holder.is_of(chain)) {
                return match slot.life {
                    Some(life) if life.is_fenced() => Err(Refusal::Superseded),
                    Some(_) | None if !reentrancy.allows_another(holder.entries.len()) => Err(Refusal::StackDepth),
                    Some(_) | None => Ok(Way::Enter),
                };
            }
            if let Some((at, members)) = slot.queue.find_chain(chain) {
                if !reentrancy.allows_another(members) {
                    return Err(Refusal::StackDepth);
                }
                return self.room_to_wait(slot).map(|()| Way::Join(at));
            }
        }
        if slot.is_at_rest() && self.phase == Phase::Open {
            return Ok(Way::Start);
        }
        match request.kind {
            RequestKind::Exclusive if !slot.is_settling() => Err(Refusal::TurnRunning),
            RequestKind::Call | RequestKind::Reminder | RequestKind::Timer | RequestKind::Exclusive => {
                self.room_to_wait(slot).map(|()| Way::Wait)
            }
        }
    }

    /// How a request to an actor without a slot goes on.
    fn way_of_newcomer(&self) -> Result<Way, Refusal> {
        match self.phase {
            Phase::Ended => Err(Refusal::EpochOver),
            Phase::Open | Phase::Quiesced { .. } if self.slots.len() >= self.limits.activations => {
                Err(Refusal::TooManyActivations)
            }
            Phase::Open => Ok(Way::Start),
            Phase::Quiesced { .. } if self.counts.waiting >= self.limits.waiting => Err(Refusal::TooManyWaiting),
            Phase::Quiesced { .. } if self.limits.mailbox == 0 => Err(Refusal::MailboxFull),
            Phase::Quiesced { .. } => Ok(Way::Wait),
        }
    }

    fn room_to_wait(&self, slot: &Slot) -> Result<(), Refusal> {
        if slot.queue.waiting() >= self.limits.mailbox {
            Err(Refusal::MailboxFull)
        } else if self.counts.waiting >= self.limits.waiting {
            Err(Refusal::TooManyWaiting)
        } else {
            Ok(())
        }
    }

    fn insert(&mut self, actor: &ActorKey, config: TypeConfig) -> usize {
        let slot = self.slots.insert(Slot::new(actor.clone(), config));
        self.index.insert(actor.clone(), slot);
        slot
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A call that is about to wait.
    fn arrival(&mut self, call: CallId) -> Member {
        self.counts.waiting += 1;
        Member { call, serial: self.next_serial() }
    }

    /// A turn takes the lock, and opens an activation if there is none.
    fn begin(&mut self, now: Instant, slot: usize, kind: TurnKind, chain: Option<ReentrancyId>) {
        let state = &mut self.slots[slot];
        assert!(state.is_open(), "a turn begins only when none runs and no write is unresolved");
        state.holder = Some(Holder::new(kind, chain));
        if state.life.is_none() {
            self.minted += 1;
            state.life = Some(Life::begin(Activation(self.minted), now));
            self.counts.activations += 1;
            *self.active.entry(TypeName::of(&state.actor)).or_default() += 1;
        }
    }

    /// One call becomes an entry of the turn that holds the lock.
    fn enter(&mut self, now: Instant, slot: usize, call: Option<CallId>, nested: bool) -> Start {
        let serial = self.next_serial();
        self.counts.running += 1;
        let state = &mut self.slots[slot];
        let holder = state.holder.as_mut().expect("who enters finds a turn");
        let life = state.life.as_mut().expect("a turn has an activation");
        holder.entries.push(Entry { serial, call, nested });
        life.last_start = now;
        Start {
            turn: TurnId { slot, serial },
            activation: life.number,
            opens: !life.opened,
            host: life.host,
            kind: holder.kind,
            chain: holder.chain.clone(),
            idle_deadline: life.idle_deadline(state.config.idle_timeout),
        }
    }

    /// The running entry that a turn id names.
    fn entry_of(&self, turn: TurnId) -> Option<Entry> {
        let holder = self.slots.get(turn.slot)?.holder.as_ref()?;
        holder.entries.iter().find(|entry| entry.serial == turn.serial).copied()
    }

    /// An entry leaves its turn; the turn stays, even if empty.
    fn leave(&mut self, slot: usize, entry: Entry) {
        let holder = self.slots[slot].holder.as_mut().expect("an entry has a turn");
        holder.entries.retain(|other| other.serial != entry.serial);
        self.counts.running -= 1;
    }

    /// What follows when something that kept an actor from its next turn may be gone. The one place where waiters
    /// start, deactivations begin, rest is noted and slots are freed.
    fn settle(&mut self, now: Instant, slot: usize, effects: &mut Effects) {
        if !self.slots[slot].is_open() {
            return;
        }
        if let Some(life) = self.slots[slot].life
            && let Some(reason) = life.ending
        {
            if life.opened {
                effects.push(Effect::Deactivate(self.begin_deactivation(now, slot, reason)));
                return;
            }
            self.end_life(slot);
        }
        let state = &mut self.slots[slot];
        if self.phase == Phase::Open
            && let Some(place) = state.queue.pop_front()
        {
            self.counts.waiting -= place.members.len();
            self.begin(now, slot, place.kind, place.chain);
            for member in place.members {
                let start = self.enter(now, slot, Some(member.call), false);
                effects.push(Effect::Start { call: member.call, start });
            }
        } else if state.life.is_some() {
            self.idle.rest(slot, state.idle_deadline());
        } else if state.queue.is_empty() {
            let freed = self.slots.remove(slot);
            self.index.remove(&freed.actor);
        }
    }

    fn begin_deactivation(&mut self, now: Instant, slot: usize, reason: EndReason) -> Deactivation {
        self.begin(now, slot, TurnKind::Deactivate, None);
        let start = self.enter(now, slot, None, false);
        let actor = self.slots[slot].actor.clone();
        Deactivation { actor, turn: start.turn, activation: start.activation, host: start.host, reason }
    }

    /// The activation is over: nothing of it is in any app, or its `DELETE` has been answered.
    fn end_life(&mut self, slot: usize) {
        let state = &mut self.slots[slot];
        assert!(state.life.take().is_some(), "only a living activation ends");
        self.idle.remove(slot);
        self.counts.activations -= 1;
        let name = TypeName::of(&state.actor);
        match self.active.get_mut(&name) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                self.active.remove(&name);
            }
        }
    }

    /// Tells once per `quiesce` that nothing runs and no write is under way.
    fn report_drained(&mut self, effects: &mut Effects) {
        if self.phase == (Phase::Quiesced { reported: false }) && self.counts.is_drained() {
            self.phase = Phase::Quiesced { reported: true };
            effects.push(Effect::Drained);
        }
    }
}

/// What the end of an entry says about the activation.
fn after_entry(life: &mut Life, kind: TurnKind, end: TurnEnd) {
    match (kind, end) {
        // A deactivation ends it whatever the answer, and what was not dispatched says nothing.
        (TurnKind::Deactivate, TurnEnd::Done | TurnEnd::NotDispatched | TurnEnd::Lost)
        | (TurnKind::Call | TurnKind::Reminder | TurnKind::Timer | TurnKind::Exclusive, TurnEnd::NotDispatched) => {}
        (TurnKind::Call | TurnKind::Reminder | TurnKind::Timer, TurnEnd::Done) => life.opened = true,
        (TurnKind::Call | TurnKind::Reminder | TurnKind::Timer, TurnEnd::Lost) => {
            life.opened = true;
            life.end_for(EndReason::HostLost);
        }
        // Its `DELETE` has been answered, or none was needed.
        (TurnKind::Exclusive, TurnEnd::Done) => life.opened = false,
        (TurnKind::Exclusive, TurnEnd::Lost) => life.end_for(EndReason::HostLost),
    }
}

/// Takes the start of one call out of the effects.
fn take_start(effects: &mut Effects, call: CallId) -> Option<Start> {
    let at = effects.iter().position(|effect| match effect {
        Effect::Start { call: started, .. } => *started == call,
        Effect::Deactivate(_) | Effect::Drained => false,
    })?;
    match effects.remove(at) {
        Effect::Start { start, .. } => Some(start),
        Effect::Deactivate(_) | Effect::Drained => None,
    }
}
