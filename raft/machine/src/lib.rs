//! The pure, replicated state machines: one partition, and the cluster's meta group.
//!
//! A machine takes a command from the log and reads of its tables, and returns writes, a response and effects. It has
//! no clock (time is inside the command), no I/O and no randomness, so every replica computes the same.
//! A committed command never panics: bad content is answered `Rejected`.
//!
//! Where each rule is decided, once:
//!
//! | rule | place |
//! |---|---|
//! | a claim makes the next epoch; what it does to the clock | `partition::apply` |
//! | a stale epoch is `Fenced`; a repeated write gets its first answer | `partition::apply` |
//! | what each operation does to an actor's rows, all or nothing | `partition::draft` |
//! | when an expired value is invisible | [`partition::visible`] |
//! | cluster, nodes, placement table, replica ids, types | `meta::apply` |
//! | how large anything may be | [`limits`] |
//!
//! Deliberately absent: snapshots (a plain copy of the rows, made by the shell; nothing lives outside them), encodings
//! (the shell's), and leadership (an epoch is all a machine knows of it).

pub mod limits;
pub mod meta;
pub mod partition;
