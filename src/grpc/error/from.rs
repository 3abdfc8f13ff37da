//! Conversions from the errors of other modules.

use tonic::Code;

use crate::{
    dispatch::{DispatchError, ExistingChange},
    domain::{
        change::Change,
        refusal::{Refusal, RefusalKind},
        state::ChangeState,
        violation::FieldReason,
    },
    grpc::error::{
        api_error::{ApiError, Executed, QuotaViolation},
        details::truncate,
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
        let (reason, code) = match refusal.kind {
            RefusalKind::InvalidArgument => {
                (ErrorReason::ThingspaceRefused, Some(Code::InvalidArgument))
            }
            RefusalKind::NotFound => (ErrorReason::ThingspaceRefused, Some(Code::NotFound)),
            RefusalKind::PermissionDenied => {
                (ErrorReason::ThingspaceRefused, Some(Code::PermissionDenied))
            }
            RefusalKind::FailedPrecondition => (ErrorReason::ThingspaceRefused, None),
            RefusalKind::NotSent => (ErrorReason::NotSent, None),
            RefusalKind::Throttled => (ErrorReason::Throttled, None),
            RefusalKind::Credentials => (ErrorReason::GatewayCredentials, None),
        };
        let mut error =
            Self::new(reason, refusal.detail.clone()).with_retry_after(refusal.retry_after);
        if let Some(code) = code {
            error = error.with_code(code);
        }
        if reason == ErrorReason::Throttled {
            error = error.with_quota(QuotaViolation::Thingspace);
        }
        for (name, text) in [
            ("thingspace_code", &refusal.thingspace_code),
            ("thingspace_text", &refusal.thingspace_text),
        ] {
            if let Some(text) = text {
                error = error.with_metadata(name, truncate(text, MAX_THINGSPACE_TEXT));
            }
        }
        error
    }
}

impl From<DispatchError> for ApiError {
    fn from(error: DispatchError) -> Self {
        match &error {
            DispatchError::KeyReused(id) => {
                let message = "this idempotency_key was used in this account for another change";
                Self::new(ErrorReason::IdempotencyKeyReused, message)
                    .with_metadata("change_id", id.to_string())
                    .with_executed(Executed::No)
            }
            DispatchError::DeviceBusy(busy) => {
                let message = format!(
                    "devices[{}] is in another change that is in flight or has an unknown outcome",
                    busy.device_index
                );
                Self::new(ErrorReason::DeviceBusy, message)
                    .with_busy_device(busy.device_index)
                    .with_metadata("change_id", busy.change_id.to_string())
                    .with_executed(Executed::No)
            }
            DispatchError::TooManyInFlight(existing) => {
                let overloaded = Self::overloaded(error.to_string());
                match existing {
                    ExistingChange::Absent => overloaded.with_executed(Executed::No),
                    ExistingChange::Unknown => overloaded,
                    ExistingChange::Change(id) => {
                        overloaded.with_metadata("change_id", id.to_string())
                    }
                }
            }
            DispatchError::Journal { change_id, .. } => {
                let unavailable = Self::new(ErrorReason::JournalUnavailable, error.to_string())
                    .with_executed(Executed::Unknown);
                match change_id {
                    Some(id) => unavailable.with_metadata("change_id", id.to_string()),
                    None => unavailable,
                }
            }
        }
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
                .with_quota(QuotaViolation::Thingspace)
                .with_retry_after(delay),
            LookupError::Refused { code, kind, .. } => {
                Self::from(&Refusal { thingspace_code: code, ..Refusal::new(kind, message) })
            }
            LookupError::LoginFailed(refusal) if refusal.kind != RefusalKind::NotSent => {
                Self::from(&refusal)
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
            StreamError::Removed => Self::new(ErrorReason::ResumeTokenExpired, error.to_string()),
            StreamError::Journal(error) => error.into(),
        }
    }
}
