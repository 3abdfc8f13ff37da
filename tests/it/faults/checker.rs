//! Compares the sandbox's ledger with the observations of all clients.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use thingspace_gateway::proto::{Change, ChangeState, DeviceResult, Outcome, Source};

use super::{
    account_watches::{AccountRecord, check_account},
    client_record::ClientRecord,
    deployment::FaultInterval,
    observations::Observations,
    planned_changes::PlannedChange,
    proxy::ConnectionCut,
};
use crate::{
    guarantees::{self, History, StreamEnd},
    support::ledger::{Ledger, LedgerChange, device_key},
};

/// The observations of a run.
pub struct Evidence {
    pub observations: Observations,
    pub account: AccountRecord,
    pub ledger: Ledger,
    pub fault_intervals: Vec<FaultInterval>,
    /// Cut connections from the gateway to ThingSpace.
    pub cuts: Vec<ConnectionCut>,
    /// Cut connections of callbacks.
    pub callback_cuts: Vec<ConnectionCut>,
}

/// Returns the violations of all promises.
pub fn check_run(evidence: &Evidence) -> Vec<String> {
    let mut violations = Vec::new();
    check_never_twice(&evidence.ledger, &mut violations);
    check_never_lost(evidence, &mut violations);
    check_never_stored_twice(evidence, &mut violations);
    check_never_locked(&evidence.ledger, &mut violations);
    for client in &evidence.observations.client_records {
        check_states_are_true(client, evidence, &mut violations);
        check_never_stuck(client, &mut violations);
        let history = History::new(&client.whole.messages, &client.streams);
        if let Err(error) = guarantees::check(&history) {
            violations.push(format!("{}: {error}", client.planned_change.key));
        }
    }
    check_account(&evidence.account, &evidence.observations.client_records, &mut violations);
    violations
}

/// Each change is executed at most once. A device belongs to one change only.
fn check_never_twice(ledger: &Ledger, violations: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for executed in ledger.own() {
        for (device, _) in executed.devices() {
            if !seen.insert(device) {
                violations.push(format!("never twice: {device} again in {}", executed.request_id));
            }
        }
    }
}

/// Each acknowledged callback is stored with its outcome, whatever a lookup returned.
fn check_never_lost(evidence: &Evidence, violations: &mut Vec<String>) {
    let is_callback = |result: &DeviceResult| result.source() == Source::Callback;
    for executed in &evidence.ledger.changes {
        let stored = last_outcomes(evidence, &executed.request_id, is_callback);
        for (device, result) in executed.devices() {
            if result.is_acknowledged() && stored.get(device) != Some(&result.outcome.as_str()) {
                violations.push(format!(
                    "never lost: {device} of {} {} was acknowledged, the stored outcome is {:?}",
                    executed.request_id,
                    result.outcome,
                    stored.get(device)
                ));
            }
        }
    }
}

/// A repeated callback is stored once.
fn check_never_stored_twice(evidence: &Evidence, violations: &mut Vec<String>) {
    for (request_id, results) in &evidence.observations.results {
        let mut seen = HashSet::new();
        for result in results {
            let is_callback = result.source() == Source::Callback;
            if is_callback && !seen.insert(content(&result.raw_json)) {
                let device = device_of(result).unwrap_or_default();
                violations.push(format!(
                    "never twice: a callback of {device} in {request_id} is stored again"
                ));
            }
        }
    }
}

/// Returns a callback without the members that differ between attempts.
fn content(raw: &str) -> String {
    let mut body: Value = serde_json::from_str(raw).unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        for counter in ["callbackCount", "maxCallbackThreshold"] {
            members.remove(counter);
        }
    }
    body.to_string()
}

/// Five refused log-ins lock the account. The gateway stops after two, and also counts a log-in whose
/// response was cut.
fn check_never_locked(ledger: &Ledger, violations: &mut Vec<String>) {
    let (refused, locked) = (ledger.log_ins_refused, ledger.locked_users);
    if refused > 4 || locked > 0 {
        violations.push(format!(
            "never locked: {refused} log-ins were refused, {locked} users are locked"
        ));
    }
}

/// Returns the last outcome of each device among the results that `counts` selects.
fn last_outcomes<'e>(
    evidence: &'e Evidence,
    request_id: &str,
    counts: impl Fn(&DeviceResult) -> bool,
) -> HashMap<&'e str, &'static str> {
    let results = evidence.observations.results.get(request_id).into_iter().flatten();
    let outcomes = results.filter(|result| counts(result)).filter_map(|result| {
        let outcome = match result.outcome() {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            _ => return None,
        };
        Some((device_of(result)?, outcome))
    });
    outcomes.collect()
}

fn device_of(result: &DeviceResult) -> Option<&str> {
    let ids = result.device_ids.iter();
    device_key(ids.map(|id| (id.kind.as_str(), id.id.as_str())))
}

/// The state of each change agrees with the ledger.
fn check_states_are_true(client: &ClientRecord, evidence: &Evidence, violations: &mut Vec<String>) {
    let key = &client.planned_change.key;
    let executed = executed_for(&client.planned_change, &evidence.ledger);
    let Some(change) = &client.change else {
        if let Some(executed) = executed {
            violations.push(format!(
                "true state: {key} is not stored, {} was executed",
                executed.request_id
            ));
        }
        return;
    };
    let state = change.state();
    match (state, executed) {
        (ChangeState::NotSent | ChangeState::Rejected, Some(executed)) => {
            violations.push(format!(
                "true state: {key} is {state:?}, {} was executed",
                executed.request_id
            ));
        }
        (ChangeState::Accepted | ChangeState::Overdue | ChangeState::Finished, None) => {
            violations.push(format!("true state: {key} is {state:?}, nothing was executed"));
        }
        _ => {}
    }
    for request_id in &change.request_ids {
        if executed.is_none_or(|executed| executed.request_id != *request_id) {
            violations.push(format!("true state: {key} has the foreign request {request_id}"));
        }
    }
    if let (ChangeState::Finished, Some(executed)) = (state, executed) {
        check_outcomes(key, change, executed, evidence, violations);
    }
}

/// Returns the executed change of a planned change.
pub fn executed_for<'l>(planned: &PlannedChange, ledger: &'l Ledger) -> Option<&'l LedgerChange> {
    let own: HashSet<&str> = planned.devices.iter().map(String::as_str).collect();
    let is_own =
        |executed: &&LedgerChange| executed.devices().any(|(device, _)| own.contains(device));
    ledger.own().find(is_own)
}

/// A finished change has the outcomes and the counts of the ledger.
fn check_outcomes(
    key: &str,
    change: &Change,
    executed: &LedgerChange,
    evidence: &Evidence,
    violations: &mut Vec<String>,
) {
    let stored = last_outcomes(evidence, &executed.request_id, |_| true);
    let mut succeeded = 0;
    for (device, result) in executed.devices() {
        succeeded += i32::from(result.outcome == "succeeded");
        if stored.get(device) != Some(&result.outcome.as_str()) {
            violations.push(format!(
                "true state: {device} of {key} {}, the stored outcome is {:?}",
                result.outcome,
                stored.get(device)
            ));
        }
    }
    if change.succeeded_count != succeeded {
        let counted = change.succeeded_count;
        violations.push(format!("true state: {key} counts {counted} successes of {succeeded}"));
    }
}

/// The watch of each change ends with OK.
fn check_never_stuck(client: &ClientRecord, violations: &mut Vec<String>) {
    let finished = client.streams.last().is_some_and(|stream| stream.end == StreamEnd::Ok);
    if client.change.is_some() && !client.streams.is_empty() && !finished {
        violations.push(format!(
            "never stuck: the watch of {} ({}) did not end",
            client.planned_change.key,
            client.state()
        ));
    }
}
