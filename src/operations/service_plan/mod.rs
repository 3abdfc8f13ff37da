//! Changes the service plan of devices other than eSIM profiles and 5G Business Internet devices ("Change
//! Device Service Plan").

mod request;
#[cfg(test)]
mod tests;

use http::Method;

use crate::{
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod, ResultService},
    },
    operations::{
        fingerprint::FingerprintInput,
        operation::{ChangeRequest, Operation, OperationInfo},
        wire::{OutboundRequest, PlanChangeBody, WireSettings},
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
        callback_service: ResultService::Carrier,
        identifying_kinds: IdentifyingKinds::All,
        is_foreign_result: |result| result.esim_profile.is_some(),
        lookup: LookupMethod::DeviceList,
    },
    endpoint_settings: "the setting thingspace.base_url",
};

const PATH: &str = "/m2m/v1/devices/actions/plan";

impl Operation for ServicePlanChange {
    fn info(&self) -> &'static OperationInfo {
        &INFO
    }

    fn add_to_fingerprint(&self, input: &mut FingerprintInput) {
        input.add("service_plan");
    }

    /// The page contradicts itself about `accountName` beside `devices`: one sentence says not to use it,
    /// another recommends it and requires it if the user has several accounts. The gateway works with several
    /// accounts, so it sends the name. See thingspace-facts, section 3.2.
    fn outbound_request(
        &self,
        request: &ChangeRequest,
        _settings: &WireSettings,
    ) -> Result<OutboundRequest, serde_json::Error> {
        let ChangeRequest { devices, account, service_plan, .. } = request;
        let body = PlanChangeBody::new(devices, account, service_plan);
        OutboundRequest::json(Method::PUT, PATH, &body)
    }
}
