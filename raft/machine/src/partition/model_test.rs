//! The machine against a naive model of it, over random logs.
//!
//! The model is written from the rules, not from the code: it executes operation by operation on plain maps and goes
//! back to a copy when one is rejected, where the machine works out the net change first.

use std::collections::HashMap;

use bytes::Bytes;
use callboard_types::{Activation, ActorKey, Epoch, NodeId, ReplicaId, Timestamp, WriteNumber};
use proptest::prelude::*;

use super::samples::spec;
use super::{
    ActorCommand, ActorOp, Claim, Command, Effect, MemoryTables, Outcome, Rejection, Reminder, Response, Tables, apply,
};

const ACTORS: [&str; 2] = ["hobbit", "gollum"];
const MAX_OFFSET: u64 = 10;

/// A command before the state it meets is known: epochs, generations and occurrences are chosen relative to it.
#[derive(Debug, Clone)]
enum Step {
    Claim { now: i64 },
    Noop { epoch: i64 },
    Actor { epoch: i64, actor: usize, write: Option<(u64, u64)>, now: i64, ops: Vec<StepOp> },
}

#[derive(Debug, Clone)]
enum StepOp {
    Upsert { key: u8, value: u8, expires_at: Option<i64> },
    Delete { key: u8 },
    PutReminder { name: u8, due: i64, overwrite: bool },
    DeleteReminder { name: u8 },
    Outcome { name: u8, generation: i64, occurrence: i64, next: Option<i64>, dropped: bool },
    DeleteActor,
}

fn step_op() -> impl Strategy<Value = StepOp> {
    // Mostly of the pending occurrence, sometimes of a neighbour.
    let offset = || prop_oneof![4 => Just(0i64), 1 => -1..=1i64];
    prop_oneof![
        4 => (0..3u8, any::<u8>(), proptest::option::of(0..100i64))
            .prop_map(|(key, value, expires_at)| StepOp::Upsert { key, value, expires_at }),
        2 => (0..3u8).prop_map(|key| StepOp::Delete { key }),
        4 => (0..2u8, 0..100i64, any::<bool>())
            .prop_map(|(name, due, overwrite)| StepOp::PutReminder { name, due, overwrite }),
        1 => (0..2u8).prop_map(|name| StepOp::DeleteReminder { name }),
        4 => (0..2u8, offset(), offset(), proptest::option::of(0..100i64), any::<bool>()).prop_map(
            |(name, generation, occurrence, next, dropped)| StepOp::Outcome { name, generation, occurrence, next, dropped }
        ),
        1 => Just(StepOp::DeleteActor),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let epoch = || prop_oneof![8 => Just(0i64), 1 => -2..=2i64];
    let write = proptest::option::of((1..3u64, 1..5u64));
    prop_oneof![
        1 => (0..100i64).prop_map(|now| Step::Claim { now }),
        1 => epoch().prop_map(|epoch| Step::Noop { epoch }),
        12 => (epoch(), 0..ACTORS.len(), write, 0..100i64, proptest::collection::vec(step_op(), 0..5))
            .prop_map(|(epoch, actor, write, now, ops)| Step::Actor { epoch, actor, write, now, ops }),
    ]
}

fn log() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..40)
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Model {
    epoch: u64,
    clock: i64,
    state: HashMap<(ActorKey, String), (Bytes, Option<Timestamp>)>,
    reminders: HashMap<(ActorKey, String), Reminder>,
    /// (epoch, activation, number, response)
    answered: HashMap<ActorKey, (u64, u64, u64, Response)>,
    /// (name, generation, occurrence, due, dropped at), oldest first.
    dropped: Vec<(String, u64, u64, i64, i64)>,
}

impl Model {
    fn apply(&mut self, index: u64, command: &Command) -> Response {
        match command {
            Command::Claim(claim) => {
                self.epoch += 1;
                let too_far = self.clock > claim.now.0 + claim.max_clock_offset_micros as i64;
                self.clock = if too_far { claim.now.0 } else { self.clock.max(claim.now.0) };
                Response::Claimed { epoch: Epoch(self.epoch) }
            }
            Command::Noop { epoch } if self.owns(*epoch) => Response::Done,
            Command::Actor(command) if self.owns(command.epoch) => self.apply_actor(index, command),
            Command::Noop { .. } | Command::Actor(_) => Response::Fenced { current: Epoch(self.epoch) },
        }
    }

    fn owns(&self, epoch: Epoch) -> bool {
        epoch.0 == self.epoch && self.epoch > 0
    }

    fn apply_actor(&mut self, index: u64, command: &ActorCommand) -> Response {
        if let (Some((activation, number)), Some(last)) = (command.write, self.answered.get(&command.actor)) {
            let same_activation = last.0 == command.epoch.0 && last.1 == activation.0;
            if same_activation && number.0 == last.2 {
                return last.3.clone();
            }
            if same_activation && number.0 < last.2 {
                return Response::Rejected(Rejection::StaleWrite { given: number.0, last: last.2 });
            }
        }
        let before = self.clone();
        let mut response = Response::Done;
        for op in &command.ops {
            if let Err(rejection) = self.execute(index, command, op) {
                *self = before.clone();
                response = Response::Rejected(rejection);
                break;
            }
        }
        if response == Response::Done {
            self.clock = self.clock.max(command.now.0);
        }
        if let Some((activation, number)) = command.write {
            let answer = (command.epoch.0, activation.0, number.0, response.clone());
            self.answered.insert(command.actor.clone(), answer);
        }
        response
    }

    fn execute(&mut self, index: u64, command: &ActorCommand, op: &ActorOp) -> Result<(), Rejection> {
        let of = |name: &String| (command.actor.clone(), name.clone());
        match op {
            ActorOp::Upsert { key, value, expires_at } => {
                self.state.insert(of(key), (value.clone(), *expires_at));
            }
            ActorOp::Delete { key } => {
                self.state.remove(&of(key));
            }
            ActorOp::PutReminder { name, spec, due, overwrite } => {
                if !overwrite && self.reminders.contains_key(&of(name)) {
                    return Err(Rejection::ReminderExists { name: name.clone() });
                }
                let reminder = Reminder {
                    spec: spec.clone(),
                    generation: index,
                    occurrence: 1,
                    due: *due,
                    registered: command.now,
                    dropped: 0,
                };
                self.reminders.insert(of(name), reminder);
            }
            ActorOp::DeleteReminder { name } => {
                self.reminders.remove(&of(name));
            }
            ActorOp::ReminderFired { name, generation, occurrence, next } => {
                self.outcome(&of(name), (*generation, *occurrence), *next);
            }
            ActorOp::ReminderDropped { name, generation, occurrence, next, reason: _ } => {
                let Some(due) = self.outcome(&of(name), (*generation, *occurrence), *next) else { return Ok(()) };
                if let Some(reminder) = self.reminders.get_mut(&of(name)) {
                    reminder.dropped += 1;
                }
                self.dropped.push((name.clone(), *generation, *occurrence, due, command.now.0));
            }
            ActorOp::DeleteActor => {
                self.state.retain(|(actor, _), _| *actor != command.actor);
                self.reminders.retain(|(actor, _), _| *actor != command.actor);
                self.answered.remove(&command.actor);
            }
        }
        Ok(())
    }

    /// When the occurrence was due, if it was the pending one.
    fn outcome(&mut self, key: &(ActorKey, String), of: (u64, u64), next: Option<Timestamp>) -> Option<i64> {
        let reminder = self.reminders.get_mut(key)?;
        if (reminder.generation, reminder.occurrence) != of {
            return None;
        }
        let due = reminder.due.0;
        match next {
            Some(next) => {
                reminder.due = next;
                reminder.occurrence += 1;
            }
            None => {
                self.reminders.remove(key);
            }
        }
        Some(due)
    }

    /// The rows of `tables` in the model's form.
    fn read(tables: &MemoryTables) -> Self {
        let own = |actor: &ActorKey, name: &str| (actor.clone(), name.to_owned());
        let Ok(ownership) = tables.ownership();
        let Ok(clock) = tables.clock();
        Self {
            epoch: ownership.map_or(0, |ownership| ownership.epoch.0),
            clock: clock.0,
            state: tables
                .state_rows()
                .map(|(a, key, row)| (own(a, key), (row.value.clone(), row.expires_at)))
                .collect(),
            reminders: tables.reminder_rows().map(|(a, name, row)| (own(a, name), row.clone())).collect(),
            answered: tables
                .last_write_rows()
                .map(|(a, row)| (a.clone(), (row.epoch.0, row.activation.0, row.number.0, row.response.clone())))
                .collect(),
            dropped: tables
                .dropped_rows()
                .map(|row| (row.name.clone(), row.generation, row.occurrence, row.due.0, row.dropped_at.0))
                .collect(),
        }
    }

    /// The command that `step` means in this state.
    fn resolve(&self, step: &Step) -> Command {
        let near = |base: u64, offset: i64| base.saturating_add_signed(offset);
        match step {
            Step::Claim { now } => Command::Claim(Claim {
                node: NodeId(1),
                replica: ReplicaId(1),
                nonce: self.epoch,
                now: Timestamp(*now),
                max_clock_offset_micros: MAX_OFFSET,
            }),
            Step::Noop { epoch } => Command::Noop { epoch: Epoch(near(self.epoch, *epoch)) },
            Step::Actor { epoch, actor, write, now, ops } => {
                let actor = ActorKey::new("default", "cat", ACTORS[*actor]);
                let ops = ops.iter().map(|op| self.resolve_op(&actor, op)).collect();
                let write = write.map(|(activation, number)| (Activation(activation), WriteNumber(number)));
                let epoch = Epoch(near(self.epoch, *epoch));
                Command::Actor(ActorCommand { epoch, actor, write, now: Timestamp(*now), ops })
            }
        }
    }

    fn resolve_op(&self, actor: &ActorKey, op: &StepOp) -> ActorOp {
        match *op {
            StepOp::Upsert { key, value, expires_at } => ActorOp::Upsert {
                key: format!("k{key}"),
                value: Bytes::from(vec![value]),
                expires_at: expires_at.map(Timestamp),
            },
            StepOp::Delete { key } => ActorOp::Delete { key: format!("k{key}") },
            StepOp::PutReminder { name, due, overwrite } => {
                ActorOp::PutReminder { name: format!("r{name}"), spec: spec("1s"), due: Timestamp(due), overwrite }
            }
            StepOp::DeleteReminder { name } => ActorOp::DeleteReminder { name: format!("r{name}") },
            StepOp::Outcome { name, generation, occurrence, next, dropped } => {
                let name = format!("r{name}");
                let pending = self.reminders.get(&(actor.clone(), name.clone()));
                let (of_generation, of_occurrence) = pending.map_or((1, 1), |row| (row.generation, row.occurrence));
                let generation = of_generation.saturating_add_signed(generation);
                let occurrence = of_occurrence.saturating_add_signed(occurrence);
                let next = next.map(Timestamp);
                if dropped {
                    ActorOp::ReminderDropped { name, generation, occurrence, next, reason: "why".to_owned() }
                } else {
                    ActorOp::ReminderFired { name, generation, occurrence, next }
                }
            }
            StepOp::DeleteActor => ActorOp::DeleteActor,
        }
    }
}

/// A machine and the log it has applied; the first entry is a claim.
#[derive(Debug, Clone, Default)]
struct Run {
    tables: MemoryTables,
    log: Vec<Command>,
    outcomes: Vec<Outcome>,
}

impl Run {
    fn of(steps: &[Step]) -> Self {
        let mut run = Self::default();
        run.step(&Step::Claim { now: 0 });
        steps.iter().for_each(|step| run.step(step));
        run
    }

    fn step(&mut self, step: &Step) {
        let command = Model::read(&self.tables).resolve(step);
        self.apply(command);
    }

    fn apply(&mut self, command: Command) {
        let Ok(outcome) = apply(&mut self.tables, self.log.len() as u64 + 1, &command);
        self.log.push(command);
        self.outcomes.push(outcome);
    }

    fn epoch(&self) -> u64 {
        Model::read(&self.tables).epoch
    }

    fn last(&self) -> &Outcome {
        &self.outcomes[self.outcomes.len() - 1]
    }
}

proptest! {
    #[test]
    fn the_machine_answers_and_stores_what_the_model_does(steps in log()) {
        let mut model = Model::default();
        let mut run = Run::default();
        // Once before the first claim, then mostly under one.
        for step in [Step::Noop { epoch: 0 }, Step::Claim { now: 0 }].iter().chain(&steps) {
            run.step(step);
            let response = model.apply(run.log.len() as u64, &run.log[run.log.len() - 1]);
            prop_assert_eq!(&run.last().response, &response);
            prop_assert_eq!(&Model::read(&run.tables), &model);
        }
    }

    #[test]
    fn two_replicas_compute_the_same(steps in log()) {
        let first = Run::of(&steps);
        let mut second = Run::default();
        first.log.iter().for_each(|command| second.apply(command.clone()));
        prop_assert_eq!(first.tables, second.tables);
        prop_assert_eq!(first.outcomes, second.outcomes);
    }

    #[test]
    fn effects_played_in_order_make_the_reminder_table_and_the_due_index(steps in log()) {
        let run = Run::of(&steps);
        let mut played = HashMap::new();
        for effect in run.outcomes.iter().flat_map(|outcome| &outcome.effects) {
            match effect {
                Effect::ReminderSet { actor, name, reminder } => {
                    let known = played.insert((actor.clone(), name.clone()), reminder.clone());
                    prop_assert_ne!(known.as_ref(), Some(reminder));
                }
                Effect::ReminderGone { actor, name, generation } => {
                    let known = played.remove(&(actor.clone(), name.clone()));
                    prop_assert_eq!(known.map(|reminder| reminder.generation), Some(*generation));
                }
                Effect::Claimed { .. } | Effect::ClockLowered { .. } => {}
            }
        }
        prop_assert_eq!(&played, &Model::read(&run.tables).reminders);
        let mut due: Vec<_> = played.iter().map(|((a, name), row)| (row.due, a, name.as_str())).collect();
        due.sort();
        prop_assert_eq!(due, run.tables.due_rows().collect::<Vec<_>>());
    }

    #[test]
    fn a_fenced_command_changes_nothing(steps in log(), late in step(), epoch in 0..50u64) {
        let mut run = Run::of(&steps);
        let command = match Model::read(&run.tables).resolve(&late) {
            Command::Actor(command) => Command::Actor(ActorCommand { epoch: Epoch(epoch), ..command }),
            Command::Noop { .. } | Command::Claim(_) => Command::Noop { epoch: Epoch(epoch) },
        };
        prop_assume!(epoch != run.epoch());
        let before = run.tables.clone();
        run.apply(command);
        let fenced = Response::Fenced { current: Epoch(run.epoch()) };
        prop_assert_eq!(run.last(), &Outcome { response: fenced, effects: vec![] });
        prop_assert_eq!(run.tables, before);
    }

    #[test]
    fn a_rejected_command_changes_nothing_but_the_record_of_its_write(steps in log(), index in any::<prop::sample::Index>()) {
        let whole = Run::of(&steps);
        let mut before = Run::default();
        for command in &whole.log[..index.index(whole.log.len())] {
            before.apply(command.clone());
        }
        // One that fails at its last operation, whatever the ones before it do.
        let ops = vec![
            ActorOp::Upsert { key: "k0".into(), value: Bytes::from("x"), expires_at: None },
            ActorOp::DeleteActor,
            ActorOp::PutReminder { name: "r0".into(), spec: spec("1s"), due: Timestamp(1), overwrite: false },
            ActorOp::PutReminder { name: "r0".into(), spec: spec("1s"), due: Timestamp(1), overwrite: false },
        ];
        let actor = ActorKey::new("default", "cat", ACTORS[0]);
        let write = Some((Activation(9), WriteNumber(1)));
        before.step(&Step::Claim { now: 0 });
        let epoch = Epoch(before.epoch());
        let mut after = before.clone();
        after.apply(Command::Actor(ActorCommand { epoch, actor, write, now: Timestamp(1_000), ops }));
        let rejected = Response::Rejected(Rejection::ReminderExists { name: "r0".to_owned() });
        prop_assert_eq!(&after.last().response, &rejected);
        let (mut was, mut is) = (Model::read(&before.tables), Model::read(&after.tables));
        was.answered.clear();
        is.answered.clear();
        prop_assert_eq!(was, is);
    }

    #[test]
    fn a_repeated_write_answers_the_first_outcome_and_changes_nothing(steps in log(), between in log(), again in step()) {
        let mut run = Run::of(&steps);
        let command = match Model::read(&run.tables).resolve(&again) {
            Command::Actor(command) => command,
            Command::Noop { .. } | Command::Claim(_) => return Ok(()),
        };
        // An activation of its own, so that the first time is the first.
        let (epoch, write) = (Epoch(run.epoch()), Some((Activation(9), WriteNumber(7))));
        let command = ActorCommand { epoch, write, ..command };
        run.apply(Command::Actor(command.clone()));
        let first = run.last().response.clone();
        // Anything may happen meanwhile but a claim, another write of the actor, or its deletion.
        for step in between {
            let meanwhile = Model::read(&run.tables).resolve(&step);
            let harmless = match &meanwhile {
                Command::Claim(_) => false,
                Command::Noop { .. } => true,
                Command::Actor(other) => {
                    other.actor != command.actor || (other.write.is_none() && !other.ops.contains(&ActorOp::DeleteActor))
                }
            };
            if harmless {
                run.apply(meanwhile);
            }
        }
        let before = run.tables.clone();
        run.apply(Command::Actor(command));
        prop_assert_eq!(run.last(), &Outcome { response: first, effects: vec![] });
        prop_assert_eq!(run.tables, before);
    }
}
