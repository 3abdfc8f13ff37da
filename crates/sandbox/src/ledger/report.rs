//! The ledger as JSON. `docs/sandbox.md` describes its members.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::device_outcome::{CallbackFormat, CallbackTiming, DeviceOutcome, InterimCallback};
use crate::ledger::entries::{
    CallbackAttempt, CallbackCounts, DeviceChange, DeviceStatus, ExecutedChange, NotExecutedEntry,
};

#[derive(Serialize)]
pub(crate) struct LedgerReport {
    pub(crate) log_ins: u64,
    pub(crate) log_ins_refused: u64,
    pub(crate) locked_users: usize,
    pub(crate) token_requests: u64,
    pub(crate) tokens_revoked: u64,
    pub(crate) changes_accepted: u64,
    pub(crate) changes_not_executed: u64,
    pub(crate) devices_pending: usize,
    pub(crate) refused: BTreeMap<&'static str, u64>,
    pub(crate) changes: Vec<ChangeReport>,
    pub(crate) not_executed: Vec<NotExecutedEntry>,
}

/// An executed change.
pub(crate) struct ChangeReport {
    pub(crate) change: Arc<ExecutedChange>,
    /// Number of executed changes with the same content.
    pub(crate) executed_count: usize,
    pub(crate) device_count: usize,
    pub(crate) devices: Option<ListedDevices>,
}

pub(crate) struct ListedDevices(pub(crate) Arc<[DeviceChange]>);

impl Serialize for ChangeReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Members<'l> {
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
        Members {
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
        serializer.collect_seq(self.0.iter().map(|device| &*device.sent))
    }
}

struct Results<'l>(&'l [DeviceChange]);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(DeviceReport::from_device_change))
    }
}

#[derive(Serialize)]
struct DeviceReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<&'static str>,
    outcome: DeviceStatus,
    /// Code of the fault, after the device has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    lost: bool,
    executed_count: u64,
    tries: Vec<AttemptReport>,
}

#[derive(Serialize)]
struct AttemptReport {
    message: &'static str,
    callback_count: u8,
    answer: Option<u16>,
}

impl DeviceReport {
    fn from_device_change(device: &DeviceChange) -> Self {
        let planned = &device.planned_outcome;
        let progress = device.progress();
        let has_failed = progress.status == DeviceStatus::Failed;
        let attempts = progress.attempts.iter();
        Self {
            scenario: device.scenario,
            outcome: progress.status,
            fault: planned
                .fault()
                .filter(|_| has_failed)
                .map(|fault| fault.code),
            lost: planned.timing == CallbackTiming::Never,
            executed_count: device.record.execution_count(),
            tries: attempts
                .map(|attempt| AttemptReport {
                    message: message_name(planned, attempt),
                    callback_count: attempt.callback_count,
                    answer: attempt.status_code,
                })
                .collect(),
        }
    }
}

fn message_name(planned: &DeviceOutcome, attempt: &CallbackAttempt) -> &'static str {
    match (attempt.is_interim, planned.interim, planned.format) {
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
    }
}
