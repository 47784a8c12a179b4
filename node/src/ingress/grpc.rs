//! The gRPC port: open, so that clients that dial it get an answer, and that answer is always UNIMPLEMENTED.
//!
//! The answer is trailers-only: the status stands in the headers of an empty response. Requests that are not gRPC get
//! 415, as gRPC servers give it.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::http::body::Body;
use super::http::error::text;
use super::server::{Answer, Handler};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
const MESSAGE: HeaderValue = HeaderValue::from_static("the gRPC API is not implemented by this node; use the HTTP API");

#[derive(Debug, Clone, Copy)]
pub struct GrpcDoor;

impl Handler for GrpcDoor {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        answer(request.headers().get(CONTENT_TYPE)).map(Answer::from)
    }
}

fn answer(content_type: Option<&HeaderValue>) -> Response<Body> {
    let content_type = content_type.map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = content_type.strip_prefix(b"application/grpc");
    if !rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';'))) {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this port speaks gRPC only\n");
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, UNIMPLEMENTED);
    headers.insert(GRPC_MESSAGE, MESSAGE);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grpc_content_type_is_unimplemented() {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"] {
            let response = answer(Some(&HeaderValue::from_static(kind)));
            assert_eq!(response.status(), 200, "{kind}");
            assert_eq!(response.headers()[GRPC_STATUS], "12", "{kind}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for kind in ["application/grpc-web", "application/json", ""] {
            assert_eq!(answer(Some(&HeaderValue::from_static(kind))).status(), 415, "{kind}");
        }
        assert_eq!(answer(None).status(), 415);
    }
}
