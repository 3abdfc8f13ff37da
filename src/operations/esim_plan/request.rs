//! Validates `ChangeEsimPlanRequest`.

use crate::{
    domain::{
        identifier::{DeviceId, IdentifierKind},
        violation::{FieldPath, Violation},
    },
    operations::{
        change_request::ChangeRequest,
        esim_plan::EsimPlanChange,
        operation::RpcOperation,
        validator::{ValidationRules, Validator, common_fields},
    },
    proto,
};

impl RpcOperation for EsimPlanChange {
    type Request = proto::ChangeEsimPlanRequest;
    type Response = proto::ChangeEsimPlanResponse;

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
        proto::ChangeEsimPlanResponse { change: Some(change), warnings }
    }
}

fn validate_device(index: usize, device: proto::EsimDevice, validator: &mut Validator) {
    let path = FieldPath::root("devices").at(index);
    let (eid_path, iccid_path) = (path.field("eid"), path.field("iccid"));
    let eid = DeviceId::new(IdentifierKind::Eid, device.eid);
    let eid = validator.violations.ok_or_add(eid_path, eid);
    let iccid = DeviceId::new(IdentifierKind::Iccid, device.iccid);
    let iccid = validator.violations.ok_or_add(iccid_path, iccid);
    let reference = validator.client_reference(path, device.client_reference);
    if let (Some(eid), Some(iccid), Some(reference)) = (eid, iccid, reference) {
        let ids = vec![(eid_path, eid), (iccid_path, iccid)];
        let is_identifying = |id: &DeviceId| id.kind() == IdentifierKind::Iccid;
        validator.add_device(index, ids, is_identifying, reference);
    }
}
