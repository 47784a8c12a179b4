//! The pure decisions of a running node: no clock, no I/O, no task.
//!
//! A decision takes its state, an event and the time, and returns what is to be done; the `callboard` crate does it.
//! That makes every rule testable without a network, in microseconds and under any order of events, and lets a
//! simulation drive the same code as a real node.
//!
//! | module | decides |
//! |---|---|
//! | [`mailbox`] | at the owner: whose turn it is, who waits, when an activation begins and ends |
//! | [`activation`] | one activation's life: opened, idle, doomed |
//! | [`idle`] | which activation becomes idle next |
//! | [`guard`] | at the host: whether a dispatch or write of a fencing token counts |
//! | [`lease`] | whether the owner may still act as one |
//! | [`drain`] | how long a move waits for running turns |
//! | [`actor_config`] | what an app's `/dapr/config` says of its actor types |
//! | [`duration`] | the time grammar of reminders and timers |
//! | [`schedule`] | when an occurrence is due, and how many there are |
//! | [`reminder`], [`timer`] | the life of one reminder or timer |
//! | [`due`] | which of many is due next |
//! | [`names`], [`json`], [`quantity`] | which names, data and sizes are acceptable |
//! | [`partition`] | which partition an actor belongs to |
//! | [`view`] | what the nodes say of themselves, put in order |
//! | [`router`] | where a call goes next: here, to another node, nowhere yet, or back |
//! | [`choice`] | which host runs an activation, which instance answers a service call |
//! | [`ring`] | in which order a key prefers the members |
//! | [`placement`] | which nodes hold a partition, and the next step on the way there |
//! | [`voters`] | who votes in the meta group |
//!
//! Invariants of the crate: time is an argument ([`Instant`] of the monotonic clock, `callboard_types::Timestamp` of
//! the wall clock); nothing iterates a hash map; every collection has a named limit or an owner that has one; an
//! assertion guards the crate's own invariants and never the content of a request.

pub mod activation;
pub mod actor_config;
pub mod choice;
pub mod drain;
pub mod due;
pub mod duration;
pub mod guard;
pub mod idle;
pub mod instant;
pub mod json;
pub mod lease;
pub mod mailbox;
pub mod names;
pub mod partition;
pub mod placement;
pub mod quantity;
pub mod reminder;
pub mod ring;
pub mod router;
pub mod schedule;
pub mod timer;
pub mod view;
pub mod voters;

pub use instant::Instant;
