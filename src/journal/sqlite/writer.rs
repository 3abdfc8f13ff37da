//! Sends commands to the writer's thread.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    domain::{change::Change, clock::Timestamp, newtypes::ChangeId, state::Transition},
    failpoints,
    journal::{
        CommitListener, JournalError, ReceivedCallback, Reservation, Stored,
        sqlite::{
            checkpoint::Checkpoints,
            command::{Command, CommandKind, ReplyReceiver},
            connection::LockedConnection,
            marker_writer::MarkerWriter,
            queue::Queue,
            tables::{
                batch::{CommandError, WriteBatch},
                results, transitions,
            },
            worker::Worker,
            writer_state::{CommittedCounts, WriterState},
        },
    },
    telemetry::{Instruments, JournalOperation},
};

/// Maximum number of queued callbacks. Further callbacks are rejected.
const CALLBACK_LANE: usize = 16_384;
/// Maximum number of other queued commands. Further callers wait.
const CHANGE_LANE: usize = 1_024;
/// Maximum number of reservations: of POSTs in flight. They have a lane of their own, because a caller
/// with a reservation still sends other commands.
const RESERVED_LANE: usize = 256;

/// Sends commands to the writer's thread. Callbacks have a lane of their own and go first.
pub(super) struct Writer {
    lanes: Mutex<Option<Lanes>>,
    state: Arc<WriterState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Lanes {
    callbacks: mpsc::Sender<Command>,
    reserved: mpsc::Sender<Command>,
    changes: mpsc::Sender<Command>,
}

/// A permit in the reserved lane.
struct LaneReservation {
    permit: mpsc::OwnedPermit<Command>,
    state: Arc<WriterState>,
}

impl Writer {
    pub(super) fn start(
        connection: LockedConnection,
        checkpoints: Checkpoints,
        marker: MarkerWriter,
        counts: CommittedCounts,
        instruments: Instruments,
    ) -> io::Result<Self> {
        let (callbacks, callback_lane) = mpsc::channel(CALLBACK_LANE);
        let (reserved, reserved_lane) = mpsc::channel(RESERVED_LANE);
        let (changes, change_lane) = mpsc::channel(CHANGE_LANE);
        let state = Arc::new(WriterState::new(counts, instruments));
        let worker = Worker {
            connection,
            checkpoints,
            marker,
            queue: Queue::new(callback_lane, reserved_lane, change_lane),
            state: Arc::clone(&state),
        };
        let thread = thread::Builder::new().name("journal-writer".into());
        let thread = thread.spawn(move || worker.run())?;
        Ok(Self {
            lanes: Mutex::new(Some(Lanes { callbacks, reserved, changes })),
            state,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn add_commit_listener(&self, listener: Arc<dyn CommitListener>) {
        self.state.commit_listeners.write().push(listener);
    }

    /// Runs an operation that writes about `rows` rows in the next commit. Returns its result after
    /// the sync.
    pub(super) async fn write<T: Send + 'static, E: Into<CommandError> + 'static>(
        &self,
        metric: JournalOperation,
        rows: usize,
        operation: impl FnOnce(&mut WriteBatch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.send(metric, Command::new(CommandKind::Other, rows, operation)).await
    }

    pub(super) async fn apply_transition(
        &self,
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        self.send(JournalOperation::Transition, transition_command(change, transition, now)).await
    }

    pub(super) async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError> {
        let lane = self.lanes()?.reserved;
        let permit = lane.reserve_owned().await.map_err(|_| JournalError::closed())?;
        Ok(Box::new(LaneReservation { permit, state: Arc::clone(&self.state) }))
    }

    pub(super) async fn store_callback(
        &self,
        callback: ReceivedCallback,
    ) -> Result<Stored, JournalError> {
        let start = Instant::now();
        let lane = self.lanes()?.callbacks;
        let (command, reply) = Command::new(CommandKind::Callback, 1, move |batch| {
            results::store_callback(batch, callback)
        });
        self.state.queued_callbacks.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = lane.try_send(command) {
            self.state.queued_callbacks.fetch_sub(1, Ordering::Relaxed);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => JournalError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => JournalError::closed(),
            });
        }
        if failpoints::is_active("answer-before-sync") {
            return Ok(Stored::New(0));
        }
        await_reply(&self.state, JournalOperation::Callback, start, reply).await
    }

    pub(super) fn committed_counts(&self) -> CommittedCounts {
        *self.state.committed_counts.lock()
    }

    pub(super) fn expected_wait(&self) -> Duration {
        self.state.expected_wait()
    }

    pub(super) fn is_writable(&self) -> bool {
        let lanes = self.lanes.lock();
        // The lanes are closed if the thread has ended.
        let is_open = lanes.as_ref().is_some_and(|lanes| !lanes.callbacks.is_closed());
        is_open && !self.state.is_failing.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) {
        self.lanes.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("journal writer thread panicked");
            }
        }
    }

    /// Sends a command through the lane of changes. Waits for queue space and for the reply.
    async fn send<T>(
        &self,
        metric: JournalOperation,
        (command, reply): (Command, ReplyReceiver<T>),
    ) -> Result<T, JournalError> {
        let start = Instant::now();
        let lane = self.lanes()?.changes;
        lane.send(command).await.map_err(|_| JournalError::closed())?;
        drop(lane);
        await_reply(&self.state, metric, start, reply).await
    }

    fn lanes(&self) -> Result<Lanes, JournalError> {
        self.lanes.lock().clone().ok_or_else(JournalError::closed)
    }
}

#[async_trait]
impl Reservation for LaneReservation {
    async fn apply_transition(
        self: Box<Self>,
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        let (command, reply) = transition_command(change, transition, now);
        let Self { permit, state } = *self;
        permit.send(command);
        await_reply(&state, JournalOperation::Transition, Instant::now(), reply).await
    }
}

fn transition_command(
    change: ChangeId,
    transition: Transition,
    now: Timestamp,
) -> (Command, ReplyReceiver<Change>) {
    let kind = match transition {
        Transition::Dispatch { .. } => CommandKind::Dispatch,
        _ => CommandKind::Other,
    };
    Command::new(kind, 1, move |batch| {
        transitions::apply_transition(batch, change, &transition, now)
    })
}

/// Waits for a reply, and records the duration of the write.
async fn await_reply<T>(
    state: &WriterState,
    metric: JournalOperation,
    start: Instant,
    reply: ReplyReceiver<T>,
) -> Result<T, JournalError> {
    let result = reply.await.map_err(|_| JournalError::closed())?;
    let is_failed = matches!(result, Err(JournalError::Unavailable(_)));
    state.instruments.journal_write(metric, start.elapsed(), is_failed);
    result
}
