//! The app: an HTTP server that hosts the actor type `cat`.
//!
//! It answers four kinds of request of its node: what it hosts, method calls, reminders, and the end of an activation.
//! State and reminders it asks of the node with plain HTTP; there is no library in between.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use callboard_tests::http::request;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Serves on `APP_PORT`, with the node at `DAPR_HTTP_PORT`: the names every Dapr SDK reads.
pub async fn serve() -> anyhow::Result<()> {
    let port = |name: &str| anyhow::Ok(std::env::var(name).with_context(|| format!("read {name}"))?.parse::<u16>()?);
    let node = SocketAddr::from(([127, 0, 0, 1], port("DAPR_HTTP_PORT")?));
    let listener = TcpListener::bind(("127.0.0.1", port("APP_PORT")?)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let service = service_fn(move |request| async move { answer(node, request).await });
            // A connection that breaks is the node's business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(node: SocketAddr, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
    let (status, answer) = match (&head.method, path.as_slice()) {
        (&Method::GET, ["dapr", "config"]) => (200, json!({"entities": ["cat"]})),
        (&Method::GET, ["hello"]) => (200, json!("hello from the app")),
        (&Method::PUT, ["actors", "cat", id, "method", "feed"]) => (200, feed(node, id, &body).await?),
        (&Method::PUT, ["actors", "cat", id, "method", "remind", "dinner"]) => {
            println!("   [app] it is dinner time for {id}");
            (200, feed(node, id, b"\"dinner\"").await?)
        }
        (&Method::DELETE, ["actors", "cat", _]) => (200, Value::Null),
        _ => (404, Value::Null),
    };
    Ok(Response::builder().status(status).body(Full::new(serde_json::to_vec(&answer)?.into()))?)
}

/// One turn: read, change, write. No lock is needed, since turns of one cat never overlap.
async fn feed(node: SocketAddr, id: &str, meal: &[u8]) -> anyhow::Result<Value> {
    let state = format!("/v1.0/actors/cat/{id}/state");
    let stored = request(node, "GET", &format!("{state}/meals")).send().await;
    let mut meals = if stored.status == 200 { stored.json() } else { json!([]) };
    let meal: Value = serde_json::from_slice(meal)?;
    meals.as_array_mut().context("meals are a list")?.push(meal);
    let change = json!([{"operation": "upsert", "request": {"key": "meals", "value": meals}}]);
    let written = request(node, "POST", &state).json(&change).send().await;
    anyhow::ensure!(written.status == 204, "not written: {}", written.text());
    Ok(meals)
}
