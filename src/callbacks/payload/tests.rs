use secrecy::ExposeSecret;

use crate::domain::{
    identifier::ReportedId,
    result::{Callback, Outcome},
};

const ESIM: &str = r#"{"requestId":"d1f08526-5443-4054-9a29-4456490ea9f8",
 "deviceIds":[{"id":"89049032000001000000000000000001","kind":"Eid"},{"id":"990013907835573","kind":"Imei"},
  {"id":"15555551234","kind":"msisdn"},{"id":"89148000000800139708","kind":"Iccid"}],
 "deviceResponse":{"deviceProfileResponse":{"deviceIdentifierCollection":[
  {"id":"89049032000001000000000000000001","kind":"Eid"},{"id":"990013907835573","kind":"Imei"},
  {"id":"15555551234","kind":"msisdn"},{"id":"89148000000800139708","kind":"Iccid"}],
  "state":"ACTIVE","profileStatus":"ENABLE","profileRole":"LOCAL"}},
 "status":"SUCCESS","callbackCount":1,"maxCallbackThreshold":4}"#;

const FIVE_G: &str = r#"{"username":"user","password":"pw-planted","requestId":"c8de7c1d-59b9-4cf3-b969-db76cb2ce509",
 "deviceIds":[{"id":"5555551234","kind":"mdn"}],
 "deviceResponse":{"changeServicePlanResponse":{"effectiveDate":"5/31/2018 12:00:00 AM"}}}"#;

fn parse(body: &str) -> Callback {
    super::parse(body.as_bytes()).unwrap()
}

#[test]
fn the_documented_esim_example_is_read_with_its_profile() {
    let callback = parse(ESIM);
    let report = &callback.result;
    assert_eq!(report.request_id.as_str(), "d1f08526-5443-4054-9a29-4456490ea9f8");
    assert_eq!(report.outcome, Outcome::Succeeded);
    let kinds: Vec<&str> = report.device_ids.iter().map(|id| id.kind.as_str()).collect();
    assert_eq!(kinds, ["eid", "imei", "msisdn", "iccid"]);
    let profile = report.esim_profile.as_ref().unwrap();
    assert_eq!(
        (profile.state.as_str(), profile.profile_status.as_str(), profile.profile_role.as_str()),
        ("ACTIVE", "ENABLE", "LOCAL")
    );
    assert_eq!((report.callback_count, report.max_callback_threshold), (1, 4));
    assert!(callback.username.is_none() && callback.password.is_none());
}

#[test]
fn the_documented_5g_example_without_a_status_is_a_success_and_loses_its_credentials() {
    let callback = parse(FIVE_G);
    assert_eq!(callback.result.outcome, Outcome::Succeeded);
    let change = callback.result.service_plan_change.as_ref().unwrap();
    assert_eq!(change.effective_date, "2018-05-31");
    assert_eq!(change.effective_date_text, "5/31/2018 12:00:00 AM");
    assert_eq!(callback.password.as_ref().unwrap().expose_secret(), "pw-planted");
    assert!(
        !callback.raw_json.contains("pw-planted")
            && !format!("{callback:?}").contains("pw-planted")
    );
}

#[test]
fn a_fault_or_a_failed_status_is_a_failure_and_what_is_not_known_to_be_final_is_interim() {
    let body = |rest: &str| format!(r#"{{"requestId":"r","deviceIds":[]{rest}}}"#);
    for (rest, outcome) in [
        (
            r#","faultResponse":{"faultcode":"X.REQUEST_FAILED.Y","faultstring":"no"}"#,
            Outcome::Failed,
        ),
        (
            r#","status":"Success","faultResponse":{"faultcode":"X.REQUEST_FAILED.Y"}"#,
            Outcome::Failed,
        ),
        (r#","status":"fAILED""#, Outcome::Failed),
        (r#","status":"Failure""#, Outcome::Failed),
        (
            r#","status":"warning","faultResponse":{"faultstring":"SM-SR timed out"}"#,
            Outcome::Interim,
        ),
        (r#","status":"Pending""#, Outcome::Interim),
        (
            r#","status":"Failed","faultResponse":{"faultcode":"S.REQUEST_ONHOLD.CreditCheck"}"#,
            Outcome::Interim,
        ),
        (r#","faultResponse":{"faultcode":"S.REQUEST_CANCELLED.X"}"#, Outcome::Failed),
        (r#","status":"Perhaps""#, Outcome::Interim),
        (r#","status":"SUCCESS","faultResponse":{}"#, Outcome::Succeeded),
        (r#","status":"SUCCESS","faultResponse":null"#, Outcome::Succeeded),
        (r#","deviceResponse":[{"changeServicePlanResponse":{}}]"#, Outcome::Succeeded),
        (r#","deviceResponse":{}"#, Outcome::Interim),
        ("", Outcome::Interim),
    ] {
        assert_eq!(parse(&body(rest)).result.outcome, outcome, "{rest}");
    }
}

#[test]
fn lenient_spellings_are_read_like_the_documented_one() {
    let odd = r#""REQUESTID":"r","deviceIds":{"kind":"MDN","id":5555551234},
        "deviceResponse":[{"changeServicePlanResponse":[{"effectiveDate":"1/2/2026"}]}],
        "callbackCount":"2","maxCallbackThreshold":"4","comment":"kept"}"#;
    let callback = parse(odd);
    assert_eq!(
        callback.result.device_ids,
        [ReportedId { kind: "mdn".into(), id: "5555551234".into() }]
    );
    assert_eq!(callback.result.callback_count, 2);
    assert_eq!(callback.result.service_plan_change.unwrap().effective_date, "2026-01-02");
    assert!(callback.raw_json.contains(r#""comment":"kept""#));
}

#[test]
fn a_body_that_cannot_be_used_is_refused_without_repeating_it() {
    for body in [
        &b""[..],
        b"{",
        b"[1",
        b"\xff\xfe",
        b"\"requestId\":\"r",
        b"{\"requestId\":\"a\"} trailing",
    ] {
        assert!(super::parse(body).is_none(), "{body:?}");
    }
    assert!(super::parse(&[b'['; 200_000]).is_none());
    assert!(super::parse(b"[]").is_none());
    for body in ["{}", r#"{"requestId":""}"#, r#"{"requestId":null}"#, r#"{"requestId":"a b"}"#] {
        assert!(super::parse(body.as_bytes()).is_none(), "{body}");
    }
}

#[test]
fn a_resend_has_the_same_digest_and_another_content_has_another() {
    let digest = |body: &str| parse(body).digest;
    let first = digest(ESIM);
    assert_eq!(first, digest(&ESIM.replace("\"callbackCount\":1", "\"callbackCount\":\"3\"")));
    assert_eq!(
        first,
        digest(
            &ESIM.replace("{\"requestId\"", "{\"username\":\"u\",\"password\":\"p\",\"requestId\"")
        )
    );
    assert_eq!(first, digest(&ESIM.replace("\"Eid\"", "\"eID\"").replace('\n', "")));
    let swapped = ESIM.replacen(
        r#"{"id":"89049032000001000000000000000001","kind":"Eid"},{"id":"990013907835573","kind":"Imei"}"#,
        r#"{"kind":"Imei","id":"990013907835573"},{"id":"89049032000001000000000000000001","kind":"Eid"}"#,
        1,
    );
    assert_eq!(first, digest(&swapped));
    assert_ne!(first, digest(&ESIM.replace("SUCCESS", "Failed")));
    assert_ne!(first, digest(&ESIM.replace("139708", "139709")));
    assert_ne!(digest(r#"{"requestId":"r","x":[1,2]}"#), digest(r#"{"requestId":"r","x":[2,1]}"#));
}
