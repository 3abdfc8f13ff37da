//! A callback's body: read, or kept without its credentials.

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use thingspace_gateway::{callbacks::payload, domain::callback::Callback};

use super::{SECRET, contains_secret};

pub fn check(body: &[u8]) {
    let unusable = payload::redact(body);
    let whole = serde_json::from_slice::<Value>(body).ok();
    let read = payload::parse(body);
    if let Err(error) = &read {
        assert!(!contains_secret(&error.to_string()), "{error}");
    }
    let text = String::from_utf8_lossy(body);
    if is_only_a_credential(&text, whole.as_ref()) {
        assert!(!contains_secret(&String::from_utf8_lossy(&unusable.body)));
        assert!(!contains_secret(&format!("{unusable:?}")));
        if let Ok(callback) = &read {
            assert!(!contains_secret(&format!("{callback:?}")));
        }
        for cut in cuts(body) {
            let kept = payload::redact(&body[..cut]).body;
            let kept = String::from_utf8_lossy(&kept).into_owned();
            assert!(!kept.contains("hush"), "cut at {cut}: {kept}");
            check_broken_body(body, cut);
        }
    }
    if let Ok(callback) = read {
        same_content(&callback, body, whole);
    }
}

/// What the secret is in front of somebody who can read the body: a credential, and nothing else.
fn is_only_a_credential(text: &str, whole: Option<&Value>) -> bool {
    let Some(whole) = whole.filter(|whole| whole.is_object()) else {
        return false;
    };
    let plain = |text: &str| text.to_lowercase().matches("hush").count();
    let mut elsewhere = whole.clone();
    drop_credentials(&mut elsewhere);
    // A name that is there twice has lost its first value when it is read; and one that is escaped cannot
    // be found in a text that is broken.
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

/// Some places to break a body at.
fn cuts(body: &[u8]) -> impl Iterator<Item = usize> {
    let sum = body.iter().fold(17_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    let length = body.len();
    (0..8).map(move |step: usize| sum.wrapping_add(step * 7_919) % length.max(1))
}

/// A body that is broken by a byte outside of its names and values, so that nobody can read it.
fn check_broken_body(body: &[u8], at: usize) {
    let mut body = body.to_vec();
    if !body.get(at).is_some_and(|byte| b",{}[]".contains(byte)) {
        return;
    }
    body.insert(at, b'!');
    if serde_json::from_slice::<Value>(&body).is_ok() {
        return;
    }
    let kept = String::from_utf8_lossy(&payload::redact(&body).body).into_owned();
    assert!(!contains_secret(&kept), "{kept}");
}

/// The content has one name, however it is sent.
fn same_content(callback: &Callback, body: &[u8], whole: Option<Value>) {
    // What is stored is read back as what it was, and has no credentials any more.
    let stored = payload::parse(callback.raw_json.as_bytes()).expect("it was read before");
    assert_eq!(stored.digest, callback.digest);
    assert_eq!(stored.result, callback.result);
    assert!(stored.username.is_none() && stored.password.is_none());
    // What was kept as unusable is judged anew as what it was.
    let kept = payload::redact(body);
    let again = payload::parse(&kept.body).expect("it was read before");
    assert_eq!(again.digest, callback.digest);
    let text = |secret: &Option<secrecy::SecretString>| {
        secret
            .as_ref()
            .map(|secret| secret.expose_secret().to_owned())
    };
    assert_eq!(text(&kept.username), text(&callback.username));
    assert_eq!(text(&kept.password), text(&callback.password));
    let Some(mut whole) = whole else { return };
    reverse_members(&mut whole);
    if let Value::Object(members) = &mut whole {
        members.insert("callbackCount".into(), 99.into());
    }
    if let Ok(turned) = payload::parse(whole.to_string().as_bytes()) {
        assert_eq!(turned.digest, callback.digest, "{whole}");
    }
}

/// All members in the opposite order.
fn reverse_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let mut turned: Vec<(String, Value)> = std::mem::take(members).into_iter().collect();
            turned.reverse();
            turned
                .iter_mut()
                .for_each(|(_, value)| reverse_members(value));
            *members = turned.into_iter().collect::<Map<String, Value>>();
        }
        Value::Array(values) => values.iter_mut().for_each(reverse_members),
        _ => {}
    }
}
