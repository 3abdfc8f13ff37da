//! Quarantine.

use super::fixtures::*;
use crate::journal::{QuarantineLimits, QuarantinedCallback};

fn quarantined(body: &str) -> QuarantinedCallback {
    QuarantinedCallback {
        receive_time: at(1),
        service: None,
        account: None,
        reason: "unreadable".into(),
        body: body.into(),
        credential_mac: Vec::new(),
    }
}

pub(in crate::journal) async fn a_released_callback_is_stored_once_and_a_missing_one_is_reported(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let limits = QuarantineLimits { bytes: 1_000, delete_reviewed_before: at(0) };
    let callback = quarantined("body");
    let id = journal.quarantine(callback.clone(), limits).await.unwrap();
    let id = id.expect("the quarantine is empty");
    assert_eq!(journal.list_quarantined(0, 10).await.unwrap(), [(id, callback)]);
    let release = || journal.release_quarantined(id, received(success("r", 0), 2));
    assert!(matches!(release().await, Ok(Stored::New(_))));
    assert!(journal.list_quarantined(0, 10).await.unwrap().is_empty());
    let missing = release().await;
    assert!(matches!(missing, Err(JournalError::NoSuchCallback)), "{missing:?}");
    assert!(!journal.drop_quarantined(id).await.unwrap());
    journal.close().await;
}

pub(in crate::journal) async fn a_full_quarantine_deletes_only_old_reviewed_callbacks(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let limits = |seconds| QuarantineLimits { bytes: 600, delete_reviewed_before: at(seconds) };
    let insert = |seconds| journal.quarantine(quarantined(&"x".repeat(100)), limits(seconds));
    let first = insert(100).await.unwrap().expect("it fits");
    assert_eq!(insert(100).await.unwrap(), None);
    journal.mark_quarantined_reviewed(first).await.unwrap();
    assert_eq!(insert(1).await.unwrap(), None);
    let second = insert(2).await.unwrap().expect("it fits");
    assert!(second > first);
    let left = journal.list_quarantined(0, 10).await.unwrap();
    assert_eq!(left.len(), 1);
    journal.close().await;
}
