//! Device identifiers: validation, and those that the sandbox derives.

use std::sync::Arc;

use serde::Serialize;

use crate::faults::{Fault, code};

/// One identifier of a device, spelled as in the request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceId {
    pub(crate) id: Box<str>,
    pub(crate) kind: Box<str>,
}

impl DeviceId {
    pub(crate) fn new(kind: &str, id: &str) -> Self {
        Self { id: id.into(), kind: kind.into() }
    }

    pub(crate) fn has_kind(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind)
    }
}

/// The identifiers of one device in a request.
pub(crate) type DeviceIds = Arc<[DeviceId]>;

pub(crate) fn find_id<'d>(device: &'d DeviceIds, kind: &str) -> Option<&'d str> {
    device.iter().find(|one| one.has_kind(kind)).map(|one| &*one.id)
}

/// The device that a request names.
#[derive(Debug)]
pub(crate) struct DeviceIdentity {
    /// Normalized identifiers, sorted. Any of them identifies the device.
    pub(crate) keys: Vec<Box<str>>,
    /// Phone number of a new device, unless another device has it.
    pub(crate) mdn: String,
}

impl DeviceIdentity {
    /// A device that each of its identifiers names. An EID does so only without another
    /// identifier: it may have several profiles.
    pub(crate) fn of_line(sent: &DeviceIds) -> Self {
        let only_eid = sent.iter().all(|id| id.has_kind("eid"));
        let mut keys: Vec<_> = sent
            .iter()
            .filter(|id| only_eid || !id.has_kind("eid"))
            .map(|id| normalized_key(&id.kind, &id.id))
            .collect();
        keys.sort_unstable();
        Self { keys, mdn: device_mdn(sent) }
    }
}

/// Returns an identifier in one spelling: an MSISDN is an MDN with a country code.
pub(crate) fn normalized_key(kind: &str, id: &str) -> Box<str> {
    let national = id.strip_prefix('1').filter(|rest| rest.len() == 10);
    let (kind, id) = match national {
        Some(rest) if kind.eq_ignore_ascii_case("msisdn") => ("mdn", rest),
        _ => (kind, id),
    };
    format!("{kind}:{id}").to_ascii_lowercase().into()
}

/// Placeholders of identifiers in Verizon's documentation. Accepted, so that its examples work
/// unchanged.
const PLACEHOLDERS: [&str; 3] = ["32-digit EID", "20-digit ICCID", "14-digit alphanumeric"];

/// Checks an identifier by its kind. Does not verify check digits: most identifiers in Verizon's
/// documentation fail them.
pub(crate) fn validate(kind: &str, id: &str) -> Result<(), Fault> {
    let digits =
        |min, max| (min..=max).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
    let kind = kind.to_ascii_lowercase();
    let is_valid = match &*kind {
        "eid" => digits(32, 32),
        "iccid" => digits(18, 20),
        "imei" => digits(14, 16),
        "imsi" => digits(14, 15),
        "mdn" | "min" => digits(10, 10),
        "msisdn" | "esn" => digits(11, 11),
        "meid" => id.len() == 14 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        _ => {
            let message = "The device identifier kind is not supported";
            return Err(Fault::new(code::KIND_INVALID, message));
        }
    };
    if is_valid || PLACEHOLDERS.contains(&id) {
        return Ok(());
    }
    Err(Fault::with_details(code::IDENTIFIER_INVALID, format!("The {kind} is not valid")))
}

/// Derives the IMEI of the device that contains an eSIM. All profiles of the eSIM have the same.
pub(crate) fn derive_imei(eid: &str) -> String {
    let body = format!("35{:012}", scatter(number(eid), 1_000_000_000_000));
    let check = luhn(&body);
    format!("{body}{check}")
}

/// Derives a phone number of ten digits. It never begins with 555, as scenarios do.
pub(crate) fn derive_mdn(id: &str) -> String {
    (2_000_000_000 + scatter(number(id), 3_000_000_000)).to_string()
}

/// Returns the phone number in the request, or derives one from the first identifier. The order of
/// the identifiers makes no difference.
fn device_mdn(device: &DeviceIds) -> String {
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

/// Converts an identifier to a number. Sequential identifiers become sequential numbers, so that
/// derived identifiers never collide.
fn number(id: &str) -> u128 {
    let radix = if id.bytes().all(|byte| byte.is_ascii_digit()) { 10 } else { 16 };
    u128::from_str_radix(id, radix).unwrap_or_else(|_| {
        id.bytes().fold(0, |sum: u128, byte| {
            sum.wrapping_mul(1_099_511_628_211).wrapping_add(u128::from(byte))
        })
    })
}

/// Spreads numbers over a range. One to one below `range`: the factor is a prime that divides no
/// range used here.
fn scatter(number: u128, range: u128) -> u128 {
    (number % range * 982_451_653 + 40_503) % range
}

/// Returns the Luhn check digit of fourteen digits.
fn luhn(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(position, byte)| {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            match (position % 2, digit) {
                (0, 5..) => digit * 2 - 9,
                (0, _) => digit * 2,
                _ => digit,
            }
        })
        .sum();
    (10 - sum % 10) % 10
}

#[cfg(test)]
mod tests;
