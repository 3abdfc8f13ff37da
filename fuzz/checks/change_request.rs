//! A valid request for a change has the content of the message, in any order of the devices.

use std::{collections::HashSet, sync::LazyLock};

use prost::Message;
use serde_json::Value;
use thingspace_gateway::{
    config::{Config, Sources, ThingSpaceConfig},
    operations::{
        ChangeRequest, RpcOperation, ValidationRules, esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange, service_plan::ServicePlanChange,
    },
    proto,
};

use super::contains_secret;

static SETTINGS: LazyLock<ThingSpaceConfig> = LazyLock::new(|| {
    let loaded = Config::load(&Sources::default()).expect("valid settings");
    loaded.config.thingspace
});

/// The common fields of a change message.
struct Fields<'m> {
    account_name: &'m str,
    service_plan: &'m str,
    idempotency_key: &'m str,
    devices: usize,
}

/// Returns the common fields of a message.
macro_rules! fields {
    ($message:ident) => {
        Fields {
            account_name: &$message.account_name,
            service_plan: &$message.service_plan,
            idempotency_key: &$message.idempotency_key,
            devices: $message.devices.len(),
        }
    };
}

/// Checks a valid message of a method, if it is that of a change.
pub fn check_valid(method: &str, message: &[u8], rules: ValidationRules) {
    match method {
        "GatewayService/ChangeEsimPlan" => {
            let message = decode::<proto::ChangeEsimPlanRequest>(message);
            let mut reversed = message.clone();
            reversed.devices.reverse();
            let fields = fields!(message);
            check::<EsimPlanChange>(&message, reversed, &fields, rules);
        }
        "GatewayService/ChangeServicePlan" => {
            let message = decode::<proto::ChangeServicePlanRequest>(message);
            let mut reversed = message.clone();
            reversed.devices.reverse();
            let fields = fields!(message);
            check::<ServicePlanChange>(&message, reversed, &fields, rules);
        }
        "GatewayService/ChangeFiveGBiPlan" => {
            let message = decode::<proto::ChangeFiveGBiPlanRequest>(message);
            let mut reversed = message.clone();
            reversed.devices.reverse();
            let fields = fields!(message);
            let request = check::<FiveGBiPlanChange>(&message, reversed, &fields, rules);
            check_hidden_places(message, &request);
        }
        _ => {}
    }
}

fn decode<M: Message + Default>(message: &[u8]) -> M {
    M::decode(message).expect("it was valid")
}

fn check<O: RpcOperation<Request: Clone>>(
    message: &O::Request,
    reversed: O::Request,
    fields: &Fields<'_>,
    rules: ValidationRules,
) -> ChangeRequest {
    let request = O::validate(message.clone(), rules).expect("it was valid");
    assert_eq!(request.account.as_str(), fields.account_name);
    assert_eq!(request.service_plan.as_str(), fields.service_plan);
    let key = request.key.as_ref().map_or("", |key| key.as_str());
    assert_eq!(key, fields.idempotency_key);
    assert!(!rules.require_key || !key.is_empty());
    assert_eq!(request.devices.len(), fields.devices);
    assert!((1..=rules.max_devices_per_request).contains(&fields.devices));
    assert!(request.warnings.len() <= 21);
    // Several eSIM profiles can have one EID.
    let kinds = request.operation.info().evidence.identifying_kinds;
    let ids = request.devices.iter().flat_map(|device| &device.ids);
    let ids = ids.filter(|id| kinds.includes(id.kind()));
    let ids: Vec<_> = ids.map(|id| (id.kind(), id.id_bytes().to_vec())).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "a device occurs twice");
    check_body(&request);

    let stored = request.devices.to_vec();
    let fingerprint = request.fingerprint_input();
    let reversed = O::validate(reversed, rules).expect("the order does not matter");
    assert_eq!(reversed.fingerprint_input(), fingerprint);
    let restored = reversed.in_stored_order(stored.clone()).expect("the same devices");
    assert_eq!((&*restored.devices, restored.fingerprint_input()), (&*stored, fingerprint));
    request
}

/// ThingSpace receives the account, the plan and each device.
fn check_body(request: &ChangeRequest) {
    let outbound = request.operation.outbound_request(request, &SETTINGS).expect("JSON");
    let body: Value = serde_json::from_slice(&outbound.body).expect("JSON");
    assert_eq!(body["accountName"], request.account.as_str());
    assert_eq!(body["servicePlan"], request.service_plan.as_str());
    let lists = body.as_object().expect("an object").values().filter_map(Value::as_array);
    assert!(lists.map(Vec::len).eq([request.devices.len()]), "{body}");
}

/// The debug output shows no name and no address.
fn check_hidden_places(mut message: proto::ChangeFiveGBiPlanRequest, request: &ChangeRequest) {
    for device in &mut message.devices {
        device.primary_place_of_use = None;
    }
    if !contains_secret(&String::from_utf8_lossy(&message.encode_to_vec())) {
        assert!(!contains_secret(&format!("{request:?}")), "{request:?}");
    }
}
