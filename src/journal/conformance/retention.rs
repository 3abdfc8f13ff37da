//! Retention and deadlines.

use super::fixtures::*;

pub(in crate::journal) async fn trimming_removes_whole_old_changes_and_nothing_else(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    accepted(&*journal, &esim("old", 0..700), "r-old").await;
    accepted(&*journal, &esim("new", 700..701), "r-new").await;
    journal.store_callback(received(success("r-old", 0), 30)).await.unwrap();
    journal.store_callback(received(success("r-new", 700), 100)).await.unwrap();
    let old_change =
        journal.change(ChangeSelector::Request(RequestId::parse("r-old").unwrap())).await.unwrap();
    for transition in [Transition::MarkOverdue, Transition::Close] {
        let id = old_change.as_ref().unwrap().change_id;
        journal.apply_transition(id, transition, at(30)).await.unwrap();
    }
    journal.store_callback(received(success("r-foreign", 1), 31)).await.unwrap();
    let old = ChangeSelector::Request(RequestId::parse("r-old").unwrap());
    let new = ChangeSelector::Request(RequestId::parse("r-new").unwrap());
    let kept = journal.change(new.clone()).await.unwrap().unwrap();
    while journal.trim(at(50), u64::MAX).await.unwrap() {
        assert_sound(engine).await;
    }
    assert!(journal.change(old).await.unwrap().is_none());
    assert_eq!(journal.change(new).await.unwrap().unwrap(), kept);
    let unattributed_events =
        timeline(&*journal, WatchTarget::Request(RequestId::parse("r-foreign").unwrap())).await;
    assert!(unattributed_events.is_empty());
    assert_eq!(
        format_events(&timeline(&*journal, WatchTarget::Change(kept.change_id)).await),
        "Queued Dispatched Accepted 0:Succeeded Finished"
    );
    let kept = journal.kept_range().await.unwrap();
    assert_eq!(kept.trimmed, kept.last, "the foreign request had the newest entry");
    // The key and the devices are free again.
    let again = journal.claim(intent(&*journal, &esim("old", 0..700), at(60))).await.unwrap();
    assert!(matches!(again, Claim::Created(_)));
    journal.close().await;
}

pub(in crate::journal) async fn a_result_that_arrives_while_its_request_is_trimmed_is_kept(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    accepted(&*journal, &esim("old", 0..1), "r-old").await;
    journal.store_callback(received(success("r-old", 0), 20)).await.unwrap();
    journal.store_callback(received(success("r-foreign", 1), 40)).await.unwrap();
    for (request, before) in [("r-old", at(30)), ("r-foreign", at(50))] {
        let request_id = RequestId::parse(request).unwrap();
        // The change or the request is hidden, but not deleted yet.
        assert!(journal.trim(before, u64::MAX).await.unwrap());
        let timeline = || timeline(&*journal, WatchTarget::Request(request_id.clone()));
        assert!(timeline().await.is_empty());
        // Also a repeated delivery is a new result.
        for number in [0, 1] {
            let stored = journal.store_callback(received(success(request, number), 60)).await;
            let Stored::New(NewResult { change: None, .. }) = stored.unwrap() else {
                panic!("{request}");
            };
        }
        let kept = format_events(&timeline().await);
        while journal.trim(before, u64::MAX).await.unwrap() {
            assert_sound(engine).await;
        }
        assert_eq!(format_events(&timeline().await), kept);
        assert_eq!(kept, "?:Succeeded ?:Succeeded");
    }
    journal.close().await;
}

pub(in crate::journal) async fn a_change_that_is_not_final_is_never_trimmed(engine: &dyn Engine) {
    let journal = engine.open().await;
    accepted(&*journal, &esim("accepted", 0..1), "r").await;
    let unknown = intent(&*journal, &esim("unknown", 1..2), at(10));
    journal.claim(unknown.clone()).await.unwrap();
    let id = unknown.change.change_id;
    for transition in [dispatch(), Transition::MarkOutcomeUnknown] {
        journal.apply_transition(id, transition, at(11)).await.unwrap();
    }
    while journal.trim(at(1_000), u64::MAX).await.unwrap() {}
    for key in ["accepted", "unknown"] {
        let key = IdempotencyKey::parse(key).unwrap();
        let name = ChangeSelector::Key(unknown.change.account.clone(), key);
        assert!(journal.change(name).await.unwrap().is_some());
    }
    journal.apply_transition(id, Transition::Close, at(1_001)).await.unwrap();
    while journal.trim(at(2_000), u64::MAX).await.unwrap() {}
    assert!(journal.change(ChangeSelector::Id(id)).await.unwrap().is_none());
    journal.close().await;
}

pub(in crate::journal) async fn deadlines_and_unfinished_calls_are_found_after_a_restart(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let waiting = accepted(&*journal, &esim("a", 0..1), "r").await;
    let queued = intent(&*journal, &esim("b", 1..2), at(1));
    journal.claim(queued.clone()).await.unwrap();
    journal.close().await;
    drop(journal);

    let journal = engine.open().await;
    assert_eq!(journal.interrupted().await.unwrap(), [queued.change.change_id]);
    let none = journal.due_changes(ChangeState::Accepted, at(12), at(12)).await.unwrap();
    assert_eq!((none.due.len(), none.next), (0, Some(at(12))));
    let due = journal
        .due_changes(ChangeState::Accepted, at(12).plus(Duration::from_micros(1)), at(13))
        .await
        .unwrap();
    assert_eq!((due.due, due.next), (vec![waiting], None));
    assert_eq!(due.ahead_of_clock, []);
    let set_back = journal.due_changes(ChangeState::Accepted, at(1), at(11)).await.unwrap();
    assert_eq!((set_back.due, set_back.ahead_of_clock), (vec![], vec![waiting]));
    journal.apply_transition(waiting, Transition::MarkOverdue, at(50)).await.unwrap();
    journal.store_callback(received(success("r", 0), 60)).await.unwrap();
    assert_eq!(
        format_events(&timeline(&*journal, WatchTarget::Change(waiting)).await),
        "Queued Dispatched Accepted Overdue 0:Succeeded Finished"
    );
    journal.close().await;
}
