use super::*;

fn errors(text: &str) -> Vec<String> {
    let errors = parse(text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn all_errors_are_reported_with_their_lines() {
    let text = r#"
[[caller]]
name = "Fleet Service"
identities = ["spiffe://corp.example/a", "*", 7]
color = "blue"

[[caller.allow]]
permissions = ["chnage"]
accounts = []
[[caller.allow]]
permissions = ["watch"]
accounts = ["0000123456-00001", "a b"]
operations = ["esim_plan", "sim_swap"]

[caller.limits]
streams = 0
changes_per_minute = "many"
devices = 1

[[caller]]
name = "b"
identities = ["jwt:b"]
[[caller.allow]]
[[caller]]
name = "b"
[other]
"#;
    let expected = [
        "line 3: caller[0].name: got \"Fleet Service\", expected 1 to 64 lower-case letters, digits, dots, underscores and dashes",
        "line 4: caller[0].identities[1]: got \"*\", expected a pattern that begins with spiffe://, dns:, subject:, jwt: or mesh:",
        "line 4: caller[0].identities[2]: got a value of type integer, expected a string in quotes",
        "line 5: caller[0].color: unknown key, expected name, identities, allow, limits",
        "line 8: caller[0].allow[0].permissions[0]: got \"chnage\", expected change, watch, list, monitor or operate",
        "line 9: caller[0].allow[0].accounts: got 0, expected an array of 1 to 1000 accounts",
        "line 12: caller[0].allow[1].accounts[1]: got \"a b\", expected 1 to 64 letters, digits, dashes and `*`, such as 0000123456-00001 or 0000123456-*",
        "line 13: caller[0].allow[1].operations[1]: got \"sim_swap\", expected esim_plan, five_g_bi_plan, service_plan",
        "line 13: caller[0].allow[1].operations: set, expected unset, or `change` among the permissions",
        "line 16: caller[0].limits.streams: got 0, expected a whole number from 1 to 1000000",
        "line 17: caller[0].limits.changes_per_minute: got a value of type string, expected a whole number from 1 to 100000",
        "line 18: caller[0].limits.devices: unknown key, expected changes_per_minute, devices_per_minute, streams, inflight_calls",
        "line 23: caller[1].allow[0].permissions: not set, expected the permissions of the caller",
        "line 23: caller[1].allow[0].accounts: not set, expected accounts, or `*` for all",
        "line 24: caller[2].identities: not set, expected the identities of the caller",
        "line 25: caller[2].name: got \"b\", expected another name than that of line 21",
        "line 26: other: unknown key, expected caller",
    ];
    assert_eq!(errors(text), expected);
}

#[test]
fn errors_of_the_syntax_are_reported_without_the_text() {
    let errors = errors("[[caller]]\nname = hidden\nidentities = [\n");
    assert!(errors.len() >= 2, "{errors:?}");
    assert!(errors[0].starts_with("line 2: not TOML: "), "{errors:?}");
    assert!(errors.iter().all(|error| !error.contains("hidden")), "{errors:?}");
}

#[test]
fn a_file_without_callers_is_an_error() {
    for text in ["", "# nothing\n", "caller = []", "caller = 1", "[caller]\nname = \"a\""] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].contains("caller: "), "{errors:?}");
    }
}

#[test]
fn a_reserved_name_is_refused() {
    for name in ["anonymous", "local"] {
        let errors = errors(&format!("[[caller]]\nname = {name:?}\nidentities = [\"jwt:a\"]"));
        let start = format!("line 2: caller[0].name: got {name:?}, ");
        assert!(errors[0].starts_with(&start), "{errors:?}");
    }
}

#[test]
fn errors_are_single_lines_of_bounded_length_and_number() {
    let names: String = (0..300)
        .map(|_| format!("[[caller]]\nname = \"{}\\n\\u2028\"\n", "x".repeat(5_000)))
        .collect();
    let errors = parse(&names).unwrap_err();
    assert_eq!((errors.iter().count(), errors.count()), (100, 600));
    for error in errors.iter() {
        let text = error.to_string();
        assert!(text.len() < 300 && !text.contains(['\n', '\u{2028}']), "{text}");
    }
    assert!(errors.to_string().ends_with("\nand 500 more"));
}

#[test]
fn too_many_callers_identities_or_grants_are_refused() {
    let caller = "[[caller]]\nname = \"a\"\nidentities = [\"jwt:a\"]\n";
    let grant = "[[caller.allow]]\npermissions = [\"list\"]\naccounts = [\"*\"]\n";
    let callers: String =
        (0..=MAX_CALLERS).map(|index| caller.replace("\"a\"", &format!("\"a{index}\""))).collect();
    assert!(errors(&callers)[0].ends_with("got 1001, expected an array of 1 to 1000 callers"));
    let identities =
        caller.replace("[\"jwt:a\"]", &format!("{:?}", vec!["jwt:a"; MAX_IDENTITIES + 1]));
    assert!(errors(&identities)[0].contains("identities: got 101, "));
    let grants = format!("{caller}{}", grant.repeat(MAX_GRANTS + 1));
    assert!(errors(&grants)[0].contains("allow: got 101, "));
    assert!(parse(&format!("{caller}{}", grant.repeat(MAX_GRANTS))).is_ok());
}
