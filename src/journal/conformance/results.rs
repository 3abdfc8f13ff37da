//! Results, their timeline and their counts.

use parking_lot::Mutex;

use super::fixtures::*;
use crate::{
    domain::result::{Outcome, ResultSource},
    journal::ResultRecord,
};

pub(in crate::journal) async fn a_callback_is_stored_once_and_finishes_its_change_once(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = accepted(&*journal, &esim("key", 0..2), "r").await;
    let sends = (0..5).map(|_| journal.store_callback(received(success("r", 0), 20)));
    let stored = futures_util::future::join_all(sends).await;
    assert_eq!(stored.iter().filter(|one| matches!(one, Ok(Stored::New(_)))).count(), 1);
    journal.close().await;
    drop(journal);

    let journal = engine.open().await;
    assert_eq!(
        journal.store_callback(received(success("r", 0), 21)).await.unwrap(),
        Stored::Duplicate
    );
    journal.store_callback(received(success("r", 1), 22)).await.unwrap();
    let failed = parse(
        r#"{"requestId":"r","deviceIds":[{"id":"89148000000000000000","kind":"iccid"}],"status":"Failed"}"#,
    );
    journal.store_callback(received(failed, 23)).await.unwrap();
    let events = timeline(&*journal, WatchTarget::Change(id)).await;
    assert_eq!(
        format_events(&events),
        "Queued Dispatched Accepted 0:Succeeded 1:Succeeded Finished 0:Failed"
    );
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    assert_eq!(change.counts, DeviceCounts { succeeded: 2, failed: 0, unmatched: 0 });
    assert_eq!((change.state, change.finish_time), (ChangeState::Finished, Some(at(22))));
    journal.close().await;
}

pub(in crate::journal) async fn callbacks_of_one_call_are_stored_in_order_and_once(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = accepted(&*journal, &esim("key", 0..4), "r").await;
    journal.store_callback(received(success("r", 3), 20)).await.unwrap();
    let callbacks = [2, 0, 3, 2, 1].map(|number| received(success("r", number), 21));
    let foreign = received(success("foreign", 0), 21);
    let callbacks = callbacks.into_iter().chain([foreign]).collect();
    let (stored, result) = journal.store_callbacks(callbacks).await;
    result.unwrap();
    let positions: Vec<Option<u64>> = stored
        .iter()
        .map(|stored| match stored {
            Stored::New(new) => Some(new.position),
            Stored::Duplicate => None,
        })
        .collect();
    assert_eq!(positions[2..4], [None, None]);
    let new: Vec<u64> = positions.into_iter().flatten().collect();
    assert_eq!(new.len(), 4);
    assert!(new.is_sorted(), "{new:?}");
    let events = timeline(&*journal, WatchTarget::Change(id)).await;
    assert_eq!(
        format_events(&events),
        "Queued Dispatched Accepted 3:Succeeded 2:Succeeded 0:Succeeded 1:Succeeded Finished"
    );
    journal.close().await;
    let (stored, result) = journal.store_callbacks(vec![received(success("r", 9), 22)]).await;
    assert!(stored.is_empty() && result.is_err());
}

/// The response of a lookup arrives after a callback, which has decided the device.
pub(in crate::journal) async fn a_result_of_a_lookup_is_stored_only_if_it_decides_its_device(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    accepted(&*journal, &esim("key", 0..3), "r").await;
    let looked_up = |device, outcome| {
        let mut result = success("r", device).result;
        (result.source, result.outcome) = (ResultSource::Reconciled, outcome);
        journal.store_callback(received(Callback::from_lookup(result), 20))
    };
    let is_new = |stored: Result<Stored, _>| matches!(stored.unwrap(), Stored::New(_));
    let callback = journal.store_callback(received(success("r", 0), 10));
    assert!(is_new(callback.await));
    let last = journal.kept_range().await.unwrap().last;
    assert_eq!(looked_up(0, Outcome::Succeeded).await.unwrap(), Stored::Duplicate);
    assert_eq!(looked_up(0, Outcome::Failed).await.unwrap(), Stored::Duplicate);
    assert_eq!(journal.kept_range().await.unwrap().last, last);
    // In one commit, too.
    let (callback, lookup) = tokio::join!(
        journal.store_callback(received(success("r", 1), 21)),
        looked_up(1, Outcome::Succeeded)
    );
    assert!(is_new(callback));
    assert_eq!(lookup.unwrap(), Stored::Duplicate);
    // Without a callback, the lookups decide, and the callback afterwards is kept.
    assert!(is_new(looked_up(2, Outcome::Failed).await));
    assert!(is_new(looked_up(2, Outcome::Succeeded).await));
    assert_eq!(looked_up(2, Outcome::Failed).await.unwrap(), Stored::Duplicate);
    assert!(is_new(journal.store_callback(received(success("r", 2), 22)).await));
}

pub(in crate::journal) async fn an_early_callback_joins_the_timeline_when_its_request_is_linked(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let made = journal.claim(intent(&*journal, &esim("key", 0..3), at(1))).await.unwrap();
    let Claim::Created(change) = made else { panic!() };
    let (id, request) = (change.change_id, RequestId::parse("r").unwrap());
    journal.apply_transition(id, dispatch(), at(2)).await.unwrap();
    for number in [2, 0] {
        journal.store_callback(received(success("r", number), 3)).await.unwrap();
    }
    let unlinked = timeline(&*journal, WatchTarget::Request(request.clone())).await;
    assert_eq!(format_events(&unlinked), "?:Succeeded ?:Succeeded");
    assert!(journal.change(ChangeSelector::Request(request.clone())).await.unwrap().is_none());
    let before = timeline(&*journal, WatchTarget::Change(id)).await;
    let token = before.last().unwrap().cursor;

    let accept = Transition::Accept { request_id: request.clone(), evidence: String::new() };
    let change = journal.apply_transition(id, accept, at(4)).await.unwrap();
    assert_eq!(change.counts.succeeded, 2);
    journal.store_callback(received(success("r", 1), 5)).await.unwrap();
    let linked = timeline(&*journal, WatchTarget::Change(id)).await;
    assert_eq!(
        format_events(&linked),
        "Queued Dispatched Accepted 2:Succeeded 0:Succeeded 1:Succeeded Finished"
    );
    assert!(linked.iter().skip(2).all(|event| event.cursor > token));
    for event in &linked {
        let found = journal.event_at(WatchTarget::Change(id), event.cursor).await.unwrap().unwrap();
        assert_eq!((found.cursor, found.event_hash), (event.cursor, event.event_hash));
    }
    // In a watch of the request, its results keep their positions.
    let request = timeline(&*journal, WatchTarget::Request(request)).await;
    assert_eq!(format_events(&request), "2:Succeeded 0:Succeeded Accepted 1:Succeeded Finished");
    let cursors =
        |events: &[Event]| -> Vec<Cursor> { events.iter().map(|event| event.cursor).collect() };
    assert_eq!(cursors(&request)[..2], cursors(&unlinked)[..]);
    journal.close().await;
}

pub(in crate::journal) async fn early_callbacks_of_every_device_finish_a_change_when_its_request_is_linked(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let made = journal
        .claim(intent(&*journal, &five_g("key", &["A100003685E561", "A100003685E562"]), at(1)))
        .await;
    let Ok(Claim::Created(change)) = made else { panic!() };
    journal.apply_transition(change.change_id, dispatch(), at(2)).await.unwrap();
    for mdn in ["5555550001", "5555550002"] {
        let body = format!(
            r#"{{"requestId":"r","deviceIds":[{{"id":"{mdn}","kind":"mdn"}}],
            "deviceResponse":{{"changeServicePlanResponse":{{"effectiveDate":"5/31/2018 12:00:00 AM"}}}}}}"#
        );
        journal.store_callback(received(parse(&body), 3)).await.unwrap();
    }
    let accept =
        Transition::Accept { request_id: RequestId::parse("r").unwrap(), evidence: String::new() };
    let change = journal.apply_transition(change.change_id, accept, at(4)).await.unwrap();
    assert_eq!(change.state, ChangeState::Finished);
    assert_eq!(change.counts, DeviceCounts { succeeded: 2, failed: 0, unmatched: 2 });
    let events = timeline(&*journal, WatchTarget::Change(change.change_id)).await;
    assert_eq!(
        format_events(&events),
        "Queued Dispatched Accepted ?:Succeeded ?:Succeeded Finished"
    );
    let filter = DeviceFilter {
        outcomes: vec![DeviceOutcome::Pending],
        limit: 10,
        ..DeviceFilter::default()
    };
    let pending = journal.devices(change.change_id, filter).await.unwrap();
    assert_eq!(pending.len(), 2, "no result names them");
    journal.close().await;
}

pub(in crate::journal) async fn commit_listeners_receive_the_targets_of_each_commit(
    engine: &dyn Engine,
) {
    #[derive(Default)]
    struct RecordingListener(Mutex<Vec<WatchTarget>>);
    impl CommitListener for RecordingListener {
        fn on_commit(&self, commit: &Commit) {
            self.0.lock().extend(commit.targets.iter().cloned());
        }
    }
    let journal = engine.open().await;
    let listener = Arc::new(RecordingListener::default());
    journal.add_commit_listener(listener.clone());
    let id = accepted(&*journal, &esim("key", 0..1), "r").await;
    let take = || std::mem::take(&mut *listener.0.lock());
    assert!(take().contains(&WatchTarget::Change(id)));
    journal.store_callback(received(success("r", 0), 20)).await.unwrap();
    let touched = take();
    assert!(touched.contains(&WatchTarget::Change(id)));
    assert!(touched.contains(&WatchTarget::Request(RequestId::parse("r").unwrap())));
    journal.store_callback(received(success("r", 0), 20)).await.unwrap();
    assert!(take().is_empty(), "a duplicate touches nothing");
    journal.close().await;
}

pub(in crate::journal) async fn a_resolved_unmatched_result_counts_for_its_device_and_keeps_past_events(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let change_request = five_g("k", &["A100003685E561", "A100003685E562"]);
    let id = accepted(&*journal, &change_request, "r").await;
    let store = |ids: &str, seconds| {
        let body = format!(r#"{{"requestId":"r","deviceIds":[{ids}],"status":"Success"}}"#);
        let journal = Arc::clone(&journal);
        async move {
            let callback = received(parse(&body), seconds);
            journal.store_callback(callback).await.unwrap()
        }
    };
    store(r#"{"id":"5125550142","kind":"mdn"}"#, 20).await;
    let before = timeline(&*journal, WatchTarget::Change(id)).await;
    let unmatched = journal.unmatched_results(at(0), 0, 10).await.unwrap();
    assert_eq!((unmatched.len(), unmatched[0].change_id), (1, id));
    let number = unmatched[0].first_result;
    let listed = |ids: &[(&str, &str)]| -> Vec<ReportedId> {
        let id = |(kind, id): &(&str, &str)| ReportedId { kind: (*kind).into(), id: (*id).into() };
        ids.iter().map(id).collect()
    };
    let mdn = ("mdn", "5125550142");
    let resolve = |ids: Vec<ReportedId>| journal.resolve_unmatched_result(id, number, ids, at(30));
    for nothing in [
        listed(&[mdn]),
        listed(&[mdn, ("meid", "A100003685E561"), ("meid", "A100003685E562")]),
        listed(&[("meid", "A100003685E561")]),
    ] {
        assert!(!resolve(nothing).await.unwrap());
    }
    let right = listed(&[mdn, ("meid", "a100003685e562"), ("imei", "990013907835573")]);
    assert!(resolve(right.clone()).await.unwrap());
    assert!(!resolve(right).await.unwrap(), "it is resolved already");
    let after = timeline(&*journal, WatchTarget::Change(id)).await;
    assert_eq!(format_events(&after), format!("{} Accepted", format_events(&before)));
    let EventPayload::State(change) = &after.last().unwrap().payload else { panic!("{after:?}") };
    assert_eq!((change.counts.succeeded, change.counts.unmatched), (1, 0));
    let resolved = |events: &[Event]| {
        let found = events.iter().find_map(|event| match &event.payload {
            EventPayload::Result(result) => {
                let message = result.to_proto(false, false).unwrap();
                Some((message.device_index.is_some(), result.resolved_device.clone()))
            }
            EventPayload::State(_) => None,
        });
        found.map(|(matched, device)| (matched, device.map(|(index, _)| index)))
    };
    assert_eq!(resolved(&before), Some((false, None)));
    assert_eq!(resolved(&after), Some((false, Some(1))));
    // Another result with the same MDN belongs to the device. The other device finishes the change.
    store(r#"{"id":"15125550142","kind":"msisdn"},{"id":"x","kind":"otaid"}"#, 40).await;
    store(r#"{"id":"A100003685E561","kind":"meid"}"#, 41).await;
    let end = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    assert_eq!((end.state, end.counts.succeeded), (ChangeState::Finished, 2));
    assert!(journal.unmatched_results(at(0), 0, 10).await.unwrap().is_empty());
    journal.close().await;
}

/// A callback of the request `r` with these identifiers.
fn callback_naming(ids: &[(&str, String)], status: &str) -> Callback {
    let ids: Vec<String> =
        ids.iter().map(|(kind, id)| format!(r#"{{"kind":"{kind}","id":"{id}"}}"#)).collect();
    let ids = ids.join(",");
    parse(&format!(r#"{{"requestId":"r","deviceIds":[{ids}],"status":"{status}"}}"#))
}

fn orders<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
    if all.len() < 2 {
        return vec![all.to_vec()];
    }
    let mut found = Vec::new();
    for first in 0..all.len() {
        let mut rest = all.to_vec();
        let first = rest.remove(first);
        for mut order in orders(&rest) {
            order.insert(0, first.clone());
            found.push(order);
        }
    }
    found
}

pub(in crate::journal) async fn a_result_that_names_two_devices_decides_for_neither_in_any_order(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let meid = |number: usize| format!("A10000000000{number:02}");
    let mdn = |number: usize| format!("51255500{number:02}");
    // Device 0 fails, device 1 succeeds, and device 2 has no result.
    let esim_own = |number: usize| vec![("iccid", iccid(number)), ("eid", "e".to_owned())];
    let five_g_own = |number: usize| vec![("meid", meid(number)), ("mdn", mdn(number))];
    let both_iccids = vec![("imei", "i".to_owned()), ("iccid", iccid(0)), ("iccid", iccid(1))];
    let both_meids = vec![("meid", meid(0)), ("mdn", mdn(1)), ("meid", meid(1))];
    let cases = [
        ("esim", esim_own(0), esim_own(1), both_iccids),
        ("5g", five_g_own(0), five_g_own(1), both_meids),
    ];
    let mut number = 0;
    for (kind, own, other, both) in cases {
        let mut backwards = both.clone();
        backwards.reverse();
        let reports =
            [(own, "Failed"), (other, "Success"), (both, "Success"), (backwards, "Failed")];
        for order in orders(&reports) {
            for accepted_after in [0, 2, 4] {
                number += 1;
                let request = RequestId::parse(format!("r{number}")).unwrap();
                let key = format!("k{number}");
                let change_request = match kind {
                    "esim" => esim(&key, 0..3),
                    _ => five_g(&key, &[&meid(0), &meid(1), &meid(2)]),
                };
                let id = dispatched_at(&*journal, &change_request, 10).await;
                let accept =
                    Transition::Accept { request_id: request.clone(), evidence: String::new() };
                for (index, (ids, status)) in order.iter().enumerate() {
                    if index == accepted_after {
                        journal.apply_transition(id, accept.clone(), at(12)).await.unwrap();
                    }
                    let mut callback = callback_naming(ids, status);
                    callback.result.request_id = request.clone();
                    journal.store_callback(received(callback, 20)).await.unwrap();
                }
                if accepted_after == order.len() {
                    journal.apply_transition(id, accept, at(21)).await.unwrap();
                }
                let case = format!("{kind}: {order:?}, accepted after {accepted_after}");
                let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
                let counts = DeviceCounts { succeeded: 1, failed: 1, unmatched: 0 };
                assert_eq!(
                    (change.state, change.counts),
                    (ChangeState::Accepted, counts),
                    "{case}"
                );
                let filter = DeviceFilter {
                    outcomes: vec![DeviceOutcome::Pending],
                    limit: 10,
                    ..DeviceFilter::default()
                };
                let pending = journal.devices(id, filter).await.unwrap();
                let pending: Vec<u32> = pending.iter().map(|device| device.index).collect();
                assert_eq!(pending, [2], "{case}");
                assert!(journal.unmatched_results(at(0), 0, 10).await.unwrap().is_empty());
                // It is delivered without a device.
                let events = timeline(&*journal, WatchTarget::Change(id)).await;
                let has_no_device = |result: &ResultRecord| {
                    result.to_proto(false, false).unwrap().device_index.is_none()
                };
                let unmatched = events.iter().filter_map(|event| match &event.payload {
                    EventPayload::Result(result) if has_no_device(result) => Some(result),
                    _ => None,
                });
                let unmatched: Vec<_> = unmatched.collect();
                assert_eq!(unmatched.len(), 2, "{case}");
                for result in unmatched {
                    assert_eq!(
                        (result.matched, &result.resolved_device),
                        (Some(Match::Ambiguous), &None)
                    );
                }
            }
        }
    }
    journal.close().await;
}

pub(in crate::journal) async fn a_result_that_names_two_devices_by_identifiers_of_other_results_counts_for_neither(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let change_request = five_g("k", &["A100003685E561", "A100003685E562", "A100003685E563"]);
    let id = accepted(&*journal, &change_request, "r").await;
    let (zero, one) = ("5125550140".to_owned(), "5125550141".to_owned());
    let meid = |last: usize| ("meid", format!("A100003685E56{last}"));
    let own = [meid(1), ("mdn", zero.clone())];
    let other = [meid(2), ("mdn", one.clone())];
    let both = [("mdn", zero), ("mdn", one)];
    for (ids, status) in [(&own, "Failed"), (&other, "Failed"), (&both, "Success")] {
        let callback = callback_naming(ids, status);
        journal.store_callback(received(callback, 20)).await.unwrap();
    }
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    let counts = DeviceCounts { succeeded: 0, failed: 2, unmatched: 0 };
    assert_eq!(change.counts, counts);
    journal.close().await;
}

pub(in crate::journal) async fn a_result_with_two_unsent_mdns_counts_for_neither(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let mdn = |last: usize| ("mdn", format!("512555014{last}"));
    let reports = [
        (vec![mdn(0)], "Failed"),
        (vec![mdn(1)], "Failed"),
        (vec![mdn(0), mdn(1)], "Success"),
        (vec![mdn(1), mdn(0)], "Success"),
    ];
    for (number, order) in orders(&reports).into_iter().enumerate() {
        let meids = [1, 2, 3].map(|device| format!("A1000000{number:03}{device:03}"));
        let [first, second, third] = &meids;
        let change_request = five_g(&format!("k{number}"), &[first, second, third]);
        let request = format!("r{number}");
        let id = accepted(&*journal, &change_request, &request).await;
        for (ids, status) in &order {
            let mut callback = callback_naming(ids, status);
            callback.result.request_id = RequestId::parse(&request).unwrap();
            journal.store_callback(received(callback, 20)).await.unwrap();
        }
        let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
        let counts = DeviceCounts { succeeded: 0, failed: 2, unmatched: 2 };
        assert_eq!(change.counts, counts, "{order:?}");
        // Each of the two that have a result of their own can still be resolved.
        let unmatched = journal.unmatched_results(at(0), 0, 100).await.unwrap();
        let own = unmatched.iter().filter(|result| result.change_id == id);
        assert_eq!(own.count(), 2, "{order:?}");
    }
    journal.close().await;
}

pub(in crate::journal) async fn a_result_that_names_a_device_and_a_foreign_one_counts_for_the_device(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = accepted(&*journal, &esim("k", 0..1), "r").await;
    let ids = [("iccid", iccid(99)), ("iccid", iccid(0))];
    let callback = callback_naming(&ids, "Success");
    journal.store_callback(received(callback, 20)).await.unwrap();
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    assert_eq!(change.state, ChangeState::Finished);
    journal.close().await;
}
