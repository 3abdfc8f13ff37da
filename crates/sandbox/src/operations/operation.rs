//! The description of a simulated operation.

use axum::routing::MethodFilter;
use serde_json::Value;

use crate::{
    errors::{ErrorResponse, ValidationError},
    identifiers::{DeviceId, DeviceIdentity, DeviceIds},
};

/// A valid request to change devices.
#[derive(Debug)]
pub(crate) struct ChangeRequest {
    /// `None` stands for the only account of the user.
    pub(crate) account: Option<String>,
    pub(crate) service_plan: String,
    pub(crate) devices: Vec<DeviceIds>,
}

/// A kind of change: its request, its callbacks and its lookups.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Name in the ledger and in the list of scenarios.
    pub(crate) name: &'static str,
    /// Methods and paths, below the base URL. Operations may share an endpoint.
    pub(crate) endpoints: &'static [(MethodFilter, &'static str)],
    /// Member of the body that lists the devices. It selects one of the operations that share an
    /// endpoint.
    pub(crate) device_list_member: &'static str,
    /// Parses and validates the body of a request.
    pub(crate) parse: fn(&[u8]) -> Result<ChangeRequest, ValidationError>,
    /// Formats an error as the endpoint does.
    pub(crate) error_response: fn(ValidationError) -> ErrorResponse,
    /// Determines which device a request names.
    pub(crate) device_identity: fn(&DeviceIds) -> DeviceIdentity,
    /// Callback service that reports the results.
    pub(crate) callback_service: &'static str,
    /// Returns the identifiers of a device in its callbacks, from those in the request and the MDN.
    pub(crate) callback_device_ids: fn(&DeviceIds, &str) -> Vec<DeviceId>,
    /// Returns the `deviceResponse` of a callback, from its identifiers and the Unix time of the
    /// request in milliseconds.
    pub(crate) device_response: fn(&[DeviceId], u64) -> Value,
    /// `status` of a successful callback. `None`: it has neither a status nor counts.
    pub(crate) success_status: Option<&'static str>,
    pub(crate) features: &'static [Feature],
}

/// A property of some operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Requests contain the service address of each device.
    ServiceAddress,
    /// A callback may contain the `mdn` alone, whichever identifiers were sent.
    MdnOnlyCallback,
    /// The status call of version 2 covers the requests.
    StatusV2,
}
