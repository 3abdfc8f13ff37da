use std::time::Duration;

use super::*;

/// A classification without its texts.
#[derive(Debug, PartialEq)]
enum ResponseClass {
    Accepted,
    Refused(RefusalKind),
    Throttled,
    Stale(StaleAuth),
    Unknown,
}

use RefusalKind::{FailedPrecondition, InvalidArgument, NotFound, PermissionDenied};
use ResponseClass::{Accepted, Refused, Throttled, Unknown};

const SETTINGS: &str = "the setting thingspace.base_url";

fn response(status: u16, body: &str) -> UpstreamResponse {
    UpstreamResponse {
        status: StatusCode::from_u16(status).unwrap(),
        retry_after: None,
        body: body.as_bytes().to_vec(),
    }
}

fn classify_body(status: u16, body: &str) -> ResponseClass {
    match classify(&response(status, body), SETTINGS) {
        (ChangeResponse::NotExecuted(refusal), Some(stale)) => {
            assert_eq!(refusal.kind, RefusalKind::Credentials);
            ResponseClass::Stale(stale)
        }
        (ChangeResponse::NotExecuted(refusal), None) => {
            assert_eq!(refusal.kind, RefusalKind::Throttled);
            Throttled
        }
        (ChangeResponse::Accepted(_), None) => Accepted,
        (ChangeResponse::Refused(refusal), None) => Refused(refusal.kind),
        (ChangeResponse::Unknown(_), None) => Unknown,
        (other, Some(stale)) => panic!("{other:?} {stale:?}"),
    }
}

fn service(code: &str) -> String {
    format!(r#"{{"errorCode":"{code}","errorMessage":"…"}}"#)
}

fn fault(code: &str) -> String {
    format!(r#"{{"fault":{{"code":"{code}","message":"…","description":"…"}}}}"#)
}

fn xml(code: &str) -> String {
    format!(
        r#"<am:fault xmlns:am="http://wso2.org/apimanager"><am:code>{code}</am:code><am:message>…</am:message></am:fault>"#
    )
}

#[test]
fn only_a_success_with_a_request_id_is_accepted_and_every_inconclusive_response_is_unknown() {
    let html = "<html><body>Bad Gateway</body></html>";
    for (status, body, expected) in [
        (200, r#"{"requestId":"d1f08526-5443"}"#, Accepted),
        (202, r#"{"requestId":" abc ","more":[1]}"#, Accepted),
        (200, r#"{"requestId":""}"#, Unknown),
        (200, r#"{"requestId":null}"#, Unknown),
        (200, r#"["d1f08526"]"#, Unknown),
        (200, &service("X.REQUEST_FAILED.SessionToken.Expired"), Unknown),
        (200, html, Unknown),
        (204, "", Unknown),
        (301, "", Unknown),
        (307, r#"{"requestId":"d1f08526-5443"}"#, Unknown),
        (400, "", Unknown),
        (400, html, Unknown),
        (400, "{}", Unknown),
        (400, r#"{"errorCode":""}"#, Unknown),
        (400, &service("500"), Unknown),
        (404, html, Unknown),
        (408, &service("408"), Unknown),
        (408, &service("429"), Unknown),
        (500, &service("UnifiedWebService.REQUEST_FAILED.X"), Unknown),
        (500, &fault("900900"), Unknown),
        (502, html, Unknown),
        (503, "", Unknown),
        (504, &xml("101504"), Unknown),
    ] {
        assert_eq!(classify_body(status, body), expected, "{status} {body}");
    }
}

#[test]
fn a_refusal_in_a_known_format_is_classified_by_its_code_without_the_service() {
    let uws = |rest: &str| service(&format!("UnifiedWebService.{rest}"));
    for (status, body, expected) in [
        (400, uws("INPUT_INVALID.Request.InvalidCharacter"), InvalidArgument),
        (400, service("INPUT_INVALID.Device.Kind.Invalid"), InvalidArgument),
        (400, uws("INPUT_INVALID.MaxRequestsExceeded"), InvalidArgument),
        (400, uws("INPUT_INVALID.DeviceState.Invalid"), FailedPrecondition),
        (400, uws("REQUEST_FAILED.PlanChangeLimit"), FailedPrecondition),
        (400, uws("REQUEST_FAILED.DeviceAlreadyActive"), FailedPrecondition),
        (400, uws("REQUEST_FAILED.DeviceNotFound"), NotFound),
        (400, uws("REQUEST_FAILED._servicePlan_.NotFound"), NotFound),
        (400, service("Other.REQUEST_FAILED.AccountNotFound"), NotFound),
        (400, uws("REQUEST_FAILED.AccountName"), PermissionDenied),
        (400, service("REQUEST_FAILED.MultipleAccounts"), InvalidArgument),
        (400, service("DeserializationFailed"), InvalidArgument),
        (400, service("404"), NotFound),
        (400, service("403"), PermissionDenied),
        (403, service("403"), PermissionDenied),
        (400, service("400"), InvalidArgument),
        (400, service("409"), FailedPrecondition),
        (409, service("Whatever"), FailedPrecondition),
        (404, r#"{"errorCode":404}"#.to_owned(), NotFound),
        (400, r#"{"error":"bad","cause":"…"}"#.to_owned(), InvalidArgument),
        (400, fault("900906"), FailedPrecondition),
        (404, xml("404"), FailedPrecondition),
        (405, service("405"), FailedPrecondition),
        (405, fault("900906"), FailedPrecondition),
    ] {
        assert_eq!(classify_body(status, &body), Refused(expected), "{status} {body}");
    }
}

#[test]
fn a_refused_authentication_is_recognised_by_the_body_first_and_the_status_second() {
    for (status, body, expected) in [
        (401, fault("900901"), StaleAuth::Token),
        (403, fault("900908"), StaleAuth::Token),
        (400, fault("900902"), StaleAuth::Token),
        (403, xml("404"), StaleAuth::Both),
        (401, xml("900901"), StaleAuth::Both),
        (400, service("UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"), StaleAuth::Session),
        (401, service("UnifiedWebService.INPUT_INVALID.SessionToken.Invalid"), StaleAuth::Session),
        (403, service("REQUEST_FAILED.SessionToken.Format"), StaleAuth::Session),
        (401, String::new(), StaleAuth::Both),
        (403, String::new(), StaleAuth::Both),
        (401, service("401"), StaleAuth::Both),
        (400, service("401"), StaleAuth::Both),
        (401, r#"{"error":"invalid_token"}"#.to_owned(), StaleAuth::Both),
    ] {
        assert_eq!(classify_body(status, &body), ResponseClass::Stale(expected), "{status} {body}");
    }
}

#[test]
fn throttling_is_recognised_by_status_and_by_code_and_keeps_its_delay() {
    for (status, body) in [
        (429, String::new()),
        (429, "<html></html>".to_owned()),
        (429, service("429")),
        (400, service("429")),
        (429, fault("900800")),
        (403, fault("900803")),
        (503, fault("900807")),
        (503, xml("900802")),
    ] {
        assert_eq!(classify_body(status, &body), Throttled, "{status} {body}");
    }
    let mut throttled = response(429, "");
    throttled.retry_after = Some(Duration::from_secs(7));
    let (mut classification, _) = classify(&throttled, SETTINGS);
    let refusal = classification.refusal_mut().unwrap();
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
}

#[test]
fn an_unknown_endpoint_names_the_settings_of_the_operation() {
    let names_verb = |change_type| {
        let settings = operations::info(change_type).endpoint_settings;
        let (mut classification, _) = classify(&response(400, &fault("900906")), settings);
        let detail = classification.refusal_mut().unwrap().detail.clone();
        assert!(detail.contains("thingspace.base_url"), "{detail}");
        detail.contains("thingspace.five_g_bi_http_method")
    };
    assert!(names_verb(ChangeType::FiveGBiPlan));
    assert!(!names_verb(ChangeType::EsimPlan));
}
