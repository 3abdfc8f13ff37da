//! The digest by which repeated deliveries of a callback are recognised.

use serde_json::{Map, Value};

use crate::domain::callback::sha256;

/// Returns the SHA-256 of a body in a canonical form: sorted members, no white space, without the delivery
/// counts; lists of identifiers as sets, with their kinds in lower case.
pub(super) fn content_digest(members: &Map<String, Value>) -> [u8; 32] {
    let is_count = |name: &str| {
        name.eq_ignore_ascii_case("callbackCount")
            || name.eq_ignore_ascii_case("maxCallbackThreshold")
    };
    let content = members.iter().filter(|(name, _)| !is_count(name));
    let content = content.map(|(name, value)| (name.clone(), value.clone()));
    let mut content = Value::Object(content.collect());
    content.sort_all_objects();
    normalise(&mut content);
    sha256(content.to_string().as_bytes())
}

fn normalise(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if is_identifier(members)
                && let Some(Value::String(kind)) = members.get_mut("kind")
            {
                *kind = kind.to_lowercase();
            }
            members.values_mut().for_each(normalise);
        }
        Value::Array(values) => {
            values.iter_mut().for_each(normalise);
            if values.iter().all(|value| value.as_object().is_some_and(is_identifier)) {
                values.sort_by_cached_key(Value::to_string);
                values.dedup();
            }
        }
        _ => {}
    }
}

fn is_identifier(members: &Map<String, Value>) -> bool {
    members.len() == 2 && members.contains_key("id") && members.contains_key("kind")
}
