//! Flags and environment.

use std::net::TcpListener;
use std::time::Duration;

use callboard_tests::app::App;
use callboard_tests::node::{Manner, Setup};
use callboard_tests::wait::{PATIENCE, stays};

/// daprd/config/http/disabledconfigendpoint.go
#[tokio::test]
async fn the_configuration_endpoint_can_be_left_alone() {
    let app = App::hosting(&["cat"]).await;
    let node = Setup::default().app(&app).arg("--disable-init-endpoints=config").ready().await;
    stays(Duration::from_secs(1), "requests for the configuration", 0, async || app.count("/dapr/config")).await;
    assert!(node.metadata().await["actorRuntime"]["activeActors"].as_array().is_none_or(Vec::is_empty));
}

/// daprd/multipleconfigs/multipleconfigs.go: the list of the last file is the list.
#[tokio::test]
async fn features_of_a_later_configuration_file_replace_those_of_the_one_before() {
    let feature = |name: &str, enabled: bool| format!("  - name: {name}\n    enabled: {enabled}\n");
    let mut setup = Setup::default();
    for (file, features) in [
        ("one.yaml", feature("One", true) + &feature("Both", false) + &feature("Gone", true)),
        ("two.yaml", feature("Two", true) + &feature("Both", true) + &feature("Gone", false)),
    ] {
        let path = setup.home().join(file);
        let head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata:\n  name: c\nspec:\n  features:\n";
        std::fs::write(&path, format!("{head}{features}")).expect("write a configuration");
        setup = setup.arg(format!("--config={}", path.display()));
    }
    let node = setup.ready().await;
    // The first is simply on, whatever the files say.
    assert_eq!(node.metadata().await["enabledFeatures"], serde_json::json!(["ActorStateTTL", "Two", "Both"]));
}

/// daprd/startup/appchannel/withapp.go
#[tokio::test]
async fn a_found_app_is_named_in_the_log() {
    let app = App::plain().await;
    let node = Setup::default().app(&app).ready().await;
    node.wait_log("application discovered on port", PATIENCE).await;
    assert!(node.log().contains(&app.port().to_string()));
}

/// daprd/startup/appchannel/noappport.go; dapr.md 8
#[tokio::test]
async fn without_an_app_port_nothing_waits() {
    let node = Setup::default().ready().await;
    assert!(!node.log().to_lowercase().contains("waiting for"), "{}", node.log());
    assert!(node.metadata().await.get("appConnectionProperties").is_none_or(|found| found.get("port").is_none()));
}

/// dapr.md 8: what has no meaning here is accepted and named once; daprd/actors/emptyaddress.go: blank addresses.
#[tokio::test]
async fn flags_of_parts_that_do_not_exist_here_are_accepted() {
    let app = App::hosting(&["cat"]).await;
    for address in ["127.0.0.1:1", "", "\"\"", "''", " "] {
        let node = Setup::default()
            .app(&app)
            .arg(format!("--placement-host-address={address}"))
            .arg("--scheduler-host-address=127.0.0.1:2")
            .args(&["--scheduler-job-streams=3", "--mode=standalone", "--control-plane-trust-domain=localhost"])
            .manner(Manner::Daprd)
            .args(&["-log-level", "debug", "--enable-mtls=false", "--actors-disseminate-timeout=30s"])
            .args(&["--hot-reload-reconcile-interval=60s", "--sentry-address=127.0.0.1:3", "--profile-port=7777"])
            .ready()
            .await;
        node.call("cat", "a", "foo").await.expect(200);
    }
}

/// dapr.md 8, 1.3
#[tokio::test]
async fn mistakes_on_the_command_line_end_with_a_message() {
    for (setup, said) in [
        (Setup::new("with.dot"), "app"),
        (Setup::new("").manner(Manner::Daprd), "app"),
        (Setup::new(""), "--app-id: empty"),
        (Setup::default().arg("--cluster="), "--cluster: empty"),
        (Setup::default().arg("--max-body-size=lots"), "max-body-size"),
        (Setup::default().arg("--no-such-flag=1"), "no-such-flag"),
        (Setup::default().arg("--partitions=0"), "partitions"),
        (Setup::default().arg("--partitions=129"), "partitions"),
        (
            Setup::default().args(&[
                "--enable-app-health-check",
                "--app-health-probe-interval=1",
                "--app-health-probe-timeout=2000",
            ]),
            "health",
        ),
    ] {
        let mut node = setup.spawn();
        let status = node.wait_end(PATIENCE).await;
        assert!(!status.success(), "{status}");
        assert!(node.log().contains(said), "{}", node.log());
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
    let setup = Setup::default();
    let same = ([127, 0, 0, 1], setup.http_port()).into();
    let mut node = setup.app_at(same).spawn();
    assert!(!node.wait_end(PATIENCE).await.success(), "the app's port is a port of the node");
}

/// The issue: a port that was given and is taken is an error that names its holder.
#[tokio::test]
async fn a_given_port_that_is_taken_is_an_error_that_says_so() {
    for manner in [Manner::Run, Manner::Daprd] {
        let setup = Setup::default().manner(manner);
        let port = setup.http_port();
        let _holder = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
        let mut node = setup.spawn();
        assert!(!node.wait_end(PATIENCE).await.success());
        assert!(node.log().contains(&port.to_string()), "{}", node.log());
        assert!(node.log().contains(&std::process::id().to_string()), "the holder is not named: {}", node.log());
    }
}

/// The issue: a data directory that was given and is in use is an error that names its holder.
#[tokio::test]
async fn a_data_directory_in_use_is_an_error_that_names_its_holder() {
    let first = Setup::default().start().await;
    let mut second = Setup::new("other").arg(format!("--data-dir={}", first.data().display())).spawn();
    assert!(!second.wait_end(PATIENCE).await.success());
    assert!(second.log().contains(&first.data().display().to_string()), "{}", second.log());
    assert!(second.log().contains(&first.id().to_string()), "the holder is not named: {}", second.log());
    first.get("/v1.0/healthz/outbound").send().await.expect_empty();
}

/// The issue: the cluster's name is kept with the data.
#[tokio::test]
async fn data_of_another_cluster_is_refused() {
    let mut node = Setup::default().arg("--cluster=one").start().await;
    node.terminate();
    node.wait_end(PATIENCE).await;
    let mut other = node.setup().clone().arg("--cluster=two").spawn();
    let status = other.wait_end(PATIENCE).await;
    assert!(!status.success(), "{status}");
    assert!(other.log().contains("one") && other.log().contains("two"), "{}", other.log());
}

/// The issue: `--ephemeral` says what it does not promise, and leaves nothing.
#[tokio::test]
async fn an_ephemeral_node_says_so_and_leaves_no_data() {
    let mut node = Setup::default().arg("--ephemeral").start().await;
    let said = node.log();
    assert!(said.contains("--ephemeral"), "{said}");
    assert!(said.contains("acknowledged writes do not survive the end of this process"), "{said}");
    node.terminate();
    assert_eq!(node.wait_end(PATIENCE).await.code(), Some(0));
    assert!(!node.data().exists());
}

/// A folder that cannot be used: one line that names it, what was tried, and the system's reason once.
#[tokio::test]
async fn an_unusable_data_directory_is_told_in_one_line() {
    let home = tempfile::tempdir().expect("a folder");
    let (file, taken) = (home.path().join("file"), home.path().join("taken"));
    std::fs::write(&file, "").expect("write a file");
    std::fs::create_dir(&taken).expect("make a folder");
    std::fs::write(taken.join("store"), "").expect("write a file");
    for (path, tried) in [
        (file.clone(), "cannot use it, since it is not a folder: "),
        (file.join("below"), "cannot make it, since "),
        ("/proc/nowhere/data".into(), "cannot make it in /proc: "),
        (taken, "the store in "),
    ] {
        let mut node = Setup::default().arg(format!("--data-dir={}", path.display())).spawn();
        assert_eq!(node.wait_end(PATIENCE).await.code(), Some(1));
        let log = node.log();
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with("callboard: ")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains(&path.display().to_string()) && lines[0].contains(tried), "{log}");
        assert_eq!(lines[0].matches("os error").count(), 1, "{log}");
    }
}

/// `--check` starts nothing, and finds at once what a start would find one after the other.
#[tokio::test]
async fn a_check_says_ok_or_lists_every_mistake() {
    let node = Setup::default().start().await;
    let check = async |setup: Setup| {
        let mut checked = setup.arg("--check").spawn();
        let status = checked.wait_end(PATIENCE).await;
        (status.code(), checked.log())
    };
    // Beside the node that has the folder and the ports.
    let (code, log) = check(node.setup().clone()).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.lines().any(|line| line == "ok"), "{log}");
    node.get("/v1.0/healthz/outbound").send().await.expect_empty();
    for manner in [Manner::Run, Manner::Daprd] {
        let setup = Setup::default().manner(manner);
        let none = setup.home().join("none");
        let (code, log) = check(setup.args(&[
            "--no-such-flag=1",
            "--app-port=x",
            &format!("--resources-path={}", none.display()),
            &format!("--config={}", none.join("c.yaml").display()),
        ]))
        .await;
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains("4 things are wrong:"), "{log}");
        for subject in ["--no-such-flag: ", "--app-port x: ", "none: ", "c.yaml"] {
            assert!(log.contains(subject), "{subject:?} is not in {log}");
        }
        assert!(!log.lines().any(|line| line == "ok"), "{log}");
    }
    let setup = Setup::default().arg("--check=false");
    setup.start().await.get("/v1.0/healthz/outbound").send().await.expect_empty();
}

/// dapr.md 8: quantities and switches.
#[tokio::test]
async fn metrics_can_be_switched_off_and_api_logging_on() {
    let node = Setup::default().args(&["--enable-metrics=false", "--enable-api-logging"]).ready().await;
    assert!(tokio::net::TcpStream::connect(node.metrics()).await.is_err());
    node.get("/v1.0/metadata").send().await.expect(200);
    node.wait_log("/v1.0/metadata", PATIENCE).await;
}

/// dapr.md 8: JSON logs.
#[tokio::test]
async fn logs_are_json_when_asked_for() {
    for flag in ["--log-as-json", "--log-format=json"] {
        let node = Setup::default().arg(flag).ready().await;
        let log = node.log();
        let lines: Vec<_> = log.lines().filter(|line| line.trim_start().starts_with('{')).collect();
        assert!(!lines.is_empty(), "{log}");
        for line in lines {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        }
    }
}

/// dapr.md 8: `--version` is an answer, not a start.
#[tokio::test]
async fn version_and_help_print_and_end() {
    for flag in ["--version", "--help"] {
        let output = std::process::Command::new(callboard_tests::binary::callboard()).arg(flag).output().expect("run");
        assert!(output.status.success(), "{flag}");
        assert!(!output.stdout.is_empty(), "{flag}");
    }
}
