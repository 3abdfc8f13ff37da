use crate::{
    config::{Config, Sources},
    domain::{change_type::ChangeType, violation::Violation},
    operations::{
        ChangeRequest, RpcOperation,
        service_plan::ServicePlanChange,
        testing::{ACCOUNT, RULES, esim},
    },
    proto,
};

fn message(devices: &[&[(&str, &str)]]) -> proto::ChangeServicePlanRequest {
    let id = |(kind, id): &(&str, &str)| proto::DeviceId { kind: (*kind).into(), id: (*id).into() };
    let device = |ids: &&[(&str, &str)]| proto::ServicePlanDevice {
        device_ids: ids.iter().map(id).collect(),
        client_reference: String::new(),
    };
    proto::ChangeServicePlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: "plan".into(),
        idempotency_key: "key".into(),
        devices: devices.iter().map(device).collect(),
        ..Default::default()
    }
}

fn validate(devices: &[&[(&str, &str)]]) -> Result<ChangeRequest, Vec<Violation>> {
    ServicePlanChange::validate(message(devices), RULES)
}

#[test]
fn the_request_is_written_as_documented() {
    let ids: &[(&str, &str)] = &[("imei", "490154203237518"), ("ICCID", "89148000000800139708")];
    let request = validate(&[ids, &[("meid", "A100003685E561")]]).unwrap();
    assert_eq!(request.change_type(), ChangeType::ServicePlan);
    let config = Config::load(&Sources::default()).unwrap().config;
    let sent = request.operation.outbound_request(&request, &config.thingspace);
    let sent = sent.unwrap();
    assert_eq!((sent.method, sent.path), (http::Method::PUT, "/m2m/v1/devices/actions/plan"));
    let expected = r#"{"devices":[{"deviceIds":[{"kind":"imei","id":"490154203237518"},{"kind":"iccid","id":"89148000000800139708"}]},{"deviceIds":[{"kind":"MEID","id":"A100003685E561"}]}],"accountName":"0000123456-00001","servicePlan":"plan"}"#;
    assert_eq!(std::str::from_utf8(&sent.body).unwrap(), expected);
}

#[test]
fn all_violations_are_reported_with_their_field_paths() {
    let violations = validate(&[
        &[("eid", "89049032000001000000000000000001")],
        &[("mdn", "5125550142")],
        &[("msisdn", "15125550142")],
        &[("imsi", "1")],
        &[],
    ]);
    let violations = violations.unwrap_err().into_iter();
    let fields: Vec<String> = violations.map(|violation| violation.field).collect();
    assert_eq!(
        fields,
        [
            "devices[0].device_ids[0].kind",
            "devices[2].device_ids[0].id",
            "devices[3].device_ids[0].kind",
            "devices[3].device_ids[0].id",
            "devices[4].device_ids",
        ]
    );
}

#[test]
fn the_fingerprint_differs_from_that_of_another_operation_with_the_same_devices() {
    let other = esim("key", [1]);
    let ids: Vec<(&str, &str)> = other.devices[0]
        .ids
        .iter()
        .filter(|id| id.kind().as_str() == "iccid")
        .map(|id| (id.kind().as_str(), id.id()))
        .collect();
    let request = validate(&[&ids]).unwrap();
    assert_ne!(request.fingerprint_input(), other.fingerprint_input());
    assert_eq!(request.fingerprint_input(), validate(&[&ids]).unwrap().fingerprint_input());
    assert_eq!(request.operation.info().rpc, "ChangeServicePlan");
}
