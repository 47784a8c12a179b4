//! The meta state that a node keeps without a replica of the meta group, so that a restart knows the table and the
//! settings while nobody answers.
//!
//! Its rows are those of a replica, under an incarnation of their own. Nothing is synced: an older copy is as good as a
//! younger one for a start, and the feed brings the rest. A whole state is written under a fresh incarnation, and the
//! record moves to it in the same batch.

use std::sync::Arc;

use callboard_machine::meta::{MetaKey, MetaState};
use callboard_storage::{Error, StateBatch, StateDb, StateView, Table, keyspace};

use crate::convert::{MetaCopyRecord, Storable, encode_meta_row};
use crate::group_state::Applied;
use crate::incarnations::Incarnations;
use crate::rules::{meta_row, read_meta};
use crate::type_config::log_id;

/// Indexes of a copy stand in records of log ids; the term is not known here.
const NO_TERM: u64 = 0;

#[derive(Debug, Default)]
pub struct MetaCopy {
    /// Where the rows are; `None`: there is no copy.
    incarnation: Option<u64>,
    index: u64,
}

impl MetaCopy {
    /// Finds the copy and what is in it.
    pub fn open(db: &dyn StateDb) -> Result<(Self, MetaState), Error> {
        let Some(incarnation) = incarnation(db)? else { return Ok((Self::default(), MetaState::default())) };
        let index = Applied::read(db, incarnation)?.index().unwrap_or(0);
        Ok((Self { incarnation: Some(incarnation), index }, read_meta(db, incarnation)?))
    }

    pub fn index(&self) -> u64 {
        self.index
    }

    /// There is a copy, and it stands at `index`.
    pub fn follows(&self, index: u64) -> bool {
        self.incarnation.is_some() && self.index == index
    }

    /// Writes the rows that have changed since [`MetaCopy::index`].
    pub fn change(&mut self, db: &dyn StateDb, state: &MetaState, dirty: &[MetaKey], index: u64) -> Result<(), Error> {
        let Some(incarnation) = self.incarnation else { return Err(Error::Stopped) };
        let mut batch = StateBatch::default();
        for key in dirty {
            match meta_row(state, incarnation, key) {
                (key, Some(value)) => batch.put(Table::System, key, value),
                (key, None) => batch.delete(Table::System, key),
            }
        }
        batch.put(Table::System, keyspace::applied(incarnation), log_id(NO_TERM, index).encode());
        db.write(batch)?;
        self.index = index;
        Ok(())
    }

    /// Writes the whole state.
    pub fn replace(
        &mut self,
        db: &Arc<dyn StateDb>,
        incarnations: &Incarnations,
        state: &MetaState,
        index: u64,
    ) -> Result<(), Error> {
        let incarnation = incarnations.allocate()?;
        let mut batch = StateBatch::default();
        if let Some(former) = self.incarnation {
            batch.delete_range(Table::System, keyspace::incarnation_range(former));
        }
        for row in state.rows() {
            let (table, name, value) = encode_meta_row(&row);
            batch.put(Table::System, keyspace::meta_row(incarnation, table, &name), value);
        }
        batch.put(Table::System, keyspace::applied(incarnation), log_id(NO_TERM, index).encode());
        batch.put(Table::System, keyspace::meta_copy(), MetaCopyRecord { incarnation }.encode());
        db.write(batch)?;
        *self = Self { incarnation: Some(incarnation), index };
        Ok(())
    }
}

/// Where the rows of the copy are.
pub fn incarnation(view: &(impl StateView + ?Sized)) -> Result<Option<u64>, Error> {
    let record = view.get(Table::System, &keyspace::meta_copy())?;
    record.map(|record| Ok(MetaCopyRecord::decode(&record)?.incarnation)).transpose()
}
