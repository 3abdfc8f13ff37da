//! An error with everything that its status contains.

use std::{collections::HashMap, time::Duration};

use axum::response::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    domain::violation::{FieldReason, Violation},
    grpc::error::{
        details::{truncate, truncate_violations},
        reason::{ErrorReason, RetryAdvice},
    },
};

/// `ErrorInfo.domain` of every error.
pub(super) const DOMAIN: &str = "thingspace.gateway";
/// Trailer with the delay before a retry in milliseconds, for the retry policies of gRPC libraries (gRFC A6,
/// "Pushback").
pub(super) const RETRY_PUSHBACK_HEADER: &str = "grpc-retry-pushback-ms";
/// Maximum size of the message in bytes, before non-ASCII characters are escaped.
const MAX_MESSAGE_BYTES: usize = 400;
/// Delay before a retry after the gateway rejected a call for lack of capacity.
const OVERLOAD_RETRY_DELAY: Duration = Duration::from_secs(1);

/// `executed`: whether ThingSpace can have executed a failed change call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) enum Executed {
    /// It has not executed the call.
    No,
    /// It may have executed this call, or an earlier one with the same key.
    Unknown,
}

/// An error of a call.
#[derive(Debug)]
pub(in crate::grpc) struct ApiError {
    reason: ErrorReason,
    code: Code,
    message: String,
    executed: Option<Executed>,
    metadata: Vec<(&'static str, String)>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    quota: Option<QuotaViolation>,
    busy_device_index: Option<u32>,
}

/// The limit that an error of reason THROTTLED exceeds.
#[derive(Debug, Clone, Copy)]
pub(super) enum QuotaViolation {
    /// A limit of the gateway.
    Gateway,
    /// A rate limit of ThingSpace.
    Thingspace,
}

impl ApiError {
    pub(in crate::grpc) fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: reason.code(),
            message: message.into(),
            executed: None,
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
            quota: None,
            busy_device_index: None,
        }
    }

    /// The gateway has no capacity for the call. `executed` is UNKNOWN: the call may be a retry.
    pub(in crate::grpc) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(ErrorReason::Throttled, message)
            .with_quota(QuotaViolation::Gateway)
            .with_retry_after(OVERLOAD_RETRY_DELAY)
            .with_executed(Executed::Unknown)
    }

    pub(in crate::grpc) fn invalid_fields(violations: Vec<Violation>) -> Self {
        let first = violations
            .first()
            .map_or_else(String::new, |first| format!("{} {}", first.field, first.description));
        let message = match violations.len() {
            0 | 1 => first,
            count => format!("{first} (and {} more)", count - 1),
        };
        Self { violations, ..Self::new(ErrorReason::FieldInvalid, message) }
    }

    pub(in crate::grpc) fn invalid_field(
        field: &str,
        reason: FieldReason,
        description: impl Into<String>,
    ) -> Self {
        Self::invalid_fields(vec![Violation {
            field: field.to_owned(),
            description: description.into(),
            reason,
        }])
    }

    pub(in crate::grpc) fn change_not_found() -> Self {
        Self::new(ErrorReason::ChangeNotFound, "no such change")
    }

    pub(in crate::grpc) fn reason(&self) -> ErrorReason {
        self.reason
    }

    /// Sets `executed`. `None` for calls that change nothing.
    pub(in crate::grpc) fn with_executed(mut self, executed: impl Into<Option<Executed>>) -> Self {
        self.executed = executed.into();
        self
    }

    /// Replaces the code of the reason.
    pub(super) fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    pub(super) fn with_metadata(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((name, value.into()));
        self
    }

    pub(super) fn with_retry_after(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.retry_after = delay.into();
        self
    }

    pub(super) fn with_quota(mut self, quota: QuotaViolation) -> Self {
        self.quota = Some(quota);
        self
    }

    pub(super) fn with_busy_device(mut self, index: u32) -> Self {
        self.busy_device_index = Some(index);
        self
    }

    /// Converts the error into a status of bounded size.
    pub(in crate::grpc) fn into_status(self) -> Status {
        let advice = self.reason.retry_advice();
        let mut metadata: HashMap<String, String> =
            self.metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        metadata.insert("retry".into(), advice.as_str().into());
        match self.executed {
            Some(Executed::No) => metadata.insert("executed".into(), "NO".into()),
            Some(Executed::Unknown) => metadata.insert("executed".into(), "UNKNOWN".into()),
            None => None,
        };
        let mut details = ErrorDetails::new();
        if !self.violations.is_empty() {
            let total = self.violations.len();
            let listed = truncate_violations(self.violations);
            metadata.insert("violations_total".into(), total.to_string());
            metadata.insert("violations_listed".into(), listed.len().to_string());
            details.set_bad_request(listed);
        }
        let retry_after = match advice {
            RetryAdvice::Later(default) => Some(self.retry_after.unwrap_or(default)),
            RetryAdvice::Now => self.retry_after,
            RetryAdvice::Never => None,
        };
        if let Some(delay) = retry_after {
            details.set_retry_info(Some(delay));
        }
        if let Some(index) = self.busy_device_index {
            let subject = format!("devices[{index}]");
            let description = "is in the change named by change_id";
            details.add_precondition_failure_violation("DEVICE_BUSY", subject, description);
        }
        match self.quota {
            Some(QuotaViolation::Gateway) => {
                details.add_quota_failure_violation("gateway", "the gateway limits concurrent work")
            }
            Some(QuotaViolation::Thingspace) => details.add_quota_failure_violation(
                "thingspace",
                "ThingSpace limits the rate of requests",
            ),
            None => &mut details,
        };
        details.set_error_info(self.reason.name(), DOMAIN, metadata);
        let message = truncate(&self.message, MAX_MESSAGE_BYTES);
        let mut status = Status::with_error_details(self.code, message, details);
        if let Some(delay) = retry_after {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            status.metadata_mut().insert(RETRY_PUSHBACK_HEADER, millis.into());
        }
        status
    }

    /// Converts the error into a response without a body.
    pub(in crate::grpc) fn into_response(self) -> Response {
        self.into_status().into_http::<Body>().map(axum::body::Body::new)
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        error.into_status()
    }
}
