//! The ledger as it is answered, written out after the lock is free again.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{
    CallbackAttempt, CallbackCounts, DeviceChange, DeviceProgress, DeviceStatus, ExecutedChange,
    Ledger, LedgerEntry, NotExecutedEntry,
};
use crate::device_outcome::{CallbackFormat, CallbackTiming, InterimCallback};
use crate::json_body::OperationKind;

/// The ledger as it is answered.
#[derive(Serialize)]
pub(crate) struct LedgerReport {
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
    changes: Vec<ChangeReport>,
    not_executed: Vec<NotExecutedEntry>,
}

struct ChangeReport {
    change: Arc<ExecutedChange>,
    /// Executed changes of the same content: the same plan for the same devices.
    executed_count: usize,
    device_count: usize,
    devices: Option<ListedDevices>,
}

#[derive(Clone)]
struct ListedDevices(Arc<[DeviceChange]>);

impl Ledger {
    /// What the ledger says now: cheap, so that it can be written out later.
    pub(crate) fn report(&self, identifiers: bool, locked_users: usize) -> LedgerReport {
        let mut alike: HashMap<u64, usize> = HashMap::new();
        for entry in &self.entries {
            *alike.entry(entry.change.content_hash).or_default() += 1;
        }
        let line = |entry: LedgerEntry| ChangeReport {
            executed_count: alike.get(&entry.change.content_hash).copied().unwrap_or(1),
            device_count: entry.device_count,
            devices: entry.devices.filter(|_| identifiers).map(ListedDevices),
            change: entry.change,
        };
        let mut not_executed: Vec<_> = self.not_executed.iter().cloned().collect();
        if !identifiers {
            for one in &mut not_executed {
                one.first_device = None;
            }
        }
        LedgerReport {
            log_ins: self.logins,
            log_ins_refused: self.rejected_logins,
            locked_users,
            token_requests: self.token_requests,
            tokens_revoked: self.revocations,
            changes_accepted: self.accepted,
            changes_not_executed: self.not_executed_count,
            devices_pending: self.pending_devices,
            refused: self.rejections.clone(),
            changes: self.entries.iter().cloned().map(line).collect(),
            not_executed,
        }
    }
}

/// A number that equal requests share, in whatever order they name their devices.
pub(crate) fn content_hash(
    kind: OperationKind,
    service_plan: &str,
    subjects: &[DeviceChange],
) -> u64 {
    let mut numbers: Vec<u64> = subjects.iter().map(|one| one.record.number).collect();
    numbers.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (kind.name(), service_plan, numbers).hash(&mut hasher);
    hasher.finish()
}

impl Serialize for ChangeReport {
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
            callbacks: &'l CallbackCounts,
            #[serde(skip_serializing_if = "Option::is_none")]
            device_identifiers: Option<Identifiers<'l>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            device_results: Option<Results<'l>>,
        }
        Written {
            request_id: &self.change.request_id,
            account: &self.change.account,
            kind: self.change.operation.name(),
            service_plan: &self.change.service_plan,
            devices: self.device_count,
            received_at_ms: self.change.received_at_ms,
            answer: self.change.response_kind.ledger_name(),
            executed_count: self.executed_count,
            callbacks: &self.change.callbacks,
            device_identifiers: self.devices.as_ref().map(|devices| Identifiers(&devices.0)),
            device_results: self.devices.as_ref().map(|devices| Results(&devices.0)),
        }
        .serialize(serializer)
    }
}

struct Identifiers<'l>(&'l [DeviceChange]);

impl Serialize for Identifiers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|subject| &*subject.sent))
    }
}

struct Results<'l>(&'l [DeviceChange]);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(DeviceReport::from_device_change))
    }
}

/// What became of one device of a change.
#[derive(Serialize)]
struct DeviceReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<&'static str>,
    outcome: DeviceStatus,
    /// The code that its callback tells, once it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    /// Whether its final callback is never sent.
    lost: bool,
    /// Changes of this device that were executed, in all requests.
    executed_count: u64,
    tries: Vec<AttemptReport>,
}

#[derive(Serialize)]
struct AttemptReport {
    /// `final`, `warning`, `on_hold` or `malformed`.
    message: &'static str,
    callback_count: u8,
    answer: Option<u16>,
}

impl DeviceReport {
    fn from_device_change(subject: &DeviceChange) -> Self {
        let told = subject.progress();
        let DeviceProgress {
            status: outcome,
            attempts: tries,
        } = &*told;
        let fault = subject
            .planned_outcome
            .fault()
            .filter(|_| *outcome == DeviceStatus::Failed);
        Self {
            scenario: subject.scenario,
            outcome: *outcome,
            fault: fault.map(|fault| fault.code),
            lost: subject.planned_outcome.timing == CallbackTiming::Never,
            executed_count: subject.record.execution_count(),
            tries: tries
                .iter()
                .map(|one| attempt_report(subject, one))
                .collect(),
        }
    }
}

fn attempt_report(subject: &DeviceChange, one: &CallbackAttempt) -> AttemptReport {
    let message = match (
        one.is_interim,
        subject.planned_outcome.interim,
        subject.planned_outcome.format,
    ) {
        (true, Some(InterimCallback::OnHold), _) => "on_hold",
        (true, _, _) => "warning",
        (
            false,
            _,
            CallbackFormat::Truncated
            | CallbackFormat::NoOpeningBrace
            | CallbackFormat::NoRequestId,
        ) => "malformed",
        (false, _, _) => "final",
    };
    AttemptReport {
        message,
        callback_count: one.callback_count,
        answer: one.status_code,
    }
}

impl Serialize for DeviceStatus {
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
    use crate::device_outcome::DeviceOutcome;
    use crate::devices;
    use crate::identifiers::{DeviceId, DeviceIds};
    use crate::json_body::ChangeRequest;
    use crate::request_outcome::ResponseKind;

    fn accept(ledger: &mut Ledger, plan: &str, count: usize) {
        let device: DeviceIds = Arc::new([DeviceId {
            id: "89148000000800139708".into(),
            kind: "iccid".into(),
        }]);
        let record =
            devices::DeviceRegistry::default().find_or_create(OperationKind::FiveGBiPlan, &device);
        let asked = ChangeRequest {
            operation: OperationKind::FiveGBiPlan,
            account: None,
            service_plan: plan.into(),
            devices: Vec::new(),
        };
        let execution = Execution {
            account: "0000123456-00001".into(),
            service_plan: plan.into(),
            response_kind: ResponseKind::RequestId,
            received_at_ms: 0,
        };
        let subject = |_| {
            DeviceChange::new(
                device.clone(),
                Arc::clone(&record),
                DeviceOutcome::PLAIN,
                None,
            )
        };
        ledger.record_executed(&asked, execution, (0..count).map(subject).collect());
        ledger.finish_devices(count);
    }

    #[test]
    fn the_oldest_changes_lose_their_identifiers_first_and_stay_counted() {
        let mut ledger = Ledger::default();
        for _ in 0..30 {
            accept(&mut ledger, "plan", 10_000);
        }
        let page = ledger.report(true, 0);
        let lines = page.changes.iter();
        let listed: Vec<bool> = lines.map(|line| line.devices.is_some()).collect();
        assert_eq!(listed, [vec![false; 5], vec![true; 25]].concat());
        assert!(page.changes.iter().all(|line| line.device_count == 10_000));
    }

    #[test]
    fn equal_requests_are_counted_together() {
        let mut ledger = Ledger::default();
        for plan in ["one", "other", "one"] {
            accept(&mut ledger, plan, 1);
        }
        let page = ledger.report(false, 0);
        let counts: Vec<usize> = page
            .changes
            .iter()
            .map(|line| line.executed_count)
            .collect();
        assert_eq!(counts, [2, 1, 2]);
    }
}
