//! What is stored, as the owner reads it: linearizable, without a round trip.
//!
//! Everything that was acknowledged has applied on this replica before it was acknowledged, so a read is as fresh as
//! any while this replica owns the partition. It is asked whether it does before the read and after it: the second
//! question closes the gap of a pause in between.

use callboard_machine::partition::{DroppedFiring, Reminder, StateValue};
use callboard_raft::{ActorQuery, ActorRow, Reader, StateRow};
use callboard_types::ActorKey;

use super::{Error, Reign};
use crate::clock;

/// Where a scan goes on: after this actor and key or name.
pub type After = (ActorKey, String);

/// State keys that a listing names per actor.
const KEYS_LISTED: usize = 1_000;

/// Which actors a listing asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub namespace: String,
    pub actor_type: Option<String>,
    pub id_prefix: String,
    pub after: Option<ActorKey>,
    pub limit: usize,
}

impl Reign {
    /// One key of one actor. A point read: made in place.
    pub fn state(&self, actor: &ActorKey, key: &str) -> Result<Option<StateValue>, Error> {
        self.tenure.check()?;
        let value = self.partition.reader().state(actor, key, clock::wall()).map_err(storage)?;
        self.tenure.check()?;
        Ok(value)
    }

    pub fn reminder(&self, actor: &ActorKey, name: &str) -> Result<Option<Reminder>, Error> {
        self.tenure.check()?;
        let reminder = self.partition.reader().reminder(actor, name).map_err(storage)?;
        self.tenure.check()?;
        Ok(reminder)
    }

    pub async fn scan_state(&self, after: Option<After>, limit: usize) -> Result<Vec<StateRow>, Error> {
        self.scan(move |reader| reader.scan_state(None, after.as_ref(), limit, clock::wall())).await
    }

    /// Reminders of one actor, or of all.
    pub async fn scan_reminders(
        &self,
        of: Option<ActorKey>,
        after: Option<After>,
        limit: usize,
    ) -> Result<Vec<(ActorKey, String, Reminder)>, Error> {
        self.scan(move |reader| reader.scan_reminders(of.as_ref(), after.as_ref(), limit)).await
    }

    /// Actors that have something stored; none is woken.
    pub async fn scan_actors(&self, wanted: Wanted) -> Result<Vec<ActorRow>, Error> {
        self.scan(move |reader| {
            let query = ActorQuery {
                namespace: &wanted.namespace,
                actor_type: wanted.actor_type.as_deref(),
                id_prefix: &wanted.id_prefix,
                after: wanted.after.as_ref(),
                limit: wanted.limit,
                keys_per_actor: KEYS_LISTED,
            };
            reader.scan_actors(&query, clock::wall())
        })
        .await
    }

    pub async fn dropped(&self, limit: usize) -> Result<Vec<DroppedFiring>, Error> {
        self.scan(move |reader| reader.dropped(limit)).await
    }

    /// A read of many rows, on a thread that may wait for the disk.
    pub(super) async fn scan<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<R, callboard_storage::Error> + Send + 'static,
    ) -> Result<R, Error> {
        self.tenure.check()?;
        let reader = self.partition.reader();
        let rows = tokio::task::spawn_blocking(move || read(&reader)).await;
        let rows = rows.map_err(|error| Error::Storage(error.to_string()))?.map_err(storage)?;
        self.tenure.check()?;
        Ok(rows)
    }
}

fn storage(error: callboard_storage::Error) -> Error {
    Error::Storage(error.to_string())
}
