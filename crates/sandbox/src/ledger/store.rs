//! Stores the entries of the ledger, within limits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    errors::ErrorResponse,
    ledger::entries::{DeviceChange, ExecutedChange, NotExecutedEntry},
};

/// Maximum number of stored changes. Older ones are only counted.
const MAX_CHANGES: usize = 10_000;
/// Maximum number of devices whose identifiers and results are stored. The oldest changes lose
/// theirs first.
const MAX_LISTED_DEVICES: usize = 250_000;
/// Maximum number of devices with outstanding callbacks.
const MAX_PENDING: usize = 500_000;
/// Maximum number of stored changes that were not executed. Older ones are only counted.
const MAX_NOT_EXECUTED: usize = 10_000;

/// The ledger since the start of the sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accepted: u64,
    pub(crate) logins: u64,
    pub(crate) rejected_logins: u64,
    pub(crate) token_requests: u64,
    pub(crate) revocations: u64,
    pub(crate) entries: VecDeque<LedgerEntry>,
    pub(crate) listed_devices: usize,
    pub(crate) pending_devices: usize,
    pub(crate) rejections: BTreeMap<&'static str, u64>,
    pub(crate) not_executed: VecDeque<NotExecutedEntry>,
    pub(crate) not_executed_count: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct LedgerEntry {
    pub(crate) change: Arc<ExecutedChange>,
    pub(crate) device_count: usize,
    /// `None` after eviction.
    pub(crate) devices: Option<Arc<[DeviceChange]>>,
}

/// An executed change, and its devices unless they were evicted.
pub(crate) type ChangeWithDevices = (Arc<ExecutedChange>, Option<Arc<[DeviceChange]>>);

impl Ledger {
    /// Rejects a request if too many devices have outstanding callbacks.
    pub(crate) fn check_capacity(&self, devices: usize) -> Result<(), ErrorResponse> {
        if self.pending_devices + devices > MAX_PENDING {
            return Err(ErrorResponse::throttled());
        }
        Ok(())
    }

    /// Records a change. From then on it is executed.
    pub(crate) fn record_executed(
        &mut self,
        change: Arc<ExecutedChange>,
        devices: Arc<[DeviceChange]>,
    ) {
        let device_count = devices.len();
        self.accepted += 1;
        self.pending_devices += device_count;
        self.listed_devices += device_count;
        self.entries.push_back(LedgerEntry { change, device_count, devices: Some(devices) });
        self.evict_oldest();
    }

    /// Records that all callbacks of some devices are done.
    pub(crate) fn finish_devices(&mut self, devices: usize) {
        self.pending_devices = self.pending_devices.saturating_sub(devices);
    }

    pub(crate) fn count_login(&mut self, rejected: bool) {
        self.logins += u64::from(!rejected);
        self.rejected_logins += u64::from(rejected);
    }

    pub(crate) fn count_token_request(&mut self) {
        self.token_requests += 1;
    }

    pub(crate) fn count_revocation(&mut self) {
        self.revocations += 1;
    }

    pub(crate) fn count_rejection(&mut self, reason: &'static str) {
        *self.rejections.entry(reason).or_default() += 1;
    }

    pub(crate) fn record_not_executed(&mut self, entry: NotExecutedEntry) {
        self.not_executed_count += 1;
        if self.not_executed.len() >= MAX_NOT_EXECUTED {
            self.not_executed.pop_front();
        }
        self.not_executed.push_back(entry);
    }

    /// Finds an executed change by its request ID.
    pub(crate) fn find_change(&self, request_id: &str) -> Option<ChangeWithDevices> {
        let mut newest_first = self.entries.iter().rev();
        let entry = newest_first.find(|entry| entry.change.request_id == request_id)?;
        Some((Arc::clone(&entry.change), entry.devices.clone()))
    }

    fn evict_oldest(&mut self) {
        if self.entries.len() > MAX_CHANGES
            && let Some(oldest) = self.entries.pop_front()
            && oldest.devices.is_some()
        {
            self.listed_devices -= oldest.device_count;
        }
        for entry in &mut self.entries {
            if self.listed_devices <= MAX_LISTED_DEVICES {
                break;
            }
            if entry.devices.take().is_some() {
                self.listed_devices -= entry.device_count;
            }
        }
    }
}

#[cfg(test)]
mod tests;
