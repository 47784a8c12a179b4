//! Results as a table for people and as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::app::Reminders;
use super::load::{Arrival, Outcome};
use super::scenario::Scenario;
use super::stats::Summary;

/// Everything one invocation measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub machine: Machine,
    /// Cost of one `fdatasync`, in microseconds.
    pub sync_us: Option<Summary>,
    pub runs: Vec<Run>,
    pub reminders: Option<ReminderRun>,
    pub derived: Vec<Derived>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    /// Bytes.
    pub memory: u64,
}

/// One scenario at one number of connections.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub scenario: &'static str,
    /// `closed` or `open`.
    pub arrival: &'static str,
    /// Requests per second offered in the open loop.
    pub rate: Option<f64>,
    pub connections: usize,
    pub seconds: f64,
    /// Good answers per second.
    pub throughput: f64,
    pub errors: u64,
    /// Statuses other than 2xx.
    pub refused: std::collections::BTreeMap<u16, u64>,
    /// In the open loop counted from the instant the request was due.
    pub latency_us: Summary,
    /// Syncs of the node's log during the run, warm-up included, where the node shows them.
    pub log_syncs: Option<f64>,
    pub log_writes: Option<f64>,
    /// State transactions per sync.
    pub transactions_per_sync: Option<f64>,
}

/// Registration and firing of reminders.
#[derive(Debug, Clone, Serialize)]
pub struct ReminderRun {
    pub registered: u64,
    pub registration: Run,
    pub firing: Reminders,
    /// From the first due instant to the last firing seen.
    pub firing_seconds: f64,
}

/// A number made of several runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Derived {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

impl Run {
    pub fn of(scenario: &'static str, connections: usize, arrival: Arrival, outcome: &Outcome) -> Self {
        let (arrival, rate) = match arrival {
            Arrival::Closed => ("closed", None),
            Arrival::Open(rate) => ("open", Some(rate)),
        };
        Self {
            scenario,
            arrival,
            rate,
            connections,
            seconds: outcome.elapsed.as_secs_f64(),
            throughput: outcome.throughput(),
            errors: outcome.errors(),
            refused: outcome.refused.clone(),
            latency_us: outcome.latencies.summary(),
            log_syncs: None,
            log_writes: None,
            transactions_per_sync: None,
        }
    }
}

/// What follows from comparing runs.
pub fn derive(runs: &[Run]) -> Vec<Derived> {
    let closed = |scenario: Scenario, connections: usize| {
        let of =
            |run: &&Run| run.scenario == scenario.name() && run.arrival == "closed" && run.connections == connections;
        runs.iter().find(of).filter(|run| run.throughput > 0.0)
    };
    let mut derived = Vec::new();
    let mut counts: Vec<_> = runs.iter().map(|run| run.connections).collect();
    counts.sort_unstable();
    counts.dedup();
    for connections in counts {
        for scenario in [Scenario::Invoke, Scenario::Noop] {
            if let (Some(run), Some(direct)) = (closed(scenario, connections), closed(Scenario::Direct, connections)) {
                let name = format!("{} / direct throughput, {connections} connections", scenario.name());
                derived.push(Derived { name, value: run.throughput / direct.throughput, unit: "" });
            }
        }
        if let Some(value) = closed(Scenario::ReadWrite, connections).and_then(|run| run.transactions_per_sync) {
            let name = format!("state transactions per log sync, {connections} connections");
            derived.push(Derived { name, value, unit: "" });
        }
    }
    for run in runs.iter().filter(|run| run.arrival == "open" && run.scenario != Scenario::Direct.name()) {
        let same = |direct: &&Run| {
            direct.scenario == Scenario::Direct.name()
                && direct.rate == run.rate
                && direct.connections == run.connections
        };
        if let Some(direct) = runs.iter().find(same) {
            let name = format!("{}: p50 added to direct at {:.0}/s", run.scenario, run.rate.unwrap_or(0.0));
            let value = (run.latency_us.p50 - direct.latency_us.p50) / 1e3;
            derived.push(Derived { name, value, unit: "ms" });
        }
    }
    derived
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_table(&mut out);
        out
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let Machine { cpu, cores, kernel, memory } = &self.machine;
        writeln!(out, "callboard {} on {cores} x {cpu}, {} MiB, Linux {kernel}", self.version, memory >> 20)?;
        match &self.sync_us {
            Some(s) => {
                let [p50, p99, max] = [s.p50, s.p99, s.max].map(ms);
                writeln!(out, "one fdatasync of 4 KiB: p50 {p50} ms, p99 {p99} ms, max {max} ms")?;
            }
            None => writeln!(out, "one fdatasync: not measured")?,
        }
        writeln!(out)?;
        writeln!(out, "{HEADER}")?;
        for run in self.runs.iter().chain(self.reminders.iter().map(|reminders| &reminders.registration)) {
            writeln!(out, "{}", row(run))?;
        }
        if let Some(reminders) = &self.reminders {
            writeln!(out, "\n{}", reminders.text())?;
        }
        if !self.derived.is_empty() {
            writeln!(out)?;
        }
        for Derived { name, value, unit } in &self.derived {
            writeln!(out, "{name}: {value:.2}{}{unit}", if unit.is_empty() { "" } else { " " })?;
        }
        Ok(())
    }
}

const HEADER: &str =
    "scenario   loop        conn      req/s    p50 ms    p90 ms    p99 ms  p99.9 ms    max ms  errors  tx/sync";

fn row(run: &Run) -> String {
    let arrival = run.rate.map_or_else(|| run.arrival.to_owned(), |rate| format!("open {rate:.0}/s"));
    let l = &run.latency_us;
    let [p50, p90, p99, p999, max] = [l.p50, l.p90, l.p99, l.p999, l.max].map(ms);
    let per_sync = run.transactions_per_sync.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    format!(
        "{:<10} {arrival:<11} {:>4} {:>10.0} {p50:>9} {p90:>9} {p99:>9} {p999:>9} {max:>9} {:>7} {per_sync:>8}",
        run.scenario, run.connections, run.throughput, run.errors
    )
}

impl ReminderRun {
    fn text(&self) -> String {
        let Reminders { fired, distinct, early, lateness } = &self.firing;
        let [p50, p99, max] = [lateness.p50, lateness.p99, lateness.max].map(ms);
        format!(
            "reminders: {} registered, {distinct} fired ({fired} firings, {early} early) within {:.1} s; late by p50 {p50} \
             ms, p99 {p99} ms, max {max} ms",
            self.registered, self.firing_seconds
        )
    }
}

fn ms(micros: f64) -> String {
    format!("{:.3}", micros / 1e3)
}

/// One line, for those who wait.
pub fn progress(run: &Run) -> String {
    let ms = ms(run.latency_us.p50);
    let arrival = run.rate.map_or_else(|| run.arrival.to_owned(), |rate| format!("open {rate:.0}/s"));
    format!(
        "{} {arrival} {} connections: {:.0}/s, p50 {ms} ms, {} errors",
        run.scenario, run.connections, run.throughput, run.errors
    )
}

/// What this runs on.
pub fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = value(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    Machine {
        cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory: memory.unwrap_or(0) << 10,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::stats::Latencies;

    fn run(scenario: Scenario, connections: usize, arrival: Arrival, count: u32, latency: u64) -> Run {
        let mut latencies = Latencies::default();
        (0..count).for_each(|_| latencies.record(Duration::from_micros(latency)));
        let outcome = Outcome { latencies, elapsed: Duration::from_secs(1), ..Outcome::default() };
        Run::of(scenario.name(), connections, arrival, &outcome)
    }

    #[test]
    fn what_is_compared_ran_at_the_same_load() {
        let mut rw = run(Scenario::ReadWrite, 64, Arrival::Closed, 10, 100);
        rw.transactions_per_sync = Some(9.5);
        let runs = [
            run(Scenario::Direct, 64, Arrival::Closed, 100, 100),
            run(Scenario::Noop, 64, Arrival::Closed, 50, 200),
            run(Scenario::Noop, 16, Arrival::Closed, 50, 200),
            run(Scenario::Direct, 16, Arrival::Open(1_000.0), 100, 100),
            run(Scenario::Invoke, 16, Arrival::Open(1_000.0), 100, 350),
            run(Scenario::Invoke, 16, Arrival::Open(2_000.0), 100, 350),
            rw,
        ];
        let derived = derive(&runs);
        let names: Vec<_> = derived.iter().map(|derived| derived.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "noop / direct throughput, 64 connections",
                "state transactions per log sync, 64 connections",
                "invoke: p50 added to direct at 1000/s"
            ]
        );
        assert!((derived[0].value - 0.5).abs() < 1e-9 && (derived[1].value - 9.5).abs() < 1e-9);
        assert!((derived[2].value - 0.25).abs() < 0.001, "{derived:?}");
    }

    #[test]
    fn a_row_is_as_wide_as_the_header_and_holds_every_number() {
        let run = run(Scenario::HotReadWrite, 256, Arrival::Open(1_000.0), 12, 1_500);
        assert_eq!(row(&run).len(), HEADER.len());
        let json = serde_json::to_value(&run).unwrap();
        for field in ["scenario", "arrival", "rate", "connections", "throughput", "errors", "latency_us"] {
            assert!(!json[field].is_null(), "{field}");
        }
        for percentile in ["p50", "p90", "p99", "p999", "max"] {
            assert!(json["latency_us"][percentile].as_f64().unwrap() >= 1_490.0, "{percentile}");
        }
    }

    #[test]
    fn the_machine_is_named() {
        let machine = machine();
        assert!(machine.cores >= 1 && !machine.cpu.is_empty() && !machine.kernel.is_empty() && machine.memory > 0);
    }
}
