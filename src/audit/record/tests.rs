use std::net::Ipv6Addr;

use serde_json::{Map, Value};

use super::*;
use crate::audit::testing::NOON;

/// A record with all fields, each as long as it can be.
fn longest() -> AuditRecord {
    let long = || Some(AuditText::new(&"\u{1f4a5}".repeat(1_000)));
    AuditRecord {
        method: Some("thingspace.gateway.v1.GatewayService/ChangeFiveGBiPlan"),
        caller: long(),
        identity: long(),
        auth_method: Some("mtls"),
        peer: Some(Ipv6Addr::LOCALHOST.into()),
        account: Some(AccountName::parse("0000123456-00001").unwrap()),
        operation: Some("five_g_bi_plan"),
        devices: Some(10_000),
        change_id: Some(ChangeId::new(NOON)),
        action: Some("drop_quarantined_callback"),
        target: long(),
        code: Some("FAILED_PRECONDITION"),
        reason: Some("JOURNAL_UNAVAILABLE"),
        executed: Some("UNKNOWN"),
        count: Some(u64::MAX),
        ..AuditRecord::new(AuditEvent::StreamOpened, CallId::new(NOON))
    }
}

fn text(record: &AuditRecord) -> String {
    String::from_utf8(record.line(NOON, "gateway-0")).unwrap()
}

fn parse(line: &str) -> Map<String, Value> {
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_line_has_all_fields_in_the_documented_order() {
    let record = parse(&text(&longest()));
    let fields: Vec<&str> = record.keys().map(String::as_str).collect();
    assert_eq!(fields, FIELDS);
    assert_eq!(record["time"], "2026-03-01T12:00:00.000007Z");
    assert_eq!((&record["event"], &record["peer"]), (&"stream_opened".into(), &"::1".into()));
}

#[test]
fn a_field_without_a_value_is_left_out() {
    let record = AuditRecord::of_log(AuditEvent::RecordsLost, Some(3));
    let record = parse(&text(&record));
    let fields: Vec<&str> = record.keys().map(String::as_str).collect();
    assert_eq!(fields, ["time", "id", "event", "replica", "count"]);
}

#[test]
fn the_longest_line_has_at_most_6_kib_of_printable_ascii() {
    let line = text(&longest());
    assert!(line.len() <= 6 * 1_024, "{}", line.len());
    let line = line.strip_suffix('\n').unwrap();
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
}

#[test]
fn a_text_with_newlines_quotes_and_escape_codes_stays_on_its_line() {
    let planted = "a\"\n{\"event\":\"call\"}\u{1b}[2J\u{7f}\u{85}\u{202e}é";
    let record = AuditRecord { target: Some(planted.into()), ..longest() };
    let line = text(&record);
    assert_eq!(line.lines().count(), 1);
    assert!(!line.contains('\u{1b}') && !line.contains('\u{202e}'), "{line}");
    assert_eq!(parse(&line)["target"], "a\"?{\"event\":\"call\"}?[2J??\u{202e}é");
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let text = AuditText::new(&"é".repeat(400));
    assert!(text.as_str().len() <= MAX_TEXT_BYTES);
    assert!(text.as_str().ends_with('…'));
    assert_eq!(AuditText::new(&"x".repeat(512)).as_str(), "x".repeat(512));
}

#[test]
fn times_sort_as_texts() {
    let times = [0, 999_999, 1_000_000, 1_772_366_400_000_000].map(Timestamp::from_micros);
    let texts = times.map(rfc3339);
    assert!(texts.is_sorted(), "{texts:?}");
    assert!(texts.iter().all(|text| text.len() == 27), "{texts:?}");
}

/// Returns the examples of docs/audit.md.
fn examples() -> Vec<Map<String, Value>> {
    let manual = include_str!("../../../docs/audit.md");
    manual
        .lines()
        .filter_map(|line| line.strip_prefix("    {"))
        .map(|rest| parse(&format!("{{{rest}")))
        .collect()
}

#[test]
fn the_manual_explains_every_field_and_has_an_example_of_every_event() {
    let manual = include_str!("../../../docs/audit.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows: Vec<&str> = rows.filter(|row| FIELDS.contains(row)).collect();
    assert_eq!(rows, FIELDS);
    let examples = examples();
    for event in EVENTS {
        let name = serde_json::to_value(event).unwrap();
        assert!(examples.iter().any(|example| example["event"] == name), "{name}");
        assert!(manual.contains(&format!("| `{}` |", name.as_str().unwrap())), "{name}");
    }
    for example in examples {
        let order = example.keys().map(|key| FIELDS.iter().position(|field| field == key));
        let order: Vec<_> = order.collect();
        assert!(order.is_sorted() && !order.contains(&None), "{example:?}");
    }
}

#[test]
fn the_schema_has_the_fields_and_events_of_this_program() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../docs/audit.schema.json")).unwrap();
    let fields: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(fields, FIELDS);
    let events = EVENTS.map(|event| serde_json::to_value(event).unwrap());
    assert_eq!(schema["properties"]["event"]["enum"].as_array().unwrap(), &events);
}
