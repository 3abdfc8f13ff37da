//! More at once than there is room for, and callers that do not stay.

use std::{collections::HashSet, time::Duration};

use thingspace_gateway::proto::{ChangeState, ListChangesRequest};
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::support::{
    gateway::{Client, Setup, TEST_TIMEOUT, TestDir},
    requests::{esim, get_by_key},
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

const CALLS: usize = 1_500;

/// How many changes are on record.
async fn count_changes(client: &mut Client) -> usize {
    let mut request = ListChangesRequest {
        page_size: 500,
        ..ListChangesRequest::default()
    };
    let mut found = HashSet::new();
    loop {
        let page = client
            .list_changes(request.clone())
            .await
            .unwrap()
            .into_inner();
        found.extend(page.changes.into_iter().map(|change| change.change_id));
        if page.next_page_token.is_empty() {
            return found.len();
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_changes_than_the_response_limit_are_all_sent_once_without_deadlock() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    // All are on record before the first may go on: they go on together.
    let mut log_in = thingspace.hold(CallKind::Login);
    let mut calls = JoinSet::new();
    for first in (0..CALLS).step_by(500) {
        let caller = gateway.client().await;
        for number in first..first + 500 {
            let mut caller = caller.clone();
            let call = async move {
                caller
                    .change_esim_plan(esim(&format!("key-{number}"), [number]))
                    .await
            };
            calls.spawn(call);
        }
    }
    log_in.arrived().await;
    let all_on_record = async { while count_changes(&mut client).await < CALLS {} };
    timeout(TEST_TIMEOUT, all_on_record)
        .await
        .expect("all are queued");
    log_in.release(FakeResponse::Healthy);
    let answers = timeout(TEST_TIMEOUT, calls.join_all())
        .await
        .expect("all are answered");
    for answer in answers {
        let change = answer.unwrap().into_inner().change.unwrap();
        assert_eq!(change.state(), ChangeState::Accepted);
    }
    assert_eq!((thingspace.posts(), thingspace.executed()), (CALLS, CALLS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_at_any_moment_leaves_no_unsent_change() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut calls = JoinSet::new();
    for number in 0..10_u32 {
        let mut caller = gateway.client().await;
        calls.spawn(async move {
            let first = usize::try_from(number).unwrap() * 4_000;
            let request = esim(&format!("key-{number}"), first..first + 4_000);
            let patience = Duration::from_millis(30) * (number + 1);
            let _gone = timeout(patience, caller.change_esim_plan(request)).await;
        });
    }
    timeout(TEST_TIMEOUT, calls.join_all())
        .await
        .expect("callers go away");

    let mut client = gateway.client().await;
    let settled = async {
        let mut made = 0;
        for number in 0..10 {
            loop {
                match get_by_key(&mut client, &format!("key-{number}")).await {
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
    let made = timeout(TEST_TIMEOUT, settled)
        .await
        .expect("nothing stays in the air");
    // A call that was given up may still be on its way in.
    assert!(thingspace.executed() >= made);
    assert_eq!(thingspace.posts(), thingspace.executed());
}
