//! Gives an ErrorInfo to the errors that tonic makes itself: of oversize and
//! malformed messages, unknown methods, and the reflection service.

use axum::{extract::Request, middleware::Next, response::Response};
use http::HeaderMap;
use http_body_util::BodyExt;
use tonic::{Code, Status};

use crate::grpc::{
    error::{ApiError, Executed, reason::ErrorReason},
    middleware::{is_change_call, with_executed_if_change},
};

/// Completes a call's answer: in its head, where there was nothing else to
/// send, or in its trailers.
pub(crate) async fn add_error_details(request: Request, next: Next) -> Response {
    let is_change = is_change_call(request.uri().path());
    let mut response = next.run(request).await;
    if let Some(status) = status_without_details(response.headers()) {
        replace_status(response.headers_mut(), &status, is_change);
        return response;
    }
    response.map(|body| {
        let body = body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                if let Some(status) = status_without_details(&trailers) {
                    replace_status(&mut trailers, &status, is_change);
                }
                http_body::Frame::trailers(trailers)
            }
            Err(frame) => frame,
        });
        axum::body::Body::new(body)
    })
}

/// An error without details, which only tonic makes.
fn status_without_details(headers: &HeaderMap) -> Option<Status> {
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok && status.details().is_empty()).then_some(status)
}

fn replace_status(headers: &mut HeaderMap, status: &Status, is_change: bool) {
    let failure = api_error_from_status(status);
    // tonic has not called the handler, unless it is a fault of ours.
    let executed = match failure.reason() {
        ErrorReason::Internal => Executed::Unknown,
        _ => Executed::No,
    };
    let failure = with_executed_if_change(failure, is_change, executed);
    let completed = failure.into_status();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        headers.remove(name);
    }
    if let Err(error) = completed.add_header(headers) {
        tracing::error!(%error, "a status could not be written");
    }
}

/// What tonic 0.14 means by its own statuses: it decodes requests before any
/// handler of ours runs, and our handlers' errors have details.
fn api_error_from_status(status: &Status) -> ApiError {
    let message = status.message();
    match status.code() {
        Code::OutOfRange => ApiError::new(ErrorReason::MessageTooLarge, message),
        Code::Unimplemented if message.is_empty() => {
            ApiError::new(ErrorReason::Unimplemented, "there is no such method")
        }
        Code::Unimplemented => ApiError::new(ErrorReason::Unimplemented, message),
        Code::NotFound => ApiError::new(ErrorReason::ChangeNotFound, message),
        Code::Internal | Code::InvalidArgument | Code::Cancelled | Code::Unknown => {
            ApiError::new(ErrorReason::Malformed, message)
        }
        _ => ApiError::new(ErrorReason::Internal, message),
    }
}
