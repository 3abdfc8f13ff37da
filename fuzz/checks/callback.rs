//! The body of a callback: parsed, or quarantined without its credentials.

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use thingspace_gateway::{callbacks::payload, domain::result::Callback};

use super::{SECRET, contains_secret};

pub fn check(body: &[u8]) {
    let redacted = payload::redact(body);
    let whole = serde_json::from_slice::<Value>(body).ok();
    let parsed = payload::parse(body);
    let text = String::from_utf8_lossy(body);
    if is_only_a_credential(&text, whole.as_ref()) {
        assert!(!contains_secret(&String::from_utf8_lossy(&redacted.body)));
        assert!(!contains_secret(&format!("{redacted:?}")));
        if let Some(callback) = &parsed {
            assert!(!contains_secret(&format!("{callback:?}")));
        }
        for cut in cuts(body) {
            let redacted = payload::redact(&body[..cut]).body;
            let redacted = String::from_utf8_lossy(&redacted).into_owned();
            assert!(!redacted.contains("hush"), "cut at {cut}: {redacted}");
            check_broken_body(body, cut);
        }
    }
    if let Some(callback) = parsed {
        check_digest(&callback, body, whole);
    }
}

/// True if the secret occurs in the parsed body as a credential and nowhere else.
fn is_only_a_credential(text: &str, whole: Option<&Value>) -> bool {
    let Some(whole) = whole.filter(|whole| whole.is_object()) else {
        return false;
    };
    let plain = |text: &str| text.to_lowercase().matches("hush").count();
    let mut elsewhere = whole.clone();
    drop_credentials(&mut elsewhere);
    // Excludes duplicate names, of which parsing drops the first value, and escaped names, which cannot be
    // found in a broken text.
    plain(text) == text.matches(SECRET).count()
        && plain(text) == plain(&whole.to_string())
        && plain(text) > 0
        && plain(&elsewhere.to_string()) == 0
}

fn drop_credentials(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| {
                !["username", "password"]
                    .iter()
                    .any(|credential| name.eq_ignore_ascii_case(credential))
            });
            members.values_mut().for_each(drop_credentials);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_credentials),
        _ => {}
    }
}

/// Returns some positions at which the body is cut.
fn cuts(body: &[u8]) -> impl Iterator<Item = usize> {
    let sum = body
        .iter()
        .fold(17_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let length = body.len();
    (0..8).map(move |step: usize| sum.wrapping_add(step * 7_919) % length.max(1))
}

/// Checks a body that an additional byte outside of names and values makes invalid.
fn check_broken_body(body: &[u8], at: usize) {
    let mut body = body.to_vec();
    if !body.get(at).is_some_and(|byte| b",{}[]".contains(byte)) {
        return;
    }
    body.insert(at, b'!');
    if serde_json::from_slice::<Value>(&body).is_ok() {
        return;
    }
    let redacted = String::from_utf8_lossy(&payload::redact(&body).body).into_owned();
    assert!(!contains_secret(&redacted), "{redacted}");
}

/// The digest does not depend on the encoding of the content.
fn check_digest(callback: &Callback, body: &[u8], whole: Option<Value>) {
    // The stored body is parsed to the same callback, without credentials.
    let stored = payload::parse(callback.raw_json.as_bytes()).expect("it was parsed before");
    assert_eq!(stored.digest, callback.digest);
    assert_eq!(stored.result, callback.result);
    assert!(stored.username.is_none() && stored.password.is_none());
    // A replay of the quarantined body yields the same callback.
    let redacted = payload::redact(body);
    let again = payload::parse(&redacted.body).expect("it was parsed before");
    assert_eq!(again.digest, callback.digest);
    let text = |secret: &Option<secrecy::SecretString>| {
        secret.as_ref().map(|secret| secret.expose_secret().to_owned())
    };
    assert_eq!(text(&redacted.username), text(&callback.username));
    assert_eq!(text(&redacted.password), text(&callback.password));
    let Some(mut whole) = whole else { return };
    reverse_members(&mut whole);
    if let Value::Object(members) = &mut whole {
        members.insert("callbackCount".into(), 99.into());
    }
    if let Some(reversed) = payload::parse(whole.to_string().as_bytes()) {
        assert_eq!(reversed.digest, callback.digest, "{whole}");
    }
}

/// Reverses the order of all members.
fn reverse_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let mut reversed: Vec<(String, Value)> = std::mem::take(members).into_iter().collect();
            reversed.reverse();
            reversed.iter_mut().for_each(|(_, value)| reverse_members(value));
            *members = reversed.into_iter().collect::<Map<String, Value>>();
        }
        Value::Array(values) => values.iter_mut().for_each(reverse_members),
        _ => {}
    }
}
