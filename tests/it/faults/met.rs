//! Which fault met which guarantee, and how often: what a green run is worth.

use std::{collections::BTreeMap, fmt};

use thingspace_gateway::proto::Source;

use super::{
    judge::{Evidence, Told, executed_for},
    ledger::{Became, Executed},
    orders::Overlap,
    proxy::{Cut, Place},
    troubles::Trouble,
};
use crate::guarantees::{Recording, What};

/// A name, and how one tells that a change has it.
type Named = (&'static str, fn(&Met<'_>) -> bool);

/// The guarantees, each with what makes a change something to judge it by.
const GUARANTEES: [Named; 11] = [
    ("never twice", |_| true),
    ("never lost", |met| met.became(Became::acknowledged)),
    ("never locked", |met| met.told.change.is_some()),
    ("true state", |met| met.told.change.is_some()),
    ("Ordered", |met| met.events() > 1),
    ("Unique", |met| met.events() > 1),
    ("Gap-free", |met| met.stream(|stream| events(stream) > 1)),
    ("Resumable", |met| {
        met.stream(|stream| !stream.from.is_empty() && events(stream) > 0)
    }),
    ("Bookmarkable", |met| {
        met.message(|what| matches!(what, What::Bookmark))
    }),
    ("Terminal-once", |met| {
        met.message(|what| matches!(what, What::Finished { .. }))
    }),
    ("never stuck", |met| !met.told.streams.is_empty()),
];

/// The faults, each with how one tells that it met a change.
const FAULTS: [Named; 30] = [
    ("kill -9", |met| met.befell(Trouble::Killed)),
    ("log-in refused", |met| met.befell(Trouble::LogInRefused)),
    ("token revoked", |met| met.befell(Trouble::TokenRevoked)),
    ("disk full", |met| met.befell(Trouble::DiskFull)),
    ("called twice at once", |met| met.told.order.doubled),
    ("deadline passed", |met| met.told.asked.deadline_passed),
    ("call cancelled", |met| met.told.asked.cancelled),
    ("watch left and resumed", |met| {
        met.told.order.leaves_after.is_some() && met.told.streams.len() > 1
    }),
    ("cut before the POST", |met| {
        met.cut(&met.evidence.cuts, Place::Before)
    }),
    ("cut within the POST", |met| {
        met.cut(&met.evidence.cuts, Place::Within)
    }),
    ("cut before or within the answer", |met| {
        met.cut(&met.evidence.cuts, Place::Answer)
    }),
    ("callback cut", |met| {
        let cuts = &met.evidence.callback_cuts;
        cuts.iter().any(|cut| cut.order == met.number)
    }),
    ("callback not answered or refused", |met| {
        met.became(|became| became.tries.iter().any(|one| one.answer != Some(200)))
    }),
    ("callback again after its 200", |met| {
        met.became(|became| {
            let acknowledged = became.tries.iter().filter(|one| one.acknowledged_end());
            acknowledged.count() > 1
        })
    }),
    ("callback lost", |met| met.became(|became| became.lost)),
    ("callback malformed", |met| met.message_sent("malformed")),
    ("callback late", |met| met.situation(34..=34)),
    ("callback early", |met| met.situation(35..=35)),
    ("callbacks reversed", |met| met.situation(36..=36)),
    ("warning first", |met| met.message_sent("warning")),
    ("on hold first", |met| met.message_sent("on_hold")),
    ("odd callback", |met| met.situation(54..=59)),
    ("device failed", |met| {
        met.became(|became| became.outcome == "failed")
    }),
    ("found by a look-up", |met| met.looked_up()),
    ("answered slowly", |met| met.situation(61..=61)),
    ("executed, answer lost or odd", |met| met.situation(62..=67)),
    ("not executed, answer odd", |met| met.situation(71..=73)),
    ("token or session refused", |met| met.situation(81..=86)),
    ("throttled", |met| met.situation(87..=88)),
    ("a stranger's request", |met| {
        met.told.order.stranger.is_some()
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
pub struct Coverage {
    met: BTreeMap<(usize, usize), usize>,
    pub counts: BTreeMap<String, usize>,
}

/// A change, and what happened to it.
struct Met<'e> {
    number: usize,
    told: &'e Told,
    evidence: &'e Evidence,
    executed: Option<&'e Executed>,
}

// === impl Coverage ===

impl Coverage {
    /// Counts a run.
    pub fn add(&mut self, evidence: &Evidence) {
        for (number, told) in evidence.told.iter().enumerate() {
            let met = Met {
                number,
                told,
                evidence,
                executed: executed_for(&told.order, &evidence.ledger),
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

    fn add_change(&mut self, met: &Met<'_>) {
        for (fault, (_, happened)) in FAULTS.iter().enumerate() {
            for (guarantee, (_, is_judged)) in GUARANTEES.iter().enumerate() {
                if happened(met) && is_judged(met) {
                    *self.met.entry((fault, guarantee)).or_default() += 1;
                }
            }
        }
        self.count(&format!("ended {}", met.told.state()));
        if met.told.passed_through("OutcomeUnknown") {
            self.count("was OUTCOME_UNKNOWN");
            if met.executed.is_some() {
                self.count("was OUTCOME_UNKNOWN, executed");
            }
            let change = met.told.change.as_ref();
            if change.is_some_and(|change| !change.request_ids.is_empty()) {
                self.count("was OUTCOME_UNKNOWN, attributed");
            }
        }
        if met.told.order.stranger.map(|(_, overlap)| overlap) == Some(Overlap::AllAndOne) {
            self.count("strangers with more devices");
        }
        let resumed = met.told.streams.iter();
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

impl fmt::Display for Coverage {
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

impl Met<'_> {
    /// Whether it was under way when that happened.
    fn befell(&self, what: Trouble) -> bool {
        let happened = self.evidence.befallen.iter();
        let mut happened = happened.filter(|befallen| befallen.what == what);
        happened.any(|one| self.told.asked.began <= one.to && one.from <= self.told.until)
    }

    fn cut(&self, cuts: &[Cut], place: Place) -> bool {
        let mut own = cuts.iter().filter(|cut| cut.order == self.number);
        own.any(|cut| cut.place == place)
    }

    fn became(&self, is: impl Fn(&Became) -> bool) -> bool {
        let devices = self.executed.iter().flat_map(|one| &one.device_results);
        devices.into_iter().any(is)
    }

    fn message_sent(&self, message: &str) -> bool {
        self.became(|became| became.tries.iter().any(|one| one.message == message))
    }

    fn situation(&self, range: std::ops::RangeInclusive<u8>) -> bool {
        let asked = self.told.order.situation;
        asked.is_some_and(|situation| range.contains(&situation))
    }

    fn looked_up(&self) -> bool {
        let request = self.executed.map(|executed| &executed.request_id);
        let results = request.and_then(|id| self.evidence.results.get(id));
        let mut results = results.into_iter().flatten();
        results.any(|result| result.source() == Source::Reconciled)
    }

    fn stream(&self, is: impl Fn(&Recording) -> bool) -> bool {
        self.told.streams.iter().any(is)
    }

    fn message(&self, is: impl Fn(&What) -> bool) -> bool {
        self.stream(|stream| stream.messages.iter().any(|message| is(&message.what)))
    }

    fn events(&self) -> usize {
        self.told.streams.iter().map(events).sum()
    }
}

fn events(stream: &Recording) -> usize {
    let messages = stream.messages.iter();
    messages
        .filter(|message| matches!(message.what, What::Event(_)))
        .count()
}
