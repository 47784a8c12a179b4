//! What stands in the meta log, and what applying it answers.

use std::borrow::Cow;

use callboard_types::{ClusterId, GroupId, NodeId, PartitionId, ReplicaId, Timestamp};

use super::state::{NodeRecord, Placement, Settings};

/// One entry of the meta log. All but `Bootstrap` are rejected before there is a cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaCommand {
    /// Makes the cluster, every partition of it still without replicas. Rejected when there is one.
    Bootstrap { cluster: ClusterId, settings: Settings, now: Timestamp },
    /// Adds or updates a node of the registry.
    PutNode { node: NodeId, record: NodeRecord },
    /// Rejected while the node holds a replica; removing an absent node is no error.
    RemoveNode { node: NodeId },
    /// Commits where a partition lives; `version` must be the stored one plus one (0 = none stored).
    ///
    /// A placement that the stored record does not have is a new replica: its id is
    /// [`MetaState::next_replica`](super::MetaState::next_replica) or above, and its node a storage node.
    Place { partition: PartitionId, version: u64, replicas: Vec<Placement> },
    /// First registration of a type fixes the app id shown in state keys; repeats are no error.
    RegisterTypes { namespace: String, app_id: String, types: Vec<String> },
    /// The partition's group has been initialised; from then on nobody initialises it again, since a second
    /// initialisation could elect a leader that knows nothing of the first one's log. Repeats are no error.
    GroupInitialized { partition: PartitionId },
    /// [`MetaCommand::Place`] for the meta group itself. Its first row may name [`FIRST_META_REPLICA`], which formed the
    /// group before there was anything that could hand out an id.
    PlaceMeta { version: u64, replicas: Vec<Placement> },
    /// The group's membership has become what its row said at `version`. Repeats and older versions are no error.
    Settled { group: GroupId, version: u64 },
    /// Raises the recovery generation. Repeats are no error; a lower one is rejected.
    RaiseGeneration { generation: u64 },
}

/// The replica that forms the meta group.
pub const FIRST_META_REPLICA: ReplicaId = ReplicaId(1);

/// What a proposal is answered with after its entry has been applied.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaResponse {
    Done,
    /// The content is not acceptable. Nothing was written.
    Rejected(MetaRejection),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaRejection {
    #[error("the cluster exists already")]
    AlreadyBootstrapped,
    #[error("the cluster is not formed yet")]
    NotBootstrapped,
    #[error("invalid setting: {0}")]
    InvalidSetting(String),
    #[error("unknown partition {0}")]
    UnknownPartition(PartitionId),
    #[error("unknown node {0}")]
    UnknownNode(NodeId),
    #[error("table version {given} does not follow {stored}")]
    StaleTable { given: u64, stored: u64 },
    #[error("a group is placed on 1 to {max} replicas, not on {given}")]
    ReplicaCount { given: usize, max: usize },
    #[error("a group needs a voter")]
    NoVoter,
    #[error("node {0} is given two replicas of one group")]
    NodeTwice(NodeId),
    #[error("node {0} is a gateway: it holds no replicas")]
    NotStorage(NodeId),
    /// Proposed on an older state: the id may have been handed out since.
    #[error("replica id {given} is not fresh: the next one is {next}")]
    ReplicaNotFresh { given: ReplicaId, next: u64 },
    #[error("node {node} still holds a replica of {group}")]
    NodeInUse { node: NodeId, group: GroupId },
    #[error("{group} cannot have settled at {given}: its row is at {stored}")]
    NotPlaced { group: GroupId, given: u64, stored: u64 },
    #[error("the recovery generation is {stored} and does not fall to {given}")]
    GenerationFalls { given: u64, stored: u64 },
    #[error("too many {what}: the limit is {limit}")]
    TooMany { what: Cow<'static, str>, limit: usize },
    #[error("{what} is empty or longer than {limit} bytes")]
    InvalidName { what: Cow<'static, str>, limit: usize },
}
