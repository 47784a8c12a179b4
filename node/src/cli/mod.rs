//! The command line: what the user types, made into a running node or an errand to one.
//!
//! `main` goes from top to bottom: which name was called, what is asked for, settle the settings, hold the data folder,
//! bind the ports, tell the machine about the node, run it, and map its end to an exit code. Everything decided before
//! the node starts is decided here, so that the node itself never refuses a flag. Exit codes: 0 ended as asked, 1
//! failed or forced, 2 the command line is wrong (with `--check`: or what it names), else the app's own.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::runtime::Runtime;

use crate::config::{Config, DataDir};
use crate::node::Shutdown;

mod check;
pub mod child;
pub(crate) mod client;
mod command;
mod commands;
pub mod data_dir;
pub mod env;
pub mod flags;
mod holder;
pub mod logging;
pub mod mistakes;
mod multi;
pub mod persona;
pub mod ports;
mod reader;
pub mod ready;
pub mod registry;
pub mod resolve;
mod signals;
pub mod supervisor;
mod wait;

pub use commands::fuzz_answer;
pub use multi::fuzz_run_file;

use child::AppOutput;
use command::{Action, Stop};
use env::Env;
use mistakes::Mistakes;
use persona::Persona;

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// Threads for blocking work, at most.
const MAX_BLOCKING_THREADS: usize = 64;

/// Everything a node is started with. All of it is held: nobody can take a port or the folder any more.
#[derive(Debug)]
pub struct Start {
    pub config: Config,
    pub listeners: ports::Bound,
    pub data: data_dir::Held,
    /// The app to start once the outbound APIs work.
    pub child: Option<child::Command>,
    /// To be used when the node is ready.
    pub announce: ready::Announce,
}

/// The whole program.
pub fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if argv.get(1).is_some_and(|word| word == supervisor::SUBCOMMAND) {
        return supervisor::main(argv.into_iter().skip(2));
    }
    if argv.get(1).is_some_and(|word| word == crate::bench::APP_SUBCOMMAND) {
        return crate::bench::app_main(argv.into_iter().skip(1));
    }
    let persona = Persona::of(argv.first().map_or("callboard".as_ref(), OsString::as_os_str));
    let env = Env::of_process();
    let result = match command::parse(&argv, persona) {
        Ok(action) => perform(action, &env, persona),
        Err(Stop::Clap(error)) => {
            // Help goes to stdout and is no failure; a closed pipe behind it is none either.
            let _ = error.print();
            Ok(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE))
        }
        Err(Stop::Mistakes(mistakes)) => Err(mistakes.into()),
    };
    ExitCode::from(result.unwrap_or_else(|error| report(&error)))
}

fn perform(action: Action, env: &Env, persona: Persona) -> anyhow::Result<u8> {
    match action {
        Action::Run(run) => node(run, env, persona),
        Action::RunMany(args) => {
            let level = resolve::resolve(flags::Given::default(), env, Persona::Callboard, None);
            level.map(|launch| logging::init(&launch.log)).ok();
            let runtime = runtime()?;
            let shutdown = Shutdown::default();
            runtime.block_on(async {
                let _signals = signals::watch(&shutdown)?;
                forced_or(&shutdown, multi::run(&args, shutdown.clone())).await
            })
        }
        Action::Client(args) => {
            let mut out = std::io::stdout();
            runtime()?.block_on(commands::run(args, env, persona, &mut out))
        }
        Action::Bench(args) => crate::bench::run(*args, env),
        Action::Print(text) => {
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(0)
        }
    }
}

/// Starts a node and stays until it has ended.
fn node(run: command::Run, env: &Env, persona: Persona) -> anyhow::Result<u8> {
    if run.given.has("build-info") {
        std::io::stdout().write_all(command::version_text().as_bytes())?;
        return Ok(0);
    }
    if run.given.has("wait") {
        return wait::outbound(&run.given);
    }
    let output = match persona {
        Persona::Callboard | Persona::Daprd => AppOutput::Inherited,
        Persona::Dapr => AppOutput::Prefixed(child::PREFIX.to_owned()),
    };
    let (launch, mistakes) = settle(run, env, persona, output);
    if launch.check_only {
        return Ok(check::run(&launch, mistakes)?);
    }
    if !mistakes.is_empty() {
        return Err(mistakes.into());
    }
    logging::init(&launch.log).map_err(anyhow::Error::msg)?;
    for notice in &launch.notices {
        tracing::warn!("{notice}");
    }
    let mut config = launch.config;
    let data = data_dir::hold(&launch.data, &config.cluster)?;
    config.data = if data.is_ephemeral() { DataDir::Ephemeral } else { DataDir::Path(data.path().to_owned()) };
    if let Some(name) = data.node_name() {
        if name != config.node_name {
            let wanted = &config.node_name;
            tracing::warn!("a node named {wanted} runs already: this one is {name}, with a store of its own");
        }
        name.clone_into(&mut config.node_name);
    }
    let listeners = ports::bind(&config)?;
    for moved in &listeners.moved {
        tracing::warn!("port {} is in use; --{} is {} instead", moved.from, moved.flag, moved.to);
    }
    tracing::info!(
        app_id = config.app_id,
        node = config.node_name,
        cluster = config.cluster,
        http = listeners.ports.http,
        grpc = listeners.ports.grpc,
        peer = listeners.ports.peer,
        metrics = listeners.ports.metrics,
        data = %data.path().display(),
        "callboard {} starts",
        env!("CARGO_PKG_VERSION")
    );
    let registered =
        registry::Registry::of_user(env).register(&entry(&config, &listeners, &data, launch.child.as_ref()));
    if let Err(error) = &registered {
        tracing::warn!(%error, "this node will not be found by `callboard list` and `stop`");
    }
    let announce = ready::Announce::new(persona, launch.child.is_some());
    serve(Start { config, listeners, data, child: launch.child, announce })
}

/// The settings, and all mistakes of one command line: unknown flags and wrong values.
fn settle(run: command::Run, env: &Env, persona: Persona, output: AppOutput) -> (resolve::Launch, Mistakes) {
    let mut mistakes = run.mistakes;
    let (launch, more) = resolve::attempt(run.given, env, persona, child::Command::of(run.app, output));
    mistakes.extend(more);
    (launch, mistakes)
}

/// Runs the node on its own runtime until it ends, is told to, or is forced to.
fn serve(start: Start) -> anyhow::Result<u8> {
    let runtime = runtime()?;
    let shutdown = Shutdown::default();
    let temporary = start.data.is_ephemeral().then(|| start.data.path().to_owned());
    let result = runtime.block_on(async {
        let _signals = signals::watch(&shutdown)?;
        tokio::select! {
            biased;
            () = shutdown.forced.cancelled() => {
                // The folder goes with the node where it ends in order; here nothing is dropped any more.
                temporary.as_deref().map(std::fs::remove_dir_all);
                end(1)
            }
            result = crate::boot::run(start, shutdown.clone()) => result,
        }
    });
    runtime.shutdown_background();
    end(result.unwrap_or_else(|error| report(&error)))
}

/// Ends the process without running the static destructors of C++: threads of the store may still be using what those
/// destroy, and a node that ended in order must not end by a signal. Everything of ours has been dropped or does not matter.
fn end(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(i32::from(code))
}

/// The answer of `node`, or 1 as soon as the end is forced.
async fn forced_or(shutdown: &Shutdown, node: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    tokio::select! {
        biased;
        () = shutdown.forced.cancelled() => Ok(1),
        result = node => result,
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("callboard")
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")
}

fn entry(
    config: &Config,
    listeners: &ports::Bound,
    data: &data_dir::Held,
    child: Option<&child::Command>,
) -> registry::Entry {
    let address = listeners.http.iter().filter_map(|listener| listener.local_addr().ok()).next();
    let local = address.map_or_else(String::new, |address| match address.ip().is_unspecified() {
        true => format!("127.0.0.1:{}", address.port()),
        false => address.to_string(),
    });
    let pid = std::process::id();
    registry::Entry {
        app_id: config.app_id.clone(),
        node_name: config.node_name.clone(),
        namespace: config.namespace.clone(),
        cluster: config.cluster.clone(),
        pid,
        started_ticks: holder::started(pid).unwrap_or_default(),
        created: unix_seconds(),
        http_port: listeners.ports.http,
        grpc_port: listeners.ports.grpc,
        peer_port: listeners.ports.peer,
        metrics_port: listeners.ports.metrics,
        app_port: config.app.as_ref().map(|app| app.port),
        http_address: local,
        command: child.map(child::Command::text).unwrap_or_default(),
        data_dir: data.path().to_owned(),
        max_body: config.http.max_body,
    }
}

/// The wall clock, for people's eyes only.
#[allow(clippy::disallowed_methods)] // runs without a node, whose clock this is not
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Says on stderr what went wrong; the answer is the exit code.
fn report(error: &anyhow::Error) -> u8 {
    // A closed stderr has no reader; the exit code says it too.
    let _ = writeln!(std::io::stderr(), "callboard: {}", told_once(error));
    if error.is::<Mistakes>() { EXIT_USAGE } else { 1 }
}

/// An error and its causes as one text. Many errors tell their cause themselves: it is not told again.
fn told_once(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("open /d: {source}; try another")]
        struct Telling {
            source: std::io::Error,
        }
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let telling = anyhow::Error::new(Telling { source: denied() }).context("start");
        assert_eq!(told_once(&telling), "start: open /d: permission denied; try another");
        assert_eq!(told_once(&anyhow::Error::new(denied()).context("open /d")), "open /d: permission denied");
    }
}
