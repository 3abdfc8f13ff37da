//! The listener on real sockets, with a real journal.

use futures_util::future::join_all;

use super::auth::Authenticator;
use crate::{
    background::FileReloader,
    config::{AllowMode, Config},
    telemetry::RejectionReason,
};

mod certificate;
mod connections;
mod harness;
mod slow_journal;

use harness::{
    CallbackHarness, ESIM, SECRET, config_with_credentials, five_g, open_config, raw_json, secret,
};

const CARRIER: &str = "/callbacks/CarrierService";
const PROFILE: &str = "/callbacks/DeviceProfileService";

fn behind_secret(path: &str) -> String {
    format!("{path}/{SECRET}")
}

#[tokio::test]
async fn both_documented_examples_are_on_disk_once_they_are_responseed() {
    let harness = CallbackHarness::start(config_with_credentials()).await;
    let path = "/accounts/0000123456-00001/callbacks/DeviceProfileService";
    assert_eq!(harness.status(path, ESIM).await, 200);
    assert_eq!(harness.status(CARRIER, five_g("user", "pw-now")).await, 200);
    assert_eq!((harness.counted("stored"), harness.counted("duplicate")), (2, 0));

    let request = "c8de7c1d-59b9-4cf3-b969-db76cb2ce509";
    let events = harness.events_after_restart(request).await;
    assert_eq!(events.len(), 1);
    assert!(raw_json(&events[0]).contains("5/31/2018"));
    assert!(!raw_json(&events[0]).contains("pw-now") && !raw_json(&events[0]).contains("user"));
}

#[tokio::test]
async fn a_sender_of_2_mib_sees_413_and_may_go_on_with_its_connection() {
    let harness = CallbackHarness::start(open_config()).await;
    let large = vec![b' '; 2 * 1024 * 1024];
    let (status, error) = harness.send(CARRIER, large.clone()).await;
    assert_eq!((status.as_u16(), error.as_str()), (413, "too_large"));

    // Without reading before all is written, as the plainest of senders does.
    let mut request =
        format!("POST {CARRIER} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", large.len())
            .into_bytes();
    request.extend_from_slice(&large);
    let second = format!(
        "POST {PROFILE} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{ESIM}",
        ESIM.len()
    );
    request.extend_from_slice(second.as_bytes());
    let responses = harness.raw(&request).await;
    assert!(responses.starts_with("HTTP/1.1 413 "), "{responses}");
    assert!(responses.contains("HTTP/1.1 200 OK"), "{responses}");

    let fits = format!("{ESIM}{}", " ".repeat(256 * 1024 - ESIM.len()));
    assert_eq!(harness.status(PROFILE, fits.clone()).await, 200);
    assert_eq!(harness.status(PROFILE, format!("{fits} ")).await, 413);
}

#[tokio::test]
async fn a_malformed_body_is_refused_without_echoing_it() {
    let harness = CallbackHarness::start(open_config()).await;
    let cut = ESIM.trim_end_matches('}').to_owned();
    for body in [
        Vec::new(),
        cut.into_bytes(),
        b"{\"requestId\":\"\xff\"}".to_vec(),
        vec![b'['; 200_000],
        b"[]".to_vec(),
        b"{\"status\":\"planted\"}".to_vec(),
    ] {
        let response = harness.request(CARRIER).body(body).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let text = response.text().await.unwrap();
        assert!(text.contains("malformed") && !text.contains("planted"));
    }
    assert_eq!(harness.refused(RejectionReason::Malformed), 6);
    assert_eq!(harness.counted("stored"), 0);
}

#[tokio::test]
async fn a_callback_is_never_refused_for_its_headers() {
    let harness = CallbackHarness::start(open_config()).await;
    for content_type in ["text/plain", "application/xml; charset=utf-16", "\"nonsense"] {
        let request = harness.request(PROFILE).header("content-type", content_type);
        let response = request.body(ESIM).send().await.unwrap();
        assert_eq!(response.status(), 200, "{content_type}");
    }
    let chunked = harness
        .raw(b"POST /callbacks/X HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{\"requestId\":\"r\"}\r\n0\r\n\r\n")
        .await;
    assert!(chunked.starts_with("HTTP/1.1 200 "), "{chunked}");
}

#[tokio::test]
async fn only_posts_to_the_four_addresses_are_taken() {
    let harness = CallbackHarness::start(open_config()).await;
    for path in [
        "/",
        "/callbacks",
        "/callbacks/a/b/c",
        "/accounts/a/callbacks",
        "/callbacks/%ff",
        &format!("/callbacks/{}", "s".repeat(129)),
    ] {
        let (status, error) = harness.send(path, ESIM).await;
        assert_eq!((status.as_u16(), error.as_str()), (404, "not_found"), "{path}");
    }
    let get = format!("GET {CARRIER} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let response = harness.raw(get.as_bytes()).await.to_lowercase();
    assert!(
        response.starts_with("http/1.1 405 ") && response.contains("allow: post"),
        "{response}"
    );
}

#[tokio::test]
async fn the_path_secret_or_the_password_authenticates_a_callback() {
    let wrong = "/callbacks/DeviceProfileService/another-secret";
    let mut config = open_config();
    config.callbacks.path_secret = secret(SECRET);
    let harness = CallbackHarness::start(config).await;
    assert_eq!(harness.status(&behind_secret(CARRIER), ESIM).await, 200);
    assert_eq!(harness.status(wrong, ESIM).await, 404);
    assert_eq!(harness.status(PROFILE, ESIM).await, 401);
    assert_eq!(harness.status(PROFILE, "{").await, 401);
    assert_eq!(harness.status(&behind_secret(PROFILE), "{").await, 200);
    assert_eq!(harness.quarantined(RejectionReason::Malformed), 1);

    let mut config = config_with_credentials();
    config.callbacks.path_secret = secret(SECRET);
    let harness = CallbackHarness::start(config).await;
    let (right, bad) = (five_g("user", "pw-now"), five_g("user", "pw-no"));
    assert_eq!(harness.status(CARRIER, right.clone()).await, 200);
    assert_eq!(harness.status(PROFILE, right.clone()).await, 200);
    assert_eq!(harness.status(wrong, right).await, 404);
    assert_eq!(harness.status(CARRIER, bad.clone()).await, 401);
    assert_eq!(harness.status(&behind_secret(CARRIER), bad).await, 200);
    assert_eq!(harness.status(&behind_secret(CARRIER), ESIM).await, 200);
    assert_eq!(harness.quarantined(RejectionReason::Unauthorized), 2);
    assert_eq!(harness.status(&behind_secret(PROFILE), ESIM).await, 200);
    assert_eq!(harness.status(PROFILE, ESIM).await, 401);
    assert_eq!(harness.status(PROFILE, "{").await, 400);
    assert_eq!(harness.refused(RejectionReason::WrongPathSecret), 1);
}

#[test]
fn a_part_of_the_path_that_could_be_a_secret_is_not_logged() {
    let mut config = open_config();
    config.callbacks.path_secret = secret("onlylettershere");
    let auth = Authenticator::new(&config.callbacks, &mut FileReloader::default());
    assert_eq!(auth.loggable_service("NewService"), "NewService");
    for hidden in ["onlylettershere", SECRET, "line\nbreak", &"s".repeat(41)] {
        assert_eq!(auth.loggable_service(hidden), "-");
    }
    let account = "0000123456-00001";
    assert_eq!(auth.loggable_account(Some(account)), account);
    assert_eq!(auth.loggable_account(Some("onlylettershere")), "-");
}

#[tokio::test]
async fn current_and_previous_credentials_are_accepted_and_absent_ones_only_where_not_required() {
    let harness = CallbackHarness::start(config_with_credentials()).await;
    for (path, body, status) in [
        (CARRIER, five_g("user", "pw-now"), 200),
        (CARRIER, five_g("user", "pw-before"), 200),
        (CARRIER, five_g("user", "pw-no"), 401),
        (CARRIER, five_g("resu", "pw-now"), 401),
        (CARRIER, five_g("", "pw-now"), 401),
        (CARRIER, five_g("", ""), 401),
        (CARRIER, ESIM.to_owned(), 401),
        ("/callbacks/carrierservice", ESIM.to_owned(), 401),
        (PROFILE, five_g("", ""), 200),
        (PROFILE, ESIM.to_owned(), 200),
        (PROFILE, five_g("user", "pw-no"), 401),
        (PROFILE, "{\"requestId\"".to_owned(), 400),
    ] {
        assert_eq!(harness.status(path, body.clone()).await, status, "{path} {body}");
    }
}

#[tokio::test]
async fn an_address_outside_the_allow_list_is_reported_and_refused_only_when_enforced() {
    let listed = |mode| {
        let mut config: Config = config_with_credentials();
        config.callbacks.allow_cidrs = vec!["3.87.163.45/32".parse().unwrap()];
        config.callbacks.allow_mode = mode;
        config.callbacks.trusted_hops = 1;
        config
    };
    let send = async |harness: &CallbackHarness, forwarded_for: Option<&str>, body: String| {
        let mut request = harness.request(CARRIER).body(body);
        if let Some(value) = forwarded_for {
            request = request.header("X-Forwarded-For", value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let (inside, outside) = ("9.9.9.9, 3.87.163.45", "3.87.163.45, 9.9.9.9");
    let right = || five_g("user", "pw-now");

    let harness = CallbackHarness::start(listed(AllowMode::Report)).await;
    assert_eq!(send(&harness, Some(inside), right()).await, 200);
    assert_eq!(harness.unlisted(), 0);
    assert_eq!(send(&harness, Some(outside), right()).await, 200);
    assert_eq!(send(&harness, None, right()).await, 200);
    assert_eq!(send(&harness, Some(outside), ESIM.to_owned()).await, 401);
    assert_eq!(harness.unlisted(), 2);

    let harness = CallbackHarness::start(listed(AllowMode::Enforce)).await;
    assert_eq!(send(&harness, Some(inside), right()).await, 200);
    assert_eq!(send(&harness, Some(outside), right()).await, 403);
    assert_eq!(send(&harness, None, right()).await, 403);
}

#[tokio::test]
async fn five_sends_of_one_callback_at_once_store_it_once() {
    let harness = CallbackHarness::start(open_config()).await;
    let sends = [1, 1, 2, 2, 3].map(|count| {
        let counted = format!("\"callbackCount\":{count}");
        harness.status(PROFILE, ESIM.replace("\"callbackCount\":1", &counted))
    });
    assert_eq!(join_all(sends).await, [200; 5]);
    assert_eq!((harness.counted("stored"), harness.counted("duplicate")), (1, 4));
    let request = "d1f08526-5443-4054-9a29-4456490ea9f8";
    assert_eq!(harness.events_after_restart(request).await.len(), 1);
}

#[tokio::test]
async fn a_callback_that_this_gateway_has_forwarded_is_rejected_on_every_path() {
    let mut config = open_config();
    config.callbacks.path_secret = secret(SECRET);
    let harness = CallbackHarness::start(config).await;
    let id = harness.forwarder_id();
    let send = async |path: &str, id: &str| {
        let request = harness.request(path).body(ESIM);
        let request = request.header("Thingspace-Gateway-Forwarded", id);
        request.send().await.unwrap()
    };
    for path in [&*behind_secret(PROFILE), PROFILE, "/hook"] {
        let response = send(path, &id).await;
        assert_eq!(response.status(), 409, "{path}");
        assert_eq!(response.headers()["thingspace-gateway-forwarded"], *id);
        let text = response.text().await.unwrap();
        assert!(text.contains("forward_loop"), "{text}");
    }
    assert_eq!(harness.refused(RejectionReason::ForwardLoop), 3);
    // Another gateway may forward its callbacks to this one.
    let other = "0".repeat(32);
    assert_eq!(send(&behind_secret(PROFILE), &other).await.status(), 200);
}
