//! Plans, request status and the device list.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{
    ACCOUNT, Harness, body_with_status, esim_change, esim_change_with_scenarios,
    five_g_change_with_scenarios, quick, text,
};
use super::{ESIM, PLAN, kinds, members};
use crate::Settings;

const LIST: &str = "/m2m/v1/devices/actions/list";

fn status_path(version: &str, request_id: &str) -> String {
    format!("/m2m/{version}/accounts/{ACCOUNT}/requests/{request_id}/status")
}

fn plan_of(device: &Value) -> &str {
    device["carrierInformations"][0]["servicePlan"].as_str().unwrap()
}

async fn plan_by(harness: &Harness, kind: &str, id: &str) -> String {
    let request = json!({ "deviceId": { "kind": kind, "id": id } });
    let listed = harness.post(LIST, &request, 200).await;
    plan_of(&listed["devices"][0]).to_owned()
}

#[tokio::test]
async fn plans_have_names_and_codes_that_differ() {
    let harness = Harness::start(quick()).await;
    let plans = harness.get(&format!("/m2m/v1/plans/{ACCOUNT}")).await;
    for plan in plans.as_array().unwrap() {
        let expected = ["name", "code", "sizeKb", "carrierServicePlanCode", "extendedAttributes"];
        assert_eq!(members(plan), expected);
        assert_ne!(plan["name"], plan["code"]);
    }
    assert_eq!(plans[0]["code"], "M2MSHR5GB");
    harness.stop().await;
}

#[tokio::test]
async fn request_status_v1_rejects_plan_changes_and_v2_reports_esim_changes() {
    let harness = Harness::start(quick()).await;
    let request =
        harness.change(ESIM, &esim_change_with_scenarios(&["", "fault_state", "lost"])).await;
    let five_g = harness.change(PLAN, &five_g_change_with_scenarios(&[""])).await;
    harness.wait_for_callbacks().await;
    for path in [
        status_path("v1", &request),
        status_path("v2", &five_g),
        status_path("v2", "d1f08526-5443-4054-9a29-4456490ea9f8"),
    ] {
        let refused = body_with_status(harness.call(Method::GET, &path, None).await, 400).await;
        assert_eq!(members(&refused), ["errorCode", "errorMessage"]);
        assert_eq!(refused["errorCode"] == "400", path.contains("/v2/"));
    }
    let status = harness.get(&status_path("v2", &request)).await;
    assert_eq!(members(&status), ["requestId", "status", "subRequests"]);
    assert_eq!((&status["requestId"], &status["status"]), (&json!(request), &json!("Failed")));
    let each = status["subRequests"].as_array().unwrap();
    let statuses: Vec<_> = each.iter().map(|one| one["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["Success", "Failed", "Success"]);
    assert_eq!(kinds(&each[0]["ids"]), ["eid", "iccid"]);
    let other = format!("/m2m/v2/accounts/0000123456-00002/requests/{request}/status");
    body_with_status(harness.call(Method::GET, &other, None).await, 400).await;
    harness.stop().await;
}

#[tokio::test]
async fn a_plan_changes_when_its_callback_is_due_and_not_on_failure() {
    let harness = Harness::start(quick()).await;
    let (plain, lost, failed) = ("A1000000000000", "FF00000F310001", "FF00000F320002");
    assert_eq!(plan_by(&harness, "meid", plain).await, "Sandbox Initial Plan");
    harness.change(PLAN, &five_g_change_with_scenarios(&["", "lost", "lost_and_failed"])).await;
    harness.wait_for_callbacks().await;
    assert_eq!(plan_by(&harness, "MEID", plain).await, "NEWCODE");
    assert_eq!(plan_by(&harness, "meid", lost).await, "NEWCODE");
    assert_eq!(plan_by(&harness, "meid", failed).await, "Sandbox Initial Plan");
    harness.stop().await;

    let harness = Harness::start(Settings {
        callback_delay: Duration::from_secs(24 * 3600),
        initial_plan: "Old".into(),
        ..quick()
    })
    .await;
    harness.change(PLAN, &five_g_change_with_scenarios(&[""])).await;
    assert_eq!(plan_by(&harness, "meid", plain).await, "Old");
    harness.stop().await;
}

#[tokio::test]
async fn a_device_already_on_the_plan_is_listed_before_and_after_the_change() {
    let harness = Harness::start(quick()).await;
    let on_plan = async || {
        let request = json!({ "accountName": ACCOUNT, "servicePlan": "NEWCODE" });
        let listed = harness.post(LIST, &request, 200).await;
        listed.to_string().contains("FF00000F330000")
    };
    assert!(on_plan().await);
    harness.change(PLAN, &five_g_change_with_scenarios(&["lost_already_on_plan"])).await;
    let ledger = harness.wait_for_callbacks().await;
    assert_eq!(ledger["changes"][0]["device_results"][0]["outcome"], "failed");
    assert_eq!(plan_by(&harness, "meid", "FF00000F330000").await, "NEWCODE");
    assert!(on_plan().await);
    harness.stop().await;
}

#[tokio::test]
async fn a_listed_device_has_all_documented_members_and_its_identifiers() {
    let harness = Harness::start(quick()).await;
    harness.change(PLAN, &five_g_change_with_scenarios(&["suspended"])).await;
    harness.wait_for_callbacks().await;
    let request = json!({ "accountName": ACCOUNT, "deviceId":
        { "id": "FF00000F210000", "kind": "meid" } });
    let listed = harness.post(LIST, &request, 200).await;
    assert_eq!(members(&listed), ["hasMoreData", "devices"]);
    let device = &listed["devices"][0];
    assert_eq!(
        members(device),
        [
            "accountName",
            "billingCycleEndDate",
            "carrierInformations",
            "connected",
            "createdAt",
            "customFields",
            "deviceIds",
            "extendedAttributes",
            "groupNames",
            "ipAddress",
            "lastActivationBy",
            "lastActivationDate",
            "lastConnectionDate"
        ]
    );
    let carrier = &device["carrierInformations"][0];
    assert_eq!(members(carrier), ["carrierName", "servicePlan", "state"]);
    assert_eq!(carrier["state"], "suspend");
    assert_eq!(device["accountName"], ACCOUNT);
    // The same device by its phone number.
    let request = json!({ "deviceId": device["deviceIds"][1] });
    let by_mdn = harness.post(LIST, &request, 200).await;
    assert_eq!(by_mdn["devices"][0]["deviceIds"], device["deviceIds"]);
    harness.stop().await;
}

#[tokio::test]
async fn an_unknown_device_is_not_found() {
    let harness = Harness::start(quick()).await;
    harness.change(PLAN, &five_g_change_with_scenarios(&[""])).await;
    let unknown = json!({ "deviceId": { "kind": "meid", "id": "FF00000F110000" } });
    let elsewhere = json!({ "accountName": "0000123456-00002", "deviceId":
        { "kind": "meid", "id": "A1000000000000" } });
    for request in [unknown, elsewhere] {
        let refused = harness.post(LIST, &request, 400).await;
        assert!(text(&refused, "errorCode").ends_with("REQUEST_FAILED.DeviceNotFound"));
    }
    harness.stop().await;
}

#[tokio::test]
async fn an_accounts_devices_are_listed_by_plan_and_page_by_page() {
    let harness = Harness::start(quick()).await;
    harness.change(ESIM, &esim_change(25)).await;
    harness.change(PLAN, &five_g_change_with_scenarios(&["", "fault_state"])).await;
    harness.wait_for_callbacks().await;
    let mut seen = BTreeSet::new();
    let mut pages = 0;
    let mut largest = None;
    loop {
        let mut request = json!({ "accountName": ACCOUNT, "servicePlan": "service plan name",
            "maxNumberOfDevices": 10 });
        if let Some(largest) = largest {
            request["largestDeviceIdSeen"] = json!(largest);
        }
        let page = harness.post(LIST, &request, 200).await;
        let devices = page["devices"].as_array().unwrap();
        for device in devices {
            assert_eq!(plan_of(device), "service plan name");
            assert!(seen.insert(device["deviceIds"].to_string()), "listed twice");
        }
        pages += 1;
        if page["hasMoreData"] == false {
            break;
        }
        let last = &devices.last().unwrap()["extendedAttributes"][0];
        assert_eq!(last["key"], "DeviceId");
        largest = Some(last["value"].as_str().unwrap().parse::<u64>().unwrap());
    }
    // Includes the preloaded devices: two scenarios, three kinds, 16 serials.
    assert_eq!((seen.len(), pages), (25 + 96, 13));
    // The failed device is still on the initial plan.
    let initial = json!({ "accountName": ACCOUNT, "servicePlan": "Sandbox Initial Plan" });
    let listed = harness.post(LIST, &initial, 200).await;
    assert_eq!(listed["devices"].as_array().unwrap().len(), 1);
    let all = harness.post(LIST, &json!({ "accountName": ACCOUNT }), 200).await;
    assert_eq!(all["devices"].as_array().unwrap().len(), 27);
    harness.stop().await;
}

#[tokio::test]
async fn an_unsupported_list_request_is_rejected() {
    let harness = Harness::start(quick()).await;
    for (request, code) in [
        (json!({ "maxNumberOfDevices": 2001 }), "RequestUndefined"),
        (json!({ "maxNumberOfDevices": 0 }), "RequestUndefined"),
        (json!({ "groupName": "Default" }), "RequestUndefined"),
        (json!({ "deviceId": { "kind": "serial", "id": "1" } }), "Device.Kind.Invalid"),
        (json!({ "deviceId": { "kind": "mdn", "id": "1" } }), "Device.Identifier.Invalid"),
        (json!({ "accountName": "a b" }), "Account.NotDefined"),
    ] {
        let refused = harness.post(LIST, &request, 400).await;
        assert!(text(&refused, "errorCode").ends_with(code), "{refused}");
    }
    harness.stop().await;
}
