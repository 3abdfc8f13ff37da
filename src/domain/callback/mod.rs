//! Reads a callback's body, as leniently as ThingSpace demands.
//!
//! What the sources show and this accepts (the seed pages' examples, "Callback
//! Error Messages", field reports): kinds in any case; counts as text or as
//! numbers; `deviceResponse` as an object or an array; no `status`;
//! `faultResponse`; a body without its opening brace; members nobody knows.

use aws_lc_rs::digest;
use secrecy::SecretString;
use serde_json::{Map, Value};

mod content_digest;
mod redact;

use super::{
    identifier::ReportedId,
    newtypes::RequestId,
    result::{
        DeviceResult, EsimProfile, Outcome, PlanChangeDetails, ResultSource, ThingSpaceFault,
    },
};

/// A callback's body, taken apart.
#[derive(Debug, Clone)]
pub struct Callback {
    /// What it says about its device.
    pub result: DeviceResult,
    /// The user name in the body; `None` when there is none or it is empty.
    pub username: Option<SecretString>,
    /// The password in the body; `None` when there is none or it is empty.
    pub password: Option<SecretString>,
    /// Names the content: SHA-256 of the canonical form. Two sends of the same
    /// callback have the same digest, whatever their count.
    pub digest: [u8; 32],
    /// The body without user name and password.
    pub raw_json: String,
}

/// A body that cannot be used now, without the credentials in it.
#[derive(Debug, Clone)]
pub struct RedactedBody {
    /// The body, user names and passwords blanked.
    pub body: Vec<u8>,
    /// The user name that it had.
    pub username: Option<SecretString>,
    /// The password that it had.
    pub password: Option<SecretString>,
}

/// Why a body cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// Not JSON, or nested too deeply. Tells where, never what.
    #[error("the body is not JSON: line {line}, column {column}")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// No `requestId` that could be one.
    #[error("the body has no usable requestId")]
    NoRequestId,
}

/// How long texts of ThingSpace are kept, in characters.
const MAX_TEXT: usize = 1_000;
/// How many identifiers of one device are kept.
const MAX_IDS: usize = 32;

// === impl Callback ===

impl Callback {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, CallbackError> {
        let mut members = match parse_object(body)? {
            Value::Object(members) => members,
            _ => return Err(CallbackError::NotAnObject),
        };
        let username = credential(&members, "username");
        let password = credential(&members, "password");
        remove_credentials(&mut members);

        let report = parse_result(&members)?;
        let digest = content_digest::content_digest(&members);
        let raw_json = Value::Object(members).to_string();
        Ok(Self {
            result: report,
            username,
            password,
            digest,
            raw_json,
        })
    }
}

impl RedactedBody {
    /// Takes the credentials out of a body: as members where it is JSON, and else by what they look
    /// like.
    pub fn from_body(body: &[u8]) -> Self {
        if let Ok(Value::Object(mut members)) = parse_object(body) {
            let username = credential(&members, "username");
            let password = credential(&members, "password");
            remove_credentials(&mut members);
            return Self {
                body: Value::Object(members).to_string().into_bytes(),
                username,
                password,
            };
        }
        let scrubbed = redact::redact(body);
        Self {
            body: scrubbed.body,
            username: scrubbed.username.map(SecretString::from),
            password: scrubbed.password.map(SecretString::from),
        }
    }
}

impl Callback {
    /// What a look-up has found, to be stored like a callback: the same finding once.
    pub fn from_lookup(report: DeviceResult) -> Self {
        let mut ids = report.device_ids.clone();
        ids.sort_unstable();
        let content = format!("{:?} {:?} {:?}", report.source, report.outcome, ids);
        let digest = digest::digest(&digest::SHA256, content.as_bytes());
        let mut named = [0; 32];
        for (to, from) in named.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self {
            result: report,
            username: None,
            password: None,
            digest: named,
            raw_json: String::new(),
        }
    }
}

fn parse_object(body: &[u8]) -> Result<Value, CallbackError> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    serde_json::from_slice(body).or_else(|error| {
        // A receiver in the field gets bodies without the opening brace.
        let repaired = body
            .trim_ascii_start()
            .starts_with(b"\"")
            .then(|| serde_json::from_slice(&[b"{", body].concat()).ok());
        repaired.flatten().ok_or(CallbackError::NotJson {
            line: error.line(),
            column: error.column(),
        })
    })
}

fn parse_result(members: &Map<String, Value>) -> Result<DeviceResult, CallbackError> {
    let request_id = get(members, "requestId")
        .and_then(text)
        .and_then(|text| RequestId::parse(text.trim()).ok())
        .ok_or(CallbackError::NoRequestId)?;
    let responses = objects(get(members, "deviceResponse"));
    let profile = first_object(&responses, "deviceProfileResponse");
    let plan_change = first_object(&responses, "changeServicePlanResponse");
    let fault = parse_fault(members);
    let status_text = truncate(get(members, "status").and_then(text).unwrap_or_default());

    let mut device_ids = Vec::new();
    collect_ids(get(members, "deviceIds"), &mut device_ids);
    collect_ids(
        profile.and_then(|profile| get(profile, "deviceIdentifierCollection")),
        &mut device_ids,
    );
    Ok(DeviceResult {
        request_id,
        device_ids,
        outcome: parse_outcome(&status_text, fault.as_ref(), !responses.is_empty()),
        status_text,
        fault,
        esim_profile: profile.map(parse_profile),
        service_plan_change: plan_change
            .and_then(|change| get(change, "effectiveDate"))
            .and_then(text)
            .map(|date| PlanChangeDetails::parse(&truncate(date))),
        operation_text: operation(&responses),
        source: ResultSource::Callback,
        evidence: String::new(),
        callback_count: parse_count(members, "callbackCount"),
        max_callback_threshold: parse_count(members, "maxCallbackThreshold"),
    })
}

/// Success and failure are told by what is known to mean them; all else is not
/// final, so that nothing is invented.
fn parse_outcome(status: &str, fault: Option<&ThingSpaceFault>, has_response: bool) -> Outcome {
    let on_hold = fault.is_some_and(|fault| {
        // `<service>.REQUEST_ONHOLD.<what>`: a credit check, say.
        fault
            .code
            .split('.')
            .any(|part| part.eq_ignore_ascii_case("REQUEST_ONHOLD"))
    });
    match status.trim().to_ascii_lowercase().as_str() {
        // A profile call whose SM-SR timed out sends `warning` first.
        "warning" | "pending" => Outcome::Interim,
        _ if on_hold => Outcome::Interim,
        "failed" | "failure" => Outcome::Failed,
        _ if fault.is_some() => Outcome::Failed,
        "success" => Outcome::Succeeded,
        "" if has_response => Outcome::Succeeded,
        _ => Outcome::Interim,
    }
}

/// The name of the first member of `deviceResponse`, which tells the operation.
fn operation(responses: &[&Map<String, Value>]) -> String {
    let names = responses.iter().flat_map(|response| response.keys());
    names.cloned().map(truncate).next().unwrap_or_default()
}

fn parse_fault(members: &Map<String, Value>) -> Option<ThingSpaceFault> {
    let faults = objects(get(members, "faultResponse"));
    let fault = faults.first()?;
    let part = |name| truncate(get(fault, name).and_then(text).unwrap_or_default());
    let fault = ThingSpaceFault {
        code: part("faultcode"),
        text: part("faultstring"),
    };
    (!fault.code.is_empty() || !fault.text.is_empty()).then_some(fault)
}

fn parse_profile(profile: &Map<String, Value>) -> EsimProfile {
    let part = |name| truncate(get(profile, name).and_then(text).unwrap_or_default());
    EsimProfile {
        state: part("state"),
        profile_status: part("profileStatus"),
        profile_role: part("profileRole"),
    }
}

fn parse_count(members: &Map<String, Value>, name: &str) -> i32 {
    get(members, name)
        .and_then(text)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn collect_ids(value: Option<&Value>, into: &mut Vec<ReportedId>) {
    for member in objects(value) {
        let (Some(kind), Some(id)) = (
            get(member, "kind").and_then(text),
            get(member, "id").and_then(text),
        ) else {
            continue;
        };
        let id = ReportedId {
            kind: truncate(kind.trim().to_lowercase()),
            id: truncate(id.trim().to_owned()),
        };
        if !into.contains(&id) && into.len() < MAX_IDS {
            into.push(id);
        }
    }
}

/// A member by its name in any case.
fn get<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).or_else(|| {
        members
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

/// A text or a number, as text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The objects in an object or an array; those that say nothing left out.
fn objects(value: Option<&Value>) -> Vec<&Map<String, Value>> {
    let of = |value: &'_ Value| matches!(value, Value::Object(members) if !members.is_empty());
    match value {
        Some(Value::Object(members)) if !members.is_empty() => vec![members],
        Some(Value::Array(values)) => values
            .iter()
            .filter(|value| of(value))
            .filter_map(Value::as_object)
            .collect(),
        _ => Vec::new(),
    }
}

fn first_object<'a>(
    responses: &[&'a Map<String, Value>],
    name: &str,
) -> Option<&'a Map<String, Value>> {
    responses
        .iter()
        .find_map(|response| get(response, name))
        .and_then(|value| objects(Some(value)).first().copied())
}

fn truncate(text: impl Into<String>) -> String {
    let text: String = text.into();
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

fn credential(members: &Map<String, Value>, name: &str) -> Option<SecretString> {
    get(members, name)
        .and_then(text)
        .filter(|text| !text.is_empty())
        .map(SecretString::from)
}

fn is_credential(name: &str) -> bool {
    name.eq_ignore_ascii_case("username") || name.eq_ignore_ascii_case("password")
}

/// Removes user names and passwords wherever they stand.
fn remove_credentials(members: &mut Map<String, Value>) {
    members.retain(|name, _| !is_credential(name));
    for value in members.values_mut() {
        remove_credentials_from(value);
    }
}

fn remove_credentials_from(value: &mut Value) {
    match value {
        Value::Object(members) => remove_credentials(members),
        Value::Array(values) => values.iter_mut().for_each(remove_credentials_from),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
