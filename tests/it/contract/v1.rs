//! Parts of the contract that clients of every language rely on.

use prost::Message as _;
use thingspace_gateway::proto::{
    ChangeState, ChangeType, Durability, GetServerInfoRequest, ListChangesRequest,
    ListDeviceResultsRequest, ListDevicesRequest, ListServicePlansRequest,
};
use tonic::{Code, codec::CompressionEncoding};
use tonic_types::{StatusExt, pb};

use super::REQUEST;
use crate::support::{
    env::TestEnv,
    gateway::Setup,
    requests::{
        ACCOUNT, deliver, esim, esim_callback, five_g_bi, iccid, id, make_change, parse_error,
    },
    thingspace::{CallKind, FakeResponse},
};

#[tokio::test]
async fn a_gzip_request_is_the_same_call_as_an_uncompressed_one() {
    let env = TestEnv::start().await;
    let client = env.gateway.client().await;
    let mut gzip = client.send_compressed(CompressionEncoding::Gzip);
    let request = five_g_bi("large", 0..10_000);
    assert!(request.encoded_len() > 1 << 20);
    let change = make_change(&mut gzip, request.clone()).await;
    assert_eq!((change.state(), change.device_count), (ChangeState::Accepted, 10_000));
    // The same call without compression has the same key and content.
    let mut plain = env.gateway.client().await;
    let again = make_change(&mut plain, request).await;
    assert_eq!(again.change_id, change.change_id);
    assert_eq!(env.thingspace.posts(), 1);
    let listed = gzip.list_changes(ListChangesRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().changes.len(), 1);
}

#[tokio::test]
async fn a_gzip_request_that_grows_beyond_the_limit_is_too_large_and_costs_no_memory() {
    let env = TestEnv::start_offline(|setup| setup.set("grpc.max_message_bytes", "1048576")).await;
    let mut gzip = env.gateway.client().await.send_compressed(CompressionEncoding::Gzip);
    let mut request = esim("bomb", 0..1);
    request.devices[0].client_reference = "x".repeat(64 << 20);
    let status = gzip.change_esim_plan(request).await.unwrap_err();
    let expected = (Code::ResourceExhausted, "MESSAGE_TOO_LARGE", "NEVER", Some("NO"));
    assert_eq!(parse_error(&status).summary(), expected, "{status:?}");
    let peak = env.gateway.peak_memory() >> 20;
    assert!(peak < 256, "{peak} MiB");
}

#[tokio::test]
async fn a_gzip_request_just_below_the_limit_is_accepted_at_any_compression_ratio() {
    let env = TestEnv::start_offline(|setup| setup).await;
    let mut gzip = env.gateway.client().await.send_compressed(CompressionEncoding::Gzip);
    let mut random = fastrand::Rng::with_seed(7);
    let mut request = esim("large", 0..1);
    let text = (0..15 << 20).map(|_| random.alphanumeric());
    request.devices[0].client_reference = text.collect();
    let status = gzip.change_esim_plan(request).await.unwrap_err();
    assert_eq!(parse_error(&status).fields, ["devices[0].client_reference"]);
}

#[tokio::test]
async fn a_busy_device_is_named_by_its_index_in_the_request() {
    let env = TestEnv::start().await;
    env.thingspace.respond_once(CallKind::Change, FakeResponse::empty(504));
    let unknown = env.change(esim("unknown", [7])).await;
    assert_eq!(unknown.state(), ChangeState::OutcomeUnknown);
    for validate_only in [true, false] {
        let mut request = esim("next", 0..10);
        request.validate_only = validate_only;
        let status = env.change_error(request).await;
        let error = parse_error(&status);
        let expected = (Code::FailedPrecondition, "DEVICE_BUSY", "LATER", Some("NO"));
        assert_eq!(error.summary(), expected);
        assert_eq!(error.metadata["change_id"], unknown.change_id);
        let details = pb::Status::decode(status.details()).unwrap();
        assert_eq!(details.code, i32::from(Code::FailedPrecondition));
        let violations = status.get_details_precondition_failure().unwrap().violations;
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].subject, "devices[7]");
        assert_eq!(violations[0].r#type, "DEVICE_BUSY");
    }
    // Another account learns nothing about the change.
    let mut request = esim("other-account", [7]);
    request.account_name = "0000999999-00001".to_owned();
    request.validate_only = true;
    env.change(request).await;
    assert_eq!(env.thingspace.posts(), 1);
}

#[tokio::test]
async fn a_validation_checks_the_key_and_does_not_use_it() {
    let mut env = TestEnv::start().await;
    let validation = |key: &str, numbers: std::ops::Range<usize>| {
        let mut request = esim(key, numbers);
        request.validate_only = true;
        request
    };
    let preview = env.change(validation("key", 0..3)).await;
    assert!(preview.change_id.is_empty() && preview.device_count == 3);
    assert_eq!(preview.state(), ChangeState::Unspecified);
    let change = env.change_as(REQUEST, esim("key", 0..3)).await;
    // The same content with the same key is valid.
    env.change(validation("key", 0..3)).await;
    let status = env.change_error(validation("key", 0..4)).await;
    let error = parse_error(&status);
    let expected = (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED", "NEVER", Some("NO"));
    assert_eq!(error.summary(), expected);
    assert_eq!(error.metadata["change_id"], change.change_id);
    assert_eq!(env.thingspace.posts(), 1);
    let all = env.client.list_changes(ListChangesRequest::default()).await;
    assert_eq!(all.unwrap().into_inner().changes.len(), 1);
}

#[tokio::test]
async fn a_page_of_large_results_stays_below_the_default_limit_of_clients() {
    const RESULTS: usize = 300;
    let mut env = TestEnv::start_offline(|setup| setup).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    for number in 0..RESULTS {
        let mut callback = esim_callback(REQUEST, number);
        callback["padding"] = "x".repeat(20_000).into();
        deliver(&url, &callback).await;
    }
    // A client has a limit of 4 MiB by default.
    let mut request = ListDeviceResultsRequest {
        request_id: REQUEST.into(),
        include_raw: true,
        page_size: 1_000,
        ..ListDeviceResultsRequest::default()
    };
    let (mut pages, mut results) = (0, Vec::new());
    loop {
        let page = env.client.list_device_results(request.clone()).await.unwrap();
        let page = page.into_inner();
        pages += 1;
        results.extend(page.device_results);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!((2..=5).contains(&pages), "{pages}");
    assert_eq!(results.len(), RESULTS);
    for (number, result) in results.iter().enumerate() {
        assert!(result.device_ids.contains(&id("iccid", iccid(number))), "{number}");
    }
}

#[tokio::test]
async fn changes_are_listed_by_their_operation() {
    let mut env = TestEnv::start().await;
    let request_id = |number: u32| FakeResponse::Accepted(format!("{number}-{REQUEST}"));
    env.thingspace.respond_once(CallKind::Change, request_id(1));
    let esim = env.change(esim("esim", 0..1)).await;
    env.thingspace.respond_once(CallKind::Change, request_id(2));
    let five_g_bi = env.change(five_g_bi("5g", 0..1)).await;
    for (types, expected) in [
        (vec![], vec![&five_g_bi, &esim]),
        (vec![ChangeType::EsimPlan], vec![&esim]),
        (vec![ChangeType::FiveGBiPlan], vec![&five_g_bi]),
        (vec![ChangeType::Unspecified], vec![&five_g_bi, &esim]),
    ] {
        let request = ListChangesRequest {
            change_types: types.into_iter().map(Into::into).collect(),
            ..ListChangesRequest::default()
        };
        let listed = env.client.list_changes(request).await.unwrap().into_inner();
        assert_eq!(listed.changes.iter().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn the_sandbox_lists_its_plans_and_server_info_is_complete() {
    let gateway = Setup::sandbox().start().await;
    let mut client = gateway.client().await;
    let request = ListServicePlansRequest { account_name: ACCOUNT.into() };
    let plans = client.list_service_plans(request).await.unwrap();
    let plans = plans.into_inner().service_plans;
    assert!(plans.iter().any(|plan| plan.name != plan.code && plan.size_kb.is_some()), "{plans:?}");
    let request = ListServicePlansRequest { account_name: "no account!".into() };
    let status = client.list_service_plans(request).await.unwrap_err();
    assert_eq!(parse_error(&status).fields, ["account_name"]);

    let info = client.get_server_info(GetServerInfoRequest {}).await;
    let info = info.unwrap().into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.journal_engine, "sqlite");
    assert_eq!(info.journal_durability(), Durability::Synced);
    assert_eq!(info.journal_origin, "sandbox");
}

#[tokio::test]
async fn a_failed_listing_of_plans_is_an_error_that_can_be_retried() {
    let mut env = TestEnv::start_offline(|setup| setup).await;
    let request = ListServicePlansRequest { account_name: ACCOUNT.into() };
    let status = env.client.list_service_plans(request).await.unwrap_err();
    let expected = (Code::Unavailable, "THINGSPACE_UNAVAILABLE", "LATER", None);
    assert_eq!(parse_error(&status).summary(), expected, "{status:?}");
    let unset = env.client.list_devices(ListDevicesRequest::default()).await;
    assert_eq!(parse_error(&unset.unwrap_err()).fields, ["change_id"]);
}
