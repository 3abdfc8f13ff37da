//! Device identifiers.
//!
//! The lengths follow ThingSpace's pages "Change Device Service Plan" and "Change the eSIM Profile
//! Service Plan" (see docs/thingspace-facts.md, section 7). Check digits are not required: most
//! identifiers in Verizon's documentation fail them.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use arrayvec::ArrayString;
use serde::{Deserialize, Serialize};

use crate::domain::{
    named_enum::named_enum,
    violation::{FieldError, FieldReason},
};

named_enum! {
    /// The kinds of identifiers that a request can contain, with their names in lower case.
    IdentifierKind {
        /// The identifier of an eUICC.
        Eid = "eid",
        /// The identifier of a SIM profile.
        Iccid = "iccid",
        /// Mobile equipment; the 16th digit is a software version.
        Imei = "imei",
        /// CDMA equipment.
        Meid = "meid",
        /// CDMA equipment, older.
        Esn = "esn",
        /// Directory number.
        Mdn = "mdn",
        /// The directory number with its country code.
        Msisdn = "msisdn",
        /// Mobile identification number.
        Min = "min",
        /// The subscriber.
        Imsi = "imsi",
    }
}

/// Maximum number of characters of a valid identifier.
pub(super) const MAX_ID_LEN: usize = 32;

/// A valid identifier in a request. It keeps the client's spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "ReportedId", into = "ReportedId")]
pub struct DeviceId {
    kind: IdentifierKind,
    id: ArrayString<MAX_ID_LEN>,
}

/// An identifier as ThingSpace reported it: any kind, any value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReportedId {
    /// The kind in lower case; an open set.
    #[serde(rename = "k")]
    pub kind: String,
    /// The value as reported.
    #[serde(rename = "i")]
    pub id: String,
}

impl IdentifierKind {
    /// Returns the possible lengths of a value, and a description of its format.
    fn format(self) -> (RangeInclusive<usize>, &'static str) {
        match self {
            Self::Eid => (32..=32, "must be 32 digits"),
            Self::Iccid => (19..=20, "must be 19 or 20 digits"),
            Self::Imei => (15..=16, "must be 15 or 16 digits"),
            Self::Meid => (14..=14, "must be 14 hexadecimal digits"),
            Self::Esn => (11..=11, "must be 11 decimal digits"),
            Self::Mdn | Self::Min => (10..=10, "must be 10 digits"),
            Self::Msisdn => (11..=11, "must be 11 digits: 1 and a 10-digit number"),
            Self::Imsi => (15..=15, "must be 15 digits"),
        }
    }
}

impl FromStr for IdentifierKind {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text));
        kind.ok_or(FieldError {
            expected: "must be one of eid, iccid, imei, meid, esn, mdn, msisdn, min, imsi (in upper or lower case)",
            reason: FieldReason::Value,
        })
    }
}

impl DeviceId {
    /// Creates an identifier. Fails if `id` does not have the format of `kind`.
    pub fn new(kind: IdentifierKind, id: impl AsRef<str>) -> Result<Self, FieldError> {
        let id = id.as_ref();
        let (lengths, expected) = kind.format();
        // All bytes rather than up to the first wrong one: this needs no branch for each.
        let has_digits = match kind {
            IdentifierKind::Meid => {
                id.bytes().fold(true, |valid, byte| valid & byte.is_ascii_hexdigit())
            }
            _ => id.bytes().fold(true, |valid, byte| valid & byte.is_ascii_digit()),
        };
        let has_prefix = kind != IdentifierKind::Msisdn || id.starts_with('1');
        if lengths.contains(&id.len())
            && has_digits
            && has_prefix
            && let Ok(id) = ArrayString::from(id)
        {
            return Ok(Self { kind, id });
        }
        let reason = if id.is_empty() { FieldReason::Required } else { FieldReason::Format };
        Err(FieldError { expected, reason })
    }

    /// Returns the kind.
    pub fn kind(&self) -> IdentifierKind {
        self.kind
    }

    /// Returns the value in the client's spelling.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Returns the value as ASCII bytes.
    pub fn id_bytes(&self) -> &[u8] {
        self.id.as_bytes()
    }

    /// True if the identifier is in a range reserved for the sandbox's scenarios. IMEIs and MDNs never
    /// are: real ones begin with the same digits.
    pub fn is_reserved(&self) -> bool {
        let id = self.id_bytes();
        match self.kind {
            IdentifierKind::Eid => id.starts_with(b"99"),
            IdentifierKind::Iccid => id.starts_with(b"9994"),
            IdentifierKind::Meid => {
                id.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"FF00000"))
            }
            _ => false,
        }
    }

    /// True if this is an IMEI whose last digit fails the Luhn check.
    pub fn has_invalid_check_digit(&self) -> bool {
        let id = self.id_bytes();
        self.kind == IdentifierKind::Imei && id.len() == 15 && !passes_luhn(id)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id())
    }
}

impl From<DeviceId> for ReportedId {
    fn from(id: DeviceId) -> Self {
        Self { kind: id.kind.as_str().to_owned(), id: id.id().to_owned() }
    }
}

impl TryFrom<ReportedId> for DeviceId {
    type Error = FieldError;

    fn try_from(reported: ReportedId) -> Result<Self, Self::Error> {
        Self::new(reported.kind.parse()?, reported.id)
    }
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, byte)| match (place % 2, u32::from(byte.wrapping_sub(b'0'))) {
            (0, digit) => digit,
            (_, digit) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests;
