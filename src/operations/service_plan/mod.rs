//! Changes the service plan of devices other than eSIM profiles and 5G Business Internet devices ("Change
//! Device Service Plan").

mod request;
#[cfg(test)]
mod tests;
mod wire;

use crate::{
    config::ThingSpaceConfig,
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod},
        newtypes::CallbackService,
    },
    operations::{
        change_request::ChangeRequest,
        fingerprint::FingerprintInput,
        operation::{Operation, OperationInfo},
        wire::OutboundRequest,
    },
    proto,
};

/// The operation's own fields: none.
#[derive(Debug)]
pub struct ServicePlanChange;

/// Describes the operation.
///
/// A callback can name a device by another kind of identifier than the one that was sent.
pub(crate) static INFO: OperationInfo = OperationInfo {
    change_type: ChangeType::ServicePlan,
    proto_type: proto::ChangeType::ServicePlan,
    rpc: "ChangeServicePlan",
    device_ids_field: Some(1),
    evidence: EvidenceRules {
        callback_service: CallbackService::CARRIER,
        identifying_kinds: IdentifyingKinds::All,
        is_foreign_result: |result| result.esim_profile.is_some(),
        lookup: LookupMethod::DeviceList,
    },
    endpoint_settings: "the setting thingspace.base_url",
};

impl Operation for ServicePlanChange {
    fn info(&self) -> &'static OperationInfo {
        &INFO
    }

    fn add_to_fingerprint(&self, input: &mut FingerprintInput) {
        input.add("service_plan");
    }

    fn outbound_request(
        &self,
        request: &ChangeRequest,
        _settings: &ThingSpaceConfig,
    ) -> Result<OutboundRequest, serde_json::Error> {
        wire::outbound_request(request)
    }
}
