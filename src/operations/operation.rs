//! The traits that each operation implements.

use std::fmt;

use crate::{
    config::ThingSpaceConfig,
    domain::{change_type::ChangeType, evidence::EvidenceRules, violation::Violation},
    operations::{
        change_request::ChangeRequest, fingerprint::FingerprintInput, validator::ValidationRules,
        wire::OutboundRequest,
    },
    proto,
};

/// The static description of an operation.
#[derive(Debug)]
pub struct OperationInfo {
    /// The type of its changes in the journal.
    pub change_type: ChangeType,
    /// The type of its changes in the API.
    pub proto_type: proto::ChangeType,
    /// The name of its RPC in `GatewayService`.
    pub rpc: &'static str,
    /// The field number of the repeated identifiers in a device message; `None` if a device has a fixed
    /// number of identifiers.
    pub device_ids_field: Option<u32>,
    /// The rules by which its results are recognised.
    pub evidence: EvidenceRules,
    /// The settings to check if ThingSpace has no endpoint for the request.
    pub endpoint_settings: &'static str,
}

/// The part of a [`ChangeRequest`] that differs between operations.
///
/// `Debug` must not show names or addresses.
pub trait Operation: fmt::Debug + Send + Sync {
    /// Returns the description of the operation.
    fn info(&self) -> &'static OperationInfo;

    /// Adds everything that the idempotency key stands for, beyond the common fields.
    fn add_to_fingerprint(&self, input: &mut FingerprintInput);

    /// Writes the HTTP request for ThingSpace.
    ///
    /// # Errors
    ///
    /// If the body cannot be written as JSON.
    fn outbound_request(
        &self,
        request: &ChangeRequest,
        settings: &ThingSpaceConfig,
    ) -> Result<OutboundRequest, serde_json::Error>;

    /// Reorders what belongs to single devices: `order` holds the present index of each device in its
    /// new position. Returns `None` if an index is missing or repeated.
    fn reorder(&mut self, _order: &[usize]) -> Option<()> {
        Some(())
    }

    /// Returns names and addresses in the request, which must not appear in a message about it.
    fn sensitive_values(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// An operation with an RPC of its own.
pub trait RpcOperation: Operation + Sized + 'static {
    /// The request message of the RPC.
    type Request: Send + 'static;
    /// The response message of the RPC.
    type Response: Send + 'static;

    /// Returns the request's `validate_only`.
    fn is_validate_only(request: &Self::Request) -> bool;

    /// Validates a request message.
    ///
    /// # Errors
    ///
    /// All invalid fields of the message.
    fn validate(
        request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>>;

    /// Builds the response message.
    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response;
}
