//! Compares what ThingSpace did with what everybody was told.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use thingspace_gateway::proto::{Change, ChangeState, DeviceResult, Outcome, Source};
use tokio::time::Instant;

use super::{
    clients::FirstCall,
    fault_injector::FaultInterval,
    ledger::{Ledger, LedgerChange, device_key},
    planned_changes::PlannedChange,
    proxy::ConnectionCut,
};
use crate::guarantees::{self, History, MessageKind, Recording, StreamEnd};

/// All that is known after a run.
pub struct Evidence {
    pub client_records: Vec<ClientRecord>,
    /// By request id, in their order.
    pub results: HashMap<String, Vec<DeviceResult>>,
    pub ledger: Ledger,
    pub fault_intervals: Vec<FaultInterval>,
    /// Connections between the gateway and ThingSpace, and those of callbacks.
    pub cuts: Vec<ConnectionCut>,
    pub callback_cuts: Vec<ConnectionCut>,
}

/// What a client knows of its change.
pub struct ClientRecord {
    pub planned_change: PlannedChange,
    pub first_call: FirstCall,
    /// When its watch had ended.
    pub until: Instant,
    /// `None` when its key is not known.
    pub change: Option<Change>,
    /// Its streams, and one from the beginning, afterwards.
    pub streams: Vec<Recording>,
    pub whole: Recording,
}

impl ClientRecord {
    pub fn state(&self) -> &'static str {
        let state = self
            .change
            .as_ref()
            .map(|change| change.state().as_str_name());
        state.map_or("NOT_FOUND", |name| name.trim_start_matches("CHANGE_STATE_"))
    }

    /// Whether its history has this state, by the name of the enum's variant.
    pub fn has_been_in(&self, state: &str) -> bool {
        let events = self.whole.messages.iter();
        let mut texts = events.filter_map(|message| match &message.kind {
            MessageKind::Event(text) => Some(text),
            _ => None,
        });
        texts.any(|text| text.split(' ').nth(1) == Some(state))
    }
}

/// What is wrong; nothing, if all promises were kept.
pub fn judge(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    never_twice(&evidence.ledger, &mut found);
    never_lost(evidence, &mut found);
    never_stored_twice(evidence, &mut found);
    never_locked(&evidence.ledger, &mut found);
    for client in &evidence.client_records {
        check_states_are_true(client, evidence, &mut found);
        never_stuck(client, &mut found);
        let history = History {
            reference: &client.whole.messages,
            streams: &client.streams,
        };
        if let Err(error) = guarantees::check(&history) {
            found.push(format!("{}: {error}", client.planned_change.key));
        }
    }
    found
}

/// A device belongs to one order only, so executing it twice is executing an order twice.
fn never_twice(ledger: &Ledger, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for executed in ledger.own() {
        for (device, _) in executed.devices() {
            if !seen.insert(device) {
                found.push(format!(
                    "never twice: {device} again in {}",
                    executed.request_id
                ));
            }
        }
    }
}

/// What was acknowledged is there as it was told, whatever a look-up said beside it.
fn never_lost(evidence: &Evidence, found: &mut Vec<String>) {
    let is_callback = |result: &DeviceResult| result.source() == Source::Callback;
    for executed in &evidence.ledger.changes {
        let known = last_outcomes(evidence, &executed.request_id, is_callback);
        for (device, became) in executed.devices() {
            if became.is_acknowledged() && known.get(device) != Some(&became.outcome.as_str()) {
                found.push(format!(
                    "never lost: {device} of {} {} was acknowledged, known is {:?}",
                    executed.request_id,
                    became.outcome,
                    known.get(device)
                ));
            }
        }
    }
}

/// A callback that is sent again is one result.
fn never_stored_twice(evidence: &Evidence, found: &mut Vec<String>) {
    for (request_id, results) in &evidence.results {
        let mut seen = HashSet::new();
        for result in results {
            let is_callback = result.source() == Source::Callback;
            if is_callback && !seen.insert(content(&result.raw_json)) {
                let device = device_of(result).unwrap_or_default();
                found.push(format!(
                    "never twice: a callback of {device} in {request_id} is stored again"
                ));
            }
        }
    }
}

/// A callback without what differs from try to try.
fn content(raw: &str) -> String {
    let mut body: Value = serde_json::from_str(raw).unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        for counter in ["callbackCount", "maxCallbackThreshold"] {
            members.remove(counter);
        }
    }
    body.to_string()
}

/// Five refused log-ins lock the account. The gateway stops at two, and counts one whose answer was cut off
/// half.
fn never_locked(ledger: &Ledger, found: &mut Vec<String>) {
    let (refused, locked) = (ledger.log_ins_refused, ledger.locked_users);
    if refused > 4 || locked > 0 {
        found.push(format!(
            "never locked: {refused} log-ins were refused, {locked} users are locked"
        ));
    }
}

/// The last outcome of each device, among some of the results.
fn last_outcomes<'e>(
    evidence: &'e Evidence,
    request_id: &str,
    counts: impl Fn(&DeviceResult) -> bool,
) -> HashMap<&'e str, &'static str> {
    let results = evidence.results.get(request_id).into_iter().flatten();
    let outcomes = results
        .filter(|result| counts(result))
        .filter_map(|result| {
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

/// The state of a change is true.
fn check_states_are_true(client: &ClientRecord, evidence: &Evidence, found: &mut Vec<String>) {
    let key = &client.planned_change.key;
    let executed = executed_for(&client.planned_change, &evidence.ledger);
    let Some(change) = &client.change else {
        if let Some(executed) = executed {
            found.push(format!(
                "never told wrong: {key} is not known, {} executed",
                executed.request_id
            ));
        }
        return;
    };
    let state = change.state();
    match (state, executed) {
        (ChangeState::NotSent | ChangeState::Rejected, Some(executed)) => {
            found.push(format!(
                "never told wrong: {key} is {state:?}, {} executed",
                executed.request_id
            ));
        }
        (ChangeState::Accepted | ChangeState::Overdue | ChangeState::Finished, None) => {
            found.push(format!(
                "never told wrong: {key} is {state:?}, nothing was executed"
            ));
        }
        _ => {}
    }
    for bound in &change.request_ids {
        if executed.is_none_or(|executed| executed.request_id != *bound) {
            found.push(format!(
                "never told wrong: {key} has a stranger's request {bound}"
            ));
        }
    }
    if let (ChangeState::Finished, Some(executed)) = (state, executed) {
        finished_as_executed(key, change, executed, evidence, found);
    }
}

/// What ThingSpace executed for an order.
pub fn executed_for<'l>(order: &PlannedChange, ledger: &'l Ledger) -> Option<&'l LedgerChange> {
    let own: HashSet<&str> = order.devices.iter().map(String::as_str).collect();
    let is_own =
        |executed: &&LedgerChange| executed.devices().any(|(device, _)| own.contains(device));
    ledger.own().find(is_own)
}

/// A finished change has the true outcome of every device, and counts them.
fn finished_as_executed(
    key: &str,
    change: &Change,
    executed: &LedgerChange,
    evidence: &Evidence,
    found: &mut Vec<String>,
) {
    let known = last_outcomes(evidence, &executed.request_id, |_| true);
    let mut succeeded = 0;
    for (device, became) in executed.devices() {
        succeeded += i32::from(became.outcome == "succeeded");
        if known.get(device) != Some(&became.outcome.as_str()) {
            found.push(format!(
                "never told wrong: {device} of {key} {}, known is {:?}",
                became.outcome,
                known.get(device)
            ));
        }
    }
    if change.succeeded_count != succeeded {
        let counted = change.succeeded_count;
        found.push(format!(
            "never told wrong: {key} counts {counted} successes of {succeeded}"
        ));
    }
}

/// A watch of a change that is known ends by telling how the change ended.
fn never_stuck(client: &ClientRecord, found: &mut Vec<String>) {
    let finished = client
        .streams
        .last()
        .is_some_and(|stream| stream.end == StreamEnd::Ok);
    if client.change.is_some() && !client.streams.is_empty() && !finished {
        found.push(format!(
            "never stuck: the watch of {} ({}) did not end",
            client.planned_change.key,
            client.state()
        ));
    }
}
