//! `callboard actors|state|reminders`: clients of the endpoints.

use std::process::{Command, Output};

use callboard_tests::app::App;
use callboard_tests::binary::callboard;
use callboard_tests::node::{Node, Setup};
use serde_json::json;

use crate::stage::CAT;

fn run(node: &Node, args: &[&str]) -> Output {
    let port = node.http().port().to_string();
    Command::new(callboard())
        .args(args)
        .env("DAPR_HTTP_PORT", &port)
        .env("DAPR_HTTP_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("XDG_RUNTIME_DIR", node.setup().home())
        .output()
        .expect("run the command")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The commands read what the endpoints tell.
#[tokio::test(flavor = "multi_thread")]
async fn actors_state_and_reminders_can_be_read_on_the_command_line() {
    let app = App::hosting(&[CAT]).await;
    let node = Setup::default().app(&app).ready().await;
    node.call(CAT, "hobbit", "foo").await.expect(200);
    node.put_state(CAT, "hobbit", "food", json!("ants")).await.expect_empty();
    node.remind(CAT, "hobbit", "nap", json!({"dueTime": "1h"})).await;
    let actors = stdout(&run(&node, &["actors"]));
    assert!(actors.contains("cat") && actors.contains("hobbit"), "{actors}");
    let value = stdout(&run(&node, &["state", "get", "myapp||cat||hobbit||food"]));
    assert!(value.contains("ants"), "{value}");
    let export = stdout(&run(&node, &["state", "export"]));
    assert!(export.lines().any(|line| line.contains("myapp||cat||hobbit||food") && line.contains("ants")), "{export}");
    let reminders = stdout(&run(&node, &["reminders"]));
    assert!(reminders.contains("nap"), "{reminders}");
    let missing = run(&node, &["state", "get", "myapp||cat||hobbit||none"]);
    assert!(!missing.status.success());
    let nobody = Command::new(callboard())
        .args(["actors"])
        .env("DAPR_HTTP_PORT", "1")
        .env("DAPR_HTTP_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .expect("run the command");
    assert!(!nobody.status.success(), "a node that is not there is an error");
    assert!(!String::from_utf8_lossy(&nobody.stderr).contains("panicked"));
}
