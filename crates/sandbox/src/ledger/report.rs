//! The ledger as JSON. `docs/sandbox.md` describes its members.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Serialize;

use crate::{
    device_outcome::{CallbackFormat, CallbackTiming, DeviceOutcome, InterimCallback},
    identifiers::DeviceId,
    ledger::{
        entries::{CallbackAttempt, CallbackCounts, DeviceChange, DeviceStatus, NotExecutedEntry},
        store::{Ledger, LedgerEntry},
    },
    request_outcome::ResponseKind,
};

#[derive(Serialize)]
pub(crate) struct LedgerReport<'l> {
    log_ins: u64,
    log_ins_refused: u64,
    locked_users: usize,
    token_requests: u64,
    tokens_revoked: u64,
    changes_accepted: u64,
    changes_not_executed: u64,
    devices_pending: usize,
    refused: &'l BTreeMap<&'static str, u64>,
    pub(crate) changes: Vec<ChangeReport<'l>>,
    not_executed: VecDeque<NotExecutedEntry>,
}

/// An executed change.
#[derive(Serialize)]
pub(crate) struct ChangeReport<'l> {
    request_id: &'l str,
    account: &'l str,
    kind: &'static str,
    service_plan: &'l str,
    pub(crate) devices: usize,
    received_at_ms: u64,
    answer: ResponseKind,
    /// Number of executed changes with the same content.
    pub(crate) executed_count: usize,
    callbacks: &'l CallbackCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_identifiers: Option<Vec<&'l [DeviceId]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_results: Option<Vec<DeviceReport>>,
}

impl<'l> LedgerReport<'l> {
    /// Builds a report, optionally without the identifiers and results of devices.
    pub(crate) fn new(ledger: &'l Ledger, identifiers: bool, locked_users: usize) -> Self {
        let mut executed_counts: HashMap<u64, usize> = HashMap::new();
        for entry in &ledger.entries {
            let count = executed_counts.entry(entry.change.content_hash);
            *count.or_default() += 1;
        }
        let change_report = |entry: &'l LedgerEntry| {
            let change = &*entry.change;
            let executed_count = executed_counts.get(&change.content_hash);
            let devices = entry.devices.as_ref().filter(|_| identifiers);
            ChangeReport {
                request_id: &change.request_id,
                account: &change.account,
                kind: change.operation.name,
                service_plan: &change.service_plan,
                devices: entry.device_count,
                received_at_ms: change.received_at_ms,
                answer: change.response_kind,
                executed_count: executed_count.copied().unwrap_or(1),
                callbacks: &change.callbacks,
                device_identifiers: devices
                    .map(|devices| devices.iter().map(|device| &*device.sent).collect()),
                device_results: devices
                    .map(|devices| devices.iter().map(DeviceReport::from_device_change).collect()),
            }
        };
        let mut not_executed = ledger.not_executed.clone();
        if !identifiers {
            for entry in &mut not_executed {
                entry.first_device = None;
            }
        }
        Self {
            log_ins: ledger.logins,
            log_ins_refused: ledger.rejected_logins,
            locked_users,
            token_requests: ledger.token_requests,
            tokens_revoked: ledger.revocations,
            changes_accepted: ledger.accepted,
            changes_not_executed: ledger.not_executed_count,
            devices_pending: ledger.pending_devices,
            refused: &ledger.rejections,
            changes: ledger.entries.iter().map(change_report).collect(),
            not_executed,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct DeviceReport {
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
            fault: planned.fault().filter(|_| has_failed).map(|fault| fault.code),
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
