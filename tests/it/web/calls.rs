//! Unary calls.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use prost::Message as _;
use serde_json::{Value, json};
use thingspace_gateway::proto::{
    ChangeState, GetChangeRequest, GetChangeResponse, GetServerInfoRequest, GetServerInfoResponse,
    ListDevicesRequest, ListDevicesResponse,
};
use tonic_types::pb;

use super::{UNKNOWN_CHANGE, answer, detail, esim_json, json_call, post, send};
use crate::support::{
    env::TestEnv,
    http::http_client,
    requests::{ACCOUNT, esim, id},
    thingspace::{CallKind, FakeResponse},
    wait::in_time,
};

#[tokio::test]
async fn a_change_in_json_is_the_same_change_as_one_over_grpc() {
    let env = TestEnv::start().await;
    env.thingspace.respond_once(CallKind::Change, FakeResponse::Accepted("r-1".into()));
    let (status, response) =
        answer(json_call(env.gateway.grpc, "ChangeEsimPlan", &esim_json("k", 0..3))).await;
    assert_eq!(status, 200, "{response}");
    let change = &response["change"];
    assert_eq!(change["state"], "CHANGE_STATE_ACCEPTED");
    assert_eq!(change["deviceCount"], 3);
    assert_eq!(change["clientReference"], "job-7");
    // The same key and content over gRPC, and again in JSON.
    let again = env.change(esim("k", 0..3)).await;
    assert_eq!(Value::from(again.change_id), change["changeId"]);
    let (status, again) =
        answer(json_call(env.gateway.grpc, "ChangeEsimPlan", &esim_json("k", 0..3))).await;
    assert_eq!((status, &again["change"]["changeId"]), (200, &change["changeId"]));
    assert_eq!(env.thingspace.posts(), 1);
    // Other content with the same key.
    let (status, error) =
        answer(json_call(env.gateway.grpc, "ChangeEsimPlan", &esim_json("k", 0..4))).await;
    assert_eq!((status, &error["code"]), (400, &json!("failed_precondition")));
    let info = detail(&error, "google.rpc.ErrorInfo");
    assert_eq!(info["reason"], "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(info["metadata"]["executed"], "NO");
}

#[tokio::test]
async fn the_binary_encoding_and_json_have_the_same_content() {
    let env = TestEnv::start().await;
    let change = env.change(esim("k", 0..3)).await;
    let proto = async |method: &str, message: Vec<u8>| {
        let response =
            send(post(&http_client(), env.gateway.grpc, method, "application/proto", message))
                .await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/proto".parse().unwrap())
        );
        in_time(response.bytes()).await.unwrap()
    };
    let get = GetChangeRequest { change_id: change.change_id.clone(), ..Default::default() };
    let got = GetChangeResponse::decode(proto("GetChange", get.encode_to_vec()).await).unwrap();
    assert_eq!(got.change.as_ref().map(|change| change.state()), Some(ChangeState::Accepted));
    assert_eq!(got.change, Some(env.get("k").await));
    let list = ListDevicesRequest {
        change_id: change.change_id.clone(),
        device: Some(id("iccid", crate::support::requests::iccid(1))),
        ..Default::default()
    };
    let devices =
        ListDevicesResponse::decode(proto("ListDevices", list.encode_to_vec()).await).unwrap();
    let (_, in_json) = answer(json_call(
        env.gateway.grpc,
        "ListDevices",
        &json!({ "change_id": change.change_id, "device": { "kind": "iccid", "id": crate::support::requests::iccid(1) } }),
    ))
    .await;
    assert_eq!(devices.devices.len(), 1);
    assert_eq!(in_json["devices"][0]["deviceIndex"], 1);
    let info = proto("GetServerInfo", GetServerInfoRequest {}.encode_to_vec()).await;
    let info = GetServerInfoResponse::decode(info).unwrap();
    let (_, in_json) = answer(json_call(env.gateway.grpc, "GetServerInfo", &json!({}))).await;
    assert_eq!(in_json["version"], info.version);
    assert_eq!(in_json["journalDurability"], "DURABILITY_SYNCED");
}

#[tokio::test]
async fn an_error_names_every_invalid_field_and_has_the_details_of_grpc() {
    let env = TestEnv::start().await;
    let request = json!({ "accountName": "0", "servicePlan": "no<plan", "idempotencyKey": "k", "devices": [{ "eid": "1" }] });
    let response = send(json_call(env.gateway.grpc, "ChangeEsimPlan", &request)).await;
    assert_eq!(response.status().as_u16(), 400);
    assert_eq!(response.headers()["content-type"], "application/json");
    let error: Value = serde_json::from_str(&in_time(response.text()).await.unwrap()).unwrap();
    assert_eq!(error["code"], "invalid_argument");
    let fields = detail(&error, "google.rpc.BadRequest")["fieldViolations"].as_array().unwrap();
    let fields: Vec<_> = fields.iter().map(|field| field["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["account_name", "service_plan", "devices[0].eid", "devices[0].iccid"]);
    // The binary form of a detail is that of gRPC.
    let info = &error["details"]
        .as_array()
        .unwrap()
        .iter()
        .find(|detail| detail["type"] == "google.rpc.ErrorInfo")
        .unwrap();
    let value = STANDARD_NO_PAD.decode(info["value"].as_str().unwrap()).unwrap();
    let value = pb::ErrorInfo::decode(value.as_slice()).unwrap();
    assert_eq!(
        (value.reason.as_str(), value.metadata["executed"].as_str()),
        ("FIELD_INVALID", "NO")
    );
    assert_eq!(env.thingspace.posts(), 0);
}

#[tokio::test]
async fn malformed_json_names_the_position_and_the_field_but_no_value() {
    let env = TestEnv::start().await;
    // Also in errors that the log has: the support code searches it for planted texts.
    let planted = "planted-name-in-json";
    for (text, expected) in [
        (format!("{{\"accountName\": \"{planted}\""), "the text ends too early"),
        (
            format!("{{\"accountName\": {planted}}}"),
            "invalid JSON in account_name at line 1, column 17",
        ),
        (format!("{{\"{planted}\": 1}}"), "unknown field at line 1"),
        (
            format!("{{\"devices\":\n [{{}}, {{\"eid\": {{\"{planted}\": 1}}}}]}}"),
            " in devices[1].eid at line 2",
        ),
        (format!("{{\"devices\": [{{\"{planted}\": 1}}]}}"), "unknown field in devices[0] at"),
    ] {
        let request = post(
            &http_client(),
            env.gateway.grpc,
            "ChangeEsimPlan",
            "application/json",
            text.clone(),
        );
        let (status, error) = answer(request).await;
        let message = error["message"].as_str().unwrap();
        assert_eq!((status, &error["code"]), (400, &json!("invalid_argument")), "{text}");
        assert!(message.contains(expected), "{text}: {message}");
        let info = detail(&error, "google.rpc.ErrorInfo");
        assert_eq!(
            (&info["reason"], &info["metadata"]["executed"]),
            (&json!("MALFORMED"), &json!("NO"))
        );
    }
    assert_eq!(env.thingspace.posts(), 0);
}

#[tokio::test]
async fn errors_have_the_http_status_of_their_code_and_the_delay_before_a_retry() {
    let env = TestEnv::start().await;
    let (status, error) =
        answer(json_call(env.gateway.grpc, "GetChange", &json!({ "changeId": UNKNOWN_CHANGE })))
            .await;
    assert_eq!((status, &error["code"]), (404, &json!("not_found")), "{error}");
    let (status, error) = answer(json_call(env.gateway.grpc, "NoSuchMethod", &json!({}))).await;
    assert_eq!((status, &error["code"]), (501, &json!("unimplemented")), "{error}");
    // The deadline of the client.
    let mut held = env.thingspace.hold(CallKind::Change);
    let request = json_call(env.gateway.grpc, "ChangeEsimPlan", &esim_json("late", 5..6))
        .header("connect-timeout-ms", "3000");
    let ((status, error), _request) = tokio::join!(answer(request), held.arrived());
    assert_eq!((status, &error["code"]), (504, &json!("deadline_exceeded")), "{error}");
    assert_eq!(detail(&error, "google.rpc.ErrorInfo")["metadata"]["executed"], "UNKNOWN");
    drop(held);
    env.thingspace.respond_once(CallKind::Change, FakeResponse::empty(429));
    let response = send(json_call(env.gateway.grpc, "ChangeEsimPlan", &esim_json("k", 0..1))).await;
    assert_eq!(response.status().as_u16(), 429);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds >= 1);
    let list = json!({ "accountName": ACCOUNT, "pageSize": 1 });
    assert_eq!(answer(json_call(env.gateway.grpc, "ListChanges", &list)).await.0, 200);
}
