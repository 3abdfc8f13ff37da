//! Validates `ChangeFiveGBiPlanRequest`.

use crate::{
    domain::{
        newtypes::ServicePlan,
        violation::{FieldPath, FieldReason, Violation},
    },
    operations::{
        change_request::ChangeRequest,
        device_ids::parse_device_ids,
        five_g_bi_plan::{FiveGBiPlanChange, place_of_use::PlaceOfUse},
        operation::RpcOperation,
        validator::{ValidationRules, Validator, common_fields},
    },
    proto,
};

impl RpcOperation for FiveGBiPlanChange {
    type Request = proto::ChangeFiveGBiPlanRequest;
    type Response = proto::ChangeFiveGBiPlanResponse;

    fn is_validate_only(request: &Self::Request) -> bool {
        request.validate_only
    }

    fn validate(
        mut request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        let fields = common_fields!(request);
        let mut validator = Validator::new(rules, fields, request.devices.len());
        let current_service_plan = match request.current_service_plan {
            plan if plan.is_empty() => None,
            plan => {
                let path = FieldPath::root("current_service_plan");
                validator.violations.ok_or_add(path, ServicePlan::parse(plan))
            }
        };
        let mut places = Vec::with_capacity(request.devices.len());
        for (index, device) in validator.devices(request.devices) {
            places.extend(validate_device(index, device, &mut validator));
        }
        validator.finish(Box::new(Self { current_service_plan, places }))
    }

    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response {
        proto::ChangeFiveGBiPlanResponse { change: Some(change), warnings }
    }
}

fn validate_device(
    index: usize,
    device: proto::FiveGBiDevice,
    validator: &mut Validator,
) -> Option<PlaceOfUse> {
    let path = FieldPath::root("devices").at(index);
    let reference = validator.client_reference(path, device.client_reference);
    let ids_path = path.field("device_ids");
    let ids = parse_device_ids(ids_path, device.device_ids, &mut validator.violations);
    let place_path = path.field("primary_place_of_use");
    let Some(place) = device.primary_place_of_use.map(PlaceOfUse::from) else {
        let reason = FieldReason::Required;
        validator.violations.add(place_path, reason, "is required");
        return None;
    };
    place.validate(place_path, &mut validator.violations);
    validator.add_device(index, ids, |_| true, reference?);
    Some(place)
}
