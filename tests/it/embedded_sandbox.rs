//! `serve --sandbox` and `demo`: the whole path, as a client team runs it.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use thingspace_gateway::proto::{
    self, ChangeEsimPlanRequest, DeviceOutcome, EsimDevice, ListDevicesRequest, Source,
    WatchRequestRequest, watch_request_response::Event,
};
use tokio::{process::Command, time::timeout};

use crate::{
    guarantees::{self, History, MessageKind, Recording},
    support::{
        gateway::{Gateway, Setup, TEST_TIMEOUT, TestDir},
        history::{WatchRecorder, reference},
    },
};

const ACCOUNT: &str = "0000123456-00001";
const DEVICES: usize = 600;
const WATCHERS: u64 = 8;

fn change() -> ChangeEsimPlanRequest {
    change_request_for(DEVICES)
}

fn change_request_for(devices: usize) -> ChangeEsimPlanRequest {
    let devices = (0..devices).map(|number| EsimDevice {
        eid: format!("99{number:030}"),
        iccid: format!("9994{number:016}"),
        client_reference: format!("row-{number}"),
    });
    ChangeEsimPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: "Plan".into(),
        idempotency_key: "order-17".into(),
        devices: devices.collect(),
        ..ChangeEsimPlanRequest::default()
    }
}

fn watch(token: String) -> WatchRequestRequest {
    WatchRequestRequest {
        account_name: ACCOUNT.into(),
        idempotency_key: "order-17".into(),
        resume_token: token,
        until: proto::Until::Finished.into(),
        ..WatchRequestRequest::default()
    }
}

/// Watches to the end, cutting the stream now and then and resuming it with its
/// last token.
async fn follow(gateway: &Gateway, seed: u64) -> Vec<Recording> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = gateway.client().await;
    let mut recordings = Vec::new();
    let mut token = String::new();
    loop {
        let mut recorder = WatchRecorder::open(&mut client, watch(token.clone())).await;
        let mut left = random.usize(1..200);
        let finished = loop {
            match recorder.next().await {
                Some(Event::Finished(_)) => break true,
                Some(_) if left == 0 => break false,
                Some(_) => left -= 1,
                None => panic!("the stream ended early"),
            }
        };
        token = recorder.token();
        if finished {
            recordings.push(recorder.finish().await);
            return recordings;
        }
        recordings.push(recorder.cut());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_are_cut_and_resume_see_all_results_of_a_change_under_the_seven_guarantees() {
    let gateway = Setup::sandbox()
        .set("sandbox.failure_rate", "0.2")
        .set("sandbox.duplicate_rate", "0.3")
        .set("sandbox.order", "shuffled")
        .set("sandbox.answer_delay", "100ms")
        .start()
        .await;
    let mut client = gateway.client().await;
    let accepted = client
        .change_esim_plan(change())
        .await
        .unwrap()
        .into_inner();
    let change_id = accepted.change.unwrap().change_id;
    let following = (0..WATCHERS).map(|seed| follow(&gateway, seed));
    let recordings = timeout(TEST_TIMEOUT, futures_util::future::join_all(following)).await;
    let recordings: Vec<Recording> = recordings.expect("in time").concat();

    let whole = reference(&mut client, watch(String::new())).await;
    let history = History {
        reference: &whole.messages,
        streams: &recordings,
    };
    guarantees::check(&history).unwrap();
    let results = whole.messages.iter().filter(
        |message| matches!(&message.kind, MessageKind::Event(event) if !event.contains(&change_id)),
    );
    assert_eq!(
        results.count(),
        DEVICES,
        "one result a device, however often it was sent"
    );

    let ledger = format!(
        "http://{}/sandbox/ledger?identifiers=false",
        gateway.sandbox.unwrap()
    );
    let ledger: Value =
        serde_json::from_str(&reqwest::get(ledger).await.unwrap().text().await.unwrap()).unwrap();
    let changes = ledger["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["devices"], DEVICES);
    assert!(
        changes[0]["callbacks"]["duplicates"].as_u64().unwrap() > 100,
        "{ledger}"
    );
    let change = proto::GetChangeRequest {
        change_id,
        ..proto::GetChangeRequest::default()
    };
    let change = client
        .get_change(change)
        .await
        .unwrap()
        .into_inner()
        .change
        .unwrap();
    assert_eq!(
        changes[0]["callbacks"]["failed_devices"],
        change.failed_count
    );
    assert_eq!(
        change.succeeded_count + change.failed_count,
        i32::try_from(DEVICES).unwrap()
    );
    assert_eq!(gateway.terminate().await.0, Some(0));
}

/// Two digits of each scenario that ends in a result, and whether that is a success.
const FINAL_SCENARIOS: [(u8, bool); 14] = [
    (11, false),
    (21, false),
    (23, false),
    (34, true),
    (35, true),
    (37, true),
    (38, true),
    (41, true),
    (42, false),
    (43, false),
    (52, true),
    (54, true),
    (57, false),
    (58, true),
];

#[tokio::test]
async fn every_scenario_that_ends_in_a_result_ends_in_it_at_a_client_of_the_gateway() {
    let gateway = Setup::sandbox()
        .set("sandbox.late_delay", "200ms")
        .set("sandbox.interim_for", "50ms")
        .start()
        .await;
    let mut client = gateway.client().await;
    let devices = FINAL_SCENARIOS.iter().map(|(number, _)| EsimDevice {
        eid: format!("99{number:030}"),
        iccid: format!("99949{number}0000000000001"),
        client_reference: number.to_string(),
    });
    let request = ChangeEsimPlanRequest {
        devices: devices.collect(),
        ..change()
    };
    client.change_esim_plan(request).await.unwrap();
    let mut stream = client
        .watch_request(watch(String::new()))
        .await
        .unwrap()
        .into_inner();
    let mut ended = std::collections::BTreeMap::new();
    while let Some(message) = timeout(TEST_TIMEOUT, stream.message())
        .await
        .unwrap()
        .unwrap()
    {
        if let Some(Event::DeviceResult(result)) = message.event {
            let outcome = result.outcome();
            if outcome != proto::Outcome::Interim {
                let succeeded = outcome == proto::Outcome::Succeeded;
                let number: u8 = result.client_reference.parse().unwrap();
                assert_eq!(ended.insert(number, succeeded), None, "{number} twice");
            }
        }
    }
    assert_eq!(ended, FINAL_SCENARIOS.into_iter().collect());
    assert_eq!(gateway.terminate().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_devices_of_a_change_of_ten_thousand_have_the_outcomes_that_the_platform_has() {
    let gateway = Setup::sandbox()
        .set("sandbox.failure_rate", "0.2")
        .set("sandbox.duplicate_rate", "0.1")
        .set("sandbox.lost_rate", "0.02")
        .set("sandbox.order", "shuffled")
        .set("changes.reconcile_after", "1s")
        .set("thingspace.lookups_per_minute", "100000")
        .start()
        .await;
    let mut client = gateway.client().await;
    let request = change_request_for(10_000);
    client.change_esim_plan(request.clone()).await.unwrap();
    let stream = client.watch_request(watch(String::new())).await.unwrap();
    let mut stream = stream.into_inner();
    let change = loop {
        let message = timeout(TEST_TIMEOUT, stream.message())
            .await
            .unwrap()
            .unwrap();
        if let Some(Event::Finished(finished)) = message.unwrap().event {
            break finished.change.unwrap();
        }
    };
    assert!(change.done && change.pending_count == 0 && change.unmatched_count == 0);

    let ledger = format!("http://{}/sandbox/ledger", gateway.sandbox.unwrap());
    let ledger = reqwest::get(ledger).await.unwrap().text().await.unwrap();
    let ledger: Value = serde_json::from_str(&ledger).unwrap();
    let truth = ledger["changes"][0]["device_results"].as_array().unwrap();
    let mut request_devices = ListDevicesRequest {
        change_id: change.change_id.clone(),
        page_size: 1_000,
        ..ListDevicesRequest::default()
    };
    let (mut index, mut succeeded, mut failed, mut looked_up) = (0, 0, 0, 0);
    loop {
        let page = client.list_devices(request_devices.clone()).await.unwrap();
        let page = page.into_inner();
        for device in &page.devices {
            let sent = &request.devices[index];
            assert_eq!(device.device_index, i32::try_from(index).unwrap());
            assert_eq!(device.client_reference, sent.client_reference);
            assert_eq!(device.sent_ids[1].id, sent.iccid);
            let outcome = truth[index]["outcome"].as_str().unwrap();
            match device.outcome() {
                DeviceOutcome::Succeeded => succeeded += 1,
                DeviceOutcome::Failed => failed += 1,
                other => panic!("{index}: {other:?}"),
            }
            let expected = format!("DEVICE_OUTCOME_{}", outcome.to_uppercase());
            assert_eq!(device.outcome().as_str_name(), expected, "{index}");
            let source = device.result.as_ref().unwrap().source();
            let is_lost = truth[index]["lost"].as_bool().unwrap();
            assert_eq!(source == Source::Reconciled, is_lost, "{index}");
            looked_up += usize::from(is_lost);
            index += 1;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request_devices.page_token = page.next_page_token;
    }
    assert_eq!(index, 10_000);
    assert_eq!(
        (succeeded, failed),
        (change.succeeded_count, change.failed_count)
    );
    assert!(failed > 1_000 && looked_up > 100, "{failed} {looked_up}");
}

#[tokio::test]
async fn a_journal_works_with_a_new_sandbox_after_a_restart() {
    let directory = TestDir::new();
    let dir = directory.path().to_string_lossy().into_owned();
    let setup = Setup::sandbox().set("journal.dir", &dir);
    for key in ["first", "second"] {
        let gateway = setup.start().await;
        let mut client = gateway.client().await;
        let request = ChangeEsimPlanRequest {
            idempotency_key: key.into(),
            ..change()
        };
        client.change_esim_plan(request).await.unwrap();
        let request = WatchRequestRequest {
            idempotency_key: key.into(),
            ..watch(String::new())
        };
        let mut stream = client.watch_request(request).await.unwrap().into_inner();
        let mut finished = false;
        while let Some(message) = timeout(TEST_TIMEOUT, stream.message())
            .await
            .unwrap()
            .unwrap()
        {
            finished = matches!(message.event, Some(Event::Finished(_)));
        }
        assert!(finished, "{key}");
        assert_eq!(gateway.terminate().await.0, Some(0));
    }
}

async fn run(arguments: &[&str]) -> std::process::Output {
    let output = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output();
    timeout(TEST_TIMEOUT, output)
        .await
        .expect("in time")
        .expect("it runs")
}

#[tokio::test]
async fn healthcheck_and_demo_work_against_a_running_gateway() {
    let gateway = Setup::sandbox().start().await;
    let (grpc, admin) = (gateway.grpc.to_string(), gateway.admin.to_string());
    for asked in [&["--address", &grpc][..], &["--admin.listen", &admin]] {
        let healthy = run(&[&["healthcheck"], asked].concat()).await;
        assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");
        assert_eq!(healthy.stdout, b"SERVING\n");
    }
    let demo = run(&["demo", "--devices", "5", "--json", "--target", &grpc]).await;
    assert_eq!(demo.status.code(), Some(0), "{demo:?}");
    let report: Value = serde_json::from_slice(&demo.stdout).unwrap();
    assert_eq!(report["changes"][1]["missing"], 0);

    assert_eq!(gateway.terminate().await.0, Some(0));
    let gone = run(&["healthcheck", "--address", &grpc]).await;
    assert_eq!(gone.status.code(), Some(1));
    let stderr = String::from_utf8(gone.stderr).unwrap();
    assert!(
        stderr.starts_with(&grpc) && stderr.lines().count() == 1,
        "{stderr}"
    );
    let demo = run(&["demo", "--target", &grpc]).await;
    assert_eq!(demo.status.code(), Some(1));
}

#[tokio::test]
async fn the_demo_ends_with_one_line_that_accounts_for_every_device_of_both_changes() {
    let demo = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"))
        .args(["demo", "--devices", "250", "--json"])
        .stdin(Stdio::null())
        .output();
    let output = timeout(TEST_TIMEOUT, demo)
        .await
        .expect("in time")
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let changes = report["changes"].as_array().unwrap();
    let types: Vec<&str> = changes
        .iter()
        .filter_map(|change| change["change_type"].as_str())
        .collect();
    assert_eq!(
        types,
        ["CHANGE_TYPE_ESIM_PLAN", "CHANGE_TYPE_FIVE_G_BI_PLAN"]
    );
    for change in changes {
        let count = |name: &str| change[name].as_u64().unwrap();
        assert_eq!(count("succeeded") + count("failed"), 250, "{change}");
        assert_eq!(
            (count("devices"), count("duplicates"), count("missing")),
            (250, 0, 0)
        );
        assert_eq!(change["request_ids"].as_array().unwrap().len(), 1);
    }
    assert!(Duration::from_millis(report["elapsed_ms"].as_u64().unwrap()) < TEST_TIMEOUT);
}

#[tokio::test]
async fn the_demo_shows_a_failure_a_resumed_watch_duplicates_and_a_retry_that_sends_nothing() {
    let demo = run(&["demo"]).await;
    assert!(demo.status.success(), "{demo:?}");
    let out = String::from_utf8(demo.stdout).unwrap();
    for part in [
        "ChangeEsimPlan with 12 devices: change ",
        "FAILED     UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
        "The connection is cut after 6 results. A new watch resumes with the last token:",
        "The change is finished: 12 results, 0 missing, 0 repeated.",
        "The gateway returned the same change. Requests sent to ThingSpace: 1.",
        "ChangeFiveGBiPlan with 12 devices: change ",
        "FAILED     UnifiedWebService.REQUEST_FAILED.AddressNotQualified",
        "Callbacks that arrived twice: 4. Clients received each result once.",
        "CHANGE TYPE ",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains('\u{1b}'), "no escape codes: {out}");
    let report: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    for change in report["changes"].as_array().unwrap() {
        assert_eq!(
            (&change["succeeded"], &change["failed"]),
            (&10.into(), &2.into())
        );
    }
}

#[tokio::test]
async fn the_scenarios_are_listed_as_the_manual_has_them_and_as_json() {
    let table = run(&["sandbox", "scenarios"]).await;
    assert_eq!(table.status.code(), Some(0), "{table:?}");
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(document("sandbox.md").contains(table.trim_end()));

    let listed = run(&["sandbox", "scenarios", "--json"]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len() + 2, table.lines().count());
    let lost = listed.iter().find(|one| one["name"] == "lost").unwrap();
    assert_eq!(lost["identifiers"][0]["kind"], "iccid");
    assert_eq!(lost["identifiers"][0]["prefix"], "9994931");
    assert_eq!(lost["identifiers"][0]["serial_digits"], 13);
}

#[test]
fn the_sandboxs_manual_has_every_setting_of_the_sandbox_with_its_default() {
    let (settings, manual) = (document("settings.md"), document("sandbox.md"));
    let rows = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with("| `sandbox."));
        rows.map(str::to_owned).collect()
    };
    let keys = |row: &String| -> Vec<String> {
        let cell = row.split('|').nth(1).unwrap_or_default().to_owned();
        let keys = cell.split('`').skip(1).step_by(2);
        keys.filter(|key| !key.ends_with("_file"))
            .map(str::to_owned)
            .collect()
    };
    let default = |row: &str| row.split('|').nth(2).unwrap_or_default().trim().to_owned();
    let of_manual = rows(&manual);
    for row in rows(&settings) {
        for key in keys(&row) {
            let mut found = of_manual.iter().filter(|one| keys(one).contains(&key));
            let found = found.next().unwrap_or_else(|| panic!("{key} is in no row"));
            let known = default(&row);
            assert!(
                known == "not set" || default(found) == known,
                "{key}: {found}"
            );
        }
    }
    let known: Vec<String> = rows(&settings).iter().flat_map(keys).collect();
    for key in of_manual.iter().flat_map(keys) {
        assert!(known.contains(&key), "{key} is no setting");
    }
}

fn document(name: &str) -> String {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}
