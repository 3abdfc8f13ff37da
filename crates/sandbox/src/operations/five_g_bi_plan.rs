//! Change of the service plan of 5G Business Internet devices.

use axum::routing::MethodFilter;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    errors::{ValidationError, code},
    identifiers::{DeviceIdentity, DeviceIds},
    json_body::{self, DeviceIdBody, required, required_devices, required_text},
    operations::{
        carrier_service,
        operation::{ChangeRequest, Feature, Operation},
    },
};

/// Maximum length of `firstName` and `lastName`, in characters.
const MAX_FIRST_NAME: usize = 20;
const MAX_LAST_NAME: usize = 25;

pub(crate) static FIVE_G_BI_PLAN: Operation = Operation {
    name: "five_g_bi",
    // Verizon's documentation shows both methods (see thingspace-facts, section 3.2).
    endpoints: &[
        (MethodFilter::POST, carrier_service::PLAN_PATH),
        (MethodFilter::PUT, carrier_service::PLAN_PATH),
    ],
    device_list_member: "deviceListWithServiceAddress",
    parse,
    error_response: ValidationError::into_dotted_response,
    device_identity: DeviceIdentity::of_line,
    callback_service: carrier_service::CALLBACK_SERVICE,
    callback_device_ids: carrier_service::callback_device_ids,
    device_response: carrier_service::device_response,
    // The documented callback has neither a status nor counts.
    success_status: None,
    features: &[Feature::ServiceAddress, Feature::MdnOnlyCallback],
};

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

fn parse(body: &[u8]) -> Result<ChangeRequest, ValidationError> {
    json_body::check_characters(body)?;
    let body: Body<'_> = json_body::parse_json(body)?;
    if body.devices.is_some() {
        return Err(ValidationError::new(
            code::REQUEST_UNDEFINED,
            "devices is valid only in a PUT without deviceListWithServiceAddress",
        ));
    }
    body.account_name.map_or(Ok(()), json_body::check_account)?;
    let service_plan = required_text(body.service_plan, "servicePlan")?;
    let devices = body.device_list_with_service_address;
    let devices = required_devices(devices, FIVE_G_BI_PLAN.device_list_member)?
        .into_iter()
        .map(Device::into_device_ids)
        .collect::<Result<_, _>>()?;
    Ok(ChangeRequest {
        account: body.account_name.map(str::to_owned),
        service_plan: service_plan.to_owned(),
        devices,
    })
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
        && name.chars().all(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '!' | '#'));
    is_valid.then_some(()).ok_or_else(|| {
        ValidationError::new(code::INVALID_CHARACTER, format!("{member} is not valid"))
    })
}
