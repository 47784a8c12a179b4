//! Callboard: one binary that turns machines into a cluster of virtual actors and invocable services.

pub mod actors;
pub mod app;
pub mod bench;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod host;
pub mod ingress;
pub mod invoke;
pub mod node;
pub mod owner;
pub mod resources;
pub mod tasks;
pub mod telemetry;
