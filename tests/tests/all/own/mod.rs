//! Endpoints of our own: listing and deleting actors, the outside view of state, and the commands over them.

mod actors;
mod commands;
mod export;
mod reminders;
mod state;
