//! The same rules in the simplest form, on `serde_json`'s values.

use std::slice;

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::domain::{
    identifier::ReportedId,
    newtypes::RequestId,
    result::{
        DeviceResult, EsimProfile, Outcome, PlanChangeDetails, ResultSource, ThingSpaceFault,
    },
};

const MAX_TEXT: usize = 1_000;
const MAX_IDS: usize = 32;

/// Returns the expected result of [`parse`](super::super::parse).
pub(super) struct Expected {
    pub(super) result: DeviceResult,
    pub(super) username: Option<SecretString>,
    pub(super) password: Option<SecretString>,
    /// Callbacks with the same content have the same digest, others have not.
    pub(super) content: String,
    /// The body without credentials.
    pub(super) body: Value,
}

pub(super) fn parse(body: &[u8]) -> Option<Expected> {
    let BodyObject { members, username, password } = BodyObject::parse(body)?;
    Some(Expected {
        result: parse_result(&members)?,
        username,
        password,
        content: content(&members),
        body: Value::Object(members),
    })
}

struct BodyObject {
    members: Map<String, Value>,
    username: Option<SecretString>,
    password: Option<SecretString>,
}

impl BodyObject {
    fn parse(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let mut members = match serde_json::from_slice(body) {
            Ok(members) => members,
            // Bodies without the opening brace have been seen in the field.
            Err(_) if body.trim_ascii_start().starts_with(b"\"") => {
                serde_json::from_slice(&[b"{", body].concat()).ok()?
            }
            Err(_) => return None,
        };
        let credential = |name| text(&members, name).filter(|text| !text.is_empty());
        let [username, password] =
            ["username", "password"].map(|name| credential(name).map(SecretString::from));
        remove_credentials(&mut members);
        Some(Self { members, username, password })
    }
}

/// Removes user names and passwords at every level.
fn remove_credentials(members: &mut Map<String, Value>) {
    members.retain(|name, _| {
        !name.eq_ignore_ascii_case("username") && !name.eq_ignore_ascii_case("password")
    });
    let mut values: Vec<&mut Value> = members.values_mut().collect();
    while let Some(value) = values.pop() {
        match value {
            Value::Object(members) => remove_credentials(members),
            Value::Array(elements) => values.extend(elements),
            _ => {}
        }
    }
}

fn content(members: &Map<String, Value>) -> String {
    let is_count = |name: &str| {
        name.eq_ignore_ascii_case("callbackCount")
            || name.eq_ignore_ascii_case("maxCallbackThreshold")
    };
    let mut content: Value = members
        .iter()
        .filter(|(name, _)| !is_count(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    content.sort_all_objects();
    normalise(&mut content);
    content.to_string()
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

fn parse_result(members: &Map<String, Value>) -> Option<DeviceResult> {
    let request_id = RequestId::parse(text(members, "requestId")?.trim()).ok()?;
    let responses = objects(members, "deviceResponse");
    let first =
        |name| responses.iter().find_map(|response| objects(response, name).first().copied());
    let profile = first("deviceProfileResponse");
    let plan_change = first("changeServicePlanResponse");
    let fault = parse_fault(members);
    let status_text = short_text(members, "status");
    // The name of the first member names the operation.
    let operation = responses.iter().flat_map(|response| response.keys()).next();

    let mut device_ids = Vec::new();
    collect_ids(members, "deviceIds", &mut device_ids);
    if let Some(profile) = profile {
        collect_ids(profile, "deviceIdentifierCollection", &mut device_ids);
    }
    Some(DeviceResult {
        request_id,
        device_ids,
        outcome: parse_outcome(&status_text, fault.as_ref(), !responses.is_empty()),
        status_text,
        fault,
        esim_profile: profile.map(|profile| EsimProfile {
            state: short_text(profile, "state"),
            profile_status: short_text(profile, "profileStatus"),
            profile_role: short_text(profile, "profileRole"),
        }),
        service_plan_change: plan_change
            .and_then(|change| text(change, "effectiveDate"))
            .map(|date| PlanChangeDetails::parse(&truncate(date))),
        operation_text: operation.cloned().map(truncate).unwrap_or_default(),
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

fn parse_fault(members: &Map<String, Value>) -> Option<ThingSpaceFault> {
    let fault = *objects(members, "faultResponse").first()?;
    let (code, text) = (short_text(fault, "faultcode"), short_text(fault, "faultstring"));
    (!code.is_empty() || !text.is_empty()).then_some(ThingSpaceFault { code, text })
}

fn parse_count(members: &Map<String, Value>, name: &str) -> i32 {
    text(members, name).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn collect_ids(members: &Map<String, Value>, name: &str, into: &mut Vec<ReportedId>) {
    for member in objects(members, name) {
        let (Some(kind), Some(id)) = (text(member, "kind"), text(member, "id")) else {
            continue;
        };
        let kind = truncate(kind.trim().to_lowercase());
        let id = ReportedId { kind, id: truncate(id.trim().to_owned()) };
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
fn text(members: &Map<String, Value>, name: &str) -> Option<String> {
    match get(members, name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns a text of at most [`MAX_TEXT`] characters, empty if it is absent.
fn short_text(members: &Map<String, Value>, name: &str) -> String {
    text(members, name).map(truncate).unwrap_or_default()
}

/// Returns the non-empty objects of a member that is an object or an array.
fn objects<'a>(members: &'a Map<String, Value>, name: &str) -> Vec<&'a Map<String, Value>> {
    let values = match get(members, name) {
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => slice::from_ref(value),
        None => &[],
    };
    values.iter().filter_map(Value::as_object).filter(|members| !members.is_empty()).collect()
}

fn truncate(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
    }
    text
}
