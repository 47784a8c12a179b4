//! One partition: actor state, reminders and ownership, in one log.

pub mod apply;
pub mod command;
pub mod table;

pub use apply::apply;
pub use command::{ActorCommand, ActorOp, Claim, Command, Effect, Outcome, Rejection, Response};
pub use table::{DroppedFiring, FailurePolicy, Reminder, ReminderSpec, StateValue, Tables};
