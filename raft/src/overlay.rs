//! The writes of one apply batch, over the state they are to change.
//!
//! Reads see the batch's earlier writes; nothing reaches the store before [`Overlay::take`]. A deleted range hides what
//! the store has in it, and what the batch puts there afterwards is seen again.
//!
//! Invariant: a key has one final fate in a batch, so the order of deletes and puts in it does not matter.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;
use callboard_storage::{Error, Pair, StateBatch, StateDb, Table};

/// Keys that are deleted one by one; more are deleted as a range. Ranges cost every later read of their place a little.
const MAX_SINGLE_DELETES: usize = 64;

pub struct Overlay {
    db: Arc<dyn StateDb>,
    /// `None`: deleted.
    writes: BTreeMap<(Table, Bytes), Option<Bytes>>,
    /// Start to end; disjoint, because each is all rows of one actor.
    cleared: BTreeMap<(Table, Bytes), Bytes>,
    bytes: usize,
}

impl Overlay {
    pub fn new(db: Arc<dyn StateDb>) -> Self {
        Self { db, writes: BTreeMap::new(), cleared: BTreeMap::new(), bytes: 0 }
    }

    /// Key and value bytes written so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, table: Table, key: Bytes) -> Result<Option<Bytes>, Error> {
        let place = (table, key);
        if let Some(write) = self.writes.get(&place) {
            return Ok(write.clone());
        }
        let (table, key) = place;
        if self.is_cleared(table, &key) { Ok(None) } else { self.db.get(table, &key) }
    }

    fn is_cleared(&self, table: Table, key: &Bytes) -> bool {
        let before = self.cleared.range(..=(table, key.clone())).next_back();
        before.is_some_and(|((cleared, _), end)| *cleared == table && key < end)
    }

    pub fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.writes.insert((table, key), Some(value));
    }

    pub fn delete(&mut self, table: Table, key: Bytes) {
        self.bytes += key.len();
        self.writes.insert((table, key), None);
    }

    /// Deletes every row of `range`, which is always the same for one set of rows.
    pub fn delete_range(&mut self, table: Table, range: Range<Bytes>) -> Result<(), Error> {
        let written: Vec<_> = self.written(table, &range).map(|(key, _)| key.clone()).collect();
        let stored = self.db.scan(table, range.clone(), MAX_SINGLE_DELETES + 1)?;
        self.bytes += range.start.len() + range.end.len();
        if stored.len() + written.len() <= MAX_SINGLE_DELETES {
            let keys = stored.into_iter().map(|(key, _)| key).chain(written);
            self.writes.extend(keys.map(|key| ((table, key), None)));
        } else {
            written.into_iter().for_each(|key| drop(self.writes.remove(&(table, key))));
            self.cleared.insert((table, range.start), range.end);
        }
        Ok(())
    }

    fn written(&self, table: Table, range: &Range<Bytes>) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> + use<'_> {
        let bounds = (Bound::Included((table, range.start.clone())), Bound::Excluded((table, range.end.clone())));
        self.writes.range(bounds).map(|((_, key), write)| (key, write))
    }

    /// Pairs of `range` in key order, at most `limit`.
    pub fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        let written: BTreeMap<Bytes, Option<Bytes>> =
            self.written(table, &range).map(|(key, write)| (key.clone(), write.clone())).collect();
        // Each written key hides one stored pair at most, so this many stored pairs are enough.
        let stored = self.db.scan(table, range, limit.saturating_add(written.len()))?;
        let visible = stored.into_iter().filter(|(key, _)| !self.is_cleared(table, key));
        let mut merged: BTreeMap<Bytes, Option<Bytes>> = visible.map(|(key, value)| (key, Some(value))).collect();
        merged.extend(written);
        Ok(merged.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).take(limit).collect())
    }

    /// Everything written, to be stored at once; the overlay is empty afterwards.
    pub fn take(&mut self) -> StateBatch {
        let mut batch = StateBatch::default();
        for ((table, start), end) in std::mem::take(&mut self.cleared) {
            batch.delete_range(table, start..end);
        }
        for ((table, key), write) in std::mem::take(&mut self.writes) {
            match write {
                Some(value) => batch.put(table, key, value),
                None => batch.delete(table, key),
            }
        }
        self.bytes = 0;
        batch
    }
}

#[cfg(test)]
#[path = "overlay/overlay_test.rs"]
mod tests;
