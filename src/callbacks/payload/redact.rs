//! Redacts the credentials of a body that cannot be used.

use std::ops::Range;

use secrecy::SecretString;
use serde_json::Value;

use crate::callbacks::payload::parse::BodyObject;

/// The replacement of a credential in a body that is not JSON.
const REDACTED: &[u8] = b"***";

/// A body without credentials.
#[derive(Debug, Clone, Default)]
pub struct RedactedBody {
    /// The body with user names and passwords removed or replaced.
    pub body: Vec<u8>,
    /// The first user name in the body.
    pub username: Option<SecretString>,
    /// The first password in the body.
    pub password: Option<SecretString>,
}

/// Removes the credentials from a body.
///
/// A JSON object loses the members. Any other body may be truncated or malformed at any byte, so this searches
/// for names of credentials, and redacts too much rather than too little.
pub fn redact(body: &[u8]) -> RedactedBody {
    match BodyObject::parse(body) {
        Some(BodyObject { members, username, password }) => {
            let body = Value::Object(members).to_string().into_bytes();
            RedactedBody { body, username, password }
        }
        None => redact_text(body),
    }
}

/// Replaces the value of each member whose name is that of a credential in any letter case. A value without
/// an end extends to the end of the body.
fn redact_text(body: &[u8]) -> RedactedBody {
    let mut redacted = RedactedBody::default();
    let part = |range: Range<usize>| body.get(range).unwrap_or_default();
    let mut at = 0;
    while let Some((is_username, name_end)) = find_credential_name(body, at) {
        let rest = part(name_end..body.len());
        let start = name_end + rest.iter().take_while(|byte| is_separator(**byte)).count();
        let end = find_value_end(body, start);
        redacted.body.extend_from_slice(part(at..start));
        redacted.body.extend_from_slice(REDACTED);
        let value = String::from_utf8_lossy(part(start..end));
        let slot = if is_username { &mut redacted.username } else { &mut redacted.password };
        if slot.is_none() && !value.is_empty() {
            *slot = Some(SecretString::from(value.into_owned()));
        }
        at = end.max(name_end);
    }
    redacted.body.extend_from_slice(part(at..body.len()));
    redacted
}

/// Finds the next name of a credential. Returns true for a user name, and the end of the name.
fn find_credential_name(body: &[u8], from: usize) -> Option<(bool, usize)> {
    (from..body.len()).find_map(|at| {
        let username = match_name(body, at, b"username").map(|end| (true, end));
        username.or_else(|| Some((false, match_name(body, at, b"password")?)))
    })
}

/// Returns the end of the name if it is at this position. Letters can be JSON escapes such as `\u0070`.
fn match_name(body: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    name.iter().try_fold(at, |at, letter| {
        let rest = body.get(at..)?;
        let (found, length) = match rest.strip_prefix(b"\\u") {
            Some(number) => {
                let number = std::str::from_utf8(number.get(..4)?).ok()?;
                (u8::from_str_radix(number, 16).ok()?, 6)
            }
            None => (*rest.first()?, 1),
        };
        found.eq_ignore_ascii_case(letter).then_some(at + length)
    })
}

/// True for the bytes between a name and its value.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b':' | b'=' | b'\\') || byte.is_ascii_whitespace()
}

/// Returns the end of the value at a position: its closing quote, or the delimiter after an unquoted value.
fn find_value_end(body: &[u8], at: usize) -> usize {
    let before = at.checked_sub(1).and_then(|before| body.get(before));
    let quote = before.filter(|byte| matches!(byte, b'"' | b'\''));
    let mut end = at;
    while let Some(byte) = body.get(end) {
        match byte {
            // An escaped byte does not end the value.
            b'\\' => end += 1,
            byte if quote == Some(byte) => break,
            b',' | b'}' | b']' | b'\n' | b'\r' if quote.is_none() => break,
            // The end of an array or object in a malformed body is unknown.
            b'"' | b'\'' | b'{' | b'[' if quote.is_none() => end = body.len(),
            _ => {}
        }
        end += 1;
    }
    end.min(body.len())
}

#[cfg(test)]
mod tests;
