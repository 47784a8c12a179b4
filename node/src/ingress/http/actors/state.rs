//! State of an actor: one transaction, one key.

use std::sync::Arc;

use callboard_types::{ActorKey, Timestamp};
use http::header::HeaderName;
use http::{Request, Response};

use super::{errors, insert_text, read, transaction};
use crate::actors::Error;
use crate::clock;
use crate::ingress::http::body::Body;
use crate::ingress::http::error::{ApiError, Code, json, no_content};
use crate::node::Node;

const TTL_EXPIRES: HeaderName = HeaderName::from_static("metadata.ttlexpiretime");

pub async fn save(node: &Arc<Node>, actor: &ActorKey, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let body = read(node, request).await?;
    let now = clock::wall();
    let ops = match transaction::operations(&body, now) {
        Ok(ops) => ops,
        Err(error) if error.is_malformed() => return Err(ApiError::malformed(error)),
        // An actor that is not active is told so first.
        Err(_) if !node.actors.is_active(actor) => return Err(missing()),
        Err(error) => return Err(errors::SAVE_STATE.failed(error)),
    };
    match node.actors.transact(actor, ops, now).await {
        Ok(()) => Ok(no_content()),
        Err(Error::NotActive) => Err(missing()),
        Err(error) => Err(errors::SAVE_STATE.answer(&error)),
    }
}

pub async fn get(node: &Arc<Node>, actor: &ActorKey, key: &str) -> Result<Response<Body>, ApiError> {
    let value = node.actors.state(actor, key).await.map_err(|error| errors::GET_STATE.answer(&error))?;
    let Some(value) = value.filter(|value| !value.value.is_empty()) else { return Ok(no_content()) };
    let mut response = json(value.value);
    if let Some(expires) = value.expires_at.and_then(rfc3339_seconds) {
        insert_text(response.headers_mut(), TTL_EXPIRES, &expires);
    }
    Ok(response)
}

fn missing() -> ApiError {
    ApiError::new(Code::ActorInstanceMissing, Error::NotActive.to_string())
}

fn rfc3339_seconds(at: Timestamp) -> Option<String> {
    let at = chrono::DateTime::from_timestamp_micros(at.as_micros())?;
    Some(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
