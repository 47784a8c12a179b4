//! The numbers under which a node keeps the rows of its replicas. One is never used twice on a node.

use std::sync::Arc;

use bytes::Bytes;
use callboard_storage::{Error, StateBatch, StateDb, Table, keyspace};
use parking_lot::Mutex;

use crate::convert::corrupt;

pub struct Incarnations {
    db: Arc<dyn StateDb>,
    next: Mutex<u64>,
}

impl Incarnations {
    /// Begins above every incarnation that has a row, and above the stored mark.
    pub fn open(db: Arc<dyn StateDb>) -> Result<Self, Error> {
        let mark = db.get(Table::System, &keyspace::next_incarnation())?.map(|row| decode(&row)).transpose()?;
        let highest = keyspace::incarnations(&*db)?.last().copied().unwrap_or(keyspace::NODE);
        let next = mark.unwrap_or(1).max(highest + 1);
        Ok(Self { db, next: Mutex::new(next) })
    }

    /// A number that nothing refers to. The raised mark is flushed with the rows that are written under the number.
    pub fn allocate(&self) -> Result<u64, Error> {
        let mut next = self.next.lock();
        let incarnation = *next;
        let mut batch = StateBatch::default();
        batch.put(Table::System, keyspace::next_incarnation(), encode(incarnation + 1));
        self.db.write(batch)?;
        *next += 1;
        Ok(incarnation)
    }
}

const VERSION: u8 = 1;

fn encode(next: u64) -> Bytes {
    std::iter::once(VERSION).chain(next.to_be_bytes()).collect()
}

fn decode(row: &[u8]) -> Result<u64, Error> {
    match row.split_first() {
        Some((&VERSION, number)) => match number.try_into() {
            Ok(number) => Ok(u64::from_be_bytes(number)),
            Err(_) => Err(corrupt("next incarnation", "wrong length")),
        },
        Some((version, _)) => Err(corrupt("next incarnation", format!("version {version}"))),
        None => Err(corrupt("next incarnation", "empty")),
    }
}

#[cfg(test)]
mod tests {
    use callboard_storage::Memory;

    use super::*;

    #[test]
    fn no_incarnation_is_handed_out_twice_even_after_a_crash() {
        let memory = Memory::new();
        let db = memory.open().state;
        let first = Incarnations::open(db.clone()).unwrap();
        assert_eq!((first.allocate().unwrap(), first.allocate().unwrap()), (1, 2));
        db.flush().unwrap();
        assert_eq!(first.allocate().unwrap(), 3);
        memory.crash();
        // The mark was lost with the crash, and with it every row that could have been written under 3.
        let db = memory.open().state;
        assert_eq!(Incarnations::open(db.clone()).unwrap().allocate().unwrap(), 3);
        // Rows that did reach the disk count, whatever the mark says.
        let mut batch = StateBatch::default();
        batch.put(Table::State, keyspace::join_incarnation(9, b"row"), Bytes::new());
        db.write(batch).unwrap();
        assert_eq!(Incarnations::open(db).unwrap().allocate().unwrap(), 10);
    }

    #[test]
    fn the_stored_mark_keeps_its_bytes() {
        assert_eq!(encode(0x0102).as_ref(), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(decode(&encode(7)).unwrap(), 7);
        for broken in [&[][..], &[1], &[2, 0, 0, 0, 0, 0, 0, 0, 1]] {
            assert!(decode(broken).is_err());
        }
    }
}
