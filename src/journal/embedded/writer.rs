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
use tokio::sync::{mpsc, oneshot};

use super::{
    checkpoint::Checkpoints,
    command::{Command, Reply},
    worker::Worker,
};
use crate::{
    domain::{
        change::{Change, Step},
        clock::Timestamp,
        names::ChangeId,
    },
    journal::{Arrival, Claim, Intent, JournalError, Observer, Reservation, Stored},
};

/// Callbacks that may wait at a time; more are refused at arrival.
const CALLBACK_LANE: usize = 16_384;
/// Steps of changes that may wait at a time; more wait outside.
const CHANGE_LANE: usize = 1_024;
/// Answers of ThingSpace that may be awaited at a time: so many POSTs, each with
/// a place in this lane. It is a lane of its own because whoever holds a place
/// in it has yet to pass through the lane of changes.
const ANSWER_LANE: usize = 256;

/// Hands commands to the writer's thread. Callbacks have a lane of their own,
/// and go first.
pub(super) struct Writer {
    lanes: Mutex<Option<Lanes>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Lanes {
    callbacks: mpsc::Sender<Command>,
    answers: mpsc::Sender<Command>,
    changes: mpsc::Sender<Command>,
}

/// What the writer and its thread tell each other beside commands.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) observers: RwLock<Vec<Arc<dyn Observer>>>,
    pub(super) waiting_callbacks: AtomicUsize,
    /// How long one callback took lately, its share of the commit included.
    pub(super) nanos_per_callback: AtomicU64,
    /// Whether the last commit failed.
    pub(super) failing: AtomicBool,
}

struct Reserved(mpsc::OwnedPermit<Command>);

// === impl Writer ===

impl Writer {
    pub(super) fn start(connection: Connection, checkpoints: Connection) -> Self {
        let (callbacks, callback_lane) = mpsc::channel(CALLBACK_LANE);
        let (answers, answer_lane) = mpsc::channel(ANSWER_LANE);
        let (changes, change_lane) = mpsc::channel(CHANGE_LANE);
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            connection,
            checkpoints: Checkpoints::start(checkpoints),
            callback_lane,
            answer_lane,
            change_lane,
            deferred: None,
            shared: Arc::clone(&shared),
            rows_since_checkpoint: 0,
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
                answers,
                changes,
            })),
            shared,
            thread: Mutex::new(thread),
        }
    }

    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared.observers.write().push(observer);
    }

    pub(super) async fn claim(&self, intent: Intent) -> Result<Claim, JournalError> {
        self.change_command(|reply| Command::Claim(Box::new(intent), reply))
            .await
    }

    pub(super) async fn step(
        &self,
        change: ChangeId,
        step: Step,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        self.change_command(|reply| Command::Step(change, Box::new(step), now, reply))
            .await
    }

    pub(super) async fn trim(&self, before: Timestamp) -> Result<bool, JournalError> {
        self.change_command(|reply| Command::Trim(before, reply))
            .await
    }

    pub(super) async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError> {
        let lane = self.lanes()?.answers;
        let permit = lane
            .reserve_owned()
            .await
            .map_err(|_| JournalError::closed())?;
        Ok(Box::new(Reserved(permit)))
    }

    pub(super) async fn store_callback(&self, arrival: Arrival) -> Result<Stored, JournalError> {
        let (reply, answer) = oneshot::channel();
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
        answer.await.map_err(|_| JournalError::closed())?
    }

    pub(super) fn expected_wait(&self) -> Duration {
        let waiting = self.shared.waiting_callbacks.load(Ordering::Relaxed);
        let each = self.shared.nanos_per_callback.load(Ordering::Relaxed);
        Duration::from_nanos(each.saturating_mul(u64::try_from(waiting).unwrap_or(u64::MAX)))
    }

    pub(super) fn is_writable(&self) -> bool {
        let lanes = self.lanes.lock();
        // A writer that has ended, for whatever reason, takes nothing more.
        let is_open = lanes
            .as_ref()
            .is_some_and(|lanes| !lanes.callbacks.is_closed());
        is_open && !self.shared.failing.load(Ordering::Relaxed)
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

    async fn change_command<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let lane = self.lanes()?.changes;
        lane.send(command(reply))
            .await
            .map_err(|_| JournalError::closed())?;
        drop(lane);
        answer.await.map_err(|_| JournalError::closed())?
    }

    fn lanes(&self) -> Result<Lanes, JournalError> {
        self.lanes.lock().clone().ok_or_else(JournalError::closed)
    }
}

// === impl Reserved ===

#[async_trait]
impl Reservation for Reserved {
    async fn step(
        self: Box<Self>,
        change: ChangeId,
        step: Step,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(Command::Step(change, Box::new(step), now, reply));
        answer.await.map_err(|_| JournalError::closed())?
    }
}
