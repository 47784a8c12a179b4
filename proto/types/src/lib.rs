//! The vocabulary of Callboard: the few words every crate shares.
//!
//! Nothing here decides anything. Ids are newtypes so that a partition is never passed where a replica is meant; an
//! [`Epoch`] has no arithmetic but "the next one"; an [`error::Class`] says what may have happened. The crate stays
//! small for good: a type that only one crate needs lives in that crate.

pub mod epoch;
pub mod error;
pub mod ids;
pub mod policy;
pub mod time;

pub use epoch::{Activation, Epoch, FencingToken, WriteNumber};
pub use error::Class;
pub use ids::{ActorKey, ClusterId, GroupId, NodeId, PartitionId, ReplicaId};
pub use policy::FailurePolicy;
pub use time::Timestamp;
