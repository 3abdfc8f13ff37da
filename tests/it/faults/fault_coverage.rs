//! Which fault met which guarantee, and how often: what a green run is worth.

use std::{collections::BTreeMap, fmt};

use thingspace_gateway::proto::Source;

use super::{
    fault_injector::InjectedFault,
    judge::{ClientRecord, Evidence, executed_for},
    ledger::{LedgerChange, LedgerDevice},
    planned_changes::Overlap,
    proxy::{ConnectionCut, CutPoint},
};
use crate::guarantees::{MessageKind, Recording};

/// A name, and how one tells that a change has it.
type Named = (&'static str, fn(&JudgedChange<'_>) -> bool);

/// The guarantees, each with what makes a change something to judge it by.
const GUARANTEES: [Named; 11] = [
    ("never twice", |_| true),
    ("never lost", |met| {
        met.any_device(LedgerDevice::is_acknowledged)
    }),
    ("never locked", |met| met.client.change.is_some()),
    ("true state", |met| met.client.change.is_some()),
    ("Ordered", |met| met.events() > 1),
    ("Unique", |met| met.events() > 1),
    ("Gap-free", |met| {
        met.stream(|stream| count_events(stream) > 1)
    }),
    ("Resumable", |met| {
        met.stream(|stream| !stream.from.is_empty() && count_events(stream) > 0)
    }),
    ("Bookmarkable", |met| {
        met.message(|what| matches!(what, MessageKind::Bookmark))
    }),
    ("Terminal-once", |met| {
        met.message(|what| matches!(what, MessageKind::Finished { .. }))
    }),
    ("never stuck", |met| !met.client.streams.is_empty()),
];

/// The faults, each with how one tells that it met a change.
const FAULTS: [Named; 30] = [
    ("kill -9", |met| met.overlaps_fault(InjectedFault::Killed)),
    ("log-in refused", |met| {
        met.overlaps_fault(InjectedFault::LoginRefused)
    }),
    ("token revoked", |met| {
        met.overlaps_fault(InjectedFault::TokenRevoked)
    }),
    ("disk full", |met| {
        met.overlaps_fault(InjectedFault::DiskFull)
    }),
    ("called twice at once", |met| {
        met.client.planned_change.is_sent_twice
    }),
    ("deadline passed", |met| {
        met.client.first_call.deadline_passed
    }),
    ("call cancelled", |met| met.client.first_call.cancelled),
    ("watch left and resumed", |met| {
        met.client.planned_change.disconnect_after.is_some() && met.client.streams.len() > 1
    }),
    ("cut before the POST", |met| {
        met.cut(&met.evidence.cuts, CutPoint::Before)
    }),
    ("cut within the POST", |met| {
        met.cut(&met.evidence.cuts, CutPoint::Within)
    }),
    ("cut before or within the answer", |met| {
        met.cut(&met.evidence.cuts, CutPoint::Response)
    }),
    ("callback cut", |met| {
        let cuts = &met.evidence.callback_cuts;
        cuts.iter().any(|cut| cut.change_number == met.number)
    }),
    ("callback not answered or refused", |met| {
        met.any_device(|became| became.tries.iter().any(|one| one.answer != Some(200)))
    }),
    ("callback again after its 200", |met| {
        met.any_device(|became| {
            let acknowledged = became
                .tries
                .iter()
                .filter(|one| one.is_acknowledged_final());
            acknowledged.count() > 1
        })
    }),
    ("callback lost", |met| met.any_device(|became| became.lost)),
    ("callback malformed", |met| {
        met.has_callback_message("malformed")
    }),
    ("callback late", |met| met.has_scenario(34..=34)),
    ("callback early", |met| met.has_scenario(35..=35)),
    ("callbacks reversed", |met| met.has_scenario(36..=36)),
    ("warning first", |met| met.has_callback_message("warning")),
    ("on hold first", |met| met.has_callback_message("on_hold")),
    ("odd callback", |met| met.has_scenario(54..=59)),
    ("device failed", |met| {
        met.any_device(|became| became.outcome == "failed")
    }),
    ("found by a look-up", |met| met.has_lookup_result()),
    ("answered slowly", |met| met.has_scenario(61..=61)),
    ("executed, answer lost or odd", |met| {
        met.has_scenario(62..=67)
    }),
    ("not executed, answer odd", |met| met.has_scenario(71..=73)),
    ("token or session refused", |met| met.has_scenario(81..=86)),
    ("throttled", |met| met.has_scenario(87..=88)),
    ("a stranger's request", |met| {
        met.client.planned_change.foreign_request.is_some()
    }),
];

/// What cannot meet: of a change that ThingSpace does not execute no callback comes.
const CANNOT: [(&str, &str); 3] = [
    ("cut before the POST", "never lost"),
    ("cut within the POST", "never lost"),
    ("not executed, answer odd", "never lost"),
];

/// How often each fault met each guarantee, and how changes ended.
#[derive(Default)]
pub struct FaultCoverage {
    met: BTreeMap<(usize, usize), usize>,
    pub counts: BTreeMap<String, usize>,
}

/// A change, and what happened to it.
struct JudgedChange<'e> {
    number: usize,
    client: &'e ClientRecord,
    evidence: &'e Evidence,
    executed: Option<&'e LedgerChange>,
}

// === impl Coverage ===

impl FaultCoverage {
    /// Counts a run.
    pub fn add(&mut self, evidence: &Evidence) {
        for (number, told) in evidence.client_records.iter().enumerate() {
            let met = JudgedChange {
                number,
                client: told,
                evidence,
                executed: executed_for(&told.planned_change, &evidence.ledger),
            };
            self.add_change(&met);
        }
        for result in evidence.results.values().flatten() {
            self.count(match result.source() {
                Source::Reconciled => "results by a look-up",
                _ => "results by a callback",
            });
        }
    }

    fn add_change(&mut self, met: &JudgedChange<'_>) {
        for (fault, (_, happened)) in FAULTS.iter().enumerate() {
            for (guarantee, (_, is_judged)) in GUARANTEES.iter().enumerate() {
                if happened(met) && is_judged(met) {
                    *self.met.entry((fault, guarantee)).or_default() += 1;
                }
            }
        }
        self.count(&format!("ended {}", met.client.state()));
        if met.client.has_been_in("OutcomeUnknown") {
            self.count("was OUTCOME_UNKNOWN");
            if met.executed.is_some() {
                self.count("was OUTCOME_UNKNOWN, executed");
            }
            let change = met.client.change.as_ref();
            if change.is_some_and(|change| !change.request_ids.is_empty()) {
                self.count("was OUTCOME_UNKNOWN, attributed");
            }
        }
        if met
            .client
            .planned_change
            .foreign_request
            .map(|(_, overlap)| overlap)
            == Some(Overlap::AllAndOne)
        {
            self.count("strangers with more devices");
        }
        let resumed = met.client.streams.iter();
        for _ in resumed.filter(|stream| !stream.from.is_empty()) {
            self.count("streams resumed");
        }
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Each fault that met no guarantee, and each guarantee that no fault met; with `every_cell`, also each
    /// pair that can meet and did not. Few runs do not meet everything.
    pub fn holes(&self, every_cell: bool) -> Vec<String> {
        let mut holes = Vec::new();
        let met = |fault, guarantee| self.met.contains_key(&(fault, guarantee));
        for (fault, (fault_name, _)) in FAULTS.iter().enumerate() {
            if !(0..GUARANTEES.len()).any(|guarantee| met(fault, guarantee)) {
                holes.push((*fault_name).into());
            }
            for (guarantee, (guarantee_name, _)) in GUARANTEES.iter().enumerate() {
                let can = !CANNOT.contains(&(fault_name, guarantee_name));
                if every_cell && can && !met(fault, guarantee) {
                    holes.push(format!("{fault_name} / {guarantee_name}"));
                }
            }
        }
        for (guarantee, (guarantee_name, _)) in GUARANTEES.iter().enumerate() {
            if !(0..FAULTS.len()).any(|fault| met(fault, guarantee)) {
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
        write!(out, "\n{:34}", "changes judged, by fault")?;
        for (name, _) in GUARANTEES {
            write!(out, "{name:>15}")?;
        }
        writeln!(out)?;
        for (fault, (name, _)) in FAULTS.iter().enumerate() {
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

// === impl Met ===

impl JudgedChange<'_> {
    /// Whether it was under way when that happened.
    fn overlaps_fault(&self, what: InjectedFault) -> bool {
        let happened = self.evidence.fault_intervals.iter();
        let mut happened = happened.filter(|befallen| befallen.fault == what);
        happened.any(|one| self.client.first_call.began <= one.to && one.from <= self.client.until)
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
        self.any_device(|became| became.tries.iter().any(|one| one.message == message))
    }

    fn has_scenario(&self, range: std::ops::RangeInclusive<u8>) -> bool {
        let asked = self.client.planned_change.scenario;
        asked.is_some_and(|situation| range.contains(&situation))
    }

    fn has_lookup_result(&self) -> bool {
        let request = self.executed.map(|executed| &executed.request_id);
        let results = request.and_then(|id| self.evidence.results.get(id));
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
    messages
        .filter(|message| matches!(message.kind, MessageKind::Event(_)))
        .count()
}
