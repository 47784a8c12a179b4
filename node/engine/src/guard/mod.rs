//! The host's guard: whether what reaches its app, or comes from it, still counts.
//!
//! An owner can be superseded without knowing it, and an app keeps an actor's instance, with the state it has cached,
//! for as long as nobody tells it otherwise. The guard stands between: it knows for every instance in its app under
//! which fencing token that was opened, and compares it with the token of each dispatch. The higher token wins, but the
//! instance of the lower one must be gone from the app before: its cached state may be older than what is stored.
//!
//! | instance | equal token | higher token | lower token |
//! |---|---|---|---|
//! | none | opens: go; else `NotActive` | same | (not remembered) |
//! | live | go | seal, delete, ask again | `Fenced` |
//! | closing (the owner's own `DELETE`) | wait | seal, wait | `Fenced` |
//! | sealed | delete, ask again | delete, ask again | `Fenced` |
//! | vacant (deleted for a higher token) | opens: go; else `NotActive` | same | `Fenced` |
//!
//! *Sealed* means that the instance's writes, reminders and timers are refused while turns in flight end and `DELETE`
//! is answered. Whatever casts doubt on an instance seals it: a higher token, a lapsed session, a superseded epoch, an
//! unanswered `DELETE`, or its name in the list that an earlier life of this process left. Only two things end the doubt:
//! an answer to `DELETE`, or proof that the app's process is gone ([`Guard::app_gone`]).
//!
//! Invariants:
//!
//! - A token below the partition's epoch floor or the cluster's recovery generation never passes.
//! - While the guard remembers an actor, no token passes that is below the highest it has seen for it.
//! - `DELETE` is asked for only for an instance that this app was given (some hosts crash on any other).
//! - Write numbers rise and are never used twice.
//! - An instance has one removal at a time.
//!
//! Absent on purpose: a memory of tokens whose instance was closed in order. A frame of such a token cannot come later:
//! the owner closes after its turns have ended, within one session, and frames of older sessions are refused before
//! they reach the guard ([`session`]).

mod instance;
pub mod session;
mod verdict;

#[cfg(test)]
mod guard_test;
#[cfg(test)]
mod model_test;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use callboard_types::{ActorKey, Epoch, FencingToken, PartitionId, WriteNumber};
use slab::Slab;
use smallvec::SmallVec;

use self::instance::{Flight, Instance, State};

pub use self::session::{Answers, Permit, SessionConfig, SessionId, Sessions};
pub use self::verdict::{
    Close, DeleteAnswer, Dispatch, GuardLimits, InFlight, Pass, Removal, RemovalId, SealReport, SealedActivation,
    SealedTurn, Verdict, WriteToken,
};

/// The order of tokens of one partition: recovery generation before epoch before activation.
type Floor = (u64, Epoch);

/// The instances of one app.
#[derive(Debug)]
pub struct Guard {
    limits: GuardLimits,
    /// Looked up by key, never iterated.
    index: HashMap<ActorKey, usize>,
    instances: Slab<Instance>,
    /// Sealed instances that nobody is removing.
    doubtful: BTreeSet<usize>,
    floors: BTreeMap<PartitionId, Floor>,
    /// The highest recovery generation seen anywhere.
    generation: u64,
    /// The last serial number of a pass or a removal.
    serial: u64,
    /// The last write number. One count for all instances, so that even a token that is opened twice has none twice.
    last_write: u64,
}

impl Guard {
    pub fn new(limits: GuardLimits) -> Self {
        Self {
            limits,
            index: HashMap::new(),
            instances: Slab::new(),
            doubtful: BTreeSet::new(),
            floors: BTreeMap::new(),
            generation: 0,
            serial: 0,
            last_write: 0,
        }
    }

    /// Actors whose instances an earlier life of this process may have left in the app.
    pub fn listed(&mut self, actors: impl IntoIterator<Item = ActorKey>) {
        for actor in actors {
            if !self.index.contains_key(&actor) {
                let at = self.insert(Instance::listed(actor));
                self.doubtful.insert(at);
            }
        }
    }

    /// Whether a dispatch may reach the app.
    pub fn open(&mut self, actor: &ActorKey, dispatch: Dispatch<'_>) -> Verdict {
        let token = dispatch.token;
        if self.is_below_floor(&token) {
            return Verdict::Fenced;
        }
        self.raise_floor(token.partition, (token.generation, token.epoch));
        let Some(&at) = self.index.get(actor) else {
            return self.open_newcomer(actor, dispatch);
        };
        let instance = &mut self.instances[at];
        if instance.highest.is_some_and(|highest| token.rank() < highest.rank()) {
            return Verdict::Fenced;
        }
        let same = instance.token == Some(token);
        instance.highest = Some(token);
        match instance.state {
            State::Live if same => self.go(at, dispatch),
            State::Live | State::Sealed => Verdict::Seal(self.remove_sealed(at)),
            State::Closing(_) if same => Verdict::Sealed,
            State::Closing(removal) => {
                instance.state = State::Removing(removal);
                Verdict::Sealed
            }
            State::Removing(_) => Verdict::Sealed,
            State::Vacant if dispatch.opens => {
                instance.occupy(token);
                self.go_first(at, dispatch)
            }
            State::Vacant => Verdict::NotActive,
        }
    }

    /// Whether a turn that has its pass may still be sent to the app. Asked immediately before the first byte is written:
    /// between the pass and then the instance may have been sealed, or the app restarted.
    pub fn holds(&self, actor: &ActorKey, pass: Pass) -> bool {
        self.index.get(actor).is_some_and(|&at| {
            let instance = &self.instances[at];
            instance.state == State::Live && instance.in_flight.iter().any(|flight| flight.serial == pass.serial)
        })
    }

    /// A dispatched turn has ended: the app's answer is complete, or its process is gone.
    pub fn ended(&mut self, actor: &ActorKey, pass: Pass) -> InFlight {
        let Some(at) = self.land(actor, pass) else { return InFlight::Gone };
        self.instances[at].given = true;
        match self.instances[at].in_flight.len() {
            0 => InFlight::Quiet,
            running => InFlight::Running(running),
        }
    }

    /// A turn that had its pass provably did not reach the app. If nothing else has, there is no instance: it is
    /// forgotten, and a removal of it that waits finds nothing to do.
    pub fn not_dispatched(&mut self, actor: &ActorKey, pass: Pass) -> InFlight {
        let Some(at) = self.land(actor, pass) else { return InFlight::Gone };
        let instance = &self.instances[at];
        match instance.in_flight.len() {
            0 if instance.given => InFlight::Quiet,
            0 => {
                self.vanish(at);
                InFlight::Gone
            }
            running => InFlight::Running(running),
        }
    }

    /// Whether the removal still has a `DELETE` to send.
    pub fn still_removing(&self, actor: &ActorKey, removal: RemovalId) -> bool {
        self.index.get(actor).is_some_and(|&at| self.instances[at].state.removal() == Some(removal))
    }

    /// A removal is over. Without an answer the instance stays sealed, and the next dispatch is asked to remove it again.
    pub fn removed(&mut self, actor: &ActorKey, removal: RemovalId, answer: DeleteAnswer) {
        let Some(&at) = self.index.get(actor) else { return };
        if self.instances[at].state.removal() != Some(removal) {
            return;
        }
        match answer {
            DeleteAnswer::Answered => self.vanish(at),
            DeleteAnswer::NoAnswer => {
                self.instances[at].state = State::Sealed;
                self.doubtful.insert(at);
            }
        }
    }

    /// The owner ends an activation.
    pub fn close(&mut self, actor: &ActorKey, token: FencingToken) -> Close {
        if self.is_below_floor(&token) {
            return Close::Fenced;
        }
        let Some(&at) = self.index.get(actor) else { return Close::NotActive };
        let instance = &mut self.instances[at];
        if instance.highest.is_some_and(|highest| token.rank() < highest.rank()) {
            return Close::Fenced;
        }
        let same = instance.token == Some(token);
        match instance.state {
            State::Live if same => {
                let removal = self.removal_of(at);
                self.instances[at].state = State::Closing(removal.id);
                Close::Delete(removal)
            }
            State::Sealed if same => Close::Delete(self.remove_sealed(at)),
            // The owner's activation was never opened here; an older instance is not its business.
            State::Live | State::Sealed | State::Vacant => Close::NotActive,
            State::Closing(_) | State::Removing(_) => Close::Sealed,
        }
    }

    /// The app's process is provably gone, and its instances with it: all are forgotten without `DELETE`. Returns how
    /// many. A failed health check or a reset connection is no proof.
    pub fn app_gone(&mut self) -> usize {
        let gone = self.instances.len();
        self.index.clear();
        self.instances.clear();
        self.doubtful.clear();
        gone
    }

    /// Token and number for the next write of the actor's instance. The writes of one actor must be proposed one after
    /// the other in the order of their numbers: an older number after a newer one is refused by the partition.
    pub fn token_for_write(&mut self, actor: &ActorKey) -> WriteToken {
        let Some(&at) = self.index.get(actor) else { return WriteToken::Missing };
        match self.counting_token(at) {
            Some(token) => {
                self.last_write += 1;
                WriteToken::Token(token, WriteNumber(self.last_write))
            }
            None if self.instances[at].state == State::Vacant => WriteToken::Missing,
            None => WriteToken::Sealed,
        }
    }

    /// The token under which the instance lives, if its calls count: for its reminders and timers.
    pub fn current_token(&self, actor: &ActorKey) -> Option<FencingToken> {
        self.index.get(actor).and_then(|&at| self.counting_token(at))
    }

    /// Whether there may be an instance of the actor in the app.
    pub fn knows(&self, actor: &ActorKey) -> bool {
        self.index.contains_key(actor)
    }

    /// How many turns of the actor's instance have not ended.
    pub fn in_flight(&self, actor: &ActorKey) -> usize {
        self.index.get(actor).map_or(0, |&at| self.instances[at].in_flight.len())
    }

    /// Whether no turn of any instance is in flight.
    pub fn is_quiet(&self) -> bool {
        self.instances.iter().all(|(_, instance)| instance.in_flight.is_empty())
    }

    /// How many instances it knows.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// A claim of the partition was applied: tokens of older epochs are refused from here on. Answers with what the app
    /// still has of them.
    pub fn seal(&mut self, partition: PartitionId, generation: u64, epoch: Epoch) -> SealReport {
        self.raise_floor(partition, (generation, epoch));
        let mut report = SealReport::default();
        for (_, instance) in &self.instances {
            let older = instance.token.is_none_or(|token| token.partition == partition && self.is_below_floor(&token));
            if !older || instance.state == State::Vacant {
                continue;
            }
            let actor = &instance.actor;
            report.activations.push(SealedActivation {
                actor: actor.clone(),
                token: instance.token,
                idle_deadline: instance.idle_deadline,
            });
            report.running.extend(
                instance
                    .in_flight
                    .iter()
                    .map(|flight| SealedTurn { actor: actor.clone(), chain: flight.chain.clone() }),
            );
        }
        report
    }

    /// The partition changed its owner unplanned: instances of older epochs are in doubt. Returns how many were sealed.
    pub fn supersede(&mut self, partition: PartitionId) -> usize {
        let floor = self.floors.get(&partition).copied();
        self.doubt(|instance| {
            instance.token.is_some_and(|token| {
                token.partition == partition && floor.is_some_and(|floor| (token.generation, token.epoch) < floor)
            })
        })
    }

    /// A session lapsed, for one partition or (`None`) altogether: what it opened is in doubt. Returns how many were
    /// sealed.
    pub fn mark_lapsed(&mut self, session: SessionId, partition: Option<PartitionId>) -> usize {
        self.doubt(|instance| {
            instance.session == Some(session)
                && partition.is_none_or(|partition| {
                    instance.token.or(instance.highest).is_some_and(|t| t.partition == partition)
                })
        })
    }

    /// After a planned change of owner: an instance at rest lives on under a token of the new epoch. False: it does not,
    /// and the owner must open another activation.
    pub fn retoken(
        &mut self,
        actor: &ActorKey,
        from: FencingToken,
        to: FencingToken,
        session: Option<SessionId>,
    ) -> bool {
        if self.is_below_floor(&to) || to.rank() <= from.rank() {
            return false;
        }
        let Some(&at) = self.index.get(actor) else { return false };
        let instance = &mut self.instances[at];
        if instance.state != State::Live || instance.token != Some(from) || !instance.in_flight.is_empty() {
            return false;
        }
        instance.occupy(to);
        instance.session = session;
        self.raise_floor(to.partition, (to.generation, to.epoch));
        true
    }

    /// At most `max` actors with an instance in doubt that nobody is removing: to be removed in the background.
    pub fn must_delete(&self, max: usize) -> Vec<ActorKey> {
        self.doubtful.iter().take(max).map(|&at| self.instances[at].actor.clone()).collect()
    }

    /// Removes an instance in doubt without a dispatch that waits for it. `None`: there is none, or somebody does.
    pub fn begin_removal(&mut self, actor: &ActorKey) -> Option<Removal> {
        let &at = self.index.get(actor)?;
        if self.instances[at].state != State::Sealed {
            return None;
        }
        Some(self.remove_sealed(at))
    }

    fn open_newcomer(&mut self, actor: &ActorKey, dispatch: Dispatch<'_>) -> Verdict {
        if !dispatch.opens {
            return Verdict::NotActive;
        }
        if self.instances.len() >= self.limits.activations {
            return Verdict::Full;
        }
        let at = self.insert(Instance::live(actor.clone(), dispatch.token));
        self.go_first(at, dispatch)
    }

    fn insert(&mut self, instance: Instance) -> usize {
        let actor = instance.actor.clone();
        let at = self.instances.insert(instance);
        self.index.insert(actor, at);
        at
    }

    fn go_first(&mut self, at: usize, dispatch: Dispatch<'_>) -> Verdict {
        Verdict::Go { pass: self.pass(at, dispatch), record: true }
    }

    fn go(&mut self, at: usize, dispatch: Dispatch<'_>) -> Verdict {
        Verdict::Go { pass: self.pass(at, dispatch), record: false }
    }

    fn pass(&mut self, at: usize, dispatch: Dispatch<'_>) -> Pass {
        self.serial += 1;
        let instance = &mut self.instances[at];
        instance.session = dispatch.session;
        instance.idle_deadline = dispatch.idle_deadline;
        instance.in_flight.push(Flight { serial: self.serial, chain: dispatch.chain.cloned() });
        Pass { serial: self.serial }
    }

    /// The token of an instance whose calls count.
    fn counting_token(&self, at: usize) -> Option<FencingToken> {
        let instance = &self.instances[at];
        match instance.state {
            State::Live | State::Closing(_) => instance.token.filter(|token| !self.is_below_floor(token)),
            State::Sealed | State::Removing(_) | State::Vacant => None,
        }
    }

    /// Takes a turn out of its instance's list.
    fn land(&mut self, actor: &ActorKey, pass: Pass) -> Option<usize> {
        let &at = self.index.get(actor)?;
        let flights = &mut self.instances[at].in_flight;
        let flight = flights.iter().position(|flight| flight.serial == pass.serial)?;
        flights.remove(flight);
        Some(at)
    }

    fn removal_of(&mut self, at: usize) -> Removal {
        self.serial += 1;
        let instance = &self.instances[at];
        let id = RemovalId { serial: self.serial };
        Removal { id, previous: instance.token, in_flight: instance.in_flight.len() }
    }

    fn remove_sealed(&mut self, at: usize) -> Removal {
        let removal = self.removal_of(at);
        self.doubtful.remove(&at);
        self.instances[at].state = State::Removing(removal.id);
        removal
    }

    /// The instance is not in the app. If a higher token waits, the place stays taken so that nothing lower slips in
    /// before it.
    fn vanish(&mut self, at: usize) {
        if self.instances[at].is_waited_for() {
            self.instances[at].vacate();
        } else {
            self.forget(at);
        }
    }

    fn forget(&mut self, at: usize) {
        let gone = self.instances.remove(at);
        self.index.remove(&gone.actor);
        self.doubtful.remove(&at);
    }

    /// Seals what `selects` names; a vacant place of it is given up.
    fn doubt(&mut self, selects: impl Fn(&Instance) -> bool) -> usize {
        let selected: SmallVec<[usize; 16]> =
            self.instances.iter().filter(|(_, instance)| selects(instance)).map(|(at, _)| at).collect();
        let mut sealed = 0;
        for at in selected {
            match self.instances[at].state {
                State::Live => {
                    self.instances[at].state = State::Sealed;
                    self.doubtful.insert(at);
                    sealed += 1;
                }
                State::Closing(removal) => {
                    self.instances[at].state = State::Removing(removal);
                    sealed += 1;
                }
                State::Sealed | State::Removing(_) => {}
                State::Vacant => self.forget(at),
            }
        }
        sealed
    }

    fn is_below_floor(&self, token: &FencingToken) -> bool {
        token.generation < self.generation
            || self.floors.get(&token.partition).is_some_and(|&floor| (token.generation, token.epoch) < floor)
    }

    fn raise_floor(&mut self, partition: PartitionId, floor: Floor) {
        self.generation = self.generation.max(floor.0);
        let known = self.floors.entry(partition).or_insert(floor);
        *known = floor.max(*known);
    }
}
