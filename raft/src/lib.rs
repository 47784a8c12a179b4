//! The Raft groups of a node: openraft behind Callboard's own words.
//!
//! Nothing outside this crate names an openraft type, and Raft terms never leave it: a partition's owner knows only
//! its [`Tenure`], which says whether the epoch it claimed is still good.
//!
//! A proposal's road: [`Partition::propose`] → `replica` (bounds, errors) → openraft → `log_store` (tail and group
//! commit) → openraft → `state_store` (one batch of rows) → `rules` (the machine, effects) → the caller. Beside it the
//! `flusher` makes rows durable for all groups at once and only then lets logs go.
//!
//! Among several nodes: `network` carries a group's messages over the node's [`Transport`], `holding` says which replicas
//! are here, `changes` carries out what a group's leader is asked for, and `meta_feed` brings the meta log to nodes that
//! have no replica of it. What to do with all that is decided outside.

mod bootstrap;
mod changes;
mod cluster;
mod convert;
mod error;
mod flusher;
mod forgotten;
mod group_state;
mod groups;
mod holding;
mod incarnations;
mod log_store;
mod meta;
mod meta_copy;
mod meta_feed;
mod network;
mod overlay;
mod partition;
mod pins;
mod reader;
mod replica;
mod rules;
mod snapshot;
mod state_store;
mod status;
mod tables;
mod tail;
mod tenure;
mod type_config;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(test)]
mod tests;

pub use convert::{Storable, fuzz_records};
pub use error::{ChangeError, FeedError, HoldError, NotOwner, ProposeError, StartError};
pub use groups::{Groups, GroupsConfig, Held};
pub use meta::MetaHandle;
pub use meta_feed::{MetaAt, MetaUpdate};
pub use network::{Lane, NoPeers, ReceiveError, Target, Transport, TransportError};
pub use partition::Partition;
pub use reader::{ActorQuery, ActorRow, Due, DueCursor, MAX_SCAN, Reader, StateRow};
pub use rules::{Observer, fuzz_apply};
pub use snapshot::fuzz_snapshot;
pub use status::{GroupStatus, ReplicaRole};
pub use tenure::Tenure;
