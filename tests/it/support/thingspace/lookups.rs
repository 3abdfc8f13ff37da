//! Responses to the lookups of a request's status and of the device list.

use serde_json::{Value, json};

use super::{
    responses::FakeResponse,
    server::{DEVICE_LIST_PATH, FakeThingSpace, REQUEST_STATUS_PREFIX},
};
use crate::support::{
    requests::{ACCOUNT, FIVE_G_BI_PLAN, iccid, meid},
    wait::eventually,
};

/// The status of a request: each of these profiles is pending.
pub fn pending_status(numbers: impl IntoIterator<Item = usize>) -> FakeResponse {
    let devices = numbers.into_iter().map(|number| (number, "Pending"));
    request_status("Pending", devices)
}

/// The status of a request, and of each profile.
pub fn request_status<'s>(
    status: &str,
    profiles: impl IntoIterator<Item = (usize, &'s str)>,
) -> FakeResponse {
    let profiles = profiles.into_iter().map(
        |(number, status)| json!({"ids": [{"kind": "iccid", "id": iccid(number)}], "status": status}),
    );
    let profiles: Vec<Value> = profiles.collect();
    let body = json!({"requestId": "r", "status": status, "subRequests": profiles});
    FakeResponse::json(200, &body)
}

/// A page of the device list that is the last one.
pub fn device_list(devices: impl IntoIterator<Item = Value>) -> FakeResponse {
    let devices: Vec<Value> = devices.into_iter().collect();
    FakeResponse::json(200, &json!({"hasMoreData": false, "devices": devices}))
}

/// An entry of the device list with these identifiers and this service plan.
pub fn listed_device(ids: &[(&str, &str)], plan: &str) -> Value {
    let ids = ids.iter().map(|(kind, id)| json!({"kind": kind, "id": id}));
    json!({
        "accountName": ACCOUNT,
        "deviceIds": ids.collect::<Vec<Value>>(),
        "carrierInformations": [{"carrierName": "Verizon", "servicePlan": plan}],
    })
}

/// The device list with these 5G devices on the plan of [`five_g_bi`](crate::support::requests::five_g_bi).
pub fn devices_on_plan(numbers: impl IntoIterator<Item = usize>) -> FakeResponse {
    let devices = numbers.into_iter();
    device_list(devices.map(|number| listed_device(&[("meid", &meid(number))], FIVE_G_BI_PLAN)))
}

/// Waits until the status of a request has been looked up `times` times in total.
pub async fn wait_for_status_lookups(thingspace: &FakeThingSpace, request: &str, times: usize) {
    let path = format!("{REQUEST_STATUS_PREFIX}{ACCOUNT}/requests/{request}/status");
    eventually("the request status is looked up", async || {
        thingspace.requests_to(&path).len() >= times
    })
    .await;
}

/// Waits for `times` more lookups of one device. All but the last have their response then.
pub async fn wait_for_device_lookups(thingspace: &FakeThingSpace, times: usize) {
    let lookups = || {
        let requests = thingspace.requests_to(DEVICE_LIST_PATH).into_iter();
        let of_device = requests.filter(|request| request.json().get("deviceId").is_some());
        of_device.count()
    };
    let before = lookups();
    eventually("a device is looked up", async || lookups() >= before + times).await;
}
