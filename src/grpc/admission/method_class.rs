//! The class of each RPC, which decides its limits.

use std::{collections::HashMap, sync::LazyLock};

use crate::operations;

/// Limits that apply to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) enum MethodClass {
    /// Creates a change. Its size is its number of devices.
    Change(DeviceFields),
    /// One small request, one response.
    Read,
    /// One small request, a stream of responses.
    Watch,
    /// A stream of requests and of responses.
    Reflection,
    /// A health check.
    Health,
}

/// Numbers of the repeated fields that determine the decoded size of a change request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) struct DeviceFields {
    /// `devices` of the request.
    pub(in crate::grpc) devices: u32,
    /// `device_ids` of a device, if it has this field.
    pub(in crate::grpc) device_ids: Option<u32>,
}

/// The number of `devices` in every change request.
const DEVICES_FIELD: u32 = 5;

/// The RPCs that are not operations. A test compares this table and the registry of operations with the
/// protos: an RPC without a class fails it.
const METHODS: &[(&str, MethodClass)] = &[
    ("thingspace.gateway.v1.GatewayService/GetChange", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListChanges", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListDevices", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListDeviceResults", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListServicePlans", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/GetServerInfo", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/WatchRequest", MethodClass::Watch),
    ("grpc.health.v1.Health/Check", MethodClass::Health),
    ("grpc.health.v1.Health/List", MethodClass::Health),
    ("grpc.health.v1.Health/Watch", MethodClass::Watch),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MethodClass::Reflection),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MethodClass::Reflection),
];

/// Returns every served RPC as `package.Service/Method`, with its class.
pub(in crate::grpc) fn methods() -> impl Iterator<Item = (String, MethodClass)> {
    let changes = operations::all().map(|info| {
        let fields = DeviceFields { devices: DEVICES_FIELD, device_ids: info.device_ids_field };
        let name = format!("thingspace.gateway.v1.GatewayService/{}", info.rpc);
        (name, MethodClass::Change(fields))
    });
    let others = METHODS.iter().map(|(name, class)| ((*name).to_owned(), *class));
    changes.chain(others)
}

impl MethodClass {
    /// Returns the class of a path. `None` if there is no such RPC.
    pub(in crate::grpc) fn from_path(path: &str) -> Option<Self> {
        static CLASSES: LazyLock<HashMap<String, MethodClass>> =
            LazyLock::new(|| methods().collect());
        CLASSES.get(path.strip_prefix('/')?).copied()
    }
}

/// True if the errors of a call with this path carry `executed`.
pub(in crate::grpc) fn is_change(path: &str) -> bool {
    matches!(MethodClass::from_path(path), Some(MethodClass::Change(_)))
}

#[cfg(test)]
mod tests;
