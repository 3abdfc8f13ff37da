//! The one thread that writes, seen from outside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    checkpoint::Checkpoints,
    command::{Command, ReplySender},
    files::FileLocks,
    marker::MarkerWriter,
    queue::{CALLBACKS_PER_COMMIT, Queue},
    worker::Worker,
};
use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
        state::Transition,
    },
    invariants::Invariant,
    journal::{
        Attribution, Claim, CommitListener, ForwardOutcome, ForwardQueueStats, Intent,
        JournalError, QuarantineLimits, QuarantinedCallback, ReceivedCallback, Reservation,
        StateCounts, Stored,
    },
    telemetry::{Instruments, JournalOperation},
};

/// Callbacks that may wait at a time; more are refused at arrival.
const CALLBACK_LANE: usize = 16_384;
/// Steps of changes that may wait at a time; more wait outside.
const CHANGE_LANE: usize = 1_024;
/// Answers of ThingSpace that may be awaited at a time: so many POSTs, each with
/// a place in this lane. It is a lane of its own because whoever holds a place
/// in it has yet to pass through the lane of changes.
const RESERVED_LANE_CAPACITY: usize = 256;

/// Hands commands to the writer's thread. Callbacks have a lane of their own,
/// and go first.
pub(super) struct Writer {
    lanes: Mutex<Option<Lanes>>,
    shared: Arc<WriterShared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Lanes {
    callbacks: mpsc::Sender<Command>,
    reserved: mpsc::Sender<Command>,
    changes: mpsc::Sender<Command>,
}

/// What the writer and its thread tell each other beside commands.
pub(super) struct WriterShared {
    pub(super) commit_listeners: RwLock<Vec<Arc<dyn CommitListener>>>,
    pub(super) waiting_callbacks: AtomicUsize,
    /// How long a commit of callbacks took lately.
    pub(super) nanos_per_commit: AtomicU64,
    /// Since when the present commit is being made.
    committing: Mutex<Option<Instant>>,
    /// Whether the last commit failed.
    pub(super) is_failing: AtomicBool,
    pub(super) committed_counts: Mutex<CommittedCounts>,
    pub(super) instruments: Instruments,
}

/// What there is, as of the last commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommittedCounts {
    /// Changes by state.
    pub(super) state_counts: StateCounts,
    /// What waits to be passed on.
    pub(super) forward_queue: ForwardQueueStats,
}

/// The files that the writer's threads have open.
pub(super) struct WriterFiles {
    pub(super) connection: Connection,
    pub(super) checkpoints: Connection,
    pub(super) marker: MarkerWriter,
    pub(super) locks: Arc<FileLocks>,
}

struct StepReservation {
    permit: mpsc::OwnedPermit<Command>,
    shared: Arc<WriterShared>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn start(
        files: WriterFiles,
        standing: CommittedCounts,
        instruments: Instruments,
    ) -> Self {
        let (callbacks, callback_lane) = mpsc::channel(CALLBACK_LANE);
        let (answers, answer_lane) = mpsc::channel(RESERVED_LANE_CAPACITY);
        let (changes, change_lane) = mpsc::channel(CHANGE_LANE);
        let shared = Arc::new(WriterShared {
            commit_listeners: RwLock::default(),
            waiting_callbacks: AtomicUsize::new(0),
            nanos_per_commit: AtomicU64::new(0),
            committing: Mutex::new(None),
            is_failing: AtomicBool::new(false),
            committed_counts: Mutex::new(standing),
            instruments,
        });
        let worker = Worker {
            connection: files.connection,
            checkpoints: Checkpoints::start(files.checkpoints, Arc::clone(&files.locks)),
            queue: Queue::new(callback_lane, answer_lane, change_lane),
            shared: Arc::clone(&shared),
            rows_since_checkpoint: 0,
            blocked_time: Duration::ZERO,
            marker: files.marker,
            _locks: files.locks,
        };
        let thread = thread::Builder::new().name("journal-writer".into());
        let thread = match thread.spawn(move || worker.run()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                // Every call fails from here on, since the lanes are closed.
                tracing::error!(%error, "the journal has no writer thread");
                None
            }
        };
        Self {
            lanes: Mutex::new(Some(Lanes {
                callbacks,
                reserved: answers,
                changes,
            })),
            shared,
            thread: Mutex::new(thread),
        }
    }

    pub(super) fn add_commit_listener(&self, observer: Arc<dyn CommitListener>) {
        self.shared.commit_listeners.write().push(observer);
    }

    pub(super) async fn claim(&self, intent: Intent) -> Result<Claim, JournalError> {
        self.send_change_command(JournalOperation::Claim, |reply| {
            Command::Claim(Box::new(intent), reply)
        })
        .await
    }

    pub(super) async fn apply_transition(
        &self,
        change: ChangeId,
        step: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        self.send_change_command(JournalOperation::Transition, |reply| {
            Command::Transition(change, Box::new(step), now, reply)
        })
        .await
    }

    pub(super) async fn attribute(
        &self,
        request: RequestId,
        listed: Option<Vec<Vec<ReportedId>>>,
        last_result: Option<u64>,
        now: Timestamp,
    ) -> Result<Attribution, JournalError> {
        self.send_change_command(JournalOperation::Attribute, |reply| {
            Command::Attribute(request, listed, last_result, now, reply)
        })
        .await
    }

    pub(super) async fn resolve_unmatched_result(
        &self,
        change: ChangeId,
        first_result: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        self.send_change_command(JournalOperation::ResolveDevice, |reply| {
            Command::ResolveUnmatched(change, first_result, listed, now, reply)
        })
        .await
    }

    pub(super) async fn quarantine(
        &self,
        detained: QuarantinedCallback,
        bounds: QuarantineLimits,
    ) -> Result<Option<u64>, JournalError> {
        self.send_change_command(JournalOperation::Quarantine, |reply| {
            Command::Quarantine(Box::new(detained), bounds, reply)
        })
        .await
    }

    pub(super) async fn release_quarantined(
        &self,
        id: u64,
        arrival: ReceivedCallback,
    ) -> Result<Stored, JournalError> {
        self.send_change_command(JournalOperation::Quarantine, |reply| {
            Command::ReleaseQuarantined(id, Box::new(arrival), reply)
        })
        .await
    }

    pub(super) async fn mark_quarantined_reviewed(&self, last: u64) -> Result<(), JournalError> {
        self.send_change_command(JournalOperation::Quarantine, |reply| {
            Command::MarkQuarantinedReviewed(last, reply)
        })
        .await
    }

    pub(super) async fn drop_quarantined(&self, id: u64) -> Result<bool, JournalError> {
        self.send_change_command(JournalOperation::Quarantine, |reply| {
            Command::DropQuarantined(id, reply)
        })
        .await
    }

    pub(super) async fn record_forward_outcomes(
        &self,
        settled: Vec<(u64, ForwardOutcome)>,
    ) -> Result<(), JournalError> {
        self.send_change_command(JournalOperation::Forward, |reply| {
            Command::RecordForwardOutcomes(settled, reply)
        })
        .await
    }

    pub(super) async fn reschedule_forwards(&self, now: Timestamp) -> Result<usize, JournalError> {
        self.send_change_command(JournalOperation::Forward, |reply| {
            Command::RescheduleForwards(now, reply)
        })
        .await
    }

    pub(super) async fn expire_forwards(&self, before: Timestamp) -> Result<usize, JournalError> {
        self.send_change_command(JournalOperation::Forward, |reply| {
            Command::ExpireForwards(before, reply)
        })
        .await
    }

    pub(super) async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<(), JournalError> {
        self.send_change_command(JournalOperation::Kv, |reply| {
            Command::PutKv(name, value, reply)
        })
        .await
    }

    pub(super) async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool, JournalError> {
        self.send_change_command(JournalOperation::Retention, |reply| {
            Command::Trim(before, up_to, reply)
        })
        .await
    }

    pub(super) async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError> {
        let lane = self.lanes()?.reserved;
        let permit = lane
            .reserve_owned()
            .await
            .map_err(|_| JournalError::closed())?;
        Ok(Box::new(StepReservation {
            permit,
            shared: Arc::clone(&self.shared),
        }))
    }

    pub(super) async fn store_callback(
        &self,
        arrival: ReceivedCallback,
    ) -> Result<Stored, JournalError> {
        let (reply, answer) = oneshot::channel();
        let began = Instant::now();
        let lane = self.lanes()?.callbacks;
        let command = Command::Callback(Box::new(arrival), reply);
        self.shared
            .waiting_callbacks
            .fetch_add(1, Ordering::Relaxed);
        if let Err(error) = lane.try_send(command) {
            self.shared
                .waiting_callbacks
                .fetch_sub(1, Ordering::Relaxed);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => JournalError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => JournalError::closed(),
            });
        }
        if Invariant::SyncBeforeAnswer.is_disabled() {
            return Ok(Stored::New(0));
        }
        self.shared
            .await_durable(JournalOperation::Callback, began, answer)
            .await
    }

    pub(super) fn committed_counts(&self) -> CommittedCounts {
        *self.shared.committed_counts.lock()
    }

    pub(super) fn expected_wait(&self) -> Duration {
        let waiting = self.shared.waiting_callbacks.load(Ordering::Relaxed);
        let present = self.shared.committing.lock().map(|since| since.elapsed());
        if waiting == 0 && present.is_none() {
            // What was slow long ago need not be so now.
            return Duration::ZERO;
        }
        let each = Duration::from_nanos(self.shared.nanos_per_commit.load(Ordering::Relaxed));
        let present = match present {
            // It has taken longer than any did: as long again, then. A disk that hangs is noticed
            // by what it does not do.
            Some(elapsed) if elapsed > each => elapsed,
            Some(elapsed) => each - elapsed,
            None => Duration::ZERO,
        };
        let commits = u32::try_from(waiting / CALLBACKS_PER_COMMIT).unwrap_or(u32::MAX);
        present.saturating_add(each.saturating_mul(commits.saturating_add(1)))
    }

    pub(super) fn is_writable(&self) -> bool {
        let lanes = self.lanes.lock();
        // A writer that has ended, for whatever reason, takes nothing more.
        let is_open = lanes
            .as_ref()
            .is_some_and(|lanes| !lanes.callbacks.is_closed());
        is_open && !self.shared.is_failing.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) {
        self.lanes.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("the journal's writer did not end well");
            }
        }
    }

    async fn send_change_command<T>(
        &self,
        what: JournalOperation,
        command: impl FnOnce(ReplySender<T>) -> Command,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let began = Instant::now();
        let lane = self.lanes()?.changes;
        lane.send(command(reply))
            .await
            .map_err(|_| JournalError::closed())?;
        drop(lane);
        self.shared.await_durable(what, began, answer).await
    }

    fn lanes(&self) -> Result<Lanes, JournalError> {
        self.lanes.lock().clone().ok_or_else(JournalError::closed)
    }
}

// === impl Shared ===

impl WriterShared {
    /// Begins a commit that takes so many callbacks.
    pub(super) fn begin_commit(&self, callbacks: usize) -> Instant {
        self.waiting_callbacks
            .fetch_sub(callbacks, Ordering::Relaxed);
        let now = Instant::now();
        *self.committing.lock() = Some(now);
        now
    }

    pub(super) fn end_commit(&self) {
        *self.committing.lock() = None;
    }

    /// Waits until an append is on disk, and says how long that took.
    async fn await_durable<T>(
        &self,
        what: JournalOperation,
        began: Instant,
        answer: oneshot::Receiver<Result<T, JournalError>>,
    ) -> Result<T, JournalError> {
        let result = answer.await.map_err(|_| JournalError::closed())?;
        let failed = matches!(result, Err(JournalError::Unavailable(_)));
        self.instruments
            .journal_write(what, began.elapsed(), failed);
        result
    }
}

// === impl Reserved ===

#[async_trait]
impl Reservation for StepReservation {
    async fn apply_transition(
        self: Box<Self>,
        change: ChangeId,
        step: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        let (reply, answer) = oneshot::channel();
        let Self { permit, shared } = *self;
        permit.send(Command::Transition(change, Box::new(step), now, reply));
        shared
            .await_durable(JournalOperation::Transition, Instant::now(), answer)
            .await
    }
}
