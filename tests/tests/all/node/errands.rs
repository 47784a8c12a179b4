//! Commands that ask a running node: which one, where several run.

use std::path::Path;
use std::process::{Command, Output};

use callboard_tests::app::App;
use callboard_tests::binary::callboard;
use callboard_tests::node::{Node, Setup};
use serde_json::json;

use crate::stage::CAT;

fn run(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(callboard());
    command.args(args).env("XDG_RUNTIME_DIR", home).env_remove("DAPR_HTTP_PORT").env_remove("DAPR_API_TOKEN");
    command.output().expect("run the command")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A node of its own data, listed in `home`, whose actor `who` has eaten.
async fn node(app_id: &str, app: &App, home: &Path, who: &str) -> Node {
    let setup = Setup::new(app_id).app(app).env("XDG_RUNTIME_DIR", home.to_string_lossy());
    let node = setup.ready().await;
    node.call(CAT, who, "foo").await.expect(200);
    node.put_state(CAT, who, "food", json!("ants")).await.expect_empty();
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_node_is_asked_and_named_on_stderr() {
    let home = tempfile::tempdir().expect("a folder");
    let app = App::hosting(&[CAT]).await;
    let node = node("shop", &app, home.path(), "felix").await;
    let output = run(home.path(), &["actors", "--json"]);
    serde_json::from_str::<serde_json::Value>(&stdout(&output)).expect("stdout holds the answer and nothing else");
    assert!(
        stderr(&output).contains(&format!("asking http://127.0.0.1:{}", node.http().port())),
        "{}",
        stderr(&output)
    );
    let output = run(home.path(), &["actors", "--app-id", "shop"]);
    assert!(stdout(&output).contains("felix") && stderr(&output).is_empty(), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_nodes_none_is_chosen_and_each_can_be_named() {
    let home = tempfile::tempdir().expect("a folder");
    let app = App::hosting(&[CAT]).await;
    let shop = node("shop", &app, home.path(), "felix").await;
    let cart = node("cart", &app, home.path(), "tom").await;
    for errand in [&["actors"][..], &["reminders"], &["state", "export"], &["state", "get", "shop||cat||felix||food"]] {
        let output = run(home.path(), errand);
        assert_eq!(output.status.code(), Some(1), "{errand:?}");
        assert!(output.stdout.is_empty(), "{errand:?}");
        for line in [
            format!("--app-id shop  (node shop at 127.0.0.1:{})", shop.http().port()),
            format!("--app-id cart  (node cart at 127.0.0.1:{})", cart.http().port()),
        ] {
            assert!(stderr(&output).lines().any(|found| found.trim() == line), "{errand:?}: {}", stderr(&output));
        }
    }
    let of = |app_id: &str| stdout(&run(home.path(), &["actors", "--app-id", app_id]));
    assert!(of("shop").contains("felix") && !of("shop").contains("tom"));
    assert!(of("cart").contains("tom") && !of("cart").contains("felix"));
    let address = cart.http().to_string();
    assert!(stdout(&run(home.path(), &["actors", "--address", &address])).contains("tom"));
    let export = stdout(&run(home.path(), &["state", "export", "--app-id", "cart"]));
    assert!(export.contains("cart||cat||tom||food"), "{export}");
    let none = stderr(&run(home.path(), &["actors", "--app-id", "none"]));
    assert!(none.contains("--app-id none") && none.contains("shop") && none.contains("cart"), "{none}");
    let same = node("shop", &app, home.path(), "kit").await;
    let twice = stderr(&run(home.path(), &["actors", "--app-id", "shop"]));
    for node in [&shop, &same] {
        assert!(twice.contains(&format!("--address 127.0.0.1:{}", node.http().port())), "{twice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_named_by_flags_and_one_that_is_missing_is_said_whole() {
    let home = tempfile::tempdir().expect("a folder");
    let app = App::hosting(&[CAT]).await;
    let _node = node("shop", &app, home.path(), "felix").await;
    let by_flags = run(home.path(), &["state", "get", "--type", CAT, "--id", "felix", "--key", "food"]);
    assert_eq!(stdout(&by_flags), "\"ants\"\n");
    let missing = run(home.path(), &["state", "get", "--type", CAT, "--id", "felix", "--key", "drink"]);
    assert_eq!(missing.status.code(), Some(1));
    let told = "callboard: key drink of actor cat/felix: nothing is stored there; `callboard actors` lists the keys of each actor";
    assert_eq!(stderr(&missing).lines().last(), Some(told));
    let wrong = run(home.path(), &["state", "get", "--typ", CAT, "--id", "felix", "--key", "food"]);
    assert_eq!(wrong.status.code(), Some(2));
    let told = stderr(&wrong);
    assert!(told.contains("--typ") && told.contains("--type") && !told.trim_end().ends_with(':'), "{told}");
}
