//! Callers whose deadline passes while ThingSpace is slow.

use std::{collections::HashMap, time::Duration};

use thingspace_gateway::proto::ChangeState;
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Request};

use crate::{
    faults::ledger::Ledger,
    support::{
        gateway::{Setup, TEST_TIMEOUT},
        requests::{ACCOUNT, change_esim, esim, get_by_key, parse_error},
    },
};

const CALLS: usize = 200;
/// ThingSpace takes longer to answer than the most patient caller waits.
const ANSWER: &str = "2s";
const LONGEST: Duration = Duration::from_millis(1_800);

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_caller_stopped_waiting_is_executed_once_at_most_and_is_found_by_its_key() {
    let gateway = Setup::sandbox()
        .set("sandbox.answer_delay", ANSWER)
        .start()
        .await;
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut caller = gateway.client().await;
        calls.spawn(async move {
            let mut request = Request::new(esim(&format!("key-{number}"), [number]));
            let share = u32::try_from(number).unwrap() + 1;
            request.set_timeout(LONGEST * share / u32::try_from(CALLS).unwrap());
            let answer = caller.change_esim_plan(request).await;
            (number, answer)
        });
    }
    for (number, answer) in timeout(TEST_TIMEOUT, calls.join_all())
        .await
        .expect("in time")
    {
        let status = answer.expect_err("nobody waits long enough");
        // The library's own word, which has no details, is CANCELLED.
        if status.details().is_empty() {
            assert_eq!(status.code(), Code::Cancelled, "{number}");
        } else {
            let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", Some("UNKNOWN"));
            assert_eq!(parse_error(&status).summary(), expected);
        }
    }

    // What was begun goes on to its end, and its key finds it.
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
        let change = timeout(TEST_TIMEOUT, settled).await.expect("it settles");
        found.extend(change.map(|change| (number, change)));
    }
    let sandbox = format!("http://{}", gateway.sandbox.expect("it has one"));
    let executed = Ledger::fetch(&sandbox, true).await;
    assert!(!executed.changes.is_empty(), "some went on");
    let by_request: HashMap<&str, usize> = found
        .iter()
        .flat_map(|(number, change)| {
            assert_eq!(change.account_name, ACCOUNT);
            change.request_ids.iter().map(|id| (id.as_str(), *number))
        })
        .collect();
    let mut seen = HashMap::new();
    for change in &executed.changes {
        let number = by_request.get(change.request_id.as_str());
        let number = number.expect("what was executed is found by its key");
        assert_eq!(
            seen.insert(*number, ()),
            None,
            "{number} was executed twice"
        );
    }
    for (number, change) in &found {
        let was_executed = seen.contains_key(number);
        assert_eq!(
            change.state() != ChangeState::NotSent,
            was_executed,
            "{change:?}"
        );
    }

    // And with the key again it is the same change, or becomes one now.
    for (number, before) in &found {
        let again = change_esim(&mut client, esim(&format!("key-{number}"), [*number])).await;
        assert_eq!(again.change_id, before.change_id);
    }
    let again = Ledger::fetch(&sandbox, false).await;
    assert_eq!(again.changes.len(), found.len());
    assert_eq!(gateway.terminate().await.0, Some(0));
}
