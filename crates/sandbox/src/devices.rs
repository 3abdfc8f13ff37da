//! What the platform knows of devices: their identifiers, their account, their
//! present plan, and how often each was changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::changes::ChangeKind;
use super::fate::key_of;
use super::identifiers::{self, Device, DeviceId};

/// Devices that are known: the one that was met first is forgotten first, and
/// is on the initial plan again.
const MAX_KNOWN: usize = 100_000;

/// One device.
#[derive(Debug)]
pub(super) struct Record {
    /// The platform's own number for it, from 1.
    pub(super) number: u64,
    /// What its fate is drawn with.
    pub(super) key: u64,
    pub(super) mdn: Box<str>,
    known: Mutex<Known>,
    /// Changes of it that were executed.
    executed: AtomicU64,
    /// Requests that named it first, executed or not.
    asked: AtomicU64,
}

/// What can change about a device.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) ids: Device,
    /// None while no change of it was executed.
    pub(super) account: Option<Arc<str>>,
    /// None for the initial plan.
    pub(super) plan: Option<Arc<str>>,
    /// It is on whatever plan it is asked for, and was before: see
    /// [`scenario::residents`](super::scenario::residents).
    pub(super) is_resident: bool,
}

/// All devices that were met.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// Numbers up to this one are never forgotten.
    residents: u64,
    by_number: BTreeMap<u64, Arc<Record>>,
    /// By kind and identifier. An EID is none: it may have several profiles.
    by_name: HashMap<Box<str>, u64>,
    met: u64,
}

impl Record {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Plain data, good to go on with after a panic elsewhere.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more execution; how many there were before.
    pub(super) fn execute(&self) -> u64 {
        self.executed.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn executed(&self) -> u64 {
        self.executed.load(Ordering::Relaxed)
    }

    /// One more request that names it first; how many there were before.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn put_on(&self, plan: &Arc<str>) {
        self.known().plan = Some(Arc::clone(plan));
    }
}

impl Devices {
    /// Knows the devices that are there before anybody asks.
    pub(super) fn with(residents: impl IntoIterator<Item = DeviceId>) -> Self {
        let mut devices = Self::default();
        for id in residents {
            let sent: Device = Arc::new([id]);
            let record = devices.meet(ChangeKind::FiveGBi, &sent);
            record.known().is_resident = true;
        }
        devices.residents = devices.met;
        devices
    }

    /// The device that was sent with these identifiers; one that was never met
    /// is met now.
    pub(super) fn meet(&mut self, kind: ChangeKind, sent: &Device) -> Arc<Record> {
        let names = names(kind, sent);
        let known = names.iter().find_map(|name| self.by_name.get(name));
        if let Some(record) = known.and_then(|number| self.by_number.get(number)) {
            let record = Arc::clone(record);
            for name in names {
                self.by_name.entry(name).or_insert(record.number);
            }
            record.known().learn(sent);
            return record;
        }
        self.met += 1;
        let record = Arc::new(Record {
            number: self.met,
            key: key_of(names.first().map_or("", |name| &**name)),
            mdn: self.free_mdn(kind, sent),
            known: Mutex::default(),
            executed: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        });
        record.known().learn(sent);
        for name in names.into_iter().chain([name("mdn", &record.mdn)]) {
            self.by_name.entry(name).or_insert(record.number);
        }
        self.by_number.insert(record.number, Arc::clone(&record));
        self.make_room();
        record
    }

    /// The devices that an identifier names: several for an EID.
    pub(super) fn find(&self, kind: &str, id: &str) -> Vec<Arc<Record>> {
        if let Some(number) = self.by_name.get(&normal(kind, id)) {
            return self.by_number.get(number).cloned().into_iter().collect();
        }
        let named = |record: &&Arc<Record>| {
            let known = record.known();
            let mut ids = known.ids.iter();
            ids.any(|one| one.is(kind) && one.id.eq_ignore_ascii_case(id))
        };
        self.by_number.values().filter(named).cloned().collect()
    }

    /// Devices above a number that fit, at most so many, and whether there are more.
    pub(super) fn page(
        &self,
        above: u64,
        most: usize,
        fits: impl Fn(&Known) -> bool,
    ) -> (Vec<Arc<Record>>, bool) {
        let beyond = self.by_number.range(above.saturating_add(1)..);
        let fitting = beyond
            .map(|(_, record)| record)
            .filter(|record| fits(&record.known()));
        let mut page: Vec<_> = fitting.take(most + 1).cloned().collect();
        let more = page.len() > most;
        page.truncate(most);
        (page, more)
    }

    /// The phone number that follows from the identifiers, or the next one that
    /// nobody has: no two devices share one.
    fn free_mdn(&self, kind: ChangeKind, sent: &Device) -> Box<str> {
        let own = match kind {
            ChangeKind::Esim => {
                identifiers::mdn_of(identifiers::find(sent, "iccid").unwrap_or_default())
            }
            ChangeKind::FiveGBi => identifiers::mdn_of_device(sent),
        };
        let first: u64 = own.parse().unwrap_or_default();
        let candidates = (first..)
            .take(MAX_KNOWN + 1)
            .map(|number| number.to_string());
        let mut free = candidates.filter(|mdn| !self.by_name.contains_key(&name("mdn", mdn)));
        free.next().unwrap_or(own).into()
    }

    fn make_room(&mut self) {
        if self.by_number.len() <= MAX_KNOWN {
            return;
        }
        let beyond = self.residents.saturating_add(1);
        let oldest = self.by_number.range(beyond..).next();
        let oldest = oldest.map(|(number, _)| *number);
        if let Some((number, record)) = oldest.and_then(|it| self.by_number.remove_entry(&it)) {
            let ids = record.known().ids.clone();
            let names = ids.iter().map(|one| normal(&one.kind, &one.id));
            for name in names.chain([name("mdn", &record.mdn)]) {
                if self.by_name.get(&name) == Some(&number) {
                    self.by_name.remove(&name);
                }
            }
        }
    }
}

impl Known {
    fn learn(&mut self, sent: &Device) {
        if self.ids.is_empty() {
            self.ids = Arc::clone(sent);
            return;
        }
        let is_new = |one: &&DeviceId| {
            let same = |other: &DeviceId| other.is(&one.kind) && other.id == one.id;
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
fn names(kind: ChangeKind, sent: &Device) -> Vec<Box<str>> {
    let tells = |one: &&DeviceId| match kind {
        ChangeKind::Esim => one.is("iccid"),
        ChangeKind::FiveGBi => !one.is("eid"),
    };
    let names = sent.iter().filter(tells);
    let mut names: Vec<_> = names.map(|one| normal(&one.kind, &one.id)).collect();
    names.sort_unstable();
    names
}

/// An identifier in one spelling: a phone number without its country code.
fn normal(kind: &str, id: &str) -> Box<str> {
    let national = id.strip_prefix('1').filter(|rest| rest.len() == 10);
    match national {
        Some(rest) if kind.eq_ignore_ascii_case("msisdn") => name("mdn", rest),
        _ => name(kind, id),
    }
}

fn name(kind: &str, id: &str) -> Box<str> {
    format!("{kind}:{id}").to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ids: &[(&str, &str)]) -> Device {
        let id = |(kind, id): &(&str, &str)| DeviceId {
            id: (*id).into(),
            kind: (*kind).into(),
        };
        ids.iter().map(id).collect()
    }

    #[test]
    fn a_device_is_known_by_each_of_its_identifiers_and_by_its_phone_number() {
        let mut devices = Devices::default();
        let meid = device(&[("MEID", "A100003685E561"), ("imei", "990013907835573")]);
        let met = devices.meet(ChangeKind::FiveGBi, &meid);
        for (kind, id) in [
            ("meid", "a100003685e561"),
            ("IMEI", "990013907835573"),
            ("mdn", &met.mdn),
            ("msisdn", &format!("1{}", met.mdn)),
        ] {
            assert_eq!(devices.find(kind, id)[0].number, met.number, "{kind}");
            let again = device(&[(kind, id)]);
            let again = devices.meet(ChangeKind::FiveGBi, &again);
            assert_eq!(again.number, met.number);
        }
    }

    #[test]
    fn profiles_on_one_eid_are_devices_of_their_own() {
        let mut devices = Devices::default();
        let eid = ("eid", "89049032000001000000000000000001");
        for iccid in ["89148000000800139708", "89148000000800139709"] {
            devices.meet(ChangeKind::Esim, &device(&[eid, ("iccid", iccid)]));
        }
        assert_eq!(devices.find(eid.0, eid.1).len(), 2);
        assert_eq!(devices.find("iccid", "89148000000800139709")[0].number, 2);
    }

    #[test]
    fn no_two_devices_share_a_phone_number() {
        let mut devices = Devices::default();
        let first = device(&[("imei", "353238063289555")]);
        let taken = identifiers::mdn_of_device(&first);
        devices.meet(ChangeKind::FiveGBi, &device(&[("mdn", &taken)]));
        let next = devices.meet(ChangeKind::FiveGBi, &first);
        assert_ne!(*next.mdn, *taken);
        assert_eq!(devices.find("mdn", &next.mdn)[0].number, next.number);
    }

    #[test]
    fn the_device_that_was_met_first_is_forgotten_first() {
        let mut devices = Devices::default();
        for serial in 0..=MAX_KNOWN {
            let one = device(&[("meid", &format!("A1{serial:012X}"))]);
            devices.meet(ChangeKind::FiveGBi, &one);
        }
        assert_eq!(devices.by_number.len(), MAX_KNOWN);
        assert_eq!(devices.by_name.len(), 2 * MAX_KNOWN);
        assert!(devices.find("meid", "A1000000000000").is_empty());
    }
}
