//! `metadata`: what this node is, in the shape the SDKs read. Zero values and empty lists are left out, apart from
//! the two fields that are always there.
//!
//! It is asked for often (one SDK does so for every actor it activates), so it is built from what is in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_engine::duration::format_go;
use http::Response;
use parking_lot::RwLock;
use serde::Serialize;

use super::body::Body;
use super::error::{ApiError, Code, json, no_content};
use crate::app::AppView;
use crate::config::{AppConfig, Config};
use crate::node::Phase;
use crate::resources::{self, Resources};

pub const RUNTIME_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Keys that `PUT metadata/{key}` may fill, and their sizes together.
const EXTENDED_KEYS: usize = 1_024;
const EXTENDED_BYTES: usize = 4 << 20;
const EXTENDED_RETRY: Duration = Duration::from_secs(1);
const VERSION_KEY: &str = "daprRuntimeVersion";
/// What a Component that names the built-in store can do.
const STORE_CAPABILITIES: [&str; 4] = ["ETAG", "TRANSACTIONAL", "TTL", "ACTOR"];
/// What is on without being asked for.
const FEATURES: [&str; 1] = ["ActorStateTTL"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    id: &'a str,
    runtime_version: &'static str,
    enabled_features: Vec<&'a str>,
    /// The deprecated copy of `actorRuntime.activeActors`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    actors: &'a [ActiveActor],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Component<'a>>,
    extended: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    http_endpoints: Vec<Named<'a>>,
    app_connection_properties: Connection<'a>,
    actor_runtime: ActorRuntime<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resiliencies: Vec<Named<'a>>,
}

#[derive(Serialize)]
struct ActiveActor {
    #[serde(rename = "type")]
    actor_type: String,
    #[serde(skip_serializing_if = "is_zero")]
    count: usize,
}

#[derive(Serialize)]
struct Component<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    capabilities: &'static [&'static str],
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    #[serde(skip_serializing_if = "is_zero_port")]
    port: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    protocol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    channel_address: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    max_concurrency: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health<'a> {
    health_check_path: &'a str,
    health_probe_interval: String,
    health_probe_timeout: String,
    #[serde(skip_serializing_if = "is_zero_count")]
    health_threshold: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActorRuntime<'a> {
    runtime_status: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    active_actors: &'a [ActiveActor],
    host_ready: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    placement: &'static str,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_zero_port(port: &u16) -> bool {
    *port == 0
}

fn is_zero_count(count: &u32) -> bool {
    *count == 0
}

/// What the answer is made of.
pub struct Facts<'a> {
    pub config: &'a Config,
    pub phase: Phase,
    pub app: &'a AppView,
    /// Activations of this node by type.
    pub active: Vec<(String, usize)>,
    pub resources: &'a Resources,
    pub extended: &'a BTreeMap<String, String>,
}

pub fn get(facts: &Facts<'_>) -> Response<Body> {
    let actors = active_actors(facts);
    let resources = facts.resources;
    let pairs = facts.extended.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut extended: BTreeMap<&str, &str> = pairs.collect();
    extended.insert(VERSION_KEY, RUNTIME_VERSION);
    let metadata = Metadata {
        id: &facts.config.app_id,
        runtime_version: RUNTIME_VERSION,
        enabled_features: features(resources),
        actors: &actors,
        components: resources.actor_store.iter().map(component).collect(),
        extended,
        http_endpoints: resources.endpoints.iter().map(|endpoint| Named { name: &endpoint.name }).collect(),
        app_connection_properties: facts.config.app.as_ref().map_or_else(Connection::default, connection),
        actor_runtime: actor_runtime(facts, &actors),
        resiliencies: resources.resiliencies.iter().map(|name| Named { name }).collect(),
    };
    match serde_json::to_vec(&metadata) {
        Ok(bytes) => json(bytes),
        Err(error) => ApiError::new(Code::Error, error.to_string()).into_response(),
    }
}

fn features(resources: &Resources) -> Vec<&str> {
    let configured = resources.features.iter().map(String::as_str).filter(|name| !FEATURES.contains(name));
    FEATURES.into_iter().chain(configured).collect()
}

fn component(store: &resources::Component) -> Component<'_> {
    let capabilities = &STORE_CAPABILITIES;
    Component { name: &store.name, kind: &store.kind, version: &store.version, capabilities }
}

/// Every hosted type, with the number of its activations; types that are still active though no longer hosted, too.
fn active_actors(facts: &Facts<'_>) -> Vec<ActiveActor> {
    let hosted = facts.app.hosted.iter().flat_map(|hosted| hosted.types.keys());
    let mut counts: BTreeMap<String, usize> = hosted.map(|actor_type| (actor_type.to_string(), 0)).collect();
    for (actor_type, count) in &facts.active {
        *counts.entry(actor_type.clone()).or_default() += count;
    }
    counts.into_iter().map(|(actor_type, count)| ActiveActor { actor_type, count }).collect()
}

fn connection(app: &AppConfig) -> Connection<'_> {
    Connection {
        port: app.port,
        protocol: app.protocol.as_str(),
        channel_address: &app.address,
        max_concurrency: app.max_concurrency.unwrap_or_default(),
        health: app.health.as_ref().map(|health| Health {
            health_check_path: &health.path,
            health_probe_interval: format_go(health.interval),
            health_probe_timeout: format_go(health.timeout),
            health_threshold: health.threshold,
        }),
    }
}

fn actor_runtime<'a>(facts: &Facts<'_>, actors: &'a [ActiveActor]) -> ActorRuntime<'a> {
    let waits_for_app = facts.config.app.is_some() && !facts.app.config_read;
    let initializing = facts.phase == Phase::Starting || waits_for_app;
    ActorRuntime {
        runtime_status: if initializing { "INITIALIZING" } else { "RUNNING" },
        active_actors: actors,
        host_ready: !initializing,
        placement: if initializing { "" } else { "placement: connected" },
    }
}

/// `PUT metadata/{key}`: the body as text becomes the value.
pub async fn put(
    extended: &RwLock<BTreeMap<String, String>>,
    key: String,
    body: Body,
    max_body: u64,
) -> Response<Body> {
    let body = match body.collect(max_body).await {
        Ok(body) => body,
        Err(error) => return ApiError::unread(error, ApiError::body_read).into_response(),
    };
    let value = String::from_utf8_lossy(&body).into_owned();
    let mut extended = extended.write();
    let others = extended.iter().filter(|(other, _)| **other != key);
    let (keys, bytes) = others
        .fold((1, key.len() + value.len()), |(keys, bytes), (key, value)| (keys + 1, bytes + key.len() + value.len()));
    if keys > EXTENDED_KEYS || bytes > EXTENDED_BYTES {
        let full = format!("metadata holds at most {EXTENDED_KEYS} keys and {EXTENDED_BYTES} bytes");
        return ApiError::new(Code::TooManyRequests, full).retry_after(EXTENDED_RETRY).into_response();
    }
    extended.insert(key, value);
    no_content()
}

#[cfg(test)]
#[path = "metadata_test.rs"]
mod tests;
