//! JSON and integers as they are stored.

use rusqlite::{Row, types::Type};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::domain::{
    newtypes::{AccountName, CallbackService},
    result::DeviceResult,
};

/// A result in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredResult {
    pub(super) report: DeviceResult,
    /// The callback service that delivered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<CallbackService>,
}

pub(super) fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

/// Decodes an account; `None` if the column is NULL.
pub(super) fn account(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<AccountName>> {
    let name: Option<String> = row.get(column)?;
    Ok(name.and_then(|name| AccountName::parse(name).ok()))
}

/// Decodes a callback service; `None` if the column is NULL.
pub(super) fn service(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<CallbackService>> {
    let name: Option<String> = row.get(column)?;
    Ok(name.and_then(|name| CallbackService::parse(name).ok()))
}

pub(super) fn int(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

pub(super) fn uint<T: TryFrom<i64> + Default>(value: i64) -> T {
    T::try_from(value).unwrap_or_default()
}

impl StoredResult {
    /// Decodes a result. Without evidence of its own, it has that of the attribution of its request.
    pub(super) fn decode(json: &str, evidence: Option<String>) -> rusqlite::Result<Self> {
        let mut result: Self = from_json(json)?;
        if result.report.evidence.is_empty() {
            result.report.evidence = evidence.unwrap_or_default();
        }
        Ok(result)
    }
}
