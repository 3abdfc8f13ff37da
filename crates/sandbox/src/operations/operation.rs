//! The description of a simulated operation.

use axum::routing::MethodFilter;
use serde_json::Value;

use crate::{
    errors::ErrorResponse,
    faults::Fault,
    identifiers::{DeviceId, DeviceIdentity, DeviceIds},
    json_body::{MAX_DEVICES_PER_REQUEST, check_account, required_list, required_text},
};

/// A valid request to change devices.
#[derive(Debug)]
pub(crate) struct ChangeRequest {
    /// `None` stands for the only account of the user.
    pub(crate) account: Option<String>,
    pub(crate) service_plan: String,
    pub(crate) devices: Vec<DeviceIds>,
}

impl ChangeRequest {
    /// Checks the members that all operations have. `device_ids` returns the identifiers of an entry
    /// of `devices`, and `list_member` is the name of that list.
    pub(crate) fn new<D>(
        account: Option<&str>,
        service_plan: Option<&str>,
        devices: Option<Vec<D>>,
        list_member: &str,
        device_ids: fn(D) -> Result<DeviceIds, Fault>,
    ) -> Result<Self, Fault> {
        account.map_or(Ok(()), check_account)?;
        let service_plan = required_text(service_plan, "servicePlan")?.to_owned();
        let devices = required_list(devices, list_member, MAX_DEVICES_PER_REQUEST)?;
        let devices = devices.into_iter().map(device_ids).collect::<Result<_, _>>()?;
        Ok(Self { account: account.map(str::to_owned), service_plan, devices })
    }
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
    pub(crate) parse: fn(&[u8]) -> Result<ChangeRequest, Fault>,
    /// Formats an error as the endpoint does.
    pub(crate) error_response: fn(Fault) -> ErrorResponse,
    /// Determines which device a request names.
    pub(crate) device_identity: fn(&DeviceIds) -> DeviceIdentity,
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
