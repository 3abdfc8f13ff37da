//! The commands `healthcheck` and `demo`.

use std::time::Duration;

use serde_json::Value;

use crate::support::{cli, gateway::Setup, wait::TEST_TIMEOUT};

#[tokio::test]
async fn healthcheck_and_demo_work_against_a_running_gateway() {
    let mut gateway = Setup::sandbox().start().await;
    let (grpc, admin) = (gateway.grpc.to_string(), gateway.admin.to_string());
    for address in [&["--address", &grpc][..], &["--admin.listen", &admin]] {
        let output = cli::run(&[&["healthcheck"], address].concat(), &[]).await;
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(output.stdout, "SERVING\n");
    }
    let arguments = ["demo", "--devices", "5", "--json", "--target", &grpc];
    let demo = cli::run(&arguments, &[]).await;
    assert_eq!(demo.code, Some(0), "{demo:?}");
    let report: Value = serde_json::from_str(&demo.stdout).unwrap();
    assert_eq!(report["changes"][1]["missing"], 0);

    assert_eq!(gateway.terminate().await.code, Some(0));
    let output = cli::run(&["healthcheck", "--address", &grpc], &[]).await;
    assert_eq!(output.code, Some(1));
    let stderr = output.stderr;
    assert!(stderr.starts_with(&grpc) && stderr.lines().count() == 1, "{stderr}");
    let demo = cli::run(&["demo", "--target", &grpc], &[]).await;
    assert_eq!(demo.code, Some(1));
}

#[tokio::test]
async fn an_unreadable_secret_file_fails_the_start_of_the_sandbox() {
    let path = "/nonexistent/password";
    for command in [&["sandbox"][..], &["serve", "--sandbox"]] {
        let arguments = [command, &["--sandbox.uws_password_file", path]].concat();
        let output = cli::run(&arguments, &[]).await;
        assert_eq!(output.code, Some(78), "{output:?}");
        let cause = format!("cannot read the secret in {path}: ");
        assert!(output.stderr.contains(&cause), "{output:?}");
    }
}

#[tokio::test]
async fn the_last_line_of_the_demo_counts_every_device_of_all_changes() {
    let demo = cli::run(&["demo", "--devices", "250", "--json"], &[]).await;
    assert_eq!(demo.code, Some(0), "{demo:?}");
    let report = demo.last_line_json();
    let changes = report["changes"].as_array().unwrap();
    let types: Vec<&str> =
        changes.iter().filter_map(|change| change["change_type"].as_str()).collect();
    assert_eq!(
        types,
        ["CHANGE_TYPE_ESIM_PLAN", "CHANGE_TYPE_FIVE_G_BI_PLAN", "CHANGE_TYPE_SERVICE_PLAN"]
    );
    for change in changes {
        let count = |name: &str| change[name].as_u64().unwrap();
        assert_eq!(count("succeeded") + count("failed"), 250, "{change}");
        assert_eq!((count("devices"), count("duplicates"), count("missing")), (250, 0, 0));
        assert_eq!(change["request_ids"].as_array().unwrap().len(), 1);
    }
    assert!(Duration::from_millis(report["elapsed_ms"].as_u64().unwrap()) < TEST_TIMEOUT);
}

#[tokio::test]
async fn the_demo_shows_a_failure_a_resumed_watch_duplicates_and_a_retry_that_sends_nothing() {
    let demo = cli::run(&["demo"], &[]).await;
    assert_eq!(demo.code, Some(0), "{demo:?}");
    let out = demo.stdout;
    for part in [
        "ChangeEsimPlan with 12 devices: change ",
        "FAILED     UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
        "The connection is cut after 6 results. A new watch resumes with the last token:",
        "The change is finished: 12 results, 0 missing, 0 repeated.",
        "The gateway returned the same change. Requests sent to ThingSpace: 1.",
        "ChangeFiveGBiPlan with 12 devices: change ",
        "FAILED     UnifiedWebService.REQUEST_FAILED.AddressNotQualified",
        "ChangeServicePlan with 12 devices: change ",
        "Callbacks that arrived twice: 6. Clients received each result once.",
        "CHANGE TYPE ",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "no escape codes: {out}");
    let report: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    for change in report["changes"].as_array().unwrap() {
        assert_eq!((&change["succeeded"], &change["failed"]), (&10.into(), &2.into()));
    }
}
