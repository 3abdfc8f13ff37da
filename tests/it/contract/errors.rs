//! Error details, and secrets that no output contains.

use prost::Message as _;
use serde_json::json;
use thingspace_gateway::proto::{EsimDevice, ListChangesRequest};
use tonic::Code;

use super::REQUEST;
use crate::support::{
    env::TestEnv,
    gateway::GatewayExit,
    http::post,
    raw,
    requests::{PERSONAL, deliver, esim, five_g_bi, five_g_bi_callback, parse_error},
    secrets::{found_below, found_in},
    thingspace::{AuthRefusal, CallKind, FakeResponse},
};

#[tokio::test]
async fn every_error_has_an_error_info_including_those_of_the_grpc_library() {
    let mut env = TestEnv::start_with(|setup| setup.set("grpc.max_message_bytes", "65536")).await;

    let mut large = esim("large", 0..1_500);
    large.validate_only = true;
    let large_error = parse_error(&env.change_error(large).await);
    let expected = (Code::ResourceExhausted, "MESSAGE_TOO_LARGE", "NEVER", Some("NO"));
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
    let unknown_service = "/env.thingspace.gateway.v2.GatewayService/GetChange".to_owned();
    let reflection = "/grpc.reflection.v1.ServerReflection/Nothing".to_owned();
    let (no, none) = (Some("NO"), None);
    for (what, path, body, code, reason, executed) in [
        ("no protobuf", &change, malformed.clone(), Code::InvalidArgument, "MALFORMED", no),
        ("no protobuf", &get, malformed.clone(), Code::InvalidArgument, "MALFORMED", none),
        ("no protobuf", &watch, malformed, Code::InvalidArgument, "MALFORMED", none),
        ("no such flag", &change, no_flag, Code::InvalidArgument, "MALFORMED", no),
        ("a cut frame", &change, cut, Code::InvalidArgument, "MALFORMED", no),
        ("no frame", &get, Vec::new(), Code::InvalidArgument, "MALFORMED", none),
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
        let ended = raw::call(&env.gateway, path, &[], body).await;
        let error = parse_error(&ended.status);
        // A call with two messages has one of two reasons.
        let reason = if reason.is_empty() { &error.reason } else { reason };
        let expected = (code, reason, "NEVER", executed);
        assert_eq!(error.summary(), expected, "{what}: {:?}", ended.status);
    }
    let compressed = raw::call(&env.gateway, &get, &[], compressed).await;
    parse_error(&compressed.status);
    let unknown = [("grpc-encoding", "snappy")];
    let encoded = raw::call(&env.gateway, &get, &unknown, raw::frame(b"")).await;
    assert_eq!(parse_error(&encoded.status).summary().0, Code::Unimplemented);
    assert_eq!(env.thingspace.posts(), 0);
    // The shared connection still works.
    assert!(env.client.list_changes(ListChangesRequest::default()).await.is_ok());
}

#[tokio::test]
async fn all_field_violations_are_listed_by_path_within_eight_kib() {
    let env = TestEnv::start().await;
    let mut three = five_g_bi("three", [1, 1]);
    three.service_plan = "it's <new>".into();
    let place = three.devices[0].primary_place_of_use.as_mut().unwrap();
    place.address.as_mut().unwrap().address_line1 = "PO Box 12".into();
    let status = env.change_error(three).await;
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
    let ended = raw::call(&env.gateway, &raw::method("ChangeEsimPlan"), &[], body).await;
    let many_error = parse_error(&ended.status);
    let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", Some("NO"));
    assert_eq!(many_error.summary(), expected);
    assert!(ended.metadata_bytes < 8_000, "{}", ended.metadata_bytes);
    assert!(many_error.fields.len() >= 10, "{}", many_error.fields.len());
    let number = |name: &str| many_error.metadata[name].parse::<usize>().unwrap();
    assert_eq!(number("violations_listed"), many_error.fields.len());
    assert!(number("violations_total") >= 9_000, "{many_error:?}");

    // The text of ThingSpace is truncated as well.
    let talk = "\u{1f4a5}é\"".repeat(20_000);
    let response = FakeResponse::error(400, &"Very.Long".repeat(1_000), &talk);
    env.thingspace.respond_once(CallKind::Change, response);
    let body = raw::frame(&esim("talk", [1]).encode_to_vec());
    let ended = raw::call(&env.gateway, &raw::method("ChangeEsimPlan"), &[], body).await;
    assert_eq!(parse_error(&ended.status).reason, "THINGSPACE_REFUSED");
    assert!(ended.metadata_bytes < 8_000, "{}", ended.metadata_bytes);
}

#[tokio::test]
async fn secrets_names_and_addresses_are_in_no_log_error_or_file() {
    let mut env = TestEnv::start_with(|setup| {
        setup
            .set("telemetry.log_filter", "debug,thingspace_gateway=trace")
            .env("TSGW_CALLBACKS__USERNAME", "planted-callback-username")
            .env("TSGW_CALLBACKS__PASSWORD", "planted-callback-password")
            .env("TSGW_CALLBACKS__PATH_SECRET", "planted-path-secret")
    })
    .await;
    let [token, session] = env.thingspace.secrets();

    env.change_as(REQUEST, five_g_bi("accepted", [1, 2])).await;
    // The response repeats the names, addresses and secrets of the request.
    let echo = format!("{} {} {token} {session}", PERSONAL.join(" "), "planted-uws-password");
    let code = "UnifiedWebService.INPUT_INVALID.Request.InvalidCharacter";
    env.thingspace.respond_once(CallKind::Change, FakeResponse::error(400, code, &echo));
    let refused = env.change_error(five_g_bi("refused", [3])).await;
    env.thingspace.respond_once(CallKind::Change, FakeResponse::custom(500, &[], &echo));
    env.change(five_g_bi("unknown", [4])).await;
    // Every field is invalid. The error repeats none of the values.
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
    let invalid = env.change_error(invalid).await;

    let url = env.gateway.callback_url("CarrierService");
    let secret_url = format!("{url}/planted-path-secret");
    let mut callback = five_g_bi_callback(REQUEST, "5125550142");
    callback["deviceResponse"]["password"] = json!("planted-callback-password");
    deliver(&secret_url, &callback).await;
    let wrong = callback.to_string().replace("planted-callback-password", "planted-wrong-password");
    assert_eq!(post(&secret_url, wrong.clone()).await.0, 200);
    assert_eq!(post(&url, wrong).await.0, 401);
    let cut = callback.to_string();
    assert_eq!(post(&secret_url, cut[..90].to_owned()).await.0, 200);
    let near = format!("{url}/planted-path-secreT");
    assert_eq!(post(&near, callback.to_string()).await.0, 404);
    // The response to a failed log-in repeats its credentials.
    env.thingspace.expire(AuthRefusal::Bare);
    let [new_token, new_session] = env.thingspace.secrets();
    let echo = format!("{new_token} planted-uws-username planted-uws-password");
    let code = "UnifiedWebService.REQUEST_FAILED.Credentials";
    env.thingspace.respond_always(CallKind::Login, FakeResponse::error(400, code, &echo));
    let not_logged_in = env.change_error(five_g_bi("log-in", [6])).await;

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
    for status in [refused, invalid, not_logged_in] {
        let error_bytes = [status.message().as_bytes(), status.details()].concat();
        assert_eq!(found_in(&error_bytes, &planted), [""; 0], "{status:?}");
    }
    let log = env.gateway.kill().await;
    assert!(log.lines().count() > 10, "{log}");
    assert_eq!(found_in(log.as_bytes(), &planted), [""; 0], "{log}");
    assert_eq!(found_below(env.directory.path(), &planted), [""; 0]);
    // The search finds a text that is stored.
    assert!(!found_below(env.directory.path(), &["5125550142"]).is_empty());
    // The log of the next start has none of them either.
    let GatewayExit { code, log } = env.setup.start().await.terminate().await;
    assert_eq!(code, Some(0));
    assert_eq!(found_in(log.as_bytes(), &planted), [""; 0], "{log}");
}
