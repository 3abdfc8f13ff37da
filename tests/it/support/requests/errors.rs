//! Parses the details of gRPC errors.

use std::collections::HashMap;

use prost::Message as _;
use thingspace_gateway::proto::{FieldReason, Reason};
use tonic::{Code, Status};
use tonic_types::pb;

use crate::support::secrets::assert_no_planted_text;

/// The details of an error.
#[derive(Debug)]
pub struct ParsedError {
    pub code: Code,
    pub reason: String,
    pub metadata: HashMap<String, String>,
    /// Invalid fields.
    pub fields: Vec<String>,
    /// Delay of RetryInfo, in seconds.
    pub retry_after: Option<i64>,
}

/// Parses an error. Fails unless it has exactly one ErrorInfo that keeps the contract, and no planted text.
pub fn parse_error(status: &Status) -> ParsedError {
    assert_no_planted_text("an error", &[status.message().as_bytes(), status.details()].concat());
    let details = pb::Status::decode(status.details()).expect("details");
    assert_eq!(details.code, i32::from(status.code()), "{status:?}");
    let infos: Vec<pb::ErrorInfo> = unpack(&details, "google.rpc.ErrorInfo");
    let [info] = infos.as_slice() else {
        panic!("not exactly one ErrorInfo: {status:?}");
    };
    assert_eq!(info.domain, "thingspace.gateway");
    let retry = info.metadata.get("retry").map(String::as_str);
    assert!(matches!(retry, Some("NOW" | "LATER" | "NEVER")), "{status:?}");
    let reason = Reason::from_str_name(&format!("REASON_{}", info.reason));
    assert!(reason.is_some(), "not in the proto: {status:?}");
    let violations: Vec<pb::BadRequest> = unpack(&details, "google.rpc.BadRequest");
    for violation in violations.iter().flat_map(|bad| &bad.field_violations) {
        let reason = FieldReason::from_str_name(&format!("FIELD_REASON_{}", violation.reason));
        assert!(reason.is_some(), "not in the proto: {violation:?}");
    }
    let retry_infos: Vec<pb::RetryInfo> = unpack(&details, "google.rpc.RetryInfo");
    let delay = retry_infos.first().and_then(|info| info.retry_delay);
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    let pushback = pushback.map(|ms| ms.to_str().unwrap().parse::<i64>().unwrap());
    let delay_ms = delay.map(|delay| delay.seconds * 1_000 + i64::from(delay.nanos) / 1_000_000);
    assert_eq!(delay_ms, pushback, "{status:?}");
    assert!(delay_ms.is_some() || retry != Some("LATER"), "{status:?}");
    assert!(delay_ms.is_none() || retry != Some("NEVER"), "{status:?}");
    ParsedError {
        code: status.code(),
        reason: info.reason.clone(),
        metadata: info.metadata.clone(),
        fields: violations
            .into_iter()
            .flat_map(|bad| bad.field_violations)
            .map(|violation| violation.field)
            .collect(),
        retry_after: retry_infos
            .first()
            .and_then(|info| info.retry_delay)
            .map(|delay| delay.seconds),
    }
}

fn unpack<M: prost::Message + Default>(details: &pb::Status, name: &str) -> Vec<M> {
    let url = format!("type.googleapis.com/{name}");
    let packed = details.details.iter().filter(|any| any.type_url == url);
    packed.map(|any| M::decode(any.value.as_slice()).expect(name)).collect()
}

impl ParsedError {
    /// Returns the code, the reason, `retry`, and `executed` if the error has it.
    pub fn summary(&self) -> (Code, &str, &str, Option<&str>) {
        let get = |name| self.metadata.get(name).map(String::as_str);
        (self.code, &self.reason, get("retry").unwrap_or_default(), get("executed"))
    }
}
