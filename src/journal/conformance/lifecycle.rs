//! Key-value pairs, reservations and the end.

use super::fixtures::*;

pub(in crate::journal) async fn a_kv_value_is_stored_until_it_is_set_to_empty(engine: &dyn Engine) {
    let journal = engine.open().await;
    let value = |journal: Arc<dyn Journal>, name: &str| {
        let name = name.to_owned();
        async move { journal.get_kv(name).await.unwrap() }
    };
    assert!(value(Arc::clone(&journal), "epoch").await.is_empty());
    journal.put_kv("epoch".into(), vec![1]).await.unwrap();
    journal.put_kv("other".into(), vec![2]).await.unwrap();
    let epoch = journal.epoch();
    journal.close().await;
    drop(journal);

    let journal = engine.open().await;
    assert_eq!(journal.epoch(), epoch);
    assert_eq!(value(Arc::clone(&journal), "epoch").await, [1]);
    journal.put_kv("epoch".into(), Vec::new()).await.unwrap();
    assert!(value(Arc::clone(&journal), "epoch").await.is_empty());
    assert_eq!(value(Arc::clone(&journal), "other").await, [2]);
    journal.close().await;
}

pub(in crate::journal) async fn writes_fail_after_close(engine: &dyn Engine) {
    let journal = engine.open().await;
    let reserved = journal.reserve().await.unwrap();
    let made = journal.claim(intent(&*journal, &esim("key", 0..1), at(1))).await.unwrap();
    let Claim::Created(change) = made else { panic!() };
    let closing = journal.close();
    // A reservation stays valid while the journal closes.
    let dispatched = reserved.apply(first_step(change.change_id, dispatch(), at(2)));
    let ((), dispatched) = tokio::join!(closing, dispatched);
    assert_eq!(dispatched.unwrap().state, ChangeState::Dispatched);
    assert!(!journal.is_writable());
    let rejected = journal.store_callback(received(success("r", 0), 3)).await;
    assert!(matches!(rejected, Err(JournalError::Unavailable(_))));
}

pub(in crate::journal) async fn reservations_do_not_block_other_writes(engine: &dyn Engine) {
    use futures_util::FutureExt;
    use tokio::task::unconstrained;

    let journal = engine.open().await;
    let first = intent(&*journal, &esim("first", 0..1), at(1));
    journal.claim(first.clone()).await.unwrap();
    // Takes every permit.
    let mut reservations = Vec::new();
    while let Some(reservation) = unconstrained(journal.reserve()).now_or_never() {
        reservations.push(reservation.unwrap());
        assert!(reservations.len() < 100_000, "reservations are not limited");
    }
    let id = first.change.change_id;
    let others = async {
        journal.apply_transition(id, dispatch(), at(2)).await.unwrap();
        let second = intent(&*journal, &esim("second", 1..2), at(2));
        assert!(matches!(journal.claim(second).await, Ok(Claim::Created(_))));
        let reservation = reservations.pop().unwrap();
        let unknown = first_step(id, Transition::MarkOutcomeUnknown, at(3));
        reservation.apply(unknown).await.unwrap();
        journal.reserve().await.unwrap();
    };
    let done = tokio::time::timeout(Duration::from_secs(30), others).await;
    done.expect("a caller with a reservation can still send other commands");
    drop(reservations);
    journal.close().await;
}
