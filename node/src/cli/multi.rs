//! `run -f`: starts every app of a multi-app run file, each with a node of its own.
//!
//! The file is the one `dapr run -f` reads. Each app becomes one `run` of this binary with the flags its entry stands
//! for, so that everything a flag means holds here too; this module only translates, starts and waits. Fields that have
//! no flag are named once. All end with this process, and this process ends with the last of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::child::{self, AppOutput};
use super::flags;
use crate::node::Shutdown;

/// Apps in one file.
const MAX_APPS: usize = 256;
/// Time each node has to drain; its own limit is shorter.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// The file looked for in a folder.
const DEFAULT_FILE: &str = "dapr.yaml";

/// Fields of an app, and the flags they stand for.
const FIELDS: &[(&str, &str)] = &[
    ("appID", "app-id"),
    ("appPort", "app-port"),
    ("appProtocol", "app-protocol"),
    ("appChannelAddress", "app-channel-address"),
    ("appMaxConcurrency", "app-max-concurrency"),
    ("appSSL", "app-ssl"),
    ("daprHTTPPort", "dapr-http-port"),
    ("daprGRPCPort", "dapr-grpc-port"),
    ("daprInternalGRPCPort", "dapr-internal-grpc-port"),
    ("metricsPort", "metrics-port"),
    ("daprHTTPMaxRequestSize", "dapr-http-max-request-size"),
    ("daprHTTPReadBufferSize", "dapr-http-read-buffer-size"),
    ("maxBodySize", "max-body-size"),
    ("readBufferSize", "read-buffer-size"),
    ("enableAppHealthCheck", "enable-app-health-check"),
    ("appHealthCheckPath", "app-health-check-path"),
    ("appHealthProbeInterval", "app-health-probe-interval"),
    ("appHealthProbeTimeout", "app-health-probe-timeout"),
    ("appHealthThreshold", "app-health-threshold"),
    ("enableApiLogging", "enable-api-logging"),
    ("enableAPILogging", "enable-api-logging"),
    ("logLevel", "log-level"),
    ("unixDomainSocket", "unix-domain-socket"),
];
/// Fields whose values are paths next to the file.
const PATHS: &[(&str, &str)] =
    &[("resourcesPath", "resources-path"), ("resourcesPaths", "resources-path"), ("configFilePath", "config")];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    file: PathBuf,
    /// `--check`, with its value if it has one: passed on to each `run`.
    check: Option<String>,
}

/// Adds `--run-file` to `run`.
pub fn augment(command: Command) -> Command {
    let file = Arg::new("run-file").long("run-file").short('f').value_name("FILE");
    command.arg(file.help("Start every app of this multi-app run file (dapr.yaml) instead"))
}

impl Args {
    /// `None` when one app is meant.
    pub fn of(matches: &ArgMatches) -> Option<Self> {
        let file = PathBuf::from(matches.get_one::<String>("run-file")?);
        let check = flags::given(matches).text("check").map(|value| format!("--check={value}"));
        Some(Self { file, check })
    }
}

/// One app of the file, as a command line of `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    app_id: String,
    flags: Vec<String>,
    command: Vec<String>,
    dir: PathBuf,
    env: BTreeMap<String, String>,
    /// Fields without a flag.
    unknown: Vec<String>,
}

/// The app ids in a file.
///
/// # Errors
///
/// It cannot be read.
pub fn app_ids(file: &Path) -> anyhow::Result<Vec<String>> {
    Ok(read(file)?.into_iter().map(|member| member.app_id).collect())
}

/// Starts all, waits for all. The answer is the first exit code other than 0.
///
/// # Errors
///
/// The file cannot be read, or an app not be started.
pub async fn run(args: &Args, shutdown: Shutdown) -> anyhow::Result<u8> {
    let mut nodes = JoinSet::new();
    for member in read(&args.file)? {
        if !member.unknown.is_empty() {
            tracing::info!(app = member.app_id, "fields without effect: {}", member.unknown.join(" "));
        }
        let mut words = vec![child::this_binary().into_os_string(), OsString::from("run")];
        words.extend(member.flags.iter().chain(&args.check).map(OsString::from));
        if !member.command.is_empty() {
            words.push("--".into());
            words.extend(member.command.iter().map(OsString::from));
        }
        let output = AppOutput::Prefixed(format!("== APP - {} == ", member.app_id));
        let command = child::Command::of(words, output).context("no command")?.in_dir(Some(member.dir));
        let env: Vec<_> = member.env.into_iter().collect();
        let node = command.start(&env).with_context(|| format!("cannot start {}", member.app_id))?;
        let (stop, none) = (shutdown.graceful.clone(), Shutdown::default());
        nodes.spawn(async move {
            let code = node.until(&stop, &none, STOP_WAIT).await.unwrap_or(0);
            tracing::info!(app = member.app_id, code, "its node has ended");
            code
        });
    }
    let mut exit = 0;
    while let Some(code) = nodes.join_next().await {
        let code = code.unwrap_or(1);
        exit = if exit == 0 { code } else { exit };
    }
    Ok(exit)
}

fn read(file: &Path) -> anyhow::Result<Vec<Member>> {
    let file = if file.is_dir() { file.join(DEFAULT_FILE) } else { file.to_owned() };
    let text = std::fs::read_to_string(&file).with_context(|| format!("--run-file {}", file.display()))?;
    let base = file.canonicalize()?.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    members(&text, &base).with_context(|| format!("--run-file {}", file.display()))
}

/// Translates the text of a file in folder `base`.
fn members(text: &str, base: &Path) -> anyhow::Result<Vec<Member>> {
    let Value::Object(file) = serde_yaml_ng::from_str::<Value>(text)? else { bail!("not a multi-app run file") };
    let common = object(file.get("common"));
    let apps = file.get("apps").and_then(Value::as_array).context("no apps in it")?;
    if apps.is_empty() || apps.len() > MAX_APPS {
        bail!("{} apps in it; 1 to {MAX_APPS} can be started", apps.len());
    }
    apps.iter().map(|app| member(&common, app, base)).collect()
}

fn member(common: &Map<String, Value>, app: &Value, base: &Path) -> anyhow::Result<Member> {
    let app = object(Some(app));
    let dir = base.join(app.get("appDirPath").and_then(Value::as_str).unwrap_or("."));
    let app_id = match app.get("appID").map(text) {
        Some(id) if !id.is_empty() => id,
        // As Dapr has it: an app without an id is named after its folder.
        Some(_) | None => {
            dir.canonicalize()?.file_name().map(|name| name.to_string_lossy().into_owned()).context("appID: missing")?
        }
    };
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for source in [common, &app] {
        env.extend(object(source.get("env")).iter().map(|(name, value)| (name.clone(), text(value))));
    }
    let mut fields = common.clone();
    fields.extend(app);
    fields.insert("appID".into(), Value::String(app_id.clone()));
    let (mut flags, mut unknown) = (Vec::new(), Vec::new());
    for (field, value) in &fields {
        if let Some((_, flag)) = FIELDS.iter().find(|(name, _)| name == field) {
            flags.push(format!("--{flag}={}", text(value)));
        } else if let Some((_, flag)) = PATHS.iter().find(|(name, _)| name == field) {
            flags.extend(list(value).iter().map(|path| format!("--{flag}={}", base.join(path).display())));
        } else if !["appDirPath", "command", "env"].contains(&field.as_str()) {
            unknown.push(field.clone());
        }
    }
    let command = fields.get("command").map(list).unwrap_or_default();
    Ok(Member { app_id, flags, command, dir, env, unknown })
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().map_or_else(|| vec![text(value)], |values| values.iter().map(text).collect())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Fuzz body: the text of a run file. Every app in it has an id, and its flags are flags.
pub fn fuzz_run_file(data: &[u8]) {
    let Ok(members) = members(&String::from_utf8_lossy(data), Path::new("/")) else { return };
    assert!((1..=MAX_APPS).contains(&members.len()));
    for member in members {
        assert!(!member.app_id.is_empty() && member.flags.iter().all(|flag| flag.starts_with("--")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
version: 1
common:
  resourcesPath: ./resources
  env: { SHARED: "1", WHO: common }
apps:
  - appID: cart
    appDirPath: .
    appPort: 8001
    daprHTTPPort: 3510
    enableAppHealthCheck: true
    appLogDestination: console
    env: { WHO: cart, N: 7 }
    command: ["python3", "app.py", "--x=1"]
  - appDirPath: .
    resourcesPaths: [a, b]
"#;

    #[test]
    fn an_app_of_the_file_becomes_the_flags_it_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let members = members(FILE, dir.path()).unwrap();
        let cart = &members[0];
        let resources = format!("--resources-path={}", dir.path().join("./resources").display());
        for flag in
            ["--app-id=cart", "--app-port=8001", "--dapr-http-port=3510", "--enable-app-health-check=true", &resources]
        {
            assert!(cart.flags.iter().any(|given| given == flag), "{flag} is not among {:?}", cart.flags);
        }
        assert_eq!(cart.command, ["python3", "app.py", "--x=1"]);
        assert_eq!(cart.env["WHO"], "cart");
        assert_eq!(cart.env["SHARED"], "1");
        assert_eq!(cart.env["N"], "7");
        assert_eq!(cart.unknown, ["appLogDestination"]);
    }

    #[test]
    fn an_app_without_an_id_is_named_after_its_folder_and_may_override_what_is_common() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        let second = &members(FILE, &folder).unwrap()[1];
        assert_eq!(second.app_id, folder.file_name().unwrap().to_string_lossy());
        assert!(second.flags.iter().any(|flag| flag.ends_with("/b")), "{:?}", second.flags);
    }

    #[test]
    fn a_file_without_apps_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(members("version: 1", dir.path()).is_err());
        assert!(members("apps: []", dir.path()).is_err());
        assert!(members("just text", dir.path()).is_err());
    }
}
