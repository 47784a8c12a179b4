//! Published SDK packages, unmodified, through `callboard run -- ...`: every host with every client.
//!
//! The hosts have the same actor with the same methods, so each client speaks to each. `make sdk` runs those of one
//! package with each other ([`own`]), `make sdk-all` the others as well ([`mixed`]). The packages are installed by
//! either, which names their folders in the environment; the tests are ignored otherwise, since `cargo test` must not
//! depend on other toolchains. Asked for, a missing toolchain is a failure that names it.

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

const APP: &str = "shire";

/// What an actor host, or a client, is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kit {
    Python,
    Js,
    /// An HTTP client and a shell; there is no host of this kind.
    Curl,
}

impl Kit {
    fn name(self) -> &'static str {
        match self {
            Kit::Python => "python",
            Kit::Js => "js",
            Kit::Curl => "curl",
        }
    }

    fn source(self, file: &str) -> String {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk").join(self.name());
        folder.join(file).display().to_string()
    }

    /// The program that runs its sources.
    fn program(self) -> String {
        match self {
            Kit::Python => {
                let python = folder(PYTHON, "a Python environment with the package dapr").join("bin/python");
                assert!(python.is_file(), "Python is missing: {}", python.display());
                python.display().to_string()
            }
            Kit::Js => {
                runs("node", "Node.js");
                "node".to_owned()
            }
            Kit::Curl => {
                runs("curl", "curl");
                "bash".to_owned()
            }
        }
    }

    /// What its sources need to be told.
    fn environment(self) -> Vec<(&'static str, String)> {
        match self {
            Kit::Python => vec![("PYTHONDONTWRITEBYTECODE", "1".to_owned())],
            Kit::Js => vec![("NODE_PATH", folder(NODE, "the Node.js package @dapr/dapr").display().to_string())],
            Kit::Curl => Vec::new(),
        }
    }

    fn host(self, port: u16) -> Vec<String> {
        let program = self.program();
        match self {
            Kit::Python => {
                let words = ["-m", "uvicorn", "--app-dir", &self.source(""), "--port", &port.to_string(), "host:app"];
                std::iter::once(program).chain(words.map(str::to_owned)).collect()
            }
            Kit::Js => vec![program, self.source("host.js")],
            Kit::Curl => panic!("there is no host of curl"),
        }
    }

    /// The client's command: its app, and the kit of that app.
    fn client(self, host: Kit) -> Command {
        let file = match self {
            Kit::Python => "client.py",
            Kit::Js => "client.js",
            Kit::Curl => "client.sh",
        };
        let mut command = Command::new(self.program());
        command.args([&self.source(file), APP, host.name()]).envs(self.environment());
        command
    }
}

fn folder(variable: &str, what: &str) -> PathBuf {
    let Some(named) = env::var_os(variable) else {
        panic!("{what} is missing: {variable} names no folder. `make sdk` installs it and runs these tests");
    };
    let path = PathBuf::from(named);
    assert!(path.is_dir(), "{what} is missing: {variable} names {}, which is not there", path.display());
    path
}

fn runs(program: &str, name: &str) {
    let found = Command::new(program).arg("--version").output();
    assert!(found.is_ok_and(|found| found.status.success()), "{name} is missing: `{program}` does not run");
}

/// The sidecar of an app that it has started itself, ready when the app hosts its actors.
async fn start(host: Kit) -> Node {
    let port = ports::free();
    let setup = Setup::new(APP).app_at(([127, 0, 0, 1], port).into());
    let setup = host.environment().into_iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    let command = host.host(port);
    let mut node = setup.command(&command.iter().map(String::as_str).collect::<Vec<_>>()).start().await;
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
    let mut client = Process::start(&mut command, &log);
    let status = client.wait_end(SPOKEN_WITHIN).await;
    println!("{}", client.log());
    assert!(status.success(), "the client ended with {status}");
    assert!(client.log().contains("the client is content"));
    assert!(!node.log().contains("panicked"));
}

async fn serves(host: Kit, client: Kit) {
    let node = start(host).await;
    converse(&node, client.client(host)).await;
    // The JavaScript package's process dies of a DELETE for an actor it was not given: it still serves.
    node.call("Hobbit", "last", "eaten").await.expect(200);
}

/// Host and client of one package.
mod own {
    use super::{Kit, serves};

    #[tokio::test]
    #[ignore = "needs Python packages: run by `make sdk`"]
    async fn a_python_host_and_client_of_the_published_package_work() {
        serves(Kit::Python, Kit::Python).await;
    }

    #[tokio::test]
    #[ignore = "needs Node.js packages: run by `make sdk`"]
    async fn a_js_host_and_client_of_the_published_package_work() {
        serves(Kit::Js, Kit::Js).await;
    }
}

/// A host of one package, and a client that knows nothing of it.
mod mixed {
    use super::{Kit, serves};

    #[tokio::test]
    #[ignore = "needs Python and Node.js packages: run by `make sdk-all`"]
    async fn a_python_host_serves_a_js_client() {
        serves(Kit::Python, Kit::Js).await;
    }

    #[tokio::test]
    #[ignore = "needs Python and Node.js packages: run by `make sdk-all`"]
    async fn a_js_host_serves_a_python_client() {
        serves(Kit::Js, Kit::Python).await;
    }

    #[tokio::test]
    #[ignore = "needs Python packages and curl: run by `make sdk-all`"]
    async fn a_python_host_serves_curl() {
        serves(Kit::Python, Kit::Curl).await;
    }

    #[tokio::test]
    #[ignore = "needs Node.js packages and curl: run by `make sdk-all`"]
    async fn a_js_host_serves_curl() {
        serves(Kit::Js, Kit::Curl).await;
    }
}
