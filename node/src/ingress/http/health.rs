//! Health of the node, as it is asked for by SDKs and by orchestrators. No token is needed.
//!
//! `healthz/outbound` never waits for the app: some SDKs open the app's port only after it has answered.

use http::Response;

use super::body::Body;
use super::error::{ApiError, Code, no_content};
use super::route::query_unescape;
use crate::node::{Node, Phase};

pub fn healthz(node: &Node, query: Option<&str>) -> Response<Body> {
    if let Some(app_id) = query.and_then(app_id) {
        return if app_id == node.config.app_id {
            no_content()
        } else {
            ApiError::new(Code::HealthAppIdNotMatch, "dapr app-id does not match").into_response()
        };
    }
    let phase = *node.phase.borrow();
    let waits_for = match phase {
        Phase::Ready => return no_content(),
        Phase::Starting => "partitions",
        Phase::Outbound => app_target(node),
        Phase::Draining => "draining",
    };
    ApiError::new(Code::HealthNotReady, format!("dapr is not ready: [{waits_for}]")).into_response()
}

pub fn outbound(node: &Node) -> Response<Body> {
    if *node.phase.borrow() >= Phase::Outbound {
        return no_content();
    }
    ApiError::new(Code::OutboundHealthNotReady, "dapr outbound is not ready").into_response()
}

/// What the app still owes.
fn app_target(node: &Node) -> &'static str {
    let app = node.app.watch();
    let app = app.borrow();
    match (app.port_open, app.healthy, app.config_read) {
        (false, _, _) => "app port",
        (true, false, _) => "app health",
        (true, true, false) => "app config",
        (true, true, true) => "actor types",
    }
}

/// The value of `appid`, if it is given and not empty.
fn app_id(query: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(name, _)| *name == "appid").map(|(_, value)| value);
    values.next().and_then(|value| query_unescape(value).ok()).filter(|value| !value.is_empty()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_id_is_a_decoded_query_parameter() {
        for (query, expected) in
            [("appid=a%2Db", Some("a-b")), ("x=1&appid=a", Some("a")), ("appid=", None), ("appid", None), ("xappid=a", None)]
        {
            assert_eq!(app_id(query).as_deref(), expected, "{query}");
        }
    }
}
