//! More simultaneous changes than the limit, and clients that disconnect.

use std::{collections::HashSet, time::Duration};

use thingspace_gateway::proto::{ChangeState, ListChangesRequest};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::support::{
    env::TestEnv,
    gateway::Client,
    requests::esim,
    thingspace::{CallKind, FakeResponse},
    wait::{eventually, in_time},
};

const CALLS: usize = 1_500;

/// Returns the number of stored changes.
async fn count_changes(client: &mut Client) -> usize {
    let mut request = ListChangesRequest { page_size: 500, ..ListChangesRequest::default() };
    let mut found = HashSet::new();
    loop {
        let page = client.list_changes(request.clone()).await.unwrap().into_inner();
        found.extend(page.changes.into_iter().map(|change| change.change_id));
        if page.next_page_token.is_empty() {
            return found.len();
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_changes_than_the_response_limit_are_all_sent_once_without_deadlock() {
    let mut env = TestEnv::start().await;
    // All changes are stored before the log-in completes, so that all POSTs start together.
    let mut log_in = env.thingspace.hold(CallKind::Login);
    let mut calls = JoinSet::new();
    for first in (0..CALLS).step_by(500) {
        let caller = env.gateway.client().await;
        for number in first..first + 500 {
            let mut caller = caller.clone();
            let call = async move {
                caller.change_esim_plan(esim(&format!("key-{number}"), [number])).await
            };
            calls.spawn(call);
        }
    }
    log_in.arrived().await;
    eventually("all changes are stored", async || count_changes(&mut env.client).await == CALLS)
        .await;
    log_in.release(FakeResponse::Healthy);
    let responses = in_time(calls.join_all()).await;
    for response in responses {
        let change = response.unwrap().into_inner().change.unwrap();
        assert_eq!(change.state(), ChangeState::Accepted);
    }
    assert_eq!((env.thingspace.posts(), env.thingspace.executed()), (CALLS, CALLS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_at_any_moment_leaves_no_unsent_change() {
    let env = TestEnv::start().await;
    let mut calls = JoinSet::new();
    for number in 0..10_u32 {
        let mut caller = env.gateway.client().await;
        calls.spawn(async move {
            let first = usize::try_from(number).unwrap() * 4_000;
            let request = esim(&format!("key-{number}"), first..first + 4_000);
            let limit = Duration::from_millis(30) * (number + 1);
            let _disconnected = timeout(limit, caller.change_esim_plan(request)).await;
        });
    }
    in_time(calls.join_all()).await;

    let settled = async {
        let mut made = 0;
        for number in 0..10 {
            loop {
                match env.try_get(&format!("key-{number}")).await {
                    Err(status) if status.code() == Code::NotFound => break,
                    Ok(change) if change.state() == ChangeState::Accepted => {
                        made += 1;
                        break;
                    }
                    found => {
                        found.unwrap();
                    }
                }
            }
        }
        made
    };
    let made = in_time(settled).await;
    // A cancelled call may not have arrived yet.
    assert!(env.thingspace.executed() >= made);
    assert_eq!(env.thingspace.posts(), env.thingspace.executed());
}
