//! The objects that lookups return.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{
    domain::{identifier::ReportedId, result::Outcome},
    thingspace::json::{member, member_items, member_short_text},
};

/// Maximum number of identifiers that are read of a device.
const MAX_IDS: usize = 32;
/// Maximum length of a text in a registration, in bytes.
const MAX_TEXT_LENGTH: usize = 4_096;
/// Maximum number of attributes of a plan.
const MAX_ATTRIBUTES: usize = 50;

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
    pub(super) fn parse(device: &Value) -> Self {
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
pub(super) struct DevicePage {
    pub(super) devices: Vec<ListedDevice>,
    /// True if the next page has more devices.
    pub(super) has_more: bool,
    /// ThingSpace's number of the last device, after which the next page begins.
    pub(super) last_number: Option<u64>,
}

impl DevicePage {
    /// Returns `None` if the response contains no list.
    pub(super) fn parse(response: &Value) -> Option<Self> {
        let devices = member(response, "devices")?.as_array()?;
        let devices: Vec<&Value> = devices.iter().filter(|device| device.is_object()).collect();
        let last_number = devices.last().and_then(|device| {
            let number = member_items(device, "extendedAttributes").find(|attribute| {
                member(attribute, "key").and_then(Value::as_str) == Some("DeviceId")
            });
            member_short_text(number?, "value")?.parse().ok()
        });
        Some(Self {
            has_more: member(response, "hasMoreData") == Some(&Value::Bool(true)),
            last_number,
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

/// The callback URL of a service, and the credentials of its callbacks. Everything but the service may be
/// secret: a URL may contain a secret path, and ThingSpace lists passwords in plain text.
#[derive(Debug, Clone)]
pub struct ListenerRegistration {
    /// The callback service.
    pub service: String,
    /// The URL.
    pub url: SecretString,
    /// The user name that callbacks contain.
    pub username: Option<SecretString>,
    /// The password that callbacks contain.
    pub password: Option<SecretString>,
}

impl ListenerRegistration {
    /// Returns `None` if the service or the URL is missing.
    pub(super) fn parse(listed: &Value) -> Option<Self> {
        let text = |name| {
            let text = member(listed, name)?.as_str()?;
            (text.len() <= MAX_TEXT_LENGTH).then_some(text)
        };
        Some(Self {
            service: text("serviceName")?.to_owned(),
            url: text("url")?.into(),
            username: text("username").map(SecretString::from),
            password: text("password").map(SecretString::from),
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let members = [
            ("name", Some(self.service.as_str())),
            ("url", Some(self.url.expose_secret())),
            ("username", self.username.as_ref().map(ExposeSecret::expose_secret)),
            ("password", self.password.as_ref().map(ExposeSecret::expose_secret)),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Returns everything that must be redacted in a response: the URL, its last segment unless it is the
    /// service, and the credentials.
    pub(super) fn secret_values(&self) -> Vec<&str> {
        let url = self.url.expose_secret();
        let segment = url.rsplit('/').next().filter(|segment| *segment != self.service);
        let credentials = [&self.username, &self.password].into_iter().flatten();
        let credentials = credentials.map(ExposeSecret::expose_secret);
        segment.into_iter().chain([url]).chain(credentials).collect()
    }
}

/// A service plan. Missing texts are empty; texts have at most 200 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePlanInfo {
    /// The name, which the eSIM operation takes.
    pub name: String,
    /// The code, which the 5G Business Internet operation takes.
    pub code: String,
    /// The carrier's code.
    pub carrier_service_plan_code: String,
    /// The data allowance in kilobytes.
    pub size_kb: Option<i64>,
    /// Further attributes as key and value, at most 50.
    pub extended_attributes: Vec<(String, String)>,
}

impl ServicePlanInfo {
    pub(super) fn parse(plan: &Value) -> Self {
        let text = |name| member_short_text(plan, name).unwrap_or_default();
        let parse_attribute = |attribute| {
            let value = member_short_text(attribute, "value").unwrap_or_default();
            Some((member_short_text(attribute, "key")?, value))
        };
        Self {
            name: text("name"),
            code: text("code"),
            carrier_service_plan_code: text("carrierServicePlanCode"),
            size_kb: text("sizeKb").parse().ok(),
            extended_attributes: member_items(plan, "extendedAttributes")
                .take(MAX_ATTRIBUTES)
                .filter_map(parse_attribute)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
