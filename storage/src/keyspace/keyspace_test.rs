//! Golden bytes; order, parsing and ranges against the tuples the keys stand for.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn hobbit() -> ActorKey {
    ActorKey::new("ns", "cat", "h\0")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// "ns" END "cat" END "h" NUL END
const HOBBIT: &str = "6e73000163617400016800ff0001";

#[test]
fn log_keys_have_these_bytes() {
    let p1 = GroupId::Partition(callboard_types::PartitionId(1));
    assert_eq!(hex(&log_entry(GroupId::Meta, 258)), "000000000000000000000102");
    assert_eq!(hex(&log_entry(p1, 1)), "000000020000000000000001");
    assert_eq!(hex(&log_slot(p1, LogSlot::Vote)), "0000000201");
    assert_eq!(hex(&log_slot(p1, LogSlot::Committed)), "0000000202");
    assert_eq!(hex(&log_slot(p1, LogSlot::Purged)), "0000000203");
    assert_eq!(hex(&log_first_index(p1)), "0000000204");
    assert_eq!(&log_pairing()[..], b"\xFF\xFF\xFF\xFFnode/pairing");
}

#[test]
fn state_keys_have_these_bytes() {
    let (inc, actor) = (0x0102, &hobbit());
    let at = Timestamp::from_micros;
    let golden = [
        (actor_state(inc, actor, "k"), format!("0000000000000102{HOBBIT}6b")),
        (reminder(inc, actor, "k"), format!("000000000000010201{HOBBIT}6b")),
        (due(inc, at(1), actor, "k"), format!("0000000000000102028000000000000001{HOBBIT}6b")),
        (due(inc, at(-1), actor, "k"), format!("0000000000000102027fffffffffffffff{HOBBIT}6b")),
        (applied(inc), "000000000000010201".into()),
        (membership(inc), "000000000000010202".into()),
        (ownership(inc), "000000000000010203".into()),
        (clock(inc), "000000000000010204".into()),
        (snapshot(inc), "000000000000010205".into()),
        (counter(inc, Counter::DroppedFirings), "00000000000001020601".into()),
        (last_write(inc, actor), format!("000000000000010207{HOBBIT}")),
        (dropped(inc, 3, 4), "000000000000010208000000000000000300000004".into()),
        (meta_row(inc, 7, b"row"), "00000000000001020907726f77".into()),
        (pointer(GroupId::Meta), "00000000000000000100000000".into()),
        (next_incarnation(), "000000000000000002".into()),
        (state_pairing(), "000000000000000003".into()),
        (meta_copy(), "000000000000000004".into()),
    ];
    for (key, expected) in golden {
        assert_eq!(hex(&key), expected);
    }
}

#[test]
fn a_range_ends_behind_every_key_that_starts_so() {
    assert_eq!(incarnation_range(1).end, incarnation_range(2).start);
    assert_eq!(hex(&incarnation_range(0xFF).end), "00000000000001");
    assert!(incarnation_range(0xFF).end <= incarnation_range(0x100).start);
    assert_eq!(hex(&incarnation_range(u64::MAX).end), "ffffffffffffffffff");
    let highest = meta_row(u64::MAX, 0xFF, &[0xFF; 20]);
    assert!(incarnation_range(u64::MAX).contains(&highest));
    assert!(incarnation_range(u64::MAX).contains(&actor_state(u64::MAX, &ActorKey::new("\u{10FFFF}", "", ""), "")));
}

#[test]
fn broken_keys_are_refused() {
    let key = |rest: &[u8]| [&[0; 8], rest].concat();
    let cases: [&[u8]; 7] =
        [b"", b"a", b"a\0", b"a\0\x02", b"a\0\x01", b"a\0\x01b\0\x01c", b"\xC3\0\x01b\0\x01c\0\x01d"];
    for broken in cases {
        assert!(parse_actor_state(&key(broken)).is_err(), "{broken:?}");
    }
    assert!(parse_actor_state(&key(b"a\0\x01b\0\x01c\0\x01\xC3")).is_err());
    assert!(parse_actor_state(&[0; 7]).is_err());
    assert!(parse_reminder(&due(1, Timestamp::MIN, &hobbit(), "n")).is_err());
    assert!(parse_due(&reminder(1, &hobbit(), "n")).is_err());
    assert!(parse_last_write(&[&last_write(1, &hobbit())[..], b"x"].concat()).is_err());
    assert!(parse_pointer(&applied(1)).is_err());
    assert!(parse_log_entry(&[0; 13]).is_err());
    assert!(parse_log_meta(&[0, 0, 0, 0, 5]).is_err());
    assert_eq!(parse_log_meta(&log_pairing()).unwrap(), None);
}

/// Texts that are prefixes of each other, hold the bytes of the encoding itself, or end at the top of UTF-8.
fn text() -> impl Strategy<Value = String> {
    vec(select(vec!['\0', '\u{1}', 'a', 'b', '|', '\u{7F}', '\u{FF}', '\u{10FFFF}']), 0..4).prop_map(String::from_iter)
}

fn actor() -> impl Strategy<Value = ActorKey> {
    (text(), text(), text()).prop_map(|(namespace, actor_type, id)| ActorKey::new(namespace, actor_type, id))
}

fn incarnation() -> impl Strategy<Value = u64> {
    select(vec![1, 2, 255, 256, u64::MAX - 1, u64::MAX])
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<i64>(), -2..3i64, select(vec![i64::MIN, i64::MAX])].prop_map(Timestamp::from_micros)
}

proptest! {
    #[test]
    fn state_keys_sort_as_their_parts(a in (incarnation(), actor(), text()), b in (incarnation(), actor(), text())) {
        let key = |(inc, actor, key): &(u64, ActorKey, String)| actor_state(*inc, actor, key);
        prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
    }

    #[test]
    fn due_keys_sort_as_their_parts(
        a in (incarnation(), time(), actor(), text()),
        b in (incarnation(), time(), actor(), text()),
    ) {
        let key = |(inc, at, actor, name): &(u64, Timestamp, ActorKey, String)| due(*inc, *at, actor, name);
        prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
    }

    #[test]
    fn dropped_firings_and_entries_sort_by_number(a: (u64, u64, u32), b: (u64, u64, u32)) {
        prop_assert_eq!(dropped(a.0, a.1, a.2).cmp(&dropped(b.0, b.1, b.2)), a.cmp(&b));
        let (first, second) = (GroupId::from_u32(a.2), GroupId::from_u32(b.2));
        prop_assert_eq!(log_entry(first, a.1).cmp(&log_entry(second, b.1)), (a.2, a.1).cmp(&(b.2, b.1)));
    }

    #[test]
    fn what_is_built_is_parsed(inc: u64, actor in actor(), name in text(), at in time(), index: u64, n: u32, table: u8) {
        prop_assert_eq!(parse_actor_state(&actor_state(inc, &actor, &name)).unwrap(), (inc, actor.clone(), name.clone()));
        prop_assert_eq!(parse_reminder(&reminder(inc, &actor, &name)).unwrap(), (inc, actor.clone(), name.clone()));
        prop_assert_eq!(parse_due(&due(inc, at, &actor, &name)).unwrap(), (inc, at, actor.clone(), name.clone()));
        prop_assert_eq!(parse_last_write(&last_write(inc, &actor)).unwrap(), (inc, actor));
        prop_assert_eq!(parse_dropped(&dropped(inc, index, n)).unwrap(), (inc, index, n));
        let row = meta_row(inc, table, name.as_bytes());
        prop_assert_eq!(parse_meta_row(&row).unwrap(), (inc, table, name.as_bytes()));
        let group = GroupId::from_u32(n);
        prop_assert_eq!(parse_log_entry(&log_entry(group, index)).unwrap(), (group, index));
        prop_assert_eq!(parse_pointer(&pointer(group)).unwrap(), group);
        for slot in [LogSlot::Vote, LogSlot::Committed, LogSlot::Purged] {
            prop_assert_eq!(parse_log_meta(&log_slot(group, slot)).unwrap(), Some(group));
        }
        let key = actor_state(1, &hobbit(), &name);
        let (_, within) = split_incarnation(&key).unwrap();
        prop_assert_eq!(join_incarnation(inc, within), actor_state(inc, &hobbit(), &name));
    }

    #[test]
    fn a_range_holds_the_keys_it_names_and_no_other(
        row in (incarnation(), actor(), text()),
        of in (incarnation(), actor(), text()),
        prefix in text(),
    ) {
        let ((inc, actor, name), (of_inc, of, _)) = (&row, &of);
        let namespace = inc == of_inc && actor.namespace == of.namespace;
        let typed = namespace && actor.actor_type == of.actor_type;
        let by_id = typed && actor.actor_id.starts_with(&prefix);
        let same = inc == of_inc && actor == of;

        let key = actor_state(*inc, actor, name);
        prop_assert_eq!(incarnation_range(*of_inc).contains(&key), inc == of_inc);
        prop_assert_eq!(namespace_range(*of_inc, &of.namespace).contains(&key), namespace);
        prop_assert_eq!(type_range(*of_inc, &of.namespace, &of.actor_type, "").contains(&key), typed);
        prop_assert_eq!(type_range(*of_inc, &of.namespace, &of.actor_type, &prefix).contains(&key), by_id);
        prop_assert_eq!(actor_range(*of_inc, of).contains(&key), same);
        let by_key = same && name.starts_with(&prefix);
        prop_assert_eq!(actor_key_prefix_range(*of_inc, of, &prefix).contains(&key), by_key);

        let key = reminder(*inc, actor, name);
        prop_assert_eq!(reminders_range(*of_inc).contains(&key), inc == of_inc);
        prop_assert_eq!(namespace_reminders_range(*of_inc, &of.namespace).contains(&key), namespace);
        prop_assert_eq!(type_reminders_range(*of_inc, &of.namespace, &of.actor_type, &prefix).contains(&key), by_id);
        prop_assert_eq!(actor_reminders_range(*of_inc, of).contains(&key), same);
        prop_assert!(!due_all(*of_inc).contains(&key));
    }

    #[test]
    fn a_due_range_holds_the_instants_from_its_start_to_before_its_end(
        at in time(), from in time(), until in time(), actor in actor(), name in text(),
    ) {
        let key = due(7, at, &actor, &name);
        prop_assert_eq!(due_range(7, from, until).contains(&key), from <= at && at < until);
        prop_assert!(due_all(7).contains(&key));
        prop_assert!(!due_all(8).contains(&key));
        prop_assert!(!reminders_range(7).contains(&key));
    }

    #[test]
    fn nothing_lies_between_a_key_and_what_comes_after_it(a: Vec<u8>, b: Vec<u8>) {
        prop_assert!(after(&a) > a);
        prop_assert_eq!(b > a, b.as_slice() >= &after(&a)[..]);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(data: Vec<u8>, tag in 0u8..11, parts in vec(text(), 0..5)) {
        fuzz_decode(&data);
        let mut key = vec![0, 0, 0, 0, 0, 0, 0, 1, tag];
        for part in parts {
            key.extend(part.bytes());
            key.extend([0, 1]);
        }
        fuzz_decode(&key);
        fuzz_decode(&key[..key.len() - 1]);
    }
}
