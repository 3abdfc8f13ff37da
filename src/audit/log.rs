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
        aggregation::{AggregationTable, COUNT_PERIOD},
        call::AuditedCall,
        error::{AuditOpenError, AuditUnavailable, RecordError},
        file::LogFile,
        output::{Output, StandardOutput},
        record::{AuditEvent, AuditRecord, CallId},
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
    aggregation: Mutex<AggregationTable>,
    clock: Arc<dyn Clock>,
    replica: String,
    instruments: Instruments,
    throttle: LogThrottle,
}

/// A record on its way to the log.
pub(super) enum Recording {
    /// The writer answers.
    Queued(oneshot::Receiver<Result<(), RecordError>>),
    /// The answer is known.
    Ended(Result<(), RecordError>),
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
            aggregation: Mutex::default(),
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

    /// Queues a record at once, and ends when it is written. The record is never counted together with others. A dropped
    /// future does not cancel it.
    ///
    /// # Errors
    ///
    /// The record is delayed, because the log cannot be written, or lost, because the queue is full. The future then
    /// ends at once, or after at most 5 s.
    pub fn record(
        &self,
        record: AuditRecord,
    ) -> impl Future<Output = Result<(), RecordError>> + Send + use<> {
        self.push(&record, false).ended()
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
        self.push(&record, true).ended()
    }

    /// Queues the record of the begin of a change or of a command of an operator, and reserves a place in the queue for
    /// its end. Call it before anything is sent, and send nothing before the returned future has ended with success: the
    /// record survives a power loss then. If it fails, refuse the call, and record that as its end.
    ///
    /// # Errors
    ///
    /// The log cannot be written, and nothing was queued. The call must be refused. Record the refusal with
    /// [`record_call`](Self::record_call).
    pub async fn begin(
        &self,
        started: AuditRecord,
    ) -> Result<
        (AuditedCall, impl Future<Output = Result<(), AuditUnavailable>> + Send + use<>),
        AuditUnavailable,
    > {
        let (call, recording) = match &self.0 {
            Some(log) => log.begin(started).await?,
            None => (AuditedCall::unaudited(), Recording::Ended(Ok(()))),
        };
        let recorded = async move { recording.ended().await.map_err(|_delayed| AuditUnavailable) };
        Ok((call, recorded))
    }

    /// Records that a stream was opened, and reserves a place in the queue for its end. Never waits.
    ///
    /// A known caller gets records of their own for ten streams in 10 s. Further streams, and those of a full queue,
    /// are counted when they are opened and when they end.
    pub fn open_stream(&self, opened: AuditRecord) -> AuditedCall {
        let Some(log) = &self.0 else {
            return AuditedCall::unaudited();
        };
        let reserved = log.open_stream(&opened);
        AuditedCall::new(Arc::clone(log), opened, reserved)
    }

    /// Records a read, or a change that never began. Never waits.
    ///
    /// A known caller gets ten records of their own in 10 s. Further calls are counted, and [`run`](Self::run) writes a
    /// record for each method, account and status.
    pub fn record_call(&self, call: &AuditRecord) {
        self.record_or_count(AuditEvent::Calls, call);
    }

    /// Records a call that was refused: before its message was read, or in its handler with PERMISSION_DENIED. Never
    /// waits.
    ///
    /// Refusals without a caller are counted, and [`run`](Self::run) writes a record for each address and reason. A
    /// known caller gets ten records of their own in 10 s. Further refusals are counted by reason.
    pub fn record_refusal(&self, refusal: &AuditRecord) {
        self.record_or_count(AuditEvent::Refusals, refusal);
    }

    fn record_or_count(&self, event: AuditEvent, record: &AuditRecord) {
        if let Some(log) = &self.0 {
            let has_own_record = log.aggregation.lock().count(event, record);
            if has_own_record {
                log.push_now(record, 1);
            } else {
                log.instruments.audit_records(AuditOutcome::Aggregated, 1);
            }
        }
    }

    /// Writes the counted calls every 10 s, for as long as it is polled.
    pub async fn run(&self) {
        let mut interval = interval_at(Instant::now() + COUNT_PERIOD, COUNT_PERIOD);
        loop {
            interval.tick().await;
            self.write_counts();
        }
    }

    /// Writes everything that is queued, then closes the log. Later records are lost.
    pub async fn close(&self) {
        let Some(log) = &self.0 else {
            return;
        };
        self.write_counts();
        log.entries.lock().take();
        let writer = log.writer.lock().take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("audit writer thread panicked");
            }
        }
    }

    fn write_counts(&self) {
        if let Some(log) = &self.0 {
            let records = log.aggregation.lock().take();
            for record in records {
                log.push_now(&record, record.count.unwrap_or(1));
            }
        }
    }

    fn push(&self, record: &AuditRecord, must_sync: bool) -> Recording {
        let Some(log) = &self.0 else {
            return Recording::Ended(Ok(()));
        };
        match Arc::clone(&log.slots).try_acquire_owned() {
            Ok(slot) => log.enqueue(record, slot, must_sync),
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
    /// Queues the record of the begin of a call, and reserves a place for that of its end.
    async fn begin(
        self: &Arc<Self>,
        started: AuditRecord,
    ) -> Result<(AuditedCall, Recording), AuditUnavailable> {
        if !self.status.is_available() {
            return Err(AuditUnavailable);
        }
        let slots = timeout(WAIT_LIMIT, Arc::clone(&self.slots).acquire_many_owned(2)).await;
        let mut slots = slots.ok().and_then(Result::ok).ok_or(AuditUnavailable)?;
        let reserved = slots.split(1).ok_or(AuditUnavailable)?;
        let recording = self.enqueue(&started, slots, true);
        Ok((AuditedCall::new(Arc::clone(self), started, Some(reserved)), recording))
    }

    /// Queues the record of a new stream. Returns the place for that of its end, or `None` if the stream is counted.
    fn open_stream(self: &Arc<Self>, opened: &AuditRecord) -> Option<OwnedSemaphorePermit> {
        if !self.aggregation.lock().count(AuditEvent::StreamsOpened, opened) {
            self.instruments.audit_records(AuditOutcome::Aggregated, 1);
            return None;
        }
        // Both or none, so that a stream with a record of its begin always has one of its end.
        let Ok(mut slots) = Arc::clone(&self.slots).try_acquire_many_owned(2) else {
            self.add(AuditEvent::StreamsOpened, opened);
            return None;
        };
        let reserved = slots.split(1);
        drop(self.enqueue(opened, slots, false));
        reserved
    }

    /// Counts a record as `event`.
    pub(super) fn add(&self, event: AuditEvent, record: &AuditRecord) {
        self.aggregation.lock().add(event, record);
        self.instruments.audit_records(AuditOutcome::Aggregated, 1);
    }

    /// Queues a record without a wait, or loses it. `calls` is the number of calls that it stands for.
    fn push_now(self: &Arc<Self>, record: &AuditRecord, calls: u64) {
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => drop(self.enqueue(record, slot, false)),
            Err(_) => drop(self.lose(calls)),
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

#[cfg(test)]
mod tests;
