//! Counts how often each fault met each guarantee.

use std::{collections::BTreeMap, fmt};

use thingspace_gateway::proto::{ChangeState, Source};

use super::{
    account_watches::{RESUMED_AFTER, resumed_after},
    checker::{Evidence, executed_for},
    client_record::ClientRecord,
    deployment::InjectedFault,
    planned_changes::Overlap,
    proxy::{ConnectionCut, CutPoint},
};
use crate::{
    guarantees::{MessageKind, Recording},
    support::ledger::{LedgerChange, LedgerDevice},
};

/// A name, and a test whether it applies to a change.
type Named = (&'static str, fn(&CheckedChange<'_>) -> bool);

/// The guarantees, and the changes by which each can be checked.
const GUARANTEES: [Named; 11] = [
    ("never twice", |_| true),
    ("never lost", |change| change.any_device(LedgerDevice::is_acknowledged)),
    ("never locked", |change| change.client.change.is_some()),
    ("true state", |change| change.client.change.is_some()),
    ("Ordered", |change| change.events() > 1),
    ("Unique", |change| change.events() > 1),
    ("Gap-free", |change| change.stream(|stream| count_events(stream) > 1)),
    ("Resumable", |change| {
        change.stream(|stream| !stream.from.is_empty() && count_events(stream) > 0)
    }),
    ("Bookmarkable", |change| change.message(|what| matches!(what, MessageKind::Bookmark))),
    ("Terminal-once", |change| change.message(|what| matches!(what, MessageKind::Finished { .. }))),
    ("never stuck", |change| !change.client.streams.is_empty()),
];

/// The faults that are not injected into the gateways, and the changes that each met.
const OTHER_FAULTS: [Named; 26] = [
    ("called twice at once", |change| change.client.planned_change.is_sent_twice),
    ("deadline passed", |change| change.client.first_call.deadline_passed),
    ("call cancelled", |change| change.client.first_call.cancelled),
    ("watch left and resumed", |change| {
        change.client.planned_change.disconnect_after.is_some() && change.client.streams.len() > 1
    }),
    ("cut before the request", |change| change.cut(&change.evidence.cuts, CutPoint::Before)),
    ("cut within the request", |change| change.cut(&change.evidence.cuts, CutPoint::Within)),
    ("cut before or within the response", |change| {
        change.cut(&change.evidence.cuts, CutPoint::Response)
    }),
    ("callback cut", |change| {
        let cuts = &change.evidence.callback_cuts;
        cuts.iter().any(|cut| cut.change_number == change.number)
    }),
    ("callback not answered or rejected", |change| {
        change.any_device(|device| {
            device.attempts.iter().any(|attempt| attempt.response_status != Some(200))
        })
    }),
    ("callback repeated after its 200", |change| {
        change.any_device(|device| {
            let acknowledged =
                device.attempts.iter().filter(|attempt| attempt.is_acknowledged_final());
            acknowledged.count() > 1
        })
    }),
    ("callback lost", |change| change.any_device(|device| device.lost)),
    ("callback malformed", |change| change.has_callback_message("malformed")),
    ("callback late", |change| change.has_scenario(34..=34)),
    ("callback early", |change| change.has_scenario(35..=35)),
    ("callbacks reversed", |change| change.has_scenario(36..=36)),
    ("warning first", |change| change.has_callback_message("warning")),
    ("on hold first", |change| change.has_callback_message("on_hold")),
    ("unusual callback", |change| change.has_scenario(54..=59)),
    ("device failed", |change| change.any_device(|device| device.outcome == "failed")),
    ("found by a lookup", |change| change.has_lookup_result()),
    ("slow response", |change| change.has_scenario(61..=61)),
    ("executed, response lost or unusual", |change| change.has_scenario(62..=67)),
    ("not executed, unusual response", |change| change.has_scenario(71..=73)),
    ("token or session refused", |change| change.has_scenario(81..=86)),
    ("throttled", |change| change.has_scenario(87..=88)),
    ("a foreign request", |change| change.client.planned_change.foreign_request.is_some()),
];

/// Pairs that cannot meet: a change that was not executed has no callbacks.
const CANNOT: [(&str, &str); 3] = [
    ("cut before the request", "never lost"),
    ("cut within the request", "never lost"),
    ("not executed, unusual response", "never lost"),
];

/// Prefix of the counts of the account's streams.
const ACCOUNT_RESUMED: &str = "streams of the account resumed after";

/// Counts of faults by guarantee, and of the ends of changes.
pub struct FaultCoverage {
    faults: Vec<Fault>,
    met: BTreeMap<(usize, usize), usize>,
    pub counts: BTreeMap<String, usize>,
}

/// A fault that a change can meet.
#[derive(Clone, Copy)]
enum Fault {
    Injected(InjectedFault),
    Other(Named),
}

/// A change with the evidence about it.
struct CheckedChange<'e> {
    number: usize,
    client: &'e ClientRecord,
    evidence: &'e Evidence,
    executed: Option<&'e LedgerChange>,
}

// === impl FaultCoverage ===

impl FaultCoverage {
    /// Counts nothing yet. The gateways meet these injected faults.
    pub fn new(injected: &[InjectedFault]) -> Self {
        let mut faults: Vec<InjectedFault> = Vec::new();
        for fault in injected {
            if !faults.contains(fault) {
                faults.push(*fault);
            }
        }
        let injected = faults.into_iter().map(Fault::Injected);
        let faults = injected.chain(OTHER_FAULTS.map(Fault::Other)).collect();
        Self { faults, met: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// Counts a run.
    pub fn add(&mut self, evidence: &Evidence) {
        for (number, client) in evidence.observations.client_records.iter().enumerate() {
            let change = CheckedChange {
                number,
                client,
                evidence,
                executed: executed_for(&client.planned_change, &evidence.ledger),
            };
            self.add_change(&change);
        }
        for after in evidence.account.clients.iter().flat_map(|client| resumed_after(client)) {
            self.count(&format!("{ACCOUNT_RESUMED} {after}"));
        }
        for result in evidence.observations.results.values().flatten() {
            self.count(match result.source() {
                Source::Reconciled => "results by a lookup",
                _ => "results by a callback",
            });
        }
    }

    fn add_change(&mut self, change: &CheckedChange<'_>) {
        for (number, fault) in self.faults.iter().enumerate() {
            for (guarantee, (_, is_checked)) in GUARANTEES.iter().enumerate() {
                if fault.was_met_by(change) && is_checked(change) {
                    *self.met.entry((number, guarantee)).or_default() += 1;
                }
            }
        }
        self.count(&format!("ended {}", change.client.state()));
        if change.client.has_been_in(ChangeState::OutcomeUnknown) {
            self.count("was OUTCOME_UNKNOWN");
            if change.executed.is_some() {
                self.count("was OUTCOME_UNKNOWN, executed");
            }
            let stored = change.client.change.as_ref();
            if stored.is_some_and(|change| !change.request_ids.is_empty()) {
                self.count("was OUTCOME_UNKNOWN, attributed");
            }
        }
        if change.client.planned_change.foreign_request.map(|request| request.overlap)
            == Some(Overlap::AllAndOne)
        {
            self.count("foreign requests with more devices");
        }
        let resumed = change.client.streams.iter();
        for _ in resumed.filter(|stream| !stream.from.is_empty()) {
            self.count("streams resumed");
        }
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Returns each injected fault that met no guarantee.
    pub fn unmet_injections(&self) -> Vec<&'static str> {
        let faults = self.faults.iter().enumerate();
        let unmet = faults.filter(|(number, fault)| {
            matches!(fault, Fault::Injected(_)) && !self.has_met_any(*number)
        });
        unmet.map(|(_, fault)| fault.name()).collect()
    }

    fn has_met_any(&self, fault: usize) -> bool {
        self.met.range((fault, 0)..(fault + 1, 0)).next().is_some()
    }

    /// Returns each fault that met no guarantee, and each guarantee that no fault met. With `every_cell`,
    /// also returns each pair that can meet and did not.
    pub fn holes(&self, every_cell: bool) -> Vec<String> {
        let resumed = RESUMED_AFTER.map(|after| format!("{ACCOUNT_RESUMED} {after}"));
        let mut holes: Vec<String> =
            resumed.into_iter().filter(|what| !self.counts.contains_key(what)).collect();
        let met = |fault, guarantee| self.met.contains_key(&(fault, guarantee));
        for (number, fault) in self.faults.iter().enumerate() {
            let fault_name = fault.name();
            if !self.has_met_any(number) {
                holes.push(fault_name.into());
            }
            for (guarantee, (guarantee_name, _)) in GUARANTEES.iter().enumerate() {
                let can = !CANNOT.contains(&(fault_name, guarantee_name));
                if every_cell && can && !met(number, guarantee) {
                    holes.push(format!("{fault_name} / {guarantee_name}"));
                }
            }
        }
        for (guarantee, (guarantee_name, _)) in GUARANTEES.iter().enumerate() {
            if !(0..self.faults.len()).any(|fault| met(fault, guarantee)) {
                holes.push((*guarantee_name).into());
            }
        }
        holes
    }
}

impl fmt::Display for FaultCoverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(out, "{count:>8}  {what}")?;
        }
        write!(out, "\n{:34}", "changes checked, by fault")?;
        for (name, _) in GUARANTEES {
            write!(out, "{name:>15}")?;
        }
        writeln!(out)?;
        for (fault, name) in self.faults.iter().map(Fault::name).enumerate() {
            write!(out, "{name:34}")?;
            for guarantee in 0..GUARANTEES.len() {
                let count = self.met.get(&(fault, guarantee)).copied().unwrap_or(0);
                write!(out, "{count:>15}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

// === impl Fault ===

impl Fault {
    fn name(&self) -> &'static str {
        match self {
            Self::Injected(fault) => fault.name(),
            Self::Other((name, _)) => name,
        }
    }

    fn was_met_by(&self, change: &CheckedChange<'_>) -> bool {
        match self {
            Self::Injected(fault) => change.overlaps_fault(*fault),
            Self::Other((_, was_met)) => was_met(change),
        }
    }
}

// === impl CheckedChange ===

impl CheckedChange<'_> {
    /// True if the change was in flight or watched during such a fault.
    fn overlaps_fault(&self, what: InjectedFault) -> bool {
        let intervals = self.evidence.fault_intervals.iter();
        let mut intervals = intervals.filter(|interval| interval.fault == what);
        intervals.any(|interval| {
            self.client.first_call.start <= interval.to && interval.from <= self.client.until
        })
    }

    fn cut(&self, cuts: &[ConnectionCut], place: CutPoint) -> bool {
        let mut own = cuts.iter().filter(|cut| cut.change_number == self.number);
        own.any(|cut| cut.point == place)
    }

    fn any_device(&self, is: impl Fn(&LedgerDevice) -> bool) -> bool {
        let devices = self.executed.iter().flat_map(|one| &one.device_results);
        devices.into_iter().any(is)
    }

    fn has_callback_message(&self, message: &str) -> bool {
        self.any_device(|device| device.attempts.iter().any(|attempt| attempt.message == message))
    }

    fn has_scenario(&self, range: std::ops::RangeInclusive<u8>) -> bool {
        let scenario = self.client.planned_change.scenario;
        scenario.is_some_and(|scenario| range.contains(&scenario))
    }

    fn has_lookup_result(&self) -> bool {
        let request = self.executed.map(|executed| &executed.request_id);
        let results = request.and_then(|id| self.evidence.observations.results.get(id));
        let mut results = results.into_iter().flatten();
        results.any(|result| result.source() == Source::Reconciled)
    }

    fn stream(&self, is: impl Fn(&Recording) -> bool) -> bool {
        self.client.streams.iter().any(is)
    }

    fn message(&self, is: impl Fn(&MessageKind) -> bool) -> bool {
        self.stream(|stream| stream.messages.iter().any(|message| is(&message.kind)))
    }

    fn events(&self) -> usize {
        self.client.streams.iter().map(count_events).sum()
    }
}

fn count_events(stream: &Recording) -> usize {
    let messages = stream.messages.iter();
    messages.filter(|message| matches!(message.kind, MessageKind::Event(_))).count()
}
