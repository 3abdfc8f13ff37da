//! Parses the body of a callback.
//!
//! ThingSpace's examples and reports from the field differ, so the parser is lenient. It accepts identifier
//! kinds in any letter case, counts as text or numbers, `deviceResponse` as an object or an array, a body
//! without `status`, a body without its opening brace, and unknown members. See thingspace-facts, section
//! 4.1.

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::{
    callbacks::payload::digest::content_digest,
    domain::{
        callback::Callback,
        identifier::ReportedId,
        newtypes::RequestId,
        result::{
            DeviceResult, EsimProfile, Outcome, PlanChangeDetails, ResultSource, ThingSpaceFault,
        },
    },
};

/// A body that is not a callback.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is not JSON, or nested too deeply.
    #[error("the body is not JSON: line {line}, column {column}")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It is JSON, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// It has no valid `requestId`.
    #[error("the body has no usable requestId")]
    NoRequestId,
}

/// Maximum length of a stored text, in characters.
const MAX_TEXT: usize = 1_000;
/// Maximum number of stored identifiers of a device.
const MAX_IDS: usize = 32;

/// Parses the body of a callback and removes the credentials from it.
///
/// # Errors
///
/// If the body is not a JSON object with a request id. The error never repeats a part of the body.
pub fn parse(body: &[u8]) -> Result<Callback, PayloadError> {
    let Value::Object(mut members) = parse_json(body)? else {
        return Err(PayloadError::NotAnObject);
    };
    let (username, password) = remove_credentials(&mut members);
    Ok(Callback {
        result: parse_result(&members)?,
        username,
        password,
        digest: content_digest(&members),
        raw_json: Value::Object(members).to_string(),
    })
}

pub(super) fn parse_json(body: &[u8]) -> Result<Value, PayloadError> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    serde_json::from_slice(body).or_else(|error| {
        // Bodies without the opening brace have been seen in the field.
        let repaired = body
            .trim_ascii_start()
            .starts_with(b"\"")
            .then(|| serde_json::from_slice(&[b"{", body].concat()).ok());
        repaired
            .flatten()
            .ok_or(PayloadError::NotJson { line: error.line(), column: error.column() })
    })
}

fn parse_result(members: &Map<String, Value>) -> Result<DeviceResult, PayloadError> {
    let request_id = get(members, "requestId")
        .and_then(text)
        .and_then(|text| RequestId::parse(text.trim()).ok())
        .ok_or(PayloadError::NoRequestId)?;
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

/// Only texts that are known to mean success or failure are final.
fn parse_outcome(status: &str, fault: Option<&ThingSpaceFault>, has_response: bool) -> Outcome {
    let on_hold = fault.is_some_and(|fault| {
        // `<service>.REQUEST_ONHOLD.<cause>`, such as a credit check.
        fault.code.split('.').any(|part| part.eq_ignore_ascii_case("REQUEST_ONHOLD"))
    });
    match status.trim().to_ascii_lowercase().as_str() {
        // An eSIM operation sends `warning` first if the SM-SR timed out.
        "warning" | "pending" => Outcome::Interim,
        _ if on_hold => Outcome::Interim,
        "failed" | "failure" => Outcome::Failed,
        _ if fault.is_some() => Outcome::Failed,
        "success" => Outcome::Succeeded,
        "" if has_response => Outcome::Succeeded,
        _ => Outcome::Interim,
    }
}

/// Returns the name of the first member of `deviceResponse`, which names the operation.
fn operation(responses: &[&Map<String, Value>]) -> String {
    let names = responses.iter().flat_map(|response| response.keys());
    names.cloned().map(truncate).next().unwrap_or_default()
}

fn parse_fault(members: &Map<String, Value>) -> Option<ThingSpaceFault> {
    let faults = objects(get(members, "faultResponse"));
    let fault = faults.first()?;
    let part = |name| truncate(get(fault, name).and_then(text).unwrap_or_default());
    let fault = ThingSpaceFault { code: part("faultcode"), text: part("faultstring") };
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
    get(members, name).and_then(text).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn collect_ids(value: Option<&Value>, into: &mut Vec<ReportedId>) {
    for member in objects(value) {
        let (Some(kind), Some(id)) =
            (get(member, "kind").and_then(text), get(member, "id").and_then(text))
        else {
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

/// Returns a member by its name in any letter case.
fn get<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).or_else(|| {
        members.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

/// Returns a string or a number as text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns the non-empty objects of an object or an array.
fn objects(value: Option<&Value>) -> Vec<&Map<String, Value>> {
    let is_non_empty =
        |value: &'_ Value| matches!(value, Value::Object(members) if !members.is_empty());
    match value {
        Some(Value::Object(members)) if !members.is_empty() => vec![members],
        Some(Value::Array(values)) => {
            values.iter().filter(|value| is_non_empty(value)).filter_map(Value::as_object).collect()
        }
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
    get(members, name).and_then(text).filter(|text| !text.is_empty()).map(SecretString::from)
}

fn is_credential(name: &str) -> bool {
    name.eq_ignore_ascii_case("username") || name.eq_ignore_ascii_case("password")
}

/// Removes user names and passwords at every level. Returns those of the top level.
pub(super) fn remove_credentials(
    members: &mut Map<String, Value>,
) -> (Option<SecretString>, Option<SecretString>) {
    let found = (credential(members, "username"), credential(members, "password"));
    remove_members(members);
    found
}

fn remove_members(members: &mut Map<String, Value>) {
    members.retain(|name, _| !is_credential(name));
    for value in members.values_mut() {
        remove_credentials_from(value);
    }
}

fn remove_credentials_from(value: &mut Value) {
    match value {
        Value::Object(members) => remove_members(members),
        Value::Array(values) => values.iter_mut().for_each(remove_credentials_from),
        _ => {}
    }
}
