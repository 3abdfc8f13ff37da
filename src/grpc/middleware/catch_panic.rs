//! Turns panics of handlers into INTERNAL.

use std::panic::AssertUnwindSafe;

use axum::{extract::Request, middleware::Next, response::Response};
use futures_util::FutureExt;

use crate::grpc::{
    admission::method_class::is_change,
    error::{ApiError, Executed, reason::ErrorReason},
};

/// Responds with INTERNAL if a handler panics.
pub(super) async fn catch_panic(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_panic) => {
            tracing::error!(method = path, "gRPC handler panicked");
            ApiError::new(ErrorReason::Internal, "internal error")
                .with_executed(is_change(&path).then_some(Executed::Unknown))
                .into_response()
        }
    }
}
