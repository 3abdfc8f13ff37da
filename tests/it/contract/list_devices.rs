//! ListDeviceResults and ListDevices.

use serde_json::json;
use thingspace_gateway::proto::{
    Change, ChangeState, DeviceOutcome, ListDeviceResultsRequest, ListDevicesRequest, Outcome,
};

use super::{REQUEST, UNKNOWN_ID};
use crate::support::{
    env::TestEnv,
    gateway::Client,
    requests::{deliver, eid, esim, esim_callback, esim_failure, iccid, id, outcomes, parse_error},
};

#[tokio::test]
async fn results_and_devices_are_listed_by_outcome_and_identifier() {
    let mut env = TestEnv::start().await;
    let change = env.change_as(REQUEST, esim("key", 0..5)).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let mut interim = esim_callback(REQUEST, 3);
    interim["status"] = json!("warning");
    deliver(&url, &interim).await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    deliver(&url, &esim_failure(REQUEST, 0)).await;

    async fn results(client: &mut Client, mut request: ListDeviceResultsRequest) -> Vec<String> {
        let mut results = Vec::new();
        loop {
            let response = client.list_device_results(request.clone()).await;
            let page = response.unwrap().into_inner();
            let rows = page.device_results.len();
            assert!(request.page_size == 0 || rows <= usize::try_from(request.page_size).unwrap());
            results.extend(page.device_results.iter().map(|result| {
                assert_eq!(result.request_id, REQUEST);
                assert_eq!(result.raw_json.is_empty(), !request.include_raw);
                assert_eq!(result.callback_service, "DeviceProfileService");
                let outcome = result.outcome().as_str_name();
                format!("{} {outcome}", result.device_index.unwrap())
            }));
            if page.next_page_token.is_empty() {
                return results;
            }
            request.page_token = page.next_page_token;
        }
    }
    let of = || ListDeviceResultsRequest {
        change_id: change.change_id.clone(),
        ..ListDeviceResultsRequest::default()
    };
    let (interim, succeeded, failed) =
        ("3 OUTCOME_INTERIM", "1 OUTCOME_SUCCEEDED", "0 OUTCOME_FAILED");
    for page_size in [0, 1, 2] {
        let of = || ListDeviceResultsRequest { page_size, ..of() };
        for (request, expected) in [
            (of(), vec![interim, succeeded, failed]),
            (
                ListDeviceResultsRequest {
                    change_id: String::new(),
                    request_id: REQUEST.into(),
                    include_raw: true,
                    ..of()
                },
                vec![interim, succeeded, failed],
            ),
            (
                ListDeviceResultsRequest { outcomes: outcomes(&[Outcome::Failed]), ..of() },
                vec![failed],
            ),
            (
                ListDeviceResultsRequest {
                    outcomes: outcomes(&[Outcome::Succeeded, Outcome::Failed]),
                    ..of()
                },
                vec![succeeded, failed],
            ),
            (
                ListDeviceResultsRequest {
                    outcomes: outcomes(&[Outcome::Unspecified]),
                    device: Some(id("Iccid", iccid(3))),
                    ..of()
                },
                vec![interim],
            ),
            (ListDeviceResultsRequest { device: Some(id("eid", eid(0))), ..of() }, vec![failed]),
        ] {
            let listed = results(&mut env.client, request.clone()).await;
            assert_eq!(listed, expected, "{request:?}");
        }
    }
    // A request without a change has no results. A missing change is an error.
    let unowned = ListDeviceResultsRequest {
        request_id: UNKNOWN_ID.into(),
        ..ListDeviceResultsRequest::default()
    };
    assert!(results(&mut env.client, unowned).await.is_empty());
    let missing = ListDeviceResultsRequest { change_id: UNKNOWN_ID.into(), ..of() };
    let status = env.client.list_device_results(missing).await.unwrap_err();
    assert_eq!(parse_error(&status).reason, "CHANGE_NOT_FOUND");

    devices_are_listed_by_outcome_and_identifier(&mut env.client, &change).await;
    let now = env.get("key").await;
    let counts = (now.succeeded_count, now.failed_count, now.pending_count);
    assert_eq!((now.state(), counts), (ChangeState::Accepted, (1, 1, 3)));
    assert!(!now.done);
}

/// Checks ListDevices on a change of five devices: 0 failed, 1 succeeded, 3 has an interim result.
async fn devices_are_listed_by_outcome_and_identifier(client: &mut Client, change: &Change) {
    use DeviceOutcome::{Failed, Pending, Succeeded};

    async fn devices(client: &mut Client, mut request: ListDevicesRequest) -> Vec<String> {
        let mut devices = Vec::new();
        loop {
            let response = client.list_devices(request.clone()).await;
            let page = response.unwrap().into_inner();
            let rows = page.devices.len();
            assert!(request.page_size == 0 || rows <= usize::try_from(request.page_size).unwrap());
            devices.extend(page.devices.iter().map(|device| {
                let number = usize::try_from(device.device_index).unwrap();
                let sent = [id("eid", eid(number)), id("iccid", iccid(number))];
                assert_eq!(device.sent_ids, sent);
                assert_eq!(device.client_reference, format!("row-{number}"));
                let result = device.result.as_ref();
                assert_eq!(result.is_none(), device.outcome() == Pending);
                assert!(
                    result.is_none_or(|result| result.device_index == Some(device.device_index))
                );
                format!("{number} {}", device.outcome().as_str_name())
            }));
            if page.next_page_token.is_empty() {
                return devices;
            }
            request.page_token = page.next_page_token;
        }
    }
    let all = [Failed, Succeeded, Pending, Pending, Pending];
    let rows = |selected: &[DeviceOutcome]| -> Vec<String> {
        let rows = all.iter().enumerate();
        rows.filter(|(_, outcome)| selected.contains(outcome))
            .map(|(index, outcome)| format!("{index} {}", outcome.as_str_name()))
            .collect()
    };
    let outcomes = |outcomes: &[DeviceOutcome]| outcomes.iter().map(|one| (*one).into()).collect();
    for page_size in [0, 1, 2] {
        let of = || ListDevicesRequest {
            change_id: change.change_id.clone(),
            page_size,
            ..ListDevicesRequest::default()
        };
        assert_eq!(devices(client, of()).await, rows(&all));
        for selected in
            [&[Pending][..], &[Succeeded], &[Failed], &[Succeeded, Failed], &[Failed, Pending]]
        {
            let request = ListDevicesRequest { outcomes: outcomes(selected), ..of() };
            assert_eq!(devices(client, request).await, rows(selected), "{selected:?}");
        }
        let request = ListDevicesRequest {
            outcomes: outcomes(&[DeviceOutcome::Unspecified, Failed]),
            ..of()
        };
        assert_eq!(devices(client, request).await, rows(&all));
        let request = ListDevicesRequest { device: Some(id("Iccid", iccid(1))), ..of() };
        assert_eq!(devices(client, request.clone()).await, rows(&[Succeeded]));
        let request = ListDevicesRequest { outcomes: outcomes(&[Pending]), ..request };
        assert!(devices(client, request).await.is_empty());
    }
    for (request, reason) in [
        (ListDevicesRequest::default(), "FIELD_INVALID"),
        (
            ListDevicesRequest { change_id: UNKNOWN_ID.into(), ..ListDevicesRequest::default() },
            "CHANGE_NOT_FOUND",
        ),
        (
            ListDevicesRequest {
                change_id: change.change_id.clone(),
                outcomes: vec![9],
                ..ListDevicesRequest::default()
            },
            "FIELD_INVALID",
        ),
    ] {
        let status = client.list_devices(request).await.unwrap_err();
        assert_eq!(parse_error(&status).reason, reason);
    }
}
