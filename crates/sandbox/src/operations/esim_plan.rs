//! Change of the service plan of eSIM profiles.

use axum::routing::MethodFilter;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors::{ErrorResponse, ValidationError, code};
use crate::identifiers::{self, DeviceId, DeviceIdentity, DeviceIds, find_id};
use crate::json_body::{self, DeviceIdBody, required_devices, required_text};
use crate::operations::operation::{ChangeRequest, Operation};

#[derive(Debug)]
pub(crate) struct EsimPlan;

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

impl Operation for EsimPlan {
    fn name(&self) -> &'static str {
        "esim"
    }

    /// The eSIM page prints its own path with a double slash.
    fn endpoints(&self) -> &'static [(MethodFilter, &'static str)] {
        &[
            (
                MethodFilter::POST,
                "/m2m/v1/devices/profile/actions/serviceplan",
            ),
            (
                MethodFilter::POST,
                "/m2m/v1//devices/profile/actions/serviceplan",
            ),
        ]
    }

    fn device_list_member(&self) -> &'static str {
        "devices"
    }

    fn parse(&self, body: &[u8]) -> Result<ChangeRequest, ValidationError> {
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

    fn error_response(&self, error: ValidationError) -> ErrorResponse {
        error.into_numeric_response()
    }

    /// A profile is its ICCID: an eSIM may have several profiles.
    fn device_identity(&self, sent: &DeviceIds) -> DeviceIdentity {
        let iccid = find_id(sent, "iccid").unwrap_or_default();
        DeviceIdentity {
            keys: vec![identifiers::normalized_key("iccid", iccid)],
            mdn: identifiers::derive_mdn(iccid),
        }
    }

    /// The eSIM page names no service. The payload and the sibling calls use this one (see
    /// thingspace-facts, section 4.1).
    fn callback_service(&self) -> &'static str {
        "DeviceProfileService"
    }

    /// The four kinds of the eSIM page, in its order and spelling.
    fn callback_device_ids(&self, sent: &DeviceIds, mdn: &str) -> Vec<DeviceId> {
        let eid = find_id(sent, "eid").unwrap_or_default();
        vec![
            DeviceId::new("Eid", eid),
            DeviceId::new("Imei", &identifiers::derive_imei(eid)),
            DeviceId::new("msisdn", &format!("1{mdn}")),
            DeviceId::new("Iccid", find_id(sent, "iccid").unwrap_or_default()),
        ]
    }

    fn device_response(&self, ids: &[DeviceId], _received_at_ms: u64) -> Value {
        json!({ "deviceProfileResponse": {
            "deviceIdentifierCollection": ids,
            "state": "ACTIVE",
            "profileStatus": "ENABLE",
            "profileRole": "LOCAL",
        } })
    }

    fn success_status(&self) -> Option<&'static str> {
        Some("SUCCESS")
    }

    fn can_report_mdn_only(&self) -> bool {
        false
    }

    fn has_service_address(&self) -> bool {
        false
    }

    fn has_status_v2(&self) -> bool {
        true
    }
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
