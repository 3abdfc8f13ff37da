//! The ledger of executed changes. It contains no names, addresses or credentials.

pub(crate) mod entries;
pub(crate) mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::Serialize;

use crate::ledger::entries::{DeviceChange, ExecutedChange, NotExecutedEntry};

/// Maximum number of stored changes. Older ones are only counted.
const MAX_CHANGES: usize = 10_000;
/// Maximum number of devices whose identifiers and results are stored. The oldest changes lose
/// theirs first.
const MAX_LISTED_DEVICES: usize = 250_000;
/// Maximum number of stored changes that were not executed. Older ones are only counted.
const MAX_NOT_EXECUTED: usize = 10_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) counts: LedgerCounts,
    entries: VecDeque<LedgerEntry>,
    /// Number of devices whose identifiers and results are stored.
    listed_devices: usize,
    not_executed: VecDeque<NotExecutedEntry>,
}

/// The counts of a ledger. `docs/sandbox.md` describes them.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LedgerCounts {
    pub(crate) log_ins: u64,
    pub(crate) log_ins_refused: u64,
    /// Set when the ledger is reported.
    pub(crate) locked_users: usize,
    pub(crate) token_requests: u64,
    pub(crate) tokens_revoked: u64,
    changes_accepted: u64,
    changes_not_executed: u64,
    pub(crate) devices_pending: usize,
    /// Number of error responses, by reason.
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct LedgerEntry {
    pub(crate) change: Arc<ExecutedChange>,
    /// `None` after eviction.
    pub(crate) devices: Option<Arc<[DeviceChange]>>,
}

impl Ledger {
    /// Records a change. From then on it is executed.
    pub(crate) fn record_executed(
        &mut self,
        change: Arc<ExecutedChange>,
        devices: Arc<[DeviceChange]>,
    ) {
        self.counts.changes_accepted += 1;
        self.counts.devices_pending += change.devices;
        self.listed_devices += change.devices;
        self.entries.push_back(LedgerEntry { change, devices: Some(devices) });
        if self.entries.len() > MAX_CHANGES
            && let Some(oldest) = self.entries.pop_front()
            && oldest.devices.is_some()
        {
            self.listed_devices -= oldest.change.devices;
        }
        for entry in &mut self.entries {
            if self.listed_devices <= MAX_LISTED_DEVICES {
                break;
            }
            if entry.devices.take().is_some() {
                self.listed_devices -= entry.change.devices;
            }
        }
    }

    pub(crate) fn record_not_executed(&mut self, entry: NotExecutedEntry) {
        self.counts.changes_not_executed += 1;
        if self.not_executed.len() >= MAX_NOT_EXECUTED {
            self.not_executed.pop_front();
        }
        self.not_executed.push_back(entry);
    }

    pub(crate) fn find_change(&self, request_id: &str) -> Option<LedgerEntry> {
        let mut newest_first = self.entries.iter().rev();
        newest_first.find(|entry| entry.change.request_id == request_id).cloned()
    }
}
