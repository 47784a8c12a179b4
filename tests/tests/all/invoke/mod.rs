//! Service invocation over HTTP: to the own app and to external URLs, as one node can show it.

mod body;
mod external;
mod forwarding;
mod method;
mod streaming;
mod target;
mod tokens;

use callboard_tests::app::{App, Reply};

/// An app that answers every path with `path|query`, as it came over the wire, decoded.
async fn echoing_path() -> App {
    let app = App::plain().await;
    app.on("/", async |call| {
        if call.path == "/dapr/config" {
            return Reply::ok().body("{}");
        }
        Reply::ok().body(format!("{}|{}", call.path, call.query.unwrap_or_default()))
    });
    app
}

/// An app that answers every path with the request's own body and content type.
async fn echoing_body() -> App {
    let app = App::plain().await;
    app.on("/", async |call| {
        if call.path == "/dapr/config" {
            return Reply::ok().body("{}");
        }
        let kind = call.header("content-type").unwrap_or("x/none").to_owned();
        Reply::ok().header("content-type", &kind).body(call.body)
    });
    app
}
