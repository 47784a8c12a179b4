//! The meta group: what the whole cluster agrees on.
//!
//! Its settings, its nodes, where each group lives (this one too), and which app registered an actor type first. The
//! state is small, so every node holds all of it in memory as one [`MetaState`]; the shell persists it row by row, writing after
//! each command the rows that [`MetaState::apply`] names. Nothing on the data path waits for it.
//!
//! Deliberately absent: who is alive and where (gossip, a hint), who leads a partition (its own log), and the choice of
//! a placement (the controller's; this group only commits it).

mod apply;
mod command;
mod row;
mod state;

#[cfg(test)]
mod apply_test;

pub use command::{FIRST_META_REPLICA, MetaCommand, MetaRejection, MetaResponse};
pub use row::{MetaKey, MetaRow};
pub use state::{MetaState, NodeRecord, PartitionRecord, Placement, Role, Settings};
