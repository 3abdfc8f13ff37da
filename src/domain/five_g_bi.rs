//! The change of 5G Business Internet devices' service plan: "Change a 5G
//! Business Internet Service Plan" of ThingSpace's documentation.

use super::{
    change::{Demand, Order},
    draft::{Draft, Drafting, Limits},
    identifier::{DeviceId, Kind},
    names::ServicePlan,
    place_of_use::PrimaryPlaceOfUse,
    violation::{FieldReason, Path, Violation},
};

/// What a client sent, not yet looked at.
#[derive(Debug, Clone, Default)]
pub struct FiveGBiPlanDraft {
    /// What both changes have.
    pub common: Draft,
    /// The plan that the devices are on now; optional. The seed page lists it
    /// as required, the SDK as optional.
    pub current_service_plan: String,
    /// The devices.
    pub devices: Vec<FiveGBiDeviceDraft>,
}

/// One device as a client sent it.
#[derive(Debug, Clone, Default)]
pub struct FiveGBiDeviceDraft {
    /// Pairs of a kind and an identifier.
    pub device_ids: Vec<(String, String)>,
    /// Where it is used, and by whom.
    pub primary_place_of_use: Option<PrimaryPlaceOfUse>,
    /// The client's own text.
    pub client_reference: String,
}

// === impl FiveGBiPlanDraft ===

impl FiveGBiPlanDraft {
    /// The valid change, or everything that is wrong with it.
    pub fn validate(self, limits: Limits) -> Result<Demand, Vec<Violation>> {
        let mut drafting = Drafting::begin(limits, self.common, self.devices.len());
        let current_service_plan = match self.current_service_plan {
            text if text.is_empty() => None,
            text => {
                let path = Path::root("current_service_plan");
                drafting.violations().take(path, ServicePlan::parse(text))
            }
        };
        let mut places = Vec::new();
        if drafting.takes(self.devices.len()) {
            places.reserve(self.devices.len());
            for (index, device) in self.devices.into_iter().enumerate() {
                places.extend(device.validate(index, &mut drafting));
            }
        }
        let order = Order::FiveGBiPlan {
            current_service_plan,
            places,
        };
        drafting.finish(order)
    }
}

impl FiveGBiDeviceDraft {
    fn validate(self, index: usize, drafting: &mut Drafting) -> Option<PrimaryPlaceOfUse> {
        let path = Path::root("devices").at(index);
        let reference = drafting.reference(path, self.client_reference);
        let ids = read_ids(path.field("device_ids"), self.device_ids, drafting);
        let place_path = path.field("primary_place_of_use");
        match &self.primary_place_of_use {
            Some(place) => place.check(place_path, drafting.violations()),
            None => {
                let reason = FieldReason::Required;
                drafting.violations().add(place_path, reason, "is required");
            }
        }
        let (Some(place), Some(reference)) = (self.primary_place_of_use, reference) else {
            return None;
        };
        drafting.device(index, ids, |_| true, reference);
        Some(place)
    }
}

/// Reads a device's identifiers: at least one, no kind twice.
fn read_ids(
    path: Path,
    texts: Vec<(String, String)>,
    drafting: &mut Drafting,
) -> Vec<(Path, DeviceId)> {
    if texts.is_empty() {
        let why = "must have at least one identifier";
        drafting.violations().add(path, FieldReason::Required, why);
    }
    if texts.len() > Kind::COUNT {
        let why = "must have at most 9 identifiers: one of each kind";
        drafting.violations().add(path, FieldReason::TooLong, why);
        return Vec::new();
    }
    let mut ids: Vec<(Path, DeviceId)> = Vec::new();
    for (place, (kind, id)) in texts.into_iter().enumerate() {
        let path = path.at(place);
        let kind = drafting
            .violations()
            .take(path.field("kind"), kind.parse::<Kind>());
        let Some(kind) = kind else { continue };
        if ids.iter().any(|(_, other)| other.kind() == kind) {
            let why = "names a kind that this device has already";
            let path = path.field("kind");
            drafting.violations().add(path, FieldReason::Duplicate, why);
            continue;
        }
        let path = path.field("id");
        let id = drafting.violations().take(path, DeviceId::new(kind, id));
        ids.extend(id.map(|id| (path, id)));
    }
    ids
}
