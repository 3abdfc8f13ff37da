use parking_lot::Mutex;

use super::*;
use crate::devices::DeviceRegistry;
use crate::identifiers::{DeviceId, DeviceIdentity, DeviceIds};
use crate::ledger::entries::{CallbackCounts, content_hash};
use crate::ledger::report::LedgerReport;
use crate::operations::five_g_bi_plan::FIVE_G_BI_PLAN;
use crate::outcome::{DeviceOutcome, ResponseKind};

fn accept(ledger: &mut Ledger, plan: &str, count: usize) {
    let device: DeviceIds = Arc::new([DeviceId::new("iccid", "89148000000800139708")]);
    let identity = DeviceIdentity::of_line(&device);
    let record = DeviceRegistry::default().find_or_create(&device, identity);
    let device_change = |_| DeviceChange {
        sent: device.clone(),
        record: Arc::clone(&record),
        planned_outcome: DeviceOutcome::PLAIN,
        scenario: None,
        progress: Mutex::default(),
    };
    let devices: Arc<[DeviceChange]> = (0..count).map(device_change).collect();
    let change = ExecutedChange {
        request_id: String::new(),
        account: "0000123456-00001".into(),
        operation: &FIVE_G_BI_PLAN,
        service_plan: plan.into(),
        devices: count,
        received_at_ms: 0,
        response_kind: ResponseKind::RequestId,
        content_hash: content_hash(&FIVE_G_BI_PLAN, plan, &devices),
        callbacks: CallbackCounts::default(),
    };
    ledger.record_executed(Arc::new(change), devices);
    ledger.counts.devices_pending -= count;
}

#[test]
fn the_oldest_changes_lose_their_identifiers_first_and_stay_counted() {
    let mut ledger = Ledger::default();
    for _ in 0..30 {
        accept(&mut ledger, "plan", 10_000);
    }
    let report = LedgerReport::new(&ledger, true);
    let changes = report.changes.iter();
    let listed: Vec<bool> = changes.map(|change| change.device_results.is_some()).collect();
    assert_eq!(listed, [vec![false; 5], vec![true; 25]].concat());
    let mut changes = report.changes.iter();
    assert!(changes.all(|change| change.change.devices == 10_000));
}

#[test]
fn equal_requests_are_counted_together() {
    let mut ledger = Ledger::default();
    for plan in ["one", "other", "one"] {
        accept(&mut ledger, plan, 1);
    }
    let report = LedgerReport::new(&ledger, false);
    let changes = report.changes.iter();
    let counts: Vec<usize> = changes.map(|change| change.same_content_count).collect();
    assert_eq!(counts, [2, 1, 2]);
}
