//! The ledger as JSON. `docs/sandbox.md` describes its members.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

use crate::{
    identifiers::DeviceId,
    ledger::{
        Ledger, LedgerCounts, LedgerEntry,
        entries::{CallbackAttempt, DeviceChange, DeviceStatus, ExecutedChange, NotExecutedEntry},
    },
    outcome::CallbackTiming,
};

#[derive(Serialize)]
pub(crate) struct LedgerReport<'l> {
    #[serde(flatten)]
    counts: &'l LedgerCounts,
    pub(crate) changes: Vec<ChangeReport<'l>>,
    not_executed: VecDeque<NotExecutedEntry>,
}

#[derive(Serialize)]
pub(crate) struct ChangeReport<'l> {
    kind: &'static str,
    #[serde(flatten)]
    pub(crate) change: &'l ExecutedChange,
    /// Number of executed changes with the same content.
    #[serde(rename = "executed_count")]
    pub(crate) same_content_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_identifiers: Option<Vec<&'l [DeviceId]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_results: Option<Vec<DeviceReport>>,
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
    /// Number of executed changes of the device, in all requests.
    #[serde(rename = "executed_count")]
    execution_count: u64,
    #[serde(rename = "tries")]
    attempts: Vec<CallbackAttempt>,
}

impl<'l> LedgerReport<'l> {
    /// Builds a report, optionally without the identifiers and results of devices.
    pub(crate) fn new(ledger: &'l Ledger, include_devices: bool) -> Self {
        let mut same_content_counts: HashMap<u64, usize> = HashMap::new();
        for entry in &ledger.entries {
            *same_content_counts.entry(entry.change.content_hash).or_default() += 1;
        }
        let change_report = |entry: &'l LedgerEntry| {
            let change = &*entry.change;
            let devices = if include_devices { entry.devices.as_ref() } else { None };
            ChangeReport {
                kind: change.operation.name,
                change,
                same_content_count: same_content_counts
                    .get(&change.content_hash)
                    .copied()
                    .unwrap_or(1),
                device_identifiers: devices
                    .map(|devices| devices.iter().map(|device| &*device.sent).collect()),
                device_results: devices.map(|devices| devices.iter().map(device_report).collect()),
            }
        };
        let mut not_executed = ledger.not_executed.clone();
        if !include_devices {
            for entry in &mut not_executed {
                entry.first_device = None;
            }
        }
        let changes = ledger.entries.iter().map(change_report).collect();
        Self { counts: &ledger.counts, changes, not_executed }
    }
}

fn device_report(device: &DeviceChange) -> DeviceReport {
    let planned = &device.planned_outcome;
    let progress = device.progress.lock();
    let fault = if progress.status == DeviceStatus::Failed { planned.fault } else { None };
    DeviceReport {
        scenario: device.scenario,
        outcome: progress.status,
        fault: fault.map(|fault| fault.code),
        lost: planned.timing == CallbackTiming::Never,
        execution_count: device.record.state.lock().execution_count,
        attempts: progress.attempts.clone(),
    }
}
