use ErrorMeaning::{Refused, SessionRefused, Uncertain};

use super::*;

#[test]
fn the_code_in_a_text_is_found_with_or_without_a_service_and_nothing_else_is_one() {
    for (text, code) in [
        ("X.REQUEST_FAILED.DeviceNotFound: no", Some("X.REQUEST_FAILED.DeviceNotFound")),
        ("REQUEST_FAILED.DeviceNotFound", Some("REQUEST_FAILED.DeviceNotFound")),
        ("Error: (X.INPUT_INVALID.A.B).", Some("X.INPUT_INVALID.A.B")),
        ("é X.REQUEST_FAILED.NoAccounts. é", Some("X.REQUEST_FAILED.NoAccounts")),
        ("éREQUEST_FAILED.NoAccounts", Some("REQUEST_FAILED.NoAccounts")),
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
    assert_eq!(classify_code("request_failed.noaccounts"), Some(Refused(NotFound)));
    assert_eq!(classify_code("X.REQUEST_FAILED.NoAccounts"), Some(Refused(NotFound)));
    assert_eq!(classify_code("XREQUEST_FAILED.NoAccounts"), None);
    let behind_two = classify_code("X.Y.REQUEST_FAILED.NoAccounts");
    assert_eq!(behind_two, Some(Refused(FailedPrecondition)));
    assert_eq!(classify_code("éé"), None);
}

#[test]
fn each_code_in_the_document_for_users_has_the_documented_meaning() {
    let document = include_str!("../../../docs/thingspace-refusals.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut count = 0;
    for (code, row) in rows.filter(|(code, _)| code_in(code).is_some()) {
        let columns: Vec<&str> = row.split(" | ").collect();
        let meaning = match columns[..] {
            [_, "GATEWAY_CREDENTIALS", ..] => SessionRefused,
            ["OK: OUTCOME_UNKNOWN", ..] => Uncertain,
            ["INVALID_ARGUMENT", "THINGSPACE_REFUSED", ..] => Refused(InvalidArgument),
            ["FAILED_PRECONDITION", "THINGSPACE_REFUSED", ..] => Refused(FailedPrecondition),
            ["NOT_FOUND", "THINGSPACE_REFUSED", ..] => Refused(NotFound),
            ["PERMISSION_DENIED", "THINGSPACE_REFUSED", ..] => Refused(PermissionDenied),
            _ => panic!("{row}"),
        };
        assert_eq!(classify_code(code), Some(meaning), "{code}");
        // The name of a service has no meaning.
        for service in ["UnifiedWebService", "LimitService"] {
            assert_eq!(
                classify_code(&format!("{service}.{code}")),
                Some(meaning),
                "{service}.{code}"
            );
        }
        count += 1;
    }
    assert_eq!(count, 26);
}
