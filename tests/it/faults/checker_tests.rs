//! The checker must detect evidence with one violation.

use thingspace_gateway::proto::{Change, ChangeState, DeviceId, DeviceResult, Outcome, Source};

use tokio::time::Instant;

use super::{
    account_watches::AccountRecord,
    checker::{Evidence, check_run},
    client_record::{ClientRecord, FirstCall},
    observations::Observations,
    planned_changes::{Operation, PlannedChange},
};
use crate::{
    guarantees::{MessageKind, RecordedMessage, Recording, StreamEnd},
    support::ledger::{
        CallbackAttempt, FOREIGN_PLAN, Identifier, Ledger, LedgerChange, LedgerDevice,
    },
};

const DEVICE: &str = "89140000000000000001";
const REQUEST: &str = "r-1";
const CHANGE: &str = "c-1";

fn executed(request_id: &str) -> LedgerChange {
    LedgerChange {
        request_id: request_id.into(),
        service_plan: "a plan".into(),
        device_identifiers: vec![vec![Identifier { id: DEVICE.into(), kind: "iccid".into() }]],
        device_results: vec![LedgerDevice {
            outcome: "succeeded".into(),
            lost: false,
            attempts: vec![CallbackAttempt { message: "final".into(), response_status: Some(200) }],
        }],
    }
}

fn result(outcome: Outcome) -> DeviceResult {
    DeviceResult {
        request_id: REQUEST.into(),
        device_ids: vec![DeviceId { kind: "iccid".into(), id: DEVICE.into() }],
        outcome: outcome.into(),
        source: Source::Callback.into(),
        raw_json: format!("{{\"status\":\"{}\",\"callbackCount\":1}}", outcome.as_str_name()),
        ..DeviceResult::default()
    }
}

fn watched() -> Recording {
    let message = |token: &str, what| RecordedMessage { token: token.into(), kind: what };
    let finished = MessageKind::Finished {
        state: "CHANGE_STATE_FINISHED".into(),
        is_final: true,
        has_consistent_counts: true,
    };
    Recording {
        from: String::new(),
        messages: vec![
            message("t0", MessageKind::Opened),
            message("t1", MessageKind::Event("the result".into())),
            message("t1", finished),
        ],
        end: StreamEnd::Ok,
    }
}

/// The account's streams: one client with two streams, and the events of the change.
fn watched_account() -> AccountRecord {
    let message = |token: &str, kind| RecordedMessage { token: token.into(), kind };
    let event = |token: &str, text: &str| message(token, MessageKind::Event(text.into()));
    let opened = message("a0", MessageKind::Opened);
    let first = vec![opened.clone(), event("a1", "the result")];
    let second = vec![
        message("a1", MessageKind::Opened),
        event("a2", &format!("{CHANGE} Finished None")),
        event("a3", &format!("{CHANGE} Closed None")),
        message("a3", MessageKind::Bookmark),
    ];
    let whole = [&first[..], &second[1..]].concat();
    AccountRecord {
        clients: vec![vec![
            Recording { messages: first, ..Recording::default() },
            Recording { from: "a1".into(), messages: second, end: StreamEnd::Ok },
        ]],
        whole: Recording { messages: whole, ..Recording::default() },
    }
}

/// Evidence of one change of one device without a violation.
fn valid_evidence() -> Evidence {
    let planned_change = PlannedChange {
        key: "k".into(),
        operation: Operation::Esim,
        scenario: None,
        devices: vec![DEVICE.into()],
        retries: true,
        is_sent_twice: false,
        deadline: None,
        cancel_after: None,
        has_catch_up_watch: false,
        disconnect_after: None,
        foreign_request: None,
    };
    let now = Instant::now();
    let first_call = FirstCall { start: now, deadline_passed: false, cancelled: false };
    let change = Change {
        change_id: CHANGE.into(),
        request_ids: vec![REQUEST.into()],
        state: ChangeState::Finished.into(),
        device_count: 1,
        succeeded_count: 1,
        ..Change::default()
    };
    Evidence {
        observations: Observations {
            client_records: vec![ClientRecord {
                planned_change,
                first_call,
                until: now,
                change: Some(change),
                streams: vec![watched()],
                whole: watched(),
            }],
            results: [(REQUEST.to_owned(), vec![result(Outcome::Succeeded)])].into(),
        },
        account: watched_account(),
        ledger: Ledger { changes: vec![executed(REQUEST)], ..Ledger::default() },
        fault_intervals: Vec::new(),
        cuts: Vec::new(),
        callback_cuts: Vec::new(),
    }
}

fn violations_after(falsify: impl FnOnce(&mut Evidence)) -> String {
    let mut evidence = valid_evidence();
    falsify(&mut evidence);
    check_run(&evidence).join("\n")
}

fn set_state(evidence: &mut Evidence, state: ChangeState) {
    let change = evidence.observations.client_records[0].change.as_mut().expect("a change");
    change.state = state.into();
    change.request_ids.clear();
}

#[test]
fn the_checker_accepts_valid_evidence() {
    assert_eq!(violations_after(|_| {}), "");
}

#[test]
fn the_checker_detects_a_double_execution_and_ignores_foreign_requests() {
    let twice = violations_after(|evidence| evidence.ledger.changes.push(executed("r-2")));
    assert!(twice.contains("never twice"), "{twice}");
    let beside = violations_after(|evidence| {
        let mut foreign_change = executed("r-2");
        foreign_change.service_plan = FOREIGN_PLAN.into();
        evidence.observations.results.insert("r-2".into(), vec![result(Outcome::Succeeded)]);
        evidence.ledger.changes.push(foreign_change);
    });
    assert_eq!(beside, "");
}

#[test]
fn the_checker_detects_a_callback_stored_twice_and_too_many_failed_logins() {
    let again = violations_after(|evidence| {
        let mut again = result(Outcome::Succeeded);
        again.raw_json = again.raw_json.replace('1', "2");
        evidence.observations.results.get_mut(REQUEST).expect("one").push(again);
    });
    assert!(again.contains("is stored again"), "{again}");
    let locking = violations_after(|evidence| evidence.ledger.log_ins_refused = 5);
    assert!(locking.contains("never locked"), "{locking}");
}

#[test]
fn the_checker_detects_a_lost_or_altered_acknowledged_result() {
    let gone = violations_after(|evidence| evidence.observations.results.clear());
    assert!(gone.contains("never lost"), "{gone}");
    let other = violations_after(|evidence| {
        evidence.observations.results.insert(REQUEST.into(), vec![result(Outcome::Failed)]);
    });
    assert!(other.contains("never lost"), "{other}");
    let looked_up = violations_after(|evidence| {
        let results = evidence.observations.results.get_mut(REQUEST).expect("one");
        results[0].source = Source::Reconciled.into();
    });
    assert!(looked_up.contains("never lost"), "{looked_up}");
}

#[test]
fn a_result_that_was_not_acknowledged_may_be_missing_while_its_change_waits() {
    let nothing = violations_after(|evidence| {
        evidence.observations.results.clear();
        evidence.ledger.changes[0].device_results[0].attempts[0].response_status = None;
        let change = evidence.observations.client_records[0].change.as_mut().expect("a change");
        change.state = ChangeState::Closed.into();
        change.succeeded_count = 0;
    });
    assert_eq!(nothing, "");
}

#[test]
fn the_checker_detects_a_false_change_state() {
    for state_name in [ChangeState::NotSent, ChangeState::Rejected] {
        let violations = violations_after(|evidence| set_state(evidence, state_name));
        assert!(violations.contains("true state"), "{state_name:?}: {violations}");
    }
    let forgotten =
        violations_after(|evidence| evidence.observations.client_records[0].change = None);
    assert!(forgotten.contains("is not stored"), "{forgotten}");
    let invented = violations_after(|evidence| evidence.ledger.changes.clear());
    assert!(invented.contains("nothing was executed"), "{invented}");
    let foreign_request = violations_after(|evidence| {
        let change = evidence.observations.client_records[0].change.as_mut().expect("a change");
        change.request_ids = vec!["r-2".into()];
    });
    assert!(foreign_request.contains("the foreign request"), "{foreign_request}");
    let miscounted = violations_after(|evidence| {
        evidence.observations.client_records[0]
            .change
            .as_mut()
            .expect("a change")
            .succeeded_count = 0;
    });
    assert!(miscounted.contains("counts 0 successes of 1"), "{miscounted}");
}

#[test]
fn the_checker_detects_a_watch_that_never_ends_and_one_that_violates_a_guarantee() {
    let stuck = violations_after(|evidence| {
        evidence.observations.client_records[0].streams[0].end = StreamEnd::Cut
    });
    assert!(stuck.contains("never stuck"), "{stuck}");
    let twice = violations_after(|evidence| {
        let messages = &mut evidence.observations.client_records[0].streams[0].messages;
        messages.insert(2, messages[1].clone());
    });
    assert!(twice.contains("Ordered: out of order"), "{twice}");
}

#[test]
fn the_checker_detects_an_account_without_an_event_of_a_change_and_a_client_that_misses_one() {
    for (lost, expected) in [
        ("a1", "account: k: missing or out of order: the result"),
        ("a2", "account: k: its state is missing"),
    ] {
        let violations = violations_after(|evidence| {
            let account = &mut evidence.account;
            account.clients.clear();
            account.whole.messages.retain(|message| message.token != lost);
        });
        assert!(violations.contains(expected), "{violations}");
    }
    let skipped = violations_after(|evidence| {
        evidence.account.clients[0][1].messages.remove(1);
    });
    assert!(skipped.contains("account: Resumable"), "{skipped}");
    let rejected = violations_after(|evidence| {
        let reason = "RESUME_TOKEN_EXPIRED".into();
        let end = StreamEnd::Error { code: "OutOfRange".into(), reason };
        evidence.account.clients[0].push(Recording { end, ..Recording::default() });
    });
    assert!(rejected.contains("account: Opened: rejected"), "{rejected}");
    let not_from_the_token = violations_after(|evidence| {
        evidence.account.clients[0].remove(0);
    });
    assert!(not_from_the_token.contains("are not the first ones"), "{not_from_the_token}");
}
