//! The body of "Change Device Service Plan".
//!
//! The page contradicts itself about `accountName` beside `devices`: one sentence says not to use it, another
//! recommends it and requires it if the user has several accounts. The gateway works with several accounts,
//! so it sends the name. See thingspace-facts, section 3.2.

use http::Method;
use serde::Serialize;

use crate::operations::{
    change_request::ChangeRequest,
    wire::{DeviceIdsBody, OutboundRequest},
};

const PATH: &str = "/m2m/v1/devices/actions/plan";

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
    OutboundRequest::json(Method::PUT, PATH, &body)
}
