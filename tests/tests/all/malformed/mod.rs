//! Bad input: it gets a 4xx or a closed connection within a bound, and the node lives on unharmed.

mod bytes;
mod content;

use callboard_tests::app::App;
use callboard_tests::node::{Node, Setup};

/// A node of its own for bad input, so that damage shows in these tests and not in others.
struct Victim {
    node: Node,
    app: App,
}

impl Victim {
    async fn start() -> Self {
        let app = App::hosting(&["cat"]).await;
        let node = Setup::default().app(&app).ready().await;
        Self { node, app }
    }

    /// The same process, healthy, serving, and without a panic in its log.
    async fn must_be_unharmed(mut self) {
        assert!(self.node.is_running());
        self.node.get("/v1.0/healthz").send().await.expect_empty();
        self.node.call("cat", "after", "foo").await.expect(200);
        self.node.put_state("cat", "after", "k", serde_json::json!(1)).await.expect_empty();
        assert!(!self.node.log().contains("panicked"));
        assert!(self.app.count("/actors/cat/after/") == 1);
    }
}
