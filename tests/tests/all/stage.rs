//! A node and an app shared by the tests that need nothing special, so that most of them start no process.
//!
//! Tests do not meet: each uses ids of its own ([`unique`]) and installs its handlers under the paths of those ids.
//! The process is ended by the reaper when the test binary ends.

use std::sync::atomic::{AtomicU64, Ordering};

use callboard_tests::app::App;
use callboard_tests::node::{Held, Node, Setup};
use callboard_tests::wait::{PATIENCE, eventually};
use serde_json::json;
use tokio::sync::OnceCell;

pub struct Stage {
    pub node: Node,
    pub app: App,
}

/// Hosted with default settings.
pub const CAT: &str = "cat";
pub const DOG: &str = "dog";
/// Idle after one second.
pub const BRIEF: &str = "brief";
/// Reentrant, default depth.
pub const LOOP: &str = "loop";
/// Reentrant, depth 23.
pub const DEEP: &str = "deep";
/// Reentrant, depth 12.
pub const LOW: &str = "low";
/// Named in a block that sets nothing, and so not reentrant.
pub const PLAIN: &str = "plain";

/// The node of app `myapp` and its app. Reentrancy is on at the top level with depth 2, so that every block shows that
/// it replaces what stands there.
pub async fn stage() -> &'static Stage {
    static STAGE: OnceCell<Stage> = OnceCell::const_new();
    STAGE
        .get_or_init(async || {
            let app = App::configured(json!({
                "entities": [CAT, DOG, BRIEF, LOOP, DEEP, LOW, PLAIN, "shallow"],
                "reentrancy": {"enabled": true, "maxStackDepth": 2},
                "entitiesConfig": [
                    {"entities": [CAT, DOG]},
                    {"entities": [BRIEF], "actorIdleTimeout": "1s"},
                    {"entities": [LOOP], "reentrancy": {"enabled": true}},
                    {"entities": [DEEP], "reentrancy": {"enabled": true, "maxStackDepth": 23}},
                    {"entities": [LOW], "reentrancy": {"enabled": true, "maxStackDepth": 12}},
                    {"entities": [PLAIN], "reentrancy": {"enabled": false}}
                ]
            }))
            .await;
            let node = Setup::default().app(&app).ready().await;
            Stage { node, app }
        })
        .await
}

/// An id no other test uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `/actors/{kind}/{id}`, as the app sees it.
pub fn at(kind: &str, id: &str) -> String {
    format!("/actors/{kind}/{id}/")
}

/// Files that the store may hold more at one time than at another.
const STORE_FILES: usize = 8;

/// What the node holds while nothing is under way and no connection to the app is open: the same at several looks.
pub async fn settled(node: &Node, app: &App) -> Held {
    const LOOKS: usize = 5;
    let mut same: Vec<Held> = Vec::new();
    eventually(PATIENCE, "connections to the app are closed and what is held stays the same", async || {
        let held = node.held().await;
        same.retain(|earlier| *earlier == held);
        if app.connections() > 0 {
            same.clear();
        } else {
            same.push(held);
        }
        if same.len() >= LOOKS { same.pop() } else { None }
    })
    .await
}

/// Waits until the node holds no more of anything than it held before.
pub async fn gives_back(node: &Node, app: &App, before: &Held) {
    let mut last = None;
    eventually(PATIENCE, "what is held is given back", async || {
        let held = node.held().await;
        let back = app.connections() == 0
            && held.sockets <= before.sockets
            && held.files <= before.files + STORE_FILES
            && held.threads <= before.threads
            && held.tasks <= before.tasks
            && held.requests <= before.requests
            && held.actors <= before.actors
            && held.turns <= before.turns
            && held.waiting <= before.waiting
            && held.timers <= before.timers;
        // A test that fails shows the last of these.
        if last.as_ref() != Some(&held) {
            println!("{held:?}, before {before:?}");
        }
        last = Some(held);
        back.then_some(())
    })
    .await;
}
