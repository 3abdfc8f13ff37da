//! The place of use of a line, and the customer.
//!
//! These are customers' names and addresses. They are sent to ThingSpace and never stored, logged or
//! repeated in an error. `Debug` does not show them.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    domain::{
        newtypes::is_sendable,
        violation::{FieldPath, FieldReason, Violations},
    },
    proto,
};

/// The place of use of a line, and the customer. Optional values are empty.
pub(super) struct PlaceOfUse {
    address: proto::Address,
    customer_name: proto::CustomerName,
}

/// A JSON object of the members that are not empty.
struct Members<'a>(&'a [(&'static str, &'a str)]);

/// The states, the federal district, the territories and the military codes
/// of ISO 3166-2:US and the Postal Service.
const STATES: &str = "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO \
    MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR VI \
    UM AA AE AP";

impl PlaceOfUse {
    /// Adds a violation for each invalid field.
    pub(super) fn validate(&self, path: FieldPath, violations: &mut Violations) {
        validate_address(&self.address, path.field("address"), violations);
        validate_name(&self.customer_name, path.field("customer_name"), violations);
    }

    /// Returns the members of the address in the order of ThingSpace's example.
    fn address_members(&self) -> [(&'static str, &str); 7] {
        [
            ("addressLine1", &self.address.address_line1),
            ("addressLine2", &self.address.address_line2),
            ("city", &self.address.city),
            ("state", &self.address.state),
            ("country", &self.address.country),
            ("zip", &self.address.zip),
            ("zip4", &self.address.zip4),
        ]
    }

    /// Returns the members of the customer's name in the order of ThingSpace's example.
    fn name_members(&self) -> [(&'static str, &str); 5] {
        [
            ("title", &self.customer_name.title),
            ("firstName", &self.customer_name.first_name),
            ("middleName", &self.customer_name.middle_name),
            ("lastName", &self.customer_name.last_name),
            ("suffix", &self.customer_name.suffix),
        ]
    }

    /// Returns every value, also the empty ones, in the order of the fingerprint.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        let [line1, line2, city, state, country, zip, zip4] = self.address_members();
        let address = [line1, line2, city, state, zip, zip4, country];
        address.into_iter().chain(self.name_members()).map(|(_, value)| value)
    }

    /// Returns the values that must not appear in a message: all but the country.
    pub(super) fn sensitive_values(&self) -> impl Iterator<Item = &str> {
        let address = self.address_members().into_iter().filter(|(name, _)| *name != "country");
        let values = address.chain(self.name_members()).map(|(_, value)| value);
        values.filter(|value| !value.is_empty())
    }
}

/// A missing part has empty values, so that each required field of it is reported.
impl From<proto::PrimaryPlaceOfUse> for PlaceOfUse {
    fn from(place: proto::PrimaryPlaceOfUse) -> Self {
        let mut address = place.address.unwrap_or_default();
        if address.country.is_empty() {
            address.country = "US".into();
        }
        Self { address, customer_name: place.customer_name.unwrap_or_default() }
    }
}

impl Serialize for PlaceOfUse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("address", &Members(&self.address_members()))?;
        map.serialize_entry("customerName", &Members(&self.name_members()))?;
        map.end()
    }
}

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied().filter(|(_, value)| !value.is_empty()))
    }
}

impl fmt::Debug for PlaceOfUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaceOfUse(hidden)")
    }
}

fn validate_address(address: &proto::Address, path: FieldPath, violations: &mut Violations) {
    for (name, line, min) in
        [("address_line1", &address.address_line1, 1), ("address_line2", &address.address_line2, 0)]
    {
        check_text(path.field(name), line, min, 60, violations);
        if is_po_box(line) {
            let description = "must be a physical address; ThingSpace does not accept P.O. boxes";
            violations.add(path.field(name), FieldReason::Value, description);
        }
    }
    check_text(path.field("city"), &address.city, 1, 40, violations);
    let unless_empty = |text: &str, reason| match text {
        "" => FieldReason::Required,
        _ => reason,
    };
    if !STATES.split_whitespace().any(|code| code == address.state) {
        let reason = unless_empty(&address.state, FieldReason::Value);
        let description =
            "must be the two-letter code of a US state or territory in upper case, such as TX";
        violations.add(path.field("state"), reason, description);
    }
    if !is_digits(&address.zip, 5) {
        let reason = unless_empty(&address.zip, FieldReason::Format);
        violations.add(path.field("zip"), reason, "must be 5 digits");
    }
    if !address.zip4.is_empty() && !is_digits(&address.zip4, 4) {
        let description = "must be 4 digits or empty";
        violations.add(path.field("zip4"), FieldReason::Format, description);
    }
    if address.country != "US" {
        violations.add(path.field("country"), FieldReason::Value, "must be US or empty");
    }
}

fn validate_name(name: &proto::CustomerName, path: FieldPath, violations: &mut Violations) {
    for (field, text, max) in
        [("first_name", &name.first_name, 20), ("last_name", &name.last_name, 25)]
    {
        let reason = match text.chars().count() {
            _ if text.trim().is_empty() => FieldReason::Required,
            length if length > max => FieldReason::TooLong,
            _ if text.chars().all(|c| c.is_ascii_alphanumeric() || " -!#".contains(c)) => continue,
            _ => FieldReason::Character,
        };
        let description = format!(
            "must be 1 to {max} characters, only letters A to Z, digits, space, -, ! and #"
        );
        violations.add(path.field(field), reason, description);
    }
    for (field, text) in
        [("title", &name.title), ("middle_name", &name.middle_name), ("suffix", &name.suffix)]
    {
        check_text(path.field(field), text, 0, 20, violations);
    }
}

fn check_text(path: FieldPath, text: &str, min: usize, max: usize, violations: &mut Violations) {
    let is_too_long = text.chars().count() > max;
    if is_too_long || (min > 0 && text.trim().is_empty()) {
        let reason = if is_too_long { FieldReason::TooLong } else { FieldReason::Required };
        violations.add(path, reason, format!("must be {min} to {max} characters"));
    }
    if !is_sendable(text) {
        let description =
            "must not contain ', <, \\ or a control character, which ThingSpace rejects";
        violations.add(path, FieldReason::Character, description);
    }
}

fn is_digits(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// True if a line names a post office box, in any spelling: "PO Box 12", "P.O. BOX 12", "p o box", "POB 12",
/// "Post Office Box 12".
fn is_po_box(line: &str) -> bool {
    let line = line.to_lowercase().replace('.', "");
    // "Box12" is two words that were written as one.
    let words = line.split(|c: char| !c.is_alphanumeric()).flat_map(|word| {
        let (name, number) = word.split_at(word.find(|c: char| c.is_ascii_digit()).unwrap_or(0));
        [name, number]
    });
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    (0..words.len()).filter_map(|at| words.get(at..)).any(|words| {
        let names = |name: &[&str]| words.starts_with(name);
        let is_numbered = |name: &[&str]| {
            let number = words.get(name.len());
            names(name) && number.is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        };
        names(&["po", "box"])
            || names(&["p", "o", "box"])
            || names(&["post", "office", "box"])
            // These are also parts of other names unless a number follows.
            || is_numbered(&["pobox"])
            || is_numbered(&["pob"])
            || is_numbered(&["p", "o", "b"])
    })
}

#[cfg(test)]
mod tests;
