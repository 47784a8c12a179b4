//! Health of the node, as it is asked for by SDKs and by orchestrators. No token is needed.
//!
//! `healthz/outbound` never waits for the app: some SDKs open the app's port only after it has answered.

use http::Response;

use super::body::Body;
use super::error::{ApiError, Code, no_content};
use super::route::query_unescape;
use crate::app::AppView;
use crate::node::Phase;

pub fn healthz(phase: Phase, app: &AppView, own_id: &str, query: Option<&str>) -> Response<Body> {
    if let Some(app_id) = query.and_then(app_id) {
        return if app_id == own_id {
            no_content()
        } else {
            ApiError::new(Code::HealthAppIdNotMatch, "dapr app-id does not match").into_response()
        };
    }
    let waits_for = match phase {
        Phase::Ready => return no_content(),
        Phase::Starting => "partitions",
        Phase::Outbound => app_target(app),
        Phase::Draining => "draining",
    };
    ApiError::new(Code::HealthNotReady, format!("dapr is not ready: [{waits_for}]")).into_response()
}

pub fn outbound(phase: Phase) -> Response<Body> {
    if phase >= Phase::Outbound {
        return no_content();
    }
    ApiError::new(Code::OutboundHealthNotReady, "dapr outbound is not ready").into_response()
}

/// What the app still owes.
fn app_target(app: &AppView) -> &'static str {
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
    fn readiness_names_what_is_waited_for() {
        let view = |port_open, healthy, config_read| AppView { port_open, healthy, config_read, ..AppView::default() };
        for (phase, app, status) in [
            (Phase::Starting, view(true, true, true), 500),
            (Phase::Outbound, view(false, false, false), 500),
            (Phase::Ready, view(false, false, false), 204),
            (Phase::Draining, view(true, true, true), 500),
        ] {
            assert_eq!(healthz(phase, &app, "own", None).status(), status, "{phase:?}");
            let outbound_status = if phase == Phase::Starting { 500 } else { 204 };
            assert_eq!(outbound(phase).status(), outbound_status, "{phase:?}");
        }
        assert_eq!(app_target(&view(true, false, false)), "app health");
    }

    #[test]
    fn an_app_id_in_the_query_asks_only_for_the_name() {
        let app = AppView::default();
        assert_eq!(healthz(Phase::Starting, &app, "own", Some("appid=own")).status(), 204);
        let other = healthz(Phase::Ready, &app, "own", Some("appid=other"));
        assert_eq!(other.status(), 500);
        assert_eq!(other.extensions().get::<Code>(), Some(&Code::HealthAppIdNotMatch));
    }

    #[test]
    fn the_app_id_is_a_decoded_query_parameter() {
        for (query, expected) in [
            ("appid=a%2Db", Some("a-b")),
            ("x=1&appid=a", Some("a")),
            ("appid=", None),
            ("appid", None),
            ("xappid=a", None),
        ] {
            assert_eq!(app_id(query).as_deref(), expected, "{query}");
        }
    }
}
