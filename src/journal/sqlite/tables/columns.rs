//! Domain values as SQL columns. The number of an enum value is never reused.

use rusqlite::{
    Result, Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        device_states::DeviceRef,
        newtypes::{AccountName, CallbackService, ChangeId, IdempotencyKey, RequestId},
        result::{DeviceResult, Match, Outcome, ResultPrecedence, ResultSource},
        state::ChangeState,
    },
    journal::ResultEvent,
};

/// A value that is stored as JSON.
pub(super) struct Json<T>(pub(super) T);

/// A result in the log.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredResult {
    pub(super) report: DeviceResult,
    /// The callback service that delivered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<CallbackService>,
}

/// Decodes a result from the columns result_json, evidence, match_kind and time, which begin at
/// `first`. Without evidence of its own, it has that of the attribution of its request.
pub(super) fn decode_result(
    row: &Row<'_>,
    first: usize,
    change_id: Option<ChangeId>,
    device: Option<(u32, SentDevice)>,
    raw_json: String,
) -> Result<ResultEvent> {
    let Json(StoredResult { mut report, service }) = row.get(first)?;
    if report.evidence.is_empty() {
        report.evidence = row.get::<_, Option<String>>(first + 1)?.unwrap_or_default();
    }
    Ok(ResultEvent {
        change_id,
        device,
        matched: row.get(first + 2)?,
        resolved_device: None,
        report,
        service,
        receive_time: row.get(first + 3)?,
        raw_json,
    })
}

/// Encodes a position or a limit. SQLite has no unsigned integers.
pub(super) fn int(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub(super) fn uint(value: i64) -> u64 {
    value.try_into().unwrap_or_default()
}

/// Returns the numbers of the matching states, for `state IN (…)`.
pub(super) fn state_codes(is_wanted: impl Fn(ChangeState) -> bool) -> String {
    let wanted = ChangeState::ALL.into_iter().filter(|state| is_wanted(*state));
    wanted.map(|state| state_code(state).to_string()).collect::<Vec<_>>().join(", ")
}

pub(super) fn state_code(state: ChangeState) -> i64 {
    match state {
        ChangeState::Queued => 1,
        ChangeState::Dispatched => 2,
        ChangeState::Accepted => 3,
        ChangeState::Finished => 4,
        ChangeState::Overdue => 5,
        ChangeState::Closed => 6,
        ChangeState::Rejected => 7,
        ChangeState::NotSent => 8,
        ChangeState::OutcomeUnknown => 9,
    }
}

fn match_code(matched: Match) -> i64 {
    match matched {
        Match::Exact => 1,
        Match::Assumed => 2,
        Match::None => 3,
        Match::Ambiguous => 4,
    }
}

fn match_from_code(code: i64) -> Match {
    match code {
        1 => Match::Exact,
        2 => Match::Assumed,
        4 => Match::Ambiguous,
        _ => Match::None,
    }
}

/// Higher numbers take precedence; successes are odd.
fn precedence_code(precedence: ResultPrecedence) -> i64 {
    let source = match precedence.source {
        ResultSource::Reconciled => 0,
        ResultSource::Operator => 2,
        ResultSource::Callback => 4,
    };
    source + i64::from(precedence.outcome == Outcome::Succeeded)
}

fn precedence_from_code(code: i64) -> ResultPrecedence {
    ResultPrecedence {
        source: match code / 2 {
            0 => ResultSource::Reconciled,
            1 => ResultSource::Operator,
            _ => ResultSource::Callback,
        },
        outcome: if code % 2 == 1 { Outcome::Succeeded } else { Outcome::Failed },
    }
}

/// Encodes a device as its index, and an unmatched result as a negative number.
fn device_ref_code(device: DeviceRef) -> i64 {
    match device {
        DeviceRef::Device(index) => index.into(),
        DeviceRef::UnmatchedResult(first_result) => -1 - first_result,
    }
}

fn device_ref_from_code(code: i64) -> DeviceRef {
    u32::try_from(code).map_or(DeviceRef::UnmatchedResult(-1 - code), DeviceRef::Device)
}

/// Stores a type as an integer.
macro_rules! integer_column {
    ($($name:ident: $encode:expr, $decode:expr;)+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok($encode(*self).into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_i64().map($decode)
            }
        }
    )+};
}

integer_column! {
    Timestamp: Timestamp::as_micros, Timestamp::from_micros;
    Match: match_code, match_from_code;
    ResultPrecedence: precedence_code, precedence_from_code;
    DeviceRef: device_ref_code, device_ref_from_code;
}

/// Stores a validated text value.
macro_rules! text_column {
    ($($name:ident)+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Self::parse(value.as_str()?).map_err(FromSqlError::other)
            }
        }
    )+};
}

text_column! { AccountName CallbackService IdempotencyKey RequestId }

impl ToSql for ChangeState {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(state_code(*self).into())
    }
}

impl ToSql for ChangeId {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.as_bytes().as_slice().into())
    }
}

impl FromSql for ChangeId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        FromSql::column_result(value).map(Self::from_bytes)
    }
}

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        serde_json::to_string(&self.0)
            .map(Into::into)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}
