//! The reasons of all errors.

use std::time::Duration;

use tonic::Code;

/// `ErrorInfo.reason`. Each has a section in docs/errors.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorReason {
    /// A field of the request is wrong.
    FieldInvalid,
    /// The key was used for another content.
    IdempotencyKeyReused,
    /// A device is in another change that is under way.
    DeviceBusy,
    /// ThingSpace refused the change.
    ThingspaceRefused,
    /// ThingSpace throttles.
    Throttled,
    /// It never left, or provably was not executed.
    NotSent,
    /// ThingSpace refuses the gateway's own credentials.
    GatewayCredentials,
    /// The caller's deadline passed.
    Deadline,
    /// There is no such change.
    ChangeNotFound,
    /// The resume token cannot be read, or is of another watch.
    ResumeTokenInvalid,
    /// The resume token is no longer honoured.
    ResumeTokenExpired,
    /// The server ended the stream.
    Reconnect,
    /// The journal cannot be written or read.
    JournalUnavailable,
    /// The message is too large.
    MessageTooLarge,
    /// The message is not what it should be.
    Malformed,
    /// There is no such method.
    Unimplemented,
    /// A fault of the gateway's own.
    Internal,
    /// ThingSpace did not answer a lookup that the call needs.
    ThingspaceUnavailable,
}

/// Whether the same call can succeed later: `Retry` of the proto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAdvice {
    /// Repeat the call. There is no minimum delay, unless one is known.
    Now,
    /// Repeat the call after this delay, or after the one that is known better.
    Later(Duration),
    /// The same call would fail again.
    Never,
}

// === impl Reason ===

impl ErrorReason {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::FieldInvalid,
        Self::IdempotencyKeyReused,
        Self::DeviceBusy,
        Self::ThingspaceRefused,
        Self::Throttled,
        Self::NotSent,
        Self::GatewayCredentials,
        Self::Deadline,
        Self::ChangeNotFound,
        Self::ResumeTokenInvalid,
        Self::ResumeTokenExpired,
        Self::Reconnect,
        Self::JournalUnavailable,
        Self::MessageTooLarge,
        Self::Malformed,
        Self::Unimplemented,
        Self::Internal,
        Self::ThingspaceUnavailable,
    ];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FieldInvalid => "FIELD_INVALID",
            Self::IdempotencyKeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::DeviceBusy => "DEVICE_BUSY",
            Self::ThingspaceRefused => "THINGSPACE_REFUSED",
            Self::Throttled => "THROTTLED",
            Self::NotSent => "NOT_SENT",
            Self::GatewayCredentials => "GATEWAY_CREDENTIALS",
            Self::Deadline => "DEADLINE",
            Self::ChangeNotFound => "CHANGE_NOT_FOUND",
            Self::ResumeTokenInvalid => "RESUME_TOKEN_INVALID",
            Self::ResumeTokenExpired => "RESUME_TOKEN_EXPIRED",
            Self::Reconnect => "RECONNECT",
            Self::JournalUnavailable => "JOURNAL_UNAVAILABLE",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::Malformed => "MALFORMED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::ThingspaceUnavailable => "THINGSPACE_UNAVAILABLE",
        }
    }

    /// Its code; that of a refusal by ThingSpace depends on what it said.
    pub fn code(self) -> Code {
        match self {
            Self::FieldInvalid | Self::ResumeTokenInvalid | Self::Malformed => {
                Code::InvalidArgument
            }
            Self::IdempotencyKeyReused
            | Self::DeviceBusy
            | Self::ThingspaceRefused
            | Self::GatewayCredentials => Code::FailedPrecondition,
            Self::Throttled | Self::MessageTooLarge => Code::ResourceExhausted,
            Self::NotSent
            | Self::Reconnect
            | Self::JournalUnavailable
            | Self::ThingspaceUnavailable => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
            Self::ChangeNotFound => Code::NotFound,
            Self::ResumeTokenExpired => Code::OutOfRange,
            Self::Unimplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }

    /// The retry advice for the same call with the same key. The delays apply
    /// where nothing more exact is known.
    pub fn retry_advice(self) -> RetryAdvice {
        match self {
            Self::NotSent | Self::Deadline | Self::Reconnect => RetryAdvice::Now,
            Self::DeviceBusy | Self::JournalUnavailable | Self::ThingspaceUnavailable => {
                RetryAdvice::Later(Duration::from_secs(5))
            }
            Self::Throttled | Self::GatewayCredentials => {
                RetryAdvice::Later(Duration::from_secs(60))
            }
            Self::FieldInvalid
            | Self::IdempotencyKeyReused
            | Self::ThingspaceRefused
            | Self::ChangeNotFound
            | Self::ResumeTokenInvalid
            | Self::ResumeTokenExpired
            | Self::MessageTooLarge
            | Self::Malformed
            | Self::Unimplemented
            | Self::Internal => RetryAdvice::Never,
        }
    }
}

// === impl Retry ===

impl RetryAdvice {
    /// The name of the proto's enum value, without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Now => "NOW",
            Self::Later(_) => "LATER",
            Self::Never => "NEVER",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::violation::FieldReason, proto};

    #[test]
    fn the_proto_lists_exactly_the_values_that_errors_carry() {
        for reason in ErrorReason::ALL {
            let name = format!("REASON_{}", reason.as_str());
            assert!(proto::Reason::from_str_name(&name).is_some(), "{name}");
            let name = format!("RETRY_{}", reason.retry_advice().as_str());
            assert!(proto::Retry::from_str_name(&name).is_some(), "{name}");
        }
        assert!(proto::Reason::try_from(ErrorReason::ALL.len() as i32).is_ok());
        assert!(proto::Reason::try_from(ErrorReason::ALL.len() as i32 + 1).is_err());
        for reason in [
            FieldReason::Required,
            FieldReason::TooLong,
            FieldReason::Format,
            FieldReason::Character,
            FieldReason::Value,
            FieldReason::Duplicate,
            FieldReason::Combination,
        ] {
            let name = format!("FIELD_REASON_{}", reason.as_str());
            assert!(proto::FieldReason::from_str_name(&name).is_some(), "{name}");
        }
    }
}
