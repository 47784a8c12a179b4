//! Subcommands that talk to running nodes: grammar here, one file per errand.
//!
//! All go by the registry of this user's nodes to find an address, unless `--address` names one; tokens come from
//! `DAPR_API_TOKEN`, as everywhere. None of them opens a data directory: what a running node holds is asked of it. What a
//! node holds differs from the next one's, so a node that the user did not name is named on stderr, and several are never
//! chosen from.

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
mod operate;
mod table;

pub use cluster::fuzz_answer;

/// Where to go and what for.
#[derive(Debug)]
pub struct ClientArgs {
    asked: Asked,
    errand: Errand,
}

/// The node that the user names, if any.
#[derive(Debug, Default)]
struct Asked {
    /// `--address`.
    address: Option<String>,
    /// `--app-id`, where that is not what the errand is about.
    app_id: Option<String>,
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
    Status { form: Form },
    Nodes { form: Form },
    Partitions { form: Form },
    Go { way: operate::Way, form: Form },
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
    asked: Asked,
}

/// The subcommands, for the help text and the parser.
pub fn grammar() -> Vec<Command> {
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    let output = Arg::new("output").short('o').long("output").value_name("FORM").hide(true);
    let app_id = || Arg::new("app-id").long("app-id").short('a').value_name("ID");
    let address = || Arg::new("address").long("address").value_name("HOST:PORT").help("HTTP API of the node to ask");
    let node = |command: Command| {
        let of_app = app_id().conflicts_with("address").help("Ask the node of this app, where several run");
        command.arg(of_app).arg(address())
    };
    let kind = Arg::new("type").long("type").value_name("TYPE").help("Only actors of this type");
    let prefix = Arg::new("prefix").long("prefix").value_name("TEXT").help("Only ids that start with this");
    let id = Arg::new("id").long("id").value_name("ID").help("Only the actor of this id");
    let paged = |command: Command| node(command.arg(kind.clone()).arg(limit()).arg(after()).arg(json()));
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
        node(Command::new("status").about("How the cluster is, and how many nodes may fail").arg(json())),
        node(Command::new("nodes").about("List the nodes of the cluster").arg(json())),
        node(
            Command::new("partitions").about("List the partitions of the cluster: owners, replicas, moves").arg(json()),
        ),
        node(Command::new("drain").about("Move everything a node holds to others; it stays a way in").arg(json())),
        node(Command::new("leave").about("Drain a node, take it out of the cluster for good, and stop it").arg(json())),
        Command::new("state")
            .about("Read actor state from outside")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(node(cluster::StateKey::grammar()))
            .subcommand(node(
                Command::new("export")
                    .about("Print state as JSON lines")
                    .arg(
                        Arg::new("prefix")
                            .value_name("PREFIX")
                            .help("For example 'shop||cart||'; without it everything"),
                    )
                    .arg(limit())
                    .arg(after()),
            )),
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
    let node = |matches: &ArgMatches| {
        let text = |flag: &str| matches.try_get_one::<String>(flag).ok().flatten().cloned();
        Asked { address: text("address"), app_id: text("app-id") }
    };
    let (asked, errand) = match name {
        "list" => (Asked::default(), Errand::List { form: form(matches) }),
        "stop" => (Asked::default(), Errand::Stop { app_ids: local::ids(matches)? }),
        // There `--app-id` is the app to invoke, which any node can reach.
        "invoke" => (Asked { app_id: None, ..node(matches) }, Errand::Invoke(invoke::Args::of(matches))),
        "actors" => (node(matches), Errand::Actors { query: cluster::Query::of(matches), form: form(matches) }),
        "reminders" => (node(matches), Errand::Reminders { query: cluster::Query::of(matches), form: form(matches) }),
        "status" => (node(matches), Errand::Status { form: form(matches) }),
        "nodes" => (node(matches), Errand::Nodes { form: form(matches) }),
        "partitions" => (node(matches), Errand::Partitions { form: form(matches) }),
        "drain" => (node(matches), Errand::Go { way: operate::Way::Drain, form: form(matches) }),
        "leave" => (node(matches), Errand::Go { way: operate::Way::Leave, form: form(matches) }),
        _ => match matches.subcommand() {
            Some(("get", matches)) => (node(matches), Errand::StateGet(cluster::StateKey::of(matches)?)),
            Some((_, matches)) => (node(matches), Errand::StateExport(cluster::Query::of(matches))),
            None => unreachable!("clap requires a subcommand of {name}"),
        },
    };
    Ok(ClientArgs { asked, errand })
}

/// Does the errand. The answer is the exit code.
///
/// # Errors
///
/// It could not be done; the text is for the user.
pub async fn run(args: ClientArgs, env: &Env, persona: Persona, out: &mut impl Write) -> anyhow::Result<u8> {
    let context = Errands { env, registry: Registry::of_user(env), persona, asked: args.asked };
    match args.errand {
        Errand::List { form } => local::list(&context, form, out),
        Errand::Stop { app_ids } => local::stop(&context, &app_ids, out).await,
        Errand::Invoke(args) => invoke::run(&context, args, out).await,
        Errand::Actors { query, form } => cluster::actors(&context, query, form, out).await,
        Errand::Reminders { query, form } => cluster::reminders(&context, query, form, out).await,
        Errand::StateGet(key) => cluster::state_get(&context, key, out).await,
        Errand::StateExport(query) => cluster::state_export(&context, query, out).await,
        Errand::Status { form } => operate::status(&context, form, out).await,
        Errand::Nodes { form } => operate::nodes(&context, form, out).await,
        Errand::Partitions { form } => operate::partitions(&context, form, out).await,
        Errand::Go { way, form } => operate::go(&context, way, form, out).await,
    }
}

impl Errands<'_> {
    fn token(&self) -> Option<&str> {
        self.env.get("DAPR_API_TOKEN")
    }

    /// A node that can reach `app_id`: that app's own, or any.
    fn endpoint_of(&self, app_id: &str) -> anyhow::Result<Endpoint> {
        let running = self.registry.running();
        match running.iter().find(|entry| entry.app_id == app_id) {
            Some(entry) if self.asked.address.is_none() => Endpoint::parse(&entry.http_address),
            None if self.asked.address.is_none() && running.len() > 1 && self.env.get("DAPR_HTTP_PORT").is_none() => {
                let known = known(&running);
                bail!("no node with app id {app_id} runs here; say with --address which node is to find it{known}")
            }
            Some(_) | None => self.endpoint(),
        }
    }

    /// The node to ask about what it holds, and says so where the user did not.
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let chosen = choose(&self.asked, self.env.get("DAPR_HTTP_PORT"), &self.registry.running())?;
        if let Some(because) = &chosen.because {
            // A closed stderr has no reader to miss it.
            let _ = writeln!(std::io::stderr(), "asking http://{}: {because}", chosen.endpoint.authority);
        }
        Ok(chosen.endpoint)
    }
}

/// The node that is asked.
#[derive(Debug)]
struct Chosen {
    endpoint: Endpoint,
    /// Why this one, where the command line does not say it.
    because: Option<String>,
}

/// By flag, else by the environment, else the only one that runs.
fn choose(asked: &Asked, port: Option<&str>, running: &[Entry]) -> anyhow::Result<Chosen> {
    let named = |endpoint| Chosen { endpoint, because: None };
    if let Some(address) = &asked.address {
        return Endpoint::parse(address).context("--address").map(named);
    }
    if let Some(app_id) = &asked.app_id {
        let of_app: Vec<_> = running.iter().filter(|entry| entry.app_id == *app_id).cloned().collect();
        return match of_app.as_slice() {
            [] => bail!("--app-id {app_id}: no such node runs here{}", known(running)),
            [entry] => Endpoint::parse(&entry.http_address).map(named),
            several => bail!("--app-id {app_id}: {}", ask_which(several)),
        };
    }
    match (running, port) {
        (_, Some(port)) => {
            let endpoint = Endpoint::parse(port).context("DAPR_HTTP_PORT")?;
            Ok(Chosen { endpoint, because: Some("DAPR_HTTP_PORT names it".to_owned()) })
        }
        ([], None) => bail!("no node runs here; start one with `callboard run`, or name one with --address"),
        ([only], None) => {
            let because = format!("the only node here, of app id {}", only.app_id);
            Ok(Chosen { endpoint: Endpoint::parse(&only.http_address)?, because: Some(because) })
        }
        (several, None) => bail!(ask_which(several)),
    }
}

/// One line for each node, with the flag that names it and no other.
fn ask_which(several: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let alone = several.iter().filter(|other| other.app_id == entry.app_id).count() == 1;
        let (id, address, node) = (&entry.app_id, &entry.http_address, &entry.node_name);
        match alone {
            true => format!("\n  --app-id {id}  (node {node} at {address})"),
            false => format!("\n  --address {address}  (node {node} of app id {id})"),
        }
    };
    format!("{} nodes run here; say which one is meant:{}", several.len(), several.iter().map(line).collect::<String>())
}

/// A hint for error messages.
fn known(running: &[Entry]) -> String {
    if running.is_empty() {
        return String::new();
    }
    let nodes: Vec<_> = running.iter().map(|entry| format!("{} ({})", entry.app_id, entry.http_address)).collect();
    format!("; running: {}", nodes.join(", "))
}

#[cfg(test)]
#[path = "choose_test.rs"]
mod choose_test;
