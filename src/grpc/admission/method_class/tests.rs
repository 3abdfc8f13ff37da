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
                    (false, _) if is_change => change(&messages, method.input_type()),
                    (false, _) => MethodClass::Read,
                };
                let name = path.trim_start_matches('/');
                assert_eq!(find_method(&path), Some((name, expected)), "{path}");
                paths.push(path);
            }
        }
    }
    // tonic-reflection has its own descriptors.
    let listed = METHODS.values().filter(|class| **class != MethodClass::Reflection);
    assert_eq!(listed.count(), paths.len());
}
