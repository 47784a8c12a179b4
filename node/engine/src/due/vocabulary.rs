//! The words of the due table: what a reminder is called, where it stands in the index, what is handed out, and how much
//! a table holds. Plain values; who decides with them is [`DueTable`](super::DueTable).

use std::sync::Arc;

use callboard_types::{ActorKey, Timestamp};

/// The name of a reminder within its partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReminderId {
    pub actor: ActorKey,
    pub name: Arc<str>,
}

/// A place in the due-time index. The order is that of the fields: due instant, namespace, type, id, name, texts by their
/// bytes. The durable index scans in exactly this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DueKey {
    pub due: Timestamp,
    pub id: ReminderId,
}

/// A reminder as the index and the effects show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEntry {
    pub key: DueKey,
    /// Tells a re-registered reminder from its predecessor; rises.
    pub generation: u64,
    /// The occurrence that is due; rises within a generation.
    pub occurrence: u64,
}

/// One occurrence to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    pub id: ReminderId,
    pub generation: u64,
    pub occurrence: u64,
    /// The scheduled instant, on every attempt.
    pub due: Timestamp,
    /// Counts from 1.
    pub attempt: u32,
}

/// A scan of the index that the table needs: rows strictly after `after`, in order, at most `limit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub after: Option<DueKey>,
    pub limit: usize,
}

/// What a table holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Reminders queued in memory; up to twice as many for a while. At least 1.
    pub window: usize,
    /// Firings taken and not resolved, those that wait for another attempt included. At the limit only further attempts
    /// are handed out: reminders of an app that cannot be reached then hold up the others of the partition.
    pub pending: usize,
    /// The same of one actor. Its turns are serial, so more of them would gain nothing and let one stuck actor use up
    /// what all share. At least 1.
    pub pending_per_actor: usize,
    /// Actor types remembered as hosted by nobody. Beyond them [`park`](super::DueTable::park) refuses.
    pub parked_types: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window: 8_192, pending: 65_536, pending_per_actor: 8, parked_types: 1_024 }
    }
}

/// (generation, occurrence): a higher one is a later form of the same reminder.
pub(super) type Version = (u64, u64);

impl DueEntry {
    pub(super) fn version(&self) -> Version {
        (self.generation, self.occurrence)
    }
}

impl Firing {
    pub(super) fn version(&self) -> Version {
        (self.generation, self.occurrence)
    }
}
