//! The policy file: errors are bounded lines, and a valid policy has only the permissions of its grants.

use thingspace_gateway::{
    access::policy::{CallerPolicy, Permission, Policy, PolicyErrors, Question},
    domain::{change_type::ChangeType, newtypes::AccountName},
};

const ACCOUNTS: [&str; 4] = ["0000123456-00001", "0000777123-00009", "abc", "A-9"];
const NAMES: [&str; 5] = [
    "spiffe://corp.example/ns/fleet/sa/web",
    "dns:client.example.com",
    "subject:CN=client,O=Example",
    "jwt:fleet-service",
    "mesh:web.fleet.serviceaccount.identity",
];

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Policy::parse(text) {
        Ok(policy) => check_policy(&policy),
        Err(errors) => check_errors(text, &errors),
    }
}

fn check_errors(text: &str, errors: &PolicyErrors) {
    assert!(errors.count() > 0 && errors.iter().count() <= 100);
    let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let mut last = 1;
    for error in errors.iter() {
        assert!((last..=lines).contains(&error.line), "{error}");
        last = error.line;
        let line = error.to_string();
        assert!(line.len() < 2_000 && !line.chars().any(char::is_control), "{line}");
    }
}

fn check_policy(policy: &Policy) {
    let callers = policy.callers();
    assert!((1..=1_000).contains(&callers.len()));
    // The texts of patterns are names, too: those of other patterns, and longer than usual.
    let texts = callers.iter().flat_map(|caller| caller.identities()).take(50);
    let texts: Vec<&str> = texts.map(|identity| identity.as_str()).collect();
    for name in NAMES.iter().chain(&texts) {
        check_lookup(policy, name);
    }
    for caller in callers.iter().take(20) {
        check_grants(caller);
    }
    for warning in policy.warnings(Some(1)) {
        assert!(!warning.contains('\n') && !warning.is_empty());
    }
}

/// Compares the lookup with a search in the order of the file.
fn check_lookup(policy: &Policy, name: &str) {
    let matches =
        |caller: &&CallerPolicy| caller.identities().iter().any(|pattern| pattern.matches(name));
    let expected = policy.callers().iter().map(AsRef::as_ref).find(matches);
    let found = policy.find([name]).map(AsRef::as_ref);
    assert_eq!(found.map(CallerPolicy::name), expected.map(CallerPolicy::name), "{name}");
    let question = Question {
        identities: vec![name.to_owned()],
        permission: Some(Permission::Change),
        account: None,
        operation: None,
    };
    let may_change = found.is_some_and(|it| !it.accounts(Permission::Change).is_empty());
    assert_eq!(policy.explain(&question).is_allowed, may_change, "{name}");
}

/// Compares the permissions of a caller with its grants.
fn check_grants(caller: &CallerPolicy) {
    for account in ACCOUNTS {
        let name = AccountName::parse(account).expect("a valid name");
        for permission in Permission::ALL {
            for operation in ChangeType::ALL.map(Some).into_iter().chain([None]) {
                let is_granted = caller.grants().iter().any(|grant| {
                    let is_named = grant.accounts.iter().any(|it| it.matches(account));
                    grant.has(permission, operation) && is_named
                });
                assert_eq!(caller.allows(permission, &name, operation), is_granted);
            }
            let scope = caller.accounts(permission);
            assert_eq!(scope.contains(account), caller.allows(permission, &name, None));
        }
    }
}
