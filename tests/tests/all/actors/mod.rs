//! Virtual actors over HTTP.

mod call;
mod deactivation;
mod errors;
mod health;
mod metadata;
mod policy;
mod reentrancy;
mod reminders;
mod schedule;
mod state;
mod timers;
mod times;
mod turns;
