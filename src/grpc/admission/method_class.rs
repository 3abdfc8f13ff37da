//! The class of each RPC, which decides its limits, and the access that it requires.

use std::{collections::HashMap, sync::LazyLock};

use crate::{access::policy::Permission, operations};

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

/// The access that a call requires, on some account. Its handler checks the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) enum MethodAccess {
    /// Every client may call the method.
    Public,
    /// Every caller of the policy may call the method.
    KnownCaller,
    /// The caller needs this permission.
    Needs(Permission),
}

/// A served RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::grpc) struct Method {
    /// `package.Service/Method`.
    pub(in crate::grpc) name: &'static str,
    pub(in crate::grpc) class: MethodClass,
    pub(in crate::grpc) access: MethodAccess,
}

impl Method {
    /// True for a call that creates a change.
    pub(in crate::grpc) fn is_change(&self) -> bool {
        matches!(self.class, MethodClass::Change { .. })
    }
}

const LIST: MethodAccess = MethodAccess::Needs(Permission::List);
const WATCH: MethodAccess = MethodAccess::Needs(Permission::Watch);
const MONITOR: MethodAccess = MethodAccess::Needs(Permission::Monitor);
const OPERATE: MethodAccess = MethodAccess::Needs(Permission::Operate);

/// The RPCs that are not operations. A test compares this table and the registry of operations with the
/// protos: an RPC without an entry fails it. The gateway does not serve an RPC without an entry.
const OTHER_METHODS: &[(&str, MethodClass, MethodAccess)] = &[
    ("thingspace.gateway.v1.GatewayService/GetChange", MethodClass::Read, LIST),
    ("thingspace.gateway.v1.GatewayService/ListChanges", MethodClass::Read, LIST),
    ("thingspace.gateway.v1.GatewayService/ListDevices", MethodClass::Read, LIST),
    ("thingspace.gateway.v1.GatewayService/ListDeviceResults", MethodClass::Read, LIST),
    ("thingspace.gateway.v1.GatewayService/ListServicePlans", MethodClass::Read, LIST),
    (
        "thingspace.gateway.v1.GatewayService/GetServerInfo",
        MethodClass::Read,
        MethodAccess::KnownCaller,
    ),
    ("thingspace.gateway.v1.GatewayService/WatchRequest", MethodClass::Watch, WATCH),
    ("thingspace.gateway.v1.GatewayService/WatchAccount", MethodClass::Watch, WATCH),
    ("thingspace.gateway.v1.OperatorService/GetStatus", MethodClass::Read, MONITOR),
    ("thingspace.gateway.v1.OperatorService/PauseChanges", MethodClass::Read, OPERATE),
    ("thingspace.gateway.v1.OperatorService/ResumeChanges", MethodClass::Read, OPERATE),
    ("thingspace.gateway.v1.OperatorService/ResetLockout", MethodClass::Read, OPERATE),
    ("thingspace.gateway.v1.OperatorService/SetLogFilter", MethodClass::Read, OPERATE),
    ("thingspace.gateway.v1.OperatorService/ListQuarantinedCallbacks", MethodClass::Read, OPERATE),
    ("thingspace.gateway.v1.OperatorService/GetQuarantinedCallback", MethodClass::Read, OPERATE),
    (
        "thingspace.gateway.v1.OperatorService/ReplayQuarantinedCallbacks",
        MethodClass::Read,
        OPERATE,
    ),
    ("thingspace.gateway.v1.OperatorService/DropQuarantinedCallback", MethodClass::Read, OPERATE),
    ("grpc.health.v1.Health/Check", MethodClass::Health, MethodAccess::Public),
    ("grpc.health.v1.Health/List", MethodClass::Health, MethodAccess::Public),
    ("grpc.health.v1.Health/Watch", MethodClass::Watch, MethodAccess::Public),
    (
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        MethodClass::Reflection,
        MethodAccess::KnownCaller,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        MethodClass::Reflection,
        MethodAccess::KnownCaller,
    ),
];

/// Class and access of every served RPC, by `package.Service/Method`.
static METHODS: LazyLock<HashMap<String, (MethodClass, MethodAccess)>> = LazyLock::new(|| {
    let changes = operations::all().map(|info| {
        let name = format!("thingspace.gateway.v1.GatewayService/{}", info.rpc);
        let class = MethodClass::Change { device_ids_field: info.device_ids_field };
        (name, (class, MethodAccess::Needs(Permission::Change)))
    });
    let others = OTHER_METHODS.iter();
    let others = others.map(|(name, class, access)| ((*name).to_owned(), (*class, *access)));
    changes.chain(others).collect()
});

/// Returns the RPC with this path. `None` if there is no such RPC.
pub(in crate::grpc) fn find_method(path: &str) -> Option<Method> {
    let (name, (class, access)) = METHODS.get_key_value(path.strip_prefix('/')?)?;
    Some(Method { name, class: *class, access: *access })
}

#[cfg(test)]
mod tests;
