//! One partition: actor state, reminders and ownership, in one log.
//!
//! [`apply()`] is the machine. [`Tables`] is what it reads and writes, [`Command`] what it is told, [`Outcome`] what it
//! answers. All state is in the tables: a replica that holds the same rows answers the same.

pub mod apply;
pub mod command;
mod draft;
pub mod memory;
pub mod table;

#[cfg(test)]
mod apply_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod reminder_test;
#[cfg(test)]
mod samples;

pub use apply::apply;
pub use command::{ActorCommand, ActorOp, Claim, Command, Effect, Outcome, Rejection, Response};
pub use memory::MemoryTables;
pub use table::{DroppedFiring, LastWrite, Ownership, Reminder, ReminderSpec, StateValue, Tables, visible};
