use super::*;
use crate::domain::{
    identifier::{DeviceId, IdentifierKind},
    newtypes::ClientReference,
};

fn result() -> DeviceResult {
    let id = |kind: &str, id: &str| ReportedId { kind: kind.into(), id: id.into() };
    DeviceResult {
        request_id: RequestId::parse("request").unwrap(),
        device_ids: vec![id("iccid", "89148000000800139708"), id("otaid", "")],
        outcome: Outcome::Failed,
        status_text: "Failed".into(),
        fault: Some(ThingSpaceFault { code: "code".into(), text: "text ".repeat(60) }),
        esim_profile: Some(EsimProfile {
            state: "ACTIVE".into(),
            profile_status: String::new(),
            profile_role: "LOCAL".into(),
        }),
        service_plan_change: Some(PlanChangeDetails::parse("5/31/2018 12:00:00 AM")),
        operation_text: "changeServicePlanResponse".into(),
        source: ResultSource::Reconciled,
        evidence: String::new(),
        callback_count: 1,
        max_callback_threshold: -4,
    }
}

fn sent() -> SentDevice {
    let id = |kind, id: &str| DeviceId::new(kind, id).unwrap();
    SentDevice {
        ids: vec![
            id(IdentifierKind::Eid, "89033023426100000000000000000001"),
            id(IdentifierKind::Iccid, "89148000000800139708"),
        ],
        client_reference: ClientReference::parse("label").unwrap(),
    }
}

fn record(result: &DeviceResult, link: Option<Vec<u8>>) -> ResultRecord {
    let service = CallbackService::parse("CarrierService").unwrap();
    ResultRecord {
        body: encode_result(result, Some(&service), Timestamp::from_micros(1_500_001)).into(),
        link: link.unwrap_or_default().into(),
        matched: None,
        raw_json: Bytes::new(),
        resolved_device: None,
    }
}

#[test]
fn a_result_is_decoded_as_it_was_stored() {
    let stored = record(&result(), None);
    assert_eq!(decode_result(&stored.body), Ok(result()));
    assert_eq!(receive_time(&stored.body), Ok(Timestamp::from_micros(1_500_001)));
    let message = stored.to_proto(false, false).unwrap();
    assert_eq!(message.callback_service, "CarrierService");
    assert_eq!((message.change_id.as_str(), message.device_index), ("", None));
    let interim = DeviceResult { outcome: Outcome::Interim, fault: None, ..result() };
    assert_eq!(decode_result(&record(&interim, None).body), Ok(interim));
}

#[test]
fn the_parts_of_a_result_are_the_fields_of_the_message() {
    let change_id = ChangeId::new(Timestamp::from_micros(1));
    let link = encode_link(change_id, Some((0, &sent())), Match::Exact, "evidence");
    let record = record(&result(), Some(link));
    let message = record.to_proto(false, false).unwrap();
    assert_eq!(message.change_id, change_id.to_string());
    assert_eq!((message.device_index, message.r#match()), (Some(0), proto::Match::Exact));
    let ids = sent().ids;
    assert_eq!(message.sent_ids, ids.iter().map(proto::DeviceId::from).collect::<Vec<_>>());
    assert_eq!((&*message.client_reference, &*message.evidence), ("label", "evidence"));
    let whole = record.encoded_parts().map(|part| part.to_vec()).concat();
    assert_eq!(proto::DeviceResult::decode(&*whole).unwrap(), message);
    let mut canonical = message.encode_to_vec();
    assert_eq!(canonical.len(), whole.len());
    let mut parts = whole;
    canonical.sort_unstable();
    parts.sort_unstable();
    assert_eq!(parts, canonical, "the same fields in another order");
}

#[test]
fn damaged_bytes_are_an_error() {
    let mut damaged = record(&result(), None);
    damaged.body = damaged.body.slice(..damaged.body.len() - 3);
    assert_eq!(damaged.to_proto(false, false), Err(InvalidRecord("result")));
    assert_eq!(decode_result(&damaged.body), Err(InvalidRecord("result")));
    assert_eq!(decode_result(&[]), Err(InvalidRecord("result")));
}
