//! Pauses and resumes changes.

use crate::{
    access::{Caller, policy::Permission},
    dispatch::{Pause, PauseError, Pauses},
    domain::{
        newtypes::AccountName,
        violation::{FieldReason, Violations},
    },
    grpc::{
        error::{ApiError, reason::ErrorReason},
        message::RequestMessage,
    },
    proto,
};

/// Maximum length of the reason of a pause, in characters.
const MAX_REASON: usize = 200;

impl RequestMessage for proto::PauseChangesRequest {
    /// The account, or all, and the reason.
    type Parsed = (Option<AccountName>, String);

    fn parse(self) -> Result<Self::Parsed, ApiError> {
        let account = parse_account(&self.account_name)?;
        if self.reason.chars().count() > MAX_REASON {
            let description = "must have at most 200 characters";
            return Err(ApiError::invalid_field("reason", FieldReason::TooLong, description));
        }
        if self.reason.chars().any(char::is_control) {
            let description = "must not contain control characters";
            return Err(ApiError::invalid_field("reason", FieldReason::Character, description));
        }
        Ok((account, self.reason))
    }
}

impl RequestMessage for proto::ResumeChangesRequest {
    /// The account, or all.
    type Parsed = Option<AccountName>;

    fn parse(self) -> Result<Self::Parsed, ApiError> {
        parse_account(&self.account_name)
    }
}

pub(super) async fn pause(
    pauses: &Pauses,
    caller: &Caller,
    account: Option<AccountName>,
    reason: String,
) -> Result<proto::ChangePause, ApiError> {
    let pause = pauses.pause(account, reason, caller.name().to_string()).await?;
    let account = pause.account.as_ref().map_or("*", |account| account.as_str());
    tracing::warn!(caller = %caller.name(), account, "operator paused changes");
    Ok(to_proto(&pause))
}

pub(super) async fn resume(
    pauses: &Pauses,
    caller: &Caller,
    account: Option<AccountName>,
) -> Result<bool, ApiError> {
    let resumed = pauses.resume(account.clone()).await?;
    if resumed {
        let account = account.as_ref().map_or("*", |account| account.as_str());
        tracing::warn!(caller = %caller.name(), account, "operator resumed changes");
    }
    Ok(resumed)
}

/// Checks that the caller may operate on an account, or on all.
pub(super) fn require_operate(
    caller: &Caller,
    account: Option<&AccountName>,
) -> Result<(), ApiError> {
    match account {
        Some(account) => caller.require(Permission::Operate, account, None)?,
        None => caller.require_operate_everywhere()?,
    }
    Ok(())
}

/// Parses an optional account. `None` stands for all accounts.
fn parse_account(name: &str) -> Result<Option<AccountName>, ApiError> {
    if name.is_empty() {
        return Ok(None);
    }
    let mut violations = Violations::default();
    let account = violations.ok_or_add("account_name", AccountName::parse(name));
    violations.into_result(account).map(Some).map_err(ApiError::invalid_fields)
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
