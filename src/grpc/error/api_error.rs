//! An error with everything that its status contains.

use std::{collections::HashMap, time::Duration};

use axum::response::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{
    BadRequest, ErrorDetail, ErrorInfo, FieldViolation, PreconditionFailure, QuotaFailure,
    QuotaViolation, RetryInfo, StatusExt,
};

use crate::{
    domain::{
        caller_name::CallerName,
        violation::{FieldReason, Violation},
    },
    grpc::error::reason::{ErrorReason, RetryAdvice},
    proto,
};

/// `executed`: whether ThingSpace can have executed a failed change call.
pub(in crate::grpc) type Executed = proto::Executed;

/// `ErrorInfo.domain` of every error.
pub(super) const DOMAIN: &str = "thingspace.gateway";
/// Trailer with the delay before a retry in milliseconds, for the retry policies of gRPC libraries (gRFC A6,
/// "Pushback").
pub(super) const RETRY_PUSHBACK_HEADER: &str = "grpc-retry-pushback-ms";
/// Maximum size of the message in bytes, before non-ASCII characters are escaped.
const MAX_MESSAGE_BYTES: usize = 400;
/// Maximum size of the listed violations in bytes. With everything else, base64 and the message, the trailers
/// stay below 8,000 bytes.
const MAX_VIOLATIONS_BYTES: usize = 3_600;
/// Size of the tags and lengths of one encoded violation in bytes.
const VIOLATION_OVERHEAD: usize = 14;
/// Subject of a QuotaFailure about a limit of the caller.
const CALLER_SUBJECT: &str = "caller";
/// Delay before a retry after the gateway rejected a call for lack of capacity.
const OVERLOAD_RETRY_DELAY: Duration = Duration::from_secs(1);

/// An error of a call.
#[derive(Debug)]
pub(in crate::grpc) struct ApiError {
    pub(in crate::grpc) reason: ErrorReason,
    /// The code of the reason, unless ThingSpace's refusal has another one.
    pub(super) code: Code,
    message: String,
    executed: Option<Executed>,
    metadata: Vec<(String, String)>,
    /// All details except ErrorInfo and RetryInfo.
    details: Vec<ErrorDetail>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(in crate::grpc) fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: reason.code_and_advice().0,
            message: message.into(),
            executed: None,
            metadata: Vec::new(),
            details: Vec::new(),
            retry_after: None,
        }
    }

    /// The deadline of the call has passed.
    pub(in crate::grpc) fn deadline_exceeded() -> Self {
        let message = "deadline exceeded; the change may still be in progress";
        Self::new(ErrorReason::Deadline, message)
    }

    /// The gateway has no capacity for the call. `executed` is UNKNOWN: the call may be a retry.
    pub(in crate::grpc) fn overloaded(message: impl Into<String>) -> Self {
        let quota = QuotaFailure::with_violation("gateway", "the gateway limits concurrent work");
        Self::new(ErrorReason::Throttled, message)
            .with_detail(quota)
            .with_retry_after(OVERLOAD_RETRY_DELAY)
            .with_executed(Executed::Unknown)
    }

    /// The caller has reached a limit that the policy file sets. `executed` is UNKNOWN: the call may be a retry.
    pub(in crate::grpc) fn caller_limit(caller: &CallerName, limit: &str, delay: Duration) -> Self {
        let message = format!("caller {caller} has reached its limit {limit}; retry later");
        let violation = QuotaViolation {
            quota_metric: limit.to_owned(),
            ..QuotaViolation::new(CALLER_SUBJECT, format!("{limit} of the caller is reached"))
        };
        Self::new(ErrorReason::Throttled, message)
            .with_detail(QuotaFailure::new([violation]))
            .with_retry_after(delay)
            .with_executed(Executed::Unknown)
    }

    /// Returns the delay of a call that has reached a limit of its caller. `None` for other errors.
    pub(in crate::grpc) fn caller_limit_delay(&self) -> Option<Duration> {
        let is_caller_limit = self.details.iter().any(|detail| match detail {
            ErrorDetail::QuotaFailure(failure) => {
                failure.violations.iter().any(|violation| violation.subject == CALLER_SUBJECT)
            }
            _ => false,
        });
        self.retry_after.filter(|_| is_caller_limit)
    }

    /// Lists the first violations, as many as fit into a status.
    pub(in crate::grpc) fn invalid_fields(violations: Vec<Violation>) -> Self {
        let total = violations.len();
        let mut message = violations
            .first()
            .map_or_else(String::new, |first| format!("{} {}", first.field, first.description));
        if total > 1 {
            message = format!("{message} (and {} more)", total - 1);
        }
        let mut remaining = MAX_VIOLATIONS_BYTES;
        let listed = violations.into_iter().map_while(|violation| {
            let Violation { field, description, reason } = violation;
            let reason = reason.as_str().to_owned();
            let size = field.len() + description.len() + reason.len() + VIOLATION_OVERHEAD;
            remaining = remaining.checked_sub(size)?;
            Some(FieldViolation { field, description, reason, localized_message: None })
        });
        let listed: Vec<FieldViolation> = listed.collect();
        Self::new(ErrorReason::FieldInvalid, message)
            .with_metadata("violations_total", total.to_string())
            .with_metadata("violations_listed", listed.len().to_string())
            .with_detail(BadRequest::new(listed))
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

    /// The gateway does not serve the method.
    pub(in crate::grpc) fn no_such_method() -> Self {
        Self::new(ErrorReason::Unimplemented, "no such method")
    }

    pub(in crate::grpc) fn change_not_found() -> Self {
        Self::new(ErrorReason::ChangeNotFound, "no such change")
    }

    pub(super) fn device_busy(index: u32) -> Self {
        let subject = format!("devices[{index}]");
        let message =
            format!("{subject} is in another change that is in flight or has an unknown outcome");
        let description = "is in the change named by change_id";
        Self::new(ErrorReason::DeviceBusy, message)
            .with_detail(PreconditionFailure::with_violation("DEVICE_BUSY", subject, description))
    }

    pub(super) fn throttled_by_thingspace(self) -> Self {
        let description = "ThingSpace limits the rate of requests";
        self.with_detail(QuotaFailure::with_violation("thingspace", description))
    }

    /// Returns `executed`.
    pub(in crate::grpc) fn executed(&self) -> Option<Executed> {
        self.executed
    }

    /// Returns the code.
    pub(in crate::grpc) fn code(&self) -> Code {
        self.code
    }

    /// Sets `executed`. `None` for calls that change nothing.
    pub(in crate::grpc) fn with_executed(mut self, executed: impl Into<Option<Executed>>) -> Self {
        self.executed = executed.into();
        self
    }

    pub(super) fn with_metadata(mut self, name: &str, value: impl Into<String>) -> Self {
        self.metadata.push((name.to_owned(), value.into()));
        self
    }

    pub(in crate::grpc) fn without_metadata(mut self, name: &str) -> Self {
        self.metadata.retain(|(present, _)| present != name);
        self
    }

    pub(super) fn with_retry_after(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.retry_after = delay.into();
        self
    }

    fn with_detail(mut self, detail: impl Into<ErrorDetail>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// Converts the error into a status of bounded size.
    pub(in crate::grpc) fn into_status(self) -> Status {
        let (_code, advice) = self.reason.code_and_advice();
        let Self { mut metadata, mut details, .. } = self;
        metadata.push(("retry".into(), advice.as_str().into()));
        if let Some(executed) = self.executed {
            let executed = executed.as_str_name().trim_start_matches("EXECUTED_");
            metadata.push(("executed".into(), executed.into()));
        }
        let metadata: HashMap<String, String> = metadata.into_iter().collect();
        details.push(ErrorInfo::new(self.reason.name(), DOMAIN, metadata).into());
        let retry_after = match advice {
            RetryAdvice::Later(default) => Some(self.retry_after.unwrap_or(default)),
            RetryAdvice::Now => self.retry_after,
            RetryAdvice::Never => None,
        };
        details.extend(retry_after.map(|delay| RetryInfo::new(Some(delay)).into()));
        let message = truncate(&self.message, MAX_MESSAGE_BYTES);
        let mut status = Status::with_error_details_vec(self.code, message, details);
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

/// Truncates a text to at most `bytes`, between two characters.
pub(super) fn truncate(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}
