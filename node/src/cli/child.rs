//! Starts the app beside the node, and sees to it that neither outlives the other.
//!
//! The app runs in a process group of its own, so that Ctrl-C in a terminal reaches only the node: running turns and
//! deactivations still find their app while the node drains, and the group is told afterwards. Between the two stands a
//! small supervisor (this binary again, see `supervisor`), which ends the whole group when the node disappears without
//! a word. Its exit is proof that the app is gone.
//!
//! Output is inherited, or, under the name `dapr`, passed on line by line with the prefix that Dapr gives it.
//! Input is inherited unless it is a terminal: a background group that reads a terminal would be stopped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio_util::sync::CancellationToken;

use super::supervisor;
use crate::config::Config;
use crate::node::{BoundPorts, Shutdown};

/// What stands before each line of the app under the name `dapr`.
pub const PREFIX: &str = "== APP == ";
/// A longer line is passed on in pieces of this size.
const MAX_LINE: u64 = 64 << 10;
/// Exit code when the app's end cannot be learned.
const UNKNOWN_EXIT: u8 = 1;

/// The app's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub program: OsString,
    pub args: Vec<OsString>,
    pub output: AppOutput,
    /// The working directory; `None` = the node's.
    dir: Option<PathBuf>,
    /// The binary that supervises: this one.
    supervisor: PathBuf,
}

/// What becomes of the app's stdout and stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppOutput {
    Inherited,
    /// Both to stderr, where they do not mix with a result on stdout.
    Stderr,
    /// Line by line, each after this text, both to stdout.
    Prefixed(String),
}

impl Command {
    /// `None` for an empty command line.
    pub fn of(words: impl IntoIterator<Item = OsString>, output: AppOutput) -> Option<Self> {
        let mut words = words.into_iter();
        let program = words.next()?;
        Some(Self { program, args: words.collect(), output, dir: None, supervisor: this_binary() })
    }

    /// Started in another folder.
    #[must_use]
    pub fn in_dir(self, dir: Option<PathBuf>) -> Self {
        Self { dir, ..self }
    }

    /// Another binary of ours to supervise with.
    #[must_use]
    pub fn supervised_by(self, supervisor: impl Into<PathBuf>) -> Self {
        Self { supervisor: supervisor.into(), ..self }
    }

    /// The command line as one text, for people.
    pub fn text(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    /// Starts the app with `env` on top of the node's environment.
    ///
    /// # Errors
    ///
    /// The supervisor cannot be started. A missing program is not an error here: the app then exits with 127.
    pub fn start(&self, env: &[(String, String)]) -> io::Result<Running> {
        let mut command = tokio::process::Command::new(&self.supervisor);
        command.arg(supervisor::SUBCOMMAND).arg(std::process::id().to_string()).arg(&self.program).args(&self.args);
        command.envs(env.iter().map(|(name, value)| (name, value))).process_group(0);
        command.stdin(if io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() });
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let (output, prefix): (fn() -> Stdio, &str) = match &self.output {
            AppOutput::Inherited => (Stdio::inherit, ""),
            AppOutput::Stderr => (|| Stdio::from(io::stderr()), ""),
            AppOutput::Prefixed(prefix) => (Stdio::piped, prefix),
        };
        let mut child = command.stdout(output()).stderr(output()).spawn()?;
        if let Some(out) = child.stdout.take() {
            pump(out.into_owned_fd()?.into(), prefix)?;
        }
        if let Some(err) = child.stderr.take() {
            pump(err.into_owned_fd()?.into(), prefix)?;
        }
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Running { child, group })
    }
}

/// The app's process group.
#[derive(Debug)]
pub struct Running {
    child: tokio::process::Child,
    /// The supervisor, which leads the group; not reused while it is not waited for.
    group: Option<Pid>,
}

impl Running {
    /// Waits for the app's end: its exit code, or 128 and the signal. Cancel safe.
    pub async fn exited(&mut self) -> u8 {
        use std::os::unix::process::ExitStatusExt;
        let Ok(status) = self.child.wait().await else { return UNKNOWN_EXIT };
        if status.signal().is_some() {
            // The supervisor itself was killed, and could not end its group.
            self.signal(Signal::KILL);
        }
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN_EXIT)
    }

    /// Asks every process of the app to end, and after `grace` makes it.
    pub async fn stop(mut self, grace: Duration) -> u8 {
        self.signal(Signal::TERM);
        match tokio::time::timeout(grace, self.exited()).await {
            Ok(code) => code,
            Err(_) => {
                tracing::warn!(seconds = grace.as_secs(), "the app ignores SIGTERM; it is killed");
                self.signal(Signal::KILL);
                self.exited().await
            }
        }
    }

    /// Ends with the app or with the node, whichever is first.
    ///
    /// When the app ends by itself, the node is told to drain and the app's exit code is returned. When `drained` comes
    /// first, the app is stopped, and the answer is `None`: the node's own exit code counts.
    pub async fn until(mut self, drained: &CancellationToken, shutdown: &Shutdown, grace: Duration) -> Option<u8> {
        let exited = tokio::select! {
            biased;
            code = self.exited() => Some(code),
            () = drained.cancelled() => None,
        };
        match exited {
            Some(_) => shutdown.graceful.cancel(),
            None => {
                self.stop(grace).await;
            }
        }
        exited
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone already is what the signal is for.
        let _ = self.group.map(|group| kill_process_group(group, signal));
    }
}

/// The binary that runs, even when its file has been replaced.
pub fn this_binary() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// What the app finds in its environment: what SDKs read.
pub fn environment(config: &Config, ports: &BoundPorts) -> Vec<(String, String)> {
    let mut env = vec![
        ("APP_ID", config.app_id.clone()),
        ("DAPR_HTTP_PORT", ports.http.to_string()),
        ("DAPR_GRPC_PORT", ports.grpc.to_string()),
        ("NAMESPACE", config.namespace.clone()),
    ];
    if let Some(app) = &config.app {
        env.push(("APP_PORT", app.port.to_string()));
        env.push(("APP_PROTOCOL", app.protocol.as_str().to_owned()));
    }
    if let Some(port) = ports.metrics {
        env.push(("DAPR_METRICS_PORT", port.to_string()));
    }
    for (name, token) in [("DAPR_API_TOKEN", &config.api_token), ("APP_API_TOKEN", &config.app_token)] {
        env.extend(token.clone().map(|token| (name, token)));
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Copies lines to stdout on a thread of its own, since both ends may block for as long as they like.
fn pump(from: File, prefix: &str) -> io::Result<()> {
    let prefix = prefix.to_owned();
    let copy = move || {
        // Nobody left to write to or to read from: the app's own end is seen elsewhere.
        let _ = pump_lines(BufReader::new(from), &prefix, || io::stdout().lock());
    };
    std::thread::Builder::new().name("app-output".into()).spawn(copy).map(drop)
}

fn pump_lines<W: Write>(mut from: impl BufRead, prefix: &str, mut to: impl FnMut() -> W) -> io::Result<()> {
    let mut line = Vec::with_capacity(256);
    let mut at_start = true;
    loop {
        line.clear();
        if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let mut to = to();
        if at_start {
            to.write_all(prefix.as_bytes())?;
        }
        to.write_all(&line)?;
        at_start = line.ends_with(b"\n");
        to.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::AppConfig;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_app_learns_its_ports_names_and_tokens() {
        let mut config = Config::new("shop");
        config.app = Some(AppConfig::new(8080));
        config.api_token = Some("secret".into());
        let ports = BoundPorts { http: 1, grpc: 2, peer: 3, metrics: Some(4) };
        let env = environment(&config, &ports);
        let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(get("DAPR_HTTP_PORT"), Some("1"));
        assert_eq!(get("DAPR_GRPC_PORT"), Some("2"));
        assert_eq!(get("DAPR_METRICS_PORT"), Some("4"));
        assert_eq!(get("APP_ID"), Some("shop"));
        assert_eq!(get("APP_PORT"), Some("8080"));
        assert_eq!(get("APP_PROTOCOL"), Some("http"));
        assert_eq!(get("DAPR_API_TOKEN"), Some("secret"));
        assert_eq!(get("APP_API_TOKEN"), None);
        assert_eq!(get("NAMESPACE"), Some("default"));
    }

    #[test]
    fn an_empty_command_line_is_no_app() {
        assert_eq!(Command::of([], AppOutput::Inherited), None);
        let command = Command::of(words(&["sh", "-c", "exit 3"]), AppOutput::Inherited).unwrap();
        assert_eq!(command.text(), "sh -c exit 3");
    }

    #[test]
    fn each_line_gets_the_prefix_and_a_long_one_only_at_its_start() {
        let out = Arc::new(Mutex::new(Vec::new()));
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let long = "x".repeat(usize::try_from(MAX_LINE).unwrap() + 10);
        let text = format!("one\n{long}\nlast");
        pump_lines(text.as_bytes(), PREFIX, || Shared(Arc::clone(&out))).unwrap();
        let written = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        assert_eq!(written, format!("{PREFIX}one\n{PREFIX}{long}\n{PREFIX}last"));
    }
}
