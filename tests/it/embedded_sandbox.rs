//! `serve --sandbox`: changes, callbacks and watches against the embedded sandbox.

use thingspace_gateway::proto::{
    self, ChangeEsimPlanRequest, DeviceOutcome, EsimDevice, ListDevicesRequest, Source,
    WatchRequestRequest, watch_request_response::Event,
};

use crate::{
    guarantees::{self, History, MessageKind, Recording},
    support::{
        gateway::{Gateway, Setup, TestDir},
        history::{WatchRecorder, reference},
        http::http_get_json,
        requests::{ACCOUNT, make_change},
        wait::in_time,
    },
};

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

/// Watches to the end. Cuts the stream after a random number of messages and resumes it with its last
/// token.
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
async fn resumed_watches_see_all_results_of_a_change_under_the_seven_guarantees() {
    let mut gateway = Setup::sandbox()
        .set("sandbox.failure_rate", "0.2")
        .set("sandbox.duplicate_rate", "0.3")
        .set("sandbox.order", "shuffled")
        .set("sandbox.answer_delay", "100ms")
        .start()
        .await;
    let mut client = gateway.client().await;
    let change_id = make_change(&mut client, change()).await.change_id;
    let following = (0..WATCHERS).map(|seed| follow(&gateway, seed));
    let recordings = in_time(futures_util::future::join_all(following)).await;
    let recordings: Vec<Recording> = recordings.concat();

    let whole = reference(&mut client, watch(String::new())).await;
    let history = History::new(&whole.messages, &recordings);
    guarantees::check(&history).unwrap();
    let results = whole.messages.iter().filter(
        |message| matches!(&message.kind, MessageKind::Event(event) if !event.contains(&change_id)),
    );
    assert_eq!(results.count(), DEVICES, "one result a device, however often it was sent");

    let ledger = format!("http://{}/sandbox/ledger", gateway.sandbox.unwrap());
    let ledger = http_get_json(&ledger).await;
    let changes = ledger["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0]["devices"], DEVICES);
    assert!(changes[0]["callbacks"]["duplicates"].as_u64().unwrap() > 100, "{ledger}");
    let change = proto::GetChangeRequest { change_id, ..proto::GetChangeRequest::default() };
    let change = client.get_change(change).await.unwrap().into_inner().change.unwrap();
    assert_eq!(changes[0]["callbacks"]["failed_devices"], change.failed_count);
    assert_eq!(change.succeeded_count + change.failed_count, i32::try_from(DEVICES).unwrap());
    assert_eq!(gateway.terminate().await.code, Some(0));
}

/// Number of each scenario with a final result, and true if the result is a success.
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
async fn every_scenario_with_a_final_result_delivers_it_to_a_client_of_the_gateway() {
    let mut gateway = Setup::sandbox()
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
    let request = ChangeEsimPlanRequest { devices: devices.collect(), ..change() };
    client.change_esim_plan(request).await.unwrap();
    let mut stream = client.watch_request(watch(String::new())).await.unwrap().into_inner();
    let mut ended = std::collections::BTreeMap::new();
    while let Some(message) = in_time(stream.message()).await.unwrap() {
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
    assert_eq!(gateway.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_devices_have_the_outcomes_of_the_sandboxs_ledger() {
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
        let message = in_time(stream.message()).await.unwrap();
        if let Some(Event::Finished(finished)) = message.unwrap().event {
            break finished.change.unwrap();
        }
    };
    assert!(change.done && change.pending_count == 0 && change.unmatched_count == 0);

    let ledger = format!("http://{}/sandbox/ledger", gateway.sandbox.unwrap());
    let ledger = http_get_json(&ledger).await;
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
    assert_eq!((succeeded, failed), (change.succeeded_count, change.failed_count));
    assert!(failed > 1_000 && looked_up > 100, "{failed} {looked_up}");
}

#[tokio::test]
async fn a_journal_works_with_a_new_sandbox_after_a_restart() {
    let directory = TestDir::new();
    let dir = directory.path().to_string_lossy().into_owned();
    let setup = Setup::sandbox().set("journal.dir", &dir);
    for key in ["first", "second"] {
        let mut gateway = setup.start().await;
        let mut client = gateway.client().await;
        let request = ChangeEsimPlanRequest { idempotency_key: key.into(), ..change() };
        client.change_esim_plan(request).await.unwrap();
        let request = WatchRequestRequest { idempotency_key: key.into(), ..watch(String::new()) };
        let mut stream = client.watch_request(request).await.unwrap().into_inner();
        let mut finished = false;
        while let Some(message) = in_time(stream.message()).await.unwrap() {
            finished = matches!(message.event, Some(Event::Finished(_)));
        }
        assert!(finished, "{key}");
        assert_eq!(gateway.terminate().await.code, Some(0));
    }
}
