//! The one place where an error becomes a gRPC status.
//!
//! Every status carries one `google.rpc.ErrorInfo` (AIP-193) that says what to
//! do next, and stays small enough for every client: all trailers, as encoded,
//! below 8,000 bytes.

pub(super) mod reason;

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::grpc::error::reason::{ErrorReason, RetryAdvice};
use crate::{
    dispatch::{DispatchError, ExistingChange},
    domain::{
        change::Change,
        newtypes::ChangeId,
        refusal::{Refusal, RefusalKind},
        violation::{FieldReason, Violation},
    },
    journal::JournalError,
    thingspace::LookupError,
    watch::{StreamError, WatchOpenError},
};

/// `ErrorInfo.domain` of every error.
pub(super) const DOMAIN: &str = "thingspace.gateway";

/// Whether a change call that failed has executed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Executed {
    /// It has not.
    No,
    /// It may have; the same key tells.
    Unknown,
}

/// An error on its way to becoming a status.
#[derive(Debug)]
pub(super) struct ApiError {
    reason: ErrorReason,
    code: Code,
    message: String,
    executed: Option<Executed>,
    metadata: Vec<(&'static str, String)>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    quota: Option<&'static QuotaViolation>,
    busy_device_index: Option<u32>,
}

/// Whose limit it was, and which.
#[derive(Debug)]
struct QuotaViolation(&'static str, &'static str);

const THINGSPACE_QUOTA: QuotaViolation =
    QuotaViolation("thingspace", "ThingSpace limits the rate of calls");
/// The trailer that tells gRPC libraries how long to wait before a retry, in milliseconds (gRPC
/// retry design, "Pushback").
const RETRY_PUSHBACK_HEADER: &str = "grpc-retry-pushback-ms";
/// Room for the violations that are told: with the rest, base64 and the
/// message it stays below 8,000 bytes.
const VIOLATIONS_BYTES: usize = 3_600;
/// Room for the message, before non-ASCII characters are escaped.
const MESSAGE_BYTES: usize = 400;

// === impl Failure ===

impl ApiError {
    pub(super) fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: reason.code(),
            message: message.into(),
            executed: None,
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
            quota: None,
            busy_device_index: None,
        }
    }

    pub(super) fn reason(&self) -> ErrorReason {
        self.reason
    }

    pub(super) fn with_executed(mut self, executed: Executed) -> Self {
        self.executed = Some(executed);
        self
    }

    pub(super) fn with_metadata(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((name, value.into()));
        self
    }

    pub(super) fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// More than there is room for.
    pub(super) fn limit_exceeded(message: &str) -> Self {
        Self {
            quota: Some(&QuotaViolation(
                "gateway",
                "the gateway limits what is under way",
            )),
            ..Self::new(ErrorReason::Throttled, message)
        }
    }

    /// As much of something as the gateway takes at a time.
    pub(super) fn too_many_in_flight(what: &str) -> Self {
        let message = format!("as many {what} as the gateway takes at a time");
        Self::limit_exceeded(&message).with_retry_after(Duration::from_secs(1))
    }

    /// Fields that are wrong.
    pub(super) fn invalid_fields(violations: Vec<Violation>) -> Self {
        let first = violations.first().map_or_else(String::new, |first| {
            format!("{} {}", first.field, first.description)
        });
        let message = match violations.len() {
            0 | 1 => first,
            more => format!("{first} (and {} more)", more - 1),
        };
        Self {
            violations,
            ..Self::new(ErrorReason::FieldInvalid, message)
        }
    }

    /// One field that is wrong.
    pub(super) fn invalid_field(
        field: &str,
        reason: FieldReason,
        description: impl Into<String>,
    ) -> Self {
        Self::invalid_fields(vec![Violation {
            field: field.to_owned(),
            description: description.into(),
            reason,
        }])
    }

    /// There is no such change.
    pub(super) fn change_not_found() -> Self {
        Self::new(ErrorReason::ChangeNotFound, "there is no such change")
    }

    /// What a change that is REJECTED or NOT_SENT answers its call with.
    pub(super) fn from_change_refusal(change_id: ChangeId, refusal: &Refusal) -> Self {
        Self::from_refusal(refusal)
            .with_executed(Executed::No)
            .with_metadata("change_id", change_id.to_string())
    }

    /// The error of a refusal by ThingSpace.
    fn from_refusal(refusal: &Refusal) -> Self {
        let reason = match refusal.kind {
            RefusalKind::InvalidArgument
            | RefusalKind::NotFound
            | RefusalKind::PermissionDenied
            | RefusalKind::FailedPrecondition => ErrorReason::ThingspaceRefused,
            RefusalKind::NotSent => ErrorReason::NotSent,
            RefusalKind::Throttled => ErrorReason::Throttled,
            RefusalKind::Credentials => ErrorReason::GatewayCredentials,
        };
        let mut failure = Self::new(reason, refusal.detail.clone());
        failure.code = match refusal.kind {
            RefusalKind::InvalidArgument => Code::InvalidArgument,
            RefusalKind::NotFound => Code::NotFound,
            RefusalKind::PermissionDenied => Code::PermissionDenied,
            _ => failure.code,
        };
        for (name, text) in [
            ("thingspace_code", &refusal.thingspace_code),
            ("thingspace_text", &refusal.thingspace_text),
        ] {
            if let Some(text) = text {
                failure = failure.with_metadata(name, cut(text, 1_000));
            }
        }
        failure.retry_after = refusal.retry_after;
        if reason == ErrorReason::Throttled {
            failure.quota = Some(&THINGSPACE_QUOTA);
        }
        failure
    }

    /// The status, small enough for every client.
    pub(super) fn into_status(self) -> Status {
        let message = cut(&self.message, MESSAGE_BYTES);
        let metadata = self.metadata.into_iter();
        let mut metadata: HashMap<String, String> = metadata
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        metadata.insert("retry".into(), self.reason.retry_advice().as_str().into());
        match self.executed {
            Some(Executed::No) => metadata.insert("executed".into(), "NO".into()),
            Some(Executed::Unknown) => metadata.insert("executed".into(), "UNKNOWN".into()),
            None => None,
        };
        let mut details = ErrorDetails::new();
        if !self.violations.is_empty() {
            let total = self.violations.len();
            let listed = truncate_violations(self.violations);
            metadata.insert("violations_total".into(), total.to_string());
            metadata.insert("violations_listed".into(), listed.len().to_string());
            details.set_bad_request(listed);
        }
        let retry_after = match self.reason.retry_advice() {
            RetryAdvice::Later(default) => Some(self.retry_after.unwrap_or(default)),
            RetryAdvice::Now => self.retry_after,
            RetryAdvice::Never => None,
        };
        if let Some(after) = retry_after {
            details.set_retry_info(Some(after));
        }
        if let Some(index) = self.busy_device_index {
            let subject = format!("devices[{index}]");
            let description = "is part of another change, named by change_id";
            details.add_precondition_failure_violation("DEVICE_BUSY", subject, description);
        }
        if let Some(QuotaViolation(subject, description)) = self.quota {
            details.add_quota_failure_violation(*subject, *description);
        }
        details.set_error_info(self.reason.as_str(), DOMAIN, metadata);
        let mut status = Status::with_error_details(self.code, message, details);
        if let Some(after) = retry_after {
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            status
                .metadata_mut()
                .insert(RETRY_PUSHBACK_HEADER, millis.into());
        }
        status
    }
}

/// As many of the violations as there is room for.
fn truncate_violations(violations: Vec<Violation>) -> Vec<FieldViolation> {
    let mut remaining_bytes = VIOLATIONS_BYTES;
    violations
        .into_iter()
        .map_while(|violation| {
            // Tags and lengths of the three texts and their message.
            let reason = violation.reason.as_str();
            let size = violation.field.len() + violation.description.len() + reason.len() + 14;
            remaining_bytes = remaining_bytes.checked_sub(size)?;
            Some(FieldViolation {
                field: violation.field,
                description: violation.description,
                reason: violation.reason.as_str().to_owned(),
                localized_message: None,
            })
        })
        .collect()
}

/// At most so many bytes of a text, cut between two characters.
fn cut(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

impl From<ApiError> for Status {
    fn from(failure: ApiError) -> Self {
        failure.into_status()
    }
}

impl From<DispatchError> for ApiError {
    fn from(error: DispatchError) -> Self {
        let failure = match &error {
            DispatchError::KeyReused(id) => {
                let message = "this idempotency_key was used in this account for another change";
                Self::new(ErrorReason::IdempotencyKeyReused, message)
                    .with_metadata("change_id", id.to_string())
            }
            DispatchError::DeviceBusy(busy) => {
                let message = format!(
                    "devices[{}] is part of another change that is being sent, or whose outcome is \
                     unknown",
                    busy.device_index
                );
                Self {
                    busy_device_index: Some(busy.device_index),
                    ..Self::new(ErrorReason::DeviceBusy, message)
                        .with_metadata("change_id", busy.change_id.to_string())
                }
            }
            DispatchError::TooManyInFlight { existing: known } => {
                let failure = Self::limit_exceeded(&error.to_string())
                    .with_retry_after(Duration::from_secs(1));
                // A key that is on record may have been executed by its first call.
                return match known {
                    ExistingChange::Absent => failure.with_executed(Executed::No),
                    ExistingChange::Unknown => failure.with_executed(Executed::Unknown),
                    ExistingChange::Change(id) => failure
                        .with_metadata("change_id", id.to_string())
                        .with_executed(Executed::Unknown),
                };
            }
            DispatchError::Journal { change_id, .. } => {
                let failure = Self::new(ErrorReason::JournalUnavailable, error.to_string());
                return match change_id {
                    // On record, and still: whether it was sent, its key tells.
                    Some(id) => failure.with_metadata("change_id", id.to_string()),
                    // Perhaps the key names a change that was executed long ago.
                    None => failure,
                }
                .with_executed(Executed::Unknown);
            }
        };
        failure.with_executed(Executed::No)
    }
}

impl From<JournalError> for ApiError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::NoSuchChange => Self::change_not_found(),
            error => Self::new(ErrorReason::JournalUnavailable, error.to_string()),
        }
    }
}

impl From<LookupError> for ApiError {
    fn from(error: LookupError) -> Self {
        let message = error.to_string();
        match error {
            LookupError::Throttled(wait) => Self {
                quota: Some(&THINGSPACE_QUOTA),
                ..Self::new(ErrorReason::Throttled, message).with_retry_after(wait)
            },
            LookupError::Refused { ref code, .. } => Self::from_refusal(&Refusal {
                thingspace_code: code.clone(),
                ..Refusal::new(error.refusal_kind(), message)
            }),
            LookupError::LoginFailed(refusal) if refusal.kind != RefusalKind::NotSent => {
                Self::from_refusal(&refusal)
            }
            LookupError::LoginFailed(_) | LookupError::NoResponse(_) => {
                Self::new(ErrorReason::ThingspaceUnavailable, message)
            }
        }
    }
}

impl From<WatchOpenError> for ApiError {
    fn from(error: WatchOpenError) -> Self {
        let message = error.to_string();
        match error {
            WatchOpenError::NoSuchChange => Self::change_not_found(),
            WatchOpenError::TargetMismatch => Self::new(ErrorReason::ResumeTokenInvalid, message),
            WatchOpenError::NoTarget => Self::invalid_field(
                "change_id",
                FieldReason::Combination,
                "is one of several selectors: set exactly one of change_id, request_id, or \
                 account_name with idempotency_key, or set resume_token",
            ),
            WatchOpenError::Expired { oldest, .. } => {
                let failure = Self::new(ErrorReason::ResumeTokenExpired, message);
                match oldest {
                    Some(token) => failure.with_metadata("oldest_resume_token", token.encode()),
                    None => failure,
                }
            }
            WatchOpenError::Journal(error) => error.into(),
        }
    }
}

impl From<StreamError> for ApiError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Reconnect => Self::new(ErrorReason::Reconnect, error.to_string()),
            StreamError::Removed => Self::new(ErrorReason::ResumeTokenExpired, error.to_string()),
            StreamError::Journal(error) => error.into(),
        }
    }
}

/// What a call that ended in this change is answered with, if not OK.
pub(super) fn refusal_error(change: &Change) -> Option<ApiError> {
    use crate::domain::state::ChangeState;
    let is_refused = matches!(change.state, ChangeState::Rejected | ChangeState::NotSent);
    let refusal = change.refusal.as_ref().filter(|_| is_refused)?;
    Some(ApiError::from_change_refusal(change.change_id, refusal))
}

#[cfg(test)]
mod tests;
