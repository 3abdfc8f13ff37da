//! The timeline of an account.

use parking_lot::Mutex;

use super::fixtures::*;

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

fn target() -> WatchTarget {
    WatchTarget::Account(account("0000123456-00001"))
}

fn with_account(callback: Callback, seconds: i64, name: &str) -> ReceivedCallback {
    ReceivedCallback { account: Some(account(name)), ..received(callback, seconds) }
}

/// Formats the events with the numbers of their changes, in the order of `changes`.
fn format_with_changes(events: &[Event], changes: &[ChangeId]) -> String {
    let number = |id: Option<ChangeId>| {
        let number = id.and_then(|id| changes.iter().position(|change| *change == id));
        number.map_or("-".to_owned(), |number| number.to_string())
    };
    let words: Vec<String> = events
        .iter()
        .map(|event| match &event.payload {
            EventPayload::State(change) => {
                format!("{}.{:?}", number(Some(change.change_id)), change.state)
            }
            EventPayload::Result(result) => {
                let result = result.to_proto(false, false).unwrap();
                format!("{}.{}", number(ChangeId::parse(&result.change_id).ok()), result.request_id)
            }
        })
        .collect();
    words.join(" ")
}

pub(in crate::journal) async fn an_account_has_the_events_of_its_changes_and_requests_in_one_order(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let first = dispatched_at(&*journal, &esim("a", 0..2), 10).await;
    let second = dispatched_at(&*journal, &esim("b", 2..3), 20).await;
    // Early results: without an account, and with the account in the path.
    journal.store_callback(received(success("r-1", 0), 30)).await.unwrap();
    let early = with_account(success("r-1", 1), 31, "0000123456-00001");
    journal.store_callback(early).await.unwrap();
    // A request that was made elsewhere, and another account.
    let foreign = with_account(success("foreign", 7), 32, "0000123456-00001");
    journal.store_callback(foreign).await.unwrap();
    let other = with_account(success("other", 8), 33, "0000999999-00001");
    journal.store_callback(other).await.unwrap();
    for (change, request, seconds) in [(second, "r-2", 40), (first, "r-1", 41)] {
        let request_id = RequestId::parse(request).unwrap();
        let accept = Transition::Accept { request_id, evidence: String::new() };
        journal.apply_transition(change, accept, at(seconds)).await.unwrap();
    }
    journal.store_callback(received(success("r-2", 2), 50)).await.unwrap();
    let events = timeline(&*journal, target()).await;
    assert_eq!(
        format_with_changes(&events, &[first, second]),
        "0.Queued 0.Dispatched 1.Queued 1.Dispatched 0.r-1 -.foreign 1.Accepted 0.Accepted 0.r-1 \
         0.Finished 1.r-2 1.Finished"
    );
    for event in &events {
        let found = journal.event_at(target(), event.cursor).await.unwrap().unwrap();
        assert_eq!((found.cursor, found.event_hash), (event.cursor, event.event_hash));
    }
    let other = timeline(&*journal, WatchTarget::Account(account("0000999999-00001"))).await;
    assert_eq!(format_with_changes(&other, &[]), "-.other");
    let unknown = timeline(&*journal, WatchTarget::Account(account("0000000000-00000"))).await;
    assert!(unknown.is_empty());
    journal.close().await;
}

pub(in crate::journal) async fn trimming_records_how_far_the_timeline_of_an_account_is_incomplete(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let old = accepted(&*journal, &esim("old", 0..1), "r-old").await;
    journal.store_callback(received(success("r-old", 0), 20)).await.unwrap();
    let removed = timeline(&*journal, target()).await.last().unwrap().cursor.position;
    let kept = accepted(&*journal, &esim("kept", 1..2), "r-kept").await;
    let removed_up_to = async || {
        let page = journal.events(target(), EventQuery::new(Cursor::START, 1)).await.unwrap();
        page.removed_up_to
    };
    assert_eq!(removed_up_to().await, 0);
    while journal.trim(at(30), u64::MAX).await.unwrap() {}
    assert_eq!(removed_up_to().await, removed);
    let events = timeline(&*journal, target()).await;
    assert_eq!(format_with_changes(&events, &[old, kept]), "1.Queued 1.Dispatched 1.Accepted");
    journal.close().await;
}

pub(in crate::journal) async fn commit_listeners_learn_of_unattributed_requests_and_unknown_outcomes(
    engine: &dyn Engine,
) {
    #[derive(Default)]
    struct LastCommit(Mutex<Commit>);
    impl CommitListener for LastCommit {
        fn before_commit(&self, commit: &Commit) {
            *self.0.lock() = commit.clone();
        }

        fn on_commit(&self, commit: &Commit) {
            assert_eq!(*commit, *self.0.lock());
        }
    }
    let journal = engine.open().await;
    let listener = Arc::new(LastCommit::default());
    journal.add_commit_listener(listener.clone());
    let last = || listener.0.lock().clone();
    accepted(&*journal, &esim("key", 0..2), "r").await;
    journal.store_callback(received(success("r", 0), 20)).await.unwrap();
    assert!(last().unattributed.is_empty() && !last().has_new_candidates);
    assert!(last().targets.contains(&target()));
    journal.store_callback(received(success("foreign", 0), 20)).await.unwrap();
    assert_eq!(last().unattributed, [RequestId::parse("foreign").unwrap()]);
    assert!(!last().has_new_candidates && !last().targets.contains(&target()));
    let unknown = dispatched_at(&*journal, &esim("unknown", 5..6), 30).await;
    assert!(!last().has_new_candidates);
    journal.apply_transition(unknown, Transition::MarkOutcomeUnknown, at(32)).await.unwrap();
    assert!(last().has_new_candidates);
    journal.close().await;
}

pub(in crate::journal) async fn a_partly_trimmed_change_is_missing_from_the_timeline_of_its_account(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let change = dispatched_at(&*journal, &esim("old", 0..1), 10).await;
    journal.store_callback(received(success("r-old", 0), 20)).await.unwrap();
    let request_id = RequestId::parse("r-old").unwrap();
    let accept = Transition::Accept { request_id, evidence: String::new() };
    journal.apply_transition(change, accept, at(21)).await.unwrap();
    let last = timeline(&*journal, target()).await.last().unwrap().cursor.position;
    // One slice deletes the early result, but no state.
    assert!(journal.trim(at(30), u64::MAX).await.unwrap());
    let page = journal.events(target(), EventQuery::new(Cursor::START, 10)).await.unwrap();
    assert_eq!(page.removed_up_to, last);
    while journal.trim(at(30), u64::MAX).await.unwrap() {}
    assert!(timeline(&*journal, target()).await.is_empty());
    journal.close().await;
}
