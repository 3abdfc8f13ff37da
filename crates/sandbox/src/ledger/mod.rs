//! The ledger: what was executed. It holds no names and no addresses.

mod report;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::device_outcome::DeviceOutcome;
use crate::devices::DeviceRecord;
use crate::errors::ErrorResponse;
use crate::identifiers::DeviceIds;
use crate::json_body::{ChangeRequest, OperationKind};
use crate::request_outcome::ResponseKind;

pub(crate) use report::LedgerReport;

/// Changes that are kept; older ones are only counted.
const MAX_CHANGES: usize = 10_000;
/// Devices whose identifiers are kept, over all changes; the oldest changes lose
/// theirs first.
const MAX_LISTED_DEVICES: usize = 250_000;
/// Devices whose callbacks may be outstanding.
const MAX_PENDING: usize = 500_000;
/// Changes that were not executed and are kept; older ones are only counted.
const MAX_REFUSED: usize = 10_000;

/// What was executed since the sandbox started.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accepted: u64,
    logins: u64,
    rejected_logins: u64,
    token_requests: u64,
    revocations: u64,
    entries: VecDeque<LedgerEntry>,
    listed_devices: usize,
    pending_devices: usize,
    rejections: BTreeMap<&'static str, u64>,
    not_executed: VecDeque<NotExecutedEntry>,
    not_executed_count: u64,
}

/// One executed change.
#[derive(Debug)]
pub(crate) struct ExecutedChange {
    pub(crate) request_id: String,
    pub(crate) account: Arc<str>,
    pub(crate) operation: OperationKind,
    pub(crate) service_plan: Arc<str>,
    pub(crate) received_at_ms: u64,
    pub(crate) response_kind: ResponseKind,
    /// Tells equal requests from others.
    content_hash: u64,
    pub(crate) callbacks: CallbackCounts,
}

/// One device of an executed change.
#[derive(Debug)]
pub(crate) struct DeviceChange {
    pub(crate) sent: DeviceIds,
    pub(crate) record: Arc<DeviceRecord>,
    pub(crate) planned_outcome: DeviceOutcome,
    /// The scenario that its identifiers ask for, about it or its request.
    pub(crate) scenario: Option<&'static str>,
    progress: Mutex<DeviceProgress>,
}

/// What became of a device, and who was told.
#[derive(Debug, Default)]
pub(crate) struct DeviceProgress {
    pub(crate) status: DeviceStatus,
    pub(crate) attempts: Vec<CallbackAttempt>,
}

/// What became of a device's change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DeviceStatus {
    #[default]
    Pending,
    Succeeded,
    Failed,
}

/// One POST of a callback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallbackAttempt {
    pub(crate) is_interim: bool,
    pub(crate) callback_count: u8,
    /// The listener's status; None while there is none, or when none came.
    pub(crate) status_code: Option<u16>,
}

/// A change that was understood and not executed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NotExecutedEntry {
    pub(crate) received_at_ms: u64,
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) account: Option<String>,
    pub(crate) service_plan: String,
    pub(crate) devices: usize,
    #[serde(serialize_with = "identifiers")]
    pub(crate) first_device: Option<DeviceIds>,
}

/// Counts about the callbacks of one change.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CallbackCounts {
    /// POSTs, duplicates and resends included.
    #[serde(serialize_with = "count")]
    pub(crate) sent: AtomicU64,
    /// Devices whose final callback was answered with 2xx.
    #[serde(serialize_with = "count")]
    pub(crate) acknowledged: AtomicU64,
    /// POSTs that were sent a second time on purpose.
    #[serde(serialize_with = "count")]
    pub(crate) duplicates: AtomicU64,
    /// Devices whose change failed.
    #[serde(serialize_with = "count")]
    pub(crate) failed_devices: AtomicU64,
    /// Devices whose callback was never acknowledged.
    #[serde(serialize_with = "count")]
    pub(crate) gave_up: AtomicU64,
    /// Devices whose callback had nowhere to go.
    #[serde(serialize_with = "count")]
    pub(crate) no_listener: AtomicU64,
    /// Devices whose callback was lost on purpose.
    #[serde(serialize_with = "count")]
    pub(crate) lost: AtomicU64,
}

/// Adds one to a count.
pub(crate) fn increment(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn count<S: Serializer>(count: &AtomicU64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(count.load(Ordering::Relaxed))
}

fn identifiers<S: Serializer>(
    device: &Option<DeviceIds>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    device.as_deref().serialize(serializer)
}

#[derive(Clone, Debug)]
struct LedgerEntry {
    change: Arc<ExecutedChange>,
    device_count: usize,
    /// None once they had to give way to newer ones.
    devices: Option<Arc<[DeviceChange]>>,
}

/// An executed change, and its devices while they are kept.
pub(crate) type ChangeWithDevices = (Arc<ExecutedChange>, Option<Arc<[DeviceChange]>>);

/// What a change is executed with, besides what was asked.
pub(crate) struct Execution {
    pub(crate) account: Arc<str>,
    pub(crate) service_plan: Arc<str>,
    pub(crate) response_kind: ResponseKind,
    pub(crate) received_at_ms: u64,
}

impl DeviceChange {
    pub(crate) fn new(
        sent: DeviceIds,
        record: Arc<DeviceRecord>,
        fate: DeviceOutcome,
        scenario: Option<&'static str>,
    ) -> Self {
        Self {
            sent,
            record,
            planned_outcome: fate,
            scenario,
            progress: Mutex::default(),
        }
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, DeviceProgress> {
        // Plain data, good to go on with after a panic elsewhere.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a POST down before it leaves; the place for its answer.
    pub(crate) fn start_attempt(&self, interim: bool, callback_count: u32) -> usize {
        let mut told = self.progress();
        told.attempts.push(CallbackAttempt {
            is_interim: interim,
            callback_count: u8::try_from(callback_count).unwrap_or(u8::MAX),
            status_code: None,
        });
        told.attempts.len() - 1
    }

    pub(crate) fn finish_attempt(&self, place: usize, answer: u16) {
        if let Some(one) = self.progress().attempts.get_mut(place) {
            one.status_code = Some(answer);
        }
    }
}

impl Ledger {
    /// Whether so many devices more may be outstanding.
    pub(crate) fn check_capacity(&self, devices: usize) -> Result<(), ErrorResponse> {
        if self.pending_devices + devices > MAX_PENDING {
            return Err(ErrorResponse::throttled());
        }
        Ok(())
    }

    /// Writes a change down, which is its execution.
    pub(crate) fn record_executed(
        &mut self,
        request: &ChangeRequest,
        execution: Execution,
        devices: Arc<[DeviceChange]>,
    ) -> Arc<ExecutedChange> {
        let count = devices.len();
        let change = Arc::new(ExecutedChange {
            // Not the seed's: ThingSpace never gives one twice, and a gateway may keep its
            // journal longer than this runs.
            request_id: Uuid::new_v4().to_string(),
            account: execution.account,
            operation: request.operation,
            service_plan: execution.service_plan,
            received_at_ms: execution.received_at_ms,
            response_kind: execution.response_kind,
            content_hash: report::content_hash(request.operation, &request.service_plan, &devices),
            callbacks: CallbackCounts::default(),
        });
        self.accepted += 1;
        self.pending_devices += count;
        self.listed_devices += count;
        self.entries.push_back(LedgerEntry {
            change: Arc::clone(&change),
            device_count: count,
            devices: Some(devices),
        });
        self.evict_oldest();
        change
    }

    /// A change's callbacks are done with.
    pub(crate) fn finish_devices(&mut self, devices: usize) {
        self.pending_devices = self.pending_devices.saturating_sub(devices);
    }

    pub(crate) fn count_login(&mut self, refused: bool) {
        self.logins += u64::from(!refused);
        self.rejected_logins += u64::from(refused);
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

    /// Writes down that a change was not executed.
    pub(crate) fn record_not_executed(&mut self, one: NotExecutedEntry) {
        self.not_executed_count += 1;
        if self.not_executed.len() >= MAX_REFUSED {
            self.not_executed.pop_front();
        }
        self.not_executed.push_back(one);
    }

    /// An executed change by its request id.
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
