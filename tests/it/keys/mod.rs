//! The same key: one change, one POST, one answer. And no POST is repeated
//! that may have been executed.

use thingspace_gateway::proto::{Change, ChangeState};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    gateway::{Client, Setup, TestDir},
    requests::{
        WatchTranscript, change_esim, change_five_g_bi, esim, expect_esim_error, five_g_bi,
        get_by_key, parse_error, watch_change,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

mod responses;
mod stored_order;

/// The states that a change went through, by its watch.
async fn history(client: &mut Client, change: &Change) -> Vec<String> {
    let story = WatchTranscript::record(client, watch_change(change)).await;
    story.short()
}

#[tokio::test]
async fn the_same_key_many_times_at_once_and_after_a_restart_is_one_change_and_one_post() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut held = thingspace.hold(CallKind::Change);
    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let mut client = gateway.client().await;
        calls.spawn(async move { change_esim(&mut client, esim("same", [1, 2])).await });
    }
    held.arrived().await;
    held.release(FakeResponse::Healthy);
    let answers = calls.join_all().await;
    assert_eq!(answers.len(), 32);
    let change = &answers[0];
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.request_ids.len(), 1);
    assert_eq!(change.idempotency_key, "same");
    assert_eq!((change.device_count, change.pending_count), (2, 2));
    assert!(answers.iter().all(|answer| answer == change));

    assert_eq!(gateway.terminate().await.0, Some(0));
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    assert_eq!(
        &change_esim(&mut client, esim("same", [1, 2])).await,
        change
    );
    assert_eq!(&get_by_key(&mut client, "same").await.unwrap(), change);
    assert_eq!(thingspace.posts(), 1);
}

#[tokio::test]
async fn a_key_stands_for_its_content_in_any_order_of_devices_and_for_no_other() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;

    // Trying it out neither sends anything nor uses the key up.
    let mut trial = esim("key", [9]);
    trial.validate_only = true;
    let answer = client.change_esim_plan(trial).await.unwrap().into_inner();
    let preview = answer.change.expect("a change");
    assert_eq!((&*preview.change_id, preview.device_count), ("", 1));
    assert_eq!(
        get_by_key(&mut client, "key").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!((thingspace.posts(), thingspace.login_count()), (0, 0));

    let first = change_esim(&mut client, esim("key", [1, 2, 3])).await;
    let mut same = esim("key", [3, 1, 2]);
    same.client_reference = "another".into();
    same.devices[0].client_reference = "yet another".into();
    assert_eq!(change_esim(&mut client, same).await, first);
    let mut trial = esim("key", [1, 2, 3]);
    trial.validate_only = true;
    assert!(client.change_esim_plan(trial).await.is_ok());

    let mut other_plan = esim("key", [1, 2, 3]);
    other_plan.service_plan = "another plan".into();
    let fewer = esim("key", [1, 2]);
    let mut reused = vec![
        expect_esim_error(&mut client, other_plan).await,
        expect_esim_error(&mut client, fewer).await,
    ];
    let other_rpc = client.change_five_g_bi_plan(five_g_bi("key", [1])).await;
    reused.push(other_rpc.expect_err("another RPC"));
    for status in reused {
        let error = parse_error(&status);
        let expected = (
            Code::FailedPrecondition,
            "IDEMPOTENCY_KEY_REUSED",
            "NEVER",
            Some("NO"),
        );
        assert_eq!(error.summary(), expected);
        assert_eq!(error.metadata["change_id"], first.change_id);
    }
    // An address is content as well; another account has keys of its own.
    let place = change_five_g_bi(&mut client, five_g_bi("5g", [1])).await;
    assert_eq!(
        change_five_g_bi(&mut client, five_g_bi("5g", [1])).await,
        place
    );
    let mut moved = five_g_bi("5g", [1]);
    let address = moved.devices[0].primary_place_of_use.as_mut().unwrap();
    address.address.as_mut().unwrap().city = "Elsewhere".into();
    let status = client.change_five_g_bi_plan(moved).await.unwrap_err();
    assert_eq!(parse_error(&status).reason, "IDEMPOTENCY_KEY_REUSED");
    let mut elsewhere = esim("key", [4]);
    elsewhere.account_name = "0000654321-00001".into();
    let other = change_esim(&mut client, elsewhere).await;
    assert_ne!(other.change_id, first.change_id);
    assert_eq!(thingspace.posts(), 3);

    let error = parse_error(&expect_esim_error(&mut client, esim("", [5])).await);
    let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", Some("NO"));
    assert_eq!(error.summary(), expected);
    assert_eq!(error.fields, ["idempotency_key"]);
    assert_eq!(thingspace.posts(), 3);
}

#[tokio::test]
async fn a_change_that_was_killed_between_post_and_answer_is_never_sent_again() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut held = thingspace.hold(CallKind::Change);
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.change_esim_plan(esim("killed", [1, 2])).await });
    held.arrived().await;
    gateway.kill().await;
    assert!(call.await.expect("the call").is_err());
    held.release(FakeResponse::Healthy);

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let change = get_by_key(&mut client, "killed").await.unwrap();
    assert_eq!(change.state(), ChangeState::OutcomeUnknown);
    assert!(change.dispatch_time.is_some());
    assert!(change.request_ids.is_empty());
    for _ in 0..2 {
        let again = change_esim(&mut client, esim("killed", [2, 1])).await;
        assert_eq!(again, change, "OK, and still nobody knows");
    }
    let error = parse_error(&expect_esim_error(&mut client, esim("overlapping", [2, 3])).await);
    let expected = (Code::FailedPrecondition, "DEVICE_BUSY", "LATER", Some("NO"));
    assert_eq!(error.summary(), expected);
    assert_eq!(error.metadata["change_id"], change.change_id);
    assert_eq!(thingspace.posts(), 1);
    // Other devices are free, and so is the key that was refused.
    let other = change_esim(&mut client, esim("overlapping", [3])).await;
    assert_eq!(other.state(), ChangeState::Accepted);

    // And a second crash changes nothing.
    gateway.kill().await;
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    assert_eq!(
        change_esim(&mut client, esim("killed", [1, 2])).await,
        change
    );
    assert_eq!(thingspace.posts(), 2);
}

#[tokio::test]
async fn a_change_that_was_killed_before_its_post_was_not_sent_and_its_key_sends_it_once() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut held = thingspace.hold(CallKind::Login);
    let mut client = gateway.client().await;
    let call = tokio::spawn(async move { client.change_esim_plan(esim("queued", [1])).await });
    held.arrived().await;
    gateway.kill().await;
    assert!(call.await.expect("the call").is_err());
    drop(held);

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let queued = get_by_key(&mut client, "queued").await.unwrap();
    assert_eq!(queued.state(), ChangeState::NotSent);
    assert_eq!(thingspace.posts(), 0);
    let change = change_esim(&mut client, esim("queued", [1])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.change_id, queued.change_id);
    assert_eq!(thingspace.posts(), 1);
}
