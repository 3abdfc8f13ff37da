//! Calls with the same key make one change and one POST. A POST that may have been executed is never
//! repeated.

use thingspace_gateway::proto::ChangeState;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    env::TestEnv,
    requests::{esim, five_g_bi, make_change, parse_error},
    thingspace::{CallKind, FakeResponse},
    wait::eventually,
};

mod responses;
mod stored_order;

#[tokio::test]
async fn concurrent_and_repeated_calls_with_the_same_key_are_one_change_and_one_post() {
    let mut env = TestEnv::start().await;
    let mut held_call = env.thingspace.hold(CallKind::Change);
    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let mut caller = env.gateway.client().await;
        calls.spawn(async move { make_change(&mut caller, esim("same", [1, 2])).await });
    }
    held_call.arrived().await;
    held_call.release(FakeResponse::Healthy);
    let responses = calls.join_all().await;
    assert_eq!(responses.len(), 32);
    let change = &responses[0];
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.request_ids.len(), 1);
    assert_eq!(change.idempotency_key, "same");
    assert_eq!((change.device_count, change.pending_count), (2, 2));
    assert!(responses.iter().all(|response| response == change));

    env.restart().await;
    assert_eq!(&env.change(esim("same", [1, 2])).await, change);
    assert_eq!(&env.get("same").await, change);
    assert_eq!(env.thingspace.posts(), 1);
}

#[tokio::test]
async fn a_key_identifies_its_content_in_any_order_of_devices() {
    let env = TestEnv::start().await;

    // A validation sends nothing and does not use the key.
    let mut trial = esim("key", [9]);
    trial.validate_only = true;
    let preview = env.change(trial).await;
    assert_eq!((&*preview.change_id, preview.device_count), ("", 1));
    assert_eq!(env.try_get("key").await.unwrap_err().code(), Code::NotFound);
    assert_eq!((env.thingspace.posts(), env.thingspace.login_count()), (0, 0));

    let first = env.change(esim("key", [1, 2, 3])).await;
    let mut same = esim("key", [3, 1, 2]);
    same.client_reference = "another".into();
    same.devices[0].client_reference = "yet another".into();
    assert_eq!(env.change(same).await, first);
    let mut trial = esim("key", [1, 2, 3]);
    trial.validate_only = true;
    assert!(env.try_change(trial).await.is_ok());

    let mut other_plan = esim("key", [1, 2, 3]);
    other_plan.service_plan = "another plan".into();
    let fewer = esim("key", [1, 2]);
    let mut reused = vec![env.change_error(other_plan).await, env.change_error(fewer).await];
    let other_rpc = env.try_change(five_g_bi("key", [1])).await;
    reused.push(other_rpc.expect_err("another RPC"));
    for status in reused {
        let error = parse_error(&status);
        let expected = (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED", "NEVER", Some("NO"));
        assert_eq!(error.summary(), expected);
        assert_eq!(error.metadata["change_id"], first.change_id);
    }
    // An address is part of the content. Another account has its own keys.
    let place = env.change(five_g_bi("5g", [1])).await;
    assert_eq!(env.change(five_g_bi("5g", [1])).await, place);
    let mut moved = five_g_bi("5g", [1]);
    let address = moved.devices[0].primary_place_of_use.as_mut().unwrap();
    address.address.as_mut().unwrap().city = "Elsewhere".into();
    let status = env.change_error(moved).await;
    assert_eq!(parse_error(&status).reason, "IDEMPOTENCY_KEY_REUSED");
    let mut elsewhere = esim("key", [4]);
    elsewhere.account_name = "0000654321-00001".into();
    let other = env.change(elsewhere).await;
    assert_ne!(other.change_id, first.change_id);
    assert_eq!(env.thingspace.posts(), 3);

    let error = parse_error(&env.change_error(esim("", [5])).await);
    let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", Some("NO"));
    assert_eq!(error.summary(), expected);
    assert_eq!(error.fields, ["idempotency_key"]);
    assert_eq!(env.thingspace.posts(), 3);
}

#[tokio::test]
async fn a_change_killed_between_post_and_response_is_never_sent_again() {
    let mut env = TestEnv::start().await;
    let (held_call, call) = env.start_held_change(CallKind::Change, esim("killed", [1, 2])).await;
    env.gateway.kill().await;
    assert!(call.await.expect("the call").is_err());
    held_call.release(FakeResponse::Healthy);

    env.start_again().await;
    let change = env.get("killed").await;
    assert_eq!(change.state(), ChangeState::OutcomeUnknown);
    assert!(change.dispatch_time.is_some());
    assert!(change.request_ids.is_empty());
    for _ in 0..2 {
        let again = env.change(esim("killed", [2, 1])).await;
        assert_eq!(again, change, "the outcome is still unknown");
    }
    let error = parse_error(&env.change_error(esim("overlapping", [2, 3])).await);
    let expected = (Code::FailedPrecondition, "DEVICE_BUSY", "LATER", Some("NO"));
    assert_eq!(error.summary(), expected);
    assert_eq!(error.metadata["change_id"], change.change_id);
    assert_eq!(env.thingspace.posts(), 1);
    // The rejected key can be used for other devices.
    let other = env.change(esim("overlapping", [3])).await;
    assert_eq!(other.state(), ChangeState::Accepted);

    // A second kill changes nothing.
    env.kill_and_restart().await;
    assert_eq!(env.change(esim("killed", [1, 2])).await, change);
    assert_eq!(env.thingspace.posts(), 2);
}

#[tokio::test]
async fn a_change_killed_before_its_post_is_not_sent_and_its_key_sends_it_once() {
    let mut env = TestEnv::start().await;
    let (held_call, call) = env.start_held_change(CallKind::Login, esim("queued", [1])).await;
    // The gateway logs in while it stores the change.
    eventually("the change is stored", async || env.try_get("queued").await.is_ok()).await;
    env.gateway.kill().await;
    assert!(call.await.expect("the call").is_err());
    drop(held_call);

    env.start_again().await;
    let queued = env.get("queued").await;
    assert_eq!(queued.state(), ChangeState::NotSent);
    assert_eq!(env.thingspace.posts(), 0);
    let change = env.change(esim("queued", [1])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.change_id, queued.change_id);
    assert_eq!(env.thingspace.posts(), 1);
}
