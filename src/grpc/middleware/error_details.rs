//! Gives an ErrorInfo to the errors that tonic makes itself: of oversize and
//! malformed messages, unknown methods, and the reflection service.

use axum::{extract::Request, middleware::Next, response::Response};
use http::HeaderMap;
use http_body_util::BodyExt;
use tonic::{Code, Status};

use crate::grpc::{
    error::{Executed, Failure, reason::Reason},
    middleware::{is_change_call, with_executed},
};

/// Completes a call's answer: in its head, where there was nothing else to
/// send, or in its trailers.
pub(crate) async fn complete(request: Request, next: Next) -> Response {
    let is_change = is_change_call(request.uri().path());
    let mut response = next.run(request).await;
    if let Some(status) = incomplete(response.headers()) {
        amend(response.headers_mut(), &status, is_change);
        return response;
    }
    response.map(|body| {
        let body = body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                if let Some(status) = incomplete(&trailers) {
                    amend(&mut trailers, &status, is_change);
                }
                http_body::Frame::trailers(trailers)
            }
            Err(frame) => frame,
        });
        axum::body::Body::new(body)
    })
}

/// An error without details, which only tonic makes.
fn incomplete(headers: &HeaderMap) -> Option<Status> {
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok && status.details().is_empty()).then_some(status)
}

fn amend(headers: &mut HeaderMap, status: &Status, is_change: bool) {
    let failure = classify(status);
    // tonic has not called the handler, unless it is a fault of ours.
    let executed = match failure.reason() {
        Reason::Internal => Executed::Unknown,
        _ => Executed::No,
    };
    let failure = with_executed(failure, is_change, executed);
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
fn classify(status: &Status) -> Failure {
    let message = status.message();
    match status.code() {
        Code::OutOfRange => Failure::new(Reason::MessageTooLarge, message),
        Code::Unimplemented if message.is_empty() => {
            Failure::new(Reason::Unimplemented, "there is no such method")
        }
        Code::Unimplemented => Failure::new(Reason::Unimplemented, message),
        Code::NotFound => Failure::new(Reason::ChangeNotFound, message),
        Code::Internal | Code::InvalidArgument | Code::Cancelled | Code::Unknown => {
            Failure::new(Reason::Malformed, message)
        }
        _ => Failure::new(Reason::Internal, message),
    }
}
