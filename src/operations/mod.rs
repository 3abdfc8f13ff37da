//! The operations: the kinds of change that the gateway can send to ThingSpace.
//!
//! Each operation is one folder:
//!
//! - its [`OperationInfo`] names the RPC, and the rules by which results are recognised;
//! - [`RpcOperation`] validates the gRPC message;
//! - [`Operation`] writes the HTTP request for ThingSpace.
//!
//! The rest of the gateway handles every operation alike. It finds what differs through [`info`] and
//! the [`Operation`] in a [`ChangeRequest`]. `ARCHITECTURE.md` describes how to add an operation.

pub mod esim_plan;
pub mod five_g_bi_plan;
pub mod service_plan;

mod fingerprint;
mod operation;
#[cfg(test)]
mod tests;
mod validator;
mod wire;

pub use fingerprint::FingerprintWriter;
pub use operation::{ChangeRequest, Operation, OperationInfo, RpcOperation, ValidationRules};
#[cfg(test)]
pub(crate) use tests::testing;
pub use wire::OutboundRequest;

use crate::{
    domain::{change_type::ChangeType, evidence::EvidenceRules},
    proto,
};

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

/// Returns the operation with this type in the API; `None` for the unspecified one.
pub fn from_proto(proto_type: proto::ChangeType) -> Option<ChangeType> {
    all().find(|info| info.proto_type == proto_type).map(|info| info.change_type)
}

/// Iterates over the descriptions of all operations.
pub fn all() -> impl Iterator<Item = &'static OperationInfo> {
    ChangeType::ALL.into_iter().map(info)
}
