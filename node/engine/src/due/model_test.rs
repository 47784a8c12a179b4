//! The due table against a model that holds the whole index: whatever the interleaving of changes, late effects, scans,
//! takes, failures, restarts, and types that lose and find hosts, nothing is early, nothing is taken twice at a time,
//! nothing that could be taken is kept back, and nothing is forgotten.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const REMINDERS: u8 = 40;
const TYPES: u8 = 3;

#[derive(Debug, Clone)]
enum Op {
    /// Creates or overwrites a reminder that is due `after` the present and fires `total` times.
    Put {
        id: u8,
        after: i64,
        total: u64,
        period: i64,
    },
    Delete {
        id: u8,
    },
    /// Delivers some of the effects that are on their way.
    Effects(usize),
    Advance(i64),
    Take(usize),
    /// The app answered: the outcome goes to the log and back.
    Answer(Index),
    Fail(Index, i64),
    Lose(Index, i64),
    /// The app hosts the type, or does so no more.
    Host {
        actor_type: u8,
        hosted: bool,
    },
    /// The table hears of it.
    NoticeHosts,
    /// A firing found nobody that hosts its type, when it looked.
    FindNoHost(Index),
    AskScan,
    /// The running scan reads the index at this moment.
    ReadIndex,
    Rows,
    ScanFails,
    Restart,
}

#[derive(Debug, Clone)]
struct Row {
    entry: DueEntry,
    left: u64,
    period: i64,
}

#[derive(Debug)]
enum Effect {
    Set(DueEntry),
    Gone(ReminderId, u64),
}

/// A firing that the shell has.
#[derive(Debug)]
struct Out {
    firing: Firing,
    /// Its type was without a host at some time since it was taken.
    no_host: bool,
}

/// A partition: its rows, the effects that the table has not seen yet, and the table.
struct World {
    limits: Limits,
    table: DueTable,
    rows: BTreeMap<ReminderId, Row>,
    effects: VecDeque<Effect>,
    log_index: u64,
    now: i64,
    out: Vec<Out>,
    unhosted: BTreeSet<Arc<str>>,
    /// The table has not heard of the last change of hosts.
    unnoticed: bool,
    scan: Option<Scan>,
    read: Option<(Vec<DueEntry>, bool)>,
    fired: usize,
}

fn actor_type(n: u8) -> Arc<str> {
    format!("T{n}").into()
}

/// Five actors of three types have two reminders each, and one has thirty.
fn id(n: u8) -> ReminderId {
    let actor = if n < 10 { n / 2 } else { 5 };
    ReminderId { actor: ActorKey::new("ns", actor_type(actor % 3), actor.to_string()), name: n.to_string().into() }
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: DueTable::new(limits),
            rows: BTreeMap::new(),
            effects: VecDeque::new(),
            log_index: 0,
            now: 0,
            out: Vec::new(),
            unhosted: BTreeSet::new(),
            unnoticed: false,
            scan: None,
            read: None,
            fired: 0,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put { id: n, after, total, period } => {
                self.log_index += 1;
                let key = DueKey { due: Timestamp(self.now + after), id: id(n) };
                let entry = DueEntry { key, generation: self.log_index, occurrence: 1 };
                self.effects.push_back(Effect::Set(entry.clone()));
                self.rows.insert(id(n), Row { entry, left: total, period });
            }
            Op::Delete { id: n } => {
                if let Some(row) = self.rows.remove(&id(n)) {
                    self.effects.push_back(Effect::Gone(id(n), row.entry.generation));
                }
            }
            Op::Effects(count) => self.deliver(count),
            Op::Advance(by) => self.now += by,
            Op::Take(max) => self.take(max),
            Op::Answer(which) => self.with_one_out(which, World::answer),
            Op::Fail(which, after) => self.with_one_out(which, |world, firing| {
                world.table.retry_at(&firing, Timestamp(world.now + after));
            }),
            Op::Lose(which, after) => self.with_one_out(which, |world, firing| {
                world.table.again_at(&firing, Timestamp(world.now + after));
            }),
            Op::Host { actor_type: n, hosted } => self.host(actor_type(n), hosted),
            Op::NoticeHosts => self.notice_hosts(),
            Op::FindNoHost(which) => self.find_no_host(which),
            Op::AskScan => {
                if let Some(scan) = self.table.wants_refill() {
                    assert!(self.scan.is_none(), "one scan at a time");
                    self.scan = Some(scan);
                }
            }
            Op::ReadIndex => self.read_index(),
            Op::Rows => self.rows_arrive(),
            Op::ScanFails => {
                if self.scan.take().is_some() {
                    self.read = None;
                    self.table.refill_failed();
                }
            }
            Op::Restart => {
                let World { limits, rows, log_index, now, fired, unhosted, .. } =
                    std::mem::replace(self, World::new(self.limits));
                *self = World { rows, log_index, now, fired, unhosted, ..World::new(limits) };
            }
        }
        self.table.check();
        let wrongly_parked = self.table.parked.iter().find(|(_, actor_type)| !self.unhosted.contains(actor_type));
        assert!(self.unnoticed || wrongly_parked.is_none(), "what is hosted fires");
    }

    fn host(&mut self, actor_type: Arc<str>, hosted: bool) {
        if hosted {
            self.unnoticed |= self.unhosted.remove(&actor_type);
            return;
        }
        let of_type = |out: &&mut Out| out.firing.id.actor.actor_type == actor_type;
        self.out.iter_mut().filter(of_type).for_each(|out| out.no_host = true);
        self.unnoticed |= self.unhosted.insert(actor_type);
    }

    fn notice_hosts(&mut self) {
        if std::mem::take(&mut self.unnoticed) {
            self.table.unpark(|namespace, actor_type| {
                assert_eq!(namespace, "ns");
                !self.unhosted.contains(actor_type)
            });
        }
    }

    fn find_no_host(&mut self, which: Index) {
        if self.out.is_empty() {
            return;
        }
        let at = which.index(self.out.len());
        if self.out[at].no_host {
            let Out { firing, .. } = self.out.swap_remove(at);
            if !self.table.park(&firing) {
                self.table.again_at(&firing, Timestamp(self.now));
            }
        }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            match self.effects.pop_front() {
                Some(Effect::Set(entry)) => self.table.put(entry),
                Some(Effect::Gone(id, generation)) => self.table.remove(&id, generation),
                None => return,
            }
        }
    }

    fn take(&mut self, max: usize) {
        let firings = self.table.take_due(Timestamp(self.now), max);
        let all_taken = firings.len() < max;
        for firing in firings {
            assert!(firing.due.0 <= self.now, "nothing is early");
            assert!(self.out.iter().all(|other| other.firing.id != firing.id), "one occurrence at a time");
            assert!(!self.table.is_parked(&firing.id.actor), "nothing of a parked type");
            if let Some(row) = self.rows.get(&firing.id)
                && row.entry.version() == firing.version()
            {
                assert_eq!(row.entry.key.due, firing.due);
            }
            let no_host = self.unhosted.contains(&firing.id.actor.actor_type);
            self.out.push(Out { firing, no_host });
        }
        if all_taken {
            assert!(self.table.next_due().is_none_or(|at| at.0 > self.now), "what is due now can be taken now");
        }
    }

    /// As the shell does: compare with the row, run the turn, propose the outcome, resolve.
    fn answer(&mut self, firing: Firing) {
        let row = self.rows.get_mut(&firing.id).filter(|row| row.entry.version() == firing.version());
        if let Some(row) = row {
            self.fired += 1;
            row.left -= 1;
            if row.left == 0 {
                self.rows.remove(&firing.id);
                self.effects.push_back(Effect::Gone(firing.id.clone(), firing.generation));
            } else {
                row.entry.occurrence += 1;
                row.entry.key.due = Timestamp(firing.due.0 + row.period);
                self.effects.push_back(Effect::Set(row.entry.clone()));
            }
        }
        self.table.resolved(&firing);
    }

    fn with_one_out(&mut self, which: Index, act: impl FnOnce(&mut World, Firing)) {
        if !self.out.is_empty() {
            let out = self.out.swap_remove(which.index(self.out.len()));
            act(self, out.firing);
        }
    }

    fn read_index(&mut self) {
        let (Some(scan), None) = (&self.scan, &self.read) else { return };
        let index: BTreeMap<DueKey, DueEntry> =
            self.rows.values().map(|row| (row.entry.key.clone(), row.entry.clone())).collect();
        let from = scan.after.as_ref().map_or(Unbounded, Excluded);
        let beyond = index.range((from, Unbounded));
        let rows: Vec<_> = beyond.take(scan.limit).map(|(_, entry)| entry.clone()).collect();
        let exhausted = rows.len() < scan.limit;
        self.read = Some((rows, exhausted));
    }

    fn rows_arrive(&mut self) {
        if let Some((rows, exhausted)) = self.read.take() {
            self.scan = None;
            self.table.refill(rows, exhausted);
        }
    }

    /// All that is on its way arrives, every type is hosted, time passes far beyond every due instant, and every firing
    /// is answered.
    fn finish(&mut self) {
        self.now = i64::MAX / 2;
        (0..TYPES).for_each(|n| self.host(actor_type(n), true));
        self.notice_hosts();
        for _ in 0..10_000 {
            self.deliver(usize::MAX);
            self.apply(Op::AskScan);
            self.read_index();
            self.rows_arrive();
            self.take(3);
            for out in std::mem::take(&mut self.out) {
                self.answer(out.firing);
            }
            self.table.check();
            if self.rows.is_empty() && self.effects.is_empty() {
                break;
            }
        }
        assert!(self.rows.is_empty(), "forgotten: {:?}", self.rows);
        self.take(usize::MAX);
        assert_eq!((self.table.pending(), self.table.loaded()), (self.out.len(), 0));
    }
}

impl DueTable {
    /// The invariants that hold between any two calls.
    fn check(&self) {
        let queue = &self.queue;
        assert!(self.pending.len() <= self.limits.pending && self.parked.len() <= self.limits.parked_types);
        assert!(queue.len() <= 2 * self.limits.window);
        let mut queued: BTreeMap<ReminderId, Timestamp> =
            queue.ready.keys().map(|key| (key.id.clone(), key.due)).collect();
        for (actor, line) in &queue.lines {
            let pending = self.pending.keys().filter(|id| id.actor == *actor).count();
            assert_eq!(line.pending, pending);
            assert!(pending <= self.limits.pending_per_actor);
            assert!(pending > 0 || !line.aside.is_empty(), "a line is dropped with its last firing");
            assert!(line.aside.last_key_value().is_none_or(|(last, _)| line.left_from.iter().all(|from| last < from)));
            if let Some((first, _)) = line.aside.first_key_value() {
                let of_actor = queue.ready.keys().filter(|key| key.id.actor == *actor);
                let earlier = of_actor.filter(|key| (&key.due, &key.id.name) < (&first.0, &first.1)).count();
                assert!(earlier >= self.limits.pending_per_actor - pending, "nobody is passed over");
            }
            for (due, name) in line.aside.keys() {
                queued.insert(ReminderId { actor: actor.clone(), name: name.clone() }, *due);
            }
        }
        assert!(self.pending.keys().all(|id| queue.lines.contains_key(&id.actor)));
        assert!(queue.len() - queue.ready() <= self.limits.window / 2, "what is set aside leaves room for others");
        assert_eq!(queued.len(), queue.len());
        for (id, due) in &queued {
            let key = DueKey { due: *due, id: id.clone() };
            assert_eq!(queue.due_of.get(id), Some(due));
            assert!(self.cursor.covers(&key) && !self.pending.contains_key(id) && !self.is_parked(&id.actor));
        }
        if let Some((first, _)) = queue.ready.first_key_value() {
            let line = queue.lines.get(&first.id.actor);
            assert!(line.is_none_or(|line| line.pending < self.limits.pending_per_actor), "the first can be taken");
            assert!(!queue.leaves_out(first));
        }
        let waits: BTreeSet<_> =
            self.pending.values().filter_map(|p| Some((p.waits_until?, p.firing.id.clone()))).collect();
        assert_eq!(waits, self.waiting);
        assert!(self.waiting.iter().all(|(_, id)| !self.is_parked(&id.actor)));
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => (0..REMINDERS, 0i64..12, 1u64..4, 0i64..6)
            .prop_map(|(id, after, total, period)| Op::Put { id, after, total, period }),
        4 => (0..REMINDERS).prop_map(|id| Op::Delete { id }),
        6 => (1usize..8).prop_map(Op::Effects),
        4 => (0i64..5).prop_map(Op::Advance),
        6 => (1usize..4).prop_map(Op::Take),
        5 => any::<Index>().prop_map(Op::Answer),
        2 => (any::<Index>(), 0i64..4).prop_map(|(which, after)| Op::Fail(which, after)),
        1 => (any::<Index>(), 0i64..4).prop_map(|(which, after)| Op::Lose(which, after)),
        2 => (0..TYPES, prop::bool::weighted(0.7)).prop_map(|(actor_type, hosted)| Op::Host { actor_type, hosted }),
        2 => Just(Op::NoticeHosts),
        3 => any::<Index>().prop_map(Op::FindNoHost),
        4 => Just(Op::AskScan),
        4 => Just(Op::ReadIndex),
        4 => Just(Op::Rows),
        1 => Just(Op::ScanFails),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 0..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_occurrence_is_lost_or_early_whatever_the_interleaving(
        ops in ops(),
        window in prop_oneof![1usize..6, 16usize..24],
        pending in 1usize..8,
        pending_per_actor in 1usize..4,
        parked_types in 0usize..4,
    ) {
        let mut world = World::new(Limits { window, pending, pending_per_actor, parked_types });
        for op in ops {
            world.apply(op);
        }
        world.finish();
    }
}
