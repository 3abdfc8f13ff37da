//! The change of eSIM profiles' service plan: "Change the eSIM Profile Service
//! Plan" of ThingSpace's documentation.

use super::{
    change::{ChangeRequest, OperationPayload},
    identifier::{DeviceId, Eid, Iccid, IdentifierKind},
    validator::{CommonFields, ValidationRules, Validator},
    violation::{FieldPath, Violation},
};

/// What a client sent, not yet looked at.
#[derive(Debug, Clone, Default)]
pub struct EsimPlanInput {
    /// What both changes have.
    pub common: CommonFields,
    /// The profiles.
    pub devices: Vec<EsimDeviceInput>,
}

/// One profile as a client sent it.
#[derive(Debug, Clone, Default)]
pub struct EsimDeviceInput {
    /// 32 digits.
    pub eid: String,
    /// 19 or 20 digits.
    pub iccid: String,
    /// The client's own text.
    pub client_reference: String,
}

// === impl EsimPlanDraft ===

impl EsimPlanInput {
    /// The valid change, or everything that is wrong with it.
    pub fn validate(self, limits: ValidationRules) -> Result<ChangeRequest, Vec<Violation>> {
        let mut validator = Validator::new(limits, self.common, self.devices.len());
        if validator.is_within_device_limit(self.devices.len()) {
            for (index, device) in self.devices.into_iter().enumerate() {
                device.validate(index, &mut validator);
            }
        }
        validator.finish(OperationPayload::EsimPlan)
    }
}

impl EsimDeviceInput {
    fn validate(self, index: usize, validator: &mut Validator) {
        let path = FieldPath::root("devices").at(index);
        let (eid_path, iccid_path) = (path.field("eid"), path.field("iccid"));
        let eid = validator
            .violations()
            .ok_or_add(eid_path, self.eid.parse::<Eid>());
        let iccid = validator
            .violations()
            .ok_or_add(iccid_path, self.iccid.parse::<Iccid>());
        let reference = validator.parse_client_reference(path, self.client_reference);
        if let (Some(eid), Some(iccid), Some(reference)) = (eid, iccid, reference) {
            let ids = vec![(eid_path, eid.into()), (iccid_path, iccid.into())];
            // One EID carries several profiles: the ICCID tells them apart.
            let identifying = |id: &DeviceId| id.kind() == IdentifierKind::Iccid;
            validator.add_device(index, ids, identifying, reference);
        }
    }
}
