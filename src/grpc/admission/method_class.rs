//! The class of each RPC, which decides its limits.

use std::{collections::HashMap, sync::LazyLock};

use crate::operations;

/// Limits that apply to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) enum MethodClass {
    /// Creates a change. Its size is its number of devices.
    Change {
        /// Number of the field `device_ids` of a device, if it has this field.
        device_ids_field: Option<u32>,
    },
    /// One small request, one response.
    Read,
    /// One small request, a stream of responses.
    Watch,
    /// A stream of requests and of responses.
    Reflection,
    /// A health check.
    Health,
}

/// The RPCs that are not operations. A test compares this table and the registry of operations with the
/// protos: an RPC without a class fails it.
const OTHER_METHODS: &[(&str, MethodClass)] = &[
    ("thingspace.gateway.v1.GatewayService/GetChange", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListChanges", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListDevices", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListDeviceResults", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/ListServicePlans", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/GetServerInfo", MethodClass::Read),
    ("thingspace.gateway.v1.GatewayService/WatchRequest", MethodClass::Watch),
    ("thingspace.gateway.v1.GatewayService/WatchAccount", MethodClass::Watch),
    ("thingspace.gateway.v1.OperatorService/GetStatus", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/PauseChanges", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/ResumeChanges", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/ResetLockout", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/SetLogFilter", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/ListQuarantinedCallbacks", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/GetQuarantinedCallback", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/ReplayQuarantinedCallbacks", MethodClass::Read),
    ("thingspace.gateway.v1.OperatorService/DropQuarantinedCallback", MethodClass::Read),
    ("grpc.health.v1.Health/Check", MethodClass::Health),
    ("grpc.health.v1.Health/List", MethodClass::Health),
    ("grpc.health.v1.Health/Watch", MethodClass::Watch),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MethodClass::Reflection),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MethodClass::Reflection),
];

/// Every served RPC as `package.Service/Method`.
static METHODS: LazyLock<HashMap<String, MethodClass>> = LazyLock::new(|| {
    let changes = operations::all().map(|info| {
        let name = format!("thingspace.gateway.v1.GatewayService/{}", info.rpc);
        (name, MethodClass::Change { device_ids_field: info.device_ids_field })
    });
    let others = OTHER_METHODS.iter().map(|(name, class)| ((*name).to_owned(), *class));
    changes.chain(others).collect()
});

/// Returns the name and the class of the RPC with this path. `None` if there is no such RPC.
pub(in crate::grpc) fn find_method(path: &str) -> Option<(&'static str, MethodClass)> {
    let (name, class) = METHODS.get_key_value(path.strip_prefix('/')?)?;
    Some((name, *class))
}

#[cfg(test)]
mod tests;
