//! A partition's tables over its rows: the machine's reads and writes become keys and records.
//!
//! Decides nothing but where a row lives. The due index of reminders follows their rows here, so that neither can exist
//! without the other. What every command asks for (clock, ownership, count of dropped firings) is held decoded in
//! [`Facts`] and read from the rows only at start and after an installed snapshot.

use bytes::Bytes;
use callboard_machine::partition::{DroppedFiring, LastWrite, Ownership, Reminder, StateValue, Tables};
use callboard_storage::keyspace::{self, Counter};
use callboard_storage::{Error, StateView, Table, codec};
use callboard_types::{ActorKey, Timestamp};

use crate::convert::{ClockRecord, DroppedCount, Storable};
use crate::overlay::Overlay;

/// Rows of a partition that are one of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    pub ownership: Option<Ownership>,
    pub clock: Timestamp,
    pub dropped: u64,
}

impl Facts {
    pub fn read(view: &(impl StateView + ?Sized), incarnation: u64) -> Result<Self, Error> {
        let row = |key: Bytes| view.get(Table::System, &key);
        let ownership = row(keyspace::ownership(incarnation))?.map(|row| Ownership::decode(&row)).transpose()?;
        let clock = row(keyspace::clock(incarnation))?.map(|row| ClockRecord::decode(&row)).transpose()?;
        let dropped = row(keyspace::counter(incarnation, Counter::DroppedFirings))?;
        let dropped = dropped.map(|row| DroppedCount::decode(&row)).transpose()?;
        Ok(Self {
            ownership,
            clock: clock.map_or(Timestamp::default(), |clock| clock.0),
            dropped: dropped.map_or(0, |count| count.0),
        })
    }
}

/// The tables within one apply batch.
pub struct PartitionTables<'a> {
    pub rows: &'a mut Overlay,
    pub facts: &'a mut Facts,
    pub incarnation: u64,
}

impl PartitionTables<'_> {
    fn set_dropped(&mut self, dropped: u64) {
        self.facts.dropped = dropped;
        let key = keyspace::counter(self.incarnation, Counter::DroppedFirings);
        self.rows.put(Table::System, key, DroppedCount(dropped).encode());
    }

    fn forget_due(&mut self, actor: &ActorKey, name: &str) -> Result<(), Error> {
        if let Some(old) = self.reminder(actor, name)? {
            self.rows.delete(Table::Reminder, keyspace::due(self.incarnation, old.due, actor, name));
        }
        Ok(())
    }
}

impl Tables for PartitionTables<'_> {
    type Error = Error;

    fn ownership(&self) -> Result<Option<Ownership>, Error> {
        Ok(self.facts.ownership)
    }

    fn set_ownership(&mut self, ownership: Ownership) -> Result<(), Error> {
        self.rows.put(Table::System, keyspace::ownership(self.incarnation), ownership.encode());
        self.facts.ownership = Some(ownership);
        Ok(())
    }

    fn clock(&self) -> Result<Timestamp, Error> {
        Ok(self.facts.clock)
    }

    fn set_clock(&mut self, clock: Timestamp) -> Result<(), Error> {
        self.rows.put(Table::System, keyspace::clock(self.incarnation), ClockRecord(clock).encode());
        self.facts.clock = clock;
        Ok(())
    }

    fn state(&self, actor: &ActorKey, key: &str) -> Result<Option<StateValue>, Error> {
        let row = self.rows.get(Table::State, keyspace::actor_state(self.incarnation, actor, key))?;
        row.map(|row| state_value(&row)).transpose()
    }

    fn put_state(&mut self, actor: &ActorKey, key: &str, value: StateValue) -> Result<(), Error> {
        let row = codec::encode_state_value(value.expires_at, &value.value);
        self.rows.put(Table::State, keyspace::actor_state(self.incarnation, actor, key), row);
        Ok(())
    }

    fn delete_state(&mut self, actor: &ActorKey, key: &str) -> Result<(), Error> {
        self.rows.delete(Table::State, keyspace::actor_state(self.incarnation, actor, key));
        Ok(())
    }

    fn delete_all_state(&mut self, actor: &ActorKey) -> Result<(), Error> {
        self.rows.delete_range(Table::State, keyspace::actor_range(self.incarnation, actor))
    }

    fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Option<Reminder>, Error> {
        let row = self.rows.get(Table::Reminder, keyspace::reminder(self.incarnation, actor, name))?;
        row.map(|row| Reminder::decode(&row)).transpose()
    }

    fn reminders(&self, actor: &ActorKey) -> Result<Vec<(String, Reminder)>, Error> {
        let range = keyspace::actor_reminders_range(self.incarnation, actor);
        let rows = self.rows.scan(Table::Reminder, range, usize::MAX)?;
        rows.iter()
            .map(|(key, row)| {
                let (_, _, name) = keyspace::parse_reminder(key)?;
                Ok((name, Reminder::decode(row)?))
            })
            .collect()
    }

    fn put_reminder(&mut self, actor: &ActorKey, name: &str, reminder: Reminder) -> Result<(), Error> {
        self.forget_due(actor, name)?;
        self.rows.put(Table::Reminder, keyspace::due(self.incarnation, reminder.due, actor, name), Bytes::new());
        self.rows.put(Table::Reminder, keyspace::reminder(self.incarnation, actor, name), reminder.encode());
        Ok(())
    }

    fn delete_reminder(&mut self, actor: &ActorKey, name: &str) -> Result<(), Error> {
        self.forget_due(actor, name)?;
        self.rows.delete(Table::Reminder, keyspace::reminder(self.incarnation, actor, name));
        Ok(())
    }

    fn last_write(&self, actor: &ActorKey) -> Result<Option<LastWrite>, Error> {
        let row = self.rows.get(Table::System, keyspace::last_write(self.incarnation, actor))?;
        row.map(|row| LastWrite::decode(&row)).transpose()
    }

    fn set_last_write(&mut self, actor: &ActorKey, write: LastWrite) -> Result<(), Error> {
        self.rows.put(Table::System, keyspace::last_write(self.incarnation, actor), write.encode());
        Ok(())
    }

    fn delete_last_write(&mut self, actor: &ActorKey) -> Result<(), Error> {
        self.rows.delete(Table::System, keyspace::last_write(self.incarnation, actor));
        Ok(())
    }

    fn dropped_len(&self) -> Result<u64, Error> {
        Ok(self.facts.dropped)
    }

    fn push_dropped(&mut self, index: u64, position: u32, firing: DroppedFiring) -> Result<(), Error> {
        self.rows.put(Table::System, keyspace::dropped(self.incarnation, index, position), firing.encode());
        self.set_dropped(self.facts.dropped + 1);
        Ok(())
    }

    fn pop_oldest_dropped(&mut self) -> Result<(), Error> {
        let oldest = self.rows.scan(Table::System, keyspace::dropped_range(self.incarnation), 1)?;
        if let Some((key, _)) = oldest.into_iter().next() {
            self.rows.delete(Table::System, key);
            self.set_dropped(self.facts.dropped.saturating_sub(1));
        }
        Ok(())
    }
}

/// The value in a row of actor state.
pub fn state_value(row: &Bytes) -> Result<StateValue, Error> {
    let (expires_at, value) = codec::decode_state_value(row)?;
    Ok(StateValue { value, expires_at })
}
