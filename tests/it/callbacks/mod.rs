//! Callbacks: delivery as events, duplicates and rejections.

use serde_json::{Value, json};
use thingspace_gateway::proto::{
    EsimProfile, Match, PlanChangeDetails, Source, WatchRequestRequest,
    watch_request_response::Event,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    env::TestEnv,
    gateway::GatewayExit,
    http::{http_client, post},
    requests::{
        deliver, eid, esim, esim_callback, esim_failure, five_g_bi, five_g_bi_callback, iccid, id,
        meid, summarize, until_caught_up, watch_change, watch_request,
    },
};

mod early;

const REQUEST: &str = "d1f08526-5443-4054-9a29-4456490ea9f8";
const OTHER: &str = "c8de7c1d-59b9-4cf3-b969-db76cb2ce509";

#[tokio::test]
async fn the_documented_callbacks_are_delivered_to_a_watch_with_typed_details() {
    let env = TestEnv::start().await;

    let change = env.change_as(REQUEST, esim("esim", [7])).await;
    assert_eq!(change.request_ids, [REQUEST]);
    let mut watch = env.watch(watch_change(&change)).await;
    watch.read_until("state ACCEPTED").await;
    let url = env.gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 7)).await;
    let transcript = watch.read_to_end().await;
    assert_eq!(transcript.summaries(), ["result 0 SUCCEEDED", "finished FINISHED"]);
    let result = &transcript.results()[0];
    let profile = EsimProfile {
        state: "ACTIVE".into(),
        profile_status: "ENABLE".into(),
        profile_role: "LOCAL".into(),
    };
    assert_eq!(result.esim_profile, Some(profile));
    assert_eq!(result.service_plan_change, None);
    assert_eq!(result.change_id, change.change_id);
    assert_eq!(result.request_id, REQUEST);
    assert_eq!(result.r#match(), Match::Exact);
    assert_eq!(result.source(), Source::Callback);
    assert_eq!(result.status_text, "SUCCESS");
    assert_eq!(result.fault, None);
    assert_eq!((result.callback_count, result.max_callback_threshold), (1, 4));
    assert_eq!(result.client_reference, "row-7");
    assert_eq!(result.sent_ids, [id("eid", eid(7)), id("iccid", iccid(7))]);
    let kinds: Vec<&str> = result.device_ids.iter().map(|id| &*id.kind).collect();
    assert_eq!(kinds, ["eid", "imei", "msisdn", "iccid"]);
    assert_eq!(result.device_ids[3].id, iccid(7));
    assert!(result.receive_time.is_some());
    assert_eq!((&*result.evidence, &*result.raw_json), ("", ""));

    let change = env.change_as(OTHER, five_g_bi("5g", [7])).await;
    let request = WatchRequestRequest { include_raw: true, ..watch_change(&change) };
    let mut watch = env.watch(request).await;
    watch.read_until("state ACCEPTED").await;
    let callback = five_g_bi_callback(OTHER, "5125550142");
    deliver(&env.gateway.callback_url("CarrierService"), &callback).await;
    let transcript = watch.read_to_end().await;
    assert_eq!(transcript.summaries(), ["result 0 SUCCEEDED", "finished FINISHED"]);
    let result = &transcript.results()[0];
    let date = PlanChangeDetails {
        effective_date_text: "5/31/2018 12:00:00 AM".into(),
        effective_date: "2018-05-31".into(),
    };
    assert_eq!(result.service_plan_change, Some(date));
    assert_eq!(result.esim_profile, None);
    // The callback names an MDN. The request has only one device.
    assert_eq!(result.r#match(), Match::Assumed);
    assert_eq!(result.sent_ids, [id("meid", meid(7))]);
    assert_eq!(result.device_ids, [id("mdn", "5125550142")]);
    assert_eq!(result.status_text, "");
    let raw: Value = serde_json::from_str(&result.raw_json).expect("JSON");
    assert_eq!(
        raw,
        json!({
            "requestId": OTHER,
            "deviceIds": callback["deviceIds"],
            "deviceResponse": callback["deviceResponse"],
        })
    );
    let Some(Event::Finished(finished)) = &transcript.messages[1].event else {
        panic!("finished is last");
    };
    let change = finished.change.as_ref().expect("a change");
    let counts = (change.succeeded_count, change.failed_count, change.pending_count);
    assert_eq!((counts, change.unmatched_count), ((1, 0, 0), 0));
    assert!(change.finish_time.is_some());
}

#[tokio::test]
async fn a_repeated_callback_is_one_event_even_with_another_count_and_spelling() {
    let mut env = TestEnv::start().await;
    let change = env.change_as(REQUEST, esim("again", [1, 2])).await;
    let mut watch = env.watch(watch_change(&change)).await;
    watch.read_until("state ACCEPTED").await;

    let url = env.gateway.callback_url("DeviceProfileService");
    let mut posts = JoinSet::new();
    for count in [1, 1, 2, 2, 3] {
        let mut callback = esim_callback(REQUEST, 1);
        callback["callbackCount"] = json!(count);
        if count == 3 {
            // The count is a text, and the identifiers have another order and case.
            callback["callbackCount"] = json!("3");
            let ids = callback["deviceIds"].as_array_mut().unwrap();
            ids.reverse();
            ids[0]["kind"] = json!("ICCID");
        }
        let url = url.clone();
        posts.spawn(async move { post(&url, callback.to_string()).await });
    }
    let mut responses: Vec<String> = posts
        .join_all()
        .await
        .into_iter()
        .map(|(status, body)| format!("{status} {}", body["stored"].as_str().unwrap()))
        .collect();
    responses.sort_unstable();
    let duplicates = ["200 duplicate"; 4].into_iter();
    assert_eq!(responses, duplicates.chain(["200 new"]).collect::<Vec<_>>());

    // The watch gets one event for the device, and then the other device's.
    assert_eq!(summarize(&watch.next().await), "result 0 SUCCEEDED");
    deliver(&url, &esim_failure(REQUEST, 2)).await;
    let transcript = watch.read_to_end().await;
    assert_eq!(transcript.summaries(), ["result 1 FAILED", "finished FINISHED"]);
    let fault = transcript.results()[0].fault.clone().expect("a fault");
    assert_eq!(fault.code, "UnifiedWebService.REQUEST_FAILED.DeviceNotFound");
    // It is a duplicate after a restart as well.
    env.restart().await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let again = post(&url, esim_callback(REQUEST, 1).to_string()).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
}

#[tokio::test]
async fn invalid_callbacks_get_their_documented_response_and_the_process_survives() {
    let mut env = TestEnv::start_with(|setup| {
        setup
            .env("TSGW_CALLBACKS__USERNAME", "planted-callback-username")
            .env("TSGW_CALLBACKS__PASSWORD", "planted-callback-password")
            .env("TSGW_CALLBACKS__PATH_SECRET", "planted-path-secret")
    })
    .await;
    let service = env.gateway.callback_url("CarrierService");
    let url = format!("{service}/planted-path-secret");
    let good = five_g_bi_callback(REQUEST, "5125550142");
    let whole = good.to_string();

    let malformed: [(&str, Vec<u8>); 8] = [
        ("empty", Vec::new()),
        ("cut in the middle", whole.as_bytes()[..whole.len() / 2].to_vec()),
        ("200,000 brackets", vec![b'['; 200_000]),
        ("200,000 objects", br#"{"a":"#.repeat(40_000)),
        ("not UTF-8", b"{\"requestId\":\"\xff\xfe\x80\"}".to_vec()),
        ("not an object", b"[1]".to_vec()),
        ("without a request id", b"{\"deviceIds\":[]}".to_vec()),
        ("with an empty request id", b"{\"requestId\":\" \"}".to_vec()),
    ];
    for (what, body) in malformed {
        // With the path secret it is quarantined, without it rejected.
        let (status, response) = post(&url, body.clone()).await;
        assert_eq!((status, response), (200, json!({"stored": "quarantined"})), "{what}");
        let (status, response) = post(&service, body).await;
        assert_eq!((status, &response["error"]), (400, &json!("malformed")), "{what}");
    }
    let (status, response) = post(&url, vec![b' '; 2 << 20]).await;
    assert_eq!((status, &response["error"]), (413, &json!("too_large")));

    let without = |change: &dyn Fn(&mut Value)| {
        let mut callback = good.clone();
        change(&mut callback);
        callback.to_string()
    };
    let wrong = without(&|callback| callback["password"] = json!("wrong-password"));
    let bare = without(&|callback| {
        callback.as_object_mut().unwrap().retain(|name, _| name.contains("Id"));
    });
    for (what, url, body, expected) in [
        ("wrong password", service.clone(), wrong.clone(), (401, "unauthorized")),
        ("no password", service.clone(), bare, (401, "unauthorized")),
        (
            "wrong secret",
            format!("{service}/planted-path-secreT"),
            whole.clone(),
            (404, "not_found"),
        ),
        (
            "another path",
            format!("http://{}/", env.gateway.callbacks),
            whole.clone(),
            (404, "not_found"),
        ),
    ] {
        let (status, response) = post(&url, body).await;
        assert_eq!((status, response["error"].as_str().unwrap()), expected, "{what}");
    }
    let (status, response) = post(&url, wrong).await;
    assert_eq!((status, response), (200, json!({"stored": "quarantined"})));
    let http = http_client();
    let got = http.get(&url).send().await.expect("a response");
    assert_eq!(got.status(), 405);

    // An incomplete body of a peer that disconnects.
    let mut stream = TcpStream::connect(env.gateway.callbacks).await.unwrap();
    let head = "POST /callbacks/CarrierService/planted-path-secret HTTP/1.1\r\n\
                Host: localhost\r\nContent-Length: 1000\r\n\r\n{\"requestId\"";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut response = String::new();
    // Any response but 200 is allowed.
    let _read = stream.read_to_string(&mut response).await;
    assert!(!response.starts_with("HTTP/1.1 200"), "{response}");

    // None of these callbacks is stored. The content type does not matter, and the password alone
    // authenticates a callback.
    let request = http.post(&url).header("content-type", "text/html").body(whole.clone());
    assert_eq!(request.send().await.expect("a response").status(), 200);
    let again = post(&service, whole).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    let transcript = env.record(until_caught_up(watch_request(REQUEST))).await;
    assert_eq!(transcript.summaries(), ["opened -", "result - SUCCEEDED", "bookmark"]);
    let live = http.get(format!("http://{}/livez", env.gateway.admin));
    assert_eq!(live.send().await.expect("a response").status(), 200);
    let GatewayExit { code, log } = env.gateway.terminate().await;
    assert_eq!(code, Some(0));
    for secret in ["planted-path-secret", "wrong-password", "5125550142"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
