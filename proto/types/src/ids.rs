//! Identities. Each is a newtype: an id of one kind cannot be passed for another.

use std::fmt;
use std::sync::Arc;

/// A fixed slice of the actor key space, and one Raft group. 0-based, below the cluster's partition count (1..=128).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// A Raft group of a node: the meta group or one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupId {
    Meta,
    Partition(PartitionId),
}

impl GroupId {
    /// The number that stands for the group in keys and on the wire: 0 is meta, partition `p` is `p + 1`.
    pub const fn to_u32(self) -> u32 {
        match self {
            GroupId::Meta => 0,
            GroupId::Partition(PartitionId(p)) => p + 1,
        }
    }

    /// The inverse of [`GroupId::to_u32`].
    pub const fn from_u32(number: u32) -> Self {
        match number {
            0 => GroupId::Meta,
            n => GroupId::Partition(PartitionId(n - 1)),
        }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupId::Meta => f.write_str("meta"),
            GroupId::Partition(p) => p.fmt(f),
        }
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $width:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $width, "x}"), self.0)
            }
        }
    };
}

random_id!(
    /// One data directory's node, minted at random when the directory is made. A wiped directory is another node.
    NodeId, u64, "16"
);
random_id!(
    /// One placement of one group on one node. Never reused: a wiped disk must not vote again under an old id.
    ReplicaId, u64, "1"
);
random_id!(
    /// One cluster, minted at random by the node that bootstraps it. Strangers are refused by it.
    ClusterId, u128, "32"
);

/// The identity of an actor: (namespace, type, id). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorKey {
    pub namespace: Arc<str>,
    pub actor_type: Arc<str>,
    pub actor_id: Arc<str>,
}

impl ActorKey {
    pub fn new(namespace: impl Into<Arc<str>>, actor_type: impl Into<Arc<str>>, actor_id: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), actor_type: actor_type.into(), actor_id: actor_id.into() }
    }
}

impl fmt::Display for ActorKey {
    /// `type/id`, for logs and error texts. Not a key: parts may contain the separator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.actor_type, self.actor_id)
    }
}
