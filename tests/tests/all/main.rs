//! What one node does, seen from outside: conformance with the Dapr HTTP API, its own endpoints, bad input, restarts,
//! and the rules of the source itself. One binary, because linking is what costs on a small machine.
//!
//! `CONFORMANCE.md` maps every line of the conformance list to a test here; each such test names the line's path.

mod actors;
mod invoke;
mod malformed;
mod node;
mod own;
mod restart;
mod stage;
mod tidy;
