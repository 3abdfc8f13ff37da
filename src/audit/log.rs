//! The log: queues records for its writer.

use std::{
    path::PathBuf,
    sync::{Arc, Weak, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, interval_at, timeout},
};

use crate::{
    audit::{
        call::AuditedCall,
        error::{AuditOpenError, AuditUnavailable, RecordError},
        file::LogFile,
        output::{Output, StandardOutput},
        record::{AuditRecord, CallId},
        refusals::{REFUSAL_PERIOD, RefusalTable},
        status::Status,
        writer::{Entry, LogLine, Writer},
    },
    config::{AuditOutput, LimitsConfig},
    domain::clock::{Clock, Timestamp},
    telemetry::{AuditGauges, AuditOutcome, Instruments, LogThrottle},
};

/// Longest wait of a caller for its record.
const WAIT_LIMIT: Duration = Duration::from_secs(5);
/// Number of places in the queue in addition to those for all calls in progress.
const SPARE_SLOTS: usize = 4_096;
/// Interval of log lines about lost records.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Options of a log.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// The destination.
    pub output: AuditOutput,
    /// Path of the file.
    pub path: PathBuf,
    /// Size at which the file is rotated, in bytes.
    pub max_bytes: u64,
    /// Maximum number of files, with the current one.
    pub max_files: u32,
    /// The name of this replica in each record.
    pub replica: String,
    /// Number of places in the queue: see [`queue_slots`].
    pub queue_slots: usize,
}

/// The audit log. Cheap to clone. See the documentation of the [module](crate::audit).
#[derive(Clone, Default)]
pub struct AuditLog(Option<Arc<Inner>>);

/// A reference to a log that does not keep it open.
#[derive(Clone, Default)]
pub struct WeakAuditLog(Option<Weak<Inner>>);

pub(super) struct Inner {
    /// `None` once the log is closed.
    entries: Mutex<Option<mpsc::Sender<Entry>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    slots: Arc<Semaphore>,
    status: Arc<Status>,
    refusals: Mutex<RefusalTable>,
    clock: Arc<dyn Clock>,
    replica: String,
    instruments: Instruments,
    throttle: LogThrottle,
}

/// A record on its way to the log.
pub(super) enum Recording {
    /// The writer answers.
    Queued(oneshot::Receiver<Result<(), RecordError>>),
    /// The queue is full.
    Waiting(Box<WaitingRecord>),
    /// The answer is known.
    Ended(Result<(), RecordError>),
}

/// A record that waits for a place in the queue. Lost if it is dropped.
pub(super) struct WaitingRecord {
    log: Arc<Inner>,
    record: Option<AuditRecord>,
    must_sync: bool,
}

/// Returns the number of places that the queue needs: two for each change in progress, one for each stream and each
/// read, and some more.
pub fn queue_slots(limits: &LimitsConfig) -> usize {
    let changes = limits.inflight_changes.saturating_mul(2);
    let slots = SPARE_SLOTS.saturating_add(changes).saturating_add(limits.watches);
    slots.saturating_add(limits.reads).min(Semaphore::MAX_PERMITS)
}

// === impl AuditLog ===

impl AuditLog {
    /// Opens the log of these options. With [`AuditOutput::None`], the log discards all records and is always
    /// available.
    ///
    /// # Errors
    ///
    /// The file or the standard output cannot be used, or another process writes to the file.
    pub fn open(
        options: &AuditOptions,
        clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Result<Self, AuditOpenError> {
        let AuditOptions { path, max_bytes, max_files, .. } = options;
        match options.output {
            AuditOutput::None => Ok(Self::default()),
            AuditOutput::Stdout => {
                let output = StandardOutput::open().map_err(AuditOpenError::StandardOutput)?;
                Self::start(options, output, clock, instruments)
            }
            AuditOutput::File => {
                let output = LogFile::open(path.clone(), *max_bytes, *max_files)
                    .map_err(|source| AuditOpenError::File { path: path.clone(), source })?;
                Self::start(options, output, clock, instruments)
            }
        }
    }

    pub(super) fn start(
        options: &AuditOptions,
        output: impl Output,
        clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Result<Self, AuditOpenError> {
        // Bounded by the slots. A channel with a bound would reserve the memory of all places.
        let (sender, receiver) = mpsc::channel();
        let status = Arc::new(Status::default());
        let replica = options.replica.clone();
        let log_line: LogLine = {
            let (clock, replica) = (Arc::clone(&clock), replica.clone());
            Box::new(move |event, count| {
                AuditRecord::of_log(event, count).line(clock.now(), &replica)
            })
        };
        let writer =
            Writer::new(output, receiver, Arc::clone(&status), log_line, instruments.clone());
        let writer = writer.start().map_err(AuditOpenError::Thread)?;
        Ok(Self(Some(Arc::new(Inner {
            entries: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            slots: Arc::new(Semaphore::new(options.queue_slots)),
            status,
            refusals: Mutex::default(),
            clock,
            replica,
            instruments,
            throttle: LogThrottle::new(LOG_INTERVAL),
        }))))
    }

    /// False if the log discards all records.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// False while the log cannot be written or a write hangs for 5 s. [`begin`](Self::begin) then fails.
    pub fn is_available(&self) -> bool {
        self.0.as_ref().is_none_or(|log| log.status.is_available())
    }

    /// Returns a reference that does not keep the log open.
    pub fn downgrade(&self) -> WeakAuditLog {
        WeakAuditLog(self.0.as_ref().map(Arc::downgrade))
    }

    /// Returns the values of the gauges.
    pub fn gauges(&self) -> AuditGauges {
        self.0.as_ref().map_or_else(AuditGauges::default, |log| AuditGauges {
            queued: log.status.queued(),
            is_failing: !log.status.is_available(),
        })
    }

    /// Returns the id of a new call.
    pub fn new_call_id(&self) -> CallId {
        let now = self.0.as_ref().map_or(Timestamp::from_micros(0), |log| log.clock.now());
        CallId::new(now)
    }

    /// Queues a record at once, and ends when it is written. A dropped future does not cancel the record, unless the
    /// queue was full.
    ///
    /// # Errors
    ///
    /// The record is delayed or lost, because the log is not available. The future then ends at once, or after at
    /// most 5 s.
    pub fn record(
        &self,
        record: AuditRecord,
    ) -> impl Future<Output = Result<(), RecordError>> + Send + use<> {
        self.push(record, false).ended()
    }

    /// Queues a record at once, and ends when it survives a power loss. Records of concurrent callers share a sync.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    pub fn record_synced(
        &self,
        record: AuditRecord,
    ) -> impl Future<Output = Result<(), RecordError>> + Send + use<> {
        self.push(record, true).ended()
    }

    /// Records the begin of a change or of a command of an operator. Call it before anything is sent: it returns when
    /// the record survives a power loss, and reserves a place in the queue for the end of the call.
    ///
    /// # Errors
    ///
    /// The log cannot be written. The call must be refused. The caller records the refusal with
    /// [`record`](Self::record).
    pub async fn begin(&self, started: AuditRecord) -> Result<AuditedCall, AuditUnavailable> {
        let Some(log) = &self.0 else {
            return Ok(AuditedCall::unaudited());
        };
        if !log.status.is_available() {
            return Err(AuditUnavailable);
        }
        let slots = timeout(WAIT_LIMIT, Arc::clone(&log.slots).acquire_many_owned(2)).await;
        let mut slots = slots.ok().and_then(Result::ok).ok_or(AuditUnavailable)?;
        let reserved = slots.split(1);
        let recording = log.enqueue(&started, slots, true);
        // Records the end of the call if this future is dropped.
        let call = AuditedCall::new(Arc::clone(log), started, reserved);
        match recording.ended().await {
            Ok(()) => Ok(call),
            Err(_) => {
                call.forget();
                Err(AuditUnavailable)
            }
        }
    }

    /// Records that a stream was opened, and reserves a place in the queue for its end. Never waits.
    pub fn open_stream(&self, opened: AuditRecord) -> AuditedCall {
        let Some(log) = &self.0 else {
            return AuditedCall::unaudited();
        };
        log.push_now(&opened, 1, false);
        let reserved = Arc::clone(&log.slots).try_acquire_owned().ok();
        AuditedCall::new(Arc::clone(log), opened, reserved)
    }

    /// Records a refusal of a call before its message was read. Never waits.
    ///
    /// Refusals without a caller are counted, and [`run`](Self::run) writes a record for each address and reason. A
    /// known caller gets ten records of their own for each reason in 10 s; further refusals are counted as well.
    pub fn record_refusal(&self, refusal: &AuditRecord) {
        let Some(log) = &self.0 else {
            return;
        };
        if log.refusals.lock().count(refusal) {
            log.push_now(refusal, 1, false);
        } else {
            log.instruments.audit_records(AuditOutcome::Aggregated, 1);
        }
    }

    /// Writes the counted refusals every 10 s, for as long as it is polled.
    pub async fn run(&self) {
        let mut interval = interval_at(Instant::now() + REFUSAL_PERIOD, REFUSAL_PERIOD);
        loop {
            interval.tick().await;
            self.write_refusals();
        }
    }

    /// Writes everything that is queued, then closes the log. Later records are lost.
    pub async fn close(&self) {
        let Some(log) = &self.0 else {
            return;
        };
        self.write_refusals();
        log.entries.lock().take();
        let writer = log.writer.lock().take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("audit writer thread panicked");
            }
        }
    }

    fn write_refusals(&self) {
        if let Some(log) = &self.0 {
            let records = log.refusals.lock().take();
            for record in records {
                log.push_now(&record, record.count.unwrap_or(1), false);
            }
        }
    }

    fn push(&self, record: AuditRecord, must_sync: bool) -> Recording {
        let Some(log) = &self.0 else {
            return Recording::Ended(Ok(()));
        };
        match Arc::clone(&log.slots).try_acquire_owned() {
            Ok(slot) => log.enqueue(&record, slot, must_sync),
            Err(_) if log.status.is_available() => {
                let log = Arc::clone(log);
                let record = Some(record);
                Recording::Waiting(Box::new(WaitingRecord { log, record, must_sync }))
            }
            Err(_) => log.lose(1),
        }
    }
}

// === impl WeakAuditLog ===

impl WeakAuditLog {
    /// Returns the log, or one that discards all records if it is dropped.
    pub fn upgrade(&self) -> AuditLog {
        AuditLog(self.0.as_ref().and_then(Weak::upgrade))
    }
}

// === impl Inner ===

impl Inner {
    /// Queues a record without a wait, or loses it. `calls` is the number of calls that it stands for.
    pub(super) fn push_now(self: &Arc<Self>, record: &AuditRecord, calls: u64, must_sync: bool) {
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => drop(self.enqueue(record, slot, must_sync)),
            Err(_) => drop(self.lose(calls)),
        }
    }

    /// Queues a record at its reserved place, or at any other if it has none.
    pub(super) fn enqueue_or_push(
        self: &Arc<Self>,
        record: &AuditRecord,
        slot: Option<OwnedSemaphorePermit>,
        must_sync: bool,
    ) -> Recording {
        match slot.or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok()) {
            Some(slot) => self.enqueue(record, slot, must_sync),
            None => self.lose(1),
        }
    }

    /// Queues a record.
    pub(super) fn enqueue(
        &self,
        record: &AuditRecord,
        slot: OwnedSemaphorePermit,
        must_sync: bool,
    ) -> Recording {
        let is_available = self.status.is_available();
        let (done, answer) = oneshot::channel();
        let done = is_available.then_some(done);
        let entries = self.entries.lock();
        let Some(sender) = &*entries else {
            return self.lose(1);
        };
        // Under the lock, so that lines are in the order of their times.
        let line = record.line(self.clock.now(), &self.replica);
        self.status.add_queued();
        if sender.send(Entry { line, must_sync, done, slot: Some(slot) }).is_err() {
            self.status.remove_queued(1);
            return self.lose(1);
        }
        if is_available {
            Recording::Queued(answer)
        } else {
            Recording::Ended(Err(RecordError::Delayed))
        }
    }

    fn lose(&self, calls: u64) -> Recording {
        self.status.add_lost(calls);
        self.instruments.audit_records(AuditOutcome::Lost, calls);
        if let Some(records) = self.throttle.count(calls) {
            tracing::error!(
                records,
                "records of the audit log are lost: it cannot be written, and its queue is full"
            );
        }
        Recording::Ended(Err(RecordError::Lost))
    }
}

// === impl Recording ===

impl Recording {
    /// Waits until the writer has answered, for at most 5 s.
    pub(super) async fn ended(self) -> Result<(), RecordError> {
        let answer = match self {
            Self::Queued(answer) => answer,
            Self::Waiting(waiting) => match Box::pin(waiting.enqueued()).await {
                Self::Queued(answer) => answer,
                Self::Ended(result) => return result,
                Self::Waiting(_) => return Err(RecordError::Lost),
            },
            Self::Ended(result) => return result,
        };
        match timeout(WAIT_LIMIT, answer).await {
            Ok(Ok(result)) => result,
            // The writer is gone.
            Ok(Err(_)) => Err(RecordError::Lost),
            Err(_) => Err(RecordError::Delayed),
        }
    }
}

// === impl WaitingRecord ===

impl WaitingRecord {
    /// Waits for a place in the queue.
    async fn enqueued(mut self) -> Recording {
        let slot = timeout(WAIT_LIMIT, Arc::clone(&self.log.slots).acquire_owned()).await;
        match (slot, self.record.take()) {
            (Ok(Ok(slot)), Some(record)) => self.log.enqueue(&record, slot, self.must_sync),
            _ => self.log.lose(1),
        }
    }
}

impl Drop for WaitingRecord {
    fn drop(&mut self) {
        if self.record.is_some() {
            self.log.lose(1);
        }
    }
}

#[cfg(test)]
mod tests;
