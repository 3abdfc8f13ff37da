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
