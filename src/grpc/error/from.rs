//! Conversions from the errors of other modules.

use tonic::Code;

use crate::{
    access::{AccessError, PermissionDenied},
    dispatch::{DispatchError, ExistingChange},
    domain::{
        change::Change,
        refusal::{Refusal, RefusalKind},
        state::ChangeState,
        violation::FieldReason,
    },
    grpc::error::{
        api_error::{ApiError, Executed, truncate},
        reason::ErrorReason,
    },
    journal::JournalError,
    thingspace::LookupError,
    watch::{StreamError, WatchOpenError},
};

/// Maximum size of a text from ThingSpace in bytes.
const MAX_THINGSPACE_TEXT: usize = 1_000;

/// Returns the error of a call whose change is REJECTED or NOT_SENT.
pub(in crate::grpc) fn refusal_error(change: &Change) -> Option<ApiError> {
    let is_refused = matches!(change.state, ChangeState::Rejected | ChangeState::NotSent);
    let refusal = change.refusal.as_ref().filter(|_| is_refused)?;
    Some(
        ApiError::from(refusal)
            .with_executed(Executed::No)
            .with_metadata("change_id", change.change_id.to_string()),
    )
}

impl From<&Refusal> for ApiError {
    fn from(refusal: &Refusal) -> Self {
        let new = |reason| Self::new(reason, &refusal.detail);
        let refused = |code| {
            let mut error = new(ErrorReason::ThingspaceRefused);
            error.code = code;
            error
        };
        let mut error = match refusal.kind {
            RefusalKind::InvalidArgument => refused(Code::InvalidArgument),
            RefusalKind::NotFound => refused(Code::NotFound),
            RefusalKind::PermissionDenied => refused(Code::PermissionDenied),
            RefusalKind::FailedPrecondition => refused(Code::FailedPrecondition),
            RefusalKind::NotSent => new(ErrorReason::NotSent),
            RefusalKind::Throttled => new(ErrorReason::Throttled).throttled_by_thingspace(),
            RefusalKind::Credentials => new(ErrorReason::GatewayCredentials),
        };
        for (name, text) in [
            ("thingspace_code", &refusal.thingspace_code),
            ("thingspace_text", &refusal.thingspace_text),
        ] {
            if let Some(text) = text {
                error = error.with_metadata(name, truncate(text, MAX_THINGSPACE_TEXT));
            }
        }
        error.with_retry_after(refusal.retry_after)
    }
}

impl From<DispatchError> for ApiError {
    fn from(error: DispatchError) -> Self {
        let message = error.to_string();
        let (error, change_id) = match error {
            DispatchError::KeyReused(id) => {
                let message = "this idempotency_key was used in this account for another change";
                let reused = Self::new(ErrorReason::IdempotencyKeyReused, message);
                (reused.with_executed(Executed::No), Some(id))
            }
            DispatchError::DeviceBusy(busy) => {
                let error = Self::device_busy(busy.device_index);
                (error.with_executed(Executed::No), Some(busy.change_id))
            }
            DispatchError::TooManyInFlight(existing) => {
                let overloaded = Self::overloaded(message);
                match existing {
                    ExistingChange::Absent => (overloaded.with_executed(Executed::No), None),
                    ExistingChange::Unknown => (overloaded, None),
                    ExistingChange::Change(id) => (overloaded, Some(id)),
                }
            }
            DispatchError::Paused(existing) => {
                let paused = Self::new(ErrorReason::ChangesPaused, message);
                match existing {
                    ExistingChange::Absent => (paused.with_executed(Executed::No), None),
                    ExistingChange::Change(id) => (paused.with_executed(Executed::No), Some(id)),
                    ExistingChange::Unknown => (paused.with_executed(Executed::Unknown), None),
                }
            }
            DispatchError::Journal { change_id, .. } => {
                let unavailable = Self::new(ErrorReason::JournalUnavailable, message);
                (unavailable.with_executed(Executed::Unknown), change_id)
            }
        };
        match change_id {
            Some(id) => error.with_metadata("change_id", id.to_string()),
            None => error,
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        let reason = match error {
            AccessError::Unauthenticated(_) => ErrorReason::Unauthenticated,
            AccessError::UnknownCaller(_) => ErrorReason::PermissionDenied,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<PermissionDenied> for ApiError {
    fn from(error: PermissionDenied) -> Self {
        Self::new(ErrorReason::PermissionDenied, error.to_string())
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
            LookupError::Throttled(delay) => Self::new(ErrorReason::Throttled, message)
                .throttled_by_thingspace()
                .with_retry_after(delay),
            LookupError::Refused { code, kind, .. } => {
                Self::from(&Refusal { thingspace_code: code, ..Refusal::new(kind, message) })
            }
            LookupError::LoginFailed(refusal) if refusal.kind != RefusalKind::NotSent => {
                Self::from(&refusal)
            }
            LookupError::NoPermit(_) => Self::new(ErrorReason::JournalUnavailable, message),
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
                let expired = Self::new(ErrorReason::ResumeTokenExpired, message);
                match oldest {
                    Some(token) => expired.with_metadata("oldest_resume_token", token.encode()),
                    None => expired,
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
            StreamError::Removed | StreamError::EventsRemoved | StreamError::DataLost => {
                Self::new(ErrorReason::ResumeTokenExpired, error.to_string())
            }
            StreamError::DeadlineExceeded => Self::deadline_exceeded(),
            StreamError::Journal(error) => error.into(),
        }
    }
}
