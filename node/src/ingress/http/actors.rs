//! The actors API: requests into the words of [`Actors`](crate::actors::Actors), answers into Dapr's.
//!
//! Nothing is decided here but texts and statuses (`specs`: actors HTTP API): one module per family of endpoints, and
//! `errors` for what they all may fail with. Bodies are read whatever their content type says, because SDKs disagree
//! about it.

use std::sync::Arc;

use bytes::Bytes;
use callboard_engine::json;
use callboard_engine::mailbox::Refusal;
use callboard_engine::names;
use callboard_types::ActorKey;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};

use super::body::Body;
use super::error::{ApiError, Code, no_content};
use super::route::ActorRoute;
use crate::actors::Error;
use crate::node::Node;
use crate::owner::Error as OwnerError;

mod call;
mod errors;
mod reminders;
mod state;
mod timers;
mod transaction;

pub use transaction::fuzz_transaction;

/// Types of Dapr's own workflow engine: nobody else's business.
const RESERVED: &str = "dapr.internal.";

/// Answers one call of the actors API.
pub async fn handle(node: &Arc<Node>, route: ActorRoute, request: Request<Body>) -> Response<Body> {
    answered(node, route, request).await.unwrap_or_else(ApiError::into_response)
}

async fn answered(node: &Arc<Node>, route: ActorRoute, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let path = route.actor();
    names::check_type(&path.actor_type).map_err(ApiError::bad_request)?;
    names::check_id(&path.actor_id).map_err(ApiError::bad_request)?;
    let actor = node.actors.key(path.actor_type.clone(), path.actor_id.clone());
    callboard_machine::limits::check_actor(&actor).map_err(ApiError::bad_request)?;
    let is_method = matches!(route, ActorRoute::Method { .. });
    if !is_method && actor.actor_type.starts_with(RESERVED) {
        return Err(reserved(&actor));
    }
    match route {
        ActorRoute::Method { method, .. } => call::invoke(node, actor, &method, request).await,
        ActorRoute::SaveState { .. } => state::save(node, &actor, request).await,
        ActorRoute::GetState { key, .. } => state::get(node, &actor, &key).await,
        ActorRoute::PutReminder { name, .. } => reminders::put(node, &actor, &name, request).await,
        ActorRoute::GetReminder { name, .. } => reminders::get(node, &actor, &name).await,
        ActorRoute::DeleteReminder { name, .. } => reminders::delete(node, &actor, &name, request).await,
        ActorRoute::ListReminders { .. } => reminders::list(node, &actor).await,
        ActorRoute::PutTimer { name, .. } => timers::put(node, &actor, &name, request).await,
        ActorRoute::DeleteTimer { name, .. } => Ok(timers::delete(node, &actor, &name)),
        ActorRoute::DeleteActor { .. } => delete(node, &actor).await,
    }
}

async fn delete(node: &Arc<Node>, actor: &ActorKey) -> Result<Response<Body>, ApiError> {
    match node.actors.delete(actor).await {
        Ok(()) => Ok(no_content()),
        Err(Error::Owner(OwnerError::Refused(refusal @ Refusal::TurnRunning))) => {
            Err(ApiError::new(Code::Conflict, refusal.to_string()))
        }
        Err(error) => Err(errors::DELETE_ACTOR.answer(&error)),
    }
}

fn reserved(actor: &ActorKey) -> ApiError {
    let message = format!(
        "actor type \"{}\" is reserved for the Dapr workflow runtime; direct actor API access is not permitted",
        actor.actor_type
    );
    ApiError::new(Code::ActorTypeReserved, message)
}

/// The whole body of a request that is JSON, or should be.
async fn read(node: &Node, request: Request<Body>) -> Result<Bytes, ApiError> {
    let body = request.into_body().collect(node.config.http.max_body).await;
    body.map_err(|error| ApiError::unread(error, ApiError::malformed))
}

/// What a request registers under a name, a reminder or a timer: its body is judged first, then the name.
async fn registration<T>(
    node: &Node,
    kind: names::Kind,
    name: &str,
    request: Request<Body>,
    parse: fn(&[u8]) -> Result<T, json::Error>,
) -> Result<T, ApiError> {
    let registered = parse(&read(node, request).await?).map_err(ApiError::malformed)?;
    names::check(kind, name).map_err(ApiError::bad_request)?;
    Ok(registered)
}

fn insert_text(headers: &mut http::HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
