//! Matching: finds the device of a change that a result belongs to.
//!
//! A callback can name a device by another identifier than the one that was sent. In ThingSpace's 5G Business
//! Internet example, the request has the MEID and the callback has the MDN.

use std::{collections::HashMap, fmt};

use crate::domain::{
    evidence::IdentifyingKinds,
    identifier::{DeviceId, IdentifierKind, ReportedId},
    result::Match,
};

/// An identifier in a canonical spelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MatchKey {
    kind: IdentifierKind,
    text: String,
}

/// The identifiers of a request seen so far, to find duplicates.
#[derive(Debug, Default)]
pub struct SeenIdentifiers(HashMap<String, Vec<(usize, MatchKey)>>);

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
        let (kind, text) = match kind {
            // An MSISDN is the MDN with the country code 1.
            IdentifierKind::Msisdn => {
                let number = id.strip_prefix('1').filter(|number| number.len() == 10);
                (IdentifierKind::Mdn, number.unwrap_or(id).to_owned())
            }
            kind => (kind, id.to_ascii_uppercase()),
        };
        Self { kind, text }
    }

    /// Returns the key of the index over sent identifiers. Equal identifiers have equal keys. ICCIDs that
    /// differ only in the 20th digit also do; see [`Self::is_same`].
    pub fn index_key(&self) -> String {
        let first_19 = self.text.get(..19).filter(|_| self.kind == IdentifierKind::Iccid);
        let text = first_19.unwrap_or(&self.text);
        format!("{}:{text}", self.kind.as_str())
    }

    /// True if both are the same identifier. An ICCID of 19 digits is the same as one of 20 digits that
    /// begins with it.
    pub fn is_same(&self, other: &Self) -> bool {
        let has_other_length = self.text.len() != other.text.len();
        self.text == other.text && self.kind == other.kind
            || self.kind == IdentifierKind::Iccid
                && has_other_length
                && self.index_key() == other.index_key()
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

impl fmt::Display for MatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.text)
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
/// `sent` returns the index and identifier of every device that was sent with an identifier of the same
/// [`MatchKey::index_key`].
pub fn find_device<E>(
    kinds: IdentifyingKinds,
    device_count: u32,
    reported: &[ReportedId],
    mut sent: impl FnMut(&MatchKey) -> Result<Vec<(u32, DeviceId)>, E>,
) -> Result<(Option<u32>, Match), E> {
    let mut found: Option<u32> = None;
    let mut ambiguous = false;
    for key in reported.iter().filter_map(MatchKey::from_reported) {
        if !key.is_identifying(kinds) {
            continue;
        }
        for (index, _) in sent(&key)?.iter().filter(|(_, id)| MatchKey::from_id(id).is_same(&key)) {
            // Also for one identifier: 19 digits can begin two ICCIDs of 20 digits.
            ambiguous |= *found.get_or_insert(*index) != *index;
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
    /// Adds an identifier of the device `index`. Returns another device that has it already.
    pub fn insert(&mut self, index: usize, id: &DeviceId) -> Option<usize> {
        let key = MatchKey::from_id(id);
        let known = self.0.entry(key.index_key()).or_default();
        let first = known.iter().find(|(_, other)| other.is_same(&key)).map(|(first, _)| *first);
        known.push((index, key));
        first.filter(|first| *first != index)
    }
}

#[cfg(test)]
mod tests;
