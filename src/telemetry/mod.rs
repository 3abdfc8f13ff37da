//! Logs, traces and metrics.
//!
//! One meter provider has two readers, OTLP and `/metrics`, so both export the same values. The only
//! exported spans are those of [`RpcCall`], [`UpstreamCall`] and [`CallbackCall`].

mod call;
mod error;
mod export;
mod instruments;
mod labels;
mod log_filter;
mod log_throttle;
mod logging;
pub mod names;
mod otlp;
mod pipeline;
mod process;
mod status;
#[cfg(test)]
mod tests;

pub use call::{CallbackCall, RpcCall, RpcSpan, TRACEPARENT, UpstreamCall, status_name};
pub use error::TelemetryError;
pub use instruments::{Instruments, OpenWatch};
pub use labels::{
    AuditOutcome, AuthFailureReason, AuthMethod, CallError, CallbackOutcome, CertificateKind,
    CloseReason, DeliveryOutcome, DropReason, HandshakeFailure, JournalOperation,
    PolicyReloadOutcome, Port, QuarantineState, RegistrationOutcome, RegistrationState,
    RejectionReason, ReplicaState,
};
pub use log_filter::LogFilter;
pub use log_throttle::LogThrottle;
pub use logging::log_warnings;
pub use pipeline::{AuditGauges, CallerGauges, EXPOSITION_TYPE, SpoolGauges, Telemetry};
pub use status::{LoginGauges, StatusGauges};
