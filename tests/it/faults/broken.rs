//! The judge itself, with evidence that is broken in one way each.

use thingspace_gateway::proto::{Change, ChangeState, DeviceId, DeviceResult, Outcome, Source};

use tokio::time::Instant;

use super::{
    clients::Asked,
    judge::{Evidence, Told, judge},
    ledger::{Became, Executed, Identifier, Ledger, Try},
    orders::{Kind, Order},
    sandbox::STRANGERS_PLAN,
};
use crate::guarantees::{End, Message, Recording, What};

const DEVICE: &str = "89140000000000000001";
const REQUEST: &str = "r-1";

fn executed(request_id: &str) -> Executed {
    Executed {
        request_id: request_id.into(),
        service_plan: "a plan".into(),
        device_identifiers: vec![vec![Identifier {
            id: DEVICE.into(),
            kind: "iccid".into(),
        }]],
        device_results: vec![Became {
            outcome: "succeeded".into(),
            lost: false,
            tries: vec![Try {
                message: "final".into(),
                answer: Some(200),
            }],
        }],
    }
}

fn result(outcome: Outcome) -> DeviceResult {
    DeviceResult {
        request_id: REQUEST.into(),
        device_ids: vec![DeviceId {
            kind: "iccid".into(),
            id: DEVICE.into(),
        }],
        outcome: outcome.into(),
        source: Source::Callback.into(),
        raw_json: format!(
            "{{\"status\":\"{}\",\"callbackCount\":1}}",
            outcome.as_str_name()
        ),
        ..DeviceResult::default()
    }
}

fn watched() -> Recording {
    let message = |token: &str, what| Message {
        token: token.into(),
        what,
    };
    let finished = What::Finished {
        state: "CHANGE_STATE_FINISHED".into(),
        is_final: true,
        adds_up: true,
    };
    Recording {
        from: String::new(),
        messages: vec![
            message("t0", What::Opened),
            message("t1", What::Event("the result".into())),
            message("t1", finished),
        ],
        end: End::Ok,
    }
}

/// One change of one device, and all is well.
fn sound() -> Evidence {
    let order = Order {
        key: "k".into(),
        kind: Kind::Esim,
        situation: None,
        devices: vec![DEVICE.into()],
        retries: true,
        doubled: false,
        deadline: None,
        cancelled: None,
        catches_up: false,
        leaves_after: None,
        stranger: None,
    };
    let now = Instant::now();
    let asked = Asked {
        began: now,
        deadline_passed: false,
        cancelled: false,
    };
    let change = Change {
        request_ids: vec![REQUEST.into()],
        state: ChangeState::Finished.into(),
        device_count: 1,
        succeeded_count: 1,
        ..Change::default()
    };
    Evidence {
        told: vec![Told {
            order,
            asked,
            until: now,
            change: Some(change),
            streams: vec![watched()],
            whole: watched(),
        }],
        results: [(REQUEST.to_owned(), vec![result(Outcome::Succeeded)])].into(),
        ledger: Ledger {
            changes: vec![executed(REQUEST)],
            ..Ledger::default()
        },
        befallen: Vec::new(),
        cuts: Vec::new(),
        callback_cuts: Vec::new(),
    }
}

fn found(break_it: impl FnOnce(&mut Evidence)) -> String {
    let mut evidence = sound();
    break_it(&mut evidence);
    judge(&evidence).join("\n")
}

fn state(evidence: &mut Evidence, state: ChangeState) {
    let change = evidence.told[0].change.as_mut().expect("a change");
    change.state = state.into();
    change.request_ids.clear();
}

#[test]
fn the_judge_finds_nothing_wrong_with_what_is_right() {
    assert_eq!(found(|_| {}), "");
}

#[test]
fn the_judge_finds_what_was_executed_twice_and_leaves_strangers_alone() {
    let twice = found(|evidence| evidence.ledger.changes.push(executed("r-2")));
    assert!(twice.contains("never twice"), "{twice}");
    let beside = found(|evidence| {
        let mut strangers = executed("r-2");
        strangers.service_plan = STRANGERS_PLAN.into();
        evidence
            .results
            .insert("r-2".into(), vec![result(Outcome::Succeeded)]);
        evidence.ledger.changes.push(strangers);
    });
    assert_eq!(beside, "");
}

#[test]
fn the_judge_finds_a_callback_that_is_stored_again_and_log_ins_that_lock() {
    let again = found(|evidence| {
        let mut again = result(Outcome::Succeeded);
        again.raw_json = again.raw_json.replace('1', "2");
        evidence.results.get_mut(REQUEST).expect("one").push(again);
    });
    assert!(again.contains("is stored again"), "{again}");
    let locking = found(|evidence| evidence.ledger.log_ins_refused = 5);
    assert!(locking.contains("never locked"), "{locking}");
}

#[test]
fn the_judge_finds_an_acknowledged_result_that_is_gone_or_says_something_else() {
    let gone = found(|evidence| evidence.results.clear());
    assert!(gone.contains("never lost"), "{gone}");
    let other = found(|evidence| {
        evidence
            .results
            .insert(REQUEST.into(), vec![result(Outcome::Failed)]);
    });
    assert!(other.contains("never lost"), "{other}");
    let looked_up = found(|evidence| {
        let results = evidence.results.get_mut(REQUEST).expect("one");
        results[0].source = Source::Reconciled.into();
    });
    assert!(looked_up.contains("never lost"), "{looked_up}");
}

#[test]
fn a_result_that_was_not_acknowledged_may_be_missing_while_its_change_waits() {
    let nothing = found(|evidence| {
        evidence.results.clear();
        evidence.ledger.changes[0].device_results[0].tries[0].answer = None;
        let change = evidence.told[0].change.as_mut().expect("a change");
        change.state = ChangeState::Closed.into();
        change.succeeded_count = 0;
    });
    assert_eq!(nothing, "");
}

#[test]
fn the_judge_finds_a_change_that_is_not_what_it_says() {
    for lie in [ChangeState::NotSent, ChangeState::Rejected] {
        let said = found(|evidence| state(evidence, lie));
        assert!(said.contains("never told wrong"), "{lie:?}: {said}");
    }
    let forgotten = found(|evidence| evidence.told[0].change = None);
    assert!(forgotten.contains("is not known"), "{forgotten}");
    let invented = found(|evidence| evidence.ledger.changes.clear());
    assert!(invented.contains("nothing was executed"), "{invented}");
    let strangers = found(|evidence| {
        let change = evidence.told[0].change.as_mut().expect("a change");
        change.request_ids = vec!["r-2".into()];
    });
    assert!(strangers.contains("a stranger's request"), "{strangers}");
    let miscounted = found(|evidence| {
        evidence.told[0]
            .change
            .as_mut()
            .expect("a change")
            .succeeded_count = 0;
    });
    assert!(
        miscounted.contains("counts 0 successes of 1"),
        "{miscounted}"
    );
}

#[test]
fn the_judge_finds_a_watch_that_never_ends_and_one_that_breaks_a_guarantee() {
    let stuck = found(|evidence| evidence.told[0].streams[0].end = End::Cut);
    assert!(stuck.contains("never stuck"), "{stuck}");
    let twice = found(|evidence| {
        let messages = &mut evidence.told[0].streams[0].messages;
        messages.insert(2, messages[1].clone());
    });
    assert!(twice.contains("Ordered: out of order"), "{twice}");
}
