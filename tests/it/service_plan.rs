//! `ChangeServicePlan`, from the request to the last result. What it shares with the other operations is
//! tested with those.

use serde_json::json;
use thingspace_gateway::proto::{
    ChangeState, ChangeType, DeviceOutcome, ListChangesRequest, ListDevicesRequest, Outcome,
    Source, watch_request_response::Event,
};
use tonic::Code;

use crate::support::{
    env::TestEnv,
    gateway::Setup,
    history::WatchRecorder,
    http::read_metrics,
    requests::{
        ACCOUNT, FIVE_G_BI_PLAN, change_ids, esim, five_g_bi, make_change, meid, parse_error,
        service_plan, until_caught_up, watch_change, watch_key,
    },
    thingspace::{CallKind, FIVE_G_BI_PLAN_PATH, device_list, listed_device, request_status},
};

#[tokio::test]
async fn a_service_plan_change_is_sent_as_documented_and_finished_by_its_callbacks() {
    let env = TestEnv::start().await;
    env.change(esim("another type", [9])).await;
    let change = env.change_as("r", service_plan("k", 0..2)).await;
    assert_eq!(change.change_type(), ChangeType::ServicePlan);
    let sent = &env.thingspace.requests_to(FIVE_G_BI_PLAN_PATH)[0];
    assert_eq!(sent.method, "PUT");
    let device = |number| json!({"deviceIds": [{"kind": "MEID", "id": meid(number)}]});
    let expected = json!({
        "devices": [device(0), device(1)],
        "accountName": ACCOUNT,
        "servicePlan": FIVE_G_BI_PLAN,
    });
    assert_eq!(sent.json(), expected);

    let watch = env.watch(watch_change(&change)).await;
    env.deliver_five_g_bi("r", 0..2).await;
    let transcript = watch.read_to_end().await;
    assert_eq!(transcript.last_summary(), "finished FINISHED");
    let results = transcript.results();
    assert_eq!(results[1].device_index, Some(1));
    assert_eq!(results[1].client_reference, "row-1");

    let filter = ListChangesRequest {
        change_types: vec![ChangeType::ServicePlan.into()],
        ..ListChangesRequest::default()
    };
    let listed = env.client.clone().list_changes(filter).await.unwrap();
    let listed = listed.into_inner().changes;
    assert_eq!(change_ids(&listed), [change.change_id.as_str()]);
    let devices =
        ListDevicesRequest { change_id: change.change_id, ..ListDevicesRequest::default() };
    let devices = env.client.clone().list_devices(devices).await.unwrap();
    let devices = devices.into_inner().devices;
    assert_eq!(devices.len(), 2);
    assert!(devices.iter().all(|one| one.outcome() == DeviceOutcome::Succeeded));

    let metrics = read_metrics(&env.gateway).await;
    let calls = "rpc_method=\"thingspace.gateway.v1.GatewayService/ChangeServicePlan\"";
    assert!(metrics.contains(calls), "{metrics}");
}

#[tokio::test]
async fn the_key_and_the_devices_are_protected_against_other_operations() {
    let env = TestEnv::start().await;
    let first = env.change_with_lost_response(service_plan("k", [0])).await;
    let again = env.change(service_plan("k", [0])).await;
    assert_eq!(again.change_id, first.change_id);
    assert_eq!(env.thingspace.requests_to(FIVE_G_BI_PLAN_PATH).len(), 1);

    let reused = parse_error(&env.change_error(five_g_bi("k", [0])).await);
    assert_eq!(reused.reason, "IDEMPOTENCY_KEY_REUSED");
    let busy = parse_error(&env.change_error(five_g_bi("other", [0])).await);
    let expected = (Code::FailedPrecondition, "DEVICE_BUSY", "LATER", Some("NO"));
    assert_eq!(busy.summary(), expected);
}

#[tokio::test]
async fn a_lost_response_is_attributed_unless_another_operation_can_have_made_the_request() {
    let env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", "100ms")).await;
    env.change_with_lost_response(service_plan("lost", [0, 1])).await;
    env.deliver_five_g_bi("r-lost", [0, 1]).await;
    let last = env.record(watch_key("lost")).await.last_summary();
    assert_eq!(last, "finished FINISHED");

    // The 5G device was sent by its MDN only, so no value contradicts that it is device 2.
    let mut rival = five_g_bi("rival", [7]);
    rival.devices[0].device_ids[0].kind = "mdn".into();
    rival.devices[0].device_ids[0].id = "5125550142".into();
    env.change_with_lost_response(rival).await;
    env.change_with_lost_response(service_plan("ambiguous", [2])).await;
    env.deliver_five_g_bi("r-ambiguous", [2]).await;
    // A later request is attributed, so the one above was processed.
    env.thingspace.respond_always(CallKind::Status, request_status("Success", [(8, "Success")]));
    env.change_with_lost_response(esim("next", [8])).await;
    env.deliver_esim("r-next", [8]).await;
    let last = env.record(watch_key("next")).await.last_summary();
    assert_eq!(last, "finished FINISHED");
    assert_eq!(env.state("ambiguous").await, ChangeState::OutcomeUnknown);
}

#[tokio::test]
async fn missing_results_are_looked_up_in_the_device_list() {
    let env = TestEnv::start_with(|setup| setup.set("changes.reconcile_after", "1s")).await;
    let listed = |numbers: &[usize]| {
        let device = |number: &usize| listed_device(&[("meid", &meid(*number))], FIVE_G_BI_PLAN);
        let devices: Vec<_> = numbers.iter().map(device).collect();
        device_list(devices)
    };
    // Device 1 is on the plan before the change is sent.
    env.thingspace.respond_once(CallKind::Devices, listed(&[1]));
    env.thingspace.respond_always(CallKind::Devices, listed(&[0, 1]));
    let change = env.change(service_plan("k", 0..3)).await;
    env.wait_for_pending(watch_change(&change), "k", 2).await;
    let transcript = env.record(until_caught_up(watch_key("k"))).await;
    let found: Vec<_> = transcript
        .results()
        .into_iter()
        .map(|result| (result.device_index, result.outcome(), result.source()))
        .collect();
    assert_eq!(found, [(Some(0), Outcome::Succeeded, Source::Reconciled)]);
}

#[tokio::test]
async fn results_beyond_the_first_page_of_the_device_list_are_found() {
    // Two pages of the list.
    const DEVICES: usize = 2_100;
    let setup = Setup::sandbox().set("changes.reconcile_after", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let mut request = service_plan("k", 0..DEVICES);
    for (number, device) in request.devices.iter_mut().enumerate() {
        // The sandbox executes the change and never sends the callback.
        device.device_ids[0].id = format!("FF00000F31{number:04}");
    }
    make_change(&mut client, request).await;
    let mut watch = WatchRecorder::open(&mut client, watch_key("k")).await;
    let finished = loop {
        match watch.next().await.expect("finished") {
            Event::DeviceResult(result) => assert_eq!(result.source(), Source::Reconciled),
            Event::Finished(finished) => break finished.change.expect("a change"),
            _ => {}
        }
    };
    assert_eq!(finished.state(), ChangeState::Finished);
    assert_eq!(usize::try_from(finished.succeeded_count), Ok(DEVICES));
}
