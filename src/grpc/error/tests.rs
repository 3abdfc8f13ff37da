use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use tonic::Status;
use tonic_types::StatusExt;

use super::{
    api_error::{DOMAIN, RETRY_PUSHBACK_HEADER},
    reason::{ErrorReason, RetryAdvice},
    *,
};
use crate::domain::{
    refusal::{Refusal, RefusalKind},
    violation::{FieldReason, Violation},
};

/// All reasons of the proto.
pub(super) fn reasons() -> impl Iterator<Item = ErrorReason> {
    (1..).map_while(|number| ErrorReason::try_from(number).ok())
}

fn trailer_bytes(status: &Status) -> usize {
    let headers = status.clone().into_http::<()>().into_parts().0.headers;
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

#[test]
fn every_reason_has_one_error_info_and_its_retry_delay() {
    for reason in reasons() {
        let status = ApiError::new(reason, "message").into_status();
        let (code, advice) = reason.code_and_advice();
        assert_eq!(status.code(), code);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.name(), DOMAIN));
        assert_eq!(info.metadata["retry"], advice.as_str());
        let retry_info = status.get_details_retry_info();
        let pushback = status.metadata().get(RETRY_PUSHBACK_HEADER);
        match advice {
            RetryAdvice::Later(wait) => {
                assert_eq!(retry_info.unwrap().retry_delay, Some(wait));
                assert_eq!(pushback.unwrap().to_str().unwrap(), wait.as_millis().to_string());
            }
            RetryAdvice::Now | RetryAdvice::Never => {
                assert!(retry_info.is_none() && pushback.is_none())
            }
        }
    }
}

#[test]
fn nine_thousand_violations_and_long_texts_stay_below_eight_thousand_bytes() {
    let violations: Vec<Violation> = (0..9_000)
        .map(|index| Violation {
            field: format!("devices[{index}].primary_place_of_use.customer_name.first_name"),
            description: "must be 1 to 20 characters, only letters A to Z, digits".into(),
            reason: FieldReason::Character,
        })
        .collect();
    let status = ApiError::invalid_fields(violations).with_executed(Executed::No).into_status();
    assert!(trailer_bytes(&status) < 8_000, "{}", trailer_bytes(&status));
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["violations_total"], "9000");
    let listed = status.get_details_bad_request().unwrap().field_violations.len();
    assert_eq!(info.metadata["violations_listed"], listed.to_string());
    assert!(listed > 20 && status.message().ends_with("(and 8999 more)"));

    let refusal = Refusal {
        kind: RefusalKind::Throttled,
        detail: "ü".repeat(2_000),
        thingspace_code: Some("c".repeat(2_000)),
        thingspace_text: Some("ß".repeat(2_000)),
        retry_after: None,
    };
    let status = ApiError::from(&refusal)
        .with_executed(Executed::No)
        .with_metadata("change_id", "01234567-89ab-cdef-0123-456789abcdef")
        .into_status();
    assert!(trailer_bytes(&status) < 8_000, "{}", trailer_bytes(&status));
    assert!(!STANDARD_NO_PAD.encode(status.details()).is_empty());
}

#[test]
fn each_reason_is_documented_once_with_its_code_and_its_retry() {
    let manual = include_str!("../../../docs/errors.md");
    for reason in reasons() {
        let heading = format!("\n## {}\n", reason.name());
        assert_eq!(manual.matches(&heading).count(), 1, "{heading}");
        let section = manual.split(&heading).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        assert!(
            section.contains(&format!("retry: {}", reason.code_and_advice().1.as_str())),
            "{heading}"
        );
    }
}
