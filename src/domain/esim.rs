//! The change of eSIM profiles' service plan: "Change the eSIM Profile Service
//! Plan" of ThingSpace's documentation.

use super::{
    change::{Demand, Order},
    draft::{Draft, Drafting, Limits},
    identifier::{DeviceId, Eid, Iccid, Kind},
    violation::{Path, Violation},
};

/// What a client sent, not yet looked at.
#[derive(Debug, Clone, Default)]
pub struct EsimPlanDraft {
    /// What both changes have.
    pub common: Draft,
    /// The profiles.
    pub devices: Vec<EsimDeviceDraft>,
}

/// One profile as a client sent it.
#[derive(Debug, Clone, Default)]
pub struct EsimDeviceDraft {
    /// 32 digits.
    pub eid: String,
    /// 19 or 20 digits.
    pub iccid: String,
    /// The client's own text.
    pub client_reference: String,
}

// === impl EsimPlanDraft ===

impl EsimPlanDraft {
    /// The valid change, or everything that is wrong with it.
    pub fn validate(self, limits: Limits) -> Result<Demand, Vec<Violation>> {
        let mut drafting = Drafting::begin(limits, self.common, self.devices.len());
        if drafting.takes(self.devices.len()) {
            for (index, device) in self.devices.into_iter().enumerate() {
                device.validate(index, &mut drafting);
            }
        }
        drafting.finish(Order::EsimPlan)
    }
}

impl EsimDeviceDraft {
    fn validate(self, index: usize, drafting: &mut Drafting) {
        let path = Path::root("devices").at(index);
        let (eid_path, iccid_path) = (path.field("eid"), path.field("iccid"));
        let eid = drafting
            .violations()
            .take(eid_path, self.eid.parse::<Eid>());
        let iccid = drafting
            .violations()
            .take(iccid_path, self.iccid.parse::<Iccid>());
        let reference = drafting.reference(path, self.client_reference);
        if let (Some(eid), Some(iccid), Some(reference)) = (eid, iccid, reference) {
            let ids = vec![(eid_path, eid.into()), (iccid_path, iccid.into())];
            // One EID carries several profiles: the ICCID tells them apart.
            let identifying = |id: &DeviceId| id.kind() == Kind::Iccid;
            drafting.device(index, ids, identifying, reference);
        }
    }
}
