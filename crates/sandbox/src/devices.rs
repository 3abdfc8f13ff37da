//! What the platform knows of devices: their identifiers, their account, their
//! present plan, and how often each was changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device_outcome::stable_hash;
use crate::identifiers::{self, DeviceId, DeviceIds};
use crate::json_body::OperationKind;

/// Devices that are known: the one that was met first is forgotten first, and
/// is on the initial plan again.
const MAX_DEVICES: usize = 100_000;

/// One device.
#[derive(Debug)]
pub(crate) struct DeviceRecord {
    /// The platform's own number for it, from 1.
    pub(crate) number: u64,
    /// What its fate is drawn with.
    pub(crate) rng_key: u64,
    pub(crate) mdn: Box<str>,
    attributes: Mutex<DeviceAttributes>,
    /// Changes of it that were executed.
    execution_count: AtomicU64,
    /// Requests that named it first, executed or not.
    request_count: AtomicU64,
}

/// What can change about a device.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceAttributes {
    pub(crate) ids: DeviceIds,
    /// None while no change of it was executed.
    pub(crate) account: Option<Arc<str>>,
    /// None for the initial plan.
    pub(crate) plan: Option<Arc<str>>,
    /// It is on whatever plan it is asked for, and was before: see
    /// [`scenario::residents`](super::scenario::residents).
    pub(crate) is_preloaded: bool,
}

/// All devices that were met.
#[derive(Debug, Default)]
pub(crate) struct DeviceRegistry {
    /// Numbers up to this one are never forgotten.
    last_preloaded: u64,
    by_number: BTreeMap<u64, Arc<DeviceRecord>>,
    /// By kind and identifier. An EID is none: it may have several profiles.
    by_identifier: HashMap<Box<str>, u64>,
    last_number: u64,
}

impl DeviceRecord {
    pub(crate) fn attributes(&self) -> MutexGuard<'_, DeviceAttributes> {
        // Plain data, good to go on with after a panic elsewhere.
        self.attributes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// One more execution; how many there were before.
    pub(crate) fn record_execution(&self) -> u64 {
        self.execution_count.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn execution_count(&self) -> u64 {
        self.execution_count.load(Ordering::Relaxed)
    }

    /// One more request that names it first; how many there were before.
    pub(crate) fn record_request(&self) -> u64 {
        self.request_count.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn set_plan(&self, plan: &Arc<str>) {
        self.attributes().plan = Some(Arc::clone(plan));
    }
}

impl DeviceRegistry {
    /// Knows the devices that are there before anybody asks.
    pub(crate) fn with_preloaded(residents: impl IntoIterator<Item = DeviceId>) -> Self {
        let mut devices = Self::default();
        for id in residents {
            let sent: DeviceIds = Arc::new([id]);
            let record = devices.find_or_create(OperationKind::FiveGBiPlan, &sent);
            record.attributes().is_preloaded = true;
        }
        devices.last_preloaded = devices.last_number;
        devices
    }

    /// The device that was sent with these identifiers; one that was never met
    /// is met now.
    pub(crate) fn find_or_create(
        &mut self,
        kind: OperationKind,
        sent: &DeviceIds,
    ) -> Arc<DeviceRecord> {
        let names = identifier_keys(kind, sent);
        let known = names.iter().find_map(|name| self.by_identifier.get(name));
        if let Some(record) = known.and_then(|number| self.by_number.get(number)) {
            let record = Arc::clone(record);
            for name in names {
                self.by_identifier.entry(name).or_insert(record.number);
            }
            record.attributes().add_identifiers(sent);
            return record;
        }
        self.last_number += 1;
        let record = Arc::new(DeviceRecord {
            number: self.last_number,
            rng_key: stable_hash(names.first().map_or("", |name| &**name)),
            mdn: self.free_mdn(kind, sent),
            attributes: Mutex::default(),
            execution_count: AtomicU64::new(0),
            request_count: AtomicU64::new(0),
        });
        record.attributes().add_identifiers(sent);
        for name in names
            .into_iter()
            .chain([identifier_key("mdn", &record.mdn)])
        {
            self.by_identifier.entry(name).or_insert(record.number);
        }
        self.by_number.insert(record.number, Arc::clone(&record));
        self.evict_oldest();
        record
    }

    /// The devices that an identifier names: several for an EID.
    pub(crate) fn find(&self, kind: &str, id: &str) -> Vec<Arc<DeviceRecord>> {
        if let Some(number) = self.by_identifier.get(&normalized_key(kind, id)) {
            return self.by_number.get(number).cloned().into_iter().collect();
        }
        let named = |record: &&Arc<DeviceRecord>| {
            let known = record.attributes();
            let mut ids = known.ids.iter();
            ids.any(|one| one.has_kind(kind) && one.id.eq_ignore_ascii_case(id))
        };
        self.by_number.values().filter(named).cloned().collect()
    }

    /// Devices above a number that fit, at most so many, and whether there are more.
    pub(crate) fn page(
        &self,
        above: u64,
        limit: usize,
        fits: impl Fn(&DeviceAttributes) -> bool,
    ) -> (Vec<Arc<DeviceRecord>>, bool) {
        let beyond = self.by_number.range(above.saturating_add(1)..);
        let fitting = beyond
            .map(|(_, record)| record)
            .filter(|record| fits(&record.attributes()));
        let mut page: Vec<_> = fitting.take(limit + 1).cloned().collect();
        let more = page.len() > limit;
        page.truncate(limit);
        (page, more)
    }

    /// The phone number that follows from the identifiers, or the next one that
    /// nobody has: no two devices share one.
    fn free_mdn(&self, kind: OperationKind, sent: &DeviceIds) -> Box<str> {
        let own = match kind {
            OperationKind::EsimPlan => {
                identifiers::derive_mdn(identifiers::find_id(sent, "iccid").unwrap_or_default())
            }
            OperationKind::FiveGBiPlan => identifiers::device_mdn(sent),
        };
        let first: u64 = own.parse().unwrap_or_default();
        let candidates = (first..)
            .take(MAX_DEVICES + 1)
            .map(|number| number.to_string());
        let mut free =
            candidates.filter(|mdn| !self.by_identifier.contains_key(&identifier_key("mdn", mdn)));
        free.next().unwrap_or(own).into()
    }

    fn evict_oldest(&mut self) {
        if self.by_number.len() <= MAX_DEVICES {
            return;
        }
        let beyond = self.last_preloaded.saturating_add(1);
        let oldest = self.by_number.range(beyond..).next();
        let oldest = oldest.map(|(number, _)| *number);
        if let Some((number, record)) = oldest.and_then(|it| self.by_number.remove_entry(&it)) {
            let ids = record.attributes().ids.clone();
            let names = ids.iter().map(|one| normalized_key(&one.kind, &one.id));
            for name in names.chain([identifier_key("mdn", &record.mdn)]) {
                if self.by_identifier.get(&name) == Some(&number) {
                    self.by_identifier.remove(&name);
                }
            }
        }
    }
}

impl DeviceAttributes {
    fn add_identifiers(&mut self, sent: &DeviceIds) {
        if self.ids.is_empty() {
            self.ids = Arc::clone(sent);
            return;
        }
        let is_new = |one: &&DeviceId| {
            let same = |other: &DeviceId| other.has_kind(&one.kind) && other.id == one.id;
            !self.ids.iter().any(same)
        };
        let new: Vec<DeviceId> = sent.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            self.ids = self.ids.iter().cloned().chain(new).collect();
        }
    }
}

/// The names by which a device is told from others, the same first one whatever
/// the order in which they were sent. A profile is its ICCID.
fn identifier_keys(kind: OperationKind, sent: &DeviceIds) -> Vec<Box<str>> {
    let tells = |one: &&DeviceId| match kind {
        OperationKind::EsimPlan => one.has_kind("iccid"),
        OperationKind::FiveGBiPlan => !one.has_kind("eid"),
    };
    let names = sent.iter().filter(tells);
    let mut names: Vec<_> = names
        .map(|one| normalized_key(&one.kind, &one.id))
        .collect();
    names.sort_unstable();
    names
}

/// An identifier in one spelling: a phone number without its country code.
fn normalized_key(kind: &str, id: &str) -> Box<str> {
    let national = id.strip_prefix('1').filter(|rest| rest.len() == 10);
    match national {
        Some(rest) if kind.eq_ignore_ascii_case("msisdn") => identifier_key("mdn", rest),
        _ => identifier_key(kind, id),
    }
}

fn identifier_key(kind: &str, id: &str) -> Box<str> {
    format!("{kind}:{id}").to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ids: &[(&str, &str)]) -> DeviceIds {
        let id = |(kind, id): &(&str, &str)| DeviceId {
            id: (*id).into(),
            kind: (*kind).into(),
        };
        ids.iter().map(id).collect()
    }

    #[test]
    fn a_device_is_known_by_each_of_its_identifiers_and_by_its_phone_number() {
        let mut devices = DeviceRegistry::default();
        let meid = device(&[("MEID", "A100003685E561"), ("imei", "990013907835573")]);
        let met = devices.find_or_create(OperationKind::FiveGBiPlan, &meid);
        for (kind, id) in [
            ("meid", "a100003685e561"),
            ("IMEI", "990013907835573"),
            ("mdn", &met.mdn),
            ("msisdn", &format!("1{}", met.mdn)),
        ] {
            assert_eq!(devices.find(kind, id)[0].number, met.number, "{kind}");
            let again = device(&[(kind, id)]);
            let again = devices.find_or_create(OperationKind::FiveGBiPlan, &again);
            assert_eq!(again.number, met.number);
        }
    }

    #[test]
    fn profiles_on_one_eid_are_devices_of_their_own() {
        let mut devices = DeviceRegistry::default();
        let eid = ("eid", "89049032000001000000000000000001");
        for iccid in ["89148000000800139708", "89148000000800139709"] {
            devices.find_or_create(OperationKind::EsimPlan, &device(&[eid, ("iccid", iccid)]));
        }
        assert_eq!(devices.find(eid.0, eid.1).len(), 2);
        assert_eq!(devices.find("iccid", "89148000000800139709")[0].number, 2);
    }

    #[test]
    fn no_two_devices_share_a_phone_number() {
        let mut devices = DeviceRegistry::default();
        let first = device(&[("imei", "353238063289555")]);
        let taken = identifiers::device_mdn(&first);
        devices.find_or_create(OperationKind::FiveGBiPlan, &device(&[("mdn", &taken)]));
        let next = devices.find_or_create(OperationKind::FiveGBiPlan, &first);
        assert_ne!(*next.mdn, *taken);
        assert_eq!(devices.find("mdn", &next.mdn)[0].number, next.number);
    }

    #[test]
    fn the_oldest_device_is_evicted_first() {
        let mut devices = DeviceRegistry::default();
        for serial in 0..=MAX_DEVICES {
            let one = device(&[("meid", &format!("A1{serial:012X}"))]);
            devices.find_or_create(OperationKind::FiveGBiPlan, &one);
        }
        assert_eq!(devices.by_number.len(), MAX_DEVICES);
        assert_eq!(devices.by_identifier.len(), 2 * MAX_DEVICES);
        assert!(devices.find("meid", "A1000000000000").is_empty());
    }
}
