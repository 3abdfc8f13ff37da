//! Validates `ChangeServicePlanRequest`.

use crate::{
    domain::{
        identifier::IdentifierKind,
        violation::{FieldReason, Violation},
    },
    operations::{
        operation::{ChangeRequest, RpcOperation, ValidationRules},
        service_plan::{INFO, ServicePlanChange},
        validator::{Validator, common_fields},
    },
    proto,
};

/// The kinds that ThingSpace's page does not list for this operation.
const REJECTED_KINDS: [IdentifierKind; 3] =
    [IdentifierKind::Eid, IdentifierKind::Min, IdentifierKind::Imsi];

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
            let path = path.field("device_ids");
            let kinds: Vec<_> = device.device_ids.iter().map(|id| id.kind.parse()).collect();
            let ids = validator.device_ids(path, device.device_ids);
            for (position, kind) in kinds.into_iter().enumerate() {
                if kind.is_ok_and(|kind| REJECTED_KINDS.contains(&kind)) {
                    let path = path.at(position).field("kind");
                    let description = "must be one of iccid, imei, meid, esn, mdn, msisdn";
                    validator.violations.add(path, FieldReason::Value, description);
                }
            }
            if let Some(reference) = reference {
                validator.add_device(index, ids, reference);
            }
        }
        validator.finish(Box::new(Self))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeServicePlanResponse { change: Some(change), warnings }
    }
}
