//! `GET /cluster/v1/reminders`: what is registered and what was given up.

use std::time::Duration;

use callboard_tests::app::App;
use callboard_tests::node::{Node, Setup};
use callboard_tests::wait::{PATIENCE, eventually};
use serde_json::json;

use crate::stage::CAT;

/// A firing that its policy gave up is counted, and survives a restart.
#[tokio::test]
async fn firings_that_were_given_up_are_shown_and_kept() {
    let app = App::hosting(&[CAT]).await;
    let mut node = Setup::default().app(&app).ready().await;
    app.answers("/actors/cat/lost/", 500, "");
    node.remind(CAT, "lost", "bell", json!({"dueTime": "0s", "period": "1h", "failurePolicy": {"drop": {}}})).await;
    app.wait_answered(1, "/actors/cat/lost/", PATIENCE).await;
    let shown = async |node: &Node| {
        let answer = node.get("/cluster/v1/reminders?type=cat").send().await.expect(200).json();
        let given_up = answer["givenUp"].as_array()?.iter().find(|firing| firing["id"] == "lost")?.clone();
        assert_eq!(given_up["name"], "bell");
        let row = answer["reminders"].as_array()?.iter().find(|row| row["id"] == "lost")?.clone();
        (row["dropped"] == 1).then_some(())
    };
    eventually(PATIENCE, "the dropped firing is shown", async || shown(&node).await).await;
    node.kill();
    node.restart_ready().await;
    eventually(Duration::from_secs(10), "it is still shown", async || shown(&node).await).await;
}
