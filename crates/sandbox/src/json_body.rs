//! Helpers for JSON bodies.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    faults::{Fault, code},
    identifiers::{self, DeviceId, DeviceIds},
};

/// Maximum number of devices in a request. Documented for eSIM plan changes; the sandbox applies it
/// to every operation (see docs/thingspace-facts.md, section 3).
pub(crate) const MAX_DEVICES_PER_REQUEST: usize = 10_000;
/// Maximum number of identifiers of a device. There are fewer kinds.
const MAX_IDS: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceBody<'b> {
    #[serde(borrow)]
    pub(crate) device_ids: Option<Vec<DeviceIdBody<'b>>>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceIdBody<'b> {
    kind: Option<&'b str>,
    id: Option<&'b str>,
}

/// Parses a body. Rejects an apostrophe, `<` or a backslash anywhere in it, as ThingSpace does (see
/// docs/thingspace-facts.md, section 3). Therefore no JSON string has an escape, and all strings
/// can be borrowed.
pub(crate) fn parse_checked<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Fault> {
    if body.iter().any(|byte| matches!(byte, b'\'' | b'<' | b'\\')) {
        let message = "The request contains an invalid character";
        return Err(Fault::new(code::INVALID_CHARACTER, message));
    }
    parse(body)
}

/// Parses JSON. The error omits serde's message, which may quote values.
pub(crate) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!("The request could not be read at line {line} column {column}");
        Fault::with_details(code::DESERIALIZATION, message)
    })
}

/// Accepts digits and a dash, and the name `TestAccount-1` of ThingSpace's simulator.
pub(crate) fn check_account(account: &str) -> Result<(), Fault> {
    let is_valid = (3..=32).contains(&account.len())
        && account.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_valid
        .then_some(())
        .ok_or(Fault::new(code::ACCOUNT_NOT_DEFINED, "The account is not defined"))
}

pub(crate) fn required<T>(value: Option<T>, member: &str) -> Result<T, Fault> {
    value.ok_or_else(|| {
        Fault::with_details(code::REQUEST_UNDEFINED, format!("The request has no {member}"))
    })
}

/// Returns a required string. A blank one is missing.
pub(crate) fn required_text<'b>(value: Option<&'b str>, member: &str) -> Result<&'b str, Fault> {
    required(value.filter(|text| !text.trim().is_empty()), member)
}

/// Returns a required list of at most `max` entries. An empty one is missing.
pub(crate) fn required_list<T>(
    list: Option<Vec<T>>,
    member: &str,
    max: usize,
) -> Result<Vec<T>, Fault> {
    let list = required(list.filter(|list| !list.is_empty()), member)?;
    if list.len() > max {
        let message = format!("{member} has more than {max} entries");
        return Err(Fault::with_details(code::TOO_MANY, message));
    }
    Ok(list)
}

pub(crate) fn device_ids(ids: Option<Vec<DeviceIdBody<'_>>>) -> Result<DeviceIds, Fault> {
    let ids = required_list(ids, "deviceIds", MAX_IDS)?;
    ids.into_iter().map(DeviceIdBody::into_device_id).collect()
}

/// Removes the members of an object that are `null`.
pub(crate) fn remove_nulls(object: &mut Value) {
    if let Value::Object(members) = object {
        members.retain(|_, value| !value.is_null());
    }
}

impl DeviceIdBody<'_> {
    pub(crate) fn into_device_id(self) -> Result<DeviceId, Fault> {
        let kind = required_text(self.kind, "kind")?;
        let id = required_text(self.id, "id")?;
        identifiers::validate(kind, id)?;
        Ok(DeviceId::new(kind, id))
    }
}
