use std::fs;

use super::*;
use crate::telemetry::Telemetry;

const VALID: &str = "[[caller]]\nname = \"a\"\nidentities = [\"jwt:a\"]\n";

fn outcome(telemetry: &Telemetry, outcome: &str) -> u64 {
    telemetry.sample(&format!(
        "thingspace_gateway_policy_reloads_total{{thingspace_gateway_outcome=\"{outcome}\"}}"
    ))
}

fn is_stale(telemetry: &Telemetry) -> bool {
    telemetry.sample("thingspace_gateway_policy_stale") == 1
}

#[test]
fn a_changed_file_is_in_force_and_a_bad_one_keeps_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    fs::write(&path, VALID).unwrap();
    let telemetry = Telemetry::metrics_only().unwrap();
    let policy = ReloadingPolicy::new(&path, telemetry.instruments()).unwrap();
    let mut changes = policy.subscribe();
    changes.mark_unchanged();
    let exposition = telemetry.exposition().unwrap();
    for outcome in PolicyReloadOutcome::ALL {
        assert!(
            exposition.contains(&format!("outcome=\"{}\"}} 0", outcome.name())),
            "{exposition}"
        );
    }

    // Unchanged.
    policy.reload();
    assert!(!changes.has_changed().unwrap() && !is_stale(&telemetry));

    fs::write(&path, VALID.replace('a', "b").replace("bll", "all")).unwrap();
    policy.reload();
    assert!(!changes.has_changed().unwrap() && is_stale(&telemetry));
    let valid = VALID.replace("\"a\"", "\"b\"");
    fs::write(&path, &valid).unwrap();
    policy.reload();
    assert!(changes.has_changed().unwrap() && !is_stale(&telemetry));
    assert_eq!(changes.borrow_and_update().callers()[0].name().as_str(), "b");

    // The same bad content counts once.
    fs::write(&path, "[[caller]]").unwrap();
    policy.reload();
    policy.reload();
    assert_eq!((outcome(&telemetry, "applied"), outcome(&telemetry, "rejected")), (1, 2));
    fs::remove_file(&path).unwrap();
    policy.reload();
    policy.reload();
    assert_eq!(outcome(&telemetry, "rejected"), 3);
    assert!(is_stale(&telemetry) && !changes.has_changed().unwrap());
    assert_eq!(policy.current().callers()[0].name().as_str(), "b");

    // The content in force is back.
    fs::write(&path, &valid).unwrap();
    policy.reload();
    assert!(!is_stale(&telemetry) && !changes.has_changed().unwrap());
    assert_eq!(outcome(&telemetry, "applied"), 1);
}

#[test]
fn a_bad_file_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let load = || ReloadingPolicy::new(&path, Instruments::noop()).map(|_| ()).unwrap_err();
    assert!(matches!(load(), PolicyLoadError::Unreadable { .. }));
    for content in [&b"\xff"[..], b"", b"[[caller]]\nname = 1\n"] {
        fs::write(&path, content).unwrap();
        let error = load();
        assert!(matches!(error, PolicyLoadError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains("policy.toml has "), "{error}");
    }
}
