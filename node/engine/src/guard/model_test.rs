//! The guard against an app that remembers what it was given: random dispatches of several owners, some long superseded,
//! lapses, deletes that are answered or not, and restarts.

use callboard_types::{Activation, ClusterId, NodeId};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::Instant;

const ACTORS: usize = 3;

#[derive(Debug, Clone)]
enum Event {
    Open { actor: usize, epoch: u64, activation: u64, opens: bool, session: usize },
    Deliver { which: Index },
    End { which: Index },
    Close { actor: usize, epoch: u64, activation: u64 },
    Carry { which: Index, answer: DeleteAnswer },
    Background,
    Write { actor: usize },
    Lapse { session: usize },
    Claim { epoch: u64, superseded: bool },
    AppGone,
}

fn event() -> impl Strategy<Value = Event> {
    let answer = prop_oneof![3 => Just(DeleteAnswer::Answered), 1 => Just(DeleteAnswer::NoAnswer)];
    let actor = 0..ACTORS;
    prop_oneof![
        20 => (actor.clone(), 1..4_u64, 1..5_u64, prop::bool::weighted(0.6), 0..3_usize).prop_map(
            |(actor, epoch, activation, opens, session)| Event::Open { actor, epoch, activation, opens, session }
        ),
        12 => any::<Index>().prop_map(|which| Event::Deliver { which }),
        14 => any::<Index>().prop_map(|which| Event::End { which }),
        5 => (actor.clone(), 1..4_u64, 1..5_u64).prop_map(|(actor, epoch, activation)| Event::Close { actor, epoch, activation }),
        12 => (any::<Index>(), answer).prop_map(|(which, answer)| Event::Carry { which, answer }),
        2 => Just(Event::Background),
        8 => actor.prop_map(|actor| Event::Write { actor }),
        1 => (0..3_usize).prop_map(|session| Event::Lapse { session }),
        1 => (1..4_u64, any::<bool>()).prop_map(|(epoch, superseded)| Event::Claim { epoch, superseded }),
        1 => Just(Event::AppGone),
    ]
}

#[derive(Debug, Clone)]
struct Sent {
    actor: usize,
    pass: Pass,
    token: FencingToken,
    delivered: bool,
    /// Of which process of the app.
    process: u32,
}

/// What the app and an all-seeing watcher know of one actor.
#[derive(Debug, Default, Clone)]
struct Known {
    /// The token whose state the instance in the app may have cached.
    cached: Option<FencingToken>,
    /// The highest token seen since the guard knows the actor.
    highest: Option<FencingToken>,
    /// Something was said against the instance, and no `DELETE` answered since.
    doubt: bool,
}

struct World {
    guard: Guard,
    keys: Vec<ActorKey>,
    known: Vec<Known>,
    flights: Vec<Sent>,
    carriers: Vec<(usize, Removal)>,
    /// The session that each actor's last dispatch came in.
    sessions: Vec<Option<SessionId>>,
    floor: u64,
    last_write: u64,
    process: u32,
}

fn token(epoch: u64, activation: u64) -> FencingToken {
    FencingToken {
        cluster: ClusterId(1),
        generation: 0,
        partition: PartitionId(0),
        epoch: Epoch(epoch),
        activation: Activation(activation),
    }
}

/// 0 is an owner on the same node.
fn session(number: usize) -> Option<SessionId> {
    (number > 0).then_some(SessionId { owner: NodeId(number as u64), number: 1 })
}

impl World {
    fn new(listed: &[usize]) -> Self {
        let keys: Vec<ActorKey> = (0..ACTORS).map(|actor| ActorKey::new("n", "t", actor.to_string())).collect();
        let mut known = vec![Known::default(); ACTORS];
        let mut guard = Guard::new(GuardLimits::default());
        for &actor in listed {
            guard.listed([keys[actor].clone()]);
            known[actor] = Known { cached: Some(token(0, 0)), highest: None, doubt: true };
        }
        Self {
            guard,
            keys,
            known,
            flights: Vec::new(),
            carriers: Vec::new(),
            sessions: vec![None; ACTORS],
            floor: 0,
            last_write: 0,
            process: 0,
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Open { actor, epoch, activation, opens, session: number } => {
                self.open(actor, token(epoch, activation), opens, session(number));
            }
            Event::Deliver { which } => self.deliver(which),
            Event::End { which } if !self.flights.is_empty() => self.end(which.index(self.flights.len())),
            Event::Close { actor, epoch, activation } => self.close(actor, token(epoch, activation)),
            Event::Carry { which, answer } if !self.carriers.is_empty() => {
                self.carry(which.index(self.carriers.len()), answer);
            }
            Event::End { .. } | Event::Carry { .. } => {}
            Event::Background => {
                for key in self.guard.must_delete(1) {
                    let actor = self.keys.iter().position(|other| *other == key).expect("known");
                    let removal = self.guard.begin_removal(&key).expect("nobody removes what is listed");
                    assert!(self.known[actor].doubt);
                    self.carriers.push((actor, removal));
                }
            }
            Event::Write { actor } => self.write(actor),
            Event::Lapse { session: number } => {
                if let Some(session) = session(number) {
                    self.guard.mark_lapsed(session, None);
                    for actor in 0..ACTORS {
                        self.known[actor].doubt |= self.sessions[actor] == Some(session) && self.knows(actor);
                    }
                }
            }
            Event::Claim { epoch, superseded } => {
                self.guard.seal(PartitionId(0), 0, Epoch(epoch));
                self.floor = self.floor.max(epoch);
                if superseded {
                    self.guard.supersede(PartitionId(0));
                    for actor in 0..ACTORS {
                        let flying =
                            self.flights.iter().find(|sent| sent.actor == actor && sent.process == self.process);
                        let lives = self.known[actor].cached.or(flying.map(|sent| sent.token));
                        self.known[actor].doubt |= lives.is_some_and(|token| token.epoch.0 < self.floor);
                    }
                }
            }
            Event::AppGone => {
                self.guard.app_gone();
                self.process += 1;
                self.known.fill(Known::default());
                assert!(self.guard.is_empty());
            }
        }
        self.check();
    }

    fn check(&mut self) {
        for actor in 0..ACTORS {
            if !self.knows(actor) {
                // What the guard has forgotten is not in the app.
                assert_eq!(self.known[actor].cached, None, "actor {actor} lives in the app unguarded");
                self.known[actor] = Known::default();
            }
        }
    }

    fn knows(&self, actor: usize) -> bool {
        self.guard.index.contains_key(&self.keys[actor])
    }

    fn in_flight(&self, actor: usize) -> usize {
        self.flights.iter().filter(|sent| sent.actor == actor && sent.process == self.process).count()
    }

    fn open(&mut self, actor: usize, token: FencingToken, opens: bool, session: Option<SessionId>) {
        let dispatch = Dispatch { token, opens, session, chain: None, idle_deadline: Instant(1) };
        let verdict = self.guard.open(&self.keys[actor], dispatch);
        let fenced = token.epoch.0 < self.floor
            || self.known[actor].highest.is_some_and(|highest| token.rank() < highest.rank());
        assert_eq!(verdict == Verdict::Fenced, fenced, "fenced is what is below the floor or the highest seen");
        if fenced {
            return;
        }
        self.floor = self.floor.max(token.epoch.0);
        let known = &mut self.known[actor];
        if verdict != Verdict::NotActive || known.highest.is_some() {
            known.highest = Some(token);
        }
        match verdict {
            Verdict::Go { pass, record } => {
                assert!(!known.doubt, "an instance in doubt gets no turn");
                assert!(known.cached.is_none_or(|cached| cached == token), "a turn would see state of another token");
                assert!(opens || !record);
                self.sessions[actor] = session;
                self.flights.push(Sent { actor, pass, token, delivered: false, process: self.process });
            }
            Verdict::Seal(removal) => {
                known.doubt = true;
                self.carriers.push((actor, removal));
                assert_eq!(removal.in_flight, self.in_flight(actor));
            }
            Verdict::Sealed => assert!(self.carriers.iter().any(|&(other, _)| other == actor)),
            Verdict::NotActive => assert!(!opens),
            Verdict::Fenced | Verdict::Full => unreachable!("excluded above, and below the limit"),
        }
    }

    fn deliver(&mut self, which: Index) {
        if self.flights.is_empty() {
            return;
        }
        let at = which.index(self.flights.len());
        let sent = &mut self.flights[at];
        if self.guard.holds(&self.keys[sent.actor], sent.pass) {
            assert_eq!(sent.process, self.process, "a pass does not survive the app");
            sent.delivered = true;
            self.known[sent.actor].cached = Some(sent.token);
        }
    }

    fn end(&mut self, at: usize) {
        let sent = self.flights.swap_remove(at);
        let key = &self.keys[sent.actor];
        let left =
            if sent.delivered { self.guard.ended(key, sent.pass) } else { self.guard.not_dispatched(key, sent.pass) };
        let running = self.in_flight(sent.actor);
        match left {
            InFlight::Running(count) => assert_eq!((count, sent.process), (running, self.process)),
            InFlight::Quiet => assert_eq!((running, sent.process), (0, self.process)),
            InFlight::Gone if sent.process == self.process => {
                assert!(!sent.delivered && running == 0);
                self.known[sent.actor].doubt = false;
            }
            InFlight::Gone => {}
        }
    }

    fn close(&mut self, actor: usize, token: FencingToken) {
        match self.guard.close(&self.keys[actor], token) {
            Close::Delete(removal) => {
                assert_eq!(removal.previous, Some(token));
                self.carriers.push((actor, removal));
            }
            Close::Sealed => assert!(self.carriers.iter().any(|&(other, _)| other == actor)),
            Close::Fenced => assert!(
                token.epoch.0 < self.floor
                    || self.known[actor].highest.is_some_and(|highest| token.rank() < highest.rank())
            ),
            Close::NotActive => assert_ne!(self.known[actor].cached, Some(token)),
        }
    }

    fn carry(&mut self, at: usize, answer: DeleteAnswer) {
        let (actor, removal) = self.carriers[at];
        let wanted = self.guard.still_removing(&self.keys[actor], removal.id);
        if wanted && self.in_flight(actor) > 0 {
            return;
        }
        self.carriers.swap_remove(at);
        if wanted {
            let known = &mut self.known[actor];
            assert!(known.cached.is_some(), "a DELETE of an actor that the app was not given");
            match answer {
                DeleteAnswer::Answered => {
                    known.cached = None;
                    known.doubt = false;
                }
                DeleteAnswer::NoAnswer => known.doubt = true,
            }
        }
        self.guard.removed(&self.keys[actor], removal.id, answer);
    }

    fn write(&mut self, actor: usize) {
        let known = &self.known[actor];
        let answer = self.guard.token_for_write(&self.keys[actor]);
        match answer {
            WriteToken::Token(token, number) => {
                assert!(!known.doubt, "an instance in doubt writes");
                assert!(token.epoch.0 >= self.floor);
                assert_eq!(known.highest, Some(token), "a superseded instance writes");
                assert!(number.0 > self.last_write);
                self.last_write = number.0;
            }
            WriteToken::Sealed => assert!(self.knows(actor)),
            WriteToken::Missing => assert_eq!(known.cached, None, "the app has it"),
        }
        assert_eq!(self.guard.current_token(&self.keys[actor]).is_some(), matches!(answer, WriteToken::Token(..)));
    }

    /// Turns end, deletes are answered: then every actor can be activated by the highest epoch.
    fn heal(&mut self) {
        while !self.flights.is_empty() {
            self.end(0);
            self.check();
        }
        for actor in 0..ACTORS {
            let top = token(self.floor.max(3), 100);
            for _ in 0..3 {
                while !self.carriers.is_empty() {
                    self.carry(0, DeleteAnswer::Answered);
                    self.check();
                }
                if self.in_flight(actor) == 0 {
                    self.open(actor, top, true, None);
                }
            }
            assert!(self.in_flight(actor) > 0, "actor {actor} cannot be activated");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_turn_meets_another_tokens_state_and_nothing_superseded_counts(
        listed in prop::sample::subsequence(vec![0, 1, 2], 0..=ACTORS),
        events in prop::collection::vec(event(), 1..200),
    ) {
        let mut world = World::new(&listed);
        for event in &events {
            world.apply(event);
        }
        world.heal();
    }
}
