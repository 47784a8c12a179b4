//! Reads of the state store, now and at one moment, by the same code.
//!
//! A RocksDB snapshot borrows its database, a [`StateView`] has no lifetime: [`Moment`] keeps both in one cell. The
//! database stays open, and the directory locked, until the last view is dropped.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions, Snapshot};
use self_cell::self_cell;

use super::options;
use super::state::Inner;
use crate::{Error, Pair, StateView, Table};

self_cell!(
    struct Cell {
        owner: Arc<Inner>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// The state store at one moment.
pub struct Moment(Cell);

impl Moment {
    pub fn take(inner: Arc<Inner>) -> Self {
        Self(Cell::new(inner, |inner| inner.db.snapshot()))
    }
}

impl StateView for Moment {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let (inner, snapshot) = (self.0.borrow_owner(), self.0.borrow_dependent());
        found(snapshot.get_cf(inner.family(table), key))
    }

    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        let (inner, snapshot) = (self.0.borrow_owner(), self.0.borrow_dependent());
        scan(&range, limit, |read| snapshot.raw_iterator_cf_opt(inner.family(table), read))
    }

    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        let (inner, snapshot) = (self.0.borrow_owner(), self.0.borrow_dependent());
        scan_back(&range, limit, |read| snapshot.raw_iterator_cf_opt(inner.family(table), read))
    }
}

impl StateView for Inner {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        found(self.db.get_cf(self.family(table), key))
    }

    fn scan(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        scan(&range, limit, |read| self.db.raw_iterator_cf_opt(self.family(table), read))
    }

    fn scan_back(&self, table: Table, range: Range<Bytes>, limit: usize) -> Result<Vec<Pair>, Error> {
        scan_back(&range, limit, |read| self.db.raw_iterator_cf_opt(self.family(table), read))
    }
}

fn found(row: Result<Option<Vec<u8>>, rocksdb::Error>) -> Result<Option<Bytes>, Error> {
    row.map(|row| row.map(Bytes::from)).map_err(|error| Error::io("read state", error))
}

fn scan<'a>(
    range: &Range<Bytes>,
    limit: usize,
    open: impl FnOnce(ReadOptions) -> DBRawIterator<'a>,
) -> Result<Vec<Pair>, Error> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = open(options::bounded(&range.start, &range.end));
    rows.seek(&range.start);
    collect(rows, limit, DBRawIterator::next)
}

fn scan_back<'a>(
    range: &Range<Bytes>,
    limit: usize,
    open: impl FnOnce(ReadOptions) -> DBRawIterator<'a>,
) -> Result<Vec<Pair>, Error> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = open(options::bounded(&range.start, &range.end));
    rows.seek_to_last();
    collect(rows, limit, DBRawIterator::prev)
}

fn collect<'a>(
    mut rows: DBRawIterator<'a>,
    limit: usize,
    step: fn(&mut DBRawIterator<'a>),
) -> Result<Vec<Pair>, Error> {
    let mut pairs = Vec::new();
    while pairs.len() < limit
        && let Some((key, value)) = rows.item()
    {
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if pairs.len() < limit {
            step(&mut rows);
        }
    }
    rows.status().map_err(|error| Error::io("scan state", error))?;
    Ok(pairs)
}
