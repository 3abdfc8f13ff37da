//! The result of one device of a request, and the callback that carries it.

use aws_lc_rs::digest;
use prost_types::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::domain::{identifier::ReportedId, newtypes::RequestId};

/// The outcome of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not final: a warning, pending, on hold, or an unknown status.
    Interim,
    /// ThingSpace reported failure of the operation.
    Failed,
    /// ThingSpace reported success of the operation.
    Succeeded,
}

/// The source of a result, in increasing precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultSource {
    /// A lookup.
    Reconciled,
    /// An operator.
    Operator,
    /// A callback.
    Callback,
}

/// The way in which a result was matched with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// It has an identifier that was sent.
    Exact,
    /// It has no identifier that was sent, but the change has only one device.
    Assumed,
    /// It has no identifier that was sent.
    None,
    /// It has identifiers of two or more devices, so it counts for none of them.
    Ambiguous,
}

/// The precedence of a final result. The highest result of a device decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResultPrecedence {
    /// Compared first.
    pub source: ResultSource,
    /// Compared second: success over failure. Never `Interim`.
    pub outcome: Outcome,
}

/// A result of one device, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceResult {
    /// ThingSpace's id of the request.
    pub request_id: RequestId,
    /// All identifiers in the result.
    pub device_ids: Vec<ReportedId>,
    /// The outcome.
    pub outcome: Outcome,
    /// ThingSpace's status text, unchanged; empty if absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status_text: String,
    /// The fault, if ThingSpace reported one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ThingSpaceFault>,
    /// The state of the eSIM profile, if the result has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esim_profile: Option<EsimProfile>,
    /// The details of the plan change, if the result has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_plan_change: Option<PlanChangeDetails>,
    /// The name of the member of `deviceResponse`, such as `changeServicePlanResponse`; empty if absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation_text: String,
    /// The source.
    pub source: ResultSource,
    /// The evidence of a lookup; empty for a callback.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// ThingSpace's count of deliveries of this callback; 0 if absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub callback_count: i32,
    /// ThingSpace's maximum number of deliveries; 0 if absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_callback_threshold: i32,
}

/// A fault that ThingSpace reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingSpaceFault {
    /// The code, such as `UnifiedWebService.REQUEST_FAILED.DeviceNotFound`.
    pub code: String,
    /// The text for people.
    pub text: String,
}

/// The state of an eSIM profile, unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EsimProfile {
    /// The state, such as `ACTIVE`.
    pub state: String,
    /// The profile status, such as `ENABLE`.
    pub profile_status: String,
    /// The profile role, such as `LOCAL`.
    pub profile_role: String,
}

/// Details of a plan change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanChangeDetails {
    /// The effective date, unchanged: US format without a time zone.
    pub effective_date_text: String,
    /// The effective date as `2018-05-31`; empty if the text cannot be parsed.
    pub effective_date: String,
}

impl DeviceResult {
    /// Returns the precedence of a final result.
    pub fn precedence(&self) -> Option<ResultPrecedence> {
        (self.outcome != Outcome::Interim)
            .then_some(ResultPrecedence { source: self.source, outcome: self.outcome })
    }
}

impl PlanChangeDetails {
    /// Parses an effective date that begins with `M/D/YYYY` or `YYYY-MM-DD`. Keeps the text in any case.
    pub fn parse(text: &str) -> Self {
        Self {
            effective_date_text: text.to_owned(),
            effective_date: parse_date(text).unwrap_or_default(),
        }
    }
}

fn parse_date(text: &str) -> Option<String> {
    let date = text.trim().split([' ', 'T']).next()?;
    let parts = |separator| -> Option<[u16; 3]> {
        let numbers = date.split(separator).map(|part| part.parse().ok());
        numbers.collect::<Option<Vec<_>>>()?.try_into().ok()
    };
    let (year, month, day) = match (parts('/'), parts('-')) {
        (Some([month, day, year]), _) => (year, month, day),
        (None, Some([year, month, day])) => (year, month, day),
        (None, None) => return None,
    };
    let (month, day) = (month.try_into().ok()?, day.try_into().ok()?);
    let is_valid =
        (1900..=9999).contains(&year) && Timestamp::date(year.into(), month, day).is_ok();
    is_valid.then(|| format!("{year:04}-{month:02}-{day:02}"))
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// A callback, or the finding of a lookup in the same form.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The result of one device.
    pub result: DeviceResult,
    /// The user name in the body; `None` if it is absent or empty.
    pub username: Option<SecretString>,
    /// The password in the body; `None` if it is absent or empty.
    pub password: Option<SecretString>,
    /// SHA-256 of the content. Repeated deliveries of a callback have the same digest.
    pub digest: [u8; 32],
    /// The body without user name and password; empty for a lookup.
    pub raw_json: String,
}

impl Callback {
    /// Wraps the finding of a lookup. The same finding always has the same digest.
    pub fn from_lookup(result: DeviceResult) -> Self {
        let mut ids = result.device_ids.clone();
        ids.sort_unstable();
        let content = format!("{:?} {:?} {:?}", result.source, result.outcome, ids);
        Self {
            digest: sha256(content.as_bytes()),
            result,
            username: None,
            password: None,
            raw_json: String::new(),
        }
    }
}

/// Returns the SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests;
