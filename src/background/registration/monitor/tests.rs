use super::*;

#[test]
fn the_policy_decides_what_is_registered_and_credentials_are_renewed_once() {
    let account = AccountName::parse("0000123456-00001").unwrap();
    let mut services = MonitoredAccount::new(account.clone()).services;
    let service = &mut services[0];
    for (register, expected) in [
        (RegisterPolicy::Never, [false; 5]),
        (RegisterPolicy::IfUnclaimed, [false, false, false, false, true]),
        (RegisterPolicy::Replace, [false, false, true, true, true]),
    ] {
        assert_eq!(
            RegistrationState::ALL.map(|it| service.should_register(register, it)),
            expected
        );
    }
    // A list that does not show the actual password causes no loop.
    service.record_attempt(&account, RegistrationState::WrongCredentials, &Ok(()));
    service.update_status(&account, RegistrationState::WrongCredentials, None);
    assert!(!service.should_register(RegisterPolicy::Replace, RegistrationState::WrongCredentials));
    service.update_status(&account, RegistrationState::Registered, None);
    assert!(service.should_register(RegisterPolicy::Replace, RegistrationState::WrongCredentials));
}
