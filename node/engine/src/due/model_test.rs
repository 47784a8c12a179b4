//! The due table against a model that holds the whole index: whatever the interleaving of changes, late effects, scans,
//! takes, failures and restarts, nothing is early, nothing is taken twice at a time, and nothing is forgotten.

use std::collections::VecDeque;
use std::ops::Bound::{Excluded, Unbounded};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

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

/// A partition: its rows, the effects that the table has not seen yet, and the table.
struct World {
    limits: Limits,
    table: DueTable,
    rows: BTreeMap<ReminderId, Row>,
    effects: VecDeque<Effect>,
    log_index: u64,
    now: i64,
    out: Vec<Firing>,
    scan: Option<Scan>,
    read: Option<(Vec<DueEntry>, bool)>,
    fired: usize,
}

fn id(n: u8) -> ReminderId {
    ReminderId { actor: ActorKey::new("ns", "T", n.to_string()), name: "r".into() }
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
                let World { limits, rows, log_index, now, fired, .. } =
                    std::mem::replace(self, World::new(self.limits));
                *self = World { rows, log_index, now, fired, ..World::new(limits) };
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
        for firing in self.table.take_due(Timestamp(self.now), max) {
            assert!(firing.due.0 <= self.now, "nothing is early");
            assert!(self.out.iter().all(|other| other.id != firing.id), "one occurrence at a time");
            if let Some(row) = self.rows.get(&firing.id)
                && row.entry.version() == firing.version()
            {
                assert_eq!(row.entry.key.due, firing.due);
            }
            self.out.push(firing);
        }
        assert!(self.table.pending() <= self.limits.pending);
        assert!(self.table.loaded() <= 2 * self.limits.window);
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
            let firing = self.out.swap_remove(which.index(self.out.len()));
            act(self, firing);
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

    /// All that is on its way arrives, time passes far beyond every due instant, and every firing is answered.
    fn finish(&mut self) {
        self.now = i64::MAX / 2;
        for _ in 0..10_000 {
            self.deliver(usize::MAX);
            self.apply(Op::AskScan);
            self.read_index();
            self.rows_arrive();
            self.take(3);
            for firing in std::mem::take(&mut self.out) {
                self.answer(firing);
            }
            if self.rows.is_empty() && self.effects.is_empty() {
                break;
            }
        }
        assert!(self.rows.is_empty(), "forgotten: {:?}", self.rows);
        self.take(usize::MAX);
        assert_eq!((self.table.pending(), self.table.loaded()), (self.out.len(), 0));
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u8..10, 0i64..12, 1u64..4, 0i64..6)
            .prop_map(|(id, after, total, period)| Op::Put { id, after, total, period }),
        2 => (0u8..10).prop_map(|id| Op::Delete { id }),
        6 => (1usize..4).prop_map(Op::Effects),
        4 => (0i64..5).prop_map(Op::Advance),
        6 => (1usize..4).prop_map(Op::Take),
        5 => any::<Index>().prop_map(Op::Answer),
        2 => (any::<Index>(), 0i64..4).prop_map(|(which, after)| Op::Fail(which, after)),
        1 => (any::<Index>(), 0i64..4).prop_map(|(which, after)| Op::Lose(which, after)),
        4 => Just(Op::AskScan),
        4 => Just(Op::ReadIndex),
        4 => Just(Op::Rows),
        1 => Just(Op::ScanFails),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_occurrence_is_lost_or_early_whatever_the_interleaving(
        ops in ops(),
        window in 1usize..5,
        pending in 1usize..6,
    ) {
        let mut world = World::new(Limits { window, pending });
        for op in ops {
            world.apply(op);
        }
        world.finish();
    }
}
