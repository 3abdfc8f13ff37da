//! Compares what ThingSpace did with what everybody was told.

use std::collections::{HashMap, HashSet};

use thingspace_gateway::proto::{Change, ChangeState, DeviceResult, Outcome};

use super::{
    clients::Order,
    ledger::{Executed, Ledger},
};
use crate::guarantees::{self, End, History, Recording, What};

/// All that is known after a run.
pub struct Evidence {
    pub told: Vec<Told>,
    /// By request id, in their order.
    pub results: HashMap<String, Vec<DeviceResult>>,
    pub ledger: Ledger,
}

/// What a client knows of its change.
pub struct Told {
    pub order: Order,
    /// `None` when its key is not known.
    pub change: Option<Change>,
    /// Its streams, and one from the beginning, afterwards.
    pub streams: Vec<Recording>,
    pub whole: Recording,
}

impl Told {
    pub fn state(&self) -> &'static str {
        let state = self
            .change
            .as_ref()
            .map(|change| change.state().as_str_name());
        state.map_or("NOT_FOUND", |name| name.trim_start_matches("CHANGE_STATE_"))
    }

    /// Whether its history has this state, by the name of the enum's variant.
    pub fn passed_through(&self, state: &str) -> bool {
        let events = self.whole.messages.iter();
        let mut texts = events.filter_map(|message| match &message.what {
            What::Event(text) => Some(text),
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
    for told in &evidence.told {
        never_told_wrong(told, evidence, &mut found);
        never_stuck(told, &mut found);
        let history = History {
            reference: &told.whole.messages,
            streams: &told.streams,
        };
        if let Err(error) = guarantees::check(&history) {
            found.push(format!("{}: {error}", told.order.key));
        }
    }
    found
}

/// A device belongs to one order only, so executing it twice is executing an order twice.
fn never_twice(ledger: &Ledger, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for executed in &ledger.changes {
        for (device, became) in executed.devices() {
            if !seen.insert(device) || became.executed_count > 1 {
                found.push(format!(
                    "never twice: {device} again in {}",
                    executed.request_id
                ));
            }
        }
    }
}

/// What was acknowledged is there, and says what was said.
fn never_lost(evidence: &Evidence, found: &mut Vec<String>) {
    for executed in &evidence.ledger.changes {
        let known = last_outcomes(evidence, &executed.request_id);
        for (device, became) in executed.devices() {
            if became.acknowledged() && known.get(device) != Some(&became.outcome.as_str()) {
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

fn last_outcomes<'e>(evidence: &'e Evidence, request_id: &str) -> HashMap<&'e str, &'static str> {
    let results = evidence.results.get(request_id).into_iter().flatten();
    let outcomes = results.filter_map(|result| {
        let ids = result.device_ids.iter();
        let mut iccids = ids.filter(|id| id.kind.eq_ignore_ascii_case("iccid"));
        let outcome = match result.outcome() {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            _ => return None,
        };
        Some((iccids.next()?.id.as_str(), outcome))
    });
    outcomes.collect()
}

/// The state of a change is true.
fn never_told_wrong(told: &Told, evidence: &Evidence, found: &mut Vec<String>) {
    let key = &told.order.key;
    let own: HashSet<&str> = told.order.devices.iter().map(String::as_str).collect();
    let is_own = |executed: &&Executed| executed.devices().any(|(device, _)| own.contains(device));
    let executed = evidence.ledger.changes.iter().find(is_own);
    let Some(change) = &told.change else {
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

/// A finished change has the true outcome of every device, and counts them.
fn finished_as_executed(
    key: &str,
    change: &Change,
    executed: &Executed,
    evidence: &Evidence,
    found: &mut Vec<String>,
) {
    let known = last_outcomes(evidence, &executed.request_id);
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
fn never_stuck(told: &Told, found: &mut Vec<String>) {
    let finished = told
        .streams
        .last()
        .is_some_and(|stream| stream.end == End::Ok);
    if told.change.is_some() && !told.streams.is_empty() && !finished {
        found.push(format!(
            "never stuck: the watch of {} ({}) did not end",
            told.order.key,
            told.state()
        ));
    }
}
