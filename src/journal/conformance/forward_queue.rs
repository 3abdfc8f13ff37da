//! The queue of callbacks to forward.

use super::fixtures::*;

fn forwarded(request: &str, device: usize, seconds: i64, max_waiting: u64) -> ReceivedCallback {
    ReceivedCallback {
        service: CallbackService::parse(ResultService::Carrier.as_str()).ok(),
        forwarding: Some(ForwardOptions { max_waiting, now: at(seconds) }),
        ..received(success(request, device), seconds)
    }
}

async fn due(journal: &dyn Journal, seconds: i64) -> Vec<(u64, u32)> {
    let found = journal.due_forwards(at(seconds), 50, 50).await.unwrap();
    found.due.iter().map(|one| (one.id, one.attempts)).collect()
}

pub(in crate::journal) async fn queued_forwards_survive_a_restart_until_they_are_delivered(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let store = |callback| journal.store_callback(callback);
    let Stored::New(first) = store(forwarded("r", 1, 20, 10)).await.unwrap() else {
        panic!("a duplicate")
    };
    // Duplicates, and callbacks without forwarding, are not queued.
    assert_eq!(store(forwarded("r", 1, 21, 10)).await.unwrap(), Stored::Duplicate);
    store(received(success("r", 2), 21)).await.unwrap();
    let Stored::New(second) = store(forwarded("r", 3, 22, 10)).await.unwrap() else {
        panic!("a duplicate")
    };
    assert_eq!(journal.forward_queue_stats().waiting, 2);
    let outcomes = vec![(first, ForwardOutcome::RetryAt(at(50)))];
    journal.record_forward_outcomes(outcomes).await.unwrap();
    journal.close().await;
    drop(journal);

    let journal = engine.open().await;
    assert_eq!(journal.forward_queue_stats().waiting, 2);
    let found = journal.due_forwards(at(30), 50, 50).await.unwrap();
    assert_eq!(found.next_due, Some(at(50)));
    let [one] = &found.due[..] else { panic!("{found:?}") };
    assert_eq!((one.id, one.attempts), (second, 0));
    // Rescheduling ends the wait for a retry.
    assert_eq!(journal.reschedule_forwards(at(40)).await.unwrap(), 1);
    assert_eq!(journal.reschedule_forwards(at(40)).await.unwrap(), 0);
    assert_eq!(due(&*journal, 40).await, [(second, 0), (first, 1)]);
    assert_eq!(one.service.as_ref().unwrap().as_str(), ResultService::Carrier.as_str());
    assert!(one.body.as_ref().unwrap().contains(&iccid(3)));
    assert_eq!(due(&*journal, 50).await, [(second, 0), (first, 1)]);
    // Neither kind waits for the other, and each uses the permits that the other leaves.
    for (first_attempts, retries, wanted) in [
        (1, 0, vec![second]),
        (0, 1, vec![first]),
        (2, 0, vec![second, first]),
        (0, 2, vec![second, first]),
    ] {
        let found = journal.due_forwards(at(50), first_attempts, retries).await.unwrap();
        let found: Vec<u64> = found.due.iter().map(|one| one.id).collect();
        assert_eq!(found, wanted, "{first_attempts} and {retries}");
    }
    let outcomes = vec![(second, ForwardOutcome::Done), (first, ForwardOutcome::Done)];
    // Twice, as after a crash in between.
    journal.record_forward_outcomes(outcomes.clone()).await.unwrap();
    journal.record_forward_outcomes(outcomes).await.unwrap();
    assert_eq!(journal.forward_queue_stats().waiting, 0);
    journal.close().await;
}

pub(in crate::journal) async fn the_oldest_forwards_are_displaced_by_newer_ones_and_expire(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let mut stored = Vec::new();
    for number in 0..5 {
        let seconds = 20 + i64::try_from(number).unwrap();
        let callback = forwarded("r", number, seconds, 3);
        match journal.store_callback(callback).await.unwrap() {
            Stored::New(position) => stored.push((position, 0)),
            Stored::Duplicate => panic!("a duplicate"),
        }
    }
    let full = ForwardQueueStats { waiting: 3, displaced: 2 };
    assert_eq!(journal.forward_queue_stats(), full);
    assert_eq!(due(&*journal, 30).await, stored[2..]);
    assert_eq!(journal.expire_forwards(at(23)).await.unwrap(), 1);
    assert_eq!(due(&*journal, 30).await, stored[3..]);
    // A trimmed result has no body.
    while journal.trim(at(60), u64::MAX).await.unwrap() {}
    let found = journal.due_forwards(at(30), 1, 0).await.unwrap();
    assert_eq!(found.due[0].body, None);
    journal.close().await;
}
