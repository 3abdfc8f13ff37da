//! The trait of a simulated operation.

use std::fmt;

use axum::routing::MethodFilter;
use serde_json::Value;

use crate::errors::{ErrorResponse, ValidationError};
use crate::identifiers::{DeviceId, DeviceIdentity, DeviceIds};

/// A valid request to change devices.
#[derive(Debug)]
pub(crate) struct ChangeRequest {
    /// `None` stands for the only account of the user.
    pub(crate) account: Option<String>,
    pub(crate) service_plan: String,
    pub(crate) devices: Vec<DeviceIds>,
}

/// A kind of change: its request, its callbacks and its lookups.
pub(crate) trait Operation: fmt::Debug + Sync {
    /// Name in the ledger and in the list of scenarios.
    fn name(&self) -> &'static str;

    /// Methods and paths, below the base URL. Operations may share an endpoint.
    fn endpoints(&self) -> &'static [(MethodFilter, &'static str)];

    /// Member of the body that lists the devices. It selects one of the operations that share an
    /// endpoint.
    fn device_list_member(&self) -> &'static str;

    /// Parses and validates the body of a request.
    fn parse(&self, body: &[u8]) -> Result<ChangeRequest, ValidationError>;

    /// Formats an error as the endpoint does.
    fn error_response(&self, error: ValidationError) -> ErrorResponse;

    /// Determines which device a request names.
    fn device_identity(&self, sent: &DeviceIds) -> DeviceIdentity;

    /// Callback service that reports the results.
    fn callback_service(&self) -> &'static str;

    /// Identifiers of a device in its callbacks.
    fn callback_device_ids(&self, sent: &DeviceIds, mdn: &str) -> Vec<DeviceId>;

    /// `deviceResponse` of a callback.
    fn device_response(&self, ids: &[DeviceId], received_at_ms: u64) -> Value;

    /// `status` of a successful callback. `None`: it has neither a status nor counts.
    fn success_status(&self) -> Option<&'static str>;

    /// True if a callback may contain the `mdn` alone, whichever identifiers were sent.
    fn can_report_mdn_only(&self) -> bool;

    /// True if requests contain the service address of each device.
    fn has_service_address(&self) -> bool;

    /// True if the status call of version 2 covers requests of this operation.
    fn has_status_v2(&self) -> bool;
}
