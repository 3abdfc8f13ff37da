//! Changes the service plan of devices other than eSIM profiles and 5G Business Internet devices ("Change
//! Device Service Plan").

#[cfg(test)]
mod tests;

use http::Method;

use crate::{
    config::ThingSpaceConfig,
    domain::{
        change_type::ChangeType,
        evidence::{EvidenceRules, IdentifyingKinds, LookupMethod, ResultService},
        identifier::IdentifierKind,
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

/// The kinds that ThingSpace's page lists for this operation.
const ACCEPTED_KINDS: [IdentifierKind; 6] = [
    IdentifierKind::Iccid,
    IdentifierKind::Imei,
    IdentifierKind::Meid,
    IdentifierKind::Esn,
    IdentifierKind::Mdn,
    IdentifierKind::Msisdn,
];

impl RpcOperation for ServicePlanChange {
    type Request = proto::ChangeServicePlanRequest;
    type Response = proto::ChangeServicePlanResponse;

    fn validate(
        mut request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        let fields = common_fields!(request);
        let mut validator = Validator::new(&INFO, rules, fields, request.devices.len());
        for (index, path, device) in validator.devices(request.devices) {
            let reference = validator.client_reference(path, device.client_reference);
            let ids_path = path.field("device_ids");
            let (ids, places) = validator.device_ids(ids_path, &device.device_ids, &ACCEPTED_KINDS);
            if let Some(reference) = reference {
                let id_path = |place| places.path(ids_path, place);
                validator.add_device(index, ids, id_path, reference);
            }
        }
        validator.finish(Box::new(Self))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeServicePlanResponse { change: Some(change), warnings }
    }
}

impl Operation for ServicePlanChange {
    fn info(&self) -> &'static OperationInfo {
        &INFO
    }

    fn fingerprint_fields(&self) -> Vec<&str> {
        vec!["service_plan"]
    }

    /// The page contradicts itself about `accountName` beside `devices`: one sentence says not to
    /// use it, another recommends it and requires it if the user has several accounts (see
    /// docs/thingspace-facts.md, section 3.2). The gateway works with several accounts, so it sends
    /// the name.
    fn outbound_request(
        &self,
        request: &ChangeRequest,
        _settings: &ThingSpaceConfig,
    ) -> Result<OutboundRequest, serde_json::Error> {
        let ChangeRequest { devices, account, service_plan, .. } = request;
        OutboundRequest::plan_change(Method::PUT, PATH, devices, account, service_plan)
    }
}
