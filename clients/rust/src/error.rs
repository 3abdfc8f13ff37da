//! Errors of calls.

use std::{collections::HashMap, error::Error, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    connect::NOT_SENT,
    v1::{Executed, Reason, Retry},
};

const DOMAIN: &str = "thingspace.gateway";

/// A call failed, and the library does not repeat it.
///
/// Branch on [`reason`](Self::reason), or on [`retry`](Self::retry) and [`executed`](Self::executed).
/// [`Error::source`] is the [`Status`] of tonic.
///
/// The library creates this error itself, with the code `InvalidArgument` and without a reason, if
/// arguments cannot be used: a change without an idempotency key, or a token over plaintext.
#[derive(Clone)]
pub struct GatewayError(Box<Parts>);

#[derive(Clone)]
struct Parts {
    status: Status,
    message: String,
    reason_text: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
    field_violations: Vec<FieldViolation>,
    outcome_unknown: bool,
}

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The path of the field, such as `devices[17].iccid`.
    pub field: String,
    /// The name of a value of [`FieldReason`](crate::v1::FieldReason) without its prefix, such as
    /// `FORMAT`.
    pub reason: String,
    /// A text for people.
    pub description: String,
}

impl GatewayError {
    /// The status code.
    pub fn code(&self) -> Code {
        self.0.status.code()
    }

    /// A text for people. Do not parse it.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The reason. `Unspecified` for a reason that this version does not know, and for errors that
    /// the gateway did not send.
    pub fn reason(&self) -> Reason {
        Reason::from_str_name(&format!("REASON_{}", self.0.reason_text)).unwrap_or_default()
    }

    /// `ErrorInfo.reason`, such as `DEVICE_BUSY`. Empty if the gateway did not send the error.
    pub fn reason_text(&self) -> &str {
        &self.0.reason_text
    }

    /// Whether the same call can succeed later. `Unspecified` if the gateway did not send the error.
    pub fn retry(&self) -> Retry {
        Retry::from_str_name(&format!("RETRY_{}", self.metadata_text("retry"))).unwrap_or_default()
    }

    /// `executed` of this error alone. After a change, read
    /// [`outcome_unknown`](Self::outcome_unknown), which also covers earlier attempts.
    pub fn executed(&self) -> Executed {
        let name = format!("EXECUTED_{}", self.metadata_text("executed"));
        Executed::from_str_name(&name).unwrap_or_default()
    }

    /// True if ThingSpace may have executed the change, or may still execute it. To find out, repeat
    /// the change with the same key, or call `get_change` with the key.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// The delay before the next attempt, if the error contains one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The invalid fields, if the reason is `FieldInvalid`.
    pub fn field_violations(&self) -> &[FieldViolation] {
        &self.0.field_violations
    }

    /// `ErrorInfo.metadata`, such as `change_id`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// The error of tonic.
    pub fn status(&self) -> &Status {
        &self.0.status
    }

    fn metadata_text(&self, key: &str) -> &str {
        self.0.metadata.get(key).map_or("", String::as_str)
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Status::invalid_argument(message).into()
    }

    /// True if the attempt was not sent.
    pub(crate) fn is_not_sent(&self) -> bool {
        self.0.status.metadata().contains_key(NOT_SENT)
    }

    pub(crate) fn with_outcome_unknown(mut self, outcome_unknown: bool) -> Self {
        self.0.outcome_unknown = outcome_unknown;
        self
    }

    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.0.message = message;
        self
    }
}

/// Reads the details of an error, such as one that a raw stub returns.
impl From<Status> for GatewayError {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let (reason_text, metadata) =
            info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        let request = status.get_details_bad_request();
        let field_violations = request.map_or_else(Vec::new, |request| {
            let violations = request.field_violations.into_iter();
            violations
                .map(|v| FieldViolation {
                    field: v.field,
                    reason: v.reason,
                    description: v.description,
                })
                .collect()
        });
        Self(Box::new(Parts {
            message: status.message().into(),
            reason_text,
            metadata,
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            field_violations,
            outcome_unknown: false,
            status,
        }))
    }
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.code())?;
        if !self.reason_text().is_empty() {
            write!(f, " {}", self.reason_text())?;
        }
        write!(f, ": {}", self.message())?;
        for FieldViolation { field, reason, description } in self.field_violations() {
            write!(f, "\n  {field}: {description} ({reason})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayError")
            .field("code", &self.code())
            .field("message", &self.message())
            .field("reason", &self.reason_text())
            .field("metadata", self.metadata())
            .field("retry_after", &self.retry_after())
            .field("field_violations", &self.field_violations())
            .field("outcome_unknown", &self.outcome_unknown())
            .finish()
    }
}

impl Error for GatewayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0.status)
    }
}
