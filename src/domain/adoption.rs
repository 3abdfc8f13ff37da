//! Is this request the change whose outcome nobody knows?
//!
//! ThingSpace executed a change, and its answer was lost: only the callbacks tell, and they name a
//! request that nobody here made. A callback of another operation on one of the same devices looks
//! just like ours, so a part of the devices proves nothing: all of them must have been named, and
//! no other.

use std::collections::HashSet;

use super::{
    change::{Change, ChangeState, ChangeType},
    clock::Timestamp,
    names::{AccountName, ServiceName},
    result::{DeviceReport, Match},
};

/// What is known of a request beside its results.
#[derive(Debug, Clone)]
pub struct Orphan {
    /// When its first result came.
    pub first_time: Timestamp,
    /// The account that its callbacks' path named.
    pub account: Option<AccountName>,
    /// The service that its callbacks' path named.
    pub service: Option<ServiceName>,
}

/// The devices of one change that a request's results have named.
#[derive(Debug, Default)]
pub struct Sighting {
    devices: HashSet<u32>,
    /// A result named a device that is not the change's, or none that can be told.
    stranger: bool,
}

/// How much of a change a request was seen to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All its devices, and no other.
    Whole,
    /// Some of its devices, and no other.
    Part,
    /// Something else.
    Other,
}

/// The change that a request is, if there is exactly one that it can be, and how much of it was seen.
/// Changes that are being sent count: one of them may be the request's as well. `listed`: ThingSpace's
/// own list of the request's devices was among what was seen.
pub fn only_one(seen: &[(Change, Extent)], listed: bool) -> Option<(&Change, Extent)> {
    let of = |extent| {
        let alike = seen.iter().filter(move |(_, seen)| *seen == extent);
        alike.map(|(change, _)| change)
    };
    let (mut whole, mut part) = (of(Extent::Whole), of(Extent::Part));
    let (change, extent) = match (whole.next(), whole.next(), part.next(), part.next()) {
        (Some(change), None, ..) => (change, Extent::Whole),
        // Only eSIM has a status that names the devices of a request.
        (None, _, Some(change), None) if change.change_type == ChangeType::EsimPlan && !listed => {
            (change, Extent::Part)
        }
        _ => return None,
    };
    (change.state == ChangeState::OutcomeUnknown).then_some((change, extent))
}

// === impl Orphan ===

impl Orphan {
    /// Whether it can be this change at all: sent and not answered, before the first result came,
    /// for the same account and by a service that tells such results.
    pub fn may_be(&self, change: &Change) -> bool {
        let sent = matches!(
            change.state,
            ChangeState::OutcomeUnknown | ChangeState::Dispatched
        ) && change
            .dispatch_time
            .is_some_and(|sent| sent <= self.first_time);
        let account = self.account.as_ref();
        sent && account.is_none_or(|account| *account == change.account)
            && self.service_fits(change.change_type)
    }

    /// The set of services is open, and a proxy may name them as it likes: only the name of the
    /// other kind's is a contradiction.
    fn service_fits(&self, change_type: ChangeType) -> bool {
        let other = match change_type {
            ChangeType::EsimPlan => ServiceName::CARRIER,
            ChangeType::FiveGBiPlan => ServiceName::DEVICE_PROFILE,
        };
        self.service
            .as_ref()
            .is_none_or(|service| !service.is(other))
    }
}

// === impl Sighting ===

impl Sighting {
    /// Takes what a result was found to be of.
    pub fn see(
        &mut self,
        change_type: ChangeType,
        report: &DeviceReport,
        device: Option<u32>,
        matched: Match,
    ) {
        let contradicts = match change_type {
            ChangeType::EsimPlan => report.service_plan_change.is_some(),
            ChangeType::FiveGBiPlan => report.esim_profile.is_some(),
        };
        self.see_device(device, matched);
        self.stranger |= contradicts;
    }

    /// Takes a device that the request was found to be for.
    pub fn see_device(&mut self, device: Option<u32>, matched: Match) {
        match (device, matched) {
            (Some(index), Match::Exact) => {
                self.devices.insert(index);
            }
            // "It is the only one that was sent" is a guess here.
            _ => self.stranger = true,
        }
    }

    /// How much of a change of so many devices this is.
    pub fn extent(&self, device_count: u32) -> Extent {
        let seen = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        if self.stranger || seen == 0 {
            Extent::Other
        } else if seen == device_count {
            Extent::Whole
        } else {
            Extent::Part
        }
    }
}
