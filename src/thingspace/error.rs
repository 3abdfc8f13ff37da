//! The errors of the client.

use std::time::Duration;

use crate::{
    domain::refusal::{Refusal, RefusalKind},
    thingspace::error_codes,
};

/// The client cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientBuildError {
    /// The base URL is invalid.
    #[error(
        "thingspace.base_url must be an http or https URL without user name, query and fragment"
    )]
    BaseUrl,
    /// The TLS set-up failed, usually because of the system's certificates.
    #[error("cannot set up the HTTP client: {0}")]
    HttpClient(String),
}

/// No change can be sent now: there is no token or session, or the rate limit is reached. Nothing was
/// sent.
///
/// The kind of the refusal is `NotSent` if the log-in failed or got no usable response, `Throttled` if
/// ThingSpace or the rate limit throttled it, and `Credentials` if ThingSpace refused the credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.detail)]
pub struct PrepareError(pub(super) Refusal);

impl PrepareError {
    pub(super) fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self(Refusal::new(kind, detail))
    }
}

impl From<PrepareError> for Refusal {
    fn from(error: PrepareError) -> Self {
        error.0
    }
}

/// A lookup failed. The message is one line without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The rate limit is reached, or ThingSpace throttled the lookup. Holds the delay before a retry.
    #[error(
        "lookup rate limit reached (thingspace.lookups_per_minute, or ThingSpace's Retry-After): \
         retry in {0:?}"
    )]
    Throttled(Duration),
    /// ThingSpace does not know the request or the device, or does not support the lookup.
    #[error("ThingSpace refused the lookup: {status} {}", code.as_deref().unwrap_or("without an error code"))]
    Refused {
        /// The status of the response.
        status: u16,
        /// ThingSpace's error code, if the response had one.
        code: Option<String>,
    },
    /// There is no token or session.
    #[error("lookup failed: {}", .0.detail)]
    LoginFailed(Refusal),
    /// There is no usable response.
    #[error("lookup failed: {0}")]
    NoResponse(String),
}

impl LookupError {
    /// Returns the kind of refusal that ThingSpace's error code means.
    pub fn refusal_kind(&self) -> RefusalKind {
        match self {
            Self::Refused { code, .. } => {
                code.as_deref().map_or(RefusalKind::FailedPrecondition, error_codes::refusal_kind)
            }
            _ => RefusalKind::NotSent,
        }
    }
}
