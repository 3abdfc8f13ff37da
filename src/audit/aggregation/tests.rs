use super::*;
use crate::audit::{record::CallId, testing::NOON};

fn refusal(caller: Option<&str>, peer: u32, reason: &'static str) -> AuditRecord {
    AuditRecord {
        caller: caller.map(AuditText::new),
        peer: Some(IpAddr::V4(peer.into())),
        code: Some("UNAUTHENTICATED"),
        reason: Some(reason),
        ..AuditRecord::new(AuditEvent::Call, CallId::new(NOON))
    }
}

fn counts(records: &[AuditRecord]) -> u64 {
    records.iter().filter_map(|record| record.count).sum()
}

#[test]
fn refusals_without_a_caller_have_one_record_for_each_address_and_reason() {
    let mut table = RefusalTable::default();
    for _ in 0..1_000 {
        for (peer, reason) in [(1, "expired"), (1, "no_credential"), (2, "expired")] {
            assert!(!table.count(&refusal(None, peer, reason)));
        }
    }
    let records = table.take();
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!((record.event, record.count), (AuditEvent::Refusals, Some(1_000)));
        assert!(record.peer.is_some() && record.reason.is_some());
    }
    assert!(table.take().is_empty());
}

#[test]
fn a_flood_from_many_addresses_has_few_records_and_loses_no_count() {
    let mut table = RefusalTable::default();
    for peer in 0..100_000 {
        table.count(&refusal(None, peer, if peer % 2 == 0 { "expired" } else { "no_credential" }));
    }
    let records = table.take();
    assert!(records.len() <= MAX_ADDRESSES + 2, "{}", records.len());
    assert_eq!(counts(&records), 100_000);
    assert!(records.iter().any(|record| record.peer.is_none()));
}

#[test]
fn a_known_caller_has_ten_records_of_its_own_and_one_for_the_rest() {
    let mut table = RefusalTable::default();
    for peer in 0..100_000 {
        table.count(&refusal(None, peer, "expired"));
    }
    let single = (0..25).filter(|_| table.count(&refusal(Some("fleet"), 1, "DENIED"))).count();
    assert_eq!(single, 10);
    assert!(table.count(&refusal(Some("fleet"), 1, "THROTTLED")));
    let records = table.take();
    let of_caller: Vec<_> = records.iter().filter(|record| record.caller.is_some()).collect();
    assert_eq!(of_caller.len(), 1);
    assert_eq!((of_caller[0].count, of_caller[0].reason), (Some(15), Some("DENIED")));
}
