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
    let own = Some(account("0000123456-00001"));
    let other = Some(account("0000999999-00001"));
    let accounts = [("r-1", own.clone()), ("foreign", own), ("other", other), ("missing", None)];
    for (request, expected) in accounts {
        let request_id = RequestId::parse(request).unwrap();
        assert_eq!(journal.account_of_request(request_id).await.unwrap(), expected, "{request}");
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
    let removed_events = async || {
        let page = journal.events(target(), EventQuery::new(Cursor::START, 1)).await.unwrap();
        page.removed
    };
    assert_eq!(removed_events().await, Removed::OneByOne(vec![]));
    while journal.trim(at(30), u64::MAX).await.unwrap() {}
    assert_eq!(
        removed_events().await,
        Removed::OneByOne(vec![Removal { number: 1, newest: removed }])
    );
    let events = timeline(&*journal, target()).await;
    assert_eq!(format_with_changes(&events, &[old, kept]), "1.Queued 1.Dispatched 1.Accepted");
    journal.close().await;
}

pub(in crate::journal) async fn an_early_result_of_another_account_joins_the_account_of_its_change(
    engine: &dyn Engine,
) {
    const OTHER: &str = "0000999999-00001";
    let journal = engine.open().await;
    let change = dispatched_at(&*journal, &esim("a", 0..3), 10).await;
    // The first account that a callback names is that of the request's early results.
    journal.store_callback(with_account(success("r", 0), 20, OTHER)).await.unwrap();
    journal.store_callback(received(success("r", 1), 21)).await.unwrap();
    let own = with_account(success("r", 2), 22, "0000123456-00001");
    journal.store_callback(own).await.unwrap();
    let other = || timeline(&*journal, WatchTarget::Account(account(OTHER)));
    assert_eq!(format_with_changes(&other().await, &[change]), "-.r -.r -.r");
    let request_id = RequestId::parse("r").unwrap();
    let accept = Transition::Accept { request_id, evidence: String::new() };
    journal.apply_transition(change, accept, at(30)).await.unwrap();
    // The account of the change has all results of its change, the other one keeps those that it had.
    let events = timeline(&*journal, target()).await;
    assert_eq!(
        format_with_changes(&events, &[change]),
        "0.Queued 0.Dispatched 0.Accepted 0.r 0.r 0.r 0.Finished"
    );
    for event in &events {
        let found = journal.event_at(target(), event.cursor).await.unwrap().unwrap();
        assert_eq!((found.cursor, found.event_hash), (event.cursor, event.event_hash));
    }
    let of_other = other().await;
    assert_eq!(format_with_changes(&of_other, &[change]), "0.r 0.r 0.r");
    // The removal of the change is a removal from both timelines.
    while journal.trim(at(40), u64::MAX).await.unwrap() {}
    for (name, newest) in [("0000123456-00001", &events), (OTHER, &of_other)] {
        let query = EventQuery::new(Cursor::START, 1);
        let page = journal.events(WatchTarget::Account(account(name)), query).await.unwrap();
        let newest = newest.last().unwrap().cursor.position;
        assert_eq!(page.removed, Removed::OneByOne(vec![Removal { number: 1, newest }]));
        assert!(page.events.is_empty());
    }
    journal.close().await;
}

pub(in crate::journal) async fn removals_are_counted_and_kept_as_far_as_they_matter(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    // Positions 1 to 4. The clock was set back before the second and the third.
    for (request, seconds) in [("a", 40), ("b", 30), ("c", 20), ("d", 50)] {
        let callback = with_account(success(request, 0), seconds, "0000123456-00001");
        journal.store_callback(callback).await.unwrap();
    }
    let removals = async || {
        let page = journal.events(target(), EventQuery::new(Cursor::START, 1)).await.unwrap();
        page.removed
    };
    let expected = |removals: &[(u64, u64)]| {
        let removals = removals.iter().map(|&(number, newest)| Removal { number, newest });
        Removed::OneByOne(removals.collect())
    };
    for (before, kept) in [
        (25, &[(1, 3)][..]),
        (35, &[(1, 3), (2, 2)]),
        (45, &[(1, 3), (2, 2), (3, 1)]),
        (55, &[(4, 4)]),
    ] {
        while journal.trim(at(before), u64::MAX).await.unwrap() {}
        assert_eq!(removals().await, expected(kept));
    }
    let at_position = |position| Cursor { position, index: 0 };
    let removed = expected(&[(1, 3), (2, 2), (3, 1)]);
    for (position, count, is_removed) in [
        (0, 0, true),
        (2, 0, true),
        (3, 0, false),
        (1, 1, true),
        (2, 1, false),
        (0, 2, true),
        (1, 2, false),
        (0, 3, false),
    ] {
        let found = removed.has_removed_after(at_position(position), count);
        assert_eq!(found, is_removed, "{position} after {count} removals");
    }
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
    assert_eq!(page.removed.newest(), last);
    assert!(page.events.is_empty(), "{:?}", page.events);
    let of_request = WatchTarget::Request(RequestId::parse("r-old").unwrap());
    for target in [WatchTarget::Change(change), of_request] {
        let page = journal.events(target, EventQuery::new(Cursor::START, 10)).await.unwrap();
        assert!(page.events.is_empty() && page.change.is_none(), "{:?}", page.events);
    }
    while journal.trim(at(30), u64::MAX).await.unwrap() {}
    assert!(timeline(&*journal, target()).await.is_empty());
    journal.close().await;
}
