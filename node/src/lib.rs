//! Callboard: one binary that turns machines into a cluster of virtual actors and invocable services.

pub mod actors;
pub mod app;
pub mod bench;
pub mod boot;
pub mod calls;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod discovery;
pub mod host;
pub mod ingress;
pub mod invoke;
pub mod links;
pub mod membership;
pub mod node;
pub mod owner;
pub mod peer;
pub mod resources;
pub mod tasks;
pub mod telemetry;
