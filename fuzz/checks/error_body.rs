//! A response of ThingSpace to a plan change: its classification, and the text that is shown.

use thingspace_gateway::{
    domain::{change_type::ChangeType, refusal::RefusalKind},
    thingspace::{ChangeResponse, classify_response},
};

use super::{SECRET, contains_secret};

const STATUSES: [u16; 24] = [
    200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 406, 408, 409, 415, 422,
    429, 500, 502, 503, 504,
];

pub fn check(data: &[u8]) {
    let Some(([choice, other], body)) = data.split_first_chunk::<2>() else {
        return;
    };
    let status = match STATUSES.get(usize::from(*choice)) {
        Some(status) => *status,
        None => 100 + (u16::from(*choice) << 2) + u16::from(*other >> 6),
    };
    let change_type = match other & 1 {
        0 => ChangeType::EsimPlan,
        _ => ChangeType::FiveGBiPlan,
    };
    let Some(response) = classify_response(status, body, change_type, &[SECRET]) else {
        assert!(!(100..1_000).contains(&status));
        return;
    };
    check_redacted(&response);
    check_classification(status, body, &response);
}

fn check_redacted(response: &ChangeResponse) {
    let refusal = match response {
        ChangeResponse::Refused(refusal) | ChangeResponse::NotExecuted(refusal) => refusal,
        // A request ID is returned unchanged, because all callbacks contain it.
        ChangeResponse::Accepted(_) => return,
        ChangeResponse::Unknown(reason) => return assert!(reason.len() < 200),
    };
    assert!(!contains_secret(&format!("{refusal:?}")), "{refusal:?}");
    let code = refusal.thingspace_code.as_deref().unwrap_or_default();
    let text = refusal.thingspace_text.as_deref().unwrap_or_default();
    assert!(code.chars().count() <= 128 && text.chars().count() <= 500);
    assert!(refusal.detail.len() < 300);
    assert!(!code.chars().chain(text.chars()).any(char::is_control));
}

/// Only the definite results of the table in ARCHITECTURE.md are allowed. This check accepts more bodies
/// than the table, and does not share its code.
fn check_classification(status: u16, body: &[u8], response: &ChangeResponse) {
    let text = String::from_utf8_lossy(body).to_lowercase();
    let client_error = (400..500).contains(&status) && status != 408;
    let has = |part: &str| text.contains(part);
    // JSON can escape any letter.
    let may_have = |part: &str| has(part) || has("\\u");
    let is_error = may_have("errorcode") || may_have("fault") || may_have("error");
    let is_gateway_fault = may_have("fault") && may_have("900");
    let is_bare = body.trim_ascii().is_empty();
    match response {
        ChangeResponse::Accepted(_) => {
            assert!((200..300).contains(&status) && may_have("requestid"));
        }
        ChangeResponse::Unknown(_) => assert_ne!(status, 429),
        ChangeResponse::Refused(_) => {
            assert!(client_error && is_error && !is_bare, "{status} {text}")
        }
        ChangeResponse::NotExecuted(refusal) => match refusal.kind {
            RefusalKind::Throttled => assert!(
                status == 429
                    || (status >= 400 && is_gateway_fault)
                    || (client_error && may_have("errorcode") && may_have("429")),
                "{status} {text}"
            ),
            RefusalKind::Credentials => assert!(
                client_error && (is_error || (is_bare && matches!(status, 401 | 403))),
                "{status} {text}"
            ),
            other => panic!("{other:?}: {status} {text}"),
        },
    }
    if (300..400).contains(&status) || status == 408 {
        let may_throttle = status == 408 && is_gateway_fault;
        assert!(matches!(response, ChangeResponse::Unknown(_)) || may_throttle, "{status} {text}");
    }
}
