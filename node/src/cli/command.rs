//! From `argv` to what is to be done: subcommands, spelling, and unknown flags.
//!
//! Clap knows the grammar; this module adds what it lacks. Go's flags may have one dash, so under the name `daprd` every
//! `-long` becomes `--long`. Clap stops at the first unknown flag: it is asked again without that flag, so that all
//! unknown ones are reported together with all wrong values. And a word that stands where none is expected is most often
//! the app's command without its `--`, which is said with the line that works.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::commands::{self, ClientArgs};
use super::flags::{self, Given};
use super::mistakes::Mistakes;
use super::multi;
use super::persona::Persona;
use crate::bench;

/// Unknown flags that are told apart before the rest is given up.
const MAX_UNKNOWN: usize = 32;

/// What the user asks for.
#[derive(Debug)]
pub enum Action {
    /// Be a node, perhaps with an app beside it.
    Run(Run),
    /// `run -f`: many nodes with their apps.
    RunMany(multi::Args),
    /// Ask a node, or all, for something.
    Client(ClientArgs),
    Bench(Box<bench::Args>),
    /// Nothing but this text, on stdout.
    Print(String),
}

#[derive(Debug)]
pub struct Run {
    pub given: Given,
    /// The app's command line; empty = none.
    pub app: Vec<OsString>,
    /// Unknown flags.
    pub mistakes: Mistakes,
}

/// Why there is nothing to do.
#[derive(Debug)]
pub enum Stop {
    /// Help, version, or a mistake in clap's own words.
    Clap(clap::Error),
    Mistakes(Mistakes),
}

/// Reads `argv`, whose first word is the program's name.
///
/// # Errors
///
/// Help was asked for, or the words make no sense.
pub fn parse(argv: &[OsString], persona: Persona) -> Result<Action, Stop> {
    let argv = match persona {
        Persona::Callboard | Persona::Dapr => argv.to_vec(),
        Persona::Daprd => argv.iter().scan(false, |ended, word| Some(double_dash(word, ended))).collect(),
    };
    let (matches, mistakes) = match_all(grammar(persona), argv)?;
    if persona == Persona::Daprd {
        return Ok(run(&matches, mistakes));
    }
    match matches.subcommand() {
        Some(("run", matches)) => match multi::Args::of(matches) {
            Some(args) if mistakes.is_empty() => Ok(Action::RunMany(args)),
            Some(_) | None => Ok(run(matches, mistakes)),
        },
        Some(_) if !mistakes.is_empty() => Err(Stop::Mistakes(mistakes)),
        Some(("bench", matches)) => {
            bench::Args::of(matches).map(|args| Action::Bench(Box::new(args))).map_err(Stop::Clap)
        }
        Some(("init" | "uninstall", _)) => Ok(Action::Print(
            "Nothing to install: placement, scheduler and state store are part of every node.\n".to_owned(),
        )),
        Some(("version", _)) => Ok(Action::Print(version_text())),
        Some((name, matches)) => commands::args(name, matches).map(Action::Client).map_err(Stop::Clap),
        None => Err(Stop::Clap(grammar(persona).error(ErrorKind::MissingSubcommand, "a subcommand is missing"))),
    }
}

/// The version, as `--version` prints it.
pub fn version_text() -> String {
    format!("callboard {}\n", env!("CARGO_PKG_VERSION"))
}

fn run(matches: &ArgMatches, mistakes: Mistakes) -> Action {
    let app = match matches.try_get_many::<OsString>("command") {
        Ok(Some(words)) => words.cloned().collect(),
        Ok(None) | Err(_) => Vec::new(),
    };
    Action::Run(Run { given: flags::given(matches), app, mistakes })
}

/// Matches `argv`, and collects the flags that the grammar does not have.
fn match_all(grammar: Command, mut argv: Vec<OsString>) -> Result<(ArgMatches, Mistakes), Stop> {
    let mut mistakes = Mistakes::default();
    for _ in 0..MAX_UNKNOWN {
        let error = match grammar.clone().try_get_matches_from(&argv) {
            Ok(matches) => return Ok((matches, mistakes)),
            Err(error) => error,
        };
        let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
            (ErrorKind::UnknownArgument, Some(ContextValue::String(unknown))) => unknown.clone(),
            _ => return Err(last_mistake(mistakes, error)),
        };
        if !unknown.starts_with('-') {
            let Some(line) = with_separator(&grammar, &argv, &unknown) else {
                return Err(last_mistake(mistakes, error));
            };
            let problem = format!("not a flag; if the app's command begins here, put -- before it: {line}");
            mistakes.add(unknown, problem);
            return Err(Stop::Mistakes(mistakes));
        }
        let Some(at) = argv.iter().position(|word| is_flag(word, &unknown)) else { return Err(Stop::Clap(error)) };
        let problem = match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(known)) => format!("unknown; is {known} meant?"),
            _ => "unknown; --help lists the flags".to_owned(),
        };
        mistakes.add(unknown, problem);
        let with_value = !argv[at].to_string_lossy().contains('=')
            && argv.get(at + 1).is_some_and(|next| !next.to_string_lossy().starts_with('-'));
        argv.drain(at..=at + usize::from(with_value));
    }
    Err(Stop::Mistakes(mistakes))
}

/// A mistake after which clap goes no further: alone it stands in clap's own words, among others as one of them.
fn last_mistake(mut mistakes: Mistakes, error: clap::Error) -> Stop {
    if mistakes.is_empty() {
        return Stop::Clap(error);
    }
    let missing = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => missing.as_slice(),
        _ => &[],
    };
    for argument in missing {
        mistakes.add(argument, "missing");
    }
    if missing.is_empty() {
        // Clap's text is a paragraph, then the usage.
        let text = error.to_string();
        let words: Vec<_> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
        mistakes.add("and", words.join(" ").trim_start_matches("error: "));
    }
    Stop::Mistakes(mistakes)
}

/// The command line with `--` before the first `stray` word where that makes it one; `None` when it never does.
fn with_separator(grammar: &Command, argv: &[OsString], stray: &str) -> Option<String> {
    let places = argv.iter().enumerate().skip(1).filter(|(_, word)| word.to_str() == Some(stray));
    places.map(|(at, _)| at).find_map(|at| {
        let mut line = argv.to_vec();
        line.insert(at, OsString::from("--"));
        let matches = grammar.clone().try_get_matches_from(&line).ok()?;
        let (_, run) = matches.subcommand().filter(|(name, _)| *name == "run")?;
        let command: Vec<_> = run.try_get_many::<OsString>("command").ok().flatten()?.collect();
        // Elsewhere the word may be the value of a flag.
        (command == argv[at..].iter().collect::<Vec<_>>())
            .then(|| line.iter().map(quoted).collect::<Vec<_>>().join(" "))
    })
}

/// A word as a shell takes it.
fn quoted(word: &OsString) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn is_flag(word: &OsStr, flag: &str) -> bool {
    let word = word.to_string_lossy();
    word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=') || !flag.starts_with("--"))
}

/// `-app-id` means `--app-id`. Numbers, single letters and everything after `--` stay.
fn double_dash(word: &OsString, ended: &mut bool) -> OsString {
    let text = word.to_string_lossy();
    *ended |= text == "--";
    let long = text.strip_prefix('-').is_some_and(|rest| {
        rest.len() > 1 && !rest.starts_with('-') && rest.starts_with(|first: char| first.is_ascii_alphabetic())
    });
    if long && !*ended { OsString::from(format!("-{text}")) } else { word.clone() }
}

/// The grammar under one name.
pub fn grammar(persona: Persona) -> Command {
    match persona {
        Persona::Daprd => flags::augment(
            Command::new("daprd")
                .version(env!("CARGO_PKG_VERSION"))
                .about("Callboard as a drop-in for Dapr's sidecar")
                .args_override_self(true)
                .max_term_width(MAX_WIDTH),
        ),
        Persona::Dapr => subcommands(
            Command::new("dapr")
                .version(env!("CARGO_PKG_VERSION"))
                .about("Callboard as a drop-in for Dapr's launcher")
                .disable_version_flag(true)
                .arg(
                    Arg::new("version").short('v').long("version").action(ArgAction::Version).help("Print the version"),
                ),
            dapr_run(),
        )
        .subcommand(Command::new("init").hide(true).arg(anything()))
        .subcommand(Command::new("uninstall").hide(true).arg(anything()))
        .subcommand(Command::new("version").about("Print the version")),
        Persona::Callboard => subcommands(
            Command::new("callboard").version(env!("CARGO_PKG_VERSION")).about(ABOUT).after_help(EXAMPLES),
            callboard_run(),
        )
        .subcommand(bench::grammar()),
    }
}

/// Columns of the help text on a wide terminal.
const MAX_WIDTH: usize = 110;

const ABOUT: &str = "Virtual actors and service invocation in one binary, behind the Dapr APIs";

const EXAMPLES: &str = "\
Examples:
  callboard run --app-id shop --app-port 8080 -- python app.py    start an app with a node beside it
  callboard run --app-id shop --app-port 8080                     a node for an app started elsewhere
  callboard invoke --app-id shop --method orders --data '{\"id\":1}'
  callboard actors --type cart                                    actors that have state or reminders
  callboard actors --app-id shop                                  the same, where several nodes run
  callboard run --app-id shop --check                             look for mistakes, start nothing
  callboard bench --self                                          how fast this machine is

Called by the name `daprd` or `dapr` (a symlink), it takes the flags of those.
`callboard help <command>` shows the flags of a command.";

fn subcommands(command: Command, run: Command) -> Command {
    let command =
        command.subcommand_required(true).arg_required_else_help(true).max_term_width(MAX_WIDTH).subcommand(run);
    commands::grammar().into_iter().fold(command, Command::subcommand)
}

fn callboard_run() -> Command {
    let app = Arg::new("command")
        .value_name("COMMAND")
        .help("The app to start, with its arguments; the node ends when the app does")
        .num_args(1..)
        .last(true)
        .value_parser(clap::value_parser!(OsString));
    run_command("Start a node, and an app beside it").arg(app)
}

/// `dapr run` also takes the app's command line without `--`.
fn dapr_run() -> Command {
    let app = Arg::new("command")
        .value_name("COMMAND")
        .help("The app to start, with its arguments")
        .num_args(1..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(clap::value_parser!(OsString));
    run_command("Start an app with a node beside it").arg(app)
}

fn run_command(about: &'static str) -> Command {
    multi::augment(flags::augment(Command::new("run").about(about).args_override_self(true)))
}

fn anything() -> Arg {
    Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).hide(true)
}

#[cfg(test)]
#[path = "command_test.rs"]
mod command_test;
