use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{SerializeOptions, Value};
use serde_json::json;

use super::*;

const SERVICE: &str = "/thingspace.gateway.v1.GatewayService";
/// A value that no error may repeat.
const SECRET: &str = "hush7f3a9c";

fn schema() -> JsonSchema {
    JsonSchema::load().unwrap()
}

/// Returns the messages that a request of an RPC may contain, with itself.
fn messages_of(method: &JsonMethod) -> Vec<MessageDescriptor> {
    let mut messages = vec![method.input.clone()];
    let mut next = 0;
    while let Some(message) = messages.get(next).cloned() {
        next += 1;
        for field in message.fields() {
            if let Kind::Message(nested) = field.kind()
                && !nested.full_name().starts_with("google.protobuf.")
                && !messages.contains(&nested)
            {
                messages.push(nested);
            }
        }
    }
    messages
}

fn decode(method: &str, text: &str) -> Result<serde_json::Value, String> {
    let schema = schema();
    let method = schema.method(&format!("{SERVICE}/{method}")).unwrap();
    let mut encoded = Vec::new();
    let decoded = method.decode_request(text.as_bytes(), &mut encoded);
    decoded.map_err(|error| error.into_status().message().to_owned())?;
    let message = DynamicMessage::decode(method.input.clone(), &*encoded).unwrap();
    Ok(serde_json::to_value(message).unwrap())
}

/// Chooses a message by a sequence of numbers.
fn choose_message(message: &MessageDescriptor, choose: &mut impl FnMut() -> u64) -> DynamicMessage {
    let mut chosen = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if choose().is_multiple_of(3) {
            continue;
        }
        let value = if field.is_list() {
            Value::List((0..choose() % 4).map(|_| choose_value(&field.kind(), choose)).collect())
        } else {
            choose_value(&field.kind(), choose)
        };
        chosen.set_field(&field, value);
    }
    chosen
}

fn choose_value(kind: &Kind, choose: &mut impl FnMut() -> u64) -> Value {
    const TEXTS: [&str; 5] = ["", "text", "\"\\\n\u{0}", "ü\u{1f600}\u{2028}", "null"];
    let number = choose();
    match kind {
        Kind::Bool => Value::Bool(number.is_multiple_of(2)),
        Kind::Int32 => Value::I32(number as i32),
        Kind::Int64 => Value::I64(number as i64),
        Kind::Uint32 => Value::U32(number as u32),
        Kind::Uint64 => Value::U64(number),
        Kind::String => Value::String(TEXTS[number as usize % TEXTS.len()].to_owned()),
        Kind::Bytes => Value::Bytes(number.to_be_bytes().to_vec().into()),
        // Also numbers that the enum does not have.
        Kind::Enum(_) => Value::EnumNumber((number % 12) as i32),
        // A duration or a time.
        Kind::Message(message) if message.full_name().starts_with("google.protobuf.") => {
            let mut time = DynamicMessage::new(message.clone());
            time.set_field_by_name("seconds", Value::I64((number % 100_000) as i64));
            time.set_field_by_name("nanos", Value::I32((number % 1_000_000_000) as i32));
            Value::Message(time)
        }
        Kind::Message(message) => Value::Message(choose_message(message, choose)),
        kind => panic!("no request has {kind:?}"),
    }
}

#[test]
fn every_request_has_only_fields_that_the_conversion_supports() {
    for (name, method) in &*schema().methods {
        for message in messages_of(method) {
            assert!(message.oneofs().all(|oneof| oneof.is_synthetic()), "{}", message.full_name());
            for field in message.fields() {
                assert!(!field.is_map() && !field.is_group(), "{}", field.full_name());
                // Encoded numbers may be longer than their text.
                let is_scalar = !matches!(field.kind(), Kind::Message(_) | Kind::String);
                assert!(!(name.contains("/Change") && field.is_list() && is_scalar), "{field:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn every_request_is_the_same_in_json(
        numbers in prop::collection::vec(any::<u64>(), 1..100),
        proto_names in any::<bool>(),
        with_defaults in any::<bool>(),
    ) {
        let schema = schema();
        for (name, method) in &*schema.methods {
            let mut numbers = numbers.iter().cycle();
            let message = choose_message(&method.input, &mut || *numbers.next().unwrap());
            let binary = message.encode_to_vec();
            let message = DynamicMessage::decode(method.input.clone(), &*binary).unwrap();
            let options = SerializeOptions::new()
                .use_proto_field_name(proto_names)
                .skip_default_fields(!with_defaults);
            let mut text = serde_json::Serializer::new(Vec::new());
            message.serialize_with_options(&mut text, &options).unwrap();
            let text = text.into_inner();
            let mut encoded = Vec::new();
            let decoded = method.decode_request(&text, &mut encoded);
            prop_assert!(decoded.is_ok(), "{name}: {}", String::from_utf8_lossy(&text));
            let decoded = DynamicMessage::decode(method.input.clone(), &*encoded).unwrap();
            prop_assert_eq!(decoded, message);
            if name.contains("/Change") {
                prop_assert!(encoded.len() <= text.len());
            }
        }
    }

    #[test]
    fn no_error_repeats_a_value_or_an_unknown_name(
        numbers in prop::collection::vec(any::<u64>(), 1..100),
        at in any::<prop::sample::Index>(),
        broken in prop::sample::select(vec![
            "\"hush7f3a9c\"", "hush7f3a9c", "\"hush7f3a9c\":", "{\"hush7f3a9c\":1}", "[\"hush7f3a9c\"]", "7", "", "\\",
        ]),
    ) {
        let schema = schema();
        for method in schema.methods.values() {
            let mut numbers = numbers.iter().cycle();
            let message = choose_message(&method.input, &mut || *numbers.next().unwrap());
            let text = serde_json::to_string(&message).unwrap();
            // Replaces a character, which may be a whole value.
            let (before, rest) = text.split_at(text.floor_char_boundary(at.index(text.len())));
            let mut rest = rest.chars();
            rest.next();
            let text = format!("{before}{broken}{}", rest.as_str());
            if let Err(error) = method.decode_request(text.as_bytes(), &mut Vec::new()) {
                let error = error.into_status().message().to_owned();
                prop_assert!(!error.contains(SECRET), "{text}: {error}");
            }
        }
    }
}

#[test]
fn the_proto3_mapping_is_accepted() {
    let expected = json!({
        "accountName": "a", "states": ["CHANGE_STATE_QUEUED", "CHANGE_STATE_FINISHED"], "pageSize": 7,
    });
    for text in [
        r#"{"accountName":"a","states":["CHANGE_STATE_QUEUED","CHANGE_STATE_FINISHED"],"pageSize":7}"#,
        r#" { "page_size" : "7", "account_name":"a", "states":[1, 4], "pageToken": null } "#,
        r#"{"pageSize":7.0,"accountName":"\u0061","states":["CHANGE_STATE_QUEUED",4],"changeTypes":[]}"#,
    ] {
        assert_eq!(decode("ListChanges", text), Ok(expected.clone()), "{text}");
    }
    let nested = r#"{"device":{"kind":"iccid","id":"1"},"outcomes":["DEVICE_OUTCOME_PENDING"]}"#;
    assert_eq!(decode("ListDevices", nested), Ok(serde_json::from_str(nested).unwrap()));
    let empty = decode("ChangeEsimPlan", r#"{"devices":[{},{"eid":""}],"validateOnly":true}"#);
    assert_eq!(empty, Ok(json!({ "devices": [{}, {}], "validateOnly": true })));
    assert_eq!(decode("GetServerInfo", "{}"), Ok(json!({})));
}

#[test]
fn an_error_names_the_problem_the_field_and_the_position() {
    for (text, expected) in [
        ("", "the text ends too early at line 1, column 0"),
        ("{\"accountName\": \"x\"", "the text ends too early at line 1, column 19"),
        ("[]", "wrong type at line 1, column 0"),
        ("null", "wrong type at line 1, column 4"),
        ("{\"accountName\": x}", "invalid JSON in account_name at line 1, column 17"),
        ("{} {}", "invalid JSON at line 1, column 4"),
        (
            "{\"accountName\": 7}",
            "wrong type or invalid value in account_name at line 1, column 17",
        ),
        ("{\"accountName\": {\"x\": 1}}", "in account_name at line 1"),
        ("{\"account\": 7}", "unknown field at line 1, column 10"),
        ("{\"devices\":\n [{}, {\"eid\": [\"x\"]}]}", "wrong type in devices[1].eid at line 2"),
        ("{\"devices\": [{\"x\": 1}]}", "unknown field in devices[0] at line 1"),
        ("{\"devices\": {}}", "wrong type in devices at line 1"),
        ("{\"devices\": [null]}", "wrong type in devices[0] at line 1"),
        ("{\"devices\": [], \"devices\": []}", "field occurs twice in devices at line 1"),
        ("{\"accountName\": \"a\", \"account_name\": \"b\"}", "field occurs twice in account_name"),
        ("{\"validateOnly\": \"true\"}", "wrong type or invalid value in validate_only"),
        ("{\"accountName\": \"\\ud800\"}", "invalid JSON in account_name"),
    ] {
        let error = decode("ChangeEsimPlan", text).unwrap_err();
        assert!(error.starts_with("request is not a ChangeEsimPlanRequest in JSON: "), "{error}");
        assert!(error.contains(expected), "{text}: {error}");
    }
    for (text, expected) in [
        ("{\"states\": [\"NO_SUCH_STATE\"]}", "wrong type or invalid value in states[0]"),
        ("{\"pageSize\": 3000000000}", "wrong type or invalid value in page_size"),
        ("{\"pageSize\": 1.5}", "wrong type or invalid value in page_size"),
        ("{\"pageSize\": {}}", "in page_size"),
    ] {
        let error = decode("ListChanges", text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_message_is_encoded_with_the_memory_of_its_text() {
    // As a tree, these devices would take a gigabyte.
    let devices = vec!["{\"eid\":\"1\"}"; 500_000].join(",");
    let text = format!("{{\"devices\":[{devices}]}}");
    let schema = schema();
    let method = schema.method(&format!("{SERVICE}/ChangeEsimPlan")).unwrap();
    let mut encoded = Vec::new();
    method.decode_request(text.as_bytes(), &mut encoded).unwrap();
    assert_eq!(encoded.len(), 500_000 * 5);
    assert!(encoded.starts_with(b"\x2a\x03\x0a\x011"));
}

#[test]
fn a_response_has_the_names_of_json() {
    let schema = schema();
    let method = schema.method(&format!("{SERVICE}/GetChange")).unwrap();
    let change = proto::Change { change_id: "c".into(), device_count: 3, ..Default::default() };
    let response = proto::GetChangeResponse { change: Some(change) };
    let mut text = Vec::new();
    method.encode_response(&response.encode_to_vec(), &mut text).unwrap();
    assert_eq!(text, br#"{"change":{"changeId":"c","deviceCount":3}}"#);
    assert!(method.encode_response(b"\xff", &mut text).is_err());
    assert!(schema.method("/thingspace.gateway.v1.GatewayService/Other").is_none());
    assert!(schema.method("thingspace.gateway.v1.GatewayService/GetChange").is_none());
}
