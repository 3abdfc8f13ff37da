//! Parses the body of a callback.
//!
//! ThingSpace's examples and reports from the field differ, so the parser is lenient. It accepts
//! identifier kinds in any letter case, counts as text or numbers, `deviceResponse` as an object or
//! an array, a body without `status`, a body without its opening brace, and unknown members (see
//! docs/thingspace-facts.md, section 4.3).

use std::borrow::Cow;

use secrecy::SecretString;

use crate::{
    callbacks::payload::{
        digest::content_digest,
        json::{Document, Value},
    },
    domain::{
        identifier::ReportedId,
        newtypes::RequestId,
        result::{
            Callback, DeviceResult, EsimProfile, Outcome, PlanChangeDetails, ResultSource,
            ThingSpaceFault,
        },
    },
};

/// Maximum length of a stored text, in characters.
const MAX_TEXT: usize = 1_000;
/// Maximum number of stored identifiers of a device.
const MAX_IDS: usize = 32;

/// Parses the body of a callback and removes the credentials from it. Returns `None` if the body is not
/// a JSON object with a valid `requestId`.
pub fn parse(body: &[u8]) -> Option<Callback> {
    let document = Document::parse(body)?;
    let root = document.root();
    let [username, password] = credentials(&document);
    Some(Callback {
        result: parse_result(root)?,
        username,
        password,
        digest: content_digest(root, body.len()),
        raw_json: document.without_credentials(),
    })
}

/// Returns the user name and the password of the top level. An empty text counts as none.
pub(super) fn credentials(document: &Document<'_>) -> [Option<SecretString>; 2] {
    ["username", "password"].map(|name| {
        let text = document.credential(name).filter(|text| !text.is_empty());
        text.map(SecretString::from)
    })
}

fn parse_result(body: Value<'_>) -> Option<DeviceResult> {
    let request_id = RequestId::parse(body.get("requestId")?.text()?.trim()).ok()?;
    let responses = || objects(body, "deviceResponse");
    let first = |name| responses().find_map(|response| objects(response, name).next());
    let profile = first("deviceProfileResponse");
    let plan_change = first("changeServicePlanResponse");
    let fault = parse_fault(body);
    let status_text = short_text(body, "status");
    // The name of the first member names the operation.
    let operation = responses().next().and_then(|response| response.members().next());

    let mut device_ids = Vec::new();
    collect_ids(body, "deviceIds", &mut device_ids);
    if let Some(profile) = profile {
        collect_ids(profile, "deviceIdentifierCollection", &mut device_ids);
    }
    Some(DeviceResult {
        request_id,
        device_ids,
        outcome: parse_outcome(&status_text, fault.as_ref(), operation.is_some()),
        status_text,
        fault,
        esim_profile: profile.map(|profile| EsimProfile {
            state: short_text(profile, "state"),
            profile_status: short_text(profile, "profileStatus"),
            profile_role: short_text(profile, "profileRole"),
        }),
        service_plan_change: plan_change
            .and_then(|change| change.get("effectiveDate")?.text())
            .map(|date| PlanChangeDetails::parse(truncate(&date))),
        operation_text: operation.map(|(name, _)| truncate(&name).to_owned()).unwrap_or_default(),
        source: ResultSource::Callback,
        evidence: String::new(),
        callback_count: parse_count(body, "callbackCount"),
        max_callback_threshold: parse_count(body, "maxCallbackThreshold"),
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

fn parse_fault(body: Value<'_>) -> Option<ThingSpaceFault> {
    let fault = objects(body, "faultResponse").next()?;
    let (code, text) = (short_text(fault, "faultcode"), short_text(fault, "faultstring"));
    (!code.is_empty() || !text.is_empty()).then_some(ThingSpaceFault { code, text })
}

fn parse_count(body: Value<'_>, name: &str) -> i32 {
    text(body, name).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn collect_ids(object: Value<'_>, name: &str, into: &mut Vec<ReportedId>) {
    for member in objects(object, name) {
        let (Some(kind), Some(id)) = (text(member, "kind"), text(member, "id")) else {
            continue;
        };
        let kind = lower_case(kind.trim());
        let (kind, id) = (truncate(&kind), truncate(id.trim()));
        let is_new = into.iter().all(|known| known.id != id || known.kind != kind);
        if is_new && into.len() < MAX_IDS {
            into.push(ReportedId { kind: kind.to_owned(), id: id.to_owned() });
        }
    }
}

/// Returns a string or a number as text.
fn text<'d>(object: Value<'d>, name: &str) -> Option<Cow<'d, str>> {
    object.get(name)?.text()
}

/// Returns a text of at most [`MAX_TEXT`] characters, empty if it is absent.
fn short_text(object: Value<'_>, name: &str) -> String {
    text(object, name).map(|text| truncate(&text).to_owned()).unwrap_or_default()
}

/// Returns the non-empty objects of a member that is an object or an array.
fn objects<'d>(object: Value<'d>, name: &str) -> impl Iterator<Item = Value<'d>> + use<'d> {
    object.get(name).into_iter().flat_map(Value::objects)
}

fn lower_case(text: &str) -> Cow<'_, str> {
    match text.bytes().all(|byte| byte.is_ascii_lowercase()) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.to_lowercase()),
    }
}

fn truncate(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = text.char_indices().nth(MAX_TEXT).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}
