//! What a call passes through before it reaches its handler, and its answer
//! after.

mod error_details;
pub(super) mod telemetry;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use futures_util::FutureExt;
use tokio::time::Instant;
use tonic::{Status, body::Body};

use crate::grpc::{
    admission::concurrency::{AdmissionControl, admit},
    error::{ApiError, Executed, reason::ErrorReason},
    middleware::{
        error_details::add_error_details,
        telemetry::{CallTelemetry, record_call},
    },
};

/// The services behind all layers. A call passes through them from the last to
/// the first.
///
/// Without an observer nothing is told of the calls, and without a budget nothing
/// bounds them: on the admin port they are the kubelet's probes.
pub(super) fn with_layers(
    services: Router,
    budget: Option<AdmissionControl>,
    observer: Option<CallTelemetry>,
) -> Router {
    let admitted = match budget {
        // Next to the handlers, which decode: what is refused is not.
        Some(budget) => services.layer(from_fn_with_state(Arc::new(budget), admit)),
        None => services,
    };
    let answered = admitted
        // Around the wait for room: what has no time left is not worth more.
        .layer(from_fn(enforce_deadline))
        // Around all that can go wrong in ours, so that a fault costs one call
        // and not the connection with everybody else's.
        .layer(from_fn(catch_panic))
        // Around all of them, so that every error has its ErrorInfo: those of
        // the layers within, and those that tonic makes itself.
        .layer(from_fn(add_error_details));
    match observer {
        // Outermost: it sees the status that the caller gets.
        Some(observer) => answered.layer(from_fn_with_state(Arc::new(observer), record_call)),
        None => answered,
    }
}

/// When a call's caller stops waiting for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallDeadline(pub(super) Instant);

/// Ends a call when its caller's deadline has passed. tonic's own would say
/// CANCELLED. This covers the answer's head; a stream finds its deadline with
/// the request.
async fn enforce_deadline(mut request: Request, next: Next) -> Response {
    let timeout = request.headers().get("grpc-timeout").and_then(|value| {
        let text = value.to_str().ok()?;
        parse_timeout(text)
    });
    let is_change = is_change_call(request.uri().path());
    let Some(deadline) = timeout.and_then(|timeout| Instant::now().checked_add(timeout)) else {
        return next.run(request).await;
    };
    request.extensions_mut().insert(CallDeadline(deadline));
    match tokio::time::timeout_at(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let failure =
                with_executed_if_change(deadline_exceeded(), is_change, Executed::Unknown);
            into_http_response(failure.into_status())
        }
    }
}

/// What a call is answered with whose caller's deadline has passed.
pub(super) fn deadline_exceeded() -> ApiError {
    let message = "the deadline passed; what was begun goes on";
    ApiError::new(ErrorReason::Deadline, message)
}

/// Answers INTERNAL for a handler that panicked.
async fn catch_panic(request: Request, next: Next) -> Response {
    let is_change = is_change_call(request.uri().path());
    let handled = std::panic::AssertUnwindSafe(next.run(request)).catch_unwind();
    match handled.await {
        Ok(response) => response,
        Err(_panic) => {
            tracing::error!("a handler panicked");
            let failure = ApiError::new(ErrorReason::Internal, "a fault of the gateway");
            into_http_response(
                with_executed_if_change(failure, is_change, Executed::Unknown).into_status(),
            )
        }
    }
}

/// Whether a call of this path is to say what it executed.
pub(super) fn is_change_call(path: &str) -> bool {
    matches!(
        path,
        "/thingspace.gateway.v1.GatewayService/ChangeEsimPlan"
            | "/thingspace.gateway.v1.GatewayService/ChangeFiveGBiPlan"
    )
}

pub(super) fn with_executed_if_change(
    failure: ApiError,
    is_change: bool,
    executed: Executed,
) -> ApiError {
    if is_change {
        failure.with_executed(executed)
    } else {
        failure
    }
}

pub(super) fn into_http_response(status: Status) -> Response {
    status.into_http::<Body>().map(axum::body::Body::new)
}

/// Reads `grpc-timeout`: at most eight digits and a unit ("gRPC over HTTP2").
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
