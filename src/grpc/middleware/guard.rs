//! Ends calls whose deadline (`grpc-timeout`) has passed or whose handler has panicked.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{extract::Request, response::Response};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use crate::grpc::error::{ApiError, Executed, reason::ErrorReason};

/// The time at which a call's client stops waiting. Extension of the request.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) struct CallDeadline(pub(in crate::grpc) Instant);

/// Ends a call at its deadline with DEADLINE_EXCEEDED; tonic would return CANCELLED. A stream checks its
/// deadline itself once it is open. If the handler panics, the call ends with INTERNAL, and the connection stays
/// open.
pub(super) async fn guard_call<F: Future<Output = Response>>(
    mut request: Request,
    method: &'static str,
    is_change: bool,
    handle: impl FnOnce(Request) -> F,
) -> Response {
    let timeout = request.headers().get("grpc-timeout");
    let deadline = timeout
        .and_then(|value| parse_timeout(value.to_str().ok()?))
        .and_then(|timeout| Instant::now().checked_add(timeout));
    if let Some(deadline) = deadline {
        request.extensions_mut().insert(CallDeadline(deadline));
    }
    let call = AssertUnwindSafe(handle(request)).catch_unwind();
    let result = match deadline {
        Some(deadline) => timeout_at(deadline, call).await,
        None => Ok(call.await),
    };
    let error = match result {
        Ok(Ok(response)) => return response,
        Ok(Err(_panic)) => {
            tracing::error!(method, "gRPC handler panicked");
            ApiError::new(ErrorReason::Internal, "internal error")
        }
        Err(_elapsed) => ApiError::deadline_exceeded(),
    };
    error.with_executed(is_change.then_some(Executed::Unknown)).into_response()
}

/// Parses `grpc-timeout`: at most eight digits and a unit ("gRPC over HTTP2").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}
