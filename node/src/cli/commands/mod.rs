//! Subcommands that talk to running nodes: grammar here, one file per errand.
//!
//! All go by the registry of this user's nodes to find an address, unless `--address` names one; tokens come from
//! `DAPR_API_TOKEN`, as everywhere. None of them opens a data directory: what a running node holds is asked of it.

use std::io::Write;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::client::Endpoint;
use super::env::Env;
use super::persona::Persona;
use super::registry::{Entry, Registry};

mod cluster;
mod invoke;
mod local;
mod table;

pub use cluster::fuzz_answer;

/// Where to go and what for.
#[derive(Debug)]
pub struct ClientArgs {
    /// `--address`.
    address: Option<String>,
    errand: Errand,
}

#[derive(Debug)]
enum Errand {
    List { form: Form },
    Stop { app_ids: Vec<String> },
    Invoke(invoke::Args),
    Actors { query: cluster::Query, form: Form },
    Reminders { query: cluster::Query, form: Form },
    StateGet(cluster::StateKey),
    StateExport(cluster::Query),
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
}

/// What every errand may use.
struct Errands<'a> {
    env: &'a Env,
    registry: Registry,
    persona: Persona,
    address: Option<String>,
}

/// The subcommands, for the help text and the parser.
pub fn grammar() -> Vec<Command> {
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    let output = Arg::new("output").short('o').long("output").value_name("FORM").hide(true);
    let app_id = || Arg::new("app-id").long("app-id").short('a').value_name("ID");
    let address = || Arg::new("address").long("address").value_name("HOST:PORT").help("HTTP API of any node");
    let kind = Arg::new("type").long("type").value_name("TYPE").help("Only actors of this type");
    let prefix = Arg::new("prefix").long("prefix").value_name("TEXT").help("Only ids that start with this");
    let id = Arg::new("id").long("id").value_name("ID").help("Only the actor of this id");
    let paged = |command: Command| command.arg(kind.clone()).arg(limit()).arg(after()).arg(json()).arg(address());
    vec![
        Command::new("stop")
            .about("Stop nodes of this machine, with their apps")
            .arg(app_id().action(ArgAction::Append).help("Id of the app; repeatable"))
            .arg(Arg::new("ids").value_name("ID").num_args(0..).help("The same, without the flag"))
            .arg(
                Arg::new("run-file")
                    .short('f')
                    .long("run-file")
                    .value_name("FILE")
                    .help("All apps of a multi-app run file"),
            ),
        Command::new("list").about("List the nodes of this machine").arg(json()).arg(output),
        invoke::grammar().arg(address()),
        paged(Command::new("actors").about("List actors that have state or reminders, without waking them"))
            .arg(prefix),
        paged(Command::new("reminders").about("List reminders, and firings given up by their policy")).arg(id),
        Command::new("state")
            .about("Read actor state from outside")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(cluster::StateKey::grammar().arg(address()))
            .subcommand(
                Command::new("export")
                    .about("Print state as JSON lines")
                    .arg(
                        Arg::new("prefix")
                            .value_name("PREFIX")
                            .help("For example 'shop||cart||'; without it everything"),
                    )
                    .arg(limit())
                    .arg(after())
                    .arg(address()),
            ),
    ]
}

fn limit() -> Arg {
    Arg::new("limit").long("limit").value_name("N").value_parser(clap::value_parser!(u64)).help("At most this many")
}

fn after() -> Arg {
    Arg::new("after").long("after").value_name("CURSOR").help("Go on where an earlier answer ended")
}

/// Reads what [`grammar`] matched.
pub fn args(name: &str, matches: &ArgMatches) -> Result<ClientArgs, clap::Error> {
    let form = |matches: &ArgMatches| {
        let json = matches.get_flag("json");
        let output = matches.try_get_one::<String>("output").ok().flatten();
        if json || output.is_some_and(|form| form == "json") { Form::Json } else { Form::Table }
    };
    let mut address = matches.try_get_one::<String>("address").ok().flatten().cloned();
    let errand = match name {
        "list" => Errand::List { form: form(matches) },
        "stop" => Errand::Stop { app_ids: local::ids(matches)? },
        "invoke" => Errand::Invoke(invoke::Args::of(matches)),
        "actors" => Errand::Actors { query: cluster::Query::of(matches), form: form(matches) },
        "reminders" => Errand::Reminders { query: cluster::Query::of(matches), form: form(matches) },
        _ => match matches.subcommand() {
            Some(("get", matches)) => {
                address = matches.get_one::<String>("address").cloned();
                Errand::StateGet(cluster::StateKey::of(matches)?)
            }
            Some((_, matches)) => {
                address = matches.get_one::<String>("address").cloned();
                Errand::StateExport(cluster::Query::of(matches))
            }
            None => unreachable!("clap requires a subcommand of {name}"),
        },
    };
    Ok(ClientArgs { address, errand })
}

/// Does the errand. The answer is the exit code.
///
/// # Errors
///
/// It could not be done; the text is for the user.
pub async fn run(args: ClientArgs, env: &Env, persona: Persona, out: &mut impl Write) -> anyhow::Result<u8> {
    let context = Errands { env, registry: Registry::of_user(env), persona, address: args.address };
    match args.errand {
        Errand::List { form } => local::list(&context, form, out),
        Errand::Stop { app_ids } => local::stop(&context, &app_ids, out).await,
        Errand::Invoke(args) => invoke::run(&context, args, out).await,
        Errand::Actors { query, form } => cluster::actors(&context, query, form, out).await,
        Errand::Reminders { query, form } => cluster::reminders(&context, query, form, out).await,
        Errand::StateGet(key) => cluster::state_get(&context, key, out).await,
        Errand::StateExport(query) => cluster::state_export(&context, query, out).await,
    }
}

impl Errands<'_> {
    fn token(&self) -> Option<&str> {
        self.env.get("DAPR_API_TOKEN")
    }

    /// The node of `app_id`, or the only one, or the one at the usual port.
    fn endpoint(&self, app_id: Option<&str>) -> anyhow::Result<Endpoint> {
        if let Some(address) = &self.address {
            return Endpoint::parse(address).context("--address");
        }
        let running = self.registry.running();
        if let Some(app_id) = app_id {
            let entry = running.iter().find(|entry| entry.app_id == app_id);
            let entry = entry.with_context(|| format!("no node with app id {app_id} runs here{}", known(&running)))?;
            return Endpoint::parse(&entry.http_address);
        }
        let port = self.env.get("DAPR_HTTP_PORT");
        match (running.as_slice(), port) {
            (_, Some(port)) => Endpoint::parse(port).context("DAPR_HTTP_PORT"),
            ([], None) => bail!("no node runs here; start one with `callboard run`, or name one with --address"),
            ([only], None) => Endpoint::parse(&only.http_address),
            (several, None) => bail!("several nodes run here; say which with --address{}", known(several)),
        }
    }
}

/// A hint for error messages.
fn known(running: &[Entry]) -> String {
    if running.is_empty() {
        return String::new();
    }
    let nodes: Vec<_> = running.iter().map(|entry| format!("{} ({})", entry.app_id, entry.http_address)).collect();
    format!("; running: {}", nodes.join(", "))
}
