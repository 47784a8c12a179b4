//! Three nodes and more, seen from outside: any of them is an entrance, one of them may go.

mod failover;
mod forming;
mod operate;
mod routing;

/// Hosted by every app of these tests unless they say otherwise.
const CAT: &str = "cat";
