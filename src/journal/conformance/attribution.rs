//! Attribution of requests to changes.

use super::fixtures::*;
use crate::domain::identifier::DeviceId;

/// Creates a change that was sent at 11 and got no response.
async fn create_unknown_change(journal: &dyn Journal, request: &ChangeRequest) -> ChangeId {
    let id = dispatched_at(journal, request, 10).await;
    journal.apply_transition(id, Transition::MarkOutcomeUnknown, at(13)).await.unwrap();
    id
}

async fn store_successes(journal: &dyn Journal, request: &str, devices: &[usize], seconds: i64) {
    for device in devices {
        journal.store_callback(received(success(request, *device), seconds)).await.unwrap();
    }
}

/// Checks a request, and attributes it if no later result has arrived.
async fn attribute_with(
    journal: &dyn Journal,
    request: &str,
    listed: Option<Vec<Vec<ReportedId>>>,
) -> Attribution {
    let request = RequestId::parse(request).unwrap();
    let check = journal.attribute(request.clone(), None, None, at(50));
    let last_result = match check.await.unwrap() {
        Attribution::Candidate { last_result, .. } => Some(last_result),
        Attribution::Attributed(change) => panic!("a check attributed it to {change:?}"),
        Attribution::Unproven => None,
    };
    let attribution = journal.attribute(request, listed, last_result, at(50));
    attribution.await.unwrap()
}

async fn attribute(journal: &dyn Journal, request: &str) -> Attribution {
    attribute_with(journal, request, None).await
}

fn listed(devices: &[usize]) -> Option<Vec<Vec<ReportedId>>> {
    let id = |number: &usize| ReportedId { kind: "iccid".into(), id: iccid(*number) };
    Some(devices.iter().map(|number| vec![id(number)]).collect())
}

pub(in crate::journal) async fn a_request_that_names_exactly_the_devices_of_an_unknown_change_is_attributed(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = create_unknown_change(&*journal, &esim("k", 0..3)).await;
    store_successes(&*journal, "r", &[2, 0], 20).await;
    assert!(matches!(
        attribute(&*journal, "r").await,
        Attribution::Candidate { is_whole: false, .. }
    ));
    store_successes(&*journal, "r", &[1], 21).await;
    let Attribution::Attributed(change) = attribute(&*journal, "r").await else {
        panic!("not attributed")
    };
    assert_eq!((change.change_id, change.state), (id, ChangeState::Finished));
    let events = timeline(&*journal, WatchTarget::Change(id)).await;
    assert_eq!(
        format_events(&events),
        "Queued Dispatched OutcomeUnknown Accepted 2:Succeeded 0:Succeeded 1:Succeeded Finished"
    );
    let results = events.iter().filter_map(|event| match &event.payload {
        EventPayload::Result(result) => Some(result.to_proto(false, false).unwrap().evidence),
        EventPayload::State(_) => None,
    });
    for evidence in results {
        assert!(evidence.contains("exactly its 3 devices"), "{evidence}");
    }
    // It is linked now.
    assert_eq!(attribute(&*journal, "r").await, Attribution::Unproven);
    assert_eq!(attribute(&*journal, "foreign").await, Attribution::Unproven);
    journal.close().await;
}

pub(in crate::journal) async fn insufficient_evidence_attributes_nothing(engine: &dyn Engine) {
    let journal = engine.open().await;
    // All devices, but before the change was sent. The clock has been set back since.
    store_successes(&*journal, "earlier", &[0, 1], 30).await;
    let id = create_unknown_change(&*journal, &esim("k", 0..2)).await;
    let one = create_unknown_change(&*journal, &esim("one", 10..11)).await;
    let five = create_unknown_change(&*journal, &five_g("five", &["A100003685E561"])).await;
    // A foreign request for a superset.
    store_successes(&*journal, "superset", &[0, 1, 2], 20).await;
    // An unknown device proves nothing, although only one device was sent.
    store_successes(&*journal, "other", &[99], 20).await;
    let at_path = |request: &str, device, service: &str, account: &str| {
        let callback = ReceivedCallback {
            service: CallbackService::parse(service).ok(),
            account: AccountName::parse(account).ok(),
            ..received(success(request, device), 20)
        };
        let journal = Arc::clone(&journal);
        async move { journal.store_callback(callback).await.unwrap() }
    };
    at_path("service", 10, "CarrierService", "0000123456-00001").await;
    at_path("account", 10, "DeviceProfileService", "0000999999-00001").await;
    for request in ["superset", "earlier", "other", "service", "account"] {
        assert_eq!(attribute(&*journal, request).await, Attribution::Unproven, "{request}");
    }
    // An eSIM profile's result for a 5G device.
    let profile = r#"{"requestId":"profile","deviceIds":[{"id":"A100003685E561","kind":"meid"}],
        "deviceResponse":{"deviceProfileResponse":{"state":"ACTIVE"}},"status":"SUCCESS"}"#;
    journal.store_callback(received(parse(profile), 20)).await.unwrap();
    assert_eq!(attribute(&*journal, "profile").await, Attribution::Unproven);
    for id in [id, one, five] {
        let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
        assert_eq!(change.state, ChangeState::OutcomeUnknown);
    }
    journal.close().await;
}

pub(in crate::journal) async fn a_request_that_fits_two_changes_is_attributed_to_neither(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    // One device, sent once by its MEID and once by its MDN.
    let first = create_unknown_change(&*journal, &five_g("a", &["A100003685E561"])).await;
    let mut other = five_g("b", &["A100003685E562"]);
    let mdn = DeviceId::new("mdn".parse().unwrap(), "5551234567").unwrap();
    Arc::make_mut(&mut other.devices)[0].ids = vec![mdn];
    let second = dispatched_at(&*journal, &other, 10).await;
    let both = r#"{"requestId":"r","deviceIds":[{"id":"A100003685E561","kind":"meid"},
        {"id":"5551234567","kind":"mdn"}],"status":"Success"}"#;
    journal.store_callback(received(parse(both), 20)).await.unwrap();
    assert_eq!(attribute(&*journal, "r").await, Attribution::Unproven);
    // The second change has its own response now: one is left.
    let accept = Transition::Accept {
        request_id: RequestId::parse("its-own").unwrap(),
        evidence: String::new(),
    };
    journal.apply_transition(second, accept, at(30)).await.unwrap();
    let Attribution::Attributed(change) = attribute(&*journal, "r").await else {
        panic!("not attributed")
    };
    assert_eq!(change.change_id, first);
    journal.close().await;
}

pub(in crate::journal) async fn a_device_list_proves_attribution_only_if_it_is_complete(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = create_unknown_change(&*journal, &esim("k", 0..3)).await;
    store_successes(&*journal, "r", &[1], 20).await;
    for devices in [&[][..], &[1], &[0, 2], &[0, 1, 2, 3], &[1, 2, 3]] {
        let attribution = attribute_with(&*journal, "r", listed(devices)).await;
        let is_attributed = matches!(attribution, Attribution::Attributed(_));
        assert!(!is_attributed, "{devices:?}");
    }
    // All devices have a callback, and the list lacks some of them.
    store_successes(&*journal, "r", &[0, 2], 21).await;
    for devices in [&[][..], &[1], &[0, 2]] {
        let attribution = attribute_with(&*journal, "r", listed(devices)).await;
        assert!(
            matches!(attribution, Attribution::Candidate { is_whole: false, .. }),
            "{devices:?}"
        );
    }
    let attribution = attribute_with(&*journal, "r", listed(&[2, 1, 0])).await;
    assert!(matches!(attribution, Attribution::Attributed(_)));
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    assert_eq!((change.state, change.counts.succeeded), (ChangeState::Finished, 3));

    // With a complete list, a part of the callbacks is enough.
    let id = create_unknown_change(&*journal, &esim("other", 10..13)).await;
    store_successes(&*journal, "part", &[11], 20).await;
    let attribution = attribute_with(&*journal, "part", listed(&[12, 11, 10])).await;
    assert!(matches!(attribution, Attribution::Attributed(_)));
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    assert_eq!(change.state, ChangeState::Accepted);
    assert_eq!((change.counts.succeeded, change.pending_count()), (1, 2));
    journal.close().await;
}

pub(in crate::journal) async fn a_result_that_arrives_after_the_check_prevents_attribution(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = create_unknown_change(&*journal, &esim("k", 0..2)).await;
    let request = RequestId::parse("r").unwrap();
    let attribute = |last_result| journal.attribute(request.clone(), None, last_result, at(50));
    store_successes(&*journal, "r", &[0, 1], 20).await;
    let check = attribute(None).await.unwrap();
    let Attribution::Candidate { last_result, is_whole: true, .. } = check else {
        panic!("{check:?}")
    };
    let again = parse(
        r#"{"requestId":"r","deviceIds":[{"id":"89148000000000000000","kind":"iccid"}],"status":"Failed"}"#,
    );
    journal.store_callback(received(again, 20)).await.unwrap();
    let rejected = attribute(Some(last_result)).await.unwrap();
    let Attribution::Candidate { last_result: newer, is_whole: true, .. } = rejected else {
        panic!("{rejected:?}")
    };
    assert!(newer > last_result);
    let attributed = attribute(Some(newer)).await.unwrap();
    let Attribution::Attributed(change) = attributed else { panic!("{attributed:?}") };
    assert_eq!(change.change_id, id);
    journal.close().await;
}

pub(in crate::journal) async fn results_and_dispatches_are_ordered_by_position_not_by_clock(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    store_successes(&*journal, "earlier", &[0, 1], 1_000).await;
    let id = create_unknown_change(&*journal, &esim("k", 0..2)).await;
    // The clock has been set back even further.
    store_successes(&*journal, "later", &[0, 1], 1).await;
    let requests = journal.unattributed_requests(id, 10).await.unwrap();
    assert_eq!(requests, [RequestId::parse("later").unwrap()]);
    assert_eq!(attribute(&*journal, "earlier").await, Attribution::Unproven);
    let attribution = attribute(&*journal, "later").await;
    assert!(matches!(attribution, Attribution::Attributed(_)));

    // The last dispatch counts.
    let request = esim("rearmed", 10..11);
    let id = dispatched_at(&*journal, &request, 10).await;
    store_successes(&*journal, "between", &[10], 1_000).await;
    let requests = journal.unattributed_requests(id, 10).await.unwrap();
    assert_eq!(requests, [RequestId::parse("between").unwrap()]);
    let not_sent = Transition::MarkNotSent(not_sent());
    journal.apply_transition(id, not_sent, at(12)).await.unwrap();
    let again = intent(&*journal, &request, at(13));
    let attempt = Attempt(again.change.change_id);
    journal.claim(again).await.unwrap();
    for transition in [dispatch(), Transition::MarkOutcomeUnknown] {
        journal.apply(Step { attempt, ..first_step(id, transition, at(14)) }).await.unwrap();
    }
    let requests = journal.unattributed_requests(id, 10).await.unwrap();
    assert!(requests.is_empty(), "{requests:?}");
    assert_eq!(attribute(&*journal, "between").await, Attribution::Unproven);
    journal.close().await;
}

pub(in crate::journal) async fn unattributed_requests_are_listed_and_waiting_changes_are_found_by_age(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    store_successes(&*journal, "old", &[5], 10).await;
    let mine = accepted(&*journal, &esim("mine", 0..1), "mine").await;
    store_successes(&*journal, "mine", &[0], 20).await;
    store_successes(&*journal, "new", &[6], 20).await;
    store_successes(&*journal, "newer", &[6], 20).await;
    store_successes(&*journal, "old", &[7], 30).await;
    let request = |id: &str| RequestId::parse(id).unwrap();
    let found = journal.unattributed_requests(mine, 10).await.unwrap();
    assert_eq!(found, [request("newer"), request("new")]);
    let found = journal.unattributed_requests(mine, 1).await.unwrap();
    assert_eq!(found, [request("new")]);
    let unknown = create_unknown_change(&*journal, &esim("lost", 20..21)).await;
    let waiting = journal.due_changes(ChangeState::OutcomeUnknown, at(14), at(14)).await.unwrap();
    assert_eq!(waiting.due, [unknown]);
    let closed = journal.apply_transition(unknown, Transition::Close, at(60)).await.unwrap();
    assert_eq!((closed.state, closed.pending_count()), (ChangeState::Closed, 1));
    journal.close().await;
}

pub(in crate::journal) async fn a_closed_change_is_a_rival_until_it_is_trimmed(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    // The same devices; more devices; some other devices.
    for (first_device, key, closed, is_rival) in [
        (100, "same", [0, 1].as_slice(), true),
        (200, "more", &[0, 1, 2], true),
        (300, "others", &[0, 9], false),
    ] {
        let shift = |devices: &[usize]| -> Vec<usize> {
            devices.iter().map(|device| first_device + device).collect()
        };
        let first = create_unknown_change(&*journal, &esim(key, shift(closed))).await;
        journal.apply_transition(first, Transition::Close, at(14)).await.unwrap();
        let own = shift(&[0, 1]);
        let second =
            create_unknown_change(&*journal, &esim(&format!("{key}-again"), own.clone())).await;
        store_successes(&*journal, key, &own, 20).await;
        for list in [None, listed(&own)] {
            let attribution = attribute_with(&*journal, key, list).await;
            match attribution {
                Attribution::Attributed(change) => {
                    assert_eq!((change.change_id, is_rival), (second, false), "{key}");
                    break;
                }
                other => assert!(is_rival, "{key}: {other:?}"),
            }
        }
        // It stays a rival whatever the clock says.
        if is_rival {
            for days in [-400, 31, 400] {
                let time = at(14 + days * 86_400);
                let request = RequestId::parse(key).unwrap();
                let check = journal.attribute(request, listed(&own), None, time);
                assert_eq!(check.await.unwrap(), Attribution::Unproven, "{key}");
            }
        }
    }
    journal.close().await;
}

pub(in crate::journal) async fn a_late_callback_of_a_closed_change_is_not_attributed_to_another(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let closed =
        create_unknown_change(&*journal, &five_g("closed", &["A100003685E561", "A100003685E562"]))
            .await;
    journal.apply_transition(closed, Transition::Close, at(14)).await.unwrap();
    create_unknown_change(&*journal, &five_g("lost", &["A100003685E561"])).await;
    let late = r#"{"requestId":"r","deviceIds":[{"id":"A100003685E561","kind":"meid"}],"status":"Success"}"#;
    journal.store_callback(received(parse(late), 20)).await.unwrap();
    assert_eq!(attribute(&*journal, "r").await, Attribution::Unproven);
    journal.close().await;
}

pub(in crate::journal) async fn a_closed_change_that_has_a_request_of_its_own_is_no_rival(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let closed = accepted(&*journal, &esim("closed", 0..2), "its-own").await;
    for transition in [Transition::MarkOverdue, Transition::Close] {
        journal.apply_transition(closed, transition, at(14)).await.unwrap();
    }
    let id = create_unknown_change(&*journal, &esim("lost", 0..1)).await;
    store_successes(&*journal, "r", &[0], 20).await;
    let Attribution::Attributed(change) = attribute(&*journal, "r").await else {
        panic!("not attributed")
    };
    assert_eq!(change.change_id, id);
    journal.close().await;
}

pub(in crate::journal) async fn a_rival_that_the_device_list_may_rule_out_does_not_prevent_the_lookup(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    // The closed change has a device with a callback, and perhaps another.
    for (key, closed) in [("a", vec![0, 9]), ("b", vec![10])] {
        let (own, other) = (closed[0], closed[0] + 1);
        let first = create_unknown_change(&*journal, &esim(key, closed)).await;
        journal.apply_transition(first, Transition::Close, at(14)).await.unwrap();
        let second =
            create_unknown_change(&*journal, &esim(&format!("{key}-again"), [own, other])).await;
        store_successes(&*journal, key, &[own], 20).await;
        let Attribution::Candidate { change, is_whole: false, .. } =
            attribute(&*journal, key).await
        else {
            panic!("the list may prove it")
        };
        assert_eq!(change.change_id, second);
        let attribution = attribute_with(&*journal, key, listed(&[own])).await;
        assert!(!matches!(attribution, Attribution::Attributed(_)));
        let attribution = attribute_with(&*journal, key, listed(&[own, other])).await;
        let Attribution::Attributed(change) = attribution else { panic!("not attributed") };
        assert_eq!(change.change_id, second);
    }
    journal.close().await;
}

pub(in crate::journal) async fn a_change_that_was_sent_with_other_kinds_of_identifiers_is_a_rival(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    // Both are unknown. The second was sent by MEID, so its device may have the MDN of the first.
    let by_mdn =
        create_unknown_change(&*journal, &five_g_by("mdn", "by-mdn", &["5550000001"])).await;
    let by_meid = create_unknown_change(&*journal, &five_g("by-meid", &["A1000000000001"])).await;
    let called_back = |request: &str, ids: &str| {
        parse(&format!(r#"{{"requestId":"{request}","deviceIds":[{ids}],"status":"Success"}}"#))
    };
    let mdn = r#"{"id":"5550000001","kind":"mdn"}"#;
    let meid = r#"{"id":"A1000000000002","kind":"meid"}"#;
    for (request, ids, is_proven) in [
        ("mdn-alone", mdn.to_owned(), false),
        ("mdn-and-another-meid", format!("{mdn},{meid}"), true),
    ] {
        let callback = received(called_back(request, ids.as_str()), 20);
        journal.store_callback(callback).await.unwrap();
        let attribution = attribute_with(&*journal, request, None).await;
        let is_attributed = matches!(attribution, Attribution::Attributed(_));
        assert_eq!(is_attributed, is_proven, "{request}: {attribution:?}");
    }
    let states = [by_mdn, by_meid].map(|id| journal.change(ChangeSelector::Id(id)));
    let [by_mdn, by_meid] = states;
    assert_eq!(by_mdn.await.unwrap().unwrap().state, ChangeState::Finished);
    let by_meid = by_meid.await.unwrap().unwrap();
    assert_eq!(by_meid.state, ChangeState::OutcomeUnknown);
    journal.close().await;
}
