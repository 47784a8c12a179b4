//! An overlay reads as the store would after its batch was written.

use callboard_storage::Memory;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Put(u8, u8, u8),
    Delete(u8, u8),
    /// All rows of one group of keys.
    Clear(u8),
    /// Stores what is pending and goes on.
    Store,
}

fn key(group: u8, row: u8) -> Bytes {
    Bytes::copy_from_slice(&[group, row])
}

fn group_range(group: u8) -> Range<Bytes> {
    Bytes::copy_from_slice(&[group])..Bytes::copy_from_slice(&[group + 1])
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..3u8, any::<u8>(), any::<u8>()).prop_map(|(group, row, value)| Op::Put(group, row, value)),
        2 => (0..3u8, any::<u8>()).prop_map(|(group, row)| Op::Delete(group, row)),
        1 => (0..3u8).prop_map(Op::Clear),
        1 => Just(Op::Store),
    ];
    prop::collection::vec(op, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reads_see_the_batch_and_the_batch_is_what_they_saw(ops in ops()) {
        let stores = Memory::new().open();
        let db = stores.state;
        let mut overlay = Overlay::new(db.clone());
        let mut model = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put(group, row, value) => {
                    overlay.put(Table::State, key(group, row), Bytes::copy_from_slice(&[value]));
                    model.insert(key(group, row), Bytes::copy_from_slice(&[value]));
                }
                Op::Delete(group, row) => {
                    overlay.delete(Table::State, key(group, row));
                    model.remove(&key(group, row));
                }
                Op::Clear(group) => {
                    overlay.delete_range(Table::State, group_range(group)).unwrap();
                    model.retain(|key, _| key[0] != group);
                }
                Op::Store => db.write(overlay.take()).unwrap(),
            }
        }
        let expected: Vec<Pair> = model.into_iter().collect();
        let all = key(0, 0)..key(9, 0);
        prop_assert_eq!(&overlay.scan(Table::State, all.clone(), usize::MAX).unwrap(), &expected);
        let few = overlay.scan(Table::State, all.clone(), 3).unwrap();
        prop_assert_eq!(&few[..], &expected[..expected.len().min(3)]);
        for (key, value) in &expected {
            prop_assert_eq!(overlay.get(Table::State, key.clone()).unwrap(), Some(value.clone()));
        }
        db.write(overlay.take()).unwrap();
        prop_assert_eq!(db.scan(Table::State, all, usize::MAX).unwrap(), expected);
    }
}

#[test]
fn a_cleared_range_hides_what_is_stored_and_shows_what_comes_after() {
    let db = Memory::new().open().state;
    let mut stored = StateBatch::default();
    (0..=u8::MAX).for_each(|row| stored.put(Table::State, key(1, row), Bytes::from_static(b"old")));
    db.write(stored).unwrap();
    let mut overlay = Overlay::new(db.clone());
    overlay.delete_range(Table::State, group_range(1)).unwrap();
    overlay.put(Table::State, key(1, 7), Bytes::from_static(b"after"));
    assert_eq!(overlay.get(Table::State, key(1, 6)).unwrap(), None);
    let expected = vec![(key(1, 7), Bytes::from_static(b"after"))];
    assert_eq!(overlay.scan(Table::State, group_range(1), 9).unwrap(), expected);
    db.write(overlay.take()).unwrap();
    assert_eq!(db.scan(Table::State, group_range(1), 9).unwrap(), expected);
}
