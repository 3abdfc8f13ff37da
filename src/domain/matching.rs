//! Matching: finds the device of a change that a result belongs to.
//!
//! A callback can name a device by another identifier than the one that was sent. In ThingSpace's 5G Business
//! Internet example, the request has the MEID and the callback has the MDN.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
};

use arrayvec::ArrayString;

use crate::domain::{
    evidence::IdentifyingKinds,
    identifier::{DeviceId, IdentifierKind, MAX_ID_LEN, ReportedId},
    result::Match,
};

/// An identifier in a canonical spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MatchKey {
    kind: IdentifierKind,
    text: KeyText,
}

/// The text of a key. Valid identifiers are short; reported ones can have any length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum KeyText {
    Short(ArrayString<MAX_ID_LEN>),
    Long(Box<str>),
}

/// The number of digits that ICCIDs with the same index key share.
const ICCID_INDEX_LEN: usize = 19;

/// The identifiers of a request seen so far, to find duplicates.
#[derive(Debug)]
pub struct SeenIdentifiers {
    /// The first device with each identifier.
    devices: HashMap<MatchKey, usize>,
    /// The first device with an ICCID of 20 digits, by its first 19 digits. `None` until an ICCID of 19 digits is
    /// added: usually, all have 20.
    iccid_prefixes: Option<HashMap<MatchKey, usize>>,
}

impl MatchKey {
    /// Returns the key of a sent identifier.
    pub fn from_id(id: &DeviceId) -> Self {
        Self::new(id.kind(), id.id())
    }

    /// Returns the key of a reported identifier; `None` if its kind is unknown.
    pub fn from_reported(id: &ReportedId) -> Option<Self> {
        (!id.id.is_empty()).then_some(())?;
        id.kind.parse().ok().map(|kind| Self::new(kind, &id.id))
    }

    fn new(kind: IdentifierKind, id: &str) -> Self {
        match kind {
            // An MSISDN is the MDN with the country code 1.
            IdentifierKind::Msisdn => {
                let number = id.strip_prefix('1').filter(|number| number.len() == 10);
                let text = KeyText::new(number.unwrap_or(id), false);
                Self { kind: IdentifierKind::Mdn, text }
            }
            kind => Self { kind, text: KeyText::new(id, true) },
        }
    }

    /// Returns the kind. An MSISDN has the kind MDN.
    pub fn kind(&self) -> IdentifierKind {
        self.kind
    }

    /// Returns the key of the index over sent identifiers. Equal identifiers have equal keys. ICCIDs that
    /// differ only in the 20th digit also do; see [`Self::is_same`].
    pub fn index_key(&self) -> String {
        format!("{}:{}", self.kind.as_str(), self.index_text())
    }

    /// Returns the text of the index key, without its kind.
    pub fn index_text(&self) -> &str {
        let text = self.text.as_str();
        let first_19 = text.get(..ICCID_INDEX_LEN).filter(|_| self.kind == IdentifierKind::Iccid);
        first_19.unwrap_or(text)
    }

    /// True if both are the same identifier. An ICCID of 19 digits is the same as one of 20 digits that
    /// begins with it.
    pub fn is_same(&self, other: &Self) -> bool {
        let has_other_length = self.text.as_str().len() != other.text.as_str().len();
        self == other
            || self.kind == IdentifierKind::Iccid
                && other.kind == self.kind
                && has_other_length
                && self.index_text() == other.index_text()
    }

    /// Returns the last digit of an ICCID of 20 digits.
    pub fn iccid_digit_20(&self) -> Option<u8> {
        let rest = self.text.as_str().as_bytes().get(ICCID_INDEX_LEN..)?;
        let digit = rest.first().filter(|digit| rest.len() == 1 && digit.is_ascii_digit())?;
        (self.kind == IdentifierKind::Iccid).then_some(digit - b'0')
    }

    /// Returns the key of the first 19 digits of a longer ICCID.
    fn iccid_prefix(&self) -> Option<Self> {
        let prefix = self.index_text();
        let is_shorter = prefix.len() < self.text.as_str().len();
        is_shorter.then(|| Self { kind: self.kind, text: KeyText::new(prefix, false) })
    }

    /// Returns the kind as one bit. `msisdn` and `mdn` share a bit.
    pub fn kind_bit(&self) -> u16 {
        1 << (self.kind as u16)
    }

    /// True if the kind tells the devices of an operation apart.
    pub fn is_identifying(&self, kinds: IdentifyingKinds) -> bool {
        kinds.includes(self.kind)
    }
}

impl Hash for MatchKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.text.as_str().as_bytes());
        state.write_u8(self.kind as u8);
    }
}

impl fmt::Display for MatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.text.as_str())
    }
}

impl fmt::Debug for MatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KeyText {
    fn new(text: &str, is_upper_case: bool) -> Self {
        match ArrayString::from(text) {
            Ok(mut short) => {
                if is_upper_case {
                    short.make_ascii_uppercase();
                }
                Self::Short(short)
            }
            Err(_) if is_upper_case => Self::Long(text.to_ascii_uppercase().into()),
            Err(_) => Self::Long(text.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Short(text) => text,
            Self::Long(text) => text,
        }
    }
}

/// True if the identifiers of a result and of a listed device can be the same device: they share an
/// identifier, and they differ in no kind that both have.
pub fn can_be_same_device(named: &[ReportedId], listed: &[ReportedId]) -> bool {
    let keys = |ids: &[ReportedId]| -> Vec<MatchKey> {
        ids.iter().filter_map(MatchKey::from_reported).collect()
    };
    let (named, listed) = (keys(named), keys(listed));
    let has = |key: &MatchKey| listed.iter().any(|other| other.is_same(key));
    let lacks = |key: &MatchKey| listed.iter().all(|other| other.kind != key.kind);
    named.iter().any(has) && named.iter().all(|key| has(key) || lacks(key))
}

/// Finds the device of a change that a result names. A result that names two devices is ambiguous and has no
/// device.
///
/// `sent` returns the index of every device that was sent with an identifier that [is the same](MatchKey::is_same).
pub fn find_device<L: AsRef<[u32]>, E>(
    kinds: IdentifyingKinds,
    device_count: u32,
    reported: &[ReportedId],
    mut sent: impl FnMut(&MatchKey) -> Result<L, E>,
) -> Result<(Option<u32>, Match), E> {
    let mut found: Option<u32> = None;
    let mut ambiguous = false;
    for key in reported.iter().filter_map(MatchKey::from_reported) {
        if !key.is_identifying(kinds) {
            continue;
        }
        for &index in sent(&key)?.as_ref() {
            // Also for one identifier: 19 digits can begin two ICCIDs of 20 digits.
            ambiguous |= *found.get_or_insert(index) != index;
        }
    }
    Ok(match found {
        _ if ambiguous => (None, Match::Ambiguous),
        Some(index) => (Some(index), Match::Exact),
        None if device_count == 1 => (Some(0), Match::Assumed),
        None => (None, Match::None),
    })
}

impl SeenIdentifiers {
    /// Creates an empty set with the capacity for `devices` with one identifier each.
    pub fn with_capacity(devices: usize) -> Self {
        Self { devices: HashMap::with_capacity(devices), iccid_prefixes: None }
    }

    /// Adds an identifier of the device `index`, which is not lower than the one before. Returns another device
    /// that has it already.
    pub fn insert(&mut self, index: usize, id: &DeviceId) -> Option<usize> {
        let key = MatchKey::from_id(id);
        let other_length = match key.kind {
            IdentifierKind::Iccid => self.find_iccid_of_other_length(index, &key),
            _ => None,
        };
        let equal = *self.devices.entry(key).or_insert(index);
        let first = other_length.map_or(equal, |device| device.min(equal));
        (first != index).then_some(first)
    }

    fn find_iccid_of_other_length(&mut self, index: usize, key: &MatchKey) -> Option<usize> {
        if let Some(prefix) = key.iccid_prefix() {
            let prefixes = self.iccid_prefixes.as_mut()?;
            let same = self.devices.get(&prefix).copied();
            prefixes.entry(prefix).or_insert(index);
            return same;
        }
        let prefixes = self.iccid_prefixes.get_or_insert_with(|| {
            let mut prefixes = HashMap::new();
            for (key, device) in &self.devices {
                if let Some(prefix) = key.iccid_prefix() {
                    let first = prefixes.entry(prefix).or_insert(*device);
                    *first = (*first).min(*device);
                }
            }
            prefixes
        });
        prefixes.get(key).copied()
    }
}

#[cfg(test)]
mod tests;
