//! The reasons of all errors.

use tonic::Code;

/// `ErrorInfo.reason`. Each has a section in docs/errors.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
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
}

// === impl Reason ===

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 17] = [
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
            Self::NotSent | Self::Reconnect | Self::JournalUnavailable => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
            Self::ChangeNotFound => Code::NotFound,
            Self::ResumeTokenExpired => Code::OutOfRange,
            Self::Unimplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }

    /// Whether, and when, the same call may help: always with the same key.
    pub fn retry(self) -> &'static str {
        match self {
            Self::NotSent | Self::Deadline | Self::Reconnect => "NOW",
            Self::DeviceBusy
            | Self::Throttled
            | Self::GatewayCredentials
            | Self::JournalUnavailable => "LATER",
            Self::FieldInvalid
            | Self::IdempotencyKeyReused
            | Self::ThingspaceRefused
            | Self::ChangeNotFound
            | Self::ResumeTokenInvalid
            | Self::ResumeTokenExpired
            | Self::MessageTooLarge
            | Self::Malformed
            | Self::Unimplemented
            | Self::Internal => "NEVER",
        }
    }
}
