//! Changes the service plan of eSIM profiles ("Change the eSIM Profile Service Plan").

mod request;
mod wire;

use crate::{
    config::ThingSpaceConfig,
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod},
        identifier::IdentifierKind,
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
        callback_service: CallbackService::DEVICE_PROFILE,
        identifying_kinds: IdentifyingKinds::Only(IdentifierKind::Iccid),
        is_foreign_result: |result| result.service_plan_change.is_some(),
        lookup: LookupMethod::RequestStatus,
    },
    endpoint_settings: "the setting thingspace.base_url",
};

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
        _settings: &ThingSpaceConfig,
    ) -> Result<OutboundRequest, serde_json::Error> {
        wire::outbound_request(request)
    }
}
