//! The operations: the kinds of change that the gateway can send to ThingSpace.
//!
//! Each operation is one folder:
//!
//! - `request.rs` validates the gRPC message;
//! - `wire.rs` writes the HTTP request for ThingSpace;
//! - `mod.rs` has the [`OperationInfo`]: the RPC, and the rules by which results are recognised.
//!
//! The rest of the gateway handles every operation alike. It finds what differs through [`info`] and
//! the [`Operation`] in a [`ChangeRequest`]. `ARCHITECTURE.md` describes how to add an operation.

pub mod esim_plan;
pub mod five_g_bi_plan;
pub mod service_plan;

mod change_request;
mod device_ids;
mod fingerprint;
mod operation;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod validator;
mod wire;

pub use change_request::ChangeRequest;
pub use fingerprint::FingerprintInput;
pub use operation::{Operation, OperationInfo, RpcOperation};
pub use validator::ValidationRules;
pub use wire::OutboundRequest;

use crate::domain::{change_type::ChangeType, evidence::EvidenceRules, newtypes::CallbackService};

/// Returns the description of an operation.
pub fn info(change_type: ChangeType) -> &'static OperationInfo {
    match change_type {
        ChangeType::EsimPlan => &esim_plan::INFO,
        ChangeType::FiveGBiPlan => &five_g_bi_plan::INFO,
        ChangeType::ServicePlan => &service_plan::INFO,
    }
}

/// Returns the rules by which the results of an operation are recognised.
pub fn evidence(change_type: ChangeType) -> &'static EvidenceRules {
    &info(change_type).evidence
}

/// True if a callback service carries the results of an operation.
pub fn carries_results(service: &CallbackService) -> bool {
    all().any(|info| service.eq_ignore_case(info.evidence.callback_service))
}

/// Iterates over the descriptions of all operations.
pub fn all() -> impl Iterator<Item = &'static OperationInfo> {
    ChangeType::ALL.into_iter().map(info)
}
