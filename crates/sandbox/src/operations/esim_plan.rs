//! Change of the service plan of eSIM profiles.

use axum::routing::MethodFilter;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    errors::{ValidationError, code},
    identifiers::{self, DeviceId, DeviceIdentity, DeviceIds, find_id},
    json_body::{self, DeviceIdBody, required_devices, required_text},
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
    error_response: ValidationError::into_numeric_response,
    device_identity,
    // Assumed: the payload and the sibling calls belong to this service (see thingspace-facts,
    // section 4.1).
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
    devices: Option<Vec<Device<'b>>>,
    account_name: Option<&'b str>,
    service_plan: Option<&'b str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device<'b> {
    #[serde(borrow)]
    device_ids: Option<Vec<DeviceIdBody<'b>>>,
}

fn parse(body: &[u8]) -> Result<ChangeRequest, ValidationError> {
    json_body::check_characters(body)?;
    let body: Body<'_> = json_body::parse_json(body)?;
    let account = required_text(body.account_name, "accountName")?;
    json_body::check_account(account)?;
    let service_plan = required_text(body.service_plan, "servicePlan")?;
    let devices = required_devices(body.devices, "devices")?
        .into_iter()
        .map(Device::into_device_ids)
        .collect::<Result<_, _>>()?;
    Ok(ChangeRequest {
        account: Some(account.to_owned()),
        service_plan: service_plan.to_owned(),
        devices,
    })
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

impl Device<'_> {
    fn into_device_ids(self) -> Result<DeviceIds, ValidationError> {
        let ids = json_body::device_ids(self.device_ids)?;
        let count = |kind: &str| ids.iter().filter(|id| id.has_kind(kind)).count();
        if ids.len() == 2 && count("eid") == 1 && count("iccid") == 1 {
            return Ok(ids);
        }
        Err(ValidationError::new(
            code::KIND_INVALID,
            "Each device needs one eid and one iccid, and no other kind",
        ))
    }
}
