//! The JSON text of a call: converted to the message that another parser makes of it, or refused without its values.

use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::Value;
use thingspace_gateway::grpc::decode_json_request;

use super::{
    contains_secret,
    grpc_request::{METHODS, PACKAGE, input_of},
};

pub fn check(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let method = METHODS[usize::from(*choice) % METHODS.len()];
    let input = input_of(method);
    match result(method, text) {
        Ok(encoded) => {
            let message = DynamicMessage::decode(input.clone(), &*encoded).expect("a message");
            // The text has no repeated fields, so the value has all of them.
            let value: Value = serde_json::from_slice(text).expect("it was accepted");
            assert_eq!(parse(&input, value), message);
            let again = serde_json::to_string(&message).expect("JSON");
            let again = result(method, again.as_bytes()).expect("it was valid");
            assert_eq!(DynamicMessage::decode(input, &*again).expect("a message"), message);
        }
        Err(error) => {
            let begin = format!("request is not a {} in JSON: ", input.name());
            assert!(error.starts_with(&begin) && error.len() < 400, "{error}");
            assert!(!contains_secret(&error), "{error}");
        }
    }
}

/// Converts the text of a call of this method.
pub fn result(method: &str, text: &[u8]) -> Result<Vec<u8>, String> {
    decode_json_request(&format!("/{PACKAGE}.{method}"), text).expect("a method")
}

/// Parses with code that the gateway uses for single values only.
fn parse(input: &MessageDescriptor, value: Value) -> DynamicMessage {
    let message = DynamicMessage::deserialize(input.clone(), value).expect("a message");
    // Without the difference between a default value and none.
    DynamicMessage::decode(input.clone(), &*message.encode_to_vec()).expect("a message")
}
