//! The client of ThingSpace's REST API: log-in, changes, and lookups.
//!
//! ThingSpace has no idempotency key: a change that is sent twice is executed twice. [`ChangeResponse`]
//! therefore says whether a change was certainly not executed, and only `classify` decides that. A change is
//! sent again only if ThingSpace refused its token or session.

mod classify;
mod client;
mod credentials;
mod error_body;
mod http;
mod json;
mod login;
mod lookup_limits;
mod lookups;
mod rate_limit;
mod redactor;
mod session;
mod shared;
#[cfg(test)]
mod tests;

pub use self::{
    classify::{ChangeResponse, classify_response},
    client::ThingSpace,
    credentials::{CredentialSource, FailedLoginStore, FailedLogins, ThingSpaceCredentials},
    http::{ClientBuildError, no_retry_client},
    lookups::{DeviceStatus, ListedDevice, ListenerRegistration, LookupError, ServicePlanInfo},
    session::LoginStatus,
    shared::{SharedRateLimits, SharedSessionStore, SharedState, StoredSession},
};
