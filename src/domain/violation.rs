//! The invalid fields of a request.

use std::fmt;

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

/// The machine-readable reason why a field is invalid: `FieldReason` of the proto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// The field is required and is not set.
    Required,
    /// The value is too long, or the list has too many elements.
    TooLong,
    /// The value does not have the expected format.
    Format,
    /// The value contains a character that is not allowed.
    Character,
    /// The value is not one of the allowed values, or out of range.
    Value,
    /// The same value appears twice in the request.
    Duplicate,
    /// The field conflicts with another field, or one of several is missing.
    Combination,
}

/// An error of parsing a field's value.
pub trait FieldError: fmt::Display {
    /// The reason why the value is invalid.
    fn reason(&self) -> FieldReason;
}

/// Maximum number of violations that are collected for a request.
pub const MAX_VIOLATIONS: usize = 20_000;

/// Collects all violations of a request.
#[derive(Debug, Default)]
pub struct Violations {
    found: Vec<Violation>,
}

/// The path of a field in a message. It does not allocate, so that a valid request builds no strings.
#[derive(Debug, Clone, Copy)]
pub struct FieldPath {
    steps: [(&'static str, Option<usize>); Self::DEPTH],
    depth: usize,
}

impl FieldReason {
    /// Returns the name of the proto's enum value, without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "REQUIRED",
            Self::TooLong => "TOO_LONG",
            Self::Format => "FORMAT",
            Self::Character => "CHARACTER",
            Self::Value => "VALUE",
            Self::Duplicate => "DUPLICATE",
            Self::Combination => "COMBINATION",
        }
    }
}

impl Violations {
    /// Adds a violation, unless there are [`MAX_VIOLATIONS`] already.
    pub fn add(
        &mut self,
        path: impl Into<FieldPath>,
        reason: FieldReason,
        description: impl Into<String>,
    ) {
        if self.found.len() >= MAX_VIOLATIONS {
            return;
        }
        self.found.push(Violation {
            field: path.into().to_string(),
            description: description.into(),
            reason,
        });
    }

    /// Returns a parsed value, or adds its error and returns `None`.
    pub fn ok_or_add<T, E: FieldError>(
        &mut self,
        path: impl Into<FieldPath>,
        value: Result<T, E>,
    ) -> Option<T> {
        value.map_err(|error| self.add(path, error.reason(), error.to_string())).ok()
    }

    /// Returns the value if there are no violations, otherwise all violations.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(self.found),
        }
    }
}

impl FieldPath {
    /// The depth of the longest path, `devices[0].primary_place_of_use.customer_name.first_name`.
    const DEPTH: usize = 4;

    /// Returns the path of an element of this repeated field.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        if let Some(last) = self.steps.iter_mut().take(self.depth).last() {
            last.1 = Some(index);
        }
        self
    }

    /// Returns the path of a field of this message.
    #[must_use]
    pub fn field(mut self, name: &'static str) -> Self {
        if let Some(next) = self.steps.get_mut(self.depth) {
            *next = (name, None);
            self.depth += 1;
        }
        self
    }
}

/// The path of a field of the request message.
impl From<&'static str> for FieldPath {
    fn from(name: &'static str) -> Self {
        let empty = Self { steps: [("", None); Self::DEPTH], depth: 0 };
        empty.field(name)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, index)) in self.steps.iter().take(self.depth).enumerate() {
            let dot = if place == 0 { "" } else { "." };
            write!(f, "{dot}{name}")?;
            if let Some(index) = index {
                write!(f, "[{index}]")?;
            }
        }
        Ok(())
    }
}
