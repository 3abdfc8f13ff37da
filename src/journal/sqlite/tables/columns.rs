//! Domain values as SQL columns. The number of an enum value is never reused.

use rusqlite::{
    Result, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    domain::{
        clock::Timestamp,
        device_states::DeviceRef,
        newtypes::{AccountName, CallbackService, ChangeId, IdempotencyKey, RequestId},
        result::{Match, Outcome, ResultPrecedence, ResultSource},
        state::ChangeState,
    },
    journal::{
        apply::Row,
        record::{DEVICES_PER_BLOCK, InvalidRecord},
    },
};

/// A value that is stored as JSON.
pub(super) struct Json<T>(pub(super) T);

/// Encodes a position or a limit. SQLite has no unsigned integers.
pub(super) fn int(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub(super) fn uint(value: i64) -> u64 {
    value.try_into().unwrap_or_default()
}

/// Bits of the number of a block, a part, or a device in an id.
const PART_BITS: u32 = 20;

/// Returns the id of a part of a change: of a device, a block of devices, or a part of their index.
pub(super) fn part_id(change: Row, part: impl TryInto<i64>) -> i64 {
    int(change) << PART_BITS | int(part)
}

/// Returns the range of the ids of all parts of a change.
pub(super) fn part_ids(change: Row) -> [i64; 2] {
    [part_id(change, 0), part_id(change, (1 << PART_BITS) - 1)]
}

/// Returns the part of an id.
pub(super) fn part_number(id: i64) -> u32 {
    u32::try_from(id & ((1 << PART_BITS) - 1)).unwrap_or_default()
}

/// Reports a stored value that cannot be decoded.
pub(super) fn invalid(error: InvalidRecord) -> rusqlite::Error {
    FromSqlError::other(error).into()
}

/// The conditions of the partial indexes over changes. SQLite uses such an index only for a query that
/// repeats its condition.
pub(super) const IS_OPEN: &str = "state IN (1, 2, 3, 5, 9)";
pub(super) const IS_FINAL: &str = "state IN (4, 6, 7, 8) AND trimmed = 0";

pub(super) const HAS_SEVERAL_BLOCKS: &str = "device_count > 16";
const _: () = assert!(DEVICES_PER_BLOCK == 16, "see HAS_SEVERAL_BLOCKS and the schema");

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

/// The kind of an event: a state, or a result with its kind of match.
pub(super) const STATE_EVENT: i64 = 0;

pub(super) fn result_kind(matched: Option<Match>) -> i64 {
    match matched {
        Some(Match::Exact) => 1,
        Some(Match::Assumed) => 2,
        Some(Match::None) => 3,
        Some(Match::Ambiguous) => 4,
        None => 5,
    }
}

pub(super) fn match_from_kind(kind: i64) -> Option<Match> {
    match kind {
        1 => Some(Match::Exact),
        2 => Some(Match::Assumed),
        3 => Some(Match::None),
        4 => Some(Match::Ambiguous),
        _ => None,
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
