//! Change of the service plan of eSIM profiles.

use axum::routing::MethodFilter;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    errors::ErrorResponse,
    faults::{Fault, code},
    identifiers::{self, DeviceId, DeviceIdentity, DeviceIds, find_id},
    json_body::{self, DeviceBody, required_text},
    operations::operation::{ChangeRequest, Feature, Operation},
};

pub(crate) static ESIM_PLAN: Operation = Operation {
    name: "esim",
    // Verizon's documentation of this call shows the path with a double slash.
    endpoints: &[
        (MethodFilter::POST, "/m2m/v1/devices/profile/actions/serviceplan"),
        (MethodFilter::POST, "/m2m/v1//devices/profile/actions/serviceplan"),
    ],
    device_list_member: "devices",
    parse,
    error_response: ErrorResponse::with_status_as_code,
    device_identity,
    // Assumed: the payload and the sibling calls belong to this service (see
    // docs/thingspace-facts.md, section 4.1).
    callback_service: "DeviceProfileService",
    callback_device_ids,
    device_response,
    success_status: Some("SUCCESS"),
    features: &[Feature::StatusV2],
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'b> {
    #[serde(borrow)]
    devices: Option<Vec<DeviceBody<'b>>>,
    account_name: Option<&'b str>,
    service_plan: Option<&'b str>,
}

fn parse(body: &[u8]) -> Result<ChangeRequest, Fault> {
    let body: Body<'_> = json_body::parse_checked(body)?;
    let account = required_text(body.account_name, "accountName")?;
    ChangeRequest::new(Some(account), body.service_plan, body.devices, "devices", device_ids)
}

fn device_ids(device: DeviceBody<'_>) -> Result<DeviceIds, Fault> {
    let ids = json_body::device_ids(device.device_ids)?;
    let count = |kind: &str| ids.iter().filter(|id| id.has_kind(kind)).count();
    if ids.len() == 2 && count("eid") == 1 && count("iccid") == 1 {
        return Ok(ids);
    }
    let message = "Each device needs one eid and one iccid, and no other kind";
    Err(Fault::new(code::KIND_INVALID, message))
}

/// Identifies a profile by its ICCID: an eSIM may have several profiles.
fn device_identity(sent: &DeviceIds) -> DeviceIdentity {
    let iccid = find_id(sent, "iccid").unwrap_or_default();
    DeviceIdentity {
        keys: vec![identifiers::normalized_key("iccid", iccid)],
        mdn: identifiers::derive_mdn(iccid),
    }
}

/// Returns the four kinds of the documentation, in its order and spelling.
fn callback_device_ids(sent: &DeviceIds, mdn: &str) -> Vec<DeviceId> {
    let eid = find_id(sent, "eid").unwrap_or_default();
    vec![
        DeviceId::new("Eid", eid),
        DeviceId::new("Imei", &identifiers::derive_imei(eid)),
        DeviceId::new("msisdn", &format!("1{mdn}")),
        DeviceId::new("Iccid", find_id(sent, "iccid").unwrap_or_default()),
    ]
}

fn device_response(ids: &[DeviceId], _received_at_ms: u64) -> Value {
    json!({ "deviceProfileResponse": {
        "deviceIdentifierCollection": ids,
        "state": "ACTIVE",
        "profileStatus": "ENABLE",
        "profileRole": "LOCAL",
    } })
}
