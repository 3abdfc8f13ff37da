//! The change of 5G Business Internet devices' service plan: "Change a 5G
//! Business Internet Service Plan" of ThingSpace's documentation.

use super::{
    change::{ChangeRequest, OperationPayload},
    identifier::{DeviceId, IdentifierKind},
    newtypes::ServicePlan,
    place_of_use::PrimaryPlaceOfUse,
    validator::{CommonFields, ValidationRules, Validator},
    violation::{FieldPath, FieldReason, Violation},
};

/// What a client sent, not yet looked at.
#[derive(Debug, Clone, Default)]
pub struct FiveGBiPlanInput {
    /// What both changes have.
    pub common: CommonFields,
    /// The plan that the devices are on now; optional. The seed page lists it
    /// as required, the SDK as optional.
    pub current_service_plan: String,
    /// The devices.
    pub devices: Vec<FiveGBiDeviceInput>,
}

/// One device as a client sent it.
#[derive(Debug, Clone, Default)]
pub struct FiveGBiDeviceInput {
    /// Pairs of a kind and an identifier.
    pub device_ids: Vec<(String, String)>,
    /// Where it is used, and by whom.
    pub primary_place_of_use: Option<PrimaryPlaceOfUse>,
    /// The client's own text.
    pub client_reference: String,
}

// === impl FiveGBiPlanDraft ===

impl FiveGBiPlanInput {
    /// The valid change, or everything that is wrong with it.
    pub fn validate(self, limits: ValidationRules) -> Result<ChangeRequest, Vec<Violation>> {
        let mut validator = Validator::new(limits, self.common, self.devices.len());
        let current_service_plan = match self.current_service_plan {
            text if text.is_empty() => None,
            text => {
                let path = FieldPath::root("current_service_plan");
                validator
                    .violations()
                    .ok_or_add(path, ServicePlan::parse(text))
            }
        };
        let mut places = Vec::new();
        if validator.is_within_device_limit(self.devices.len()) {
            places.reserve(self.devices.len());
            for (index, device) in self.devices.into_iter().enumerate() {
                places.extend(device.validate(index, &mut validator));
            }
        }
        let order = OperationPayload::FiveGBiPlan {
            current_service_plan,
            places_of_use: places,
        };
        validator.finish(order)
    }
}

impl FiveGBiDeviceInput {
    fn validate(self, index: usize, validator: &mut Validator) -> Option<PrimaryPlaceOfUse> {
        let path = FieldPath::root("devices").at(index);
        let reference = validator.parse_client_reference(path, self.client_reference);
        let ids = parse_ids(path.field("device_ids"), self.device_ids, validator);
        let place_path = path.field("primary_place_of_use");
        match &self.primary_place_of_use {
            Some(place) => place.check(place_path, validator.violations()),
            None => {
                let reason = FieldReason::Required;
                validator
                    .violations()
                    .add(place_path, reason, "is required");
            }
        }
        let (Some(place), Some(reference)) = (self.primary_place_of_use, reference) else {
            return None;
        };
        validator.add_device(index, ids, |_| true, reference);
        Some(place)
    }
}

/// Reads a device's identifiers: at least one, no kind twice.
fn parse_ids(
    path: FieldPath,
    texts: Vec<(String, String)>,
    validator: &mut Validator,
) -> Vec<(FieldPath, DeviceId)> {
    if texts.is_empty() {
        let why = "must have at least one identifier";
        validator.violations().add(path, FieldReason::Required, why);
    }
    if texts.len() > IdentifierKind::COUNT {
        let why = "must have at most 9 identifiers: one of each kind";
        validator.violations().add(path, FieldReason::TooLong, why);
        return Vec::new();
    }
    let mut ids: Vec<(FieldPath, DeviceId)> = Vec::new();
    for (place, (kind, id)) in texts.into_iter().enumerate() {
        let path = path.at(place);
        let kind = validator
            .violations()
            .ok_or_add(path.field("kind"), kind.parse::<IdentifierKind>());
        let Some(kind) = kind else { continue };
        if ids.iter().any(|(_, other)| other.kind() == kind) {
            let why = "names a kind that this device has already";
            let path = path.field("kind");
            validator
                .violations()
                .add(path, FieldReason::Duplicate, why);
            continue;
        }
        let path = path.field("id");
        let id = validator
            .violations()
            .ok_or_add(path, DeviceId::new(kind, id));
        ids.extend(id.map(|id| (path, id)));
    }
    ids
}
