//! The timer table: one tick out at a time, replacement, deletion, limits; and a model.

use proptest::prelude::*;

use super::*;

const SEC: i64 = 1_000_000;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn actor(id: &str) -> ActorKey {
    ActorKey::new("default", "T", id)
}

fn request(due_time: &str, period: &str, ttl: &str) -> TimerRequest {
    TimerRequest {
        data: None,
        callback: "cb".into(),
        due_time: due_time.into(),
        period: period.into(),
        ttl: ttl.into(),
    }
}

fn table() -> TimerTable {
    TimerTable::new(100)
}

/// Takes the only tick that is due.
fn tick(table: &mut TimerTable, now: Timestamp) -> Tick {
    let ticks = table.take_due(now, 10);
    assert_eq!(ticks.len(), 1);
    ticks.into_iter().next().unwrap()
}

#[test]
fn no_tick_is_taken_before_it_is_due() {
    let mut table = table();
    table.put(&actor("a"), "n", request("5s", "", ""), at(0)).unwrap();
    assert_eq!(table.next_due(), Some(at(5)));
    assert_eq!(table.take_due(Timestamp(at(5).0 - 1), 10), []);
    assert_eq!(tick(&mut table, at(5)).occurrence, 1);
}

#[test]
fn the_next_tick_is_queued_only_after_the_callback_and_late_ones_follow_back_to_back() {
    let mut table = table();
    table.put(&actor("a"), "n", request("", "R4/PT1S", ""), at(0)).unwrap();
    let first = tick(&mut table, at(0));
    assert_eq!((table.take_due(at(9), 10).len(), table.next_due()), (0, None));
    table.finished(&first);
    for (occurrence, due) in [(2, 1), (3, 2), (4, 3)] {
        let late = tick(&mut table, at(9));
        assert_eq!((late.occurrence, late.due), (occurrence, at(due)));
        table.finished(&late);
    }
    assert!(table.is_empty());
    assert_eq!(table.next_due(), None);
}

#[test]
fn a_one_shot_is_gone_after_its_tick() {
    let mut table = table();
    table.put(&actor("a"), "n", request("", "", ""), at(0)).unwrap();
    let only = tick(&mut table, at(0));
    assert_eq!(table.len(), 1);
    table.finished(&only);
    assert_eq!(table.len(), 0);
    assert!(!table.is_current(&only.actor, &only.name, only.instance, only.occurrence));
}

#[test]
fn the_ttl_ends_a_timer_before_a_tick_that_is_due_exactly_then() {
    let mut table = table();
    table.put(&actor("a"), "n", request("2s", "2s", "3s"), at(0)).unwrap();
    let mut dues = Vec::new();
    while let Some(tick) = table.take_due(at(60), 1).pop() {
        dues.push(tick.due);
        table.finished(&tick);
    }
    assert_eq!(dues, [at(2), at(4)]);
}

#[test]
fn a_deletion_takes_effect_at_once() {
    let mut table = table();
    table.put(&actor("a"), "n", request("", "1s", ""), at(0)).unwrap();
    let out = tick(&mut table, at(0));
    assert!(table.is_current(&out.actor, &out.name, out.instance, out.occurrence));
    assert!(table.remove(&actor("a"), "n"));
    assert!(!table.is_current(&out.actor, &out.name, out.instance, out.occurrence));
    table.finished(&out);
    assert_eq!(table.take_due(at(60), 10), []);
    assert!(!table.remove(&actor("a"), "n"));
}

#[test]
fn a_replaced_timer_starts_afresh_and_its_old_tick_is_void() {
    let mut table = table();
    table.put(&actor("a"), "n", request("", "R2/PT1S", ""), at(0)).unwrap();
    let old = tick(&mut table, at(0));
    table.put(&actor("a"), "n", request("10s", "1s", ""), at(1)).unwrap();
    assert!(!table.is_current(&old.actor, &old.name, old.instance, old.occurrence));
    table.finished(&old);
    assert_eq!((table.len(), table.next_due()), (1, Some(at(11))));
    let new = tick(&mut table, at(11));
    assert_eq!(new.occurrence, 1);
    assert_ne!(new.instance, old.instance);
}

#[test]
fn a_refused_replacement_leaves_the_old_timer() {
    let mut table = table();
    table.put(&actor("a"), "n", request("5s", "", ""), at(0)).unwrap();
    let error = table.put(&actor("a"), "n", request("soon", "", ""), at(0)).unwrap_err();
    assert_eq!(error.to_string(), "error parsing timer due time: unsupported time/duration format: soon");
    assert_eq!(error.class(), Class::Rejected);
    assert_eq!(table.next_due(), Some(at(5)));
    let error = table.put(&actor("a"), "n", request("1s", "", "-1s"), at(0)).unwrap_err();
    assert_eq!(error.to_string(), "timer T||a||n has already expired: dueTime: 1s TTL: -1s");
}

#[test]
fn a_full_table_refuses_new_names_but_replaces() {
    let mut table = TimerTable::new(1);
    table.put(&actor("a"), "n", request("5s", "", ""), at(0)).unwrap();
    let error = table.put(&actor("a"), "m", request("5s", "", ""), at(0)).unwrap_err();
    assert_eq!((error.class(), &error), (Class::Busy, &Error::Full { limit: 1 }));
    table.put(&actor("a"), "n", request("6s", "", ""), at(0)).unwrap();
    assert_eq!(table.next_due(), Some(at(6)));
    table.remove(&actor("a"), "n");
    table.put(&actor("a"), "m", request("5s", "", ""), at(0)).unwrap();
}

#[test]
fn an_ended_activation_loses_its_timers_and_no_others() {
    let mut table = table();
    for (id, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
        table.put(&actor(id), name, request("", "1s", ""), at(0)).unwrap();
    }
    let out = table.take_due(at(0), 1);
    assert_eq!((table.count_of(&actor("a")), table.remove_actor(&actor("a"))), (2, 2));
    assert_eq!((table.len(), table.remove_actor(&actor("a"))), (1, 0));
    for tick in &out {
        table.finished(tick);
    }
    assert_eq!(tick(&mut table, at(0)).actor, actor("b"));
}

#[test]
fn one_blocked_callback_does_not_delay_other_timers() {
    let mut table = table();
    table.put(&actor("a"), "n", request("", "1s", ""), at(0)).unwrap();
    let _blocked = tick(&mut table, at(0));
    table.put(&actor("b"), "n", request("1s", "", ""), at(0)).unwrap();
    assert_eq!(tick(&mut table, at(1)).actor, actor("b"));
}

#[test]
fn a_callback_repeats_the_texts_as_registered() {
    let body = br#"{"data": { "a": 1 }, "callback":"my\"cb","dueTime":"0s","period":"10s","ttl":"1m"}"#;
    assert_eq!(
        TimerRequest::from_json(body).unwrap().callback_body(),
        br#"{"data":{"a":1},"callback":"my\"cb","dueTime":"0s","period":"10s"}"#
    );
    assert_eq!(TimerRequest::from_json(b"{}").unwrap().callback_body(), br#"{"callback":"","dueTime":"","period":""}"#);
    let null = TimerRequest::from_json(br#"{"data":null,"period":null}"#).unwrap();
    assert_eq!(null.callback_body(), br#"{"data":null,"callback":"","dueTime":"","period":""}"#);
    assert!(TimerRequest::from_json(br#"{"callback":5}"#).is_err());
}

#[derive(Debug, Clone)]
enum Op {
    Put { id: u8, name: u8, due: i64, total: u64, period: i64 },
    Remove { id: u8, name: u8 },
    RemoveActor { id: u8 },
    Advance(i64),
    Take(usize),
    Finish(prop::sample::Index),
}

/// What a timer should do, by arithmetic.
struct Model {
    first: i64,
    total: u64,
    period: i64,
    taken: u64,
    out: bool,
}

impl Model {
    fn next(&self) -> i64 {
        self.first + i64::try_from(self.taken).unwrap() * self.period
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (0u8..3, 0u8..3, 0i64..5, 1u64..5, 1i64..4)
            .prop_map(|(id, name, due, total, period)| Op::Put { id, name, due, total, period }),
        1 => (0u8..3, 0u8..3).prop_map(|(id, name)| Op::Remove { id, name }),
        1 => (0u8..3).prop_map(|id| Op::RemoveActor { id }),
        3 => (0i64..4).prop_map(Op::Advance),
        4 => (0usize..4).prop_map(Op::Take),
        4 => any::<prop::sample::Index>().prop_map(Op::Finish),
    ];
    prop::collection::vec(op, 0..120)
}

proptest! {
    /// Every tick comes once, in order, not early, one at a time, and all of them come.
    #[test]
    fn every_tick_of_every_living_timer_comes_exactly_once_and_not_early(ops in ops()) {
        let mut table = table();
        let mut now = at(0);
        let mut model: BTreeMap<(u8, u8), Model> = BTreeMap::new();
        let mut out: Vec<Tick> = Vec::new();
        let key = |id: u8| actor(&id.to_string());
        for op in ops {
            match op {
                Op::Put { id, name, due, total, period } => {
                    let made = request(&format!("{due}s"), &format!("R{total}/PT{period}S"), "");
                    table.put(&key(id), &name.to_string(), made, now).unwrap();
                    let first = now.0 + due * SEC;
                    model.insert((id, name), Model { first, total, period: period * SEC, taken: 0, out: false });
                }
                Op::Remove { id, name } => {
                    prop_assert_eq!(table.remove(&key(id), &name.to_string()), model.remove(&(id, name)).is_some());
                }
                Op::RemoveActor { id } => {
                    table.remove_actor(&key(id));
                    model.retain(|(of, _), _| *of != id);
                }
                Op::Advance(secs) => now = Timestamp(now.0 + secs * SEC),
                Op::Take(max) => for tick in table.take_due(now, max) {
                    let (id, name) = (tick.actor.actor_id.parse().unwrap(), tick.name.parse().unwrap());
                    let timer = model.get_mut(&(id, name)).expect("no tick of a deleted timer");
                    prop_assert!(!timer.out, "one tick out at a time");
                    prop_assert_eq!((tick.occurrence, tick.due.0), (timer.taken + 1, timer.next()));
                    prop_assert!(tick.due <= now);
                    (timer.taken, timer.out) = (tick.occurrence, true);
                    out.push(tick);
                },
                Op::Finish(_) if out.is_empty() => {}
                Op::Finish(which) => {
                    let tick = out.swap_remove(which.index(out.len()));
                    let current = table.is_current(&tick.actor, &tick.name, tick.instance, tick.occurrence);
                    table.finished(&tick);
                    if current {
                        let key = (tick.actor.actor_id.parse().unwrap(), tick.name.parse().unwrap());
                        let timer = model.get_mut(&key).unwrap();
                        timer.out = false;
                        if timer.taken == timer.total {
                            model.remove(&key);
                        }
                    }
                }
            }
            prop_assert_eq!(table.len(), model.len());
            let next = model.values().filter(|timer| !timer.out).map(Model::next).min();
            prop_assert_eq!(table.next_due().map(Timestamp::as_micros), next);
        }
    }

    #[test]
    fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_timer(&data);
    }

    #[test]
    fn no_texts_panic(due in "[0-9]{0,3}s|P[0-9]D|\\PC{0,4}", period in "(R[0-9]/)?PT[0-9]S|[0-9]ms|", ttl in "[0-9]s|") {
        let body = serde_json::json!({"dueTime": due, "period": period, "ttl": ttl}).to_string();
        fuzz_timer(body.as_bytes());
    }
}
