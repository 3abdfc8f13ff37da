//! What clients and ThingSpace send, and how to read what comes back.

use serde_json::{Value, json};
use thingspace_gateway::proto::{
    Address, Change, ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, CustomerName, DeviceId,
    EsimDevice, FiveGBiDevice, GetChangeRequest, PrimaryPlaceOfUse,
};
use tokio::time::timeout;
use tonic::Status;

use super::gateway::{Client, TEST_TIMEOUT};
pub use super::sender::{eid, iccid};

mod errors;
mod watches;

pub use errors::*;
pub use watches::*;

pub const ACCOUNT: &str = "0000123456-00001";
pub const ESIM_PLAN: &str = "service plan name";
pub const FIVE_G_BI_PLAN: &str = "Name of the plan being changed to";

// --- Devices --------------------------------------------------------------

pub fn meid(number: usize) -> String {
    format!("A10000{number:08X}")
}

pub fn id(kind: &str, id: impl Into<String>) -> DeviceId {
    DeviceId {
        kind: kind.into(),
        id: id.into(),
    }
}

/// Names and places that no other text of a test has.
pub const PERSONAL: [&str; 5] = [
    "14 Wexcombe Crossing",
    "Quagga Annex",
    "Ogdenquist",
    "Zebedee",
    "Quillfeather",
];

pub fn place() -> PrimaryPlaceOfUse {
    let [line1, line2, city, first, last] = PERSONAL.map(String::from);
    PrimaryPlaceOfUse {
        address: Some(Address {
            address_line1: line1,
            address_line2: line2,
            city,
            state: "TX".into(),
            zip: "78660".into(),
            zip4: String::new(),
            country: "US".into(),
        }),
        customer_name: Some(CustomerName {
            first_name: first,
            last_name: last,
            ..CustomerName::default()
        }),
    }
}

// --- Changes --------------------------------------------------------------

/// A change of these profiles' plan.
pub fn esim(key: &str, numbers: impl IntoIterator<Item = usize>) -> ChangeEsimPlanRequest {
    let devices = numbers.into_iter().map(|number| EsimDevice {
        eid: eid(number),
        iccid: iccid(number),
        client_reference: format!("row-{number}"),
    });
    ChangeEsimPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: ESIM_PLAN.into(),
        devices: devices.collect(),
        idempotency_key: key.into(),
        validate_only: false,
        client_reference: "job-7".into(),
    }
}

/// A change of these 5G devices' plan.
pub fn five_g_bi(key: &str, numbers: impl IntoIterator<Item = usize>) -> ChangeFiveGBiPlanRequest {
    let devices = numbers.into_iter().map(|number| FiveGBiDevice {
        device_ids: vec![id("meid", meid(number))],
        primary_place_of_use: Some(place()),
        client_reference: format!("row-{number}"),
    });
    ChangeFiveGBiPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: FIVE_G_BI_PLAN.into(),
        current_service_plan: "Name of the plan being changed from".into(),
        devices: devices.collect(),
        idempotency_key: key.into(),
        validate_only: false,
        client_reference: "job-7".into(),
    }
}

/// Makes an eSIM change, which is expected to be OK.
pub async fn change_esim(client: &mut Client, request: ChangeEsimPlanRequest) -> Change {
    let answer = timeout(TEST_TIMEOUT, client.change_esim_plan(request)).await;
    let answer = answer.expect("in time").expect("OK").into_inner();
    answer.change.expect("a change")
}

/// Makes an eSIM change, which is expected to fail.
pub async fn expect_esim_error(client: &mut Client, request: ChangeEsimPlanRequest) -> Status {
    let answer = timeout(TEST_TIMEOUT, client.change_esim_plan(request)).await;
    answer.expect("in time").expect_err("no OK")
}

/// Makes a 5G BI change, which is expected to be OK.
pub async fn change_five_g_bi(client: &mut Client, request: ChangeFiveGBiPlanRequest) -> Change {
    let answer = timeout(TEST_TIMEOUT, client.change_five_g_bi_plan(request)).await;
    let answer = answer.expect("in time").expect("OK").into_inner();
    answer.change.expect("a change")
}

/// The change of that key.
pub async fn get_by_key(client: &mut Client, key: &str) -> Result<Change, Status> {
    let request = GetChangeRequest {
        account_name: ACCOUNT.into(),
        idempotency_key: key.into(),
        ..GetChangeRequest::default()
    };
    let answer = client.get_change(request).await?.into_inner();
    Ok(answer.change.expect("a change"))
}

// --- Callbacks ------------------------------------------------------------

/// The callback of one profile, as in ThingSpace's own example.
pub fn esim_callback(request_id: &str, number: usize) -> Value {
    let ids = json!([
        {"id": eid(number), "kind": "Eid"},
        {"id": format!("99000000{number:07}"), "kind": "Imei"},
        {"id": format!("1512{number:07}"), "kind": "msisdn"},
        {"id": iccid(number), "kind": "Iccid"},
    ]);
    json!({
        "requestId": request_id,
        "deviceIds": ids,
        "deviceResponse": {
            "deviceProfileResponse": {
                "deviceIdentifierCollection": ids,
                "state": "ACTIVE",
                "profileStatus": "ENABLE",
                "profileRole": "LOCAL",
            },
        },
        "status": "SUCCESS",
        "callbackCount": 1,
        "maxCallbackThreshold": 4,
    })
}

/// The callback of one profile whose change failed.
pub fn esim_failure(request_id: &str, number: usize) -> Value {
    json!({
        "requestId": request_id,
        "deviceIds": [{"id": iccid(number), "kind": "Iccid"}],
        "faultResponse": {
            "faultcode": "UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
            "faultstring": "The device cannot be found.",
        },
        "status": "Failed",
    })
}

/// The callback of one 5G device, as in ThingSpace's own example: another kind
/// of identifier than was sent.
pub fn five_g_bi_callback(request_id: &str, mdn: &str) -> Value {
    json!({
        "username": "planted-callback-username",
        "password": "planted-callback-password",
        "requestId": request_id,
        "deviceIds": [{"id": mdn, "kind": "mdn"}],
        "deviceResponse": {
            "changeServicePlanResponse": {"effectiveDate": "5/31/2018 12:00:00 AM"},
        },
    })
}

/// Posts a callback; answers with status and body.
pub async fn post(url: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let sent = client
        .post(url)
        .header("content-type", "application/json")
        .body(body)
        .timeout(TEST_TIMEOUT)
        .send()
        .await;
    let answer = sent.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// Posts a callback that is new, and is taken.
pub async fn deliver(url: &str, callback: &Value) {
    let answer = post(url, callback.to_string()).await;
    assert_eq!(answer, (200, json!({"stored": "new"})));
}
