use super::*;
use crate::audit::{record::CallId, testing::NOON};

const READ: AuditEvent = AuditEvent::Calls;
const REFUSAL: AuditEvent = AuditEvent::Refusals;

fn refusal(caller: Option<&str>, peer: u32, reason: &'static str) -> AuditRecord {
    AuditRecord {
        caller: caller.map(AuditText::new),
        peer: Some(IpAddr::V4(peer.into())),
        code: Some("UNAUTHENTICATED"),
        reason: Some(reason),
        ..AuditRecord::new(AuditEvent::Call, CallId::new(NOON))
    }
}

fn read(caller: &str, method: &'static str, account: u32) -> AuditRecord {
    AuditRecord {
        caller: Some(caller.into()),
        method: Some(method),
        account: Some(AccountName::parse(format!("0000000000-{account:05}")).unwrap()),
        code: Some("OK"),
        ..AuditRecord::new(AuditEvent::Call, CallId::new(NOON))
    }
}

fn total(records: &[AuditRecord]) -> u64 {
    records.iter().filter_map(|record| record.count).sum()
}

#[test]
fn refusals_without_a_caller_have_one_record_for_each_address_and_reason() {
    let mut table = AggregationTable::default();
    for _ in 0..1_000 {
        for (peer, reason) in [(1, "expired"), (1, "no_credential"), (2, "expired")] {
            assert!(!table.count(REFUSAL, &refusal(None, peer, reason)));
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
    let mut table = AggregationTable::default();
    for peer in 0..100_000 {
        let reason = if peer % 2 == 0 { "expired" } else { "no_credential" };
        table.count(REFUSAL, &refusal(None, peer, reason));
    }
    let records = table.take();
    assert!(records.len() <= MAX_ADDRESSES + 2, "{}", records.len());
    assert_eq!(total(&records), 100_000);
    assert!(records.iter().any(|record| record.peer.is_none()));
}

#[test]
fn a_known_caller_has_ten_refusals_of_its_own_and_one_record_for_the_rest_of_each_reason() {
    let mut table = AggregationTable::default();
    for peer in 0..100_000 {
        table.count(REFUSAL, &refusal(None, peer, "expired"));
    }
    let count = |table: &mut AggregationTable, reason| {
        (0..25).filter(|_| table.count(REFUSAL, &refusal(Some("fleet"), 1, reason))).count()
    };
    assert_eq!((count(&mut table, "DENIED"), count(&mut table, "THROTTLED")), (10, 0));
    let records = table.take();
    let of_caller = records.iter().filter(|record| record.caller.is_some());
    let mut counts: Vec<_> = of_caller.map(|record| (record.reason, record.count)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [(Some("DENIED"), Some(15)), (Some("THROTTLED"), Some(25))]);
}

#[test]
fn reads_beyond_ten_are_counted_by_method_account_and_status() {
    let mut table = AggregationTable::default();
    let own = (0..100).filter(|_| table.count(READ, &read("fleet", "List", 1))).count();
    assert_eq!(own, 10);
    assert!(table.count(READ, &read("other", "List", 1)), "another caller has its own number");
    assert!(!table.count(READ, &read("fleet", "Get", 1)));
    assert!(!table.count(READ, &read("fleet", "List", 2)));
    let failed = AuditRecord { code: Some("NOT_FOUND"), ..read("fleet", "List", 1) };
    assert!(!table.count(READ, &failed));
    let records = table.take();
    assert!(records.iter().all(|record| record.event == READ && record.call_id.is_none()));
    let mut counts: Vec<_> = records.iter().filter_map(|record| record.count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 1, 90]);
    assert!(table.count(READ, &read("fleet", "List", 1)), "a new period");
}

#[test]
fn a_caller_cannot_cause_more_than_a_few_records_and_no_call_is_missing() {
    let mut table = AggregationTable::default();
    let methods = ["List", "Get", "Watch"];
    let reasons = ["EXPIRED", "DENIED", "THROTTLED"];
    let mut own = 0;
    for number in 0..30_000_u32 {
        let index = usize::try_from(number % 3).unwrap();
        let record = read("fleet", methods[index], number);
        own += usize::from(table.count(READ, &record));
        own += usize::from(table.count(REFUSAL, &refusal(Some("fleet"), number, reasons[index])));
        if table.count(AuditEvent::StreamsOpened, &record) {
            own += 2;
        } else {
            table.add(AuditEvent::StreamsEnded, &record);
        }
    }
    let records = table.take();
    assert_eq!(own, 40);
    assert!(records.len() <= 4 * (MAX_COUNTS + 1), "{}", records.len());
    // A stream with records of its own has two.
    assert_eq!(total(&records) + u64::try_from(own).unwrap(), 4 * 30_000);
    let rest = records.iter().find(|record| record.event == READ && record.account.is_none());
    assert_eq!(rest.unwrap().caller, Some("fleet".into()));
}

#[test]
fn many_callers_do_not_fill_the_table() {
    let mut table = AggregationTable::default();
    for number in 0..100_000_u32 {
        table.count(READ, &read(&number.to_string(), "List", number));
    }
    assert!(table.callers.len() <= MAX_CALLERS);
    let records = table.take();
    assert_eq!((records.len(), total(&records)), (1, 100_000 - 4_096));
}
