//! Changes and results by their names, and in lists.

use serde_json::json;
use thingspace_gateway::proto::{
    Change, ChangeState, DeviceOutcome, GetChangeRequest, ListChangesRequest,
    ListDeviceResultsRequest, ListDevicesRequest, Outcome, WatchRequestRequest,
};
use tonic::Code;

use super::{REQUEST, UNKNOWN_ID};
use crate::support::{
    gateway::{Client, Setup, TestDir},
    requests::{
        ACCOUNT, Watch, change_esim, change_five_g_bi, change_ids, deliver, eid, esim,
        esim_callback, esim_failure, expect_esim_error, five_g_bi, get_by_key, iccid, id, meid,
        outcomes, parse_error, states, watch_key,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

#[tokio::test]
async fn a_change_is_found_by_each_of_its_names_and_by_no_two_at_once() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("key", [1])).await;
    assert_eq!(change.service_plan, "service plan name");
    assert_eq!(
        (&*change.account_name, &*change.client_reference),
        (ACCOUNT, "job-7")
    );
    for time in [
        &change.create_time,
        &change.dispatch_time,
        &change.accept_time,
    ] {
        assert!(time.is_some(), "{change:?}");
    }

    let by = |change_id: &str, request_id: &str, account: &str, key: &str| GetChangeRequest {
        change_id: change_id.into(),
        request_id: request_id.into(),
        account_name: account.into(),
        idempotency_key: key.into(),
    };
    for request in [
        by(&change.change_id, "", "", ""),
        by("", REQUEST, "", ""),
        by("", "", ACCOUNT, "key"),
    ] {
        let answer = client.get_change(request).await.unwrap().into_inner();
        assert_eq!(answer.change.as_ref(), Some(&change));
    }
    for (request, field) in [
        (by("", "", "", ""), "change_id"),
        (by(&change.change_id, REQUEST, "", ""), "request_id"),
        (by("", REQUEST, ACCOUNT, "key"), "idempotency_key"),
        (by("", "", ACCOUNT, ""), "idempotency_key"),
        (by("", "", "", "key"), "account_name"),
        (by("no-uuid", "", "", ""), "change_id"),
    ] {
        let error = parse_error(&client.get_change(request.clone()).await.unwrap_err());
        let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", None);
        assert_eq!(
            (error.summary(), &*error.fields[0]),
            (expected, field),
            "{request:?}"
        );
    }
    let missing = (Code::NotFound, "CHANGE_NOT_FOUND", "NEVER", None);
    for request in [
        by(UNKNOWN_ID, "", "", ""),
        by("", UNKNOWN_ID, "", ""),
        by("", "", ACCOUNT, "another"),
        by("", "", "0000654321-00001", "key"),
    ] {
        let status = client.get_change(request.clone()).await.unwrap_err();
        assert_eq!(parse_error(&status).summary(), missing, "{request:?}");
    }
    let watch = WatchRequestRequest {
        change_id: UNKNOWN_ID.into(),
        ..WatchRequestRequest::default()
    };
    for request in [watch, watch_key("another")] {
        let status = Watch::try_open(&mut client, request).await.err().unwrap();
        assert_eq!(parse_error(&status).summary(), missing);
    }
}

#[tokio::test]
async fn changes_are_listed_newest_first_by_filter_and_page() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    let a = change_esim(&mut client, esim("a", [1, 2])).await;
    let mut elsewhere = five_g_bi("b", [1]);
    elsewhere.account_name = "0000654321-00001".into();
    let b = change_five_g_bi(&mut client, elsewhere).await;
    thingspace.respond_once(
        CallKind::Change,
        FakeResponse::error(400, "X.REQUEST_FAILED.DeviceNotFound", ""),
    );
    expect_esim_error(&mut client, esim("c", [2, 3])).await;
    let d = change_esim(&mut client, esim("d", [40])).await;
    let c = get_by_key(&mut client, "c").await.unwrap();
    let all = [&d, &c, &b, &a].map(|change| change.change_id.clone());

    let filter = ListChangesRequest::default;
    for (what, request, expected) in [
        ("all", filter(), vec![&d, &c, &b, &a]),
        (
            "account",
            ListChangesRequest {
                account_name: ACCOUNT.into(),
                ..filter()
            },
            vec![&d, &c, &a],
        ),
        (
            "state",
            ListChangesRequest {
                states: states(&[ChangeState::Rejected]),
                ..filter()
            },
            vec![&c],
        ),
        (
            "states",
            ListChangesRequest {
                states: states(&[ChangeState::Rejected, ChangeState::Accepted]),
                ..filter()
            },
            vec![&d, &c, &b, &a],
        ),
        (
            "time",
            ListChangesRequest {
                create_time_after: b.create_time,
                create_time_before: d.create_time,
                ..filter()
            },
            vec![&c, &b],
        ),
        (
            "profile",
            ListChangesRequest {
                device: Some(id("ICCID", iccid(2))),
                ..filter()
            },
            vec![&c, &a],
        ),
        (
            "profile by its first 19 digits",
            ListChangesRequest {
                device: Some(id("iccid", &iccid(40)[..19])),
                ..filter()
            },
            vec![&d],
        ),
        (
            "eUICC",
            ListChangesRequest {
                device: Some(id("eid", eid(3))),
                ..filter()
            },
            vec![&c],
        ),
        (
            "5G device in another spelling",
            ListChangesRequest {
                device: Some(id("Meid", meid(1).to_lowercase())),
                ..filter()
            },
            vec![&b],
        ),
        (
            "everything at once",
            ListChangesRequest {
                account_name: ACCOUNT.into(),
                states: states(&[ChangeState::Accepted]),
                device: Some(id("iccid", iccid(2))),
                create_time_before: d.create_time,
                ..filter()
            },
            vec![&a],
        ),
    ] {
        let page = client.list_changes(request).await.unwrap().into_inner();
        let expected: Vec<&str> = expected.iter().map(|change| &*change.change_id).collect();
        assert_eq!(change_ids(&page.changes), expected, "{what}");
    }

    let mut request = ListChangesRequest {
        page_size: 1,
        ..filter()
    };
    let mut listed = Vec::new();
    loop {
        let page = client
            .list_changes(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.changes.len() <= 1);
        listed.extend(page.changes.into_iter().map(|change| change.change_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        if listed.len() == 1 {
            // What is made meanwhile moves no page.
            change_esim(&mut client, esim("e", [5])).await;
        }
    }
    assert_eq!(listed, all);
    let other_filter = ListChangesRequest {
        account_name: ACCOUNT.into(),
        ..request.clone()
    };
    let unreadable = ListChangesRequest {
        page_token: "!".into(),
        ..filter()
    };
    let negative = ListChangesRequest {
        page_size: -1,
        ..filter()
    };
    let unknown_kind = ListChangesRequest {
        device: Some(id("otaid", "1")),
        ..filter()
    };
    for (request, field) in [
        (other_filter, "page_token"),
        (unreadable, "page_token"),
        (negative, "page_size"),
        (unknown_kind, "device.kind"),
    ] {
        let error = parse_error(&client.list_changes(request).await.unwrap_err());
        let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", None);
        assert_eq!(
            (error.summary(), error.fields.as_slice()),
            (expected, &[field.to_owned()][..])
        );
    }
}

#[tokio::test]
async fn results_and_devices_are_listed_by_outcome_and_identifier() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("key", 0..5)).await;
    let url = gateway.callback_url("DeviceProfileService");
    let mut interim = esim_callback(REQUEST, 3);
    interim["status"] = json!("warning");
    deliver(&url, &interim).await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    deliver(&url, &esim_failure(REQUEST, 0)).await;

    async fn results(client: &mut Client, mut request: ListDeviceResultsRequest) -> Vec<String> {
        let mut results = Vec::new();
        loop {
            let answer = client.list_device_results(request.clone()).await;
            let page = answer.unwrap().into_inner();
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
    let (interim, succeeded, failed) = (
        "3 OUTCOME_INTERIM",
        "1 OUTCOME_SUCCEEDED",
        "0 OUTCOME_FAILED",
    );
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
                ListDeviceResultsRequest {
                    outcomes: outcomes(&[Outcome::Failed]),
                    ..of()
                },
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
            (
                ListDeviceResultsRequest {
                    device: Some(id("eid", eid(0))),
                    ..of()
                },
                vec![failed],
            ),
        ] {
            let listed = results(&mut client, request.clone()).await;
            assert_eq!(listed, expected, "{request:?}");
        }
    }
    // A request can exist without a change; a change that does not exist is an error.
    let unowned = ListDeviceResultsRequest {
        request_id: UNKNOWN_ID.into(),
        ..ListDeviceResultsRequest::default()
    };
    assert!(results(&mut client, unowned).await.is_empty());
    let missing = ListDeviceResultsRequest {
        change_id: UNKNOWN_ID.into(),
        ..of()
    };
    let status = client.list_device_results(missing).await.unwrap_err();
    assert_eq!(parse_error(&status).reason, "CHANGE_NOT_FOUND");

    devices_are_listed_by_outcome_and_identifier(&mut client, &change).await;
    let answer = client
        .get_change(GetChangeRequest {
            change_id: change.change_id.clone(),
            ..GetChangeRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    let now = answer.change.unwrap();
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
            let answer = client.list_devices(request.clone()).await;
            let page = answer.unwrap().into_inner();
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
    let rows = |wanted: &[DeviceOutcome]| -> Vec<String> {
        let rows = all.iter().enumerate();
        rows.filter(|(_, outcome)| wanted.contains(outcome))
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
        for wanted in [
            &[Pending][..],
            &[Succeeded],
            &[Failed],
            &[Succeeded, Failed],
            &[Failed, Pending],
        ] {
            let request = ListDevicesRequest {
                outcomes: outcomes(wanted),
                ..of()
            };
            assert_eq!(devices(client, request).await, rows(wanted), "{wanted:?}");
        }
        let request = ListDevicesRequest {
            outcomes: outcomes(&[DeviceOutcome::Unspecified, Failed]),
            ..of()
        };
        assert_eq!(devices(client, request).await, rows(&all));
        let request = ListDevicesRequest {
            device: Some(id("Iccid", iccid(1))),
            ..of()
        };
        assert_eq!(devices(client, request.clone()).await, rows(&[Succeeded]));
        let request = ListDevicesRequest {
            outcomes: outcomes(&[Pending]),
            ..request
        };
        assert!(devices(client, request).await.is_empty());
    }
    for (request, reason) in [
        (ListDevicesRequest::default(), "FIELD_INVALID"),
        (
            ListDevicesRequest {
                change_id: UNKNOWN_ID.into(),
                ..ListDevicesRequest::default()
            },
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
