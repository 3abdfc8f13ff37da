//! The ledger as it is answered, written out after the lock is free again.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Change, Entry, Ledger, NotExecuted, Outcome, Subject, Tally, Told, Try};
use crate::changes::ChangeKind;
use crate::fate::{Interim, Shape, When};

/// The ledger as it is answered.
#[derive(Serialize)]
pub(crate) struct Page {
    log_ins: u64,
    log_ins_refused: u64,
    locked_users: usize,
    token_requests: u64,
    tokens_revoked: u64,
    changes_accepted: u64,
    /// Changes that were understood and not executed.
    changes_not_executed: u64,
    devices_pending: usize,
    refused: BTreeMap<&'static str, u64>,
    changes: Vec<Line>,
    not_executed: Vec<NotExecuted>,
}

struct Line {
    change: Arc<Change>,
    /// Executed changes of the same content: the same plan for the same devices.
    executed_count: usize,
    count: usize,
    devices: Option<Devices>,
}

#[derive(Clone)]
struct Devices(Arc<[Subject]>);

impl Ledger {
    /// What the ledger says now: cheap, so that it can be written out later.
    pub(crate) fn page(&self, identifiers: bool, locked_users: usize) -> Page {
        let mut alike: HashMap<u64, usize> = HashMap::new();
        for entry in &self.entries {
            *alike.entry(entry.change.content).or_default() += 1;
        }
        let line = |entry: Entry| Line {
            executed_count: alike.get(&entry.change.content).copied().unwrap_or(1),
            count: entry.count,
            devices: entry.devices.filter(|_| identifiers).map(Devices),
            change: entry.change,
        };
        let mut not_executed: Vec<_> = self.not_executed.iter().cloned().collect();
        if !identifiers {
            for one in &mut not_executed {
                one.first_device = None;
            }
        }
        Page {
            log_ins: self.log_ins,
            log_ins_refused: self.log_ins_refused,
            locked_users,
            token_requests: self.token_requests,
            tokens_revoked: self.revocations,
            changes_accepted: self.accepted,
            changes_not_executed: self.not_executed_count,
            devices_pending: self.pending_devices,
            refused: self.refused.clone(),
            changes: self.entries.iter().cloned().map(line).collect(),
            not_executed,
        }
    }
}

/// A number that equal requests share, in whatever order they name their devices.
pub(super) fn content(kind: ChangeKind, service_plan: &str, subjects: &[Subject]) -> u64 {
    let mut numbers: Vec<u64> = subjects.iter().map(|one| one.record.number).collect();
    numbers.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (kind.name(), service_plan, numbers).hash(&mut hasher);
    hasher.finish()
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'l> {
            request_id: &'l str,
            account: &'l str,
            kind: &'static str,
            service_plan: &'l str,
            devices: usize,
            received_at_ms: u64,
            answer: &'static str,
            executed_count: usize,
            callbacks: &'l Tally,
            #[serde(skip_serializing_if = "Option::is_none")]
            device_identifiers: Option<Identifiers<'l>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            device_results: Option<Results<'l>>,
        }
        Written {
            request_id: &self.change.request_id,
            account: &self.change.account,
            kind: self.change.kind.name(),
            service_plan: &self.change.service_plan,
            devices: self.count,
            received_at_ms: self.change.received_at_ms,
            answer: self.change.reply.name(),
            executed_count: self.executed_count,
            callbacks: &self.change.callbacks,
            device_identifiers: self.devices.as_ref().map(|devices| Identifiers(&devices.0)),
            device_results: self.devices.as_ref().map(|devices| Results(&devices.0)),
        }
        .serialize(serializer)
    }
}

struct Identifiers<'l>(&'l [Subject]);

impl Serialize for Identifiers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|subject| &*subject.sent))
    }
}

struct Results<'l>(&'l [Subject]);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Became::of))
    }
}

/// What became of one device of a change.
#[derive(Serialize)]
struct Became {
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<&'static str>,
    outcome: Outcome,
    /// The code that its callback tells, once it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    /// Whether its final callback is never sent.
    lost: bool,
    /// Changes of this device that were executed, in all requests.
    executed_count: u64,
    tries: Vec<WrittenTry>,
}

#[derive(Serialize)]
struct WrittenTry {
    /// `final`, `warning`, `on_hold` or `malformed`.
    message: &'static str,
    callback_count: u8,
    answer: Option<u16>,
}

impl Became {
    fn of(subject: &Subject) -> Self {
        let told = subject.told();
        let Told { outcome, tries } = &*told;
        let fault = subject.fate.fault().filter(|_| *outcome == Outcome::Failed);
        Self {
            scenario: subject.scenario,
            outcome: *outcome,
            fault: fault.map(|fault| fault.code),
            lost: subject.fate.when == When::Never,
            executed_count: subject.record.executed(),
            tries: tries.iter().map(|one| written(subject, one)).collect(),
        }
    }
}

fn written(subject: &Subject, one: &Try) -> WrittenTry {
    let message = match (one.interim, subject.fate.first, subject.fate.shape) {
        (true, Some(Interim::OnHold), _) => "on_hold",
        (true, _, _) => "warning",
        (false, _, Shape::Cut | Shape::NoBrace | Shape::NoRequestId) => "malformed",
        (false, _, _) => "final",
    };
    WrittenTry {
        message,
        callback_count: one.callback_count,
        answer: one.answer,
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Execution;
    use super::*;
    use crate::changes::Asked;
    use crate::course::Reply;
    use crate::devices;
    use crate::fate::Fate;
    use crate::identifiers::{Device, DeviceId};

    fn accept(ledger: &mut Ledger, plan: &str, count: usize) {
        let device: Device = Arc::new([DeviceId {
            id: "89148000000800139708".into(),
            kind: "iccid".into(),
        }]);
        let record = devices::Devices::default().meet(ChangeKind::FiveGBi, &device);
        let asked = Asked {
            kind: ChangeKind::FiveGBi,
            account: None,
            service_plan: plan.into(),
            devices: Vec::new(),
        };
        let execution = Execution {
            account: "0000123456-00001".into(),
            service_plan: plan.into(),
            reply: Reply::RequestId,
            received_at_ms: 0,
        };
        let subject = |_| Subject::new(device.clone(), Arc::clone(&record), Fate::PLAIN, None);
        ledger.accept(&asked, execution, (0..count).map(subject).collect());
        ledger.settled(count);
    }

    #[test]
    fn the_oldest_changes_lose_their_identifiers_first_and_stay_counted() {
        let mut ledger = Ledger::default();
        for _ in 0..30 {
            accept(&mut ledger, "plan", 10_000);
        }
        let page = ledger.page(true, 0);
        let lines = page.changes.iter();
        let listed: Vec<bool> = lines.map(|line| line.devices.is_some()).collect();
        assert_eq!(listed, [vec![false; 5], vec![true; 25]].concat());
        assert!(page.changes.iter().all(|line| line.count == 10_000));
    }

    #[test]
    fn equal_requests_are_counted_together() {
        let mut ledger = Ledger::default();
        for plan in ["one", "other", "one"] {
            accept(&mut ledger, plan, 1);
        }
        let page = ledger.page(false, 0);
        let counts: Vec<usize> = page
            .changes
            .iter()
            .map(|line| line.executed_count)
            .collect();
        assert_eq!(counts, [2, 1, 2]);
    }
}
