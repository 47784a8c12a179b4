//! Timers: only of types that this node's app hosts.

use std::sync::Arc;

use callboard_engine::names::Kind;
use callboard_engine::timer::TimerRequest;
use callboard_types::ActorKey;
use http::{Request, Response};

use super::{errors, registration};
use crate::ingress::http::body::Body;
use crate::ingress::http::error::{ApiError, no_content};
use crate::node::Node;

pub async fn put(
    node: &Arc<Node>,
    actor: &ActorKey,
    name: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request = registration(node, Kind::Timer, name, request, TimerRequest::from_json).await?;
    if !node.actors.hosts(&actor.actor_type).await {
        let (kind, id) = (&actor.actor_type, &actor.actor_id);
        let why = format_args!("can't create timer for actor {kind}||{id}: actor type not registered");
        return Err(errors::PUT_TIMER.failed(why));
    }
    node.actors.put_timer(actor, name, request).map_err(|error| errors::PUT_TIMER.failed(error))?;
    Ok(no_content())
}

/// One that is not there is deleted all the same.
pub fn delete(node: &Arc<Node>, actor: &ActorKey, name: &str) -> Response<Body> {
    node.actors.delete_timer(actor, name);
    no_content()
}
