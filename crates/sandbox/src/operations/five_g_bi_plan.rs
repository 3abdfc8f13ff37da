//! Change of the service plan of 5G Business Internet devices.

use axum::routing::MethodFilter;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    errors::ErrorResponse,
    faults::{Fault, code},
    identifiers::{DeviceIdentity, DeviceIds},
    json_body::{self, DeviceIdBody, required, required_text},
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
    // Verizon's documentation shows both methods (see docs/thingspace-facts.md, section 3.2).
    endpoints: &[
        (MethodFilter::POST, carrier_service::PLAN_PATH),
        (MethodFilter::PUT, carrier_service::PLAN_PATH),
    ],
    device_list_member: "deviceListWithServiceAddress",
    parse,
    error_response: ErrorResponse::from,
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

fn parse(body: &[u8]) -> Result<ChangeRequest, Fault> {
    let body: Body<'_> = json_body::parse_checked(body)?;
    if body.devices.is_some() {
        let message = "devices is valid only in a PUT without deviceListWithServiceAddress";
        return Err(Fault::new(code::REQUEST_UNDEFINED, message));
    }
    let devices = body.device_list_with_service_address;
    let member = FIVE_G_BI_PLAN.device_list_member;
    ChangeRequest::new(body.account_name, body.service_plan, devices, member, device_ids)
}

/// Checks the members that the 5G page does not mark as optional. It does not mark `zip4` either,
/// but its own example omits it.
fn device_ids(device: Device<'_>) -> Result<DeviceIds, Fault> {
    let place = required(device.primary_place_of_use, "primaryPlaceOfUse")?;
    let address = required(place.address, "address")?;
    required_text(address.address_line1, "addressLine1")?;
    required_text(address.city, "city")?;
    required_text(address.state, "state")?;
    required_text(address.zip, "zip")?;
    required_text(address.country, "country")?;
    let name = required(place.customer_name, "customerName")?;
    check_name(name.first_name, "firstName", MAX_FIRST_NAME)?;
    check_name(name.last_name, "lastName", MAX_LAST_NAME)?;
    json_body::device_ids(device.device_ids)
}

fn check_name(name: Option<&str>, member: &str, max: usize) -> Result<(), Fault> {
    let name = required_text(name, member)?;
    let is_valid = name.chars().count() <= max
        && name.chars().all(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '!' | '#'));
    let invalid = || Fault::with_details(code::INVALID_CHARACTER, format!("{member} is not valid"));
    is_valid.then_some(()).ok_or_else(invalid)
}
