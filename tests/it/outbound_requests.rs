//! Requests to ThingSpace: their documented bodies, and the number of log-ins.

use serde_json::json;
use thingspace_gateway::proto::{ChangeState, CustomerName, PrimaryPlaceOfUse};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    env::TestEnv,
    requests::{
        ACCOUNT, eid, esim, expect_change_error, five_g_bi, iccid, id, make_change, meid,
        parse_error,
    },
    thingspace::{
        AuthRefusal, CallKind, ESIM_PLAN_PATH, FIVE_G_BI_PLAN_PATH, FakeResponse, LOGIN_PATH,
        RecordedRequest, TOKEN_PATH,
    },
};

/// Checks the parts of a change request that do not depend on the operation.
fn check_change(request: &RecordedRequest, method: &str, secrets: &[String; 2]) {
    let [token, session] = secrets;
    assert_eq!(request.method, method);
    assert_eq!(request.header("authorization"), format!("Bearer {token}"));
    assert_eq!(request.header("vz-m2m-token"), session);
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(
        request.header("content-length"),
        request.body.len().to_string(),
        "sent whole, not in chunks"
    );
}

#[tokio::test]
async fn an_esim_change_is_sent_as_documented() {
    let env = TestEnv::start().await;
    assert_eq!(env.thingspace.token_requests(), 0, "no log-in without need");

    let one = env.change(esim("one", [1])).await;
    assert_eq!(one.state(), ChangeState::Accepted);
    let two = env.change(esim("two", [2, 3])).await;
    assert_eq!(two.device_count, 2);

    let sent = env.thingspace.requests_to(ESIM_PLAN_PATH);
    assert_eq!(sent.len(), 2);
    for request in &sent {
        check_change(request, "POST", &env.thingspace.secrets());
    }
    let device = |number| {
        json!({"deviceIds": [
            {"kind": "eid", "id": eid(number)},
            {"kind": "iccid", "id": iccid(number)},
        ]})
    };
    assert_eq!(
        sent[0].json(),
        json!({
            "devices": [device(1)],
            "accountName": "0000123456-00001",
            "servicePlan": "service plan name",
        })
    );
    assert_eq!(sent[1].json()["devices"], json!([device(2), device(3)]));

    let token = &env.thingspace.requests_to(TOKEN_PATH)[0];
    assert_eq!(token.method, "POST");
    // Base64 of the key, a colon, and the secret.
    assert_eq!(
        token.header("authorization"),
        "Basic cGxhbnRlZC1hcHAta2V5OnBsYW50ZWQtYXBwLXNlY3JldA=="
    );
    assert_eq!(token.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(token.body, "grant_type=client_credentials");
    let log_in = &env.thingspace.requests_to(LOGIN_PATH)[0];
    assert_eq!(log_in.method, "POST");
    assert_eq!(log_in.header("content-type"), "application/json");
    let credentials = json!({
        "username": "planted-uws-username",
        "password": "planted-uws-password",
    });
    assert_eq!(log_in.json(), credentials);
    assert_eq!((env.thingspace.token_requests(), env.thingspace.login_count()), (1, 1));
}

#[tokio::test]
async fn a_5g_change_is_sent_as_documented_with_and_without_optional_members() {
    let env = TestEnv::start().await;

    env.change(five_g_bi("as documented", [1, 2])).await;

    let mut full = five_g_bi("all members", [3]);
    let place = full.devices[0].primary_place_of_use.as_mut().unwrap();
    place.address.as_mut().unwrap().zip4 = "4321".into();
    place.customer_name = Some(CustomerName {
        title: "Dr.".into(),
        first_name: "Zebedee #1".into(),
        middle_name: "X.".into(),
        last_name: "Quillfeather-Ng!".into(),
        suffix: "III".into(),
    });
    full.devices[0].device_ids.push(id("IMEI", "990000862471854"));
    env.change(full).await;

    let mut least = five_g_bi("least", [4]);
    least.current_service_plan.clear();
    let PrimaryPlaceOfUse { address, .. } = least.devices[0].primary_place_of_use.as_mut().unwrap();
    let address = address.as_mut().unwrap();
    address.address_line2.clear();
    address.country.clear();
    env.change(least).await;

    let sent = env.thingspace.requests_to(FIVE_G_BI_PLAN_PATH);
    assert_eq!(sent.len(), 3);
    for request in &sent {
        check_change(request, "POST", &env.thingspace.secrets());
    }
    let device = |number| {
        json!({
            "deviceIds": [{"id": meid(number), "kind": "MEID"}],
            "primaryPlaceOfUse": {
                "address": {
                    "addressLine1": "14 Wexcombe Crossing",
                    "addressLine2": "Quagga Annex",
                    "city": "Ogdenquist",
                    "state": "TX",
                    "country": "US",
                    "zip": "78660",
                },
                "customerName": {"firstName": "Zebedee", "lastName": "Quillfeather"},
            },
        })
    };
    assert_eq!(
        sent[0].json(),
        json!({
            "accountName": ACCOUNT,
            "servicePlan": "Name of the plan being changed to",
            "deviceListWithServiceAddress": [device(1), device(2)],
            "currentServicePlan": "Name of the plan being changed from",
        })
    );
    let full = &sent[1].json()["deviceListWithServiceAddress"][0];
    let kinds: Vec<String> = full["deviceIds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id["kind"].as_str().unwrap().to_lowercase())
        .collect();
    assert_eq!(kinds, ["meid", "imei"]);
    let place = &full["primaryPlaceOfUse"];
    assert_eq!(place["address"]["zip4"], "4321");
    assert_eq!(
        place["customerName"],
        json!({
            "title": "Dr.",
            "firstName": "Zebedee #1",
            "middleName": "X.",
            "lastName": "Quillfeather-Ng!",
            "suffix": "III",
        })
    );
    let mut expected = device(4);
    let address = expected["primaryPlaceOfUse"]["address"].as_object_mut();
    address.unwrap().remove("addressLine2");
    assert_eq!(
        sent[2].json(),
        json!({
            "accountName": ACCOUNT,
            "servicePlan": "Name of the plan being changed to",
            "deviceListWithServiceAddress": [expected],
        })
    );
}

#[tokio::test]
async fn a_5g_change_is_a_put_if_configured_and_an_esim_change_stays_a_post() {
    let env =
        TestEnv::start_with(|setup| setup.set("thingspace.five_g_bi_http_method", "PUT")).await;

    let change = env.change(five_g_bi("put", [1])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    env.change(esim("post", [1])).await;
    let secrets = env.thingspace.secrets();
    for (path, method) in [(FIVE_G_BI_PLAN_PATH, "PUT"), (ESIM_PLAN_PATH, "POST")] {
        check_change(&env.thingspace.requests_to(path)[0], method, &secrets);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_concurrent_calls_log_in_once_and_once_more_after_the_session_expired() {
    let env = TestEnv::start().await;

    for (round, log_ins) in [(0, 1), (1, 2)] {
        // All requests arrive before the first response.
        env.thingspace.gather(100);
        let mut calls = JoinSet::new();
        for number in round * 100..(round + 1) * 100 {
            let mut caller = env.client.clone();
            calls.spawn(async move {
                make_change(&mut caller, esim(&format!("key {number}"), [number])).await
            });
        }
        let changes = calls.join_all().await;
        assert!(changes.iter().all(|change| change.state() == ChangeState::Accepted));
        assert_eq!(env.thingspace.executed(), (round + 1) * 100, "each once");
        assert_eq!(env.thingspace.login_count(), log_ins);
        assert_eq!(env.thingspace.token_requests(), 1);
        env.thingspace.expire(AuthRefusal::SessionExpired);
    }
    assert_eq!(env.thingspace.posts(), 300, "those that were refused were sent once more");
}

#[tokio::test]
async fn an_expired_token_or_session_is_renewed_and_the_request_retried_once_for_every_refusal_format()
 {
    let env = TestEnv::start().await;
    env.change(esim("first", [0])).await;

    let mut number = 0;
    for refusal in AuthRefusal::ALL {
        number += 1;
        let (posts, executed) = (env.thingspace.posts(), env.thingspace.executed());
        env.thingspace.expire(refusal);
        let change = env.change(esim(&format!("{refusal:?}"), [number])).await;
        assert_eq!(change.state(), ChangeState::Accepted, "{refusal:?}");
        assert_eq!(env.thingspace.posts() - posts, 2, "{refusal:?}");
        assert_eq!(env.thingspace.executed() - executed, 1, "{refusal:?}");
        let sent = env.thingspace.requests_to(ESIM_PLAN_PATH);
        let [.., first, second] = sent.as_slice() else {
            panic!("two were sent");
        };
        assert_eq!(first.body, second.body);

        // A second refusal ends the retries.
        let posts = env.thingspace.posts();
        env.thingspace.respond_once(CallKind::Change, refusal.fake_response());
        env.thingspace.respond_once(CallKind::Change, refusal.fake_response());
        let key = format!("{refusal:?} twice");
        let status = env.change_error(esim(&key, [100 + number])).await;
        let expected = (Code::FailedPrecondition, "GATEWAY_CREDENTIALS", "LATER", Some("NO"));
        assert_eq!(parse_error(&status).summary(), expected, "{refusal:?}");
        assert_eq!(env.thingspace.posts() - posts, 2, "{refusal:?}");
        // Nothing was executed, so the same key can send the change.
        let change = env.change(esim(&key, [100 + number])).await;
        assert_eq!(change.state(), ChangeState::Accepted, "{refusal:?}");
    }
}

#[tokio::test]
async fn refused_credentials_are_not_retried_at_once_by_concurrent_calls() {
    let env = TestEnv::start().await;
    let code = "UnifiedWebService.REQUEST_FAILED.Credentials";
    for _ in 0..40 {
        env.thingspace
            .respond_once(CallKind::Login, FakeResponse::error(400, code, "Wrong password"));
    }
    for round in 0..2 {
        let mut calls = JoinSet::new();
        for number in round * 20..(round + 1) * 20 {
            let mut caller = env.client.clone();
            calls.spawn(async move {
                expect_change_error(&mut caller, esim(&format!("key {number}"), [number])).await
            });
        }
        for status in calls.join_all().await {
            let expected = (Code::FailedPrecondition, "GATEWAY_CREDENTIALS", "LATER", Some("NO"));
            assert_eq!(parse_error(&status).summary(), expected);
        }
    }
    // The second attempt follows a minute later. The fifth would lock the account.
    assert_eq!(env.thingspace.login_count(), 1);
    assert_eq!(env.thingspace.posts(), 0);
}

#[tokio::test]
async fn ten_thousand_devices_with_the_longest_addresses_are_one_post_and_one_more_is_rejected() {
    let env = TestEnv::start().await;
    let mut request = five_g_bi("many", 0..10_000);
    for device in &mut request.devices {
        let place = device.primary_place_of_use.as_mut().unwrap();
        let address = place.address.as_mut().unwrap();
        address.address_line1 = "1".repeat(60);
        address.address_line2 = "é".repeat(60);
        address.city = "c".repeat(40);
        address.zip4 = "4321".into();
        place.customer_name = Some(CustomerName {
            title: "t".repeat(20),
            first_name: "f".repeat(20),
            middle_name: "m".repeat(20),
            last_name: "l".repeat(25),
            suffix: "s".repeat(20),
        });
        device.client_reference = "r".repeat(64);
    }
    let mut more = request.clone();
    more.idempotency_key = "one more".into();
    more.devices.push(five_g_bi("", [10_000]).devices.remove(0));
    let change = env.change(request).await;
    assert_eq!((change.device_count, change.pending_count), (10_000, 10_000));
    let body = env.thingspace.requests_to(FIVE_G_BI_PLAN_PATH)[0].json();
    let devices = body["deviceListWithServiceAddress"].as_array().unwrap();
    assert_eq!(devices.len(), 10_000);
    assert_eq!(devices[9_999]["deviceIds"][0]["id"], meid(9_999));

    let status = env.change_error(more).await;
    let error = parse_error(&status);
    assert_eq!((&*error.reason, &*error.fields), ("FIELD_INVALID", &["devices".into()][..]));
    assert!(status.message().contains("changes.max_devices_per_request"));
    assert_eq!(env.thingspace.posts(), 1);
}
