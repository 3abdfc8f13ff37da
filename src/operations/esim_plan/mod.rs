//! Changes the service plan of eSIM profiles ("Change the eSIM Profile Service Plan").

use http::Method;

use crate::{
    config::ThingSpaceConfig,
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod, ResultService},
        identifier::{DeviceId, IdentifierKind},
        violation::Violation,
    },
    operations::{
        operation::{ChangeRequest, Operation, OperationInfo, RpcOperation, ValidationRules},
        validator::{Validator, common_fields},
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
        callback_service: ResultService::DeviceProfile,
        identifying_kinds: IdentifyingKinds::Only(IdentifierKind::Iccid),
        is_foreign_result: |result| result.service_plan_change.is_some(),
        lookup: LookupMethod::RequestStatus,
    },
    endpoint_settings: "the setting thingspace.base_url",
};

/// The page prints two slashes before `devices`. The SDKs print one in all similar calls (see
/// docs/thingspace-facts.md, section 3.1).
const PATH: &str = "/m2m/v1/devices/profile/actions/serviceplan";

impl RpcOperation for EsimPlanChange {
    type Request = proto::ChangeEsimPlanRequest;
    type Response = proto::ChangeEsimPlanResponse;

    fn validate(
        mut request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        let fields = common_fields!(request);
        let mut validator = Validator::new(&INFO, rules, fields, request.devices.len());
        for (index, path, device) in validator.devices(request.devices) {
            let eid = DeviceId::new(IdentifierKind::Eid, device.eid);
            let eid = validator.violations.ok_or_add_at(|| path.field("eid"), eid);
            let iccid = DeviceId::new(IdentifierKind::Iccid, device.iccid);
            let iccid = validator.violations.ok_or_add_at(|| path.field("iccid"), iccid);
            let reference = validator.client_reference(path, device.client_reference);
            if let (Some(eid), Some(iccid), Some(reference)) = (eid, iccid, reference) {
                let id_path = |place| path.field(if place == 0 { "eid" } else { "iccid" });
                validator.add_device(index, vec![eid, iccid], id_path, reference);
            }
        }
        validator.finish(Box::new(Self))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeEsimPlanResponse { change: Some(change), warnings }
    }
}

impl Operation for EsimPlanChange {
    fn info(&self) -> &'static OperationInfo {
        &INFO
    }

    fn fingerprint_fields(&self) -> Vec<&str> {
        vec!["esim"]
    }

    fn outbound_request(
        &self,
        request: &ChangeRequest,
        _settings: &ThingSpaceConfig,
    ) -> Result<OutboundRequest, serde_json::Error> {
        let ChangeRequest { devices, account, service_plan, .. } = request;
        OutboundRequest::plan_change(Method::POST, PATH, devices, account, service_plan)
    }
}
