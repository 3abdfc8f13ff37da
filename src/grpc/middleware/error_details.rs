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
    let error = api_error_from_status(&status);
    let executed = match error.reason() {
        ErrorReason::Internal => Executed::Unknown,
        _ => Executed::No,
    };
    let status = error
        .with_executed(is_change.then_some(executed))
        .into_status();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        headers.remove(name);
    }
    if let Err(error) = status.add_header(headers) {
        tracing::error!(%error, "cannot encode gRPC status");
    }
}

/// Maps the statuses of tonic 0.14 to reasons.
fn api_error_from_status(status: &Status) -> ApiError {
    let reason = match status.code() {
        Code::OutOfRange => ErrorReason::MessageTooLarge,
        Code::Unimplemented => ErrorReason::Unimplemented,
        Code::Internal | Code::InvalidArgument | Code::Cancelled | Code::Unknown => {
            ErrorReason::Malformed
        }
        _ => ErrorReason::Internal,
    };
    let message = match status.message() {
        "" if reason == ErrorReason::Unimplemented => "no such method",
        message => message,
    };
    ApiError::new(reason, message)
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware::from_fn};
    use tonic_reflection::server::Builder;
    use tower::ServiceExt;

    use super::*;
    use crate::proto;

    #[tokio::test]
    async fn an_unknown_symbol_of_reflection_is_not_found_without_a_reason_of_the_gateway() {
        let reflection = Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .build_v1()
            .unwrap();
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let router = Router::new()
            .route_service(path, reflection)
            .layer(from_fn(add_error_details));
        // `file_containing_symbol` is field 4.
        let message = [&[0, 0, 0, 0, 6, 0x22, 4][..], b"nope"].concat();
        let request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .body(Body::from(message))
            .unwrap();
        let response = router.oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        let status = Status::from_header_map(body.trailers().unwrap()).unwrap();
        assert_eq!((status.code(), status.details()), (Code::NotFound, &[][..]));
    }
}
