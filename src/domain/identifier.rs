//! Device identifiers.
//!
//! The lengths are those of ThingSpace's pages "Change Device Service Plan" and "Change the eSIM Profile
//! Service Plan". Check digits are not required: most identifiers in Verizon's documentation fail them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::domain::violation::{FieldError, FieldReason};

/// The kinds of identifiers that a request can contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentifierKind {
    /// The identifier of an eUICC: 32 digits.
    Eid,
    /// The identifier of a SIM profile: 19 or 20 digits.
    Iccid,
    /// Mobile equipment: 15 digits, or 16 with a software version.
    Imei,
    /// CDMA equipment: 14 hexadecimal digits.
    Meid,
    /// CDMA equipment, older: 11 decimal digits.
    Esn,
    /// Directory number: 10 digits.
    Mdn,
    /// The directory number with its country code: `1` and 10 digits.
    Msisdn,
    /// Mobile identification number: 10 digits.
    Min,
    /// The subscriber: 15 digits.
    Imsi,
}

/// A valid identifier in a request. It keeps the client's spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "ReportedId", into = "ReportedId")]
pub struct DeviceId {
    kind: IdentifierKind,
    id: String,
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

impl ReportedId {
    /// True if kind and value are equal in any letter case.
    pub fn eq_ignore_case(&self, other: &Self) -> bool {
        self.kind.eq_ignore_ascii_case(&other.kind) && self.id.eq_ignore_ascii_case(&other.id)
    }
}

/// An invalid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// Requests cannot contain this kind.
    #[error(
        "must be one of eid, iccid, imei, meid, esn, mdn, msisdn, min, imsi (in upper or lower case)"
    )]
    UnknownKind,
    /// The value is empty.
    #[error("must be {0}")]
    Missing(&'static str),
    /// The value does not fit its kind.
    #[error("must be {0}")]
    Malformed(&'static str),
}

impl FieldError for IdentifierError {
    fn reason(&self) -> FieldReason {
        match self {
            Self::UnknownKind => FieldReason::Value,
            Self::Missing(_) => FieldReason::Required,
            Self::Malformed(_) => FieldReason::Format,
        }
    }
}

impl IdentifierKind {
    /// The number of kinds.
    pub const COUNT: usize = 9;

    const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Eid, "eid"),
        (Self::Iccid, "iccid"),
        (Self::Imei, "imei"),
        (Self::Meid, "meid"),
        (Self::Esn, "esn"),
        (Self::Mdn, "mdn"),
        (Self::Msisdn, "msisdn"),
        (Self::Min, "min"),
        (Self::Imsi, "imsi"),
    ];

    /// Returns the name in lower case.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Describes the format of a value.
    fn expected_format(self) -> &'static str {
        match self {
            Self::Eid => "32 digits",
            Self::Iccid => "19 or 20 digits",
            Self::Imei => "15 or 16 digits",
            Self::Meid => "14 hexadecimal digits",
            Self::Esn => "11 decimal digits",
            Self::Mdn | Self::Min => "10 digits",
            Self::Msisdn => "11 digits: 1 and a 10-digit number",
            Self::Imsi => "15 digits",
        }
    }

    fn is_well_formed(self, id: &str) -> bool {
        let digits = id.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Eid => digits && id.len() == 32,
            Self::Iccid => digits && matches!(id.len(), 19 | 20),
            Self::Imei => digits && matches!(id.len(), 15 | 16),
            Self::Meid => id.len() == 14 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            Self::Esn => digits && id.len() == 11,
            Self::Mdn | Self::Min => digits && id.len() == 10,
            Self::Msisdn => digits && id.len() == 11 && id.starts_with('1'),
            Self::Imsi => digits && id.len() == 15,
        }
    }
}

impl FromStr for IdentifierKind {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
            .map(|(kind, _)| *kind)
            .ok_or(IdentifierError::UnknownKind)
    }
}

impl DeviceId {
    /// Creates an identifier.
    ///
    /// # Errors
    ///
    /// If `id` does not have the format of `kind`.
    pub fn new(kind: IdentifierKind, id: impl Into<String>) -> Result<Self, IdentifierError> {
        let id = id.into();
        if id.is_empty() {
            return Err(IdentifierError::Missing(kind.expected_format()));
        }
        if !kind.is_well_formed(&id) {
            return Err(IdentifierError::Malformed(kind.expected_format()));
        }
        Ok(Self { kind, id })
    }

    /// Returns the kind.
    pub fn kind(&self) -> IdentifierKind {
        self.kind
    }

    /// Returns the value in the client's spelling.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// True if the identifier is in a range reserved for the sandbox's scenarios. IMEIs and MDNs never
    /// are: real ones begin with the same digits.
    pub fn is_reserved(&self) -> bool {
        match self.kind {
            IdentifierKind::Eid => self.id.starts_with("99"),
            IdentifierKind::Iccid => self.id.starts_with("9994"),
            IdentifierKind::Meid => self.id.to_ascii_uppercase().starts_with("FF00000"),
            _ => false,
        }
    }

    /// True if this is an IMEI whose last digit fails the Luhn check.
    pub fn has_invalid_check_digit(&self) -> bool {
        self.kind == IdentifierKind::Imei && self.id.len() == 15 && !passes_luhn(&self.id)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id)
    }
}

impl From<DeviceId> for ReportedId {
    fn from(id: DeviceId) -> Self {
        Self { kind: id.kind.as_str().to_owned(), id: id.id }
    }
}

impl TryFrom<ReportedId> for DeviceId {
    type Error = IdentifierError;

    fn try_from(reported: ReportedId) -> Result<Self, Self::Error> {
        Self::new(reported.kind.parse()?, reported.id)
    }
}

fn passes_luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            match (place % 2, digit) {
                (0, digit) => digit,
                (_, digit) if digit > 4 => digit * 2 - 9,
                (_, digit) => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests;
