//! The node itself: health, metadata, tokens, ports, flags, shutdown, tracing.

mod cors;
mod flags;
mod health;
mod launch;
mod metadata;
mod protocol;
mod shutdown;
mod tracing;
