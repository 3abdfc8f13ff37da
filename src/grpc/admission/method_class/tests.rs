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
    let listed = methods().filter(|(_, class)| *class != MethodClass::Reflection);
    assert_eq!(listed.count(), paths.len());
}
