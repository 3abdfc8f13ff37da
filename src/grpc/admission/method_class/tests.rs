use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::*;
use crate::{grpc::admission::device_count::DEVICES_FIELD, proto};

fn field(message: &DescriptorProto, name: &str) -> Option<u32> {
    let field = message.field.iter().find(|field| field.name() == name)?;
    Some(field.number().try_into().unwrap())
}

/// The class of an RPC with this change request.
fn change(messages: &HashMap<String, &DescriptorProto>, request: &str) -> MethodClass {
    let request = messages[request];
    assert_eq!(field(request, "devices"), Some(DEVICES_FIELD));
    let devices = request.field.iter().find(|field| field.name() == "devices");
    let device = messages[devices.unwrap().type_name()];
    MethodClass::Change { device_ids_field: field(device, "device_ids") }
}

/// The access that an RPC must require. A new RPC needs a decision here, too.
fn required_access(service: &str, method: &str) -> MethodAccess {
    let permission = match (service, method) {
        ("Health", _) => return MethodAccess::Public,
        ("GatewayService", "GetServerInfo") => return MethodAccess::KnownCaller,
        ("GatewayService", "ChangeEsimPlan" | "ChangeFiveGBiPlan" | "ChangeServicePlan") => {
            Permission::Change
        }
        ("GatewayService", "WatchRequest" | "WatchAccount") => Permission::Watch,
        (
            "GatewayService",
            "GetChange" | "ListChanges" | "ListDevices" | "ListDeviceResults" | "ListServicePlans",
        ) => Permission::List,
        ("OperatorService", "GetStatus") => Permission::Monitor,
        ("OperatorService", _) => Permission::Operate,
        (service, method) => panic!("decide the access that {service}/{method} requires"),
    };
    MethodAccess::Needs(permission)
}

#[test]
fn every_rpc_of_the_protos_has_the_class_of_its_kind_and_its_access() {
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
                let method_name = method.name();
                let path = format!("/{}.{}/{method_name}", file.package(), service.name());
                let is_change = method_name.starts_with("Change");
                let expected = match (method.server_streaming(), service.name()) {
                    (true, _) => MethodClass::Watch,
                    (false, "Health") => MethodClass::Health,
                    (false, _) if is_change => change(&messages, method.input_type()),
                    (false, _) => MethodClass::Read,
                };
                let name = path.trim_start_matches('/');
                let method = find_method(&path).unwrap_or_else(|| panic!("{path} has no entry"));
                let access = required_access(service.name(), method_name);
                let expected = Method { name: method.name, class: expected, access };
                assert_eq!((method, method.name), (expected, name), "{path}");
                paths.push(path);
            }
        }
    }
    // tonic-reflection has its own descriptors.
    let (reflection, listed): (Vec<_>, Vec<_>) =
        METHODS.values().partition(|(class, _)| *class == MethodClass::Reflection);
    assert_eq!(listed.len(), paths.len());
    assert!(reflection.iter().all(|(_, access)| *access == MethodAccess::KnownCaller));
}
