//! Adds ErrorInfo to the errors of tonic: oversize and malformed messages, unknown methods.

use http::HeaderMap;
use tonic::{Code, Status};

use crate::grpc::error::{ApiError, Executed, reason::ErrorReason};

/// Replaces a status without details. Only tonic creates one, before it calls a handler.
pub(super) fn complete_status(headers: &mut HeaderMap, is_change: bool) {
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
