//! `callboard bench`: how fast a node is, and how fast it is beside others.
//!
//! Made to be pointed at any Dapr endpoint: the load generator speaks HTTP to a sidecar and knows nothing of this one,
//! and the echo app (`callboard __echo`) can be started beside any. What cannot be asked of others (log syncs) is left
//! out of their reports. Each run stands alone: warm-up, then a measured span, fresh connections. The order of
//! scenarios is that of the command line, so that a reader can repeat it.

// This is not the node: its clocks and tasks are those of a measuring instrument.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

pub mod app;
mod args;
mod counters;
mod disk;
mod http;
mod load;
mod place;
mod reminders;
mod report;
mod scenario;
mod stats;

pub use args::{Args, grammar};
pub use http::fuzz_head;

use crate::cli::env::Env;
use load::{Arrival, Outcome, Plan, Repeat};
use place::Place;
use report::{Report, Run};
use scenario::Scenario;

/// First argument that turns the binary into the echo app.
pub const APP_SUBCOMMAND: &str = "__echo";

/// Time the disk is measured.
const DISK: Duration = Duration::from_secs(1);
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs the echo app with `args`, the first of which is its name.
pub fn app_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match app::Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    match app::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints.
///
/// # Errors
///
/// There is nothing to measure, or it went away.
pub fn run(args: Args, env: &Env) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(async {
        let place = Place::of(&args, env).await?;
        let measured = tokio::select! {
            report = measure(&args, &place) => report.map(Some),
            interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| None).map_err(Into::into),
        };
        place.leave().await;
        measured
    });
    runtime.shutdown_background();
    let Some(report) = report? else { return Ok(INTERRUPTED) };
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(file) = &args.output {
        std::fs::write(file, &json).with_context(|| format!("--output {}", file.display()))?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{json}")?
    } else {
        write!(out, "{}", report.table())?
    }
    let failed = report.runs.iter().all(|run| run.throughput == 0.0);
    Ok(u8::from(failed))
}

async fn measure(args: &Args, place: &Place) -> anyhow::Result<Report> {
    let sync_us = place.folder.as_deref().and_then(sync_cost);
    let mut runs = Vec::new();
    // What is compared runs side by side, so that a machine that changes its pace changes it for both.
    for connections in &args.connections {
        for scenario in &args.scenarios {
            runs.extend(one(args, place, *scenario, usize::from(*connections), Arrival::Closed).await?);
        }
    }
    for rate in args.rates.iter().filter(|rate| **rate > 0.0) {
        for scenario in &args.open_scenarios {
            let connections = usize::from(args.open_connections);
            runs.extend(one(args, place, *scenario, connections, Arrival::Open(*rate)).await?);
        }
    }
    let reminders = match args.reminders {
        0 => None,
        count => Some(reminders::measure(&place.target, count, args.reminder_window, args.threads).await?),
    };
    let derived = report::derive(&runs);
    Ok(Report { version: env!("CARGO_PKG_VERSION"), machine: report::machine(), sync_us, runs, reminders, derived })
}

/// A result without the disk's cost is still one.
fn sync_cost(folder: &Path) -> Option<stats::Summary> {
    let cost = disk::sync_cost(folder, DISK);
    cost.inspect_err(|error| eprintln!("callboard: the disk under {} is not measured: {error}", folder.display())).ok()
}

/// One run; `None` when the place does not have the scenario.
async fn one(
    args: &Args,
    place: &Place,
    scenario: Scenario,
    connections: usize,
    arrival: Arrival,
) -> anyhow::Result<Option<Run>> {
    let Some((to, requests)) = scenario::requests(scenario, &place.target) else {
        eprintln!("callboard: {} is left out: give the app's address with --app", scenario.name());
        return Ok(None);
    };
    let before = evidence(place, scenario).await;
    let (warm_up, duration) = (args.warm_up, args.duration);
    let plan = Plan { to, requests, connections, arrival, warm_up, duration, repeat: Repeat::Forever };
    let outcome = offer(plan, args.threads).await?;
    let after = evidence(place, scenario).await;
    let mut run = Run::of(scenario.name(), connections, arrival, &outcome);
    if let (Some(before), Some(after)) = (before, after) {
        let counted = after.counters.since(before.counters);
        run.log_syncs = Some(counted.syncs);
        run.log_writes = Some(counted.writes);
        let transactions = match (before.transactions, after.transactions) {
            (Some(before), Some(after)) => after.saturating_sub(before) as f64,
            (_, None) | (None, _) => counted.writes,
        };
        run.transactions_per_sync = (counted.syncs > 0.0).then(|| transactions / counted.syncs);
    }
    eprintln!("{}", report::progress(&run));
    Ok(Some(run))
}

/// What node and app have counted so far.
struct Evidence {
    counters: counters::Counters,
    /// State transactions, by the app's own count.
    transactions: Option<u64>,
}

async fn evidence(place: &Place, scenario: Scenario) -> Option<Evidence> {
    let metrics = place.metrics.filter(|_| scenario.writes())?;
    let counters = counters::read(metrics).await.ok()??;
    let transactions = reminders::seen(&place.target).await.ok().map(|stats| stats.rw);
    Some(Evidence { counters, transactions })
}

/// Runs a plan, divided among `threads`, beside the runtime of the caller.
async fn offer(plan: Plan, threads: u8) -> anyhow::Result<Outcome> {
    let threads = usize::from(threads).min(plan.connections).max(1);
    let parts: Vec<_> =
        divide(plan, threads).into_iter().map(|plan| tokio::task::spawn_blocking(move || load::run(&plan))).collect();
    let mut whole = Outcome::default();
    for part in parts {
        let part = part.await.context("the load generator failed")??;
        whole.latencies.merge(&part.latencies);
        whole.broken += part.broken;
        whole.unsent += part.unsent;
        whole.elapsed = whole.elapsed.max(part.elapsed);
        for (status, count) in part.refused {
            *whole.refused.entry(status).or_default() += count;
        }
    }
    Ok(whole)
}

/// Connections, rate and, when each is sent once, requests are divided; the rest is the same for all.
fn divide(plan: Plan, parts: usize) -> Vec<Plan> {
    let share = |whole: usize, part: usize| whole / parts + usize::from(part < whole % parts);
    let mut requests = plan.requests.iter();
    let part = |part: usize| Plan {
        connections: share(plan.connections, part),
        arrival: match plan.arrival {
            Arrival::Closed => Arrival::Closed,
            Arrival::Open(rate) => Arrival::Open(rate / parts as f64),
        },
        requests: match plan.repeat {
            Repeat::Forever => Arc::clone(&plan.requests),
            Repeat::Once => requests.by_ref().take(share(plan.requests.len(), part)).cloned().collect(),
        },
        ..plan.clone()
    };
    (0..parts).map(part).filter(|plan| !plan.requests.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_divided_without_loss() {
        let requests: Vec<_> = (0..10).map(|n| bytes::Bytes::from(vec![n])).collect();
        let plan = Plan {
            to: "127.0.0.1:1".parse().unwrap(),
            requests: requests.into(),
            connections: 7,
            arrival: Arrival::Open(900.0),
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            repeat: Repeat::Once,
        };
        let parts = divide(plan.clone(), 3);
        assert_eq!(parts.iter().map(|part| part.connections).collect::<Vec<_>>(), [3, 2, 2]);
        assert_eq!(parts.iter().map(|part| part.requests.len()).collect::<Vec<_>>(), [4, 3, 3]);
        assert!(parts.iter().all(|part| part.arrival == Arrival::Open(300.0)));
        let all: Vec<_> = parts.iter().flat_map(|part| part.requests.iter().cloned()).collect();
        assert_eq!(all, plan.requests.to_vec());
        let forever = divide(Plan { repeat: Repeat::Forever, ..plan }, 2);
        assert!(forever.iter().all(|part| part.requests.len() == 10));
    }
}
