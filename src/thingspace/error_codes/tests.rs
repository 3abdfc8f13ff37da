use super::*;
use crate::thingspace::error_body::code_in;

#[test]
fn a_code_is_known_in_any_case_behind_any_one_service_and_only_as_a_whole() {
    assert!(is_same_code("request_failed.noaccounts", "REQUEST_FAILED.NoAccounts"));
    assert!(is_same_code("X.REQUEST_FAILED.NoAccounts", "REQUEST_FAILED.NoAccounts"));
    assert!(!is_same_code("XREQUEST_FAILED.NoAccounts", "REQUEST_FAILED.NoAccounts"));
    assert!(!is_same_code("X.Y.REQUEST_FAILED.NoAccounts", "REQUEST_FAILED.NoAccounts"));
    assert!(!is_same_code("éé", "abc"));
}

#[test]
fn the_document_for_users_has_exactly_the_codes_of_the_table() {
    let document = include_str!("../../../docs/thingspace-refusals.md");
    let mut documented: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|code| code_in(code).is_some() && !code.contains('<'))
        .collect();
    let mut known = CODES.map(|(_, codes)| codes).concat();
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known);
}
