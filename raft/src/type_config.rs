//! What openraft is told about Callboard's types, and its settings for each kind of group.
//!
//! One type configuration serves the meta group and the partitions: the log, the network and the state store are the
//! same code, and only what an entry means differs ([`Proposal`]). Leader ids are of the standard kind, one leader per
//! term, so that a term names its leader. openraft's own types go no further than this crate: what is stored is
//! converted to `callboard_proto::disk` records.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use callboard_machine::meta::{MetaCommand, MetaResponse};
use callboard_machine::partition::{Command, Response};
use callboard_types::{GroupId, NodeId};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft::{OptionalSend, SnapshotPolicy, StepDownPolicy};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::StartError;
use crate::snapshot::SnapshotChunks;
use crate::state_store::StateStore;

pub type Raft = openraft::Raft<TypeConfig, StateStore>;
pub type LogId = LogIdOf<TypeConfig>;
pub type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub type Vote = openraft::Vote<LeaderId>;
pub type Payload = openraft::EntryPayload<Proposal, u64, Member>;
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, Member>;
pub type StoredMembership = StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub type Snapshot = SnapshotOf<TypeConfig, SnapshotChunks>;

/// The type configuration of every group. Replica ids stand for openraft's node ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Answer;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = openraft::Entry<<LeaderId as openraft::vote::RaftLeaderId>::Committed, Payload>;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Where a replica is. A group's membership carries it, so that a replica finds the others without any other table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    pub node: NodeId,
    /// Peer address when it became a member; a hint, and empty for the one that formed the group.
    pub address: String,
}

/// The content of a log entry. Cheap to clone: an entry is held by the tail cache and by the apply path at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Proposal {
    Partition(Arc<Command>),
    Meta(Arc<MetaCommand>),
}

impl fmt::Display for Proposal {
    /// The kind alone: payloads are never traced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proposal::Partition(command) => match &**command {
                Command::Claim(_) => f.write_str("claim"),
                Command::Actor(actor) => write!(f, "actor({} ops)", actor.ops.len()),
                Command::Noop { .. } => f.write_str("noop"),
            },
            Proposal::Meta(_) => f.write_str("meta"),
        }
    }
}

/// What applying an entry answers to its proposer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The entry was Raft's own.
    Blank,
    Partition(Response),
    Meta(MetaResponse),
}

/// Carries an answer back, and with it the proposal's place among those in flight: the place is taken until the entry
/// has an outcome, whether or not the caller still waits.
pub struct Reply<T> {
    answer: oneshot::Sender<T>,
    place: OwnedSemaphorePermit,
}

impl<T> Reply<T> {
    pub fn new(place: OwnedSemaphorePermit) -> (Self, oneshot::Receiver<T>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer, place }, receiver)
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Reply<T> {
    fn on_complete(self, result: T) {
        // The place first: a caller that has its answer may propose again. One that has left is no error.
        drop(self.place);
        let _ = self.answer.send(result);
    }
}

/// How quickly the replicas of a group notice that their leader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    /// Also the length of the leader's lease.
    pub election_max: Duration,
}

impl Timing {
    /// The meta group may be slower: the data path never waits for it.
    pub const META: Timing = Timing {
        heartbeat: Duration::from_millis(250),
        election_min: Duration::from_millis(1_000),
        election_max: Duration::from_millis(1_500),
    };
}

/// Entries that openraft sends, applies or appends at once.
const MAX_PAYLOAD_ENTRIES: u64 = 512;
const MAX_APPEND_ENTRIES: u64 = 1_024;
const REPLICATION_LAG_THRESHOLD: u64 = 20_000;
const API_CHANNEL: u64 = 1_024;
const NOTIFICATION_CHANNEL: u64 = 1_024;
const STATE_MACHINE_CHANNEL: u64 = 256;
const INSTALL_SNAPSHOT_TIMEOUT_MS: u64 = 30_000;

/// openraft's settings for one group.
///
/// Snapshots and purges are never started by openraft itself: only the node-wide flusher knows which applied entries
/// are on disk. A restarted leader does not resume its term, since its state rows may stand behind what it had served.
pub fn raft_config(group: GroupId, timing: Timing) -> Result<Arc<openraft::Config>, StartError> {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let config = openraft::Config {
        cluster_name: group.to_string(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        heartbeat_min_interval: Some(0),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        max_payload_entries: MAX_PAYLOAD_ENTRIES,
        max_append_entries: Some(MAX_APPEND_ENTRIES),
        snapshot_policy: SnapshotPolicy::Never,
        // A leader hands over by `Groups::transfer_leader` alone, which ends what was begun under it first.
        removed_leader_step_down: StepDownPolicy::Never,
        replication_lag_threshold: REPLICATION_LAG_THRESHOLD,
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(API_CHANNEL),
        notification_channel_size: Some(NOTIFICATION_CHANNEL),
        state_machine_channel_size: Some(STATE_MACHINE_CHANNEL),
        api_batch_linger_ms: 0,
        install_snapshot_timeout: INSTALL_SNAPSHOT_TIMEOUT_MS,
        ..openraft::Config::default()
    };
    let config = config.validate().map_err(|error| StartError::Raft { group, why: error.to_string() })?;
    Ok(Arc::new(config))
}

/// Builds a log id of a leader's term.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The term under which an entry was proposed.
pub fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}
