//! What errors tell, and what is told nowhere.

use std::path::Path;

use prost::Message as _;
use serde_json::json;
use thingspace_gateway::proto::{EsimDevice, ListChangesRequest};
use tonic::Code;

use super::REQUEST;
use crate::support::{
    gateway::{Setup, TestDir},
    raw,
    requests::{
        PERSONAL, change_five_g_bi, deliver, esim, expect_esim_error, five_g_bi,
        five_g_bi_callback, parse_error, post,
    },
    thingspace::{AuthRefusal, CallKind, FakeResponse, FakeThingSpace},
};

#[tokio::test]
async fn every_error_has_its_error_info_those_of_the_grpc_library_included() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("grpc.max_message_bytes", "65536")
        .start()
        .await;
    let mut client = gateway.client().await;

    let mut large = esim("large", 0..1_500);
    large.validate_only = true;
    let large_error = parse_error(&expect_esim_error(&mut client, large).await);
    let expected = (
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
        "NEVER",
        Some("NO"),
    );
    assert_eq!(large_error.summary(), expected);

    let change = raw::method("ChangeEsimPlan");
    let get = raw::method("GetChange");
    let watch = raw::method("WatchRequest");
    let malformed = raw::frame(&[0xff; 40]);
    let mut compressed = raw::frame(b"");
    compressed[0] = 1;
    let mut no_flag = raw::frame(b"");
    no_flag[0] = 77;
    let mut cut = raw::frame(&[0x0a; 64]);
    cut.truncate(20);
    let unknown_service = "/thingspace.gateway.v2.GatewayService/GetChange".to_owned();
    let reflection = "/grpc.reflection.v1.ServerReflection/Nothing".to_owned();
    let (no, none) = (Some("NO"), None);
    for (what, path, body, code, reason, executed) in [
        (
            "no protobuf",
            &change,
            malformed.clone(),
            Code::InvalidArgument,
            "MALFORMED",
            no,
        ),
        (
            "no protobuf",
            &get,
            malformed.clone(),
            Code::InvalidArgument,
            "MALFORMED",
            none,
        ),
        (
            "no protobuf",
            &watch,
            malformed,
            Code::InvalidArgument,
            "MALFORMED",
            none,
        ),
        (
            "no such flag",
            &change,
            no_flag,
            Code::InvalidArgument,
            "MALFORMED",
            no,
        ),
        (
            "a cut frame",
            &change,
            cut,
            Code::InvalidArgument,
            "MALFORMED",
            no,
        ),
        (
            "no frame",
            &get,
            Vec::new(),
            Code::InvalidArgument,
            "MALFORMED",
            none,
        ),
        (
            "two messages",
            &get,
            [raw::frame(b""), raw::frame(b"")].concat(),
            Code::InvalidArgument,
            "",
            none,
        ),
        (
            "too large",
            &change,
            raw::frame(&vec![0; 70_000]),
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
            no,
        ),
        (
            "unknown method",
            &raw::method("Nothing"),
            raw::frame(b""),
            Code::Unimplemented,
            "UNIMPLEMENTED",
            none,
        ),
        (
            "unknown service",
            &unknown_service,
            raw::frame(b""),
            Code::Unimplemented,
            "UNIMPLEMENTED",
            none,
        ),
        (
            "unknown method of another service",
            &reflection,
            raw::frame(b""),
            Code::Unimplemented,
            "UNIMPLEMENTED",
            none,
        ),
    ] {
        let ended = raw::call(&gateway, path, &[], body).await;
        let error = parse_error(&ended.status);
        // What is wrong with a call of two messages may be said in two ways.
        let reason = if reason.is_empty() {
            &error.reason
        } else {
            reason
        };
        let expected = (code, reason, "NEVER", executed);
        assert_eq!(error.summary(), expected, "{what}: {:?}", ended.status);
    }
    let compressed = raw::call(&gateway, &get, &[], compressed).await;
    parse_error(&compressed.status);
    let unknown = [("grpc-encoding", "snappy")];
    let encoded = raw::call(&gateway, &get, &unknown, raw::frame(b"")).await;
    assert_eq!(
        parse_error(&encoded.status).summary().0,
        Code::Unimplemented
    );
    assert_eq!(thingspace.posts(), 0);
    // And the connection that the others share has not suffered.
    assert!(
        client
            .list_changes(ListChangesRequest::default())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn all_field_violations_are_listed_by_path_within_eight_kib() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    let mut three = five_g_bi("three", [1, 1]);
    three.service_plan = "it's <new>".into();
    let place = three.devices[0].primary_place_of_use.as_mut().unwrap();
    place.address.as_mut().unwrap().address_line1 = "PO Box 12".into();
    let status = client.change_five_g_bi_plan(three).await.unwrap_err();
    let three_error = parse_error(&status);
    let mut fields = three_error.fields.clone();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "devices[0].primary_place_of_use.address.address_line1",
            "devices[1].device_ids[0].id",
            "service_plan",
        ],
        "{status:?}"
    );
    for text in ["PO Box 12", "it's"] {
        assert!(!status.message().contains(text), "{status:?}");
    }

    let mut many = esim("many", 0..9_000);
    for device in &mut many.devices {
        *device = EsimDevice {
            eid: "é'<\\".repeat(50),
            iccid: "x".repeat(100),
            client_reference: "r".repeat(65),
        };
    }
    let body = raw::frame(&many.encode_to_vec());
    let ended = raw::call(&gateway, &raw::method("ChangeEsimPlan"), &[], body).await;
    let many_error = parse_error(&ended.status);
    let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", Some("NO"));
    assert_eq!(many_error.summary(), expected);
    assert!(ended.metadata_bytes < 8_000, "{}", ended.metadata_bytes);
    assert!(many_error.fields.len() >= 10, "{}", many_error.fields.len());
    let number = |name: &str| many_error.metadata[name].parse::<usize>().unwrap();
    assert_eq!(number("violations_listed"), many_error.fields.len());
    assert!(number("violations_total") >= 9_000, "{many_error:?}");

    // What ThingSpace says is bounded as well.
    let talk = "\u{1f4a5}é\"".repeat(20_000);
    let answer = FakeResponse::error(400, &"Very.Long".repeat(1_000), &talk);
    thingspace.respond_once(CallKind::Change, answer);
    let body = raw::frame(&esim("talk", [1]).encode_to_vec());
    let ended = raw::call(&gateway, &raw::method("ChangeEsimPlan"), &[], body).await;
    assert_eq!(parse_error(&ended.status).reason, "THINGSPACE_REFUSED");
    assert!(ended.metadata_bytes < 8_000, "{}", ended.metadata_bytes);
}

#[tokio::test]
async fn secrets_names_and_addresses_are_in_no_log_no_error_and_no_file() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("telemetry.log_filter", "debug,thingspace_gateway=trace")
        .env("TSGW_CALLBACKS__USERNAME", "planted-callback-username")
        .env("TSGW_CALLBACKS__PASSWORD", "planted-callback-password")
        .env("TSGW_CALLBACKS__PATH_SECRET", "planted-path-secret");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let [token, session] = thingspace.secrets();

    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    change_five_g_bi(&mut client, five_g_bi("accepted", [1, 2])).await;
    // ThingSpace repeats what it was sent in what it says.
    let echo = format!(
        "{} {} {token} {session}",
        PERSONAL.join(" "),
        "planted-uws-password"
    );
    let code = "UnifiedWebService.INPUT_INVALID.Request.InvalidCharacter";
    thingspace.respond_once(CallKind::Change, FakeResponse::error(400, code, &echo));
    let refused = client
        .change_five_g_bi_plan(five_g_bi("refused", [3]))
        .await;
    thingspace.respond_once(
        CallKind::Change,
        FakeResponse::Custom(500, Vec::new(), echo.clone()),
    );
    change_five_g_bi(&mut client, five_g_bi("unknown", [4])).await;
    // Wrong in every way: nothing of it is repeated.
    let mut invalid = five_g_bi("", [5]);
    let place = invalid.devices[0].primary_place_of_use.as_mut().unwrap();
    for text in PERSONAL {
        let name = place.customer_name.as_mut().unwrap();
        name.first_name = format!("{text}'<>\\");
        name.last_name = name.first_name.repeat(9);
        let address = place.address.as_mut().unwrap();
        address.address_line1 = name.last_name.clone();
        address.city = name.last_name.clone();
    }
    let invalid = client.change_five_g_bi_plan(invalid).await;

    let url = gateway.callback_url("CarrierService");
    let secret_url = format!("{url}/planted-path-secret");
    let mut callback = five_g_bi_callback(REQUEST, "5125550142");
    callback["deviceResponse"]["password"] = json!("planted-callback-password");
    deliver(&secret_url, &callback).await;
    let wrong = callback
        .to_string()
        .replace("planted-callback-password", "planted-wrong-password");
    assert_eq!(post(&secret_url, wrong.clone()).await.0, 200);
    assert_eq!(post(&url, wrong).await.0, 401);
    let cut = callback.to_string();
    assert_eq!(post(&secret_url, cut[..90].to_owned()).await.0, 200);
    let near = format!("{url}/planted-path-secreT");
    assert_eq!(post(&near, callback.to_string()).await.0, 404);
    // A log-in that fails, with all that it was sent in its answer.
    thingspace.expire(AuthRefusal::Bare);
    let [new_token, new_session] = thingspace.secrets();
    let echo = format!("{new_token} planted-uws-username planted-uws-password");
    let code = "UnifiedWebService.REQUEST_FAILED.Credentials";
    thingspace.respond_always(CallKind::Login, FakeResponse::error(400, code, &echo));
    let unprepared = client.change_five_g_bi_plan(five_g_bi("log-in", [6])).await;

    let mut planted = vec![
        token,
        session,
        new_token,
        new_session,
        "planted-path-secre".into(),
        // Base64 of the key, a colon, and the secret.
        "cGxhbnRlZC1hcHAta2V5OnBsYW50ZWQtYXBwLXNlY3JldA".into(),
    ];
    planted.extend(PERSONAL.map(String::from));
    for name in [
        "app-key",
        "app-secret",
        "uws-username",
        "uws-password",
        "callback-username",
        "callback-password",
        "wrong-password",
    ] {
        planted.push(format!("planted-{name}"));
    }
    let find = |bytes: &[u8]| -> Vec<String> {
        let holds = |text: &&String| bytes.windows(text.len()).any(|at| at == text.as_bytes());
        planted.iter().filter(holds).cloned().collect()
    };
    for answer in [refused, invalid, unprepared] {
        let status = answer.unwrap_err();
        let error_bytes = [status.message().as_bytes(), status.details()].concat();
        assert_eq!(find(&error_bytes), [""; 0], "{status:?}");
    }
    let log = gateway.kill().await;
    assert!(log.lines().count() > 10, "{log}");
    assert_eq!(find(log.as_bytes()), [""; 0], "{log}");
    let mut files = 0;
    for entry in std::fs::read_dir(directory.path()).expect("the journal's directory") {
        let path = entry.expect("an entry").path();
        assert_eq!(found_in(&path, &find), [""; 0], "{}", path.display());
        files += 1;
    }
    assert!(files >= 2, "the journal and what it keeps beside it");
    assert_eq!(
        found_in(directory.path(), &|bytes| {
            // So much for the search itself: what may be there is found.
            let text = b"5125550142";
            let found = bytes.windows(text.len()).any(|at| at == text);
            found.then(|| "found".to_owned()).into_iter().collect()
        })
        .first()
        .map(String::as_str),
        Some("found")
    );
    // And what the next start writes.
    let (code, log) = setup.start().await.terminate().await;
    assert_eq!((code, find(log.as_bytes())), (Some(0), vec![]));
}

fn found_in(path: &Path, find: &dyn Fn(&[u8]) -> Vec<String>) -> Vec<String> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a directory");
        let each = entries.map(|entry| found_in(&entry.expect("an entry").path(), find));
        return each.flatten().collect();
    }
    find(&std::fs::read(path).unwrap_or_default())
}
