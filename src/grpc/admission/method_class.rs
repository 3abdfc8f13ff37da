//! The class of each RPC, which decides its limits.

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

const ESIM_DEVICES: DeviceFields = DeviceFields {
    devices: 5,
    device_ids: None,
};
const FIVE_G_BI_DEVICES: DeviceFields = DeviceFields {
    devices: 5,
    device_ids: Some(1),
};

/// Every served RPC. A test compares this table with the protos: a new RPC fails it until it is listed here.
#[rustfmt::skip]
pub(in crate::grpc) const METHODS: &[(&str, MethodClass)] = &[
    ("/thingspace.gateway.v1.GatewayService/ChangeEsimPlan", MethodClass::Change(ESIM_DEVICES)),
    ("/thingspace.gateway.v1.GatewayService/ChangeFiveGBiPlan", MethodClass::Change(FIVE_G_BI_DEVICES)),
    ("/thingspace.gateway.v1.GatewayService/GetChange", MethodClass::Read),
    ("/thingspace.gateway.v1.GatewayService/ListChanges", MethodClass::Read),
    ("/thingspace.gateway.v1.GatewayService/ListDevices", MethodClass::Read),
    ("/thingspace.gateway.v1.GatewayService/ListDeviceResults", MethodClass::Read),
    ("/thingspace.gateway.v1.GatewayService/ListServicePlans", MethodClass::Read),
    ("/thingspace.gateway.v1.GatewayService/GetServerInfo", MethodClass::Read),
    ("/thingspace.gateway.v1.GatewayService/WatchRequest", MethodClass::Watch),
    ("/grpc.health.v1.Health/Check", MethodClass::Health),
    ("/grpc.health.v1.Health/List", MethodClass::Health),
    ("/grpc.health.v1.Health/Watch", MethodClass::Watch),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MethodClass::Reflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MethodClass::Reflection),
];

impl MethodClass {
    /// Returns the class of a path. `None` if there is no such RPC.
    pub(in crate::grpc) fn from_path(path: &str) -> Option<Self> {
        let mut methods = METHODS.iter();
        methods.find_map(|(known, class)| (*known == path).then_some(*class))
    }
}

/// True if the errors of a call with this path carry `executed`.
pub(in crate::grpc) fn is_change(path: &str) -> bool {
    matches!(MethodClass::from_path(path), Some(MethodClass::Change(_)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::Message;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;
    use crate::proto;

    fn field(message: &DescriptorProto, name: &str) -> Option<u32> {
        let field = message.field.iter().find(|field| field.name() == name)?;
        Some(field.number().try_into().unwrap())
    }

    /// The numbers of the fields of a change request.
    fn device_fields(messages: &HashMap<String, &DescriptorProto>, request: &str) -> DeviceFields {
        let request = messages[request];
        let devices = request.field.iter().find(|field| field.name() == "devices");
        DeviceFields {
            devices: field(request, "devices").unwrap(),
            device_ids: field(messages[devices.unwrap().type_name()], "device_ids"),
        }
    }

    #[test]
    fn every_rpc_of_the_protos_has_the_class_of_its_kind() {
        let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut messages = HashMap::new();
        for file in &files.file {
            for message in &file.message_type {
                let name = format!(".{}.{}", file.package(), message.name());
                messages.insert(name, message);
            }
        }
        let mut paths = Vec::new();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let is_change = method.name().starts_with("Change");
                    let expected = match (method.server_streaming(), service.name()) {
                        (true, _) => MethodClass::Watch,
                        (false, "Health") => MethodClass::Health,
                        (false, _) if is_change => {
                            MethodClass::Change(device_fields(&messages, method.input_type()))
                        }
                        (false, _) => MethodClass::Read,
                    };
                    assert_eq!(MethodClass::from_path(&path), Some(expected), "{path}");
                    paths.push(path);
                }
            }
        }
        // tonic-reflection has its own descriptors.
        let listed = METHODS
            .iter()
            .filter(|(_, class)| *class != MethodClass::Reflection);
        assert_eq!(listed.count(), paths.len());
    }
}
