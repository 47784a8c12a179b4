//! The Raft groups of a node: openraft behind Callboard's own words.
//!
//! Nothing outside this crate names an openraft type, and Raft terms never leave it: a partition's owner knows only
//! its [`Tenure`], which says whether the epoch it claimed is still good.

mod api;

pub use api::{
    Due, DueCursor, Groups, GroupsConfig, MetaHandle, NotOwner, Observer, Partition, ProposeError, Reader, StartError,
    StateRow, Tenure,
};
