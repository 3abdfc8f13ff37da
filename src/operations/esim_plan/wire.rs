//! The body of "Change the eSIM Profile Service Plan", with the members in the order of its example.

use http::Method;
use serde::Serialize;

use crate::operations::{
    change_request::ChangeRequest,
    wire::{DeviceIdsBody, OutboundRequest},
};

/// The page prints two slashes before `devices`; all other pages print one.
const PATH: &str = "/m2m/v1/devices/profile/actions/serviceplan";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    devices: Vec<DeviceIdsBody<'a>>,
    account_name: &'a str,
    service_plan: &'a str,
}

pub(super) fn outbound_request(
    request: &ChangeRequest,
) -> Result<OutboundRequest, serde_json::Error> {
    let body = Body {
        devices: request.devices.iter().map(DeviceIdsBody::from).collect(),
        account_name: request.account.as_str(),
        service_plan: request.service_plan.as_str(),
    };
    OutboundRequest::json(Method::POST, PATH, &body)
}
