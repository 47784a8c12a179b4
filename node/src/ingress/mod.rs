//! The doors of the node: what listens, and how a request finds the part of the node that answers it.

pub mod grpc;
pub mod http;
pub mod metrics;
pub mod server;
