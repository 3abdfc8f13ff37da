//! ThingSpace's error codes and what they mean (see thingspace-facts, section 6). The same table for
//! users is docs/thingspace-refusals.md.

use super::error_body::ErrorBody;
use crate::domain::refusal::RefusalKind::{
    self, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied,
};

/// The meaning of an error code for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorMeaning {
    /// ThingSpace refused it and executed nothing.
    Refused(RefusalKind),
    /// ThingSpace refused the session and executed nothing.
    SessionRefused,
    /// Nothing: it may have been executed.
    Uncertain,
}

use ErrorMeaning::{Refused, SessionRefused, Uncertain};

/// The known codes, without the name of a service in front.
pub(super) const CODES: [(&str, ErrorMeaning); 25] = [
    (
        "INPUT_INVALID.Request.InvalidCharacter",
        Refused(InvalidArgument),
    ),
    ("INPUT_INVALID.RequestUndefined", Refused(InvalidArgument)),
    ("INPUT_INVALID.Account.NotDefined", Refused(InvalidArgument)),
    (
        "INPUT_INVALID.Device.Kind.Invalid",
        Refused(InvalidArgument),
    ),
    (
        "INPUT_INVALID.Device.Identifier.Invalid",
        Refused(InvalidArgument),
    ),
    (
        "INPUT_INVALID.Device.Account.Invalid",
        Refused(InvalidArgument),
    ),
    (
        "INPUT_INVALID.CustomField.InvalidName",
        Refused(InvalidArgument),
    ),
    (
        "INPUT_INVALID.CustomField.TooLong",
        Refused(InvalidArgument),
    ),
    (
        "INPUT_INVALID.MaxRequestsExceeded",
        Refused(InvalidArgument),
    ),
    ("INPUT_INVALID.NumberofDevices", Refused(InvalidArgument)),
    (
        "INPUT_INVALID.DeviceState.Invalid",
        Refused(FailedPrecondition),
    ),
    ("INPUT_INVALID.SessionToken.Invalid", SessionRefused),
    ("REQUEST_FAILED.SessionToken.Expired", SessionRefused),
    ("REQUEST_FAILED.SessionToken.Format", SessionRefused),
    ("REQUEST_FAILED.AccountName", Refused(PermissionDenied)),
    ("REQUEST_FAILED.AccountNotFound", Refused(NotFound)),
    ("REQUEST_FAILED.NoAccounts", Refused(NotFound)),
    ("REQUEST_FAILED.MultipleAccounts", Refused(InvalidArgument)),
    ("REQUEST_FAILED.DeviceNotFound", Refused(NotFound)),
    ("REQUEST_FAILED.DeviceGroupNotFound", Refused(NotFound)),
    (
        "REQUEST_FAILED.DeviceAlreadyActive",
        Refused(FailedPrecondition),
    ),
    (
        "REQUEST_FAILED.DefaultIpPoolNotDefined",
        Refused(FailedPrecondition),
    ),
    // The sandbox's own: no page says how the fifth plan change of a month is refused.
    (
        "REQUEST_FAILED.PlanChangeLimitExceeded",
        Refused(FailedPrecondition),
    ),
    ("REQUEST_FAILED.UnexpectedError", Uncertain),
    ("DeserializationFailed", Refused(InvalidArgument)),
];

/// The classes of codes that refuse a request.
const CLASSES: [&str; 2] = ["INPUT_INVALID", "REQUEST_FAILED"];

/// The meaning of ThingSpace's error; `None` when neither its code nor a code in its text is known.
pub(super) fn classify_error(error: &ErrorBody) -> Option<ErrorMeaning> {
    classify_code(error.cause_code()?)
}

/// The kind of refusal that a code of a lookup's error means.
pub(super) fn refusal_kind_for_code(code: &str) -> RefusalKind {
    match classify_code(code) {
        Some(Refused(kind)) => kind,
        _ => FailedPrecondition,
    }
}

fn classify_code(code: &str) -> Option<ErrorMeaning> {
    let known = CODES.iter().find(|(known, _)| is_same_code(code, known));
    known
        .map(|(_, meaning)| *meaning)
        .or_else(|| classify_unlisted_code(code))
}

/// True if a code is the known one, with or without the name of a service in front.
fn is_same_code(code: &str, known: &str) -> bool {
    let service = code
        .len()
        .checked_sub(known.len())
        .and_then(|at| code.split_at_checked(at));
    service.is_some_and(|(service, rest)| {
        rest.eq_ignore_ascii_case(known)
            && (service.is_empty()
                || service.ends_with('.') && !service.trim_end_matches('.').contains('.'))
    })
}

/// The meaning of a code that is not in the table.
fn classify_unlisted_code(code: &str) -> Option<ErrorMeaning> {
    let lower = code.to_ascii_lowercase();
    let has = |part: &str| lower.contains(part);
    let is_class = |class: &str| code.split('.').any(|part| part.eq_ignore_ascii_case(class));
    if code
        .split('.')
        .any(|part| part.eq_ignore_ascii_case("SessionToken"))
    {
        Some(SessionRefused)
    } else if lower.ends_with("unexpectederror") {
        Some(Uncertain)
    } else if has("devicestate") || has("limit") || has("suspend") {
        Some(Refused(FailedPrecondition))
    } else if lower.ends_with("notfound") {
        Some(Refused(NotFound))
    } else if is_class("INPUT_INVALID") {
        Some(Refused(InvalidArgument))
    } else if is_class("REQUEST_FAILED") {
        Some(Refused(FailedPrecondition))
    } else {
        None
    }
}

/// The code in a text such as `UnifiedWebService.REQUEST_FAILED.DeviceNotFound: no such device`.
pub(super) fn code_in(text: &str) -> Option<&str> {
    if let Some(at) = text.find("DeserializationFailed") {
        return text.get(at..at + "DeserializationFailed".len());
    }
    CLASSES.iter().find_map(|class| {
        let at = text.find(&format!("{class}."))?;
        let (before, after) = text.split_at_checked(at)?;
        // Back over the service's name.
        let start = before
            .rfind(|c: char| !is_code_character(c))
            .map_or(Some(0), |last| {
                before
                    .get(last..)?
                    .chars()
                    .next()
                    .map(|c| last + c.len_utf8())
            })?;
        let length = after.find(|c: char| !is_code_character(c));
        let mut end = at + length.unwrap_or(after.len());
        // A plan's name within a code may have spaces.
        let sentence = after.split(':').next().unwrap_or(after);
        if let Some(not_found) = sentence.find(".NotFound") {
            end = end.max(at + not_found + ".NotFound".len());
        }
        let code = text.get(start..end)?.trim_end_matches('.');
        // More than the class itself.
        (code.len() > start.abs_diff(at) + class.len()).then_some(code)
    })
}

fn is_code_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_in_a_text_is_found_with_or_without_a_service_and_nothing_else_is_one() {
        for (text, code) in [
            (
                "X.REQUEST_FAILED.DeviceNotFound: no",
                Some("X.REQUEST_FAILED.DeviceNotFound"),
            ),
            (
                "REQUEST_FAILED.DeviceNotFound",
                Some("REQUEST_FAILED.DeviceNotFound"),
            ),
            ("Error: (X.INPUT_INVALID.A.B).", Some("X.INPUT_INVALID.A.B")),
            (
                "é X.REQUEST_FAILED.NoAccounts. é",
                Some("X.REQUEST_FAILED.NoAccounts"),
            ),
            (
                "éREQUEST_FAILED.NoAccounts",
                Some("REQUEST_FAILED.NoAccounts"),
            ),
            (
                "X.REQUEST_FAILED.My new plan.NotFound: no",
                Some("X.REQUEST_FAILED.My new plan.NotFound"),
            ),
            ("X: DeserializationFailed", Some("DeserializationFailed")),
            ("REQUEST_FAILED. Device is already active", None),
            ("X.REQUEST_FAILED", None),
            ("the device cannot be found", None),
            ("", None),
        ] {
            assert_eq!(code_in(text), code, "{text}");
        }
    }

    #[test]
    fn a_code_is_known_in_any_case_behind_any_one_service_and_only_as_a_whole() {
        assert!(is_same_code(
            "request_failed.noaccounts",
            "REQUEST_FAILED.NoAccounts"
        ));
        assert!(is_same_code(
            "X.REQUEST_FAILED.NoAccounts",
            "REQUEST_FAILED.NoAccounts"
        ));
        assert!(!is_same_code(
            "XREQUEST_FAILED.NoAccounts",
            "REQUEST_FAILED.NoAccounts"
        ));
        assert!(!is_same_code(
            "X.Y.REQUEST_FAILED.NoAccounts",
            "REQUEST_FAILED.NoAccounts"
        ));
        assert!(!is_same_code("éé", "abc"));
    }

    #[test]
    fn the_document_for_users_has_exactly_the_codes_of_the_table() {
        let document = include_str!("../../docs/thingspace-refusals.md");
        let mut documented: Vec<&str> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|code| code_in(code).is_some() && !code.contains('<'))
            .collect();
        let mut known = CODES.map(|(code, _)| code).to_vec();
        documented.sort_unstable();
        known.sort_unstable();
        assert_eq!(documented, known);
    }
}
