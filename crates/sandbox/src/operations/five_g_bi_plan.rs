//! Change of the service plan of 5G Business Internet devices.

use axum::routing::MethodFilter;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::errors::{ErrorResponse, ValidationError, code};
use crate::identifiers::{DeviceId, DeviceIdentity, DeviceIds};
use crate::json_body::{self, DeviceIdBody, required, required_devices, required_text};
use crate::operations::carrier_service;
use crate::operations::operation::{ChangeRequest, Operation};

/// Maximum length of `firstName` and `lastName`, in characters.
const MAX_FIRST_NAME: usize = 20;
const MAX_LAST_NAME: usize = 25;

#[derive(Debug)]
pub(crate) struct FiveGBiPlan;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'b> {
    #[serde(borrow)]
    device_list_with_service_address: Option<Vec<Device<'b>>>,
    account_name: Option<&'b str>,
    service_plan: Option<&'b str>,
    devices: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device<'b> {
    #[serde(borrow)]
    device_ids: Option<Vec<DeviceIdBody<'b>>>,
    // Boxed, so that a body of empty objects takes little memory.
    primary_place_of_use: Option<Box<PlaceOfUse<'b>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceOfUse<'b> {
    #[serde(borrow)]
    address: Option<Address<'b>>,
    customer_name: Option<CustomerName<'b>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address<'b> {
    address_line1: Option<&'b str>,
    city: Option<&'b str>,
    state: Option<&'b str>,
    zip: Option<&'b str>,
    country: Option<&'b str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomerName<'b> {
    first_name: Option<&'b str>,
    last_name: Option<&'b str>,
}

impl Operation for FiveGBiPlan {
    fn name(&self) -> &'static str {
        "five_g_bi"
    }

    /// The 5G page says PUT in its headline and POST in its request line.
    fn endpoints(&self) -> &'static [(MethodFilter, &'static str)] {
        const PATH: &str = "/m2m/v1/devices/actions/plan";
        &[(MethodFilter::POST, PATH), (MethodFilter::PUT, PATH)]
    }

    fn device_list_member(&self) -> &'static str {
        "deviceListWithServiceAddress"
    }

    fn parse(&self, body: &[u8]) -> Result<ChangeRequest, ValidationError> {
        json_body::check_characters(body)?;
        let body: Body<'_> = json_body::parse_json(body)?;
        if body.devices.is_some() {
            return Err(ValidationError::new(
                code::REQUEST_UNDEFINED,
                "The sandbox does not support devices in this request, only deviceListWithServiceAddress",
            ));
        }
        body.account_name.map_or(Ok(()), json_body::check_account)?;
        let service_plan = required_text(body.service_plan, "servicePlan")?;
        let devices = required_devices(
            body.device_list_with_service_address,
            self.device_list_member(),
        )?
        .into_iter()
        .map(Device::into_device_ids)
        .collect::<Result<_, _>>()?;
        Ok(ChangeRequest {
            account: body.account_name.map(str::to_owned),
            service_plan: service_plan.to_owned(),
            devices,
        })
    }

    fn error_response(&self, error: ValidationError) -> ErrorResponse {
        error.into_dotted_response()
    }

    fn device_identity(&self, sent: &DeviceIds) -> DeviceIdentity {
        DeviceIdentity::of_line(sent)
    }

    fn callback_service(&self) -> &'static str {
        carrier_service::CALLBACK_SERVICE
    }

    fn callback_device_ids(&self, sent: &DeviceIds, mdn: &str) -> Vec<DeviceId> {
        carrier_service::callback_device_ids(sent, mdn)
    }

    fn device_response(&self, _ids: &[DeviceId], received_at_ms: u64) -> Value {
        carrier_service::device_response(received_at_ms)
    }

    /// The sample on the 5G page has neither a status nor counts.
    fn success_status(&self) -> Option<&'static str> {
        None
    }

    fn can_report_mdn_only(&self) -> bool {
        true
    }

    fn has_service_address(&self) -> bool {
        true
    }

    fn has_status_v2(&self) -> bool {
        false
    }
}

impl Device<'_> {
    /// Checks the members that the 5G page does not mark as optional. It does not mark `zip4`
    /// either, but its own example omits it.
    fn into_device_ids(self) -> Result<DeviceIds, ValidationError> {
        let place = required(self.primary_place_of_use, "primaryPlaceOfUse")?;
        let address = required(place.address, "address")?;
        required_text(address.address_line1, "addressLine1")?;
        required_text(address.city, "city")?;
        required_text(address.state, "state")?;
        required_text(address.zip, "zip")?;
        required_text(address.country, "country")?;
        let name = required(place.customer_name, "customerName")?;
        check_name(name.first_name, "firstName", MAX_FIRST_NAME)?;
        check_name(name.last_name, "lastName", MAX_LAST_NAME)?;
        json_body::device_ids(self.device_ids)
    }
}

fn check_name(name: Option<&str>, member: &str, max: usize) -> Result<(), ValidationError> {
    let name = required_text(name, member)?;
    let is_valid = name.chars().count() <= max
        && name
            .chars()
            .all(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '!' | '#'));
    is_valid.then_some(()).ok_or_else(|| {
        ValidationError::new(code::INVALID_CHARACTER, format!("{member} is not valid"))
    })
}
