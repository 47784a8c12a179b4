//! The mailboxes against what a watcher can know: random orders of every event, and a model that is told only what was
//! asked and what was answered. It holds plain lists, searches them from end to end, and panics when an answer is one
//! that the rules do not allow; after each event it also panics when an answer that the rules demand is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_types::{ActorKey, ClusterId, Epoch, PartitionId};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const ACTORS: usize = 4;
const LIMITS: Limits = Limits { activations: 3, mailbox: 4, waiting: 7 };
const DEPTH: u32 = 2;

/// Two actors of a re-entrant type, one without reentrancy, one that is idle as soon as it is at rest.
fn config(actor: usize) -> TypeConfig {
    let (micros, enabled) = [(50, true), (50, true), (90, false), (0, true)][actor];
    TypeConfig { idle_timeout: Duration::from_micros(micros), reentrancy: Reentrancy { enabled, max_depth: DEPTH } }
}

#[derive(Debug, Clone)]
enum Event {
    Admit { actor: usize, kind: RequestKind, chain: Option<usize> },
    Finish { which: Index, end: TurnEnd },
    FinishAgain { which: Index },
    Reopen { which: Index, why: Reopen },
    Cancel { which: Index },
    Pass { micros: u64 },
    Expire { max: usize },
    Deactivate { actor: usize },
    DeactivateAll,
    WriteStarted { actor: usize },
    WriteDoubtful { actor: usize },
    WriteResolved { actor: usize, outcome: WriteOutcome },
    Hold { actor: usize, chain: Option<usize> },
    Release { actor: usize },
    Quiesce,
    Resume,
    TakeParked,
}

fn event() -> impl Strategy<Value = Event> {
    let actor = 0..ACTORS;
    let kind = prop_oneof![
        6 => Just(RequestKind::Call),
        1 => Just(RequestKind::Reminder),
        1 => Just(RequestKind::Timer),
        1 => Just(RequestKind::Exclusive),
    ];
    let end = prop_oneof![6 => Just(TurnEnd::Done), 1 => Just(TurnEnd::NotDispatched), 1 => Just(TurnEnd::Lost)];
    let why = prop_oneof![Just(Reopen::HostRefused), Just(Reopen::Cut)];
    let outcome = prop_oneof![
        4 => Just(WriteOutcome::Definite), 1 => Just(WriteOutcome::Unknown), 1 => Just(WriteOutcome::Fenced)
    ];
    let chain = || proptest::option::weighted(0.7, 0..3_usize);
    prop_oneof![
        30 => (actor.clone(), kind, chain()).prop_map(|(actor, kind, chain)| Event::Admit { actor, kind, chain }),
        24 => (any::<Index>(), end).prop_map(|(which, end)| Event::Finish { which, end }),
        2 => any::<Index>().prop_map(|which| Event::FinishAgain { which }),
        4 => (any::<Index>(), why).prop_map(|(which, why)| Event::Reopen { which, why }),
        6 => any::<Index>().prop_map(|which| Event::Cancel { which }),
        4 => (1..60_u64).prop_map(|micros| Event::Pass { micros }),
        4 => (1..4_usize).prop_map(|max| Event::Expire { max }),
        2 => actor.clone().prop_map(|actor| Event::Deactivate { actor }),
        1 => Just(Event::DeactivateAll),
        4 => actor.clone().prop_map(|actor| Event::WriteStarted { actor }),
        1 => actor.clone().prop_map(|actor| Event::WriteDoubtful { actor }),
        4 => (actor.clone(), outcome).prop_map(|(actor, outcome)| Event::WriteResolved { actor, outcome }),
        1 => (actor.clone(), chain()).prop_map(|(actor, chain)| Event::Hold { actor, chain }),
        2 => actor.prop_map(|actor| Event::Release { actor }),
        1 => Just(Event::Quiesce),
        2 => Just(Event::Resume),
        1 => Just(Event::TakeParked),
    ]
}

/// Where a call is. From `Waiting` and `Running` it may move on; `Over` is for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waiting,
    Running,
    Over,
}

#[derive(Debug, Clone)]
struct Run {
    turn: TurnId,
    call: Option<u64>,
    nested: bool,
}

#[derive(Debug, Clone)]
struct Line {
    kind: TurnKind,
    chain: Option<ReentrancyId>,
    calls: Vec<u64>,
}

#[derive(Debug, Default)]
struct Watched {
    running: Vec<Run>,
    /// Of the running turn.
    kind: Option<TurnKind>,
    chain: Option<ReentrancyId>,
    line: Vec<Line>,
    number: Option<u64>,
    opened: bool,
    /// The activation must end; `Some(true)`: and is fenced.
    doomed: Option<bool>,
    last_start: u64,
    unresolved: usize,
    held: Option<Option<ReentrancyId>>,
}

impl Watched {
    fn may_start(&self) -> bool {
        self.running.is_empty() && self.unresolved == 0 && self.held.is_none()
    }

    fn at_rest(&self) -> bool {
        self.may_start() && self.line.is_empty()
    }

    fn waiting(&self) -> usize {
        self.line.iter().map(|place| place.calls.len()).sum()
    }

    fn exists(&self) -> bool {
        !self.at_rest() || self.number.is_some()
    }

    fn doom(&mut self, fenced: bool) {
        if self.number.is_some() {
            self.doomed = Some(fenced || self.doomed == Some(true));
        }
    }

    fn end_life(&mut self) {
        self.number = None;
        self.opened = false;
        self.doomed = None;
    }
}

struct World {
    table: Mailboxes,
    keys: Vec<ActorKey>,
    actors: Vec<Watched>,
    fates: BTreeMap<u64, (usize, Fate)>,
    ended: Vec<TurnId>,
    now: u64,
    quiesced: bool,
    drained: bool,
    highest: u64,
    fresh: u64,
}

impl World {
    fn new() -> Self {
        let base = EpochToken { cluster: ClusterId(1), generation: 0, partition: PartitionId(0), epoch: Epoch(1) };
        Self {
            table: Mailboxes::new(base, LIMITS),
            keys: (0..ACTORS)
                .map(|actor| ActorKey::new("n", format!("type{}", actor / 2), format!("{actor}")))
                .collect(),
            actors: (0..ACTORS).map(|_| Watched::default()).collect(),
            fates: BTreeMap::new(),
            ended: Vec::new(),
            now: 0,
            quiesced: false,
            drained: false,
            highest: 0,
            fresh: 0,
        }
    }

    fn time(&self) -> Instant {
        Instant(self.now)
    }

    fn existing(&self) -> usize {
        self.actors.iter().filter(|actor| actor.exists()).count()
    }

    fn waiting(&self) -> usize {
        self.actors.iter().map(Watched::waiting).sum()
    }

    /// Every running entry, with its actor.
    fn runs(&self) -> Vec<(usize, Run)> {
        let of =
            |(at, actor): (usize, &Watched)| actor.running.iter().map(move |run| (at, run.clone())).collect::<Vec<_>>();
        self.actors.iter().enumerate().flat_map(of).collect()
    }

    fn fate(&mut self, call: u64, from: Option<Fate>, to: Fate) {
        let (actor, known) =
            self.fates.get(&call).copied().map_or((None, None), |(actor, fate)| (Some(actor), Some(fate)));
        assert_eq!(known, from, "call {call} goes to {to:?}");
        self.fates.insert(call, (actor.expect("known"), to));
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Admit { actor, kind, chain } => self.admit(actor, kind, chain),
            Event::Finish { which, end } => self.pick_run(which, |world, actor, run| world.finish(actor, &run, end)),
            Event::FinishAgain { which } => {
                if !self.ended.is_empty() {
                    let turn = *which.get(&self.ended);
                    assert!(self.table.finish(self.time(), turn, TurnEnd::Lost).is_empty());
                }
            }
            Event::Reopen { which, why } => self.pick_run(which, |world, actor, run| world.reopen(actor, &run, why)),
            Event::Cancel { which } => self.cancel(which),
            Event::Pass { micros } => self.now += micros,
            Event::Expire { max } => self.expire(max),
            Event::Deactivate { actor } => {
                let key = self.keys[actor].clone();
                self.ask_to_end(actor);
                let effects = self.table.deactivate(self.time(), &key, EndReason::Requested);
                self.watch(effects);
            }
            Event::DeactivateAll => {
                (0..ACTORS).for_each(|actor| self.ask_to_end(actor));
                let begun = self.table.deactivate_all(self.time(), EndReason::Withdrawn, |_, _| true);
                self.watch(begun.into_iter().map(Effect::Deactivate));
            }
            Event::WriteStarted { actor } => {
                let known = self.actors[actor].exists() || self.existing() < LIMITS.activations;
                let answer = self.table.write_started(&self.keys[actor]);
                assert_eq!(answer, if known { Ok(()) } else { Err(Refusal::TooManyActivations) });
                self.actors[actor].unresolved += usize::from(known);
            }
            Event::WriteDoubtful { actor } => {
                self.table.write_doubtful(&self.keys[actor]);
                if self.actors[actor].unresolved > 0 {
                    self.actors[actor].doom(false);
                }
            }
            Event::WriteResolved { actor, outcome } => {
                let watched = &mut self.actors[actor];
                if watched.unresolved > 0 {
                    watched.unresolved -= 1;
                    match outcome {
                        WriteOutcome::Definite => {}
                        WriteOutcome::Unknown => watched.doom(false),
                        WriteOutcome::Fenced => watched.doom(true),
                    }
                }
                let effects = self.table.write_resolved(Instant(self.now), &self.keys[actor], outcome);
                self.watch(effects);
            }
            Event::Hold { actor, chain } => {
                let known = self.actors[actor].exists() || self.existing() < LIMITS.activations;
                let chain = chain.map(chain_name);
                assert_eq!(self.table.hold(&self.keys[actor], chain.clone()).is_ok(), known);
                if known {
                    self.actors[actor].held = Some(chain);
                }
            }
            Event::Release { actor } => {
                self.actors[actor].held = None;
                let effects = self.table.release(self.time(), &self.keys[actor]);
                self.watch(effects);
            }
            Event::Quiesce => {
                let drained = self.runs().is_empty() && self.actors.iter().all(|actor| actor.unresolved == 0);
                assert_eq!(self.table.quiesce() == Drain::Drained, drained);
                self.drained = if self.quiesced { self.drained } else { drained };
                self.quiesced = true;
            }
            Event::Resume => {
                self.quiesced = false;
                let effects = self.table.resume(self.time());
                self.watch(effects);
            }
            Event::TakeParked => {
                let mut expected: Vec<u64> = Vec::new();
                for actor in &mut self.actors {
                    expected.extend(actor.line.drain(..).flat_map(|place| place.calls));
                }
                let parked: Vec<u64> =
                    self.table.take_parked(self.time()).iter().map(|waiting| waiting.call.0).collect();
                let mut sorted = parked.clone();
                sorted.sort_unstable();
                expected.sort_unstable();
                assert_eq!(sorted, expected);
                parked.into_iter().for_each(|call| self.fate(call, Some(Fate::Waiting), Fate::Over));
            }
        }
        self.check();
    }

    fn pick_run(&mut self, which: Index, verb: impl FnOnce(&mut Self, usize, Run)) {
        let runs = self.runs();
        if !runs.is_empty() {
            let (actor, run) = which.get(&runs).clone();
            verb(self, actor, run);
        }
    }

    fn admit(&mut self, actor: usize, kind: RequestKind, chain: Option<usize>) {
        let call = self.fates.len() as u64;
        let given = chain.map(chain_name);
        let config = config(actor);
        let expected =
            self.expect(actor, kind, given.as_ref().filter(|_| kind == RequestKind::Call && config.reentrancy.enabled));
        let request = Request { actor: &self.keys[actor], call: CallId(call), kind, chain: given.as_ref(), config };
        let mut made = None;
        let next = self.fresh;
        let admission = self.table.admit(Instant(self.now), request, || {
            let id = ReentrancyId::from(format!("fresh-{next}"));
            made = Some(id.clone());
            id
        });
        self.fresh += 1;
        let reentrant = kind == RequestKind::Call && config.reentrancy.enabled;
        let chain = if reentrant { given.or(made.clone()) } else { None };
        assert!(reentrant || made.is_none());
        match (admission, expected) {
            (Admission::Refused(refusal), Err(expected)) => {
                assert_eq!(refusal, expected);
                assert_eq!(made, None, "no id is made for a refused call");
                self.fates.insert(call, (actor, Fate::Over));
            }
            (Admission::Start(start), Ok(Expected::Start { nested })) => {
                self.fates.insert(call, (actor, Fate::Running));
                assert_eq!((start.kind, &start.chain), (kind.into(), &chain));
                self.started(actor, Some(call), &start, nested);
            }
            (Admission::Queued { position }, Ok(Expected::Wait { joins })) => {
                self.fates.insert(call, (actor, Fate::Waiting));
                let line = &mut self.actors[actor].line;
                let at = joins.unwrap_or(line.len());
                assert_eq!(position, line.iter().take(at + 1).map(|place| place.calls.len()).sum::<usize>());
                match joins {
                    Some(at) => line[at].calls.push(call),
                    None => line.push(Line { kind: kind.into(), chain, calls: vec![call] }),
                }
            }
            (admission @ (Admission::Refused(_) | Admission::Start(_) | Admission::Queued { .. }), expected) => {
                panic!("call {call}: {admission:?}, but {expected:?}")
            }
        }
    }

    /// What the rules say of a request.
    fn expect(&self, actor: usize, kind: RequestKind, chain: Option<&ReentrancyId>) -> Result<Expected, Refusal> {
        let watched = &self.actors[actor];
        let room = |joins| {
            if watched.waiting() >= LIMITS.mailbox {
                Err(Refusal::MailboxFull)
            } else if self.waiting() >= LIMITS.waiting {
                Err(Refusal::TooManyWaiting)
            } else {
                Ok(Expected::Wait { joins })
            }
        };
        if let Some(chain) = chain {
            if watched.held.as_ref().is_some_and(|held| held.as_ref() == Some(chain)) {
                return Err(Refusal::Superseded);
            }
            if !watched.running.is_empty() && watched.chain.as_ref() == Some(chain) {
                return match watched.doomed {
                    Some(true) => Err(Refusal::Superseded),
                    Some(false) | None if watched.running.len() >= DEPTH as usize => Err(Refusal::StackDepth),
                    Some(false) | None => Ok(Expected::Start { nested: true }),
                };
            }
            if let Some(at) = watched.line.iter().position(|place| place.chain.as_ref() == Some(chain)) {
                let deep = watched.line[at].calls.len() >= DEPTH as usize;
                return if deep { Err(Refusal::StackDepth) } else { room(Some(at)) };
            }
        }
        if !watched.exists() && self.existing() >= LIMITS.activations {
            return Err(Refusal::TooManyActivations);
        }
        if watched.at_rest() && !self.quiesced {
            return Ok(Expected::Start { nested: false });
        }
        let only_deactivation = watched.kind.is_none_or(|kind| kind == TurnKind::Deactivate);
        let settling =
            only_deactivation && watched.unresolved == 0 && watched.held.is_none() && watched.line.is_empty();
        if kind == RequestKind::Exclusive && !settling {
            return Err(Refusal::TurnRunning);
        }
        room(None)
    }

    /// An entry has started: nobody else may be running but entries of its own turn.
    fn started(&mut self, actor: usize, call: Option<u64>, start: &Start, nested: bool) {
        let (now, highest) = (self.now, self.highest);
        let watched = &mut self.actors[actor];
        if watched.running.is_empty() {
            assert!(watched.may_start() && !nested);
            watched.kind = Some(start.kind);
            watched.chain = start.chain.clone();
        } else {
            assert!(start.chain.is_some() && start.chain == watched.chain, "turns of one actor overlap");
            assert!(watched.running.len() < DEPTH as usize);
        }
        match watched.number {
            None => {
                assert!(start.activation.0 > highest, "numbers rise");
                assert!(start.opens);
                self.highest = start.activation.0;
                watched.number = Some(start.activation.0);
            }
            Some(number) => {
                assert_eq!(start.activation.0, number);
                assert_eq!(start.opens, !watched.opened);
            }
        }
        watched.last_start = now;
        watched.running.push(Run { turn: start.turn, call, nested });
    }

    fn finish(&mut self, actor: usize, run: &Run, end: TurnEnd) {
        self.left(actor, run);
        if let Some(call) = run.call {
            self.fate(call, Some(Fate::Running), Fate::Over);
        }
        self.after(actor, end);
        let effects = self.table.finish(self.time(), run.turn, end);
        self.watch(effects);
    }

    /// What the end of an entry does to the activation.
    fn after(&mut self, actor: usize, end: TurnEnd) {
        let watched = &mut self.actors[actor];
        let over = watched.running.is_empty();
        match (watched.kind.expect("it ran"), end) {
            (TurnKind::Deactivate, _) => watched.end_life(),
            (TurnKind::Exclusive, TurnEnd::Done) => watched.end_life(),
            (TurnKind::Exclusive, TurnEnd::Lost) => watched.doom(false),
            (_, TurnEnd::NotDispatched) => {}
            (_, TurnEnd::Done) => watched.opened = true,
            (_, TurnEnd::Lost) => {
                watched.opened = true;
                watched.doom(false);
            }
        }
        if over {
            watched.kind = None;
            watched.chain = None;
            if !watched.opened {
                watched.end_life();
            }
        }
    }

    fn left(&mut self, actor: usize, run: &Run) {
        self.actors[actor].running.retain(|other| other.turn != run.turn);
        self.ended.push(run.turn);
    }

    fn reopen(&mut self, actor: usize, run: &Run, why: Reopen) {
        let Some(call) = run.call else { return };
        self.left(actor, run);
        let watched = &mut self.actors[actor];
        let alone = watched.running.is_empty();
        let (kind, chain) = (watched.kind.expect("it ran"), watched.chain.clone());
        let again = match why {
            Reopen::HostRefused => {
                watched.doom(true);
                watched.opened &= !alone;
                alone
            }
            Reopen::Cut => {
                watched.opened = true;
                watched.doom(false);
                !run.nested
            }
        };
        if alone {
            (watched.kind, watched.chain) = (None, None);
        }
        if again {
            match watched.line.first_mut().filter(|front| chain.is_some() && front.chain == chain) {
                Some(front) => front.calls.push(call),
                None => watched.line.insert(0, Line { kind, chain, calls: vec![call] }),
            }
            self.fate(call, Some(Fate::Running), Fate::Waiting);
        } else {
            self.fate(call, Some(Fate::Running), Fate::Over);
        }
        let (admission, effects) = self.table.reopen(self.time(), run.turn, why);
        self.settle(actor);
        match admission {
            Admission::Start(start) => {
                assert!(again);
                self.granted(actor, call, &start);
            }
            Admission::Queued { position } => assert!(again && position == 0),
            Admission::Refused(refusal) => assert!(!again && refusal == Refusal::Superseded),
        }
        self.watch(effects);
    }

    fn cancel(&mut self, which: Index) {
        // Any call that is not over may leave: one that runs stands for one that was granted and not dispatched.
        let candidates: Vec<(u64, usize, Fate)> = self
            .fates
            .iter()
            .filter(|(_, (_, fate))| *fate != Fate::Over)
            .map(|(&call, &(at, fate))| (call, at, fate))
            .collect();
        if candidates.is_empty() {
            return;
        }
        let (call, actor, fate) = *which.get(&candidates);
        if fate == Fate::Waiting {
            let line = &mut self.actors[actor].line;
            line.iter_mut().for_each(|place| place.calls.retain(|&other| other != call));
            line.retain(|place| !place.calls.is_empty());
        } else {
            let run = self.actors[actor].running.iter().find(|run| run.call == Some(call)).expect("it runs").clone();
            self.left(actor, &run);
            self.after(actor, TurnEnd::NotDispatched);
        }
        self.fate(call, Some(fate), Fate::Over);
        let effects = self.table.cancel(self.time(), &self.keys[actor], CallId(call));
        self.watch(effects);
    }

    fn ask_to_end(&mut self, actor: usize) {
        let watched = &mut self.actors[actor];
        if watched.kind != Some(TurnKind::Deactivate) {
            watched.doom(false);
        }
    }

    fn idle_at(&self, actor: usize) -> Option<u64> {
        let watched = &self.actors[actor];
        let at = Instant(watched.last_start).saturating_add(config(actor).idle_timeout);
        (watched.number.is_some() && watched.at_rest()).then_some(at.0)
    }

    fn expire(&mut self, max: usize) {
        let due = if self.quiesced {
            0
        } else {
            (0..ACTORS).filter(|&at| self.idle_at(at).is_some_and(|at| at <= self.now)).count()
        };
        let begun = self.table.expire(self.time(), max);
        assert_eq!(begun.len(), due.min(max));
        for deactivation in begun {
            let actor = self.keys.iter().position(|key| *key == deactivation.actor).expect("known");
            assert!(self.idle_at(actor).is_some_and(|at| at <= self.now), "idle only at rest and when due");
            assert_eq!(deactivation.reason, EndReason::Idle);
            self.actors[actor].doom(false);
            self.watch([Effect::Deactivate(deactivation)]);
        }
    }

    /// An unopened activation that must end does so without a trace.
    fn settle(&mut self, actor: usize) {
        let watched = &mut self.actors[actor];
        if watched.may_start() && watched.doomed.is_some() && !watched.opened {
            watched.end_life();
        }
    }

    /// A waiting call has its turn: it must be of the front place.
    fn granted(&mut self, actor: usize, call: u64, start: &Start) {
        self.fate(call, Some(Fate::Waiting), Fate::Running);
        assert!(!self.quiesced);
        let front = &mut self.actors[actor].line[0];
        let at = front.calls.iter().position(|&waiting| waiting == call).expect("the first in line starts first");
        front.calls.remove(at);
        assert_eq!((&front.chain, front.kind), (&start.chain, start.kind));
        if front.calls.is_empty() {
            self.actors[actor].line.remove(0);
        }
        self.started(actor, Some(call), start, false);
    }

    fn watch(&mut self, effects: impl IntoIterator<Item = Effect>) {
        (0..ACTORS).for_each(|actor| self.settle(actor));
        for effect in effects {
            match effect {
                Effect::Start { call, start } => self.granted(self.fates[&call.0].0, call.0, &start),
                Effect::Deactivate(deactivation) => {
                    let actor = self.keys.iter().position(|key| *key == deactivation.actor).expect("known");
                    let watched = &mut self.actors[actor];
                    assert!(watched.may_start() && watched.opened && watched.doomed.is_some());
                    assert_eq!(watched.number, Some(deactivation.activation.0));
                    watched.kind = Some(TurnKind::Deactivate);
                    watched.running.push(Run { turn: deactivation.turn, call: None, nested: false });
                }
                Effect::Drained => {
                    assert!(self.quiesced && !self.drained, "drained is said once, when it is so");
                    self.drained = true;
                }
            }
        }
    }

    /// What must hold after every event: nothing that may go on stands still, and the table's numbers are the model's.
    fn check(&self) {
        for (at, watched) in self.actors.iter().enumerate() {
            if watched.may_start() {
                assert_eq!(watched.doomed, None, "actor {at}: a doomed activation at rest ends at once");
                assert!(self.quiesced || watched.line.is_empty(), "actor {at}: a wake-up was lost");
            }
            if !watched.running.is_empty() && watched.chain.is_some() {
                let left_behind = watched.line.iter().any(|place| place.chain == watched.chain);
                assert!(!left_behind || watched.doomed.is_some(), "actor {at}: a member of the turn still waits");
            }
            assert_eq!(self.table.queue_depth(&self.keys[at]), watched.waiting());
            assert_eq!(self.table.activation_of(&self.keys[at]).map(|n| n.0), watched.number);
            if let (false, Some(idle_at)) = (self.quiesced, self.idle_at(at)) {
                assert!(
                    self.table.next_idle_deadline().is_some_and(|next| next.0 <= idle_at),
                    "actor {at} is idle unseen"
                );
            }
        }
        let counts = Counts {
            activations: self.actors.iter().filter(|actor| actor.number.is_some()).count(),
            running: self.runs().len(),
            waiting: self.waiting(),
            unresolved: self.actors.iter().map(|actor| actor.unresolved).sum(),
        };
        assert_eq!(self.table.counts(), counts);
        assert_eq!(self.table.active_counts().iter().map(|(_, count)| count).sum::<usize>(), counts.activations);
        assert_eq!(self.table.running().count(), counts.running);
        assert_eq!(
            self.table.slots.len(),
            self.existing(),
            "a slot exists exactly as long as there is something to know"
        );
        assert_eq!(self.table.index.len(), self.existing());
        if self.quiesced && counts.is_drained() {
            assert!(self.drained, "drained was not said");
        }
    }

    /// Faults end; everything that was admitted must come to an end, and nothing must stay behind.
    fn heal(&mut self) {
        self.apply(&Event::Resume);
        for actor in 0..ACTORS {
            self.apply(&Event::Release { actor });
            while self.actors[actor].unresolved > 0 {
                self.apply(&Event::WriteResolved { actor, outcome: WriteOutcome::Definite });
            }
        }
        self.run_out();
        assert!(self.fates.values().all(|(_, fate)| *fate == Fate::Over), "a call has no end: {:?}", self.fates);
        self.now += 1_000;
        self.apply(&Event::Expire { max: ACTORS });
        self.run_out();
        assert_eq!(self.table.slots.len(), 0);
        assert_eq!(self.table.next_idle_deadline(), None);
    }

    fn run_out(&mut self) {
        for _ in 0..1_000 {
            let Some((actor, run)) = self.runs().pop() else { return };
            self.finish(actor, &run, TurnEnd::Done);
            self.check();
        }
        panic!("turns never end");
    }
}

#[derive(Debug)]
enum Expected {
    Start { nested: bool },
    Wait { joins: Option<usize> },
}

fn chain_name(chain: usize) -> ReentrancyId {
    ReentrancyId::from(["x", "y", "z"][chain])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_turns_apart_in_order_and_loses_no_call(events in prop::collection::vec(event(), 1..250)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        world.heal();
    }

    #[test]
    fn an_epoch_that_ends_at_any_moment_hands_back_every_waiting_call(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        let (waiting, running) = (world.waiting(), world.runs());
        let end = world.table.end_all();
        prop_assert_eq!((end.waiting.len(), end.running.len()), (waiting, running.len()));
        for waiting in end.waiting {
            world.fate(waiting.call.0, Some(Fate::Waiting), Fate::Over);
        }
        for (_, run) in running {
            prop_assert!(world.table.finish(Instant(world.now), run.turn, TurnEnd::Done).is_empty());
        }
        prop_assert_eq!(world.table.counts(), Counts::default());
    }
}
