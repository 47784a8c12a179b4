//! Starting an app beside the node, and the names the binary answers to.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use callboard_tests::app::App;
use callboard_tests::binary::callboard;
use callboard_tests::http::request;
use callboard_tests::node::{Manner, Setup};
use callboard_tests::ports;
use callboard_tests::wait::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// sdk-clients 3.1; dapr.md 8
#[tokio::test]
async fn the_child_gets_the_environment_sdks_read() {
    let setup = Setup::default();
    let file = setup.home().join("environment");
    let script = format!("env > {0}.part; mv {0}.part {0}; echo the child speaks; exec sleep 600", file.display());
    let (http, port) = (setup.http_port(), ports::free());
    let node = setup
        .arg(format!("--app-port={port}"))
        .env("DAPR_API_TOKEN", "secret")
        .env("APP_API_TOKEN", "own")
        .env("PASSED_THROUGH", "yes")
        .command(&["sh", "-c", &script])
        .start()
        .await;
    let environment = eventually(PATIENCE, "the child has started", async || std::fs::read_to_string(&file).ok()).await;
    for expected in [
        format!("DAPR_HTTP_PORT={http}"),
        format!("DAPR_GRPC_PORT={}", node.grpc().port()),
        format!("APP_PORT={port}"),
        "APP_ID=myapp".to_owned(),
        "DAPR_API_TOKEN=secret".to_owned(),
        "APP_API_TOKEN=own".to_owned(),
        "PASSED_THROUGH=yes".to_owned(),
    ] {
        assert!(environment.lines().any(|line| line == expected), "{expected} is missing:\n{environment}");
    }
    node.wait_log("the child speaks", PATIENCE).await;
}

/// sdk-clients 3.1: `run` under the name `dapr` prints both lines others wait for, and ends with its child.
#[tokio::test]
async fn run_as_dapr_prints_the_ready_lines_and_ends_the_child() {
    let folder = tempfile::tempdir().expect("a folder");
    let dapr = folder.path().join("dapr");
    symlink(callboard(), &dapr).expect("link dapr");
    let app = App::hosting(&["cat"]).await;
    let (http, grpc) = (ports::free(), ports::free());
    let mut command = Command::new(&dapr);
    command.args(["run", "--app-id", "myapp", "--app-port", &app.port().to_string()]);
    command.args(["--dapr-http-port", &http.to_string(), &format!("--dapr-grpc-port={grpc}")]);
    command
        .args([&format!("--dapr-internal-grpc-port={}", ports::free()), &format!("--metrics-port={}", ports::free())]);
    command.args(["--", "sh", "-c", "echo child $$; exec sleep 600"]);
    command.env("XDG_DATA_HOME", folder.path()).env("XDG_RUNTIME_DIR", folder.path()).env("HOME", folder.path());
    let mut run = callboard_tests::process::Process::start(&mut command, &folder.path().join("log"));
    for line in ["You're up and running!", "dapr initialized. Status: Running."] {
        eventually(PATIENCE, line, async || run.log().contains(line).then_some(())).await;
    }
    let child: i32 = eventually(PATIENCE, "the child speaks", async || {
        run.log().lines().find_map(|line| line.split("child ").nth(1)?.trim().parse().ok())
    })
    .await;
    let stop = tokio::process::Command::new(&dapr)
        .args(["stop", "--app-id", "myapp"])
        .env("XDG_DATA_HOME", folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("HOME", folder.path())
        .output();
    // Both at once: the process has to be collected for `stop` to see its end.
    let (stop, _) = tokio::join!(stop, run.wait_end(PATIENCE));
    let stop = stop.expect("run stop");
    let said = [stop.stdout, stop.stderr].concat();
    assert!(stop.status.success(), "{}", String::from_utf8_lossy(&said));
    eventually(Duration::from_secs(5), "the child has ended", async || {
        // A zombie that waits for its parent to look has ended.
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).ok();
        state
            .is_none_or(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
            .then_some(())
    })
    .await;
}

/// dapr.md 8: as `daprd` it takes daprd's flags in daprd's way.
#[tokio::test]
async fn as_daprd_it_serves_the_same_api() {
    let app = App::hosting(&["cat"]).await;
    let node = Setup::default().manner(Manner::Daprd).app(&app).args(&["-log-level", "info"]).ready().await;
    node.call("cat", "a", "foo").await.expect(200);
}

/// When the child ends, so does `run`, and its code is the child's.
#[tokio::test]
async fn run_ends_when_its_child_does() {
    let mut node = Setup::default().command(&["sh", "-c", "sleep 1; exit 7"]).spawn();
    let status = node.wait_end(PATIENCE).await;
    assert_eq!(status.code(), Some(7), "{status}");
}

/// A forgotten `--`: the error holds the line that works.
#[tokio::test]
async fn an_app_without_its_separator_is_told_how_to_be_started() {
    let home = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(callboard());
    command.args(["run", "--app-id", "x", "python", "app.py", "--debug"]);
    command.env("XDG_DATA_HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
    let mut run = callboard_tests::process::Process::start(&mut command, &home.path().join("log"));
    assert_eq!(run.wait_end(PATIENCE).await.code(), Some(2), "{}", run.log());
    assert!(run.log().contains("run --app-id x -- python app.py --debug\n"), "{}", run.log());
}

/// The reader of the log is gone, as with `callboard run | head`: the node serves on, and ends when it is told to.
#[tokio::test]
async fn a_node_whose_output_nobody_reads_serves_and_ends_in_order() {
    let setup = Setup::default();
    let mut command = tokio::process::Command::from(setup.command_line());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut node = command.spawn().expect("start the node");
    drop((node.stdout.take(), node.stderr.take()));
    let address = ([127, 0, 0, 1], setup.http_port()).into();
    eventually(PATIENCE, "the node answers", async || {
        let answer = request(address, "GET", "/v1.0/healthz").try_send().await.ok()?;
        (answer.status == 204).then_some(())
    })
    .await;
    let id = node.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("it runs");
    kill_process(id, Signal::TERM).expect("signal an own child");
    let status = tokio::time::timeout(PATIENCE, node.wait()).await.expect("it ends").expect("wait for it");
    assert_eq!(status.code(), Some(0), "{status}");
}

/// An app that is lost is a warning, one that is back is none.
#[tokio::test]
async fn the_loss_of_the_app_is_a_warning() {
    let app = App::hosting(&["cat"]).await;
    let port = app.port();
    let setup = Setup::default().app(&app).args(&["--enable-app-health-check", "--app-health-threshold=1"]);
    let node = setup.args(&["--app-health-probe-interval=1"]).ready().await;
    let said = async |level: &str, words: &str| {
        let what = format!("a line of {level} with {words:?}");
        let found = |log: String| log.lines().any(|line| line.contains(level) && line.contains(words));
        eventually(PATIENCE, &what, async || found(node.log()).then_some(())).await;
    };
    said("INFO", "the app is healthy").await;
    app.answers("/healthz", 500, "");
    said("WARN", "health checks fail").await;
    app.stop().await;
    said("WARN", "the app is gone").await;
    let _back = App::listening(serde_json::json!({"entities": ["cat"]}), port).await;
    eventually(PATIENCE, "the app is found again", async || {
        (node.log().matches("application discovered").count() == 2).then_some(())
    })
    .await;
    let calm = |log: String| !log.lines().any(|line| line.contains("WARN") && line.contains("discovered"));
    assert!(calm(node.log()), "{}", node.log());
    let mut ended = Setup::default().command(&["sh", "-c", "sleep 1; exit 3"]).spawn();
    assert_eq!(ended.wait_end(PATIENCE).await.code(), Some(3));
    assert!(ended.log().lines().any(|line| line.contains("WARN") && line.contains("the app has ended")));
}

/// dapr.md 8: `--wait` polls until the outbound API answers.
#[tokio::test]
async fn wait_ends_when_the_outbound_api_answers() {
    let node = Setup::default().start().await;
    let link = node.setup().home().join("daprd");
    if !link.exists() {
        symlink(callboard(), &link).expect("link daprd");
    }
    let port = node.http().port().to_string();
    let run = async || {
        let mut command = tokio::process::Command::new(&link);
        command.args(["--app-id", "myapp", "--wait", "--dapr-http-port", &port]).kill_on_drop(true);
        tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("run")
    };
    let output = run().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
