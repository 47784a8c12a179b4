//! Every flag of a node, once: the parser, the help text and the mistakes are all made from this table.
//!
//! Values stay text here. Clap stops at the first value it dislikes, while a user who got three flags wrong wants to
//! hear of three; so typing happens in `resolve`, which reports all mistakes together. The names are `daprd`'s where
//! `daprd` has the flag. Flags of `daprd` and `dapr` without meaning here are in the table too, so that command lines
//! written for those work unchanged, and each one used is logged once.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

/// How a flag takes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `--flag value` or `--flag=value`; the last one wins.
    Value,
    /// Repeatable, and a comma separates values of one use.
    Values,
    /// `--flag`, or `--flag=false`.
    Switch,
}

/// Where a flag stands in the help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Start,
    App,
    Api,
    Cluster,
    Storage,
    Limits,
    Logs,
    /// Works, and is left out of the help text.
    Hidden,
    /// Accepted, and has no effect here.
    Ignored,
}

impl Group {
    const fn heading(self) -> Option<&'static str> {
        match self {
            Self::Start => Some("Start"),
            Self::App => Some("The app"),
            Self::Api => Some("Dapr APIs"),
            Self::Cluster => Some("Cluster"),
            Self::Storage => Some("Data"),
            Self::Limits => Some("Limits and shutdown"),
            Self::Logs => Some("Logs"),
            Self::Hidden | Self::Ignored => None,
        }
    }
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    pub group: Group,
    /// Name of the value in the help text.
    value: &'static str,
    pub help: &'static str,
    /// Environment variable read when the flag is absent.
    pub env: Option<&'static str>,
}

impl Flag {
    const fn new(name: &'static str, kind: Kind, group: Group, value: &'static str, help: &'static str) -> Self {
        Self { name, short: None, aliases: &[], kind, group, value, help, env: None }
    }

    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn env(mut self, name: &'static str) -> Self {
        self.env = Some(name);
        self
    }

    /// Accepted for the sake of command lines written for `daprd` or `dapr`.
    const fn ignored(name: &'static str, kind: Kind) -> Self {
        Self::new(name, kind, Group::Ignored, "VALUE", "")
    }

    fn arg(&'static self) -> Arg {
        let mut arg = Arg::new(self.name).long(self.name).help(self.help);
        for alias in self.aliases {
            arg = arg.alias(*alias);
        }
        if let Some(short) = self.short {
            arg = arg.short(short);
        }
        arg = match self.group.heading() {
            Some(heading) => arg.help_heading(heading),
            None => arg.hide(true),
        };
        match self.kind {
            Kind::Value => arg.value_name(self.value).action(ArgAction::Append).allow_negative_numbers(true),
            Kind::Values => arg.value_name(self.value).action(ArgAction::Append),
            Kind::Switch => arg
                .action(ArgAction::Append)
                .value_name("true|false")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .hide_possible_values(true),
        }
    }
}

use Group::{Api, App, Cluster, Hidden, Limits, Logs, Start, Storage};
use Kind::{Switch, Value, Values};

/// The table. Its order is the order of the help text.
pub static FLAGS: &[Flag] = &[
    Flag::new("check", Switch, Start, "", "Look for mistakes in flags, resources and data folder, and start nothing"),
    Flag::new("app-id", Value, App, "ID", "Name of the app, under which others invoke it; no dots [default: app]")
        .short('a'),
    Flag::new("app-port", Value, App, "PORT", "Port the app listens on; without it nothing is ever sent to the app")
        .short('p'),
    Flag::new("app-protocol", Value, App, "NAME", "http, https or h2c [default: http]").short('P'),
    Flag::new("app-channel-address", Value, App, "HOST", "Address the app listens on [default: 127.0.0.1]"),
    Flag::new("app-max-concurrency", Value, App, "N", "Requests to the app at a time [default: no limit]")
        .alias(&["max-concurrency"]),
    Flag::new("enable-app-health-check", Switch, App, "", "Probe the app; while it fails, nothing is sent to it"),
    Flag::new("app-health-check-path", Value, App, "PATH", "Path of the probe [default: /healthz]"),
    Flag::new("app-health-probe-interval", Value, App, "SECONDS", "Time between probes [default: 5]"),
    Flag::new("app-health-probe-timeout", Value, App, "MS", "Time one probe may take [default: 500]"),
    Flag::new("app-health-threshold", Value, App, "N", "Failed probes in a row that count as unhealthy [default: 3]"),
    Flag::new("disable-init-endpoints", Values, App, "LIST", "config = do not read /dapr/config of the app"),
    Flag::new("dapr-http-port", Value, Api, "PORT", "HTTP API [default: 3500, or a free one]").short('H'),
    Flag::new("dapr-grpc-port", Value, Api, "PORT", "gRPC API [default: 50001, or a free one]").short('G'),
    Flag::new("dapr-internal-grpc-port", Value, Api, "PORT", "Other nodes [default: 50002, or a free one]")
        .short('I')
        .alias(&["internal-grpc-port"]),
    Flag::new("metrics-port", Value, Api, "PORT", "Prometheus metrics [default: 9090, or a free one]").short('M'),
    Flag::new("enable-metrics", Switch, Api, "", "Serve metrics [default: true]"),
    Flag::new("dapr-listen-addresses", Values, Api, "IP,...", "Addresses of both APIs [default: 127.0.0.1,::1]"),
    Flag::new("dapr-internal-grpc-listen-address", Values, Api, "IP", "Address for other nodes [default: as the APIs]"),
    Flag::new("metrics-listen-address", Values, Api, "IP", "Address of the metrics [default: as the APIs]"),
    Flag::new("dapr-public-port", Value, Api, "PORT", "Serve only health and metadata on this port too"),
    Flag::new("dapr-public-listen-address", Values, Api, "IP", "Address of the public port [default: all interfaces]"),
    Flag::new("unix-domain-socket", Value, Api, "DIR", "Also listen on sockets in this folder").short('u'),
    Flag::new("allowed-origins", Values, Api, "LIST", "Origins that browsers may call from; * = all [default: none]"),
    Flag::new("enable-api-logging", Switch, Api, "", "Log each API call"),
    Flag::new("resources-path", Values, Api, "DIR", "Folder with YAML resources; repeatable")
        .short('d')
        .alias(&["components-path"]),
    Flag::new("config", Values, Api, "FILE", "Configuration file; repeatable, later ones win").short('c'),
    Flag::new("cluster", Value, Cluster, "NAME", "The cluster this node belongs to [default: default]")
        .env("CALLBOARD_CLUSTER"),
    Flag::new("node-name", Value, Cluster, "NAME", "Name of this node [default: the app id]")
        .env("CALLBOARD_NODE_NAME"),
    Flag::new("zone", Value, Cluster, "NAME", "Failure zone of this node").env("CALLBOARD_ZONE"),
    Flag::new("role", Value, Cluster, "NAME", "storage = holds data, gateway = only routes [default: storage]")
        .env("CALLBOARD_ROLE"),
    Flag::new("standalone", Switch, Cluster, "", "Never look for other nodes").env("CALLBOARD_STANDALONE"),
    Flag::new("join", Values, Cluster, "HOST:PORT", "Nodes of a cluster to join").env("CALLBOARD_JOIN"),
    Flag::new("bootstrap-expect", Value, Cluster, "N", "Storage nodes that form the cluster together [default: 1]")
        .env("CALLBOARD_BOOTSTRAP_EXPECT"),
    Flag::new("advertise", Value, Cluster, "HOST", "Address other nodes are told [default: found out]")
        .env("CALLBOARD_ADVERTISE"),
    Flag::new(
        "partitions",
        Value,
        Cluster,
        "N",
        "Partitions of the cluster, 1 to 128; fixed at its start [default: 16]",
    )
    .env("CALLBOARD_PARTITIONS"),
    Flag::new("replicas", Value, Cluster, "N", "Copies of each partition once there are as many nodes [default: 3]")
        .env("CALLBOARD_REPLICAS"),
    Flag::new("reads", Value, Cluster, "MODE", "lease = reads cost no round trip, index = one each [default: lease]")
        .env("CALLBOARD_READS"),
    Flag::new(
        "data-dir",
        Value,
        Storage,
        "DIR",
        "Where data is kept [default: ~/.local/share/callboard/<cluster>/<node name>]",
    )
    .env("CALLBOARD_DATA_DIR"),
    Flag::new("ephemeral", Switch, Storage, "", "Keep data in a temporary folder, removed at exit")
        .env("CALLBOARD_EPHEMERAL"),
    Flag::new("max-body-size", Value, Limits, "SIZE", "Largest request body [default: 4Mi]"),
    Flag::new("read-buffer-size", Value, Limits, "SIZE", "Largest header block of a request [default: 4Ki]"),
    Flag::new("dapr-graceful-shutdown-seconds", Value, Limits, "N", "Time to finish when told to stop [default: 5]"),
    Flag::new("dapr-block-shutdown-duration", Value, Limits, "TIME", "Keep serving this long after the signal"),
    Flag::new("log-level", Value, Logs, "LEVEL", "debug, info, warn or error [default: info]"),
    Flag::new("log-format", Value, Logs, "NAME", "text or json [default: text]").env("CALLBOARD_LOG_FORMAT"),
    Flag::new("log-as-json", Switch, Logs, "", "Same as --log-format json"),
    Flag::new("app-ssl", Switch, Hidden, "", "--app-protocol https"),
    Flag::new("dapr-http-max-request-size", Value, Hidden, "MB", "--max-body-size in megabytes")
        .alias(&["http-max-request-size"]),
    Flag::new("dapr-http-read-buffer-size", Value, Hidden, "KB", "--read-buffer-size in kilobytes")
        .alias(&["http-read-buffer-size"]),
    Flag::new("wait", Switch, Hidden, "", "Wait until a node on --dapr-http-port answers, then exit"),
    Flag::new("build-info", Switch, Hidden, "", "Print the version and exit"),
    Flag::new("unsafe-no-sync", Switch, Hidden, "", "Do not sync the log: acknowledged writes can be lost"),
    Flag::ignored("placement-host-address", Value).alias(&["placement-address"]),
    Flag::ignored("scheduler-host-address", Value),
    Flag::ignored("scheduler-job-streams", Value),
    Flag::ignored("actors-service", Value),
    Flag::ignored("reminders-service", Value),
    Flag::ignored("actors-disseminate-timeout", Value),
    Flag::ignored("hot-reload-reconcile-interval", Value),
    Flag::ignored("sentry-address", Value),
    Flag::ignored("enable-mtls", Switch),
    Flag::ignored("control-plane-address", Value),
    Flag::ignored("control-plane-trust-domain", Value),
    Flag::ignored("control-plane-namespace", Value),
    Flag::ignored("mode", Value),
    Flag::ignored("profile-port", Value),
    Flag::ignored("enable-profiling", Switch),
    Flag::ignored("app-binding-options-timeout", Value),
    Flag::ignored("runtime-path", Value),
    Flag::ignored("image", Value),
    Flag::ignored("app-log-destination", Value),
    Flag::ignored("daprd-log-destination", Value),
];

/// What a command line says, by flag name. Only names of the table occur.
#[derive(Debug, Clone, Default)]
pub struct Given(BTreeMap<&'static str, Vec<String>>);

impl Given {
    /// The last value of `name`; an empty one counts as absent, as `daprd` has it.
    pub fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(FLAGS.iter().any(|flag| flag.name == name), "{name} is not in the table");
        self.0.get(name)?.last().map(String::as_str).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Whether `name` is given, and its last value is empty: most often a variable of a script that is not set.
    pub fn is_blank(&self, name: &str) -> bool {
        self.has(name) && self.text(name).is_none()
    }

    /// Every value of `name`, split at commas, blanks dropped.
    pub fn list(&self, name: &str) -> Vec<String> {
        debug_assert!(FLAGS.iter().any(|flag| flag.name == name), "{name} is not in the table");
        let values = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        values
            .iter()
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Whether `name` stands on the command line, with whatever value.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.entry(name).or_default().push(value.into());
    }

    /// Fills in the environment's value of each flag that is absent.
    pub fn or_env(&mut self, env: &super::env::Env) {
        for flag in FLAGS {
            if let Some(value) = flag.env.and_then(|name| env.get(name))
                && !self.has(flag.name)
            {
                self.set(flag.name, value);
            }
        }
    }
}

/// Adds the flags of a node to a command.
pub fn augment(command: Command) -> Command {
    FLAGS.iter().fold(command, |command, flag| command.arg(flag.arg()))
}

/// Reads back what [`augment`] added.
pub fn given(matches: &ArgMatches) -> Given {
    let mut given = Given::default();
    for flag in FLAGS {
        for value in matches.get_many::<String>(flag.name).into_iter().flatten() {
            given.set(flag.name, value.as_str());
        }
    }
    given
}
