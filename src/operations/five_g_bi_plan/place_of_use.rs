//! The place of use of a line, and the customer.
//!
//! These are customers' names and addresses. They are sent to ThingSpace and never stored, logged or
//! repeated in an error. `Debug` does not show them.

use std::fmt;

use serde::Serialize;

use crate::{
    domain::{
        newtypes::is_sendable,
        violation::{FieldPath, FieldReason, Violations},
    },
    proto,
};

/// The place of use of a line, and the customer. Members are in the order of ThingSpace's example.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlaceOfUse {
    address: Address,
    customer_name: CustomerName,
}

/// A street address in the United States. Optional members are empty.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    #[serde(skip_serializing_if = "String::is_empty")]
    address_line1: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    address_line2: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    city: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    country: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    zip: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    zip4: String,
}

/// A customer's name. Optional members are empty.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct CustomerName {
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    first_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    middle_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    suffix: String,
}

/// The states, the federal district, the territories and the military codes
/// of ISO 3166-2:US and the Postal Service.
const STATES: &str = "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO \
    MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR VI \
    UM AA AE AP";

const STATE_EXPECTED: &str =
    "must be the two-letter code of a US state or territory in upper case, such as TX";

impl PlaceOfUse {
    /// Adds a violation for each invalid field.
    pub(super) fn validate(&self, path: FieldPath, violations: &mut Violations) {
        self.address.validate(path.field("address"), violations);
        self.customer_name.validate(path.field("customer_name"), violations);
    }

    /// Returns every value, also the empty ones, in a fixed order.
    pub(super) fn values(&self) -> [&str; 12] {
        let (address, name) = (&self.address, &self.customer_name);
        [
            &address.address_line1,
            &address.address_line2,
            &address.city,
            &address.state,
            &address.zip,
            &address.zip4,
            &address.country,
            &name.title,
            &name.first_name,
            &name.middle_name,
            &name.last_name,
            &name.suffix,
        ]
    }

    /// Returns the values that must not appear in a message: all but the country.
    pub(super) fn sensitive_values(&self) -> impl Iterator<Item = &str> {
        let [line1, line2, city, state, zip, zip4, _country, names @ ..] = self.values();
        let address = [line1, line2, city, state, zip, zip4];
        let values = address.into_iter().chain(names);
        values.filter(|value| !value.is_empty())
    }
}

/// A missing part has empty values, so that each required field of it is reported.
impl From<proto::PrimaryPlaceOfUse> for PlaceOfUse {
    fn from(place: proto::PrimaryPlaceOfUse) -> Self {
        let address = place.address.unwrap_or_default();
        let name = place.customer_name.unwrap_or_default();
        Self {
            address: Address {
                address_line1: address.address_line1,
                address_line2: address.address_line2,
                city: address.city,
                state: address.state,
                country: match address.country {
                    empty if empty.is_empty() => "US".into(),
                    country => country,
                },
                zip: address.zip,
                zip4: address.zip4,
            },
            customer_name: CustomerName {
                title: name.title,
                first_name: name.first_name,
                middle_name: name.middle_name,
                last_name: name.last_name,
                suffix: name.suffix,
            },
        }
    }
}

impl fmt::Debug for PlaceOfUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaceOfUse(hidden)")
    }
}

impl Address {
    fn validate(&self, path: FieldPath, violations: &mut Violations) {
        for (name, text, min, max) in [
            ("address_line1", &self.address_line1, 1, 60),
            ("address_line2", &self.address_line2, 0, 60),
            ("city", &self.city, 1, 40),
        ] {
            check_text(path.field(name), text, min, max, violations);
        }
        for (name, text) in
            [("address_line1", &self.address_line1), ("address_line2", &self.address_line2)]
        {
            if is_po_box(text) {
                let description =
                    "must be a physical address; ThingSpace does not accept P.O. boxes";
                violations.add(path.field(name), FieldReason::Value, description);
            }
        }
        if self.state.is_empty() {
            violations.add(path.field("state"), FieldReason::Required, STATE_EXPECTED);
        } else if !STATES.split_whitespace().any(|code| code == self.state) {
            violations.add(path.field("state"), FieldReason::Value, STATE_EXPECTED);
        }
        if !is_digits(&self.zip, 5) {
            let reason = match self.zip.is_empty() {
                true => FieldReason::Required,
                false => FieldReason::Format,
            };
            violations.add(path.field("zip"), reason, "must be 5 digits");
        }
        if !self.zip4.is_empty() && !is_digits(&self.zip4, 4) {
            let description = "must be 4 digits or empty";
            violations.add(path.field("zip4"), FieldReason::Format, description);
        }
        if self.country != "US" {
            let description = "must be US or empty";
            violations.add(path.field("country"), FieldReason::Value, description);
        }
    }
}

impl CustomerName {
    fn validate(&self, path: FieldPath, violations: &mut Violations) {
        for (name, text, max) in
            [("first_name", &self.first_name, 20), ("last_name", &self.last_name, 25)]
        {
            let allowed = |c: char| c.is_ascii_alphanumeric() || " -!#".contains(c);
            if text.trim().is_empty() || text.chars().count() > max || !text.chars().all(allowed) {
                let description = format!(
                    "must be 1 to {max} characters, only letters A to Z, digits, space, -, ! and #"
                );
                let reason = match text.chars().count() {
                    _ if text.trim().is_empty() => FieldReason::Required,
                    length if length > max => FieldReason::TooLong,
                    _ => FieldReason::Character,
                };
                violations.add(path.field(name), reason, description);
            }
        }
        for (name, text) in
            [("title", &self.title), ("middle_name", &self.middle_name), ("suffix", &self.suffix)]
        {
            check_text(path.field(name), text, 0, 20, violations);
        }
    }
}

fn check_text(path: FieldPath, text: &str, min: usize, max: usize, violations: &mut Violations) {
    let length = text.chars().count();
    if length > max || (min > 0 && text.trim().is_empty()) {
        let reason = match length > max {
            true => FieldReason::TooLong,
            false => FieldReason::Required,
        };
        let description = format!("must be {min} to {max} characters");
        violations.add(path, reason, description);
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

/// True if a line names a post office box, in any spelling: "PO Box 12",
/// "P.O. BOX 12", "p o box", "POB 12", "Post Office Box 12".
fn is_po_box(line: &str) -> bool {
    let letters: String = line
        .to_lowercase()
        .chars()
        .filter(|c| *c != '.')
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    // "Box12" is two words that were written as one.
    let words: Vec<&str> = letters
        .split_whitespace()
        .flat_map(|word| {
            let digits = word.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
            let (name, number) = word.split_at(digits);
            [name, number]
        })
        .filter(|word| !word.is_empty())
        .collect();
    let starts = |at: usize, pattern: &[&str]| {
        pattern.iter().enumerate().all(|(i, part)| words.get(at + i) == Some(part))
    };
    let is_number = |at: usize| {
        words.get(at).is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    };
    (0..words.len()).any(|at| {
        starts(at, &["po", "box"])
            || starts(at, &["p", "o", "box"])
            || starts(at, &["post", "office", "box"])
            // Written together these are parts of other names too: a number tells.
            || [&["pobox"][..], &["pob"], &["p", "o", "b"]]
                .into_iter()
                .any(|box_| starts(at, box_) && is_number(at + box_.len()))
    })
}

#[cfg(test)]
mod tests;
