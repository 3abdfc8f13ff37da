//! Tests of the rules, without a server.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use thingspace_gateway_client::{
    Backoff, CallOptions, Client, FieldViolation, GatewayError, Token, must_repeat_change,
    must_repeat_read,
    tonic::{Code, Status},
    v1::{ChangeEsimPlanRequest, Executed, Reason, Retry, WatchRequestRequest},
};
use tonic_types::{ErrorDetails, StatusExt};

const DOMAIN: &str = "thingspace.gateway";

fn error_with(details: ErrorDetails) -> GatewayError {
    Status::with_error_details(Code::Unavailable, "the message", details).into()
}

fn error(domain: &str, reason: &str, metadata: &[(&str, Option<&str>)]) -> GatewayError {
    let present = metadata.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    error_with(ErrorDetails::with_error_info(
        reason,
        domain,
        present
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect::<std::collections::HashMap<_, _>>(),
    ))
}

/// `executed`, `retry`, `validate_only`, and whether the call is repeated.
const TABLE: [(Option<&str>, Option<&str>, bool, bool); 15] = [
    (Some("NO"), Some("NOW"), false, true),
    (Some("NO"), Some("LATER"), false, true),
    (Some("NO"), Some("NEVER"), false, false),
    (Some("NO"), Some("SOMETIMES"), false, true),
    (Some("NO"), None, false, true),
    (Some("UNKNOWN"), Some("NOW"), false, true),
    (Some("UNKNOWN"), Some("LATER"), false, true),
    (Some("UNKNOWN"), Some("NEVER"), false, true),
    (Some("PERHAPS"), Some("NEVER"), false, true),
    (None, Some("NEVER"), false, true),
    (None, None, false, true),
    (Some("UNKNOWN"), Some("NEVER"), true, false),
    (None, Some("NEVER"), true, false),
    (Some("UNKNOWN"), Some("LATER"), true, true),
    (None, None, true, true),
];

#[test]
fn a_change_is_repeated_as_the_table_says() {
    for row @ (executed, retry, validate_only, repeats) in TABLE {
        let error = error(DOMAIN, "NOT_SENT", &[("executed", executed), ("retry", retry)]);
        assert_eq!(must_repeat_change(&error, validate_only), repeats, "{row:?}");
        assert_eq!(must_repeat_read(&error), retry != Some("NEVER"), "{row:?}");
    }
}

#[test]
fn an_error_without_details_leaves_the_outcome_open() {
    let error = GatewayError::from(Status::failed_precondition("from a proxy"));
    assert!(must_repeat_change(&error, false) && must_repeat_change(&error, true));
}

#[test]
fn an_error_that_another_service_sent_leaves_the_outcome_open() {
    let metadata = [("executed", Some("NO")), ("retry", Some("NEVER"))];
    let error = error("example.com", "NOT_SENT", &metadata);
    assert!(must_repeat_change(&error, false));
    assert_eq!(error.reason_text(), "");
}

#[test]
fn delays_double_from_a_tenth_of_a_second_to_ten_seconds() {
    let (mut backoff, mut longest) = (Backoff::default(), 0.1);
    for _ in 0..2000 {
        let delay = backoff.next(None).as_secs_f64();
        assert!((longest / 2.0..=longest).contains(&delay), "{delay} {longest}");
        longest = f64::min(longest * 2.0, 10.0);
    }
    backoff.reset();
    assert!(backoff.next(None) <= Duration::from_millis(100));
}

#[test]
fn the_delay_of_the_error_is_used() {
    let delay = Duration::from_millis(17_500);
    assert_eq!(Backoff::default().next(Some(delay)), delay);
    assert_eq!(Backoff::default().next(Some(Duration::ZERO)), Duration::ZERO);
}

#[test]
fn all_details_of_an_error_are_read() {
    let metadata = [("retry", "NEVER"), ("executed", "NO"), ("change_id", "7")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut details = ErrorDetails::with_error_info("FIELD_INVALID", DOMAIN, metadata);
    details.set_retry_info(Some(Duration::from_millis(2500)));
    details.set_bad_request(vec![tonic_types::FieldViolation {
        field: "devices[1].iccid".into(),
        description: "no digits".into(),
        reason: "FORMAT".into(),
        localized_message: None,
    }]);
    let error = error_with(details);
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!((error.reason(), error.reason_text()), (Reason::FieldInvalid, "FIELD_INVALID"));
    assert_eq!((error.retry(), error.executed()), (Retry::Never, Executed::No));
    assert_eq!(error.retry_after(), Some(Duration::from_millis(2500)));
    assert_eq!(error.metadata()["change_id"], "7");
    let [FieldViolation { field, reason, description, .. }] = error.field_violations() else {
        panic!("{error:?}")
    };
    assert_eq!([field, reason, description], ["devices[1].iccid", "FORMAT", "no digits"]);
    assert!(error.source().unwrap().is::<Status>());
    assert!(error.to_string().contains("devices[1].iccid: no digits (FORMAT)"), "{error}");
}

#[test]
fn an_unknown_reason_keeps_its_text() {
    let error = error(DOMAIN, "FROM_THE_FUTURE", &[]);
    assert_eq!((error.reason(), error.reason_text()), (Reason::Unspecified, "FROM_THE_FUTURE"));
}

#[test]
fn details_that_cannot_be_parsed_are_ignored() {
    let status = Status::with_details(Code::Unknown, "the message", vec![0xff, 0xff].into());
    let error = GatewayError::from(status);
    assert_eq!((error.reason_text(), error.retry_after()), ("", None));
    assert!(must_repeat_change(&error, false));
}

#[tokio::test]
async fn a_token_is_not_sent_over_plaintext_unless_that_is_allowed() {
    let builder = Client::builder("localhost:1").plaintext().token(Token::fixed("t"));
    let error = builder.clone().connect().unwrap_err();
    assert!(error.message().contains("allow_token_over_plaintext"), "{error}");
    builder.allow_token_over_plaintext().connect().unwrap();
}

#[tokio::test]
async fn plaintext_excludes_the_options_of_tls() {
    let error = Client::builder("localhost:1").plaintext().ca("PEM").connect().unwrap_err();
    assert!(error.message().contains("plaintext"), "{error}");
}

#[test]
fn a_client_needs_a_runtime() {
    let error = Client::builder("localhost:1").plaintext().connect().unwrap_err();
    assert!(error.message().contains("tokio runtime"), "{error}");
}

#[tokio::test]
async fn a_change_without_a_key_is_an_error_before_any_call() {
    let client = Client::builder("localhost:1").plaintext().connect().unwrap();
    let error = client.change_esim_plan(ChangeEsimPlanRequest::default()).await.unwrap_err();
    assert!(error.message().contains("idempotency_key") && !error.outcome_unknown(), "{error}");
}

#[tokio::test]
async fn a_call_whose_token_function_fails_is_not_sent_and_repeated() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let token = Token::function(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Err::<String, _>("no file")
    });
    let client = Client::builder("localhost:1")
        .plaintext()
        .token(token)
        .allow_token_over_plaintext()
        .connect()
        .unwrap();
    let request = ChangeEsimPlanRequest { idempotency_key: "k".into(), ..Default::default() };
    let options = CallOptions::default().total_timeout(Duration::from_secs(2));
    let error = client.with_options(options).change_esim_plan(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("no file") && !error.outcome_unknown(), "{error}");
    assert!(calls.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn a_watch_gives_up_after_its_limit() {
    let client = Client::builder("127.0.0.1:1").plaintext().connect().unwrap();
    let retries = Arc::new(AtomicUsize::new(0));
    let counted = retries.clone();
    let options =
        CallOptions::default().reopen_timeout(Duration::from_secs(2)).on_retry(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
    let mut events = client.with_options(options).watch(WatchRequestRequest::default());
    assert_eq!(events.try_next().await.unwrap_err().code(), Code::Unavailable);
    assert!(retries.load(Ordering::Relaxed) >= 2);
    assert!(events.try_next().await.unwrap().is_none());
}

#[test]
fn a_token_is_not_printed() {
    assert!(!format!("{:?}", Token::fixed("secret")).contains("secret"));
}

/// Futures and streams of the library can be sent to other threads.
#[allow(dead_code, reason = "compiling it is the test")]
fn types_are_send(client: &'static Client) {
    fn assert_send<T: Send>(_: T) {}
    assert_send(client.change_esim_plan(Default::default()));
    assert_send(client.watch(Default::default()));
    assert_send(client.list_devices(Default::default()));
    assert_send(client.get_server_info());
}
