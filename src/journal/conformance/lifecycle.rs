//! Lists, retention, deadlines, and the end.

use super::*;

pub(in crate::journal) async fn lists_are_newest_first_filtered_and_paged(engine: &dyn Engine) {
    let journal = engine.open().await;
    let mut made = Vec::new();
    for number in 0..5 {
        let id = accepted(
            &*journal,
            &esim(&format!("k{number}"), number..number + 2),
            &format!("r{number}"),
        )
        .await;
        made.insert(0, id);
    }
    let list = |filter: ChangeFilter| async {
        let page = journal.changes(filter).await.unwrap();
        let ids: Vec<ChangeId> = page.changes.iter().map(|change| change.change_id).collect();
        (ids, page.next)
    };
    let all = ChangeFilter {
        limit: 3,
        ..ChangeFilter::default()
    };
    let (first, next) = list(all.clone()).await;
    let (second, end) = list(ChangeFilter {
        after: next,
        ..all.clone()
    })
    .await;
    assert_eq!([first, second].concat(), made);
    assert_eq!(end, None);
    let device = |number: usize| {
        Some(
            crate::domain::identifier::DeviceId::new("iccid".parse().unwrap(), iccid(number))
                .unwrap(),
        )
    };
    let (with_device, _) = list(ChangeFilter {
        device: device(2),
        ..all.clone()
    })
    .await;
    assert_eq!(with_device, made[2..4]);
    let states = vec![ChangeState::Finished];
    journal
        .store_callback(received(success("r0", 0), 20))
        .await
        .unwrap();
    journal
        .store_callback(received(success("r0", 1), 20))
        .await
        .unwrap();
    let (finished, _) = list(ChangeFilter {
        states,
        ..all.clone()
    })
    .await;
    assert_eq!(finished, made[4..]);
    let (none, _) = list(ChangeFilter {
        created_from: Some(at(11)),
        ..all
    })
    .await;
    assert!(none.is_empty());
    journal.close().await;
}

pub(in crate::journal) async fn trimming_removes_whole_old_changes_and_nothing_else(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    accepted(&*journal, &esim("old", 0..700), "r-old").await;
    accepted(&*journal, &esim("new", 700..701), "r-new").await;
    journal
        .store_callback(received(success("r-old", 0), 30))
        .await
        .unwrap();
    journal
        .store_callback(received(success("r-new", 700), 100))
        .await
        .unwrap();
    let old_change = journal
        .change(ChangeSelector::Request(RequestId::parse("r-old").unwrap()))
        .await
        .unwrap();
    for step in [Transition::MarkOverdue, Transition::Close] {
        let id = old_change.as_ref().unwrap().change_id;
        journal.apply_transition(id, step, at(30)).await.unwrap();
    }
    journal
        .store_callback(received(success("r-nobody", 1), 31))
        .await
        .unwrap();
    let old = ChangeSelector::Request(RequestId::parse("r-old").unwrap());
    let new = ChangeSelector::Request(RequestId::parse("r-new").unwrap());
    let kept = journal.change(new.clone()).await.unwrap().unwrap();
    while journal.trim(at(50), u64::MAX).await.unwrap() {}
    assert!(journal.change(old).await.unwrap().is_none());
    assert_eq!(journal.change(new).await.unwrap().unwrap(), kept);
    let unattributed_events = timeline(
        &*journal,
        WatchTarget::Request(RequestId::parse("r-nobody").unwrap()),
    )
    .await;
    assert!(unattributed_events.is_empty());
    assert_eq!(
        format_events(&timeline(&*journal, WatchTarget::Change(kept.change_id)).await),
        "Queued Dispatched Accepted 0:Succeeded Finished"
    );
    let extent = journal.coverage().await.unwrap();
    assert_eq!(extent.trimmed, extent.last, "the newest was the stranger's");
    // Its key is free again, and its devices are nobody's.
    let again = journal
        .claim(intent(&*journal, &esim("old", 0..700), at(60)))
        .await
        .unwrap();
    assert!(matches!(again, Claim::Created(_)));
    journal.close().await;
}

pub(in crate::journal) async fn a_change_that_is_not_final_is_never_trimmed(engine: &dyn Engine) {
    let journal = engine.open().await;
    accepted(&*journal, &esim("accepted", 0..1), "r").await;
    let unknown = intent(&*journal, &esim("unknown", 1..2), at(10));
    journal.claim(unknown.clone()).await.unwrap();
    let id = unknown.change.change_id;
    for step in [dispatch(), Transition::MarkOutcomeUnknown] {
        journal.apply_transition(id, step, at(11)).await.unwrap();
    }
    while journal.trim(at(1_000), u64::MAX).await.unwrap() {}
    for key in ["accepted", "unknown"] {
        let key = IdempotencyKey::parse(key).unwrap();
        let name = ChangeSelector::Key(unknown.change.account.clone(), key);
        assert!(journal.change(name).await.unwrap().is_some());
    }
    journal
        .apply_transition(id, Transition::Close, at(1_001))
        .await
        .unwrap();
    while journal.trim(at(2_000), u64::MAX).await.unwrap() {}
    assert!(
        journal
            .change(ChangeSelector::Id(id))
            .await
            .unwrap()
            .is_none()
    );
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
    let in_flight = journal.in_flight().await.unwrap();
    assert_eq!(in_flight, [queued.change]);
    let none = journal
        .due_changes(ChangeState::Accepted, at(12), at(12))
        .await
        .unwrap();
    assert_eq!((none.due.len(), none.next), (0, Some(at(12))));
    let due = journal
        .due_changes(
            ChangeState::Accepted,
            at(12).plus(Duration::from_micros(1)),
            at(13),
        )
        .await
        .unwrap();
    assert_eq!((due.due, due.next), (vec![waiting], None));
    assert_eq!(due.ahead_of_clock, []);
    let set_back = journal
        .due_changes(ChangeState::Accepted, at(1), at(11))
        .await
        .unwrap();
    assert_eq!(
        (set_back.due, set_back.ahead_of_clock),
        (vec![], vec![waiting])
    );
    journal
        .apply_transition(waiting, Transition::MarkOverdue, at(50))
        .await
        .unwrap();
    journal
        .store_callback(received(success("r", 0), 60))
        .await
        .unwrap();
    assert_eq!(
        format_events(&timeline(&*journal, WatchTarget::Change(waiting)).await),
        "Queued Dispatched Accepted Overdue 0:Succeeded Finished"
    );
    journal.close().await;
}

pub(in crate::journal) async fn a_kv_value_is_stored_until_it_is_set_to_empty(engine: &dyn Engine) {
    let journal = engine.open().await;
    let note = |journal: Arc<dyn Journal>, name: &str| {
        let name = name.to_owned();
        async move { journal.get_kv(name).await.unwrap() }
    };
    assert!(note(Arc::clone(&journal), "epoch").await.is_empty());
    journal.put_kv("epoch".into(), vec![1]).await.unwrap();
    journal.put_kv("other".into(), vec![2]).await.unwrap();
    let epoch = journal.epoch();
    journal.close().await;
    drop(journal);

    let journal = engine.open().await;
    assert_eq!(journal.epoch(), epoch);
    assert_eq!(note(Arc::clone(&journal), "epoch").await, [1]);
    journal.put_kv("epoch".into(), Vec::new()).await.unwrap();
    assert!(note(Arc::clone(&journal), "epoch").await.is_empty());
    assert_eq!(note(Arc::clone(&journal), "other").await, [2]);
    journal.close().await;
}

pub(in crate::journal) async fn writes_fail_after_close(engine: &dyn Engine) {
    let journal = engine.open().await;
    let reserved = journal.reserve().await.unwrap();
    let made = journal
        .claim(intent(&*journal, &esim("key", 0..1), at(1)))
        .await
        .unwrap();
    let Claim::Created(change) = made else {
        panic!()
    };
    let closing = journal.close();
    // Room that was set aside is still good while the journal closes.
    let step = reserved.apply_transition(change.change_id, dispatch(), at(2));
    let ((), step) = tokio::join!(closing, step);
    assert_eq!(step.unwrap().state, ChangeState::Dispatched);
    assert!(!journal.is_writable());
    let refused = journal.store_callback(received(success("r", 0), 3)).await;
    assert!(matches!(refused, Err(JournalError::Unavailable(_))));
}

pub(in crate::journal) async fn reservations_do_not_block_other_writes(engine: &dyn Engine) {
    use futures_util::FutureExt;
    use tokio::task::unconstrained;

    let journal = engine.open().await;
    let first = intent(&*journal, &esim("first", 0..1), at(1));
    journal.claim(first.clone()).await.unwrap();
    // All the room there is.
    let mut reservations = Vec::new();
    while let Some(reservation) = unconstrained(journal.reserve()).now_or_never() {
        reservations.push(reservation.unwrap());
        assert!(reservations.len() < 100_000, "there is no end of room");
    }
    let id = first.change.change_id;
    let others = async {
        journal
            .apply_transition(id, dispatch(), at(2))
            .await
            .unwrap();
        let second = intent(&*journal, &esim("second", 1..2), at(2));
        assert!(matches!(journal.claim(second).await, Ok(Claim::Created(_))));
        let room = reservations.pop().unwrap();
        room.apply_transition(id, Transition::MarkOutcomeUnknown, at(3))
            .await
            .unwrap();
        journal.reserve().await.unwrap();
    };
    let done = tokio::time::timeout(Duration::from_secs(30), others).await;
    done.expect("whoever holds room can still take the step before");
    drop(reservations);
    journal.close().await;
}
