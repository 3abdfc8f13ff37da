//! Figures for metrics.

use super::fixtures::*;
use crate::journal::{QuarantineLimits, QuarantineStatistics, QuarantinedCallback};

pub(in crate::journal) async fn figures_name_the_oldest_change_that_waits_by_callback_service(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let empty = journal.statistics().await.unwrap();
    assert_eq!((empty.oldest_pending, empty.oldest_without_result), (None, vec![]));

    accepted(&*journal, &esim("a", 0..2), "first").await;
    accepted(&*journal, &five_g("b", &["99000000000001"]), "second").await;
    let found = journal.statistics().await.unwrap();
    assert_eq!(found.oldest_pending, Some(at(12)));
    let mut without_result = found.oldest_without_result;
    without_result.sort();
    let both = [ResultService::Carrier, ResultService::DeviceProfile].map(|of| (of, at(12)));
    assert_eq!(without_result, both);

    journal.store_callback(received(success("first", 0), 20)).await.unwrap();
    let found = journal.statistics().await.unwrap();
    assert_eq!(found.oldest_pending, Some(at(12)));
    assert_eq!(found.oldest_without_result, [(ResultService::Carrier, at(12))]);
    journal.close().await;
}

pub(in crate::journal) async fn figures_count_the_quarantine_and_requests_that_wait_for_attribution(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let callback = QuarantinedCallback {
        receive_time: at(1),
        service: None,
        account: None,
        reason: "malformed".into(),
        body: vec![0; 44],
        credential_mac: Vec::new(),
    };
    let limits = QuarantineLimits { bytes: 10_000, delete_reviewed_before: at(0) };
    let first = journal.quarantine(callback.clone(), limits).await.unwrap().expect("it fits");
    journal.quarantine(callback, limits).await.unwrap();
    journal.mark_quarantined_reviewed(first).await.unwrap();
    journal.store_callback(received(success("foreign", 7), 5)).await.unwrap();
    let found = journal.statistics().await.unwrap();
    let quarantine = QuarantineStatistics { reviewed: 1, unreviewed: 1, bytes: 600 };
    assert_eq!(found.quarantine, quarantine);
    assert_eq!((found.oldest_unknown, found.waiting_requests), (None, 0));

    let id = dispatched_at(&*journal, &esim("k", 0..3), 10).await;
    journal.apply_transition(id, Transition::MarkOutcomeUnknown, at(13)).await.unwrap();
    journal.store_callback(received(success("later", 0), 14)).await.unwrap();
    let found = journal.statistics().await.unwrap();
    assert_eq!((found.oldest_unknown, found.waiting_requests), (Some(at(13)), 1));
    assert!(journal.space().await.unwrap().used > 0);
    journal.close().await;
}
