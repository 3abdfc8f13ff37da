//! A journal with rows of every kind, for exports and imports.

use std::fmt::Write as _;

use super::fixtures::*;
use crate::journal::{QuarantineLimits, QuarantinedCallback};

const ACCOUNT: &str = "0000123456-00001";
/// The requests whose timelines are compared.
const REQUESTS: [&str; 7] = ["r-large", "r-5g", "r-early", "r-unknown", "r-foreign", "r-old", "r"];

/// Stores rows of every kind, some of them trimmed.
pub(in crate::journal) async fn fill(journal: &dyn Journal) {
    // Trimmed, as a whole and in part.
    let old = accepted(journal, &esim("old", 0..2), "r-old").await;
    for device in 0..2 {
        store(journal, received(success("r-old", device), 13)).await;
    }
    let half = accepted(journal, &esim("half", 10..900), "r-half").await;
    for transition in [Transition::MarkOverdue, Transition::Close] {
        journal.apply_transition(half, transition, at(14)).await.unwrap();
    }
    while journal.change(ChangeSelector::Id(old)).await.unwrap().is_some() {
        assert!(journal.trim(at(14), u64::MAX).await.unwrap());
    }
    while journal.change(ChangeSelector::Id(half)).await.unwrap().is_some() {
        assert!(journal.trim(at(20), u64::MAX).await.unwrap());
    }
    fill_states(journal).await;
    fill_results(journal).await;
    fill_quarantine(journal).await;
    journal.put_kv("first".into(), vec![0, 255]).await.unwrap();
    journal.put_kv("second".into(), vec![1]).await.unwrap();
}

/// Stores a change in each state.
async fn fill_states(journal: &dyn Journal) {
    let claim = async |key: &str, device: usize| {
        let request = esim(key, device..device + 1);
        let made = journal.claim(intent(journal, &request, at(100))).await.unwrap();
        let Claim::Created(change) = made else { panic!("{made:?}") };
        change.change_id
    };
    claim("queued", 2_000).await;
    let steps: [(&str, Vec<Transition>); 5] = [
        ("dispatched", vec![]),
        ("unknown", vec![Transition::MarkOutcomeUnknown]),
        ("rejected", vec![Transition::Reject(not_sent())]),
        ("not sent", vec![Transition::MarkNotSent(not_sent())]),
        ("closed", vec![Transition::MarkOutcomeUnknown, Transition::Close]),
    ];
    for ((key, transitions), device) in steps.into_iter().zip(2_001..) {
        let id = claim(key, device).await;
        let plan = Transition::Dispatch { trace: None, already_on_plan: Some(vec![0]) };
        for transition in std::iter::once(plan).chain(transitions) {
            journal.apply_transition(id, transition, at(101)).await.unwrap();
        }
    }
    // Another attempt.
    let again = journal.claim(intent(journal, &esim("not sent", 2_004..2_005), at(102))).await;
    assert!(matches!(again, Ok(Claim::Rearmed { .. })), "{again:?}");
    let overdue = accepted(journal, &esim("overdue", 2_010..2_012), "r").await;
    journal.apply_transition(overdue, Transition::MarkOverdue, at(103)).await.unwrap();
}

/// Stores results of every kind.
async fn fill_results(journal: &dyn Journal) {
    accepted(journal, &esim("large", 3_000..3_100), "r-large").await;
    for device in [3_001, 3_099] {
        store(journal, received(success("r-large", device), 110)).await;
    }
    accepted(journal, &five_g("5g", &["A100003685E561", "A100003685E562"]), "r-5g").await;
    let meid = ("meid", "A100003685E561");
    for ids in [vec![meid, ("mdn", "5125550142")], vec![("mdn", "5125550143")]] {
        let ids = ids.iter().map(|(kind, id)| format!(r#"{{"id":"{id}","kind":"{kind}"}}"#));
        let ids = ids.collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"requestId":"r-5g","deviceIds":[{ids}],"status":"Success"}}"#);
        let callback = received(parse(&body), 111);
        let service = CallbackService::parse(ResultService::Carrier.as_str()).ok();
        let forwarding = Some(ForwardOptions { max_waiting: 10, now: at(111) });
        store(journal, ReceivedCallback { service, forwarding, ..callback }).await;
    }
    // Of a request that is linked later, and of one that is not.
    let early = dispatched_at(journal, &esim("early", 3_200..3_202), 112).await;
    store(journal, received(success("r-early", 3_200), 113)).await;
    let request_id = RequestId::parse("r-early").unwrap();
    let accept = Transition::Accept { request_id, evidence: "response".into() };
    journal.apply_transition(early, accept, at(114)).await.unwrap();
    for device in [3_300, 3_301] {
        let account = AccountName::parse(ACCOUNT).ok();
        let service = CallbackService::parse(ResultService::Carrier.as_str()).ok();
        let callback = received(success("r-foreign", device), 115);
        store(journal, ReceivedCallback { account, service, ..callback }).await;
    }
}

/// Fills the quarantine, and deletes the newest entry.
async fn fill_quarantine(journal: &dyn Journal) {
    let limits = QuarantineLimits { bytes: 10_000, delete_reviewed_before: at(0) };
    for (number, service) in [(1, None), (2, Some(ResultService::Carrier)), (3, None)] {
        let callback = QuarantinedCallback {
            receive_time: at(number),
            service: service.and_then(|service| CallbackService::parse(service.as_str()).ok()),
            account: AccountName::parse(ACCOUNT).ok(),
            reason: "unreadable".into(),
            body: b"\0\xff".to_vec(),
            credential_mac: vec![7; 32],
        };
        let id = journal.quarantine(callback, limits).await.unwrap().unwrap();
        if number == 3 {
            assert!(journal.drop_quarantined(id).await.unwrap());
        }
    }
    journal.mark_quarantined_reviewed(1).await.unwrap();
}

async fn store(journal: &dyn Journal, callback: ReceivedCallback) {
    let stored = journal.store_callback(callback).await.unwrap();
    assert!(matches!(stored, Stored::New(_)));
}

/// Returns all that clients can read, as text.
pub(in crate::journal) async fn read_all(journal: &dyn Journal) -> String {
    let mut text = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        journal.epoch(),
        journal.fingerprint(b"content"),
        journal.kept_range().await.unwrap(),
        journal.state_counts(),
        journal.forward_queue_stats(),
    );
    let mut add = |value: &dyn std::fmt::Debug| write!(text, "\n{value:?}").unwrap();
    let filter = ChangeFilter { limit: 100, ..ChangeFilter::default() };
    let page = journal.changes(filter).await.unwrap();
    assert!(page.next.is_none() && page.changes.len() >= 10);
    for change in page.changes {
        add(&change);
        let filter = DeviceFilter { limit: 1_000, ..DeviceFilter::default() };
        add(&journal.devices(change.change_id, filter).await.unwrap());
        add(&timeline(journal, WatchTarget::Change(change.change_id)).await);
    }
    for request in REQUESTS {
        let request = RequestId::parse(request).unwrap();
        add(&timeline(journal, WatchTarget::Request(request)).await);
    }
    add(&timeline(journal, WatchTarget::Account(AccountName::parse(ACCOUNT).unwrap())).await);
    add(&journal.unmatched_results(at(0), 0, 100).await.unwrap());
    add(&journal.list_quarantined(0, 100).await.unwrap());
    add(&journal.due_forwards(at(1_000), 50, 50).await.unwrap());
    for name in ["first", "second", "third"] {
        add(&journal.get_kv(name.into()).await.unwrap());
    }
    text
}

/// Checks that a journal goes on where the one that was exported ended.
pub(in crate::journal) async fn check_continuation(journal: &dyn Journal) {
    // The changes in flight belong to no process that runs.
    let interrupted = journal.interrupted().await.unwrap();
    assert_eq!(interrupted.len(), 3);
    for change in interrupted {
        assert!(journal.settle(change, at(200)).await.unwrap().is_some());
    }
    // A repeated callback and a repeated key are recognized.
    let repeated = journal.store_callback(received(success("r-foreign", 3_300), 201)).await;
    assert_eq!(repeated.unwrap(), Stored::Duplicate);
    let again = journal.claim(intent(journal, &esim("overdue", 2_010..2_012), at(202))).await;
    assert!(matches!(again, Ok(Claim::KeyInUse { has_same_content: true, .. })), "{again:?}");
    let kept = journal.kept_range().await.unwrap();
    let stored = journal.store_callback(received(success("r", 2_010), 203)).await.unwrap();
    let Stored::New(NewResult { position, change: Some(_) }) = stored else { panic!("{stored:?}") };
    assert_eq!(position, kept.last + 1);
    let limits = QuarantineLimits { bytes: 10_000, delete_reviewed_before: at(0) };
    let (_, callback) = journal.list_quarantined(0, 1).await.unwrap().remove(0);
    assert_eq!(journal.quarantine(callback, limits).await.unwrap(), Some(4));
    // The trimming of the hidden change goes on.
    while journal.trim(at(20), u64::MAX).await.unwrap() {}
}

/// Stores an eSIM change of these devices that ThingSpace has accepted.
pub(in crate::journal) async fn accept_change(
    journal: &dyn Journal,
    key: &str,
    request_id: &str,
    devices: std::ops::Range<usize>,
) {
    accepted(journal, &esim(key, devices), request_id).await;
}

/// Returns the successful result of a device.
pub(in crate::journal) fn success_of(request_id: &str, device: usize) -> ReceivedCallback {
    received(success(request_id, device), 20)
}
