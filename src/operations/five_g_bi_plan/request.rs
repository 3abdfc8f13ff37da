//! Validates `ChangeFiveGBiPlanRequest`.

use crate::{
    domain::{
        newtypes::ServicePlan,
        violation::{FieldPath, FieldReason, Violation},
    },
    operations::{
        five_g_bi_plan::{FiveGBiPlanChange, INFO, place_of_use::PlaceOfUse},
        operation::{ChangeRequest, RpcOperation, ValidationRules},
        validator::{Validator, common_fields},
    },
    proto,
};

impl RpcOperation for FiveGBiPlanChange {
    type Request = proto::ChangeFiveGBiPlanRequest;
    type Response = proto::ChangeFiveGBiPlanResponse;

    fn validate(
        mut request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        let fields = common_fields!(request);
        let mut validator = Validator::new(&INFO, rules, fields, request.devices.len());
        let current_service_plan = match request.current_service_plan {
            plan if plan.is_empty() => None,
            plan => {
                let path = FieldPath::root("current_service_plan");
                validator.violations.ok_or_add(path, ServicePlan::parse(plan))
            }
        };
        let mut places = Vec::with_capacity(request.devices.len());
        for (index, path, device) in validator.devices(request.devices) {
            let reference = validator.client_reference(path, device.client_reference);
            let ids = validator.device_ids(path.field("device_ids"), device.device_ids);
            let path = path.field("primary_place_of_use");
            let Some(place) = device.primary_place_of_use.map(PlaceOfUse::from) else {
                validator.violations.add(path, FieldReason::Required, "is required");
                continue;
            };
            place.validate(path, &mut validator.violations);
            if let Some(reference) = reference {
                validator.add_device(index, ids, reference);
                places.push(place);
            }
        }
        validator.finish(Box::new(Self { current_service_plan, places }))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeFiveGBiPlanResponse { change: Some(change), warnings }
    }
}
