//! Calls of an actor's methods.

use std::sync::Arc;

use bytes::Bytes;
use callboard_types::ActorKey;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};

use super::{errors, insert_text};
use crate::actors::{Error, Invocation};
use crate::ingress::http::body::{self, Body};
use crate::ingress::http::error::ApiError;
use crate::invoke::{headers, method};
use crate::node::Node;
use crate::owner::REENTRANCY_ID;

/// Tells an app that the call came through the API.
const API_CALL: HeaderName = HeaderName::from_static("dapr-api-call");
const CALLER_APP_ID: HeaderName = HeaderName::from_static("dapr-caller-app-id");
const CALLER_NAMESPACE: HeaderName = HeaderName::from_static("dapr-caller-namespace");
/// Set by an app to say that a reminder need not fire again; means failure on any other call.
const REMINDER_CANCEL: HeaderName = HeaderName::from_static("x-daprremindercancel");

pub async fn invoke(
    node: &Arc<Node>,
    actor: ActorKey,
    method: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let method = method::normalize(method).map_err(ApiError::bad_request)?;
    let (mut head, body) = request.into_parts();
    let body = body.collect(node.config.http.max_body).await.map_err(unread)?;
    let chain = head.headers.remove(REENTRANCY_ID);
    headers::towards_app(&mut head.headers);
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(API_CALL, HeaderValue::from_static("true"));
    insert_text(&mut head.headers, CALLER_APP_ID, &node.config.app_id);
    insert_text(&mut head.headers, CALLER_NAMESPACE, &node.config.namespace);
    let invocation = Invocation {
        actor: actor.clone(),
        method: &method,
        query: head.uri.query(),
        headers: head.headers,
        chain: chain.as_ref().and_then(|chain| chain.to_str().ok()).filter(|chain| !chain.is_empty()),
        body,
    };
    let response = node.actors.invoke(invocation).await.map_err(|error| failed(&error))?;
    answer(&actor, &method, response)
}

fn unread(error: body::Error) -> ApiError {
    ApiError::unread(error, |error| ApiError::bad_request(format_args!("failed to read body: {error}")))
}

fn failed(error: &Error) -> ApiError {
    match error {
        Error::NoHost(actor) => errors::INVOKE.failed(format_args!(
            "failed to lookup actor: api error: code = FailedPrecondition desc = did not find address for actor '{}/{}'",
            actor.actor_type, actor.actor_id
        )),
        Error::Closed
        | Error::NotActive
        | Error::ReminderNotFound(_)
        | Error::Owner(_)
        | Error::Invalid(_) => errors::INVOKE.answer(error),
    }
}

/// Only 200 is an answer; anything else of the app becomes an error that carries it (`specs`: method invocation).
fn answer(actor: &ActorKey, method: &str, response: Response<Bytes>) -> Result<Response<Body>, ApiError> {
    let (mut head, body) = response.into_parts();
    let why = match head.status {
        StatusCode::OK if !head.headers.get(REMINDER_CANCEL).is_some_and(is_truthy) => {
            headers::towards_caller(&mut head.headers);
            return Ok(Response::from_parts(head, Body::full(body)));
        }
        StatusCode::OK => "reminder has been canceled".to_owned(),
        StatusCode::NOT_FOUND => {
            format!("actor method not found: actors/{}/{}/method/{method}", actor.actor_type, actor.actor_id)
        }
        status => format!("error from actor service: ({}) {}", status.as_u16(), String::from_utf8_lossy(&body)),
    };
    Err(errors::INVOKE.failed(why))
}

fn is_truthy(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(crate::resources::is_truthy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_of_the_app_is_an_answer() {
        let actor = ActorKey::new("default", "T", "I");
        let answer = |status: u16, body: &'static str| {
            let response = Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).expect("valid");
            super::answer(&actor, "M", response).map(|ok| ok.status()).map_err(|error| error.message.into_owned())
        };
        assert_eq!(answer(200, "x"), Ok(StatusCode::OK));
        assert_eq!(
            answer(404, "x").unwrap_err(),
            "error invoke actor method: actor method not found: actors/T/I/method/M"
        );
        assert_eq!(answer(201, "made").unwrap_err(), "error invoke actor method: error from actor service: (201) made");
    }
}
