//! Validates `ChangeEsimPlanRequest`.

use crate::{
    domain::{
        identifier::{DeviceId, IdentifierKind},
        violation::Violation,
    },
    operations::{
        esim_plan::{EsimPlanChange, INFO},
        operation::{ChangeRequest, RpcOperation, ValidationRules},
        validator::{Validator, common_fields},
    },
    proto,
};

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
            let (eid_path, iccid_path) = (path.field("eid"), path.field("iccid"));
            let eid = DeviceId::new(IdentifierKind::Eid, device.eid);
            let eid = validator.violations.ok_or_add(eid_path, eid);
            let iccid = DeviceId::new(IdentifierKind::Iccid, device.iccid);
            let iccid = validator.violations.ok_or_add(iccid_path, iccid);
            let reference = validator.client_reference(path, device.client_reference);
            if let (Some(eid), Some(iccid), Some(reference)) = (eid, iccid, reference) {
                let ids = vec![(eid_path, eid), (iccid_path, iccid)];
                validator.add_device(index, ids, reference);
            }
        }
        validator.finish(Box::new(Self))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeEsimPlanResponse { change: Some(change), warnings }
    }
}
