//! Validates `ChangeServicePlanRequest`.

use crate::{
    domain::{
        identifier::IdentifierKind,
        violation::{FieldPath, FieldReason, Violation},
    },
    operations::{
        change_request::ChangeRequest,
        device_ids::parse_device_ids,
        operation::RpcOperation,
        service_plan::ServicePlanChange,
        validator::{ValidationRules, Validator, common_fields},
    },
    proto,
};

/// The kinds that ThingSpace's page does not list for this operation.
const REJECTED_KINDS: [IdentifierKind; 3] =
    [IdentifierKind::Eid, IdentifierKind::Min, IdentifierKind::Imsi];

impl RpcOperation for ServicePlanChange {
    type Request = proto::ChangeServicePlanRequest;
    type Response = proto::ChangeServicePlanResponse;

    fn is_validate_only(request: &Self::Request) -> bool {
        request.validate_only
    }

    fn validate(
        mut request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        let fields = common_fields!(request);
        let mut validator = Validator::new(rules, fields, request.devices.len());
        for (index, device) in validator.devices(request.devices) {
            validate_device(index, device, &mut validator);
        }
        validator.finish(Box::new(Self))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeServicePlanResponse { change: Some(change), warnings }
    }
}

fn validate_device(index: usize, device: proto::ServicePlanDevice, validator: &mut Validator) {
    let path = FieldPath::root("devices").at(index);
    let reference = validator.client_reference(path, device.client_reference);
    let ids_path = path.field("device_ids");
    let kinds: Vec<String> = device.device_ids.iter().map(|id| id.kind.clone()).collect();
    let ids = parse_device_ids(ids_path, device.device_ids, &mut validator.violations);
    for (position, kind) in kinds.iter().enumerate() {
        if kind.parse().is_ok_and(|kind| REJECTED_KINDS.contains(&kind)) {
            let path = ids_path.at(position).field("kind");
            let description = "must be one of iccid, imei, meid, esn, mdn, msisdn";
            validator.violations.add(path, FieldReason::Value, description);
        }
    }
    if let Some(reference) = reference {
        validator.add_device(index, ids, |_| true, reference);
    }
}
