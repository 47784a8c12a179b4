//! What the node sees of its Raft groups.

use std::sync::Arc;
use std::time::Duration;

use callboard_machine::meta::{MetaCommand, MetaResponse, MetaState};
use callboard_machine::partition::{Command, DroppedFiring, Effect, Reminder, Response, StateValue};
use callboard_types::{ActorKey, Class, Epoch, NodeId, PartitionId, Timestamp};
use tokio::sync::watch;

/// Fixed at start.
#[derive(Debug, Clone)]
pub struct GroupsConfig {
    pub node: NodeId,
    /// Data partitions' heartbeat and election timeouts; the leader lease equals `election_max`.
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// The state store is flushed and logs are purged after this many bytes of log, or this long.
    pub flush_bytes: u64,
    pub flush_every: Duration,
    /// Proposals in flight per group; one more is answered `Busy`.
    pub max_proposals: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] callboard_storage::Error),
    #[error("start group {group}: {why}")]
    Raft { group: callboard_types::GroupId, why: String },
    #[error("the data directory is of another cluster: {0}")]
    Mismatch(String),
}

/// Why a proposal has no answer from the state machine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed: not the leader, no lease yet, or too many proposals in flight.
    #[error("partition {0} is not ready for proposals")]
    NotReady(PartitionId),
    /// It stands in the log, perhaps; the outcome is not known.
    #[error("the outcome of the proposal is not known")]
    Unknown,
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

impl ProposeError {
    pub fn class(&self) -> Class {
        match self {
            ProposeError::NotReady(_) => Class::Busy,
            ProposeError::Unknown => Class::Unknown,
            ProposeError::Stopped(_) => Class::Fatal,
        }
    }
}

/// The claimed epoch is over: another term, a transfer, a later claim, or a lease that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ownership of {partition} at {epoch} is over")]
pub struct NotOwner {
    pub partition: PartitionId,
    pub epoch: Epoch,
}

/// Told of every applied entry of every partition, in order, on the apply path: must be quick and must not block.
pub trait Observer: Send + Sync + 'static {
    fn applied(&self, partition: PartitionId, effects: &[Effect]);
}

/// All groups of this node.
#[derive(Clone)]
pub struct Groups {}

impl Groups {
    /// Opens the meta group and every partition replica this node holds. On an empty data directory there are none
    /// until [`Groups::bootstrap`].
    pub async fn open(
        _config: GroupsConfig,
        _stores: callboard_storage::Stores,
        _observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        todo!()
    }

    /// True when this node has no cluster yet.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Makes the cluster of one: initialises the meta group with this node as sole voter, commits `Bootstrap`,
    /// `PutNode`, and a table that places every partition here; then opens the partitions. Resumable: a crash in
    /// between is continued by the next start.
    pub async fn bootstrap(
        &self,
        _settings: callboard_machine::meta::Settings,
        _node: callboard_machine::meta::NodeRecord,
        _now: Timestamp,
    ) -> Result<(), StartError> {
        todo!()
    }

    pub fn meta(&self) -> MetaHandle {
        todo!()
    }

    /// The replica of `partition` on this node.
    pub fn partition(&self, _partition: PartitionId) -> Option<Partition> {
        todo!()
    }

    pub fn partitions(&self) -> Vec<Partition> {
        todo!()
    }

    /// Counters of the group-commit writer.
    pub fn writer_stats(&self) -> callboard_storage::WriterStats {
        todo!()
    }

    /// Ends every group, then flushes the state store.
    pub async fn shutdown(self) {
        todo!()
    }
}

/// The meta group, as every node reads it.
#[derive(Clone)]
pub struct MetaHandle {}

impl MetaHandle {
    /// The last received state; changes wake the receiver.
    pub fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        todo!()
    }

    pub async fn propose(&self, _command: MetaCommand) -> Result<MetaResponse, ProposeError> {
        todo!()
    }
}

/// One partition's replica on this node.
#[derive(Clone)]
pub struct Partition {}

impl Partition {
    pub fn id(&self) -> PartitionId {
        todo!()
    }

    /// True while this replica leads its group. Wakes at each change.
    pub fn leading(&self) -> watch::Receiver<bool> {
        todo!()
    }

    /// Proposes a claim, waits until it has applied, and returns the tenure it began.
    pub async fn claim(&self, _nonce: u64, _now: Timestamp, _max_clock_offset: Duration) -> Result<Tenure, ProposeError> {
        todo!()
    }

    /// Waits until the command has applied. A caller that gives up waiting cancels nothing.
    pub async fn propose(&self, _command: Command) -> Result<Response, ProposeError> {
        todo!()
    }

    /// Reads of the applied state of this replica. Linearizable only between two checks of a valid [`Tenure`].
    pub fn reader(&self) -> Reader {
        todo!()
    }

    pub fn applied_index(&self) -> u64 {
        todo!()
    }
}

/// "This node owns the partition at this epoch."
#[derive(Clone)]
pub struct Tenure {}

impl Tenure {
    pub fn epoch(&self) -> Epoch {
        todo!()
    }

    /// Same term, no transfer under way, no later claim, and the last quorum ack younger than the lease less drift.
    pub fn check(&self) -> Result<(), NotOwner> {
        todo!()
    }

    /// Resolves when the tenure has ended for good (not for a mere lapse of the lease).
    pub async fn ended(&self) {
        todo!()
    }
}

/// A row of actor state, as listed.
#[derive(Debug, Clone, PartialEq)]
pub struct StateRow {
    pub actor: ActorKey,
    pub key: String,
    pub value: StateValue,
}

/// Where a scan by due time stands: everything before it has been seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueCursor {
    pub due: Timestamp,
    pub actor: ActorKey,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    pub cursor: DueCursor,
    pub reminder: Reminder,
}

/// Reads of one partition's applied rows. Calls may touch the disk: cheap when cached, so single reads are made
/// in place; scans belong on a blocking thread.
#[derive(Clone)]
pub struct Reader {}

impl Reader {
    /// The highest proposer clock applied: what has expired by it is never returned.
    pub fn clock(&self) -> Result<Timestamp, callboard_storage::Error> {
        todo!()
    }

    /// A visible value: not expired at `max(now, clock())`.
    pub fn state(&self, _actor: &ActorKey, _key: &str, _now: Timestamp) -> Result<Option<StateValue>, callboard_storage::Error> {
        todo!()
    }

    /// Visible rows in key order, after `(actor, key)`; one actor's only, where `of` is given.
    pub fn scan_state(
        &self,
        _of: Option<&ActorKey>,
        _after: Option<&(ActorKey, String)>,
        _limit: usize,
        _now: Timestamp,
    ) -> Result<Vec<StateRow>, callboard_storage::Error> {
        todo!()
    }

    pub fn reminder(&self, _actor: &ActorKey, _name: &str) -> Result<Option<Reminder>, callboard_storage::Error> {
        todo!()
    }

    /// Reminders in key order, after `(actor, name)`; one actor's only, where `of` is given.
    pub fn scan_reminders(
        &self,
        _of: Option<&ActorKey>,
        _after: Option<&(ActorKey, String)>,
        _limit: usize,
    ) -> Result<Vec<(ActorKey, String, Reminder)>, callboard_storage::Error> {
        todo!()
    }

    /// Reminders by due time, strictly after `after`.
    pub fn scan_due(&self, _after: Option<&DueCursor>, _limit: usize) -> Result<Vec<Due>, callboard_storage::Error> {
        todo!()
    }

    /// Firings given up by policy, newest first.
    pub fn dropped(&self, _limit: usize) -> Result<Vec<DroppedFiring>, callboard_storage::Error> {
        todo!()
    }
}
