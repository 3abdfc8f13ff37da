//! Name, code and retry advice of each reason.

use std::time::Duration;

use tonic::Code;

use crate::proto;

/// `ErrorInfo.reason` of an error.
pub(in crate::grpc) type ErrorReason = proto::Reason;

/// `retry`: whether the same call, with the same key, can succeed later.
#[derive(Debug, Clone, Copy)]
pub(super) enum RetryAdvice {
    /// Repeat the call. There is no minimum delay, unless the error has one.
    Now,
    /// Repeat the call after this delay, unless the error has another one.
    Later(Duration),
    /// The same call fails again.
    Never,
}

const LATER: RetryAdvice = RetryAdvice::Later(Duration::from_secs(5));
const MUCH_LATER: RetryAdvice = RetryAdvice::Later(Duration::from_secs(60));

impl ErrorReason {
    /// The value of `ErrorInfo.reason`.
    pub(in crate::grpc) fn name(self) -> &'static str {
        self.as_str_name().trim_start_matches("REASON_")
    }

    pub(super) fn code_and_advice(self) -> (Code, RetryAdvice) {
        use RetryAdvice::{Never, Now};
        match self {
            Self::FieldInvalid => (Code::InvalidArgument, Never),
            Self::IdempotencyKeyReused => (Code::FailedPrecondition, Never),
            Self::DeviceBusy => (Code::FailedPrecondition, LATER),
            Self::ThingspaceRefused => (Code::FailedPrecondition, Never),
            Self::Throttled => (Code::ResourceExhausted, MUCH_LATER),
            Self::NotSent => (Code::Unavailable, Now),
            Self::GatewayCredentials => (Code::FailedPrecondition, MUCH_LATER),
            Self::Deadline => (Code::DeadlineExceeded, Now),
            Self::ChangeNotFound => (Code::NotFound, Never),
            Self::ResumeTokenInvalid => (Code::InvalidArgument, Never),
            Self::ResumeTokenExpired => (Code::OutOfRange, Never),
            Self::Reconnect => (Code::Unavailable, Now),
            Self::JournalUnavailable => (Code::Unavailable, LATER),
            Self::MessageTooLarge => (Code::ResourceExhausted, Never),
            Self::Malformed => (Code::InvalidArgument, Never),
            Self::Unimplemented => (Code::Unimplemented, Never),
            Self::Internal | Self::Unspecified => (Code::Internal, Never),
            Self::ThingspaceUnavailable => (Code::Unavailable, LATER),
            Self::Unauthenticated => (Code::Unauthenticated, LATER),
            Self::PermissionDenied => (Code::PermissionDenied, Never),
            Self::ChangesPaused => (Code::Unavailable, MUCH_LATER),
            Self::AuditUnavailable => (Code::Unavailable, LATER),
            Self::CallbackNotFound => (Code::NotFound, Never),
            Self::CallbackUnusable => (Code::FailedPrecondition, Never),
        }
    }
}

impl RetryAdvice {
    /// The name of the proto's enum value without its prefix.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Now => "NOW",
            Self::Later(_) => "LATER",
            Self::Never => "NEVER",
        }
    }
}

#[cfg(test)]
mod tests;
