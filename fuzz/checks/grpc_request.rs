//! The message of a gRPC call: rejected with the paths of its invalid fields, or valid in every encoding.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};
use thingspace_gateway::{
    grpc::validate_message,
    operations::ValidationRules,
    proto::{FILE_DESCRIPTOR_SET, FieldReason},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{change_request, contains_secret};

/// Every method. The first byte of an input is its place here, so new ones come last.
pub const METHODS: [&str; 20] = [
    "GatewayService/ChangeEsimPlan",
    "GatewayService/ChangeFiveGBiPlan",
    "GatewayService/ChangeServicePlan",
    "GatewayService/WatchRequest",
    "GatewayService/WatchAccount",
    "GatewayService/GetChange",
    "GatewayService/ListChanges",
    "GatewayService/ListDevices",
    "GatewayService/ListDeviceResults",
    "GatewayService/ListServicePlans",
    "GatewayService/GetServerInfo",
    "OperatorService/GetStatus",
    "OperatorService/PauseChanges",
    "OperatorService/ResumeChanges",
    "OperatorService/ResetLockout",
    "OperatorService/SetLogFilter",
    "OperatorService/ListQuarantinedCallbacks",
    "OperatorService/GetQuarantinedCallback",
    "OperatorService/ReplayQuarantinedCallbacks",
    "OperatorService/DropQuarantinedCallback",
];
pub const PACKAGE: &str = "thingspace.gateway.v1";
/// Maximum size of the details of an error in bytes, so that its trailers stay below 8,000 bytes.
const MAX_DETAILS: usize = 6_000;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptors of the API")
});

pub fn check(data: &[u8]) {
    let Some((choice, message)) = data.split_first() else { return };
    let (rules, method) =
        (usize::from(*choice) / METHODS.len(), usize::from(*choice) % METHODS.len());
    let method = METHODS[method];
    let rules = ValidationRules {
        max_devices_per_request: if rules & 1 == 0 { 10_000 } else { 3 },
        require_key: rules & 2 == 0,
        reject_reserved: rules & 4 == 0,
    };
    let validate = |message: &[u8]| {
        validate_message(&format!("{PACKAGE}.{method}"), message, rules).expect("a method")
    };
    match validate(message) {
        Ok(encoded) => {
            // The encoding of the decoded message is valid too, and is its own encoding.
            assert_eq!(validate(&encoded).expect("it was valid"), encoded);
            change_request::check_valid(method, &encoded, rules);
        }
        Err(status) => match decode(method, message) {
            Some(decoded) => check_error(&status, &decoded),
            None => assert_eq!(status.code(), Code::Internal, "{status:?}"),
        },
    }
}

/// Returns the response of a call of this method with this message.
pub fn result(method: &str, message: &[u8]) -> Result<(), String> {
    let rules = ValidationRules {
        max_devices_per_request: 10_000,
        require_key: true,
        reject_reserved: true,
    };
    let validated = validate_message(&format!("{PACKAGE}.{method}"), message, rules);
    validated.expect("a method").map(|_| ()).map_err(|status| status.message().to_owned())
}

/// Returns the names of all methods of the API, in the form of [`METHODS`].
pub fn served_methods() -> Vec<String> {
    let services = POOL.services().filter(|service| service.package_name() == PACKAGE);
    let methods = services.flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods.into_iter().map(move |method| format!("{}/{}", service.name(), method.name()))
    });
    methods.collect()
}

/// Decodes a message with code that the gateway does not use.
fn decode(method: &str, message: &[u8]) -> Option<DynamicMessage> {
    DynamicMessage::decode(input_of(method), message).ok()
}

/// Returns the type of the requests of a method.
pub fn input_of(method: &str) -> MessageDescriptor {
    let (service, method) = method.split_once('/').expect("a service and a method");
    let service = POOL.get_service_by_name(&format!("{PACKAGE}.{service}")).expect("a service");
    let method = service.methods().find(|it| it.name() == method).expect("a method");
    method.input()
}

/// The error of a message that can be decoded names fields of it, is bounded, and repeats no value.
fn check_error(status: &Status, message: &DynamicMessage) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(!contains_secret(status.message()), "{status:?}");
    let details = String::from_utf8_lossy(status.details());
    assert!(!contains_secret(&details) && details.len() < MAX_DETAILS, "{details}");
    let details = status.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!(info.domain, "thingspace.gateway");
    assert_eq!(info.metadata["retry"], "NEVER");
    let violations = details.bad_request().map_or(&[][..], |it| &it.field_violations);
    if info.reason == "RESUME_TOKEN_INVALID" {
        return assert!(violations.is_empty() && !text(message, "resume_token").is_empty());
    }
    assert_eq!(info.reason, "FIELD_INVALID");
    let number = |name: &str| info.metadata[name].parse::<usize>().expect("a number");
    assert_eq!(number("violations_listed"), violations.len());
    assert!(number("violations_total") >= violations.len() && !violations.is_empty());
    for violation in violations {
        assert!(has_field(message, &violation.field), "{} in {message:?}", violation.field);
        assert!(!violation.description.is_empty());
        let reason = format!("FIELD_REASON_{}", violation.reason);
        assert!(FieldReason::from_str_name(&reason).is_some(), "{reason}");
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field).expect("a field");
    value.as_str().unwrap_or_default().to_owned()
}

/// True if a path such as `devices[17].iccid` names a field, and elements that exist.
fn has_field(message: &DynamicMessage, path: &str) -> bool {
    let mut value = Value::Message(message.clone());
    for step in path.split('.') {
        let (name, index) = match step.split_once('[') {
            Some((name, index)) => (name, index.strip_suffix(']')),
            None => (step, None),
        };
        let field = value.as_message().and_then(|it| it.get_field_by_name(name));
        let Some(field) = field.map(|field| field.into_owned()) else { return false };
        let element = match index {
            None => Some(field),
            Some(index) => {
                let index = index.parse::<usize>().ok();
                let list = field.as_list().zip(index);
                list.and_then(|(list, index)| list.get(index).cloned())
            }
        };
        let Some(element) = element else { return false };
        value = element;
    }
    true
}
