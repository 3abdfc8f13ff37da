//! Keeps the details of a status small.

use tonic_types::FieldViolation;

use crate::domain::violation::Violation;

/// Maximum size of the listed violations in bytes. With everything else, base64 and the message, the trailers
/// stay below 8,000 bytes.
const MAX_VIOLATIONS_BYTES: usize = 3_600;
/// Size of the tags and lengths of one encoded violation in bytes.
const VIOLATION_OVERHEAD: usize = 14;

/// Returns the first violations, as many as fit into a status.
pub(super) fn truncate_violations(violations: Vec<Violation>) -> Vec<FieldViolation> {
    let mut remaining = MAX_VIOLATIONS_BYTES;
    violations
        .into_iter()
        .map_while(|violation| {
            let reason = violation.reason.as_str();
            let text = violation.field.len() + violation.description.len() + reason.len();
            remaining = remaining.checked_sub(text + VIOLATION_OVERHEAD)?;
            Some(FieldViolation {
                field: violation.field,
                description: violation.description,
                reason: reason.to_owned(),
                localized_message: None,
            })
        })
        .collect()
}

/// Truncates a text to at most `bytes`, between two characters.
pub(super) fn truncate(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}
