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

/// The codes without the name of the service to which [`classify_cause`] gives another meaning.
const EXCEPTIONS: [(&str, RefusalKind); 4] = [
    ("deserializationfailed", InvalidArgument),
    ("request_failed.accountname", PermissionDenied),
    ("request_failed.multipleaccounts", InvalidArgument),
    ("request_failed.noaccounts", NotFound),
];

/// Returns the meaning of ThingSpace's error; `None` if neither its code nor a code in its text is known.
pub(super) fn classify_error(error: &ErrorBody) -> Option<ErrorMeaning> {
    classify_code(error.cause_code()?)
}

/// Classifies a code with or without the name of a service, in any letter case.
fn classify_code(code: &str) -> Option<ErrorMeaning> {
    let code = code.to_ascii_lowercase();
    let without_service = code.split_once('.').map(|(_service, rest)| rest);
    let exception = EXCEPTIONS
        .iter()
        .find(|(known, _)| code == *known || without_service == Some(known))
        .map(|(_, kind)| Refused(*kind));
    let is_class =
        |rest: &&str| rest.starts_with("input_invalid.") || rest.starts_with("request_failed.");
    exception.or_else(|| classify_cause(without_service.filter(is_class).unwrap_or(&code)))
}

fn classify_cause(code: &str) -> Option<ErrorMeaning> {
    let contains = |text: &str| code.contains(text);
    let has_part = |name: &str| code.split('.').any(|part| part == name);
    if has_part("sessiontoken") {
        Some(SessionRefused)
    } else if code.ends_with("unexpectederror") {
        Some(Uncertain)
    } else if contains("devicestate") || contains("limit") || contains("suspend") {
        Some(Refused(FailedPrecondition))
    } else if code.ends_with("notfound") {
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
