//! The body of "Change a 5G Business Internet Service Plan", with the members in the order of its
//! example.

use http::Method;
use serde::Serialize;

use crate::{
    config::{FiveGBiHttpMethod, ThingSpaceConfig},
    domain::newtypes::ServicePlan,
    operations::{
        five_g_bi_plan::{FiveGBiPlanChange, place_of_use::PlaceOfUse},
        operation::ChangeRequest,
        wire::{OutboundRequest, wire_kind},
    },
};

const PATH: &str = "/m2m/v1/devices/actions/plan";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    account_name: &'a str,
    service_plan: &'a str,
    device_list_with_service_address: Vec<Device<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_service_plan: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    device_ids: Vec<DeviceId<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_place_of_use: Option<&'a PlaceOfUse>,
}

#[derive(Serialize)]
struct DeviceId<'a> {
    id: &'a str,
    kind: &'static str,
}

pub(super) fn outbound_request(
    change: &FiveGBiPlanChange,
    request: &ChangeRequest,
    settings: &ThingSpaceConfig,
) -> Result<OutboundRequest, serde_json::Error> {
    // Indexed rather than zipped: without its place, ThingSpace rejects a device. It must not be left out.
    let devices = request.devices.iter().enumerate();
    let devices = devices.map(|(index, device)| Device {
        device_ids: device
            .ids
            .iter()
            .map(|id| DeviceId { id: id.id(), kind: wire_kind(id.kind()) })
            .collect(),
        primary_place_of_use: change.places.get(index),
    });
    let plan = change.current_service_plan.as_ref();
    let body = Body {
        account_name: request.account.as_str(),
        service_plan: request.service_plan.as_str(),
        device_list_with_service_address: devices.collect(),
        current_service_plan: plan.map(ServicePlan::as_str),
    };
    let method = match settings.five_g_bi_http_method {
        FiveGBiHttpMethod::Post => Method::POST,
        FiveGBiHttpMethod::Put => Method::PUT,
    };
    OutboundRequest::json(method, PATH, &body)
}
