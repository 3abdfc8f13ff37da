//! Values of parameters and columns, and the domain values that they store. The number of an enum value is never
//! reused.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    domain::{
        clock::Timestamp,
        device_states::DeviceRef,
        newtypes::{AccountName, CallbackService, ChangeId, IdempotencyKey, RequestId},
        result::{Outcome, ResultPrecedence, ResultSource},
        state::ChangeState,
    },
    journal::sql::{
        Type,
        error::{Result, SqlError},
    },
};

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::journal) enum Value<'a> {
    Null,
    Int(i64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

/// The value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::journal) enum Column<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Column<'_> {
    /// True if the value has this type, or is NULL.
    pub(in crate::journal) fn is(self, expected: Type) -> bool {
        match self {
            Self::Null => true,
            Self::Int(_) => expected == Type::Int,
            Self::Text(_) => expected == Type::Text,
            Self::Bytes(_) => expected == Type::Bytes,
        }
    }
}

/// A type that a column can be decoded to.
pub(in crate::journal) trait FromColumn<'a>: Sized {
    fn from_column(column: Column<'a>) -> Result<Self>;
}

/// Returns the array of the values of a statement's parameters.
macro_rules! values {
    ($($value:expr),* $(,)?) => {[$($crate::journal::sql::Value::from($value)),*]};
}
pub(in crate::journal) use values;

/// A value that is stored as JSON.
pub(in crate::journal) struct Json<T>(pub(in crate::journal) T);

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<'a, T: FromColumn<'a>> FromColumn<'a> for Option<T> {
    fn from_column(column: Column<'a>) -> Result<Self> {
        match column {
            Column::Null => Ok(None),
            column => T::from_column(column).map(Some),
        }
    }
}

impl<'a> FromColumn<'a> for i64 {
    fn from_column(column: Column<'a>) -> Result<Self> {
        match column {
            Column::Int(value) => Ok(value),
            _ => Err(SqlError::column()),
        }
    }
}

impl<'a> FromColumn<'a> for &'a str {
    fn from_column(column: Column<'a>) -> Result<Self> {
        match column {
            Column::Text(value) => Ok(value),
            _ => Err(SqlError::column()),
        }
    }
}

impl<'a> FromColumn<'a> for &'a [u8] {
    fn from_column(column: Column<'a>) -> Result<Self> {
        match column {
            Column::Bytes(value) => Ok(value),
            _ => Err(SqlError::column()),
        }
    }
}

/// Stores a number as a signed one: no database has unsigned integers.
macro_rules! number {
    ($($name:ident)+) => {$(
        impl From<$name> for Value<'_> {
            fn from(value: $name) -> Self {
                Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
            }
        }

        impl<'a> FromColumn<'a> for $name {
            fn from_column(column: Column<'a>) -> Result<Self> {
                i64::from_column(column).map(|value| value.try_into().unwrap_or_default())
            }
        }
    )+};
}

number! { u16 u32 u64 usize }

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl<'a> FromColumn<'a> for bool {
    fn from_column(column: Column<'a>) -> Result<Self> {
        i64::from_column(column).map(|value| value != 0)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

impl<'a> FromColumn<'a> for String {
    fn from_column(column: Column<'a>) -> Result<Self> {
        <&str>::from_column(column).map(Into::into)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value.into())
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value.into())
    }
}

impl<'a> FromColumn<'a> for Vec<u8> {
    fn from_column(column: Column<'a>) -> Result<Self> {
        <&[u8]>::from_column(column).map(Into::into)
    }
}

impl<'a, const N: usize> FromColumn<'a> for [u8; N] {
    fn from_column(column: Column<'a>) -> Result<Self> {
        <&[u8]>::from_column(column)?.try_into().map_err(|_| SqlError::column())
    }
}

/// Stores a type as an integer.
macro_rules! integer {
    ($($name:ident: $encode:expr, $decode:expr;)+) => {$(
        impl From<$name> for Value<'_> {
            fn from(value: $name) -> Self {
                Self::Int($encode(value))
            }
        }

        impl<'a> FromColumn<'a> for $name {
            fn from_column(column: Column<'a>) -> Result<Self> {
                i64::from_column(column).map($decode)
            }
        }
    )+};
}

integer! {
    Timestamp: Timestamp::as_micros, Timestamp::from_micros;
    ResultPrecedence: precedence_code, precedence_from_code;
    DeviceRef: device_ref_code, device_ref_from_code;
}

/// Stores a validated text value.
macro_rules! text {
    ($($name:ident)+) => {$(
        impl<'a> From<&'a $name> for Value<'a> {
            fn from(value: &'a $name) -> Self {
                value.as_str().into()
            }
        }

        impl<'a> FromColumn<'a> for $name {
            fn from_column(column: Column<'a>) -> Result<Self> {
                Self::parse(<&str>::from_column(column)?).map_err(|_| SqlError::column())
            }
        }
    )+};
}

text! { AccountName CallbackService IdempotencyKey RequestId }

impl<'a> From<&'a ChangeId> for Value<'a> {
    fn from(value: &'a ChangeId) -> Self {
        value.as_bytes().as_slice().into()
    }
}

impl<'a> FromColumn<'a> for ChangeId {
    fn from_column(column: Column<'a>) -> Result<Self> {
        FromColumn::from_column(column).map(Self::from_bytes)
    }
}

impl From<ChangeState> for Value<'_> {
    fn from(value: ChangeState) -> Self {
        Self::Int(state_code(value))
    }
}

impl<T: Serialize> Json<T> {
    pub(in crate::journal) fn to_value(&self) -> Result<Value<'static>> {
        let text = serde_json::to_string(&self.0);
        text.map(Into::into).map_err(|error| SqlError::Database(Box::new(error)))
    }
}

impl<'a, T: DeserializeOwned> FromColumn<'a> for Json<T> {
    fn from_column(column: Column<'a>) -> Result<Self> {
        let text = <&str>::from_column(column)?;
        serde_json::from_str(text).map(Self).map_err(|_| SqlError::column())
    }
}

pub(in crate::journal) fn state_code(state: ChangeState) -> i64 {
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
