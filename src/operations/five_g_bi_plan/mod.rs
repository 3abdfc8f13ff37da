//! Changes the service plan of 5G Business Internet devices ("Change a 5G Business Internet Service
//! Plan").

mod place_of_use;
mod request;
mod wire;

use crate::{
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod, ResultService},
        newtypes::ServicePlan,
    },
    operations::{
        fingerprint::FingerprintInput,
        five_g_bi_plan::place_of_use::PlaceOfUse,
        operation::{ChangeRequest, Operation, OperationInfo},
        wire::{OutboundRequest, WireSettings},
    },
    proto,
};

/// The operation's own fields.
#[derive(Debug)]
pub struct FiveGBiPlanChange {
    /// The present plan of the devices, if the client sent it.
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

impl Operation for FiveGBiPlanChange {
    fn info(&self) -> &'static OperationInfo {
        &INFO
    }

    fn add_to_fingerprint(&self, input: &mut FingerprintInput) {
        input.add("five_g_bi");
        let plan = self.current_service_plan.as_ref();
        input.add(plan.map_or("", ServicePlan::as_str));
        input.add_per_device(self.places.iter().map(PlaceOfUse::values));
    }

    fn outbound_request(
        &self,
        request: &ChangeRequest,
        settings: &WireSettings,
    ) -> Result<OutboundRequest, serde_json::Error> {
        wire::outbound_request(self, request, settings)
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
