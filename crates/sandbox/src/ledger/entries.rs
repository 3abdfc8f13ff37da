//! The entries of the ledger: changes and their devices.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    devices::DeviceRecord,
    identifiers::DeviceIds,
    operations::operation::Operation,
    outcome::{DeviceOutcome, ResponseKind},
};

#[derive(Debug, Serialize)]
pub(crate) struct ExecutedChange {
    pub(crate) request_id: String,
    pub(crate) account: Arc<str>,
    #[serde(skip)]
    pub(crate) operation: &'static Operation,
    pub(crate) service_plan: Arc<str>,
    /// Number of devices.
    pub(crate) devices: usize,
    pub(crate) received_at_ms: u64,
    #[serde(rename = "answer")]
    pub(crate) response_kind: ResponseKind,
    /// See [`content_hash`].
    #[serde(skip)]
    pub(crate) content_hash: u64,
    pub(crate) callbacks: CallbackCounts,
}

/// One device of an executed change.
#[derive(Debug)]
pub(crate) struct DeviceChange {
    pub(crate) sent: DeviceIds,
    pub(crate) record: Arc<DeviceRecord>,
    pub(crate) planned_outcome: DeviceOutcome,
    /// The scenario that the identifiers select, for the device or for its request.
    pub(crate) scenario: Option<&'static str>,
    pub(crate) progress: Mutex<DeviceProgress>,
}

#[derive(Debug, Default)]
pub(crate) struct DeviceProgress {
    pub(crate) status: DeviceStatus,
    pub(crate) attempts: Vec<CallbackAttempt>,
}

/// Outcome of a device on the platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeviceStatus {
    #[default]
    Pending,
    Succeeded,
    Failed,
}

/// One request of a callback.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CallbackAttempt {
    /// `final`, `malformed`, or the kind of interim callback.
    pub(crate) message: &'static str,
    pub(crate) callback_count: u32,
    /// Status of the listener's response. `None` without a response.
    #[serde(rename = "answer")]
    pub(crate) response_status: Option<u16>,
}

/// A valid change that was not executed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NotExecutedEntry {
    pub(crate) received_at_ms: u64,
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) account: Option<String>,
    pub(crate) service_plan: String,
    pub(crate) devices: usize,
    pub(crate) first_device: Option<DeviceIds>,
}

/// Counts of a change's callbacks. `docs/sandbox.md` describes them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CallbackCounts {
    pub(crate) sent: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) failed_devices: AtomicU64,
    pub(crate) gave_up: AtomicU64,
    pub(crate) no_listener: AtomicU64,
    pub(crate) lost: AtomicU64,
}

pub(crate) fn increment(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Returns a number that requests of the same operation, plan and devices share, in any order of
/// the devices.
pub(crate) fn content_hash(
    operation: &Operation,
    service_plan: &str,
    devices: &[DeviceChange],
) -> u64 {
    let mut numbers: Vec<u64> = devices.iter().map(|device| device.record.number).collect();
    numbers.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (operation.name, service_plan, numbers).hash(&mut hasher);
    hasher.finish()
}
