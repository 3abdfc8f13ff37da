//! ThingSpace's error codes and their meaning for a change (see thingspace-facts, section 6).
//! `docs/thingspace-refusals.md` lists the same codes for users.

use crate::{
    domain::refusal::RefusalKind::{
        self, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied,
    },
    thingspace::error_body::ErrorBody,
};

/// The meaning of an error code for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorMeaning {
    /// ThingSpace refused the change and executed nothing.
    Refused(RefusalKind),
    /// ThingSpace refused the session and executed nothing.
    SessionRefused,
    /// The change may have been executed.
    Uncertain,
}

use ErrorMeaning::{Refused, SessionRefused, Uncertain};

/// The known codes without the name of the service.
const CODES: [(ErrorMeaning, &[&str]); 6] = [
    (
        Refused(InvalidArgument),
        &[
            "INPUT_INVALID.Request.InvalidCharacter",
            "INPUT_INVALID.RequestUndefined",
            "INPUT_INVALID.Account.NotDefined",
            "INPUT_INVALID.Device.Kind.Invalid",
            "INPUT_INVALID.Device.Identifier.Invalid",
            "INPUT_INVALID.Device.Account.Invalid",
            "INPUT_INVALID.CustomField.InvalidName",
            "INPUT_INVALID.CustomField.TooLong",
            "INPUT_INVALID.MaxRequestsExceeded",
            "INPUT_INVALID.NumberofDevices",
            "REQUEST_FAILED.MultipleAccounts",
            "DeserializationFailed",
        ],
    ),
    (
        Refused(FailedPrecondition),
        &[
            "INPUT_INVALID.DeviceState.Invalid",
            "REQUEST_FAILED.DeviceAlreadyActive",
            "REQUEST_FAILED.DefaultIpPoolNotDefined",
            // The sandbox's own code. ThingSpace's code for the fifth plan change in a month is not documented.
            "REQUEST_FAILED.PlanChangeLimitExceeded",
        ],
    ),
    (
        Refused(NotFound),
        &[
            "REQUEST_FAILED.AccountNotFound",
            "REQUEST_FAILED.NoAccounts",
            "REQUEST_FAILED.DeviceNotFound",
            "REQUEST_FAILED.DeviceGroupNotFound",
        ],
    ),
    (Refused(PermissionDenied), &["REQUEST_FAILED.AccountName"]),
    (
        SessionRefused,
        &[
            "INPUT_INVALID.SessionToken.Invalid",
            "REQUEST_FAILED.SessionToken.Expired",
            "REQUEST_FAILED.SessionToken.Format",
        ],
    ),
    (Uncertain, &["REQUEST_FAILED.UnexpectedError"]),
];

/// Returns the meaning of ThingSpace's error; `None` if neither its code nor a code in its text is known.
pub(super) fn classify_error(error: &ErrorBody) -> Option<ErrorMeaning> {
    classify_code(error.cause_code()?)
}

/// Returns the kind of refusal that the code of a refused lookup means.
pub(super) fn refusal_kind(code: &str) -> RefusalKind {
    match classify_code(code) {
        Some(Refused(kind)) => kind,
        _ => FailedPrecondition,
    }
}

fn classify_code(code: &str) -> Option<ErrorMeaning> {
    CODES
        .iter()
        .find(|(_, codes)| codes.iter().any(|known| is_same_code(code, known)))
        .map(|(meaning, _)| *meaning)
        .or_else(|| classify_unlisted_code(code))
}

/// True if `code` is the known one, with or without the name of a service.
fn is_same_code(code: &str, known: &str) -> bool {
    let without_service = code.split_once('.').map(|(_service, rest)| rest);
    code.eq_ignore_ascii_case(known)
        || without_service.is_some_and(|rest| rest.eq_ignore_ascii_case(known))
}

fn classify_unlisted_code(code: &str) -> Option<ErrorMeaning> {
    let lower = code.to_ascii_lowercase();
    let contains = |text: &str| lower.contains(text);
    let has_part = |name: &str| lower.split('.').any(|part| part == name);
    if has_part("sessiontoken") {
        Some(SessionRefused)
    } else if lower.ends_with("unexpectederror") {
        Some(Uncertain)
    } else if contains("devicestate") || contains("limit") || contains("suspend") {
        Some(Refused(FailedPrecondition))
    } else if lower.ends_with("notfound") {
        Some(Refused(NotFound))
    } else if has_part("input_invalid") {
        Some(Refused(InvalidArgument))
    } else if has_part("request_failed") {
        Some(Refused(FailedPrecondition))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
