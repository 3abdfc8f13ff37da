use proptest::prelude::*;

use super::*;
use crate::domain::{caller_name::CallerName, change_type::ChangeType, newtypes::AccountName};

const FLEET: &str = r#"
[[caller]]
name = "fleet-service"
identities = ["spiffe://corp.example/ns/fleet/sa/*", "jwt:fleet-service"]
[[caller.allow]]
permissions = ["change", "watch", "list"]
accounts = ["0000123456-00001", "0000777*"]
operations = ["esim_plan"]
[caller.limits]
changes_per_minute = 100
devices_per_minute = 10_000
streams = 100
inflight_calls = 200

[[caller]]
name = "operators"
identities = ["jwt:*"]
[[caller.allow]]
permissions = ["operate", "list"]
accounts = ["*"]
[[caller.allow]]
permissions = ["change"]
accounts = ["0000777123-00001"]

[[caller]]
name = "guest"
identities = ["dns:guest.example.com"]
"#;

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

fn find(policy: &Policy, names: &[&str]) -> Option<String> {
    policy.find(names.iter().copied()).map(|caller| caller.name().to_string())
}

#[test]
fn the_first_caller_in_file_order_is_found_by_any_name_of_an_identity() {
    let policy = policy(FLEET);
    let find = |names: &[&str]| find(&policy, names);
    assert_eq!(find(&["jwt:fleet-service"]).as_deref(), Some("fleet-service"));
    assert_eq!(find(&["jwt:other"]).as_deref(), Some("operators"));
    assert_eq!(find(&["dns:guest.example.com"]).as_deref(), Some("guest"));
    assert_eq!(find(&["dns:guest.example.com", "jwt:x"]).as_deref(), Some("operators"));
    let spiffe = "spiffe://corp.example/ns/fleet/sa/web";
    assert_eq!(find(&["dns:guest.example.com", spiffe]).as_deref(), Some("fleet-service"));
    assert_eq!(find(&["dns:other.example.com"]), None);
    assert_eq!(find(&["fleet-service"]), None);
    assert_eq!(find(&[]), None);
}

#[test]
fn a_caller_may_do_only_what_a_grant_says() {
    let policy = policy(FLEET);
    let fleet = policy.find(["jwt:fleet-service"]).unwrap();
    let allows = |permission, name, operation| fleet.allows(permission, &account(name), operation);
    let esim = Some(ChangeType::EsimPlan);
    assert!(allows(Permission::Change, "0000123456-00001", esim));
    assert!(allows(Permission::Change, "0000777999-00009", esim));
    assert!(allows(Permission::Change, "0000777999-00009", None));
    assert!(!allows(Permission::Change, "0000777999-00009", Some(ChangeType::ServicePlan)));
    assert!(!allows(Permission::Change, "0000123456-00002", esim));
    assert!(allows(Permission::Watch, "0000123456-00001", None));
    // An operation limits only changes.
    assert!(allows(Permission::Watch, "0000123456-00001", Some(ChangeType::ServicePlan)));
    assert!(!allows(Permission::Operate, "0000123456-00001", None));
    assert!(!fleet.may_operate_everywhere());
    assert!(fleet.accounts(Permission::Operate).is_empty());

    let operators = policy.find(["jwt:x"]).unwrap();
    assert!(operators.may_operate_everywhere());
    assert!(matches!(operators.accounts(Permission::List), AccountScope::All));
    let AccountScope::Only(set) = operators.accounts(Permission::Change) else { panic!("all") };
    assert_eq!(set.exact().collect::<Vec<_>>(), ["0000777123-00001"]);
    assert!(set.patterns().is_empty());

    let guest = policy.find(["dns:guest.example.com"]).unwrap();
    assert!(Permission::ALL.into_iter().all(|permission| guest.accounts(permission).is_empty()));
    assert_eq!(*guest.limits(), CallerLimits::default());
}

#[test]
fn limits_are_those_of_the_file() {
    let policy = policy(FLEET);
    let fleet = policy.find(["jwt:fleet-service"]).unwrap();
    let limits = CallerLimit::ALL.map(|limit| fleet.limits().get(limit).unwrap().get());
    assert_eq!(limits, [100, 10_000, 100, 200]);
}

#[test]
fn an_unrestricted_caller_may_do_everything() {
    let caller = CallerPolicy::unrestricted(CallerName::anonymous());
    for permission in Permission::ALL {
        for operation in ChangeType::ALL.map(Some).into_iter().chain([None]) {
            assert!(caller.allows(permission, &account("abc"), operation));
        }
    }
    assert!(caller.may_operate_everywhere());
    assert_eq!(caller.name().as_str(), "anonymous");
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_refused() {
    let text = format!("{FLEET}#{}", "x".repeat(Policy::MAX_BYTES));
    let errors = Policy::parse(&text).unwrap_err();
    assert!(errors.to_string().ends_with("expected at most 1 MiB"), "{errors}");
}

#[test]
fn probable_mistakes_are_warned_about() {
    let text = r#"
[[caller]]
name = "a"
identities = ["jwt:*", "dns:a.example.com"]
[[caller.allow]]
permissions = ["change"]
accounts = ["*"]
[[caller]]
name = "b"
identities = ["jwt:b", "jwt:b-*"]
[[caller.allow]]
permissions = ["operate"]
accounts = ["*"]
[[caller]]
name = "c"
identities = ["dns:a.example.com", "dns:c.example.com"]
[[caller.allow]]
permissions = ["monitor"]
accounts = ["0000123456-00001"]
[caller.limits]
changes_per_minute = 200
"#;
    let expected = [
        "caller b (line 8): the identity jwt:b never matches, because caller a (line 2) comes first with jwt:*",
        "caller b (line 8): the identity jwt:b-* never matches, because caller a (line 2) comes first with jwt:*",
        "caller b (line 8): never matches, because earlier callers match all of its identities",
        "caller c (line 14): the identity dns:a.example.com never matches, because caller a (line 2) comes first with dns:a.example.com",
        "caller a (line 2): the identity jwt:* matches every authenticated client with a name of this form",
        "caller a (line 2): has the permission change without limits.changes_per_minute, so it can use all of thingspace.changes_per_minute",
        "caller b (line 8): may operate on all accounts, which includes pausing changes and results that belong to no account",
        "caller c (line 14): the permission monitor has no effect without accounts = [\"*\"]",
        "the changes_per_minute of all callers add up to 200, more than thingspace.changes_per_minute (100): callers can delay each other's changes",
    ];
    let policy = policy(text);
    assert_eq!(policy.warnings(Some(100)), expected);
    assert_eq!(policy.warnings(None), expected[..8]);
    assert_eq!(policy.warnings(Some(200)), expected[..8]);
}

#[test]
fn operate_includes_monitor_and_either_needs_all_accounts() {
    for (permission, accounts, expected) in [
        ("monitor", "*", true),
        ("operate", "*", true),
        ("monitor", "0000123456-*", false),
        ("operate", "0000123456-*", false),
        ("list", "*", false),
    ] {
        let text = format!(
            "[[caller]]\nname = \"a\"\nidentities = [\"jwt:a\"]\n[[caller.allow]]\n\
             permissions = [\"{permission}\"]\naccounts = [\"{accounts}\"]\n"
        );
        let policy = policy(&text);
        let caller = policy.find(["jwt:a"]).unwrap();
        assert_eq!(caller.may_monitor_everywhere(), expected, "{permission} {accounts}");
        let is_operator = (permission, accounts) == ("operate", "*");
        assert_eq!(caller.may_operate_everywhere(), is_operator, "{permission} {accounts}");
    }
}

#[test]
fn an_explanation_names_the_grant_or_what_is_missing() {
    let policy = policy(FLEET);
    let ask = |identity: &str, permission, name: Option<&str>, operation| {
        policy.explain(&Question {
            identities: vec![identity.to_owned()],
            permission,
            account: name.map(account),
            operation,
        })
    };
    let change = Some(Permission::Change);
    let allowed = ask("jwt:fleet-service", change, Some("0000777999-00009"), None);
    assert!(allowed.is_allowed);
    assert_eq!(
        allowed.to_string(),
        "caller fleet-service (line 2): \"jwt:fleet-service\" matches identities[1] (jwt:fleet-service)\n\
         allowed: allow[0] (line 5) grants change, watch, list on accounts 0000123456-00001, 0000777*, change only for esim_plan"
    );
    let denied =
        ask("jwt:fleet-service", change, Some("0000123456-00001"), Some(ChangeType::ServicePlan));
    assert!(!denied.is_allowed);
    let text = denied.to_string();
    assert!(text.contains("\ndenied: no grant of the caller has the permission change on account 0000123456-00001 for the operation service_plan\nnot enough: allow[0] (line 5)"), "{text}");
    let denied = ask("dns:guest.example.com", Some(Permission::List), None, None);
    assert!(!denied.is_allowed && denied.to_string().lines().count() == 2, "{denied}");
    let unknown = ask("mesh:nobody", None, None, None);
    assert!(!unknown.is_allowed);
    assert_eq!(unknown.to_string(), "denied: no identity of the 3 callers matches");
    let all = ask("jwt:fleet-service", None, None, None).to_string();
    assert!(all.ends_with("limits: changes_per_minute = 100, devices_per_minute = 10000, streams = 100, inflight_calls = 200"), "{all}");
}

proptest! {
    #[test]
    fn the_lookup_agrees_with_a_search_in_file_order(
        callers in prop::collection::vec(prop::collection::vec("jwt:[ab*]{1,3}", 1..4), 1..8),
        names in prop::collection::vec("jwt:[ab]{1,3}", 0..3),
    ) {
        let text: String = callers
            .iter()
            .enumerate()
            .map(|(index, identities)| {
                format!("[[caller]]\nname = \"c{index}\"\nidentities = {identities:?}\n")
            })
            .collect();
        let Ok(policy) = Policy::parse(&text) else { return Ok(()) };
        let expected = policy.callers().iter().find(|caller| {
            caller.identities().iter().any(|pattern| names.iter().any(|name| pattern.matches(name)))
        });
        let found = policy.find(names.iter().map(String::as_str));
        prop_assert_eq!(found.map(|it| it.name()), expected.map(|it| it.name()));
    }
}
