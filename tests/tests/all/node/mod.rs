//! The node itself: health, metadata, tokens, ports, flags, commands, shutdown, tracing, and what deploys it.

mod cors;
mod deploy;
mod errands;
mod flags;
mod health;
mod launch;
mod metadata;
mod protocol;
mod shutdown;
mod tracing;
