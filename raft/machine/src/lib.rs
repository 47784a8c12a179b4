//! The pure, replicated state machines: one partition, and the cluster's meta group.
//!
//! A machine takes a command from the log and reads of its tables, and returns writes, a response and effects. It has
//! no clock (time is inside the command), no I/O and no randomness, so every replica computes the same.
//! A committed command never panics: bad content is answered `Rejected`.

pub mod meta;
pub mod partition;
