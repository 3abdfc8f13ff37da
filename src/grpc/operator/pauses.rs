//! Pauses and resumes changes.

use crate::{
    dispatch::{Pause, PauseError, Pauses},
    domain::violation::FieldReason,
    grpc::{
        error::{ApiError, reason::ErrorReason},
        operator::parse_account,
    },
    proto,
};

/// Maximum length of the reason of a pause, in characters.
const MAX_REASON: usize = 200;
/// Name of the caller of a call through the Unix socket.
const LOCAL: &str = "local";

pub(super) async fn pause(
    pauses: &Pauses,
    request: proto::PauseChangesRequest,
) -> Result<proto::ChangePause, ApiError> {
    let account = parse_account(&request.account_name)?;
    let reason = request.reason;
    if reason.chars().count() > MAX_REASON {
        let description = "must have at most 200 characters";
        return Err(ApiError::invalid_field("reason", FieldReason::TooLong, description));
    }
    if reason.chars().any(char::is_control) {
        let description = "must not contain control characters";
        return Err(ApiError::invalid_field("reason", FieldReason::Character, description));
    }
    let pause = pauses.pause(account, reason, LOCAL.to_owned()).await?;
    tracing::warn!(account = request.account_name, "operator paused changes");
    Ok(to_proto(&pause))
}

pub(super) async fn resume(
    pauses: &Pauses,
    request: &proto::ResumeChangesRequest,
) -> Result<bool, ApiError> {
    let resumed = pauses.resume(parse_account(&request.account_name)?).await?;
    if resumed {
        tracing::warn!(account = request.account_name, "operator resumed changes");
    }
    Ok(resumed)
}

pub(super) fn to_proto(pause: &Pause) -> proto::ChangePause {
    proto::ChangePause {
        account_name: pause.account.as_ref().map_or("", |name| name.as_str()).to_owned(),
        reason: pause.reason.clone(),
        paused_by: pause.paused_by.clone(),
        pause_time: Some(pause.pause_time().into()),
    }
}

impl From<PauseError> for ApiError {
    fn from(error: PauseError) -> Self {
        let message = error.to_string();
        match error {
            PauseError::TooMany => Self::overloaded(message).with_executed(None),
            PauseError::Contended => Self::new(ErrorReason::JournalUnavailable, message),
            PauseError::Journal(error) => error.into(),
        }
    }
}
