//! Reminders: only of types that this node's app hosts.

use std::sync::Arc;

use callboard_engine::names::{self, Kind};
use callboard_engine::reminder::{ReminderRequest, ReminderView};
use callboard_machine::partition::{Rejection, Reminder};
use callboard_types::ActorKey;
use http::{Request, Response};
use serde_json::value::RawValue;

use super::{errors, read, registration};
use crate::actors::Error;
use crate::clock;
use crate::ingress::http::body::Body;
use crate::ingress::http::error::{ApiError, Code, json, no_content};
use crate::node::Node;
use crate::owner::Error as OwnerError;

pub async fn put(
    node: &Arc<Node>,
    actor: &ActorKey,
    name: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let request = registration(node, Kind::Reminder, name, request, ReminderRequest::from_json).await?;
    hosted(node, actor).await?;
    let now = clock::wall();
    let plan = request.plan(now).map_err(|error| errors::PUT_REMINDER.failed(error))?;
    match node.actors.put_reminder(actor, name, request, plan, now).await {
        Ok(()) => Ok(no_content()),
        Err(Error::Owner(OwnerError::Rejected(error @ Rejection::ReminderExists { .. }))) => {
            Err(ApiError::new(Code::ActorReminderAlreadyExists, error.to_string()))
        }
        Err(error) => Err(errors::PUT_REMINDER.answer(&error)),
    }
}

pub async fn get(node: &Arc<Node>, actor: &ActorKey, name: &str) -> Result<Response<Body>, ApiError> {
    names::check_reminder_name(name).map_err(ApiError::bad_request)?;
    hosted(node, actor).await?;
    match node.actors.reminder(actor, name).await {
        Ok(reminder) => Ok(json(view(actor, &reminder).to_json())),
        Err(error @ Error::ReminderNotFound(_)) => Err(ApiError::new(Code::ActorReminderNotFound, error.to_string())),
        Err(error) => Err(errors::GET_REMINDER.answer(&error)),
    }
}

pub async fn delete(
    node: &Arc<Node>,
    actor: &ActorKey,
    name: &str,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let body = read(node, request).await?;
    if !body.is_empty() {
        serde_json::from_slice::<&RawValue>(&body).map_err(ApiError::malformed)?;
    }
    names::check_reminder_name(name).map_err(ApiError::bad_request)?;
    hosted(node, actor).await?;
    node.actors.delete_reminder(actor, name).await.map_err(|error| errors::DELETE_REMINDER.answer(&error))?;
    Ok(no_content())
}

/// `{"reminders":[{"name":…, …as in GET}]}`
pub async fn list(node: &Arc<Node>, actor: &ActorKey) -> Result<Response<Body>, ApiError> {
    hosted(node, actor).await?;
    let reminders = node.actors.reminders(actor).await.map_err(|error| errors::GET_REMINDER.answer(&error))?;
    let mut out = String::from("{\"reminders\":[");
    for (number, (name, reminder)) in reminders.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        let view = view(actor, reminder).to_json();
        out.push_str("{\"name\":");
        out.push_str(&serde_json::Value::from(name.as_str()).to_string());
        out.push(',');
        out.push_str(view.strip_prefix('{').unwrap_or(&view));
    }
    out.push_str("]}");
    Ok(json(out))
}

async fn hosted(node: &Arc<Node>, actor: &ActorKey) -> Result<(), ApiError> {
    if node.actors.hosts(&actor.actor_type).await {
        return Ok(());
    }
    let message = "operations on actor reminders are only possible on hosted actor types";
    Err(ApiError::new(Code::ActorReminderNonHosted, message))
}

fn view<'a>(actor: &'a ActorKey, reminder: &'a Reminder) -> ReminderView<'a> {
    ReminderView {
        actor_type: &actor.actor_type,
        actor_id: &actor.actor_id,
        data: reminder.spec.data.as_deref(),
        due_time: &reminder.spec.due_time,
        period: &reminder.spec.period,
        ttl: &reminder.spec.ttl,
    }
}
