//! Reads members of JSON objects. ThingSpace's documents and responses differ in the case of names.

use serde_json::Value;

/// Maximum length of a short text, in characters.
const MAX_SHORT_TEXT: usize = 200;

/// Returns a member of an object by its name, in any case.
pub(super) fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let members = object.as_object()?;
    members.get(name).or_else(|| {
        members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

/// Returns a member that is a string or a number as trimmed text.
pub(super) fn member_text(object: &Value, name: &str) -> Option<String> {
    match member(object, name)? {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Like [`member_text`], truncated to 200 characters.
pub(super) fn member_short_text(object: &Value, name: &str) -> Option<String> {
    let text = member_text(object, name)?;
    Some(text.chars().take(MAX_SHORT_TEXT).collect())
}

/// Iterates over the items of a member that is an array; over none if it is anything else.
pub(super) fn member_items<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let items = member(object, name).and_then(Value::as_array);
    items.into_iter().flatten()
}
