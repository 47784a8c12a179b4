//! Published SDK packages, unmodified, through `callboard run -- ...`.
//!
//! The packages are installed by `make sdk`, which names their folders in the environment and runs these tests; they
//! are ignored otherwise, since `cargo test` must not depend on other toolchains. Asked for, a missing toolchain is a
//! failure that names it.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use callboard_tests::node::{Node, Setup};
use callboard_tests::ports;
use callboard_tests::process::Process;
use callboard_tests::wait::eventually;

/// The folder of a Python environment with `tests/sdk/python/requirements.txt` installed.
const PYTHON: &str = "CALLBOARD_SDK_VENV";
/// The folder `node_modules` with `tests/sdk/js/package-lock.json` installed.
const NODE: &str = "CALLBOARD_SDK_NODE_MODULES";

/// Starting an interpreter and its packages on a busy machine.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// The whole conversation of a client.
const SPOKEN_WITHIN: Duration = Duration::from_secs(180);

fn folder(variable: &str, what: &str) -> PathBuf {
    let Some(named) = env::var_os(variable) else {
        panic!("{what} is missing: {variable} names no folder. `make sdk` installs it and runs these tests");
    };
    let path = PathBuf::from(named);
    assert!(path.is_dir(), "{what} is missing: {variable} names {}, which is not there", path.display());
    path
}

fn sources(language: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk").join(language)
}

/// The sidecar of an app that it has started itself, ready when the app hosts its actors.
async fn run(setup: Setup, port: u16, command: &[&str]) -> Node {
    let mut node =
        setup.app_at(([127, 0, 0, 1], port).into()).env("PYTHONDONTWRITEBYTECODE", "1").command(command).start().await;
    eventually(STARTED_WITHIN, "the host's actors are listed", async || {
        assert!(node.is_running(), "the node has ended");
        let listed = node.metadata().await["actorRuntime"]["activeActors"].clone();
        listed.as_array().is_some_and(|types| types.iter().any(|one| one["type"] == "Hobbit")).then_some(())
    })
    .await;
    node
}

/// Runs a client beside the node and shows what it has said.
async fn converse(node: &Node, mut command: Command) {
    let log = node.setup().home().join("client");
    command.env("DAPR_HTTP_PORT", node.http().port().to_string()).env("DAPR_GRPC_PORT", node.grpc().port().to_string());
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let mut client = Process::start(&mut command, &log);
    let status = client.wait_end(SPOKEN_WITHIN).await;
    println!("{}", client.log());
    assert!(status.success(), "the client ended with {status}");
    assert!(client.log().contains("the client is content"));
    assert!(!node.log().contains("panicked"));
}

#[tokio::test]
#[ignore = "needs Python packages: run by `make sdk`"]
async fn a_python_host_and_client_of_the_published_package_work() {
    let python = folder(PYTHON, "a Python environment with the package dapr").join("bin/python");
    assert!(python.is_file(), "Python is missing: {}", python.display());
    let (here, port) = (sources("python"), ports::free());
    let (python, folder, text) = (python.display().to_string(), here.display().to_string(), port.to_string());
    let command = [&*python, "-m", "uvicorn", "--app-dir", &folder, "--port", &text, "host:app"];
    let node = run(Setup::new("shire"), port, &command).await;
    let mut client = Command::new(&python);
    client.arg(here.join("client.py")).arg("shire");
    converse(&node, client).await;
}

#[tokio::test]
#[ignore = "needs Node.js packages: run by `make sdk`"]
async fn a_js_host_and_client_of_the_published_package_work() {
    let modules = folder(NODE, "the Node.js package @dapr/dapr");
    let found = Command::new("node").arg("--version").output();
    assert!(found.is_ok_and(|found| found.status.success()), "Node.js is missing: `node` does not run");
    let (here, port) = (sources("js"), ports::free());
    let host = here.join("host.js").display().to_string();
    let setup = Setup::new("shire").env("NODE_PATH", modules.display().to_string());
    let node = run(setup, port, &["node", &host]).await;
    let mut client = Command::new("node");
    client.arg(here.join("client.js")).arg("shire").env("NODE_PATH", &modules);
    converse(&node, client).await;
    // The package's process dies of a DELETE for an actor it was not given: it still serves.
    node.call("Hobbit", "last", "add").await.expect(200);
}
