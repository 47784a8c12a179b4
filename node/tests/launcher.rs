//! The launcher with real processes: what the app gets, how its end is told, and that neither outlives the other.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use callboard::cli::child::{AppOutput, Command, Running, environment};
use callboard::config::{AppConfig, Config};
use callboard::node::{BoundPorts, Shutdown};
use tokio_util::sync::CancellationToken;

const BINARY: &str = env!("CARGO_BIN_EXE_callboard");
/// Longer than any of this takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn app(words: &[&str]) -> Command {
    Command::of(words.iter().map(OsString::from), AppOutput::Inherited).unwrap().supervised_by(BINARY)
}

fn sh(script: &str) -> Command {
    app(&["sh", "-c", script])
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}

async fn exit_of(command: Command) -> u8 {
    let mut running = command.start(&[]).unwrap();
    within("the app's end", running.exited()).await
}

/// Waits for a line in a file that the app writes.
async fn line_of(file: &Path) -> String {
    let read = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if text.ends_with('\n') {
                return text.trim().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("a line of the app", read).await
}

/// Waits until process `pid` has ended.
async fn gone(pid: &str) {
    let ended = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
    };
    let wait = async {
        while !ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the end of a process", wait).await;
}

#[tokio::test]
async fn the_exit_code_of_the_app_is_told_as_a_shell_would() {
    assert_eq!(exit_of(sh("exit 0")).await, 0);
    assert_eq!(exit_of(sh("exit 7")).await, 7);
    assert_eq!(exit_of(sh("kill -9 $$")).await, 128 + 9);
    assert_eq!(exit_of(app(&["/no/such/program"])).await, 127);
    assert_eq!(exit_of(app(&["/"])).await, 126);
}

#[tokio::test]
async fn the_app_finds_its_settings_in_its_environment() {
    let mut config = Config::new("shop");
    config.app = Some(AppConfig::new(8080));
    let ports = BoundPorts { http: 3600, grpc: 3601, peer: 3602, metrics: Some(3603) };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("env");
    let script = format!(
        "echo $APP_ID $APP_PORT $APP_PROTOCOL $DAPR_HTTP_PORT $DAPR_GRPC_PORT $DAPR_METRICS_PORT $NAMESPACE > {}",
        file.display()
    );
    let mut running = sh(&script).start(&environment(&config, &ports)).unwrap();
    assert_eq!(within("the app's end", running.exited()).await, 0);
    assert_eq!(line_of(&file).await, "shop 8080 http 3600 3601 3603 default");
}

#[tokio::test]
async fn stopping_asks_first_and_reaches_every_process_of_the_app() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bye) = (folder.path().join("pid"), folder.path().join("bye"));
    let script = format!(
        "trap 'echo bye > {}; exit 3' TERM; sleep 600 & echo $! > {}; while :; do wait; done",
        bye.display(),
        file.display()
    );
    let running = sh(&script).start(&[]).unwrap();
    let grandchild = line_of(&file).await;
    assert_eq!(within("the app's end", running.stop(PATIENCE)).await, 3);
    assert_eq!(line_of(&bye).await, "bye");
    gone(&grandchild).await;
}

#[tokio::test]
async fn an_app_that_ignores_the_question_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 600; done", file.display());
    let running = sh(&script).start(&[]).unwrap();
    let pid = line_of(&file).await;
    assert_eq!(within("the app's end", running.stop(Duration::from_millis(100))).await, 128 + 9);
    gone(&pid).await;
}

#[tokio::test]
async fn processes_the_app_leaves_behind_end_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    assert_eq!(exit_of(sh(&format!("sleep 600 & echo $! > {}; exit 4", file.display()))).await, 4);
    gone(&line_of(&file).await).await;
}

#[tokio::test]
async fn the_end_of_the_app_makes_the_node_drain_and_a_drained_node_ends_the_app() {
    let (drained, shutdown) = (CancellationToken::new(), Shutdown::default());
    let until = |running: Running| running.until(&drained, &shutdown, PATIENCE);
    assert_eq!(within("the app's end", until(sh("exit 5").start(&[]).unwrap())).await, Some(5));
    assert!(shutdown.graceful.is_cancelled());
    drained.cancel();
    assert_eq!(within("the app's end", until(sh("sleep 600").start(&[]).unwrap())).await, None);
}

/// The supervisor is told the pid of its node; here a shell plays the node and is killed.
#[tokio::test]
async fn the_app_ends_when_its_node_is_killed_without_a_word() {
    let script =
        format!("'{BINARY}' __supervise $$ sh -c 'trap \"\" TERM; echo $$; while :; do sleep 600; done' & wait");
    let mut node = Process::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let app = line.trim();
    assert!(Path::new(&format!("/proc/{app}")).exists());
    node.kill().unwrap();
    node.wait().unwrap();
    gone(app).await;
}

#[test]
fn every_mistake_of_a_command_line_is_told_at_once_with_exit_code_two() {
    let output = Process::new(BINARY).args(["run", "--app-port=x", "--reads=never", "--app-prt=1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    for flag in ["--app-port x", "--reads never", "--app-prt"] {
        assert!(said.contains(flag), "{flag} is missing in: {said}");
    }
}
