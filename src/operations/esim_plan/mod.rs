//! Changes the service plan of eSIM profiles ("Change the eSIM Profile Service Plan").

mod request;

use http::Method;

use crate::{
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod, ResultService},
        identifier::IdentifierKind,
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
pub struct EsimPlanChange;

/// Describes the operation.
///
/// A profile is its ICCID: one eUICC holds several profiles, so an EID does not identify one.
pub(crate) static INFO: OperationInfo = OperationInfo {
    change_type: ChangeType::EsimPlan,
    proto_type: proto::ChangeType::EsimPlan,
    rpc: "ChangeEsimPlan",
    device_ids_field: None,
    evidence: EvidenceRules {
        callback_service: ResultService::DeviceProfile,
        identifying_kinds: IdentifyingKinds::Only(IdentifierKind::Iccid),
        is_foreign_result: |result| result.service_plan_change.is_some(),
        lookup: LookupMethod::RequestStatus,
    },
    endpoint_settings: "the setting thingspace.base_url",
};

/// The page prints two slashes before `devices`; all other pages print one.
const PATH: &str = "/m2m/v1/devices/profile/actions/serviceplan";

impl Operation for EsimPlanChange {
    fn info(&self) -> &'static OperationInfo {
        &INFO
    }

    fn add_to_fingerprint(&self, input: &mut FingerprintInput) {
        input.add("esim");
    }

    fn outbound_request(
        &self,
        request: &ChangeRequest,
        _settings: &WireSettings,
    ) -> Result<OutboundRequest, serde_json::Error> {
        let ChangeRequest { devices, account, service_plan, .. } = request;
        let body = PlanChangeBody::new(devices, account, service_plan);
        OutboundRequest::json(Method::POST, PATH, &body)
    }
}
