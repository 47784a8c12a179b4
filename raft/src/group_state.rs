//! What the parts of one replica know in common: where its rows are, what has been applied, and how much of that a
//! crash cannot take back.
//!
//! Invariants: `durable` never passes `applied`; both only rise, except that an installed snapshot replaces them
//! together. The log is purged up to `durable` at most, so whatever a crash takes from the state store, the log still
//! has.

use std::sync::atomic::{AtomicU64, Ordering};

use callboard_storage::{Error, StateView, Table, keyspace};
use callboard_types::GroupId;
use parking_lot::Mutex;

use crate::convert::Storable;
use crate::type_config::{LogId, StoredMembership};

/// Where a group's state machine stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    pub last: Option<LogId>,
    pub membership: StoredMembership,
}

impl Applied {
    /// As the rows of `incarnation` say.
    pub fn read(view: &(impl StateView + ?Sized), incarnation: u64) -> Result<Self, Error> {
        let last = view.get(Table::System, &keyspace::applied(incarnation))?;
        let membership = view.get(Table::System, &keyspace::membership(incarnation))?;
        Ok(Self {
            last: last.map(|row| LogId::decode(&row)).transpose()?,
            membership: membership.map(|row| StoredMembership::decode(&row)).transpose()?.unwrap_or_default(),
        })
    }

    pub fn index(&self) -> Option<u64> {
        self.last.map(|last| last.index)
    }
}

pub struct GroupState {
    pub group: GroupId,
    pub replica: u64,
    incarnation: AtomicU64,
    applied: Mutex<Applied>,
    durable: Mutex<Applied>,
    /// The replica is held, and its record may be written.
    held: Mutex<bool>,
}

impl GroupState {
    /// `applied` must be on disk.
    pub fn new(group: GroupId, replica: u64, incarnation: u64, applied: Applied) -> Self {
        let durable = Mutex::new(applied.clone());
        let (incarnation, held) = (AtomicU64::new(incarnation), Mutex::new(true));
        Self { group, replica, incarnation, applied: Mutex::new(applied), durable, held }
    }

    /// Writes the replica's record, unless the replica has left.
    pub fn while_held(&self, write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let held = self.held.lock();
        if *held { write() } else { Err(Error::Stopped) }
    }

    /// Writes the last record of the replica; nothing overwrites it afterwards.
    pub fn leave(&self, write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut held = self.held.lock();
        *held = false;
        write()
    }

    /// Prefix of the replica's rows.
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    pub fn applied(&self) -> Applied {
        self.applied.lock().clone()
    }

    pub fn applied_index(&self) -> Option<u64> {
        self.applied.lock().index()
    }

    /// Called after the rows have been written.
    pub fn set_applied(&self, applied: Applied) {
        *self.applied.lock() = applied;
    }

    pub fn durable(&self) -> Applied {
        self.durable.lock().clone()
    }

    /// Called with what was applied before a flush began, once the flush has ended.
    pub fn set_durable(&self, applied: Applied) {
        let mut durable = self.durable.lock();
        if applied.last >= durable.last {
            *durable = applied;
        }
    }

    /// A received snapshot is on disk and has become the state.
    pub fn switch(&self, incarnation: u64, applied: Applied) {
        let mut durable = self.durable.lock();
        let mut current = self.applied.lock();
        self.incarnation.store(incarnation, Ordering::Release);
        *durable = applied.clone();
        *current = applied;
    }
}
