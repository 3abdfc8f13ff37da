//! Change of the service plan of ordinary devices.

use axum::routing::MethodFilter;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    errors::ErrorResponse,
    faults::{Fault, code},
    identifiers::DeviceIdentity,
    json_body::{self, DeviceBody},
    operations::{
        carrier_service,
        operation::{ChangeRequest, Feature, Operation},
    },
};

pub(crate) static SERVICE_PLAN: Operation = Operation {
    name: "service_plan",
    // The documentation and the SDKs have no POST (see docs/thingspace-facts.md, section 3.2).
    endpoints: &[(MethodFilter::PUT, carrier_service::PLAN_PATH)],
    device_list_member: "devices",
    parse,
    error_response: ErrorResponse::from,
    device_identity: DeviceIdentity::of_line,
    callback_service: carrier_service::CALLBACK_SERVICE,
    callback_device_ids: carrier_service::callback_device_ids,
    device_response: carrier_service::device_response,
    // As for 5G Business Internet: the same service, with the same payload.
    success_status: None,
    features: &[Feature::MdnOnlyCallback],
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'b> {
    #[serde(borrow)]
    devices: Option<Vec<DeviceBody<'b>>>,
    account_name: Option<&'b str>,
    service_plan: Option<&'b str>,
    group_name: Option<IgnoredAny>,
    current_service_plan: Option<IgnoredAny>,
    custom_fields: Option<IgnoredAny>,
}

/// Parses a request that lists its devices.
///
/// `accountName` is optional. Verizon's documentation excludes it together with `devices`, but also
/// requires it from users with several accounts. `ServicePlanUpdateRequest` of the public SDK allows
/// both members, and no error for them is documented (see docs/thingspace-facts.md, section 3.2).
fn parse(body: &[u8]) -> Result<ChangeRequest, Fault> {
    let body: Body<'_> = json_body::parse_checked(body)?;
    let filters = [body.group_name, body.current_service_plan, body.custom_fields];
    if filters.iter().any(Option::is_some) {
        let message =
            "groupName, currentServicePlan and customFields are not valid together with devices";
        return Err(Fault::new(code::REQUEST_UNDEFINED, message));
    }
    let device_ids = |device: DeviceBody<'_>| json_body::device_ids(device.device_ids);
    ChangeRequest::new(body.account_name, body.service_plan, body.devices, "devices", device_ids)
}
