//! The ledger: what was executed. It holds no names and no addresses.

mod page;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::changes::{Asked, ChangeKind};
use super::course::Reply;
use super::devices::Record;
use super::errors::Refusal;
use super::fate::Fate;
use super::identifiers::Device;

pub(super) use page::Page;

/// Changes that are kept; older ones are only counted.
const MAX_CHANGES: usize = 10_000;
/// Devices whose identifiers are kept, over all changes; the oldest changes lose
/// theirs first.
const MAX_DEVICES: usize = 250_000;
/// Devices whose callbacks may be outstanding.
const MAX_PENDING: usize = 500_000;
/// Changes that were not executed and are kept; older ones are only counted.
const MAX_REFUSED: usize = 10_000;

/// What was executed since the sandbox started.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accepted: u64,
    log_ins: u64,
    log_ins_refused: u64,
    token_requests: u64,
    revocations: u64,
    entries: VecDeque<Entry>,
    listed_devices: usize,
    pending_devices: usize,
    refused: BTreeMap<&'static str, u64>,
    not_executed: VecDeque<NotExecuted>,
    not_executed_count: u64,
}

/// One executed change.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) request_id: String,
    pub(super) account: Arc<str>,
    pub(super) kind: ChangeKind,
    pub(super) service_plan: Arc<str>,
    pub(super) received_at_ms: u64,
    pub(super) reply: Reply,
    /// Tells equal requests from others.
    content: u64,
    pub(super) callbacks: Tally,
}

/// One device of an executed change.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) sent: Device,
    pub(super) record: Arc<Record>,
    pub(super) fate: Fate,
    /// The scenario that its identifiers ask for, about it or its request.
    pub(super) scenario: Option<&'static str>,
    told: Mutex<Told>,
}

/// What became of a device, and who was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) outcome: Outcome,
    pub(super) tries: Vec<Try>,
}

/// What became of a device's change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    #[default]
    Pending,
    Succeeded,
    Failed,
}

/// One POST of a callback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) interim: bool,
    pub(super) callback_count: u8,
    /// The listener's status; None while there is none, or when none came.
    pub(super) answer: Option<u16>,
}

/// A change that was understood and not executed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NotExecuted {
    pub(super) received_at_ms: u64,
    pub(super) kind: &'static str,
    pub(super) reason: &'static str,
    pub(super) account: Option<String>,
    pub(super) service_plan: String,
    pub(super) devices: usize,
    #[serde(serialize_with = "identifiers")]
    pub(super) first_device: Option<Device>,
}

/// Counts about the callbacks of one change.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    /// POSTs, duplicates and resends included.
    #[serde(serialize_with = "count")]
    pub(super) sent: AtomicU64,
    /// Devices whose final callback was answered with 2xx.
    #[serde(serialize_with = "count")]
    pub(super) acknowledged: AtomicU64,
    /// POSTs that were sent a second time on purpose.
    #[serde(serialize_with = "count")]
    pub(super) duplicates: AtomicU64,
    /// Devices whose change failed.
    #[serde(serialize_with = "count")]
    pub(super) failed_devices: AtomicU64,
    /// Devices whose callback was never acknowledged.
    #[serde(serialize_with = "count")]
    pub(super) gave_up: AtomicU64,
    /// Devices whose callback had nowhere to go.
    #[serde(serialize_with = "count")]
    pub(super) no_listener: AtomicU64,
    /// Devices whose callback was lost on purpose.
    #[serde(serialize_with = "count")]
    pub(super) lost: AtomicU64,
}

/// Adds one to a count.
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn count<S: Serializer>(count: &AtomicU64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(count.load(Ordering::Relaxed))
}

fn identifiers<S: Serializer>(device: &Option<Device>, serializer: S) -> Result<S::Ok, S::Error> {
    device.as_deref().serialize(serializer)
}

#[derive(Clone, Debug)]
struct Entry {
    change: Arc<Change>,
    count: usize,
    /// None once they had to give way to newer ones.
    devices: Option<Arc<[Subject]>>,
}

/// An executed change, and its devices while they are kept.
pub(super) type Found = (Arc<Change>, Option<Arc<[Subject]>>);

/// What a change is executed with, besides what was asked.
pub(super) struct Execution {
    pub(super) account: Arc<str>,
    pub(super) service_plan: Arc<str>,
    pub(super) reply: Reply,
    pub(super) received_at_ms: u64,
}

impl Subject {
    pub(super) fn new(
        sent: Device,
        record: Arc<Record>,
        fate: Fate,
        scenario: Option<&'static str>,
    ) -> Self {
        Self {
            sent,
            record,
            fate,
            scenario,
            told: Mutex::default(),
        }
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        // Plain data, good to go on with after a panic elsewhere.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a POST down before it leaves; the place for its answer.
    pub(super) fn begin_try(&self, interim: bool, callback_count: u32) -> usize {
        let mut told = self.told();
        told.tries.push(Try {
            interim,
            callback_count: u8::try_from(callback_count).unwrap_or(u8::MAX),
            answer: None,
        });
        told.tries.len() - 1
    }

    pub(super) fn end_try(&self, place: usize, answer: u16) {
        if let Some(one) = self.told().tries.get_mut(place) {
            one.answer = Some(answer);
        }
    }
}

impl Ledger {
    /// Whether so many devices more may be outstanding.
    pub(super) fn has_room(&self, devices: usize) -> Result<(), Refusal> {
        if self.pending_devices + devices > MAX_PENDING {
            return Err(Refusal::throttled());
        }
        Ok(())
    }

    /// Writes a change down, which is its execution.
    pub(super) fn accept(
        &mut self,
        asked: &Asked,
        execution: Execution,
        subjects: Arc<[Subject]>,
    ) -> Arc<Change> {
        let count = subjects.len();
        let change = Arc::new(Change {
            // Not the seed's: ThingSpace never gives one twice, and a gateway may keep its
            // journal longer than this runs.
            request_id: Uuid::new_v4().to_string(),
            account: execution.account,
            kind: asked.kind,
            service_plan: execution.service_plan,
            received_at_ms: execution.received_at_ms,
            reply: execution.reply,
            content: page::content(asked.kind, &asked.service_plan, &subjects),
            callbacks: Tally::default(),
        });
        self.accepted += 1;
        self.pending_devices += count;
        self.listed_devices += count;
        self.entries.push_back(Entry {
            change: Arc::clone(&change),
            count,
            devices: Some(subjects),
        });
        self.make_room();
        change
    }

    /// A change's callbacks are done with.
    pub(super) fn settled(&mut self, devices: usize) {
        self.pending_devices = self.pending_devices.saturating_sub(devices);
    }

    pub(super) fn count_log_in(&mut self, refused: bool) {
        self.log_ins += u64::from(!refused);
        self.log_ins_refused += u64::from(refused);
    }

    pub(super) fn count_token_request(&mut self) {
        self.token_requests += 1;
    }

    pub(super) fn count_revocation(&mut self) {
        self.revocations += 1;
    }

    pub(super) fn count_refused(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// Writes down that a change was not executed.
    pub(super) fn refuse(&mut self, one: NotExecuted) {
        self.not_executed_count += 1;
        if self.not_executed.len() >= MAX_REFUSED {
            self.not_executed.pop_front();
        }
        self.not_executed.push_back(one);
    }

    /// An executed change by its request id.
    pub(super) fn find(&self, request_id: &str) -> Option<Found> {
        let mut newest_first = self.entries.iter().rev();
        let entry = newest_first.find(|entry| entry.change.request_id == request_id)?;
        Some((Arc::clone(&entry.change), entry.devices.clone()))
    }

    fn make_room(&mut self) {
        if self.entries.len() > MAX_CHANGES
            && let Some(oldest) = self.entries.pop_front()
            && oldest.devices.is_some()
        {
            self.listed_devices -= oldest.count;
        }
        for entry in &mut self.entries {
            if self.listed_devices <= MAX_DEVICES {
                break;
            }
            if entry.devices.take().is_some() {
                self.listed_devices -= entry.count;
            }
        }
    }
}
