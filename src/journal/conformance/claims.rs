//! Claims and state transitions.

use super::fixtures::*;
use crate::domain::newtypes::ClientReference;

const OTHER_ACCOUNTS: [&str; 2] = ["0000999999-00001", "0000999999-00002"];

pub(in crate::journal) async fn a_key_names_one_change_across_a_restart(engine: &dyn Engine) {
    let journal = engine.open().await;
    let request = esim("key", 0..3);
    let first = intent(&*journal, &request, at(1));
    let claims =
        futures_util::future::join_all((0..32).map(|_| journal.claim(first.clone()))).await;
    let made = claims.iter().filter(|claim| matches!(claim, Ok(Claim::Created(_)))).count();
    assert_eq!(made, 1);
    journal.close().await;
    drop(journal);

    let journal = engine.open().await;
    let mut reversed = esim("key", 0..3);
    Arc::make_mut(&mut reversed.devices).reverse();
    for (request, same) in [(&request, true), (&reversed, true), (&esim("key", 0..2), false)] {
        let claim = journal.claim(intent(&*journal, request, at(2))).await.unwrap();
        let Claim::KeyInUse { change, has_same_content: same_content } = claim else {
            panic!("{claim:?}")
        };
        assert_eq!((change.change_id, same_content), (first.change.change_id, same));
    }
    let other_rpc = five_g("key", &["A100003685E561"]);
    let claim = journal.claim(intent(&*journal, &other_rpc, at(2))).await.unwrap();
    assert!(matches!(claim, Claim::KeyInUse { has_same_content: false, .. }));
    journal.close().await;
}

pub(in crate::journal) async fn a_device_is_busy_until_the_outcome_of_its_change_is_known(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let first = intent(&*journal, &esim("one", 0..10), at(1));
    journal.claim(first.clone()).await.unwrap();
    let other = intent(&*journal, &esim("two", 9..12), at(2));
    let busy = BusyDevice { device_index: 0, change_id: first.change.change_id };
    assert_eq!(journal.check_claim(other.clone()).await.unwrap(), Claim::Busy(busy));
    let busy = Claim::Busy(busy);
    assert_eq!(journal.claim(other.clone()).await.unwrap(), busy);
    // Another device, whose ICCID differs only in the last digit.
    let similar = intent(&*journal, &esim("three", 12..13), at(2));
    assert!(matches!(journal.claim(similar).await.unwrap(), Claim::Created(_)));
    journal.apply_transition(first.change.change_id, dispatch(), at(3)).await.unwrap();
    journal
        .apply_transition(first.change.change_id, Transition::MarkOutcomeUnknown, at(4))
        .await
        .unwrap();
    assert_eq!(journal.claim(other.clone()).await.unwrap(), busy);
    let accept =
        Transition::Accept { request_id: RequestId::parse("r").unwrap(), evidence: "seen".into() };
    journal.apply_transition(first.change.change_id, accept, at(5)).await.unwrap();
    assert!(matches!(journal.claim(other).await.unwrap(), Claim::Created(_)));
    journal.close().await;
}

pub(in crate::journal) async fn a_device_is_not_busy_because_of_a_change_of_another_account(
    engine: &dyn Engine,
) {
    let mut journal = engine.open().await;
    let first = intent(&*journal, &esim("one", 0..2), at(1));
    journal.claim(first.clone()).await.unwrap();
    for is_restarted in [false, true] {
        if is_restarted {
            journal.close().await;
            drop(journal);
            journal = engine.open().await;
        }
        let mut other = esim(if is_restarted { "three" } else { "two" }, 0..2);
        other.account = AccountName::parse(OTHER_ACCOUNTS[usize::from(is_restarted)]).unwrap();
        let other = intent(&*journal, &other, at(2));
        let checked = journal.check_claim(other.clone()).await.unwrap();
        assert!(matches!(checked, Claim::Created(_)), "{checked:?}");
        let claimed = journal.claim(other).await.unwrap();
        assert!(matches!(claimed, Claim::Created(_)), "{claimed:?}");
        let same = journal.claim(intent(&*journal, &esim("four", 1..2), at(3))).await.unwrap();
        let busy = BusyDevice { device_index: 0, change_id: first.change.change_id };
        assert_eq!(same, Claim::Busy(busy));
    }
    journal.close().await;
}

pub(in crate::journal) async fn a_not_sent_change_is_requeued_by_its_key_under_its_id(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let request = esim("key", 0..2);
    let first = intent(&*journal, &request, at(1));
    let id = first.change.change_id;
    journal.claim(first).await.unwrap();
    let apply = |transition| journal.apply_transition(id, transition, at(2));
    apply(Transition::MarkNotSent(not_sent())).await.unwrap();

    let other = journal.claim(intent(&*journal, &esim("key", 0..3), at(3))).await.unwrap();
    assert!(matches!(other, Claim::KeyInUse { has_same_content: false, .. }));
    // Another change takes one of the devices.
    let rival = intent(&*journal, &esim("rival", 1..2), at(3));
    let rival_id = rival.change.change_id;
    journal.claim(rival).await.unwrap();
    let busy = journal.claim(intent(&*journal, &request, at(4))).await.unwrap();
    let device = BusyDevice { device_index: 1, change_id: rival_id };
    assert_eq!(busy, Claim::Busy(device));
    journal.apply_transition(rival_id, Transition::MarkNotSent(not_sent()), at(5)).await.unwrap();

    // The stored order and references stay.
    let mut later = esim("key", 0..2);
    let devices = Arc::make_mut(&mut later.devices);
    devices.reverse();
    for device in devices {
        device.client_reference = ClientReference::parse("later").unwrap();
    }
    let without_a_check = apply(Transition::Rearm).await;
    assert!(matches!(without_a_check, Err(JournalError::IllegalTransition(_))));
    let again = intent(&*journal, &later, at(6));
    let again_id = again.change.change_id;
    let again = journal.claim(again).await.unwrap();
    let Claim::Rearmed { change, devices } = again else { panic!("{again:?}") };
    assert_eq!(devices, *request.devices);
    assert_eq!((change.change_id, change.state, change.refusal), (id, ChangeState::Queued, None));
    let twin = journal.claim(intent(&*journal, &request, at(7))).await.unwrap();
    assert!(matches!(twin, Claim::KeyInUse { has_same_content: true, .. }));
    let superseded = apply(dispatch()).await;
    assert!(matches!(superseded, Err(JournalError::Superseded)), "{superseded:?}");
    let step = Step { attempt: Attempt(again_id), ..first_step(id, dispatch(), at(8)) };
    journal.apply(step).await.unwrap();
    assert_eq!(
        format_events(&timeline(&*journal, WatchTarget::Change(id)).await),
        "Queued NotSent Queued Dispatched"
    );
    journal.close().await;
}

pub(in crate::journal) async fn a_change_in_flight_is_settled_once_its_process_has_ended(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let mut ids = Vec::new();
    for (key, device, steps) in [("queued", 0, 0), ("dispatched", 1, 1), ("accepted", 2, 2)] {
        let intent = intent(&*journal, &esim(key, device..device + 1), at(1));
        let id = intent.change.change_id;
        journal.claim(intent).await.unwrap();
        let request_id = RequestId::parse("r").unwrap();
        let accept = Transition::Accept { request_id, evidence: String::new() };
        for transition in [dispatch(), accept].into_iter().take(steps) {
            journal.apply_transition(id, transition, at(2)).await.unwrap();
        }
        ids.push(id);
    }
    let owner = journal.owner();
    assert!(journal.can_send(owner));
    assert_eq!(journal.interrupted().await.unwrap(), []);
    assert_eq!(journal.settle(ids[0], at(3)).await.unwrap(), None);
    journal.close().await;
    drop(journal);

    let journal = engine.open().await;
    assert_eq!(journal.interrupted().await.unwrap(), ids[..2]);
    assert!(!journal.can_send(owner));
    assert!(journal.can_send(journal.owner()));
    let mut states = Vec::new();
    for id in ids.iter().chain([&ChangeId::new(at(9))]) {
        let settled = journal.settle(*id, at(4)).await.unwrap();
        states.push(settled.map(|change| change.state));
    }
    let expected = [Some(ChangeState::NotSent), Some(ChangeState::OutcomeUnknown), None, None];
    assert_eq!(states, expected);
    assert_eq!(journal.interrupted().await.unwrap(), []);
    // The process had not ended: it continues, with a change that was not sent and with a late response.
    let late = journal.apply_transition(ids[0], dispatch(), at(5)).await;
    assert!(matches!(late, Err(JournalError::IllegalTransition(_))), "{late:?}");
    let rejected = Transition::Reject(not_sent());
    let recorded = journal.apply_transition(ids[1], rejected, at(5)).await.unwrap();
    assert_eq!(recorded.state, ChangeState::Rejected);
    journal.close().await;
}

pub(in crate::journal) async fn an_illegal_transition_changes_nothing(engine: &dyn Engine) {
    let journal = engine.open().await;
    let id = accepted(&*journal, &esim("key", 0..1), "r").await;
    let not_sent = Transition::MarkNotSent(not_sent());
    for transition in
        [dispatch(), Transition::Rearm, not_sent, Transition::MarkOutcomeUnknown, Transition::Close]
    {
        let rejected = journal.apply_transition(id, transition, at(20)).await;
        assert!(matches!(rejected, Err(JournalError::IllegalTransition(_))), "{rejected:?}");
    }
    let unknown_id = ChangeId::new(at(99));
    let rejected = journal.apply_transition(unknown_id, dispatch(), at(20)).await;
    assert!(matches!(rejected, Err(JournalError::NoSuchChange)));
    let events = timeline(&*journal, WatchTarget::Change(id)).await;
    assert_eq!(format_events(&events), "Queued Dispatched Accepted");
    journal.close().await;
}
