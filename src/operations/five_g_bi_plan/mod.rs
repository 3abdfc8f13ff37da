//! Changes the service plan of 5G Business Internet devices ("Change a 5G Business Internet Service
//! Plan").

mod place_of_use;

use http::Method;
use serde::Serialize;

use crate::{
    config::{FiveGBiHttpMethod, ThingSpaceConfig},
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod, ResultService},
        identifier::IdentifierKind,
        newtypes::ServicePlan,
        violation::{FieldReason, Violation},
    },
    operations::{
        fingerprint::FingerprintWriter,
        five_g_bi_plan::place_of_use::PlaceOfUse,
        operation::{ChangeRequest, Operation, OperationInfo, RpcOperation, ValidationRules},
        validator::{Validator, common_fields},
        wire::{OutboundRequest, wire_kind},
    },
    proto,
};

/// The operation's own fields.
#[derive(Debug)]
pub struct FiveGBiPlanChange {
    /// The current plan of the devices, if the client sent it.
    current_service_plan: Option<ServicePlan>,
    /// The place of use of each device, in the order of the devices. Never stored.
    places: Vec<PlaceOfUse>,
}

/// Describes the operation.
///
/// A callback can name a device by another kind of identifier than the one that was sent.
pub(crate) static INFO: OperationInfo = OperationInfo {
    change_type: ChangeType::FiveGBiPlan,
    proto_type: proto::ChangeType::FiveGBiPlan,
    rpc: "ChangeFiveGBiPlan",
    device_ids_field: Some(1),
    evidence: EvidenceRules {
        callback_service: ResultService::Carrier,
        identifying_kinds: IdentifyingKinds::All,
        is_foreign_result: |result| result.esim_profile.is_some(),
        lookup: LookupMethod::DeviceList,
    },
    endpoint_settings: "the settings thingspace.five_g_bi_http_method (POST or PUT) and \
                        thingspace.base_url",
};

const PATH: &str = "/m2m/v1/devices/actions/plan";

/// The approximate size of a device in a body.
const DEVICE_BYTES: usize = 600;

/// The body. The members are in the order of ThingSpace's example, also those of a device and its
/// identifiers.
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

impl RpcOperation for FiveGBiPlanChange {
    type Request = proto::ChangeFiveGBiPlanRequest;
    type Response = proto::ChangeFiveGBiPlanResponse;

    fn validate(
        mut request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        let fields = common_fields!(request);
        let mut validator = Validator::new(&INFO, rules, fields, request.devices.len());
        let current_service_plan = match request.current_service_plan {
            plan if plan.is_empty() => None,
            plan => {
                let plan = ServicePlan::parse(plan);
                validator.violations.ok_or_add("current_service_plan", plan)
            }
        };
        let mut places = Vec::with_capacity(request.devices.len());
        for (index, path, device) in validator.devices(request.devices) {
            let reference = validator.client_reference(path, device.client_reference);
            let ids_path = path.field("device_ids");
            let (ids, id_places) =
                validator.device_ids(ids_path, &device.device_ids, &IdentifierKind::ALL);
            let path = path.field("primary_place_of_use");
            let Some(place) = device.primary_place_of_use.map(PlaceOfUse::from) else {
                validator.violations.add(path, FieldReason::Required, "is required");
                continue;
            };
            place.validate(path, &mut validator.violations);
            if let Some(reference) = reference {
                let id_path = |place| id_places.path(ids_path, place);
                validator.add_device(index, ids, id_path, reference);
                places.push(place);
            }
        }
        validator.finish(Box::new(Self { current_service_plan, places }))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeFiveGBiPlanResponse { change: Some(change), warnings }
    }
}

impl Operation for FiveGBiPlanChange {
    fn info(&self) -> &'static OperationInfo {
        &INFO
    }

    fn fingerprint_fields(&self) -> Vec<&str> {
        let plan = self.current_service_plan.as_ref();
        vec!["five_g_bi", plan.map_or("", ServicePlan::as_str)]
    }

    fn add_device_fingerprint(&self, index: usize, fingerprint: &mut FingerprintWriter) {
        let values = self.places.get(index).into_iter().flat_map(PlaceOfUse::values);
        values.for_each(|value| fingerprint.add(value));
    }

    fn outbound_request(
        &self,
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
            primary_place_of_use: self.places.get(index),
        });
        let plan = self.current_service_plan.as_ref();
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
        OutboundRequest::json(method, PATH, &body, request.devices.len() * DEVICE_BYTES)
    }

    fn reorder(&mut self, order: &[usize]) -> Option<()> {
        let mut places: Vec<Option<PlaceOfUse>> = self.places.drain(..).map(Some).collect();
        let reordered = order.iter().map(|index| places.get_mut(*index).and_then(Option::take));
        self.places = reordered.collect::<Option<_>>()?;
        Some(())
    }

    fn sensitive_values(&self) -> Vec<&str> {
        self.places.iter().flat_map(PlaceOfUse::sensitive_values).collect()
    }
}
