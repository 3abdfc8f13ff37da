//! Devices in the responses of the request status and of the device list.

use serde_json::Value;

use crate::{
    domain::{identifier::ReportedId, result::Outcome},
    thingspace::json::{member, member_items, member_short_text},
};

/// Maximum number of identifiers that are read of a device.
const MAX_IDS: usize = 32;

/// The state of a device in the status of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// The identifiers.
    pub ids: Vec<ReportedId>,
    /// The outcome. `Interim` for every status that is not known to be final.
    pub outcome: Outcome,
    /// The status as sent, at most 200 characters.
    pub status_text: String,
}

impl DeviceStatus {
    pub(crate) fn parse(device: &Value) -> Self {
        let status_text = member_short_text(device, "status").unwrap_or_default();
        Self {
            ids: parse_ids(device, "ids"),
            outcome: match status_text.to_ascii_lowercase().as_str() {
                "success" => Outcome::Succeeded,
                "failed" | "failure" => Outcome::Failed,
                _ => Outcome::Interim,
            },
            status_text,
        }
    }
}

/// A device of the device list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// The identifiers, at most 32.
    pub ids: Vec<ReportedId>,
    /// The plans of the device, one for each carrier.
    pub service_plans: Vec<String>,
}

impl ListedDevice {
    fn parse(device: &Value) -> Self {
        Self {
            ids: parse_ids(device, "deviceIds"),
            service_plans: member_items(device, "carrierInformations")
                .filter_map(|carrier| member_short_text(carrier, "servicePlan"))
                .collect(),
        }
    }

    /// True if the device is on the plan with this name or code.
    pub fn is_on(&self, service_plan: &str) -> bool {
        self.service_plans.iter().any(|plan| plan.eq_ignore_ascii_case(service_plan))
    }
}

/// A page of the device list.
pub(crate) struct DevicePage {
    pub(crate) devices: Vec<ListedDevice>,
    /// The cursor of the next page; empty if there is one and the last device has no number.
    pub(crate) next: Option<String>,
}

impl DevicePage {
    /// Returns `None` if the response contains no list.
    pub(crate) fn parse(response: &Value) -> Option<Self> {
        let devices = member(response, "devices")?.as_array()?;
        let devices: Vec<&Value> = devices.iter().filter(|device| device.is_object()).collect();
        let has_more = member(response, "hasMoreData") == Some(&Value::Bool(true));
        let last_number = devices.last().and_then(|device| {
            let number = member_items(device, "extendedAttributes").find(|attribute| {
                member(attribute, "key").and_then(Value::as_str) == Some("DeviceId")
            });
            member_short_text(number?, "value")
        });
        Some(Self {
            next: has_more.then(|| last_number.unwrap_or_default()),
            devices: devices.into_iter().map(ListedDevice::parse).collect(),
        })
    }
}

/// Parses a list of identifiers, or a single one, as the SDK documents for the request status.
fn parse_ids(device: &Value, name: &str) -> Vec<ReportedId> {
    let parse_id = |id: &Value| {
        Some(ReportedId { kind: member_short_text(id, "kind")?, id: member_short_text(id, "id")? })
    };
    match member(device, name) {
        Some(Value::Array(ids)) => ids.iter().filter_map(parse_id).take(MAX_IDS).collect(),
        Some(id) => parse_id(id).into_iter().collect(),
        None => Vec::new(),
    }
}
