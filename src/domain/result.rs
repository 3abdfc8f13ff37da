//! What is known about one device of a request.

use serde::{Deserialize, Serialize};

use super::{identifier::ReportedId, newtypes::RequestId};

/// What a result says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not final: a warning, pending, on hold, or a status that is not known
    /// to be final. Never counts.
    Interim,
    /// ThingSpace reported failure of the operation.
    Failed,
    /// ThingSpace reported success of the operation.
    Succeeded,
}

/// Where a result comes from. Later ones win over earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultSource {
    /// A look-up at ThingSpace.
    Reconciled,
    /// An operator's decision.
    Operator,
    /// ThingSpace's callback.
    Callback,
}

/// How a result was found to belong to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// It names an identifier that was sent.
    Exact,
    /// It names none that was sent, but only one device was.
    Assumed,
    /// It names none that was sent.
    None,
    /// It names two or more that were sent, so that it proves nothing of any of them.
    Ambiguous,
}

/// A final result's weight: of several for one device, the greatest holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResultPrecedence {
    /// CALLBACK over OPERATOR over RECONCILED.
    pub source: ResultSource,
    /// Then SUCCEEDED over FAILED. Never INTERIM.
    pub outcome: Outcome,
}

/// One result about one device, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceResult {
    /// ThingSpace's request.
    pub request_id: RequestId,
    /// All identifiers that it named.
    pub device_ids: Vec<ReportedId>,
    /// What it says.
    pub outcome: Outcome,
    /// ThingSpace's status, as sent; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status_text: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ThingSpaceFault>,
    /// What it tells of an eSIM profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esim_profile: Option<EsimProfile>,
    /// What it tells of a plan change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_plan_change: Option<PlanChangeDetails>,
    /// The member of `deviceResponse` that it has, such as
    /// `changeServicePlanResponse`; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation_text: String,
    /// Where it comes from.
    pub source: ResultSource,
    /// What a look-up proves; empty for a callback.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// ThingSpace's number of this send; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub callback_count: i32,
    /// How often ThingSpace would send it; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_callback_threshold: i32,
}

/// ThingSpace's reason for a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingSpaceFault {
    /// Such as `UnifiedWebService.REQUEST_FAILED.DeviceNotFound`.
    pub code: String,
    /// For people.
    pub text: String,
}

/// An eSIM profile's state, as text as sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EsimProfile {
    /// Such as `ACTIVE`.
    pub state: String,
    /// Such as `ENABLE`.
    pub profile_status: String,
    /// Such as `LOCAL`.
    pub profile_role: String,
}

/// A plan change's date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanChangeDetails {
    /// As sent: US style, without a zone.
    pub effective_date_text: String,
    /// As `2018-05-31`; empty where the text could not be read.
    pub effective_date: String,
}

// === impl DeviceReport ===

impl DeviceResult {
    /// Its weight, when it is final.
    pub fn precedence(&self) -> Option<ResultPrecedence> {
        (self.outcome != Outcome::Interim).then_some(ResultPrecedence {
            source: self.source,
            outcome: self.outcome,
        })
    }
}

// === impl PlanChangeDetails ===

impl PlanChangeDetails {
    /// Keeps the text, and the date in it where one can be read: `M/D/YYYY` or
    /// `YYYY-MM-DD`, with anything or nothing after it.
    pub fn parse(text: &str) -> Self {
        Self {
            effective_date_text: text.to_owned(),
            effective_date: parse_date(text).unwrap_or_default(),
        }
    }
}

fn parse_date(text: &str) -> Option<String> {
    let date = text.trim().split([' ', 'T']).next()?;
    let parts = |separator| -> Option<[u32; 3]> {
        let numbers: Vec<u32> = date
            .split(separator)
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        numbers.try_into().ok()
    };
    let (year, month, day) = match (parts('/'), parts('-')) {
        (Some([month, day, year]), _) => (year, month, day),
        (None, Some([year, month, day])) => (year, month, day),
        (None, None) => return None,
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1900..=9999).contains(&year) && (1..=days).contains(&day))
        .then(|| format!("{year:04}-{month:02}-{day:02}"))
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effective_date_is_read_where_it_can_be_and_always_kept_as_text() {
        for (text, date) in [
            ("5/31/2018 12:00:00 AM", "2018-05-31"),
            ("12/01/2026", "2026-12-01"),
            ("2026-02-28T00:00:00Z", "2026-02-28"),
            ("2/29/2024 1:00:00 PM", "2024-02-29"),
            ("2/29/2023 1:00:00 PM", ""),
            ("31/5/2018", ""),
            ("soon", ""),
            ("", ""),
            ("1/1/1/1", ""),
        ] {
            let change = PlanChangeDetails::parse(text);
            assert_eq!(
                (
                    change.effective_date.as_str(),
                    change.effective_date_text.as_str()
                ),
                (date, text)
            );
        }
    }

    #[test]
    fn a_callback_outweighs_a_look_up_and_a_success_outweighs_a_failure() {
        let verdict = |source, outcome| ResultPrecedence { source, outcome };
        assert!(
            verdict(ResultSource::Callback, Outcome::Failed)
                > verdict(ResultSource::Operator, Outcome::Succeeded)
        );
        assert!(
            verdict(ResultSource::Operator, Outcome::Failed)
                > verdict(ResultSource::Reconciled, Outcome::Succeeded)
        );
        assert!(
            verdict(ResultSource::Callback, Outcome::Succeeded)
                > verdict(ResultSource::Callback, Outcome::Failed)
        );
    }
}
