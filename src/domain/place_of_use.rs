//! Where a line is used and by whom, as ThingSpace wants it.
//!
//! These are customers' names and addresses. They are sent to ThingSpace and
//! go nowhere else: the types have no `Display`, their `Debug` tells nothing,
//! and no violation repeats a value.

use std::fmt;

use super::{
    newtypes::is_sendable,
    violation::{FieldPath, FieldReason, Violations},
};

/// A place of use with every field within ThingSpace's limits.
#[derive(Clone, PartialEq, Eq)]
pub struct PrimaryPlaceOfUse {
    /// Where the line is used.
    pub address: StreetAddress,
    /// Who uses it.
    pub customer_name: CustomerName,
}

/// A street address in the United States. Optional parts are empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StreetAddress {
    /// Street and number: 1 to 60 characters, no P.O. box.
    pub address_line1: String,
    /// Suite or similar; at most 60 characters, optional.
    pub address_line2: String,
    /// 1 to 40 characters.
    pub city: String,
    /// A two-letter code in upper case.
    pub state: String,
    /// Five digits.
    pub zip: String,
    /// Four digits, optional.
    pub zip4: String,
    /// `US`.
    pub country: String,
}

/// A customer's name. Optional parts are empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CustomerName {
    /// Optional, at most 20 characters.
    pub title: String,
    /// 1 to 20 characters of the allowed set.
    pub first_name: String,
    /// Optional, at most 20 characters.
    pub middle_name: String,
    /// 1 to 25 characters of the allowed set.
    pub last_name: String,
    /// Optional, at most 20 characters.
    pub suffix: String,
}

/// The states, the federal district, the territories and the military codes
/// of ISO 3166-2:US and the Postal Service.
const STATES: &str = "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO \
    MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR VI \
    UM AA AE AP";

const STATE_EXPECTED: &str =
    "must be the two-letter code of a US state or territory in upper case, such as TX";

// === impl PrimaryPlaceOfUse ===

impl PrimaryPlaceOfUse {
    /// Notes everything that is wrong with it.
    pub fn check(&self, path: FieldPath, violations: &mut Violations) {
        self.address.check(path.field("address"), violations);
        self.customer_name
            .check(path.field("customer_name"), violations);
    }

    /// Every text in it but the country, so that an answer which repeats one
    /// can be blanked.
    pub fn sensitive_values(&self) -> impl Iterator<Item = &str> {
        let (address, name) = (&self.address, &self.customer_name);
        [
            &address.address_line1,
            &address.address_line2,
            &address.city,
            &address.state,
            &address.zip,
            &address.zip4,
            &name.title,
            &name.first_name,
            &name.middle_name,
            &name.last_name,
            &name.suffix,
        ]
        .into_iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
    }
}

impl fmt::Debug for PrimaryPlaceOfUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrimaryPlaceOfUse(hidden)")
    }
}

// === impl Address ===

impl StreetAddress {
    fn check(&self, path: FieldPath, violations: &mut Violations) {
        for (name, text, min, max) in [
            ("address_line1", &self.address_line1, 1, 60),
            ("address_line2", &self.address_line2, 0, 60),
            ("city", &self.city, 1, 40),
        ] {
            check_text(path.field(name), text, min, max, violations);
        }
        for (name, text) in [
            ("address_line1", &self.address_line1),
            ("address_line2", &self.address_line2),
        ] {
            if names_po_box(text) {
                let why = "must be a physical address; ThingSpace takes no P.O. box";
                violations.add(path.field(name), FieldReason::Value, why);
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
            let why = "must be 4 digits or empty";
            violations.add(path.field("zip4"), FieldReason::Format, why);
        }
        if self.country != "US" {
            let why = "must be US or empty";
            violations.add(path.field("country"), FieldReason::Value, why);
        }
    }
}

// === impl CustomerName ===

impl CustomerName {
    fn check(&self, path: FieldPath, violations: &mut Violations) {
        for (name, text, max) in [
            ("first_name", &self.first_name, 20),
            ("last_name", &self.last_name, 25),
        ] {
            let allowed = |c: char| c.is_ascii_alphanumeric() || " -!#".contains(c);
            if text.trim().is_empty() || text.chars().count() > max || !text.chars().all(allowed) {
                let why = format!(
                    "must be 1 to {max} characters, only letters A to Z, digits, space, -, ! and #"
                );
                let reason = match text.chars().count() {
                    _ if text.trim().is_empty() => FieldReason::Required,
                    length if length > max => FieldReason::TooLong,
                    _ => FieldReason::Character,
                };
                violations.add(path.field(name), reason, why);
            }
        }
        for (name, text) in [
            ("title", &self.title),
            ("middle_name", &self.middle_name),
            ("suffix", &self.suffix),
        ] {
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
        let why = format!("must be {min} to {max} characters");
        violations.add(path, reason, why);
    }
    if !is_sendable(text) {
        let why = "must not contain ', <, \\ or a control character: ThingSpace refuses them";
        violations.add(path, FieldReason::Character, why);
    }
}

fn is_digits(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a line names a post office box, however it is spelled: "PO Box 12",
/// "P.O. BOX 12", "p o box", "POB 12", "Post Office Box 12".
fn names_po_box(line: &str) -> bool {
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
        pattern
            .iter()
            .enumerate()
            .all(|(i, part)| words.get(at + i) == Some(part))
    };
    let is_number = |at: usize| {
        words
            .get(at)
            .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
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
mod tests {
    use super::*;

    #[test]
    fn a_post_office_box_is_recognised_however_it_is_spelled_and_streets_are_not() {
        for line in [
            "PO Box 12",
            "P.O. BOX 12",
            "p o box 7",
            "P. O. Box 7",
            "Post Office Box 9",
            "POBox 3",
            "POB 12",
            "c/o Smith, P.O.Box 1",
            "P.O.Box12",
            "p. o. b. 5",
            "Suite 2, pob17",
        ] {
            assert!(names_po_box(line), "{line}");
        }
        for line in [
            "1 Main St",
            "5 Box Elder Rd",
            "12 Pobbles Lane",
            "1 Pobox Street",
            "9 P O Boxwood Ct",
            "7 Post Office Road",
            "3 Po Street",
        ] {
            assert!(!names_po_box(line), "{line}");
        }
    }
}
