//! The content of a callback in one form, by which a repetition is known.

use aws_lc_rs::digest;
use serde_json::{Map, Value};

/// What a callback says, whichever send of it this is: sorted names, no white
/// space, without the counts; identifiers as a set, their kinds in lower case.
pub(super) fn content_digest(members: &Map<String, Value>) -> [u8; 32] {
    let counted = |name: &str| {
        name.eq_ignore_ascii_case("callbackCount")
            || name.eq_ignore_ascii_case("maxCallbackThreshold")
    };
    let mut out = String::with_capacity(512);
    let what: Map<String, Value> = members
        .iter()
        .filter(|(name, _)| !counted(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    write_object(&what, &mut out);
    let mut digest = [0; 32];
    for (to, from) in digest
        .iter_mut()
        .zip(digest::digest(&digest::SHA256, out.as_bytes()).as_ref())
    {
        *to = *from;
    }
    digest
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => write_object(members, out),
        Value::Array(values) => {
            let mut parts: Vec<String> = values
                .iter()
                .map(|value| {
                    let mut part = String::new();
                    write_canonical(value, &mut part);
                    part
                })
                .collect();
            if !values.is_empty() && values.iter().all(is_identifier) {
                parts.sort_unstable();
                parts.dedup();
            }
            out.push('[');
            out.push_str(&parts.join(","));
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn write_object(members: &Map<String, Value>, out: &mut String) {
    let identifier = is_identifier_object(members);
    let mut names: Vec<&String> = members.keys().collect();
    names.sort_unstable();
    out.push('{');
    for (place, name) in names.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        out.push_str(&Value::String(name.clone()).to_string());
        out.push(':');
        match members.get(name) {
            Some(Value::String(kind)) if identifier && name == "kind" => {
                out.push_str(&Value::String(kind.to_lowercase()).to_string());
            }
            Some(value) => write_canonical(value, out),
            None => {}
        }
    }
    out.push('}');
}

fn is_identifier(value: &Value) -> bool {
    value.as_object().is_some_and(is_identifier_object)
}

fn is_identifier_object(members: &Map<String, Value>) -> bool {
    members.len() == 2 && members.contains_key("id") && members.contains_key("kind")
}
