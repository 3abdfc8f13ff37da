//! The invalid fields of a request.

use std::fmt;

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the message, such as `devices[17].iccid`.
    pub field: String,
    /// What is wrong and what was expected. Never the value itself: it may be
    /// a customer's name or address.
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

/// How many violations of one request are noted at most.
pub const MAX_VIOLATIONS: usize = 20_000;

/// Collects everything that is wrong with a request, rather than the first.
#[derive(Debug, Default)]
pub struct Violations {
    found: Vec<Violation>,
}

/// Where in a message we are: a few names, each with an index where it is
/// repeated. Costs no allocation, so that a valid request builds no strings.
#[derive(Debug, Clone, Copy)]
pub struct FieldPath {
    steps: [(&'static str, Option<usize>); Self::DEPTH],
    depth: usize,
}

// === impl FieldReason ===

impl FieldReason {
    /// The name of the proto's enum value, without its prefix.
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

// === impl Violations ===

impl Violations {
    /// Notes that `path` is wrong. Beyond [`MAX_VIOLATIONS`] nothing more is
    /// noted: there is plenty to mend by then.
    pub fn add(&mut self, path: FieldPath, reason: FieldReason, description: impl Into<String>) {
        if self.found.len() >= MAX_VIOLATIONS {
            return;
        }
        self.found.push(Violation {
            field: path.to_string(),
            description: description.into(),
            reason,
        });
    }

    /// Takes a value that was read, or notes why it could not be.
    pub fn ok_or_add<T, E: FieldError>(
        &mut self,
        path: FieldPath,
        value: Result<T, E>,
    ) -> Option<T> {
        value
            .map_err(|error| self.add(path, error.reason(), error.to_string()))
            .ok()
    }

    /// `value` when nothing was wrong, otherwise all that was.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(self.found),
        }
    }
}

// === impl Path ===

impl FieldPath {
    /// `devices[0].primary_place_of_use.customer_name.first_name` is the
    /// deepest there is.
    const DEPTH: usize = 4;

    /// A field of the message itself.
    pub fn root(name: &'static str) -> Self {
        let empty = Self {
            steps: [("", None); Self::DEPTH],
            depth: 0,
        };
        empty.field(name)
    }

    /// The element `index` of this repeated field.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        if let Some(last) = self.steps.iter_mut().take(self.depth).last() {
            last.1 = Some(index);
        }
        self
    }

    /// A field of this message.
    #[must_use]
    pub fn field(mut self, name: &'static str) -> Self {
        if let Some(next) = self.steps.get_mut(self.depth) {
            *next = (name, None);
            self.depth += 1;
        }
        self
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
