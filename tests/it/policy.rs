//! The command `policy`.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::cli;

const VALID: &str = r#"
[[caller]]
name = "fleet-service"
identities = ["jwt:fleet-service"]
[[caller.allow]]
permissions = ["change", "list"]
accounts = ["0000123456-*"]
operations = ["esim_plan"]
[caller.limits]
changes_per_minute = 200
"#;

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn check_reports_all_errors_of_a_file_with_exit_code_78() {
    let (_directory, path) = file("[[caller]]\nname = \"A\"\nidentities = [\"*\"]\n");
    let output = cli::run(&["policy", "check", text(&path)], &[]).await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(78), ""));
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{output:?}");
    assert!(lines[0].ends_with("policy.toml has 2 errors:"), "{output:?}");
    assert!(lines[1].starts_with("line 2: caller[0].name: got \"A\", expected "), "{output:?}");
    assert!(lines[2].starts_with("line 3: caller[0].identities[0]: got \"*\", "), "{output:?}");

    let output = cli::run(&["policy", "check", "/nonexistent/policy.toml"], &[]).await;
    assert_eq!(output.code, Some(78));
    assert!(output.stderr.starts_with("cannot read the policy file /nonexistent/"), "{output:?}");
    let output = cli::run(&["policy", "check"], &[]).await;
    assert_eq!(output.code, Some(78));
    assert!(output.stderr.starts_with("no policy file, expected "), "{output:?}");
}

#[tokio::test]
async fn check_warns_and_compares_with_the_settings_only_if_they_are_given() {
    let (_directory, path) = file(VALID);
    let output = cli::run(&["policy", "check", text(&path)], &[]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.stdout, "the policy is valid (callers: 1)\n");
    let variable = [("TSGW_AUTH__POLICY_FILE", text(&path))];
    let output = cli::run(&["policy", "check"], &variable).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let warning = "warning: the changes_per_minute of all callers add up to 200, more than ";
    assert!(output.stdout.contains(warning), "{output:?}");
}

#[tokio::test]
async fn explain_says_who_and_why_with_exit_code_1_if_denied() {
    let (_directory, path) = file(VALID);
    let explain = ["policy", "explain", text(&path), "--identity", "jwt:fleet-service"];
    let output = cli::run(&explain, &[]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.starts_with("caller fleet-service (line 2): "), "{output:?}");

    let change = ["--permission", "change", "--account", "0000123456-00001"];
    let explain = [&explain[..], &change].concat();
    let output = cli::run(&[&explain[..], &["--operation", "esim_plan"]].concat(), &[]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("\nallowed: allow[0] (line 5) grants "), "{output:?}");
    let output = cli::run(&[&explain[..], &["--operation", "service_plan"]].concat(), &[]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("\ndenied: no grant of the caller "), "{output:?}");
    let output = cli::run(&[&explain[..], &["--operation", "sim_swap"]].concat(), &[]).await;
    assert_eq!(output.code, Some(2), "{output:?}");
}
