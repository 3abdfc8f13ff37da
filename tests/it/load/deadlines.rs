//! Calls whose deadline passes while ThingSpace is slow.

use std::{collections::HashMap, time::Duration};

use thingspace_gateway::proto::ChangeState;
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::support::{
    gateway::Setup,
    ledger::Ledger,
    requests::{ACCOUNT, esim, get_by_key, make_change, parse_error},
    wait::in_time,
};

const CALLS: usize = 200;
/// Response time of ThingSpace: longer than each deadline.
const RESPONSE_DELAY: &str = "2s";
const LONGEST_DEADLINE: Duration = Duration::from_millis(1_800);

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_deadline_passed_is_executed_at_most_once_and_found_by_its_key() {
    let mut gateway = Setup::sandbox().set("sandbox.answer_delay", RESPONSE_DELAY).start().await;
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut caller = gateway.client().await;
        calls.spawn(async move {
            let mut request = Request::new(esim(&format!("key-{number}"), [number]));
            let share = u32::try_from(number).unwrap() + 1;
            request.set_timeout(LONGEST_DEADLINE * share / u32::try_from(CALLS).unwrap());
            (number, caller.change_esim_plan(request).await)
        });
    }
    for (number, result) in in_time(calls.join_all()).await {
        let status = result.expect_err("the deadline passes");
        // A status of the client library is CANCELLED and has no details.
        if status.details().is_empty() {
            assert_eq!(status.code(), Code::Cancelled, "{number}");
        } else {
            let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", Some("UNKNOWN"));
            assert_eq!(parse_error(&status).summary(), expected);
        }
    }

    // Started changes are completed and found by their keys.
    let mut client = gateway.client().await;
    let mut found = HashMap::new();
    for number in 0..CALLS {
        let settled = async {
            loop {
                match get_by_key(&mut client, &format!("key-{number}")).await {
                    Err(status) if status.code() == Code::NotFound => return None,
                    Err(status) => panic!("{status:?}"),
                    Ok(change)
                        if matches!(
                            change.state(),
                            ChangeState::Queued | ChangeState::Dispatched
                        ) => {}
                    Ok(change) => return Some(change),
                }
            }
        };
        let change = in_time(settled).await;
        found.extend(change.map(|change| (number, change)));
    }
    let sandbox = format!("http://{}", gateway.sandbox.expect("it has one"));
    let executed = Ledger::fetch(&sandbox, true).await;
    assert!(!executed.changes.is_empty(), "some changes were executed");
    let by_request: HashMap<&str, usize> = found
        .iter()
        .flat_map(|(number, change)| {
            assert_eq!(change.account_name, ACCOUNT);
            change.request_ids.iter().map(|id| (id.as_str(), *number))
        })
        .collect();
    let mut executed_numbers = HashMap::new();
    for change in &executed.changes {
        let number = by_request.get(change.request_id.as_str());
        let number = number.expect("an executed change is found by its key");
        assert_eq!(executed_numbers.insert(*number, ()), None, "{number} was executed twice");
    }
    for (number, change) in &found {
        let was_executed = executed_numbers.contains_key(number);
        assert_eq!(change.state() != ChangeState::NotSent, was_executed, "{change:?}");
    }

    // A repeated call returns the same change, or sends it if it was not sent.
    for (number, before) in &found {
        let again = make_change(&mut client, esim(&format!("key-{number}"), [*number])).await;
        assert_eq!(again.change_id, before.change_id);
    }
    let again = Ledger::fetch(&sandbox, false).await;
    assert_eq!(again.changes.len(), found.len());
    assert_eq!(gateway.terminate().await.code, Some(0));
}
