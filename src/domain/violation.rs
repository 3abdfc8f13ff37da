//! The invalid fields of a request.

use std::fmt;

use crate::domain::named_enum::named_enum;

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the message, such as `devices[17].iccid`.
    pub field: String,
    /// The expected value. It never repeats the value itself, which can be a customer's name or address.
    pub description: String,
    /// The machine-readable reason.
    pub reason: FieldReason,
}

named_enum! {
    /// The machine-readable reason why a field is invalid, with the names of the proto's `FieldReason` without
    /// their prefix.
    FieldReason {
        /// The field is required and is not set.
        Required = "REQUIRED",
        /// The value is too long, or the list has too many elements.
        TooLong = "TOO_LONG",
        /// The value does not have the expected format.
        Format = "FORMAT",
        /// The value contains a character that is not allowed.
        Character = "CHARACTER",
        /// The value is not one of the allowed values, or out of range.
        Value = "VALUE",
        /// The same value appears twice in the request.
        Duplicate = "DUPLICATE",
        /// The field conflicts with another field, or one of several is missing.
        Combination = "COMBINATION",
    }
}

/// A value that cannot be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{expected}")]
pub struct FieldError {
    /// The expected value.
    pub expected: &'static str,
    /// The reason why the value is invalid.
    pub reason: FieldReason,
}

/// Maximum number of violations that are collected for a request.
pub const MAX_VIOLATIONS: usize = 20_000;

/// Collects all violations of a request.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

/// The path of a field in a message: names, and indexes of repeated fields. It does not allocate, so that a valid
/// request builds no strings.
#[derive(Debug, Clone, Copy)]
pub struct FieldPath([Option<(&'static str, Option<usize>)>; FieldPath::DEPTH]);

impl Violations {
    /// Adds a violation, unless there are [`MAX_VIOLATIONS`] already.
    pub fn add(
        &mut self,
        path: impl Into<FieldPath>,
        reason: FieldReason,
        description: impl Into<String>,
    ) {
        if self.0.len() < MAX_VIOLATIONS {
            let (field, description) = (path.into().to_string(), description.into());
            self.0.push(Violation { field, description, reason });
        }
    }

    /// Returns a parsed value, or adds its error and returns `None`.
    pub fn ok_or_add<T>(
        &mut self,
        path: impl Into<FieldPath>,
        value: Result<T, FieldError>,
    ) -> Option<T> {
        value.map_err(|error| self.add(path, error.reason, error.expected)).ok()
    }

    /// Returns the value if there are no violations, otherwise all violations.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

impl FieldPath {
    /// The depth of the longest path, `devices[0].primary_place_of_use.customer_name.first_name`.
    const DEPTH: usize = 4;

    /// Returns the path of an element of this repeated field.
    pub fn at(mut self, index: usize) -> Self {
        if let Some((_, last)) = self.0.iter_mut().flatten().last() {
            *last = Some(index);
        }
        self
    }

    /// Returns the path of a field of this message.
    pub fn field(mut self, name: &'static str) -> Self {
        if let Some(next) = self.0.iter_mut().find(|step| step.is_none()) {
            *next = Some((name, None));
        }
        self
    }
}

/// The path of a field of the request message.
impl From<&'static str> for FieldPath {
    fn from(name: &'static str) -> Self {
        Self([None; Self::DEPTH]).field(name)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, index)) in self.0.iter().flatten().enumerate() {
            let dot = if place == 0 { "" } else { "." };
            write!(f, "{dot}{name}")?;
            if let Some(index) = index {
                write!(f, "[{index}]")?;
            }
        }
        Ok(())
    }
}
