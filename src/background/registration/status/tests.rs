use super::*;

#[test]
fn an_account_without_a_check_is_unknown_and_an_error_is_cut() {
    let account = AccountName::parse("0000123456-00001").unwrap();
    let other = AccountName::parse("0000999999-00001").unwrap();
    let time = Timestamp::from_micros(1);
    let error = "x".repeat(1_000);
    let service = ResultService::ALL[0];
    let state = RegistrationState::OtherUrl;
    let stored = StoredStatus::new(&account, service.as_str(), state, Some(&error), time);
    let stored = [stored];
    let checked = status(&account, service, &stored);
    assert_eq!((checked.state.as_str(), checked.last_error.len()), ("other_url", MAX_ERROR));
    assert_eq!(checked.check_time, Some(time));
    let unchecked = status(&other, service, &stored);
    assert_eq!((unchecked.state.as_str(), unchecked.check_time), ("unknown", None));
}
