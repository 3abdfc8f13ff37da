//! Binding by evidence: what proves that a request is a change's, and all that does not.

use super::*;
use crate::domain::identifier::DeviceId;

/// A change that was sent at 11 and got no answer.
async fn unknown(journal: &dyn Journal, demand: &Demand) -> ChangeId {
    let id = dispatched(journal, demand).await;
    journal.step(id, Step::LoseAnswer, at(13)).await.unwrap();
    id
}

async fn dispatched(journal: &dyn Journal, demand: &Demand) -> ChangeId {
    let claim = journal
        .claim(intent(journal, demand, at(10)))
        .await
        .unwrap();
    let Claim::Made(change) = claim else {
        panic!("{claim:?}")
    };
    let step = dispatch();
    journal.step(change.change_id, step, at(11)).await.unwrap();
    change.change_id
}

async fn see(journal: &dyn Journal, request: &str, devices: &[usize], seconds: i64) {
    for device in devices {
        journal
            .store_callback(arrived(success(request, *device), seconds))
            .await
            .unwrap();
    }
}

async fn adopt(journal: &dyn Journal, request: &str) -> Adoption {
    let request = RequestId::parse(request).unwrap();
    journal.adopt(request, None, true, at(50)).await.unwrap()
}

fn listed(devices: &[usize]) -> Option<Vec<Vec<ReportedId>>> {
    let id = |number: &usize| ReportedId {
        kind: "iccid".into(),
        id: iccid(*number),
    };
    Some(devices.iter().map(|number| vec![id(number)]).collect())
}

pub(in crate::journal) async fn a_request_that_names_exactly_the_devices_of_an_unknown_change_is_its(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = unknown(&*journal, &esim("k", 0..3)).await;
    see(&*journal, "r", &[2, 0], 20).await;
    assert!(matches!(adopt(&*journal, "r").await, Adoption::Part(_)));
    see(&*journal, "r", &[1], 21).await;
    let Adoption::Adopted(change) = adopt(&*journal, "r").await else {
        panic!("not adopted")
    };
    assert_eq!(
        (change.change_id, change.state),
        (id, ChangeState::Finished)
    );
    let events = timeline(&*journal, Target::Change(id)).await;
    assert_eq!(
        spell(&events),
        "Queued Dispatched OutcomeUnknown Accepted 2:Succeeded 0:Succeeded 1:Succeeded Finished"
    );
    let results = events.iter().filter_map(|event| match &event.what {
        What::Result(result) => Some(&result.report.evidence),
        What::State(_) => None,
    });
    for evidence in results {
        assert!(evidence.contains("exactly its 3 devices"), "{evidence}");
    }
    // It has an owner now.
    assert_eq!(adopt(&*journal, "r").await, Adoption::Unproven);
    assert_eq!(adopt(&*journal, "nobody").await, Adoption::Unproven);
    journal.close().await;
}

pub(in crate::journal) async fn what_does_not_prove_it_binds_nothing(engine: &dyn Engine) {
    let journal = engine.open().await;
    let id = unknown(&*journal, &esim("k", 0..2)).await;
    let one = unknown(&*journal, &esim("one", 10..11)).await;
    let five = unknown(&*journal, &five_g("five", &["A100003685E561"])).await;
    // A stranger's superset.
    see(&*journal, "superset", &[0, 1, 2], 20).await;
    // All of them, but before the change was sent.
    see(&*journal, "earlier", &[0, 1], 9).await;
    // A result that names nothing known is no proof, though only one device was sent.
    see(&*journal, "other", &[99], 20).await;
    let at_path = |request: &str, device, service: &str, account: &str| {
        let arrival = Arrival {
            service: ServiceName::parse(service).ok(),
            account: AccountName::parse(account).ok(),
            ..arrived(success(request, device), 20)
        };
        let journal = Arc::clone(&journal);
        async move { journal.store_callback(arrival).await.unwrap() }
    };
    at_path("service", 10, "CarrierService", "0000123456-00001").await;
    at_path("account", 10, "DeviceProfileService", "0000999999-00001").await;
    for request in ["superset", "earlier", "other", "service", "account"] {
        assert_eq!(
            adopt(&*journal, request).await,
            Adoption::Unproven,
            "{request}"
        );
    }
    // An eSIM profile's result of a 5G device, by whatever path.
    let profile = r#"{"requestId":"profile","deviceIds":[{"id":"A100003685E561","kind":"meid"}],
        "deviceResponse":{"deviceProfileResponse":{"state":"ACTIVE"}},"status":"SUCCESS"}"#;
    journal
        .store_callback(arrived(parse(profile), 20))
        .await
        .unwrap();
    assert_eq!(adopt(&*journal, "profile").await, Adoption::Unproven);
    for id in [id, one, five] {
        let change = journal.change(ChangeName::Id(id)).await.unwrap().unwrap();
        assert_eq!(change.state, ChangeState::OutcomeUnknown);
    }
    journal.close().await;
}

pub(in crate::journal) async fn of_two_changes_that_it_can_be_it_is_neither(engine: &dyn Engine) {
    let journal = engine.open().await;
    // One device, sent once by its MEID and once by its MDN: nobody can know that it is one.
    let first = unknown(&*journal, &five_g("a", &["A100003685E561"])).await;
    let mut other = five_g("b", &["A100003685E562"]);
    let mdn = DeviceId::new("mdn".parse().unwrap(), "5551234567".to_owned()).unwrap();
    other.devices[0].ids = vec![mdn];
    let second = dispatched(&*journal, &other).await;
    let both = r#"{"requestId":"r","deviceIds":[{"id":"A100003685E561","kind":"meid"},
        {"id":"5551234567","kind":"mdn"}],"status":"Success"}"#;
    journal
        .store_callback(arrived(parse(both), 20))
        .await
        .unwrap();
    assert_eq!(adopt(&*journal, "r").await, Adoption::Unproven);
    // The one that was being sent has its own answer now: one is left.
    let accept = Step::Accept {
        request_id: RequestId::parse("its-own").unwrap(),
        evidence: String::new(),
    };
    journal.step(second, accept, at(30)).await.unwrap();
    let Adoption::Adopted(change) = adopt(&*journal, "r").await else {
        panic!("not adopted")
    };
    assert_eq!(change.change_id, first);
    journal.close().await;
}

pub(in crate::journal) async fn a_part_is_the_whole_only_if_thingspace_lists_exactly_the_devices(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = unknown(&*journal, &esim("k", 0..3)).await;
    see(&*journal, "r", &[1], 20).await;
    let request = RequestId::parse("r").unwrap();
    for (devices, adopted) in [
        (&[1][..], false),
        (&[0, 1, 2, 3], false),
        (&[2, 1, 0], true),
    ] {
        let adoption = journal
            .adopt(request.clone(), listed(devices), true, at(50))
            .await
            .unwrap();
        assert_eq!(
            matches!(adoption, Adoption::Adopted(_)),
            adopted,
            "{devices:?}"
        );
    }
    let change = journal.change(ChangeName::Id(id)).await.unwrap().unwrap();
    assert_eq!(change.state, ChangeState::Accepted);
    assert_eq!((change.counts.succeeded, change.pending_count()), (1, 2));
    journal.close().await;
}

pub(in crate::journal) async fn orphans_are_found_by_when_they_came_and_those_who_wait_by_since_when(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    accepted(&*journal, &esim("mine", 0..1), "mine").await;
    see(&*journal, "mine", &[0], 20).await;
    see(&*journal, "old", &[5], 10).await;
    see(&*journal, "new", &[6], 20).await;
    see(&*journal, "old", &[7], 30).await;
    let found = journal.orphans(at(15), 10).await.unwrap();
    assert_eq!(found, [RequestId::parse("new").unwrap()]);
    let unknown = unknown(&*journal, &esim("lost", 20..21)).await;
    let waiting = journal
        .waiting(ChangeState::OutcomeUnknown, at(14))
        .await
        .unwrap();
    assert_eq!(waiting.due, [unknown]);
    let step = journal.step(unknown, Step::GiveUp, at(60)).await.unwrap();
    assert_eq!((step.state, step.pending_count()), (ChangeState::Closed, 1));
    journal.close().await;
}

pub(in crate::journal) async fn a_change_that_was_given_up_lately_may_be_meant_as_well(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let first = unknown(&*journal, &esim("first", 0..2)).await;
    journal.step(first, Step::GiveUp, at(14)).await.unwrap();
    let second = unknown(&*journal, &esim("second", 0..2)).await;
    see(&*journal, "r", &[0, 1], 20).await;
    assert_eq!(adopt(&*journal, "r").await, Adoption::Unproven);
    // ThingSpace keeps callbacks for 30 days.
    let request = RequestId::parse("r").unwrap();
    let days = |days: i64| at(14 + days * 86_400);
    let adopt = |time| journal.adopt(request.clone(), listed(&[0, 1]), true, time);
    assert_eq!(adopt(days(30)).await.unwrap(), Adoption::Unproven);
    let Adoption::Adopted(change) = adopt(days(31)).await.unwrap() else {
        panic!("not adopted")
    };
    assert_eq!(change.change_id, second);
    journal.close().await;
}

pub(in crate::journal) async fn what_was_given_up_keeps_nobody_from_asking_for_the_list(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    // What was given up shares a device that was called back, or is all that was.
    for (key, given_up) in [("a", vec![0, 9]), ("b", vec![10])] {
        let (own, other) = (given_up[0], given_up[0] + 1);
        let first = unknown(&*journal, &esim(key, given_up)).await;
        journal.step(first, Step::GiveUp, at(14)).await.unwrap();
        let second = unknown(&*journal, &esim(&format!("{key}-again"), [own, other])).await;
        see(&*journal, key, &[own], 20).await;
        let Adoption::Part(change) = adopt(&*journal, key).await else {
            panic!("the list would tell")
        };
        assert_eq!(change.change_id, second);
        let request = RequestId::parse(key).unwrap();
        let adopt = async |devices: &[usize]| {
            let adoption = journal.adopt(request.clone(), listed(devices), true, at(50));
            adoption.await.unwrap()
        };
        assert_eq!(adopt(&[own]).await, Adoption::Unproven);
        let Adoption::Adopted(change) = adopt(&[own, other]).await else {
            panic!("not adopted")
        };
        assert_eq!(change.change_id, second);
    }
    journal.close().await;
}
