//! Device identifiers: which are accepted, and which a device gets besides.

use std::sync::Arc;

use serde::Serialize;

use crate::errors::{ValidationError, code};

/// One identifier of a device, spelled as it was sent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceId {
    pub(crate) id: Box<str>,
    pub(crate) kind: Box<str>,
}

impl DeviceId {
    pub(crate) fn has_kind(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind)
    }
}

/// One device of a change: the identifiers that were sent for it. Shared by all
/// who remember the device.
pub(crate) type DeviceIds = Arc<[DeviceId]>;

/// The identifier of a kind, if the device was sent with one.
pub(crate) fn find_id<'d>(device: &'d DeviceIds, kind: &str) -> Option<&'d str> {
    device
        .iter()
        .find(|one| one.has_kind(kind))
        .map(|one| &*one.id)
}

/// What the documentation writes in place of an identifier. Accepted, so that
/// its examples can be pasted as they are.
const PLACEHOLDERS: [&str; 3] = ["32-digit EID", "20-digit ICCID", "14-digit alphanumeric"];

/// Checks one identifier by its kind. Check digits are not looked at: most of
/// the identifiers in the platform's own documentation fail them.
pub(crate) fn validate(kind: &str, id: &str) -> Result<(), ValidationError> {
    let digits = |low, high| {
        (low..=high).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit())
    };
    let fits = match kind.to_ascii_lowercase().as_str() {
        "eid" => digits(32, 32),
        "iccid" => digits(18, 20),
        "imei" => digits(14, 16),
        "imsi" => digits(14, 15),
        "mdn" | "min" => digits(10, 10),
        "msisdn" | "esn" => digits(11, 11),
        "meid" => id.len() == 14 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        _ => {
            return Err(ValidationError::new(
                code::KIND_INVALID,
                "The device identifier kind is not supported",
            ));
        }
    };
    if fits || PLACEHOLDERS.contains(&id) {
        return Ok(());
    }
    Err(ValidationError::new(
        code::IDENTIFIER_INVALID,
        format!("The {} is not valid", kind.to_ascii_lowercase()),
    ))
}

/// The IMEI of the device around an eSIM, the same for every profile on it.
pub(crate) fn derive_imei(eid: &str) -> String {
    let body = format!("35{:012}", scatter(number(eid), 1_000_000_000_000));
    let check = luhn(&body);
    format!("{body}{check}")
}

/// The ten-digit phone number of a line. Never one that begins with 555.
pub(crate) fn derive_mdn(id: &str) -> String {
    (2_000_000_000 + scatter(number(id), 3_000_000_000)).to_string()
}

/// The phone number of a 5G Business Internet device: the one that it was sent
/// with, or one that follows from its first identifier in the order of kinds,
/// so that the order in which they were sent makes no difference.
pub(crate) fn device_mdn(device: &DeviceIds) -> String {
    if let Some(mdn) = find_id(device, "mdn") {
        return mdn.to_owned();
    }
    if let Some(mdn) = find_id(device, "msisdn").and_then(|number| number.strip_prefix('1')) {
        return mdn.to_owned();
    }
    let first = device
        .iter()
        .min_by_key(|one| (one.kind.to_ascii_lowercase(), one.id.to_ascii_lowercase()));
    derive_mdn(first.map_or("", |one| &*one.id))
}

/// An identifier as a number. Sequential identifiers stay sequential, so that
/// what is derived from them never collides.
fn number(id: &str) -> u128 {
    let radix = if id.bytes().all(|byte| byte.is_ascii_digit()) {
        10
    } else {
        16
    };
    u128::from_str_radix(id, radix).unwrap_or_else(|_| {
        id.bytes().fold(0, |sum: u128, byte| {
            sum.wrapping_mul(1_099_511_628_211)
                .wrapping_add(u128::from(byte))
        })
    })
}

/// Spreads numbers over a range, one to one below `range`: the factor is a
/// prime that divides no range used here.
fn scatter(number: u128, range: u128) -> u128 {
    (number % range * 982_451_653 + 40_503) % range
}

/// The check digit behind fourteen digits of an IMEI.
fn luhn(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, byte)| {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            match (place % 2, digit) {
                (0, 5..) => digit * 2 - 9,
                (0, _) => digit * 2,
                _ => digit,
            }
        })
        .sum();
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_sequential_devices_have_ten_thousand_phone_numbers() {
        let numbers: std::collections::BTreeSet<_> = (0..10_000)
            .map(|serial| derive_mdn(&format!("8914800000080{serial:07}")))
            .collect();
        assert_eq!(numbers.len(), 10_000);
        assert!(numbers.iter().all(|number| number.len() == 10));
    }

    #[test]
    fn a_derived_imei_ends_in_its_check_digit() {
        assert_eq!(luhn("49015420323751"), 8);
        assert_eq!(derive_imei("89049032000001000000000000000001").len(), 15);
    }

    #[test]
    fn the_order_of_identifiers_does_not_change_the_phone_number() {
        let id = |kind: &str, id: &str| DeviceId {
            id: id.into(),
            kind: kind.into(),
        };
        let one: DeviceIds = Arc::new([
            id("IMEI", "353238063289555"),
            id("iccid", "89148000000800139708"),
        ]);
        let other: DeviceIds = Arc::new([
            id("ICCID", "89148000000800139708"),
            id("imei", "353238063289555"),
        ]);
        assert_eq!(device_mdn(&one), device_mdn(&other));
    }
}
