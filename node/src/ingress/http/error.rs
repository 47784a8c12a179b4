//! Error answers of the HTTP API: one table of codes, one JSON shape.
//!
//! An answer is `{"errorCode":"<CODE>","message":"<text>"}`, with `details` where a caller can act on them. The codes
//! and the status each one usually has stand here once; the texts are Dapr's, since SDKs and tests compare them.
//! Codes that Dapr does not know are ours and say so. Every answer carries its [`Code`] as a response extension, so
//! that the metrics count codes without reading bodies.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use super::body::{self, Body};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident;)*) => {
        /// Every `errorCode` of the HTTP API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The text in `errorCode`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => $text,)*
                }
            }

            /// The status it has unless an endpoint says otherwise.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Code::$name => StatusCode::$status,)*
                }
            }
        }
    };
}

codes! {
    BadRequest = "ERR_BAD_REQUEST", BAD_REQUEST;
    BodyRead = "ERR_BODY_READ", BAD_REQUEST;
    MalformedRequest = "ERR_MALFORMED_REQUEST", BAD_REQUEST;
    ApiUnimplemented = "ERR_API_UNIMPLEMENTED", NOT_IMPLEMENTED;
    DirectInvoke = "ERR_DIRECT_INVOKE", INTERNAL_SERVER_ERROR;
    HealthNotReady = "ERR_HEALTH_NOT_READY", INTERNAL_SERVER_ERROR;
    OutboundHealthNotReady = "ERR_OUTBOUND_HEALTH_NOT_READY", INTERNAL_SERVER_ERROR;
    HealthAppIdNotMatch = "ERR_HEALTH_APPID_NOT_MATCH", INTERNAL_SERVER_ERROR;
    ActorInstanceMissing = "ERR_ACTOR_INSTANCE_MISSING", BAD_REQUEST;
    ActorInvokeMethod = "ERR_ACTOR_INVOKE_METHOD", INTERNAL_SERVER_ERROR;
    ActorRuntimeNotFound = "ERR_ACTOR_RUNTIME_NOT_FOUND", INTERNAL_SERVER_ERROR;
    ActorStateGet = "ERR_ACTOR_STATE_GET", INTERNAL_SERVER_ERROR;
    ActorStateTransactionSave = "ERR_ACTOR_STATE_TRANSACTION_SAVE", INTERNAL_SERVER_ERROR;
    ActorReminderCreate = "ERR_ACTOR_REMINDER_CREATE", INTERNAL_SERVER_ERROR;
    ActorReminderGet = "ERR_ACTOR_REMINDER_GET", INTERNAL_SERVER_ERROR;
    ActorReminderDelete = "ERR_ACTOR_REMINDER_DELETE", INTERNAL_SERVER_ERROR;
    ActorReminderNonHosted = "ERR_ACTOR_REMINDER_NON_HOSTED", FORBIDDEN;
    ActorReminderNotFound = "ERR_ACTOR_REMINDER_NOT_FOUND", NOT_FOUND;
    ActorReminderAlreadyExists = "ERR_ACTOR_REMINDER_ALREADY_EXISTS", CONFLICT;
    ActorTimerCreate = "ERR_ACTOR_TIMER_CREATE", INTERNAL_SERVER_ERROR;
    ActorTypeReserved = "ERR_ACTOR_TYPE_RESERVED", FORBIDDEN;
    ActorNoAppChannel = "ERR_ACTOR_NO_APP_CHANNEL", BAD_REQUEST;
    ActorStackDepth = "ERR_ACTOR_STACK_DEPTH", INTERNAL_SERVER_ERROR;
    ActorNoPlacement = "ERR_ACTOR_NO_PLACEMENT", BAD_REQUEST;
    ActorRuntimeClosed = "ERR_ACTOR_RUNTIME_CLOSED", SERVICE_UNAVAILABLE;
    ActorNamespaceRequired = "ERR_ACTOR_NAMESPACE_REQUIRED", PRECONDITION_FAILED;
    ActorNoAddress = "ERR_ACTOR_NO_ADDRESS", NOT_FOUND;
    /// Ours: the request's body stopped coming, or came too slowly; nothing happened.
    RequestTimeout = "ERR_REQUEST_TIMEOUT", REQUEST_TIMEOUT;
    /// Ours: a limit of this node is reached; nothing happened.
    Overloaded = "ERR_OVERLOADED", SERVICE_UNAVAILABLE;
    /// Ours: one actor's queue is full; nothing happened.
    TooManyRequests = "ERR_TOO_MANY_REQUESTS", TOO_MANY_REQUESTS;
    /// Ours: what it needs is not there at the moment (no leader, moving, starting); nothing happened.
    Unavailable = "ERR_UNAVAILABLE", SERVICE_UNAVAILABLE;
    /// Ours: what is asked for contradicts what goes on, such as deleting an actor inside a turn.
    Conflict = "ERR_CONFLICT", CONFLICT;
    /// Ours: the admin API knows no such thing.
    NotFound = "ERR_NOT_FOUND", NOT_FOUND;
    /// Ours: it was sent and the outcome is not known.
    OutcomeUnknown = "ERR_OUTCOME_UNKNOWN", INTERNAL_SERVER_ERROR;
    /// Anything without a code of its own.
    Error = "ERROR", INTERNAL_SERVER_ERROR;
}

/// An error answer before it is one.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: Code,
    pub message: Cow<'static, str>,
    /// `details` of rich errors: an array of objects with `@type`.
    pub details: Option<serde_json::Value>,
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: code.status(), code, message: message.into(), details: None, retry_after: None }
    }

    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds `Retry-After`, in whole seconds and at least one.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }

    /// `invalid request: …`
    pub fn bad_request(why: impl std::fmt::Display) -> Self {
        Self::new(Code::BadRequest, format!("invalid request: {why}"))
    }

    /// `failed to read request body: …`
    pub fn body_read(why: impl std::fmt::Display) -> Self {
        Self::new(Code::BodyRead, format!("failed to read request body: {why}"))
    }

    /// `failed deserializing HTTP body: …`
    pub fn malformed(why: impl std::fmt::Display) -> Self {
        Self::new(Code::MalformedRequest, format!("failed deserializing HTTP body: {why}"))
    }

    /// A body that could not be read: a sender who let the node wait is told so, anything else is what `otherwise` makes
    /// of it.
    pub fn unread(error: body::Error, otherwise: impl FnOnce(body::Error) -> Self) -> Self {
        match error {
            body::Error::Silent | body::Error::Slow => {
                Self::new(Code::RequestTimeout, format!("failed to read request body: {error}"))
            }
            body::Error::TooLarge | body::Error::Read(_) | body::Error::Aborted(_) => otherwise(error),
        }
    }

    /// `failed to invoke, id: …, err: …`
    pub fn invoke(id: &str, why: impl std::fmt::Display) -> Self {
        Self::new(Code::DirectInvoke, format!("failed to invoke, id: {id}, err: {why}"))
    }

    pub fn into_response(self) -> Response<Body> {
        #[derive(Serialize)]
        struct Shape<'a> {
            #[serde(rename = "errorCode")]
            code: &'static str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a serde_json::Value>,
        }
        let shape = Shape { code: self.code.as_str(), message: &self.message, details: self.details.as_ref() };
        // Strings and values always serialize; the fallback only spares a panic path.
        let json = serde_json::to_vec(&shape).unwrap_or_default();
        let mut response = Response::new(Body::full(json));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response.extensions_mut().insert(self.code);
        response
    }
}

impl From<ApiError> for Response<Body> {
    fn from(error: ApiError) -> Self {
        error.into_response()
    }
}

/// A `text/plain` answer.
pub fn text(status: StatusCode, message: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(message));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// An `application/json` answer with status 200.
pub fn json(bytes: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 204 without a body.
pub fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parts(error: ApiError) -> (StatusCode, http::HeaderMap, serde_json::Value) {
        let (parts, body) = error.into_response().into_parts();
        let bytes = body.collect(1 << 20).await.expect("a full body");
        (parts.status, parts.headers, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn an_error_is_json_with_code_and_message_only() {
        let (status, headers, json) = parts(ApiError::invoke("x\"y", "boom")).await;
        assert_eq!(status, 500);
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert_eq!(
            json,
            serde_json::json!({"errorCode": "ERR_DIRECT_INVOKE", "message": "failed to invoke, id: x\"y, err: boom"})
        );
    }

    #[tokio::test]
    async fn details_and_retry_after_appear_when_given() {
        let error = ApiError::new(Code::Overloaded, "full")
            .retry_after(Duration::from_millis(1_200))
            .with_details(serde_json::json!([{"@type": "x"}]));
        let (status, headers, json) = parts(error).await;
        assert_eq!(status, 503);
        assert_eq!(headers[RETRY_AFTER], "2");
        assert_eq!(json["details"][0]["@type"], "x");
    }

    #[test]
    fn only_a_body_that_did_not_come_in_time_is_408() {
        let code = |error| ApiError::unread(error, ApiError::malformed).code;
        for late in [body::Error::Silent, body::Error::Slow] {
            assert_eq!(code(late), Code::RequestTimeout);
        }
        for other in [body::Error::TooLarge, body::Error::Aborted("gone".into())] {
            assert_eq!(code(other), Code::MalformedRequest);
        }
        assert_eq!(Code::RequestTimeout.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn the_answer_carries_its_code_for_the_metrics() {
        let response = ApiError::new(Code::ActorStackDepth, "maximum stack depth exceeded").into_response();
        assert_eq!(response.extensions().get::<Code>(), Some(&Code::ActorStackDepth));
    }

    #[test]
    fn codes_are_distinct() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
    }
}
