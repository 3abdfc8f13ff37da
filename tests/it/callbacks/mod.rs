//! From a callback on the wire to an event in a watch.

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
    gateway::{Setup, TestDir},
    requests::{
        Watch, WatchTranscript, change_esim, change_five_g_bi, deliver, eid, esim, esim_callback,
        esim_failure, five_g_bi, five_g_bi_callback, iccid, id, meid, post, summarize,
        until_caught_up, watch_change, watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

mod early;

const REQUEST: &str = "d1f08526-5443-4054-9a29-4456490ea9f8";
const OTHER: &str = "c8de7c1d-59b9-4cf3-b969-db76cb2ce509";

#[tokio::test]
async fn the_documented_callbacks_reach_a_watch_with_their_typed_detail() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;

    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("esim", [7])).await;
    assert_eq!(change.request_ids, [REQUEST]);
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    watch.read_until("state ACCEPTED").await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 7)).await;
    let story = watch.read_to_end().await;
    assert_eq!(story.short(), ["result 0 SUCCEEDED", "finished FINISHED"]);
    let result = &story.results()[0];
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
    assert_eq!(
        (result.callback_count, result.max_callback_threshold),
        (1, 4)
    );
    assert_eq!(result.client_reference, "row-7");
    assert_eq!(result.sent_ids, [id("eid", eid(7)), id("iccid", iccid(7))]);
    let kinds: Vec<&str> = result.device_ids.iter().map(|id| &*id.kind).collect();
    assert_eq!(kinds, ["eid", "imei", "msisdn", "iccid"]);
    assert_eq!(result.device_ids[3].id, iccid(7));
    assert!(result.receive_time.is_some());
    assert_eq!((&*result.evidence, &*result.raw_json), ("", ""));

    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(OTHER.into()));
    let change = change_five_g_bi(&mut client, five_g_bi("5g", [7])).await;
    let request = WatchRequestRequest {
        include_raw: true,
        ..watch_change(&change)
    };
    let mut watch = Watch::open(&mut client, request).await;
    watch.read_until("state ACCEPTED").await;
    let callback = five_g_bi_callback(OTHER, "5125550142");
    deliver(&gateway.callback_url("CarrierService"), &callback).await;
    let story = watch.read_to_end().await;
    assert_eq!(story.short(), ["result 0 SUCCEEDED", "finished FINISHED"]);
    let result = &story.results()[0];
    let date = PlanChangeDetails {
        effective_date_text: "5/31/2018 12:00:00 AM".into(),
        effective_date: "2018-05-31".into(),
    };
    assert_eq!(result.service_plan_change, Some(date));
    assert_eq!(result.esim_profile, None);
    // Sent by MEID, answered by MDN: the one device that was sent.
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
    let Some(Event::Finished(finished)) = &story.messages[1].event else {
        panic!("finished is last");
    };
    let change = finished.change.as_ref().expect("a change");
    let counts = (
        change.succeeded_count,
        change.failed_count,
        change.pending_count,
    );
    assert_eq!((counts, change.unmatched_count), ((1, 0, 0), 0));
    assert!(change.finish_time.is_some());
}

#[tokio::test]
async fn a_callback_that_is_sent_again_is_one_event_however_it_is_counted_and_spelled() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("again", [1, 2])).await;
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    watch.read_until("state ACCEPTED").await;

    let url = gateway.callback_url("DeviceProfileService");
    let mut posts = JoinSet::new();
    for count in [1, 1, 2, 2, 3] {
        let mut callback = esim_callback(REQUEST, 1);
        callback["callbackCount"] = json!(count);
        if count == 3 {
            // As text, and the identifiers in another order and case.
            callback["callbackCount"] = json!("3");
            let ids = callback["deviceIds"].as_array_mut().unwrap();
            ids.reverse();
            ids[0]["kind"] = json!("ICCID");
        }
        let url = url.clone();
        posts.spawn(async move { post(&url, callback.to_string()).await });
    }
    let mut answers: Vec<String> = posts
        .join_all()
        .await
        .into_iter()
        .map(|(status, body)| format!("{status} {}", body["stored"].as_str().unwrap()))
        .collect();
    answers.sort_unstable();
    let duplicates = ["200 duplicate"; 4].into_iter();
    assert_eq!(answers, duplicates.chain(["200 new"]).collect::<Vec<_>>());

    // What comes next in the watch is the one, and then the other device's.
    assert_eq!(summarize(&watch.next().await), "result 0 SUCCEEDED");
    deliver(&url, &esim_failure(REQUEST, 2)).await;
    let story = watch.read_to_end().await;
    assert_eq!(story.short(), ["result 1 FAILED", "finished FINISHED"]);
    let fault = story.results()[0].fault.clone().expect("a fault");
    assert_eq!(
        fault.code,
        "UnifiedWebService.REQUEST_FAILED.DeviceNotFound"
    );
    // Also after a restart it is known.
    assert_eq!(gateway.terminate().await.0, Some(0));
    let gateway = setup.start().await;
    let url = gateway.callback_url("DeviceProfileService");
    let again = post(&url, esim_callback(REQUEST, 1).to_string()).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
}

#[tokio::test]
async fn invalid_callbacks_get_their_documented_response_and_the_process_survives() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .env("TSGW_CALLBACKS__USERNAME", "planted-callback-username")
        .env("TSGW_CALLBACKS__PASSWORD", "planted-callback-password")
        .env("TSGW_CALLBACKS__PATH_SECRET", "planted-path-secret");
    let gateway = setup.start().await;
    let service = gateway.callback_url("CarrierService");
    let url = format!("{service}/planted-path-secret");
    let good = five_g_bi_callback(REQUEST, "5125550142");
    let whole = good.to_string();

    let malformed: [(&str, Vec<u8>); 8] = [
        ("empty", Vec::new()),
        (
            "cut in the middle",
            whole.as_bytes()[..whole.len() / 2].to_vec(),
        ),
        ("200,000 brackets", vec![b'['; 200_000]),
        ("200,000 objects", br#"{"a":"#.repeat(40_000)),
        ("not UTF-8", b"{\"requestId\":\"\xff\xfe\x80\"}".to_vec()),
        ("not an object", b"[1]".to_vec()),
        ("without a request id", b"{\"deviceIds\":[]}".to_vec()),
        (
            "with an empty request id",
            b"{\"requestId\":\" \"}".to_vec(),
        ),
    ];
    for (what, body) in malformed {
        // Behind the path secret it is kept, and refused anywhere else.
        let (status, answer) = post(&url, body.clone()).await;
        assert_eq!(
            (status, answer),
            (200, json!({"stored": "quarantined"})),
            "{what}"
        );
        let (status, answer) = post(&service, body).await;
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("malformed")),
            "{what}"
        );
    }
    let (status, answer) = post(&url, vec![b' '; 2 << 20]).await;
    assert_eq!((status, &answer["error"]), (413, &json!("too_large")));

    let without = |change: &dyn Fn(&mut Value)| {
        let mut callback = good.clone();
        change(&mut callback);
        callback.to_string()
    };
    let wrong = without(&|callback| callback["password"] = json!("wrong-password"));
    let bare = without(&|callback| {
        callback
            .as_object_mut()
            .unwrap()
            .retain(|name, _| name.contains("Id"));
    });
    for (what, url, body, expected) in [
        (
            "wrong password",
            service.clone(),
            wrong.clone(),
            (401, "unauthorized"),
        ),
        ("no password", service.clone(), bare, (401, "unauthorized")),
        (
            "wrong secret",
            format!("{service}/planted-path-secreT"),
            whole.clone(),
            (404, "not_found"),
        ),
        (
            "another path",
            format!("http://{}/", gateway.callbacks),
            whole.clone(),
            (404, "not_found"),
        ),
    ] {
        let (status, answer) = post(&url, body).await;
        assert_eq!(
            (status, answer["error"].as_str().unwrap()),
            expected,
            "{what}"
        );
    }
    let (status, answer) = post(&url, wrong).await;
    assert_eq!((status, answer), (200, json!({"stored": "quarantined"})));
    let browser = reqwest::Client::builder().no_proxy().build().unwrap();
    let got = browser.get(&url).send().await.expect("an answer");
    assert_eq!(got.status(), 405);

    // A body that breaks off, with a peer that then goes away.
    let mut stream = TcpStream::connect(gateway.callbacks).await.unwrap();
    let head = "POST /callbacks/CarrierService/planted-path-secret HTTP/1.1\r\n\
                Host: localhost\r\nContent-Length: 1000\r\n\r\n{\"requestId\"";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    // What it says to somebody who hung up is its business.
    let _read = stream.read_to_string(&mut answer).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");

    // Nothing of it was stored; another content type keeps nothing out; and
    // the password alone will do.
    let answer = browser.post(&url).header("content-type", "text/html");
    let answer = answer.body(whole.clone()).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let again = post(&service, whole).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    let mut client = gateway.client().await;
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_request(REQUEST))).await;
    assert_eq!(
        story.short(),
        ["opened -", "result - SUCCEEDED", "bookmark"]
    );
    let live = browser.get(format!("http://{}/livez", gateway.admin));
    assert_eq!(live.send().await.expect("an answer").status(), 200);
    let (code, log) = gateway.terminate().await;
    assert_eq!(code, Some(0));
    for secret in ["planted-path-secret", "wrong-password", "5125550142"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
