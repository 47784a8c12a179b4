//! Faults: sudden death, power cuts and large numbers, with a dose that the environment sets.
//!
//! `cargo test` runs one round of each; `make faults` sets [`ROUNDS`] and [`REMINDERS`] to the doses that the promises
//! are stated for.

mod cluster;
mod kill;
mod ledger;
mod many;
mod power;

use std::env;

/// Rounds of each fault.
const ROUNDS: &str = "CALLBOARD_FAULT_ROUNDS";
/// Reminders registered at once.
const REMINDERS: &str = "CALLBOARD_REMINDERS";

fn dose(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}
