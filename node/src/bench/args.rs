//! Flags of `callboard bench`.

use std::path::PathBuf;
use std::time::Duration;

use callboard_engine::duration::parse_go_duration;
use clap::{ArgMatches, Args as _, Command, FromArgMatches};

use super::scenario::Scenario;

/// What to measure, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Start a node and the echo app for it, and stop them afterwards
    #[arg(long = "self", conflicts_with_all = ["dapr_http", "app"])]
    pub own: bool,
    /// HTTP API of any sidecar [default: the node of --app-id on this machine]
    #[arg(long, value_name = "http://HOST:PORT")]
    pub dapr_http: Option<String>,
    /// The app's own address, for `direct` and for what the app has seen
    #[arg(long, value_name = "http://HOST:PORT")]
    pub app: Option<String>,
    /// Metrics of the node, for transactions per sync [default: found out]
    #[arg(long, value_name = "http://HOST:PORT")]
    pub metrics: Option<String>,
    /// App to invoke
    #[arg(long, value_name = "ID", default_value = "echo")]
    pub app_id: String,
    /// Actor type to call; its methods are those of the echo app
    #[arg(long, value_name = "TYPE", default_value = super::app::ACTOR_TYPE)]
    pub actor_type: String,
    /// What to measure: direct, invoke, noop, rw, hot-noop, hot-rw
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = scenario,
          default_value = "direct,invoke,noop,rw,hot-noop,hot-rw")]
    pub scenarios: Vec<Scenario>,
    /// Connections of the closed loop
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16,64,256",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: Vec<u16>,
    /// Requests per second of the open loop; 0 = leave it out
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000", value_parser = rate)]
    pub rates: Vec<f64>,
    /// Scenarios of the open loop
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = scenario, default_value = "direct,invoke,noop,rw")]
    pub open_scenarios: Vec<Scenario>,
    /// Connections of the open loop
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub open_connections: u16,
    /// Time each run is measured
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_go_duration)]
    pub duration: Duration,
    /// Time before that, which does not count
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_go_duration)]
    pub warm_up: Duration,
    /// Actors that calls are spread over
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub actors: u32,
    /// Bytes of each request's body
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub body: u32,
    /// Reminders to register and see fire; 0 = none
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub reminders: u32,
    /// Time over which the reminders are due
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_go_duration)]
    pub reminder_window: Duration,
    /// Threads of the load generator, which shares the machine with what it measures
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: u8,
    /// Folder whose file system's sync cost is measured [default: the node's data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON instead of the table
    #[arg(long)]
    pub json: bool,
    /// Also write the JSON to this file
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// With --self: more flags for the node
    #[arg(last = true, value_name = "NODE FLAGS")]
    pub node_flags: Vec<String>,
}

impl Args {
    /// Reads what [`grammar`] matched.
    ///
    /// # Errors
    ///
    /// Clap's own, which the grammar excludes.
    pub fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches(matches)
    }
}

/// The subcommand.
pub fn grammar() -> Command {
    Args::augment_args(Command::new("bench").about("Measure a node, or any other Dapr endpoint").after_help(
        "The open loop counts each latency from the instant the request was due, so that a stall costs every\n\
         request it delays. The closed loop keeps every connection busy and shows throughput.\n\n\
         To measure another sidecar, start the echo app beside it (`callboard __echo --port 8080`) and give\n\
         --dapr-http, --app and --app-id.",
    ))
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let known = || Scenario::ALL.map(Scenario::name).join(", ");
    Scenario::parse(name).ok_or_else(|| format!("unknown; the scenarios are {}", known()))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.1..=1e6).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("give a rate from 0.1 to 1000000, or 0".to_owned()),
    }
}
