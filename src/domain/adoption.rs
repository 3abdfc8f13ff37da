//! Is this request the change whose outcome nobody knows?
//!
//! ThingSpace executed a change, and its answer was lost: only the callbacks tell, and they name a
//! request that nobody here made. A callback of another operation on one of the same devices looks
//! just like ours, so a part of the devices proves nothing: all of them must have been named, and
//! no other.

use std::{collections::HashSet, time::Duration};

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

/// What ThingSpace's own list of a request's devices says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// It has told.
    Told,
    /// There is none: 5G Business Internet has no such list.
    Nowhere,
    /// There may be one, and nobody has answered.
    Unanswered,
}

/// How long a change that was given up, and never got a request, counts among those that a request may
/// be: ThingSpace keeps callbacks that nobody took for 30 days, and sends them again when it is asked
/// to ("About Callback Services").
pub const GIVEN_UP_COUNTS_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The change that a request is, if there is exactly one that it can be; or one that it is if ThingSpace's
/// list of its devices says so, which then is worth asking for. `listed`: the list was among what was seen.
///
/// Changes that are being sent count, and so do those that were given up: one of them may be the
/// request's as well.
pub fn only_one(seen: &[(Change, Extent)], listed: bool) -> Option<(&Change, Extent)> {
    let unknown = |extent| {
        let mut alike = seen.iter().filter(move |(_, seen)| *seen == extent);
        alike.find(|(change, _)| change.state == ChangeState::OutcomeUnknown)
    };
    let wholes = seen.iter().filter(|(_, seen)| *seen == Extent::Whole);
    let whole = unknown(Extent::Whole).filter(|_| wholes.count() == 1);
    // Of the others that it may be a part of, the list leaves one. Only eSIM has it.
    let part = || {
        let part = unknown(Extent::Part).filter(|_| !listed);
        part.filter(|(change, _)| change.change_type == ChangeType::EsimPlan)
    };
    let (change, extent) = whole.or_else(part)?;
    Some((change, *extent))
}

// === impl Listing ===

impl Listing {
    /// Whether a request that has named all devices of a change, and no other so far, is its: not while
    /// a list of more devices may exist that nobody has seen. Somebody else's request for more devices
    /// looks just like ours until its last callback.
    pub fn lets_bind(self) -> bool {
        match self {
            Self::Told | Self::Nowhere => true,
            Self::Unanswered => false,
        }
    }
}

// === impl Orphan ===

impl Orphan {
    /// Whether it can be this change at all: sent and not answered, before the first result came,
    /// for the same account and by a service that tells such results.
    pub fn may_be(&self, change: &Change, now: Timestamp) -> bool {
        let given_up = || {
            let lately = |at: Timestamp| now.since(at) <= GIVEN_UP_COUNTS_FOR;
            change.request_ids.is_empty() && change.finish_time.is_some_and(lately)
        };
        let unanswered = match change.state {
            ChangeState::OutcomeUnknown | ChangeState::Dispatched => true,
            // Its callbacks may be late, and look just like those of the next change of its devices.
            ChangeState::Closed => given_up(),
            _ => false,
        };
        let before = |sent: Timestamp| sent <= self.first_time;
        let sent = unanswered && change.dispatch_time.is_some_and(before);
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
