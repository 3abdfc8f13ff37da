//! Adds ErrorInfo to the errors of tonic: oversize and malformed messages, unknown methods.

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;
use tonic::{Code, Status};

use crate::grpc::{
    admission::method_class::is_change,
    error::{ApiError, Executed, reason::ErrorReason},
};

/// Completes the status of a response, in its headers or its trailers.
pub(super) async fn add_error_details(request: Request, next: Next) -> Response {
    let is_change = is_change(request.uri().path());
    let mut response = next.run(request).await;
    complete_status(response.headers_mut(), is_change);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                complete_status(&mut trailers, is_change);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}

/// Replaces a status without details. Only tonic creates one, before it calls a handler.
fn complete_status(headers: &mut HeaderMap, is_change: bool) {
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    // NOT_FOUND without details is part of the health and reflection protocols: no reason applies to it.
    if matches!(status.code(), Code::Ok | Code::NotFound) || !status.details().is_empty() {
        return;
    }
    // The codes that tonic 0.14 uses.
    let (reason, executed) = match status.code() {
        Code::OutOfRange => (ErrorReason::MessageTooLarge, Executed::No),
        Code::Unimplemented => (ErrorReason::Unimplemented, Executed::No),
        Code::Internal | Code::InvalidArgument | Code::Cancelled | Code::Unknown => {
            (ErrorReason::Malformed, Executed::No)
        }
        _ => (ErrorReason::Internal, Executed::Unknown),
    };
    let message = match status.message() {
        "" if reason == ErrorReason::Unimplemented => "no such method",
        message => message,
    };
    let error = ApiError::new(reason, message);
    let status = error.with_executed(is_change.then_some(executed)).into_status();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        headers.remove(name);
    }
    if let Err(error) = status.add_header(headers) {
        tracing::error!(%error, "cannot encode gRPC status");
    }
}

#[cfg(test)]
mod tests;
