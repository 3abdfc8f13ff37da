//! The writer: queues commands, and groups them into commits on a thread of its own.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use rusqlite::TransactionBehavior;
use tokio::{
    sync::mpsc::{OwnedPermit, Sender, error::TrySendError},
    time::Instant,
};

use crate::{
    domain::{change::Change, clock::Timestamp, newtypes::ChangeId, state::Transition},
    failpoints,
    journal::{
        CommitListener, JournalError, NewResult, ReceivedCallback, Reservation, Result, Stored,
        apply::{ApplyTransition, Counts, StoreCallback},
        sqlite::{
            checkpoint::{self, Checkpoints},
            command::{Command, CommandKind, ReplyReceiver},
            commit_times::CommitTimes,
            connection::LockedConnection,
            marker_writer::MarkerWriter,
            queue::{Lanes, Queue},
            tables::device_cache::DeviceCache,
            unit_of_work::{self, Start},
        },
    },
    telemetry::{Instruments, JournalOperation},
};

pub(super) struct Writer {
    /// `None` once the journal is closed.
    lanes: Mutex<Option<Lanes>>,
    pub(super) state: Arc<WriterState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State that the writer shares with its thread.
pub(super) struct WriterState {
    pub(super) commit_listeners: RwLock<Vec<Arc<dyn CommitListener>>>,
    /// The counts after the last commit.
    pub(super) counts: Mutex<Counts>,
    is_failing: AtomicBool,
    commit_times: Mutex<CommitTimes>,
    instruments: Instruments,
}

/// The writer's thread.
struct Worker {
    /// Dropped first: its last write needs the locks that the connections hold.
    marker: MarkerWriter,
    connection: LockedConnection,
    checkpoints: Checkpoints,
    queue: Queue,
    /// The newest position.
    last_position: u64,
    cache: DeviceCache,
    state: Arc<WriterState>,
}

/// A permit in the reserved lane.
struct LaneReservation {
    permit: OwnedPermit<Command>,
    state: Arc<WriterState>,
}

impl Writer {
    pub(super) fn start(
        connection: LockedConnection,
        checkpoints: Checkpoints,
        marker: MarkerWriter,
        last_position: u64,
        counts: Counts,
        instruments: Instruments,
    ) -> io::Result<Self> {
        let (lanes, queue) = Queue::new();
        let state = Arc::new(WriterState {
            commit_listeners: RwLock::default(),
            counts: Mutex::new(counts),
            is_failing: AtomicBool::new(false),
            commit_times: Mutex::default(),
            instruments,
        });
        let worker = Worker {
            marker,
            connection,
            checkpoints,
            queue,
            last_position,
            cache: DeviceCache::default(),
            state: Arc::clone(&state),
        };
        let thread = thread::Builder::new().name("journal-writer".into());
        let thread = thread.spawn(move || worker.run())?;
        Ok(Self { lanes: Mutex::new(Some(lanes)), state, thread: Mutex::new(Some(thread)) })
    }

    /// Sends a command through the lane for all other commands. Waits for queue space and for the reply.
    pub(super) async fn send<T>(
        &self,
        metric: JournalOperation,
        (command, reply): (Command, ReplyReceiver<T>),
    ) -> Result<T> {
        let start = Instant::now();
        let lane = self.lane(|lanes| &lanes.other)?;
        lane.send(command).await.map_err(|_| JournalError::closed())?;
        drop(lane);
        await_reply(&self.state, metric, start, reply).await
    }

    pub(super) async fn reserve(&self) -> Result<Box<dyn Reservation>> {
        let lane = self.lane(|lanes| &lanes.reserved)?;
        let permit = lane.reserve_owned().await.map_err(|_| JournalError::closed())?;
        Ok(Box::new(LaneReservation { permit, state: Arc::clone(&self.state) }))
    }

    pub(super) async fn store_callback(&self, callback: ReceivedCallback) -> Result<Stored> {
        let start = Instant::now();
        let lane = self.lane(|lanes| &lanes.callbacks)?;
        let callback = StoreCallback::new(callback);
        let (command, reply) = Command::new(CommandKind::Callback, 1, callback);
        lane.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => JournalError::Overloaded,
            TrySendError::Closed(_) => JournalError::closed(),
        })?;
        if failpoints::is_active("answer-before-sync") {
            return Ok(Stored::New(NewResult { position: 0, change: None }));
        }
        await_reply(&self.state, JournalOperation::Callback, start, reply).await
    }

    pub(super) fn expected_wait(&self) -> Duration {
        let queued = self.lanes.lock().as_ref().map_or(0, Lanes::queued_callbacks);
        self.state.commit_times.lock().expected_wait(queued)
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

    fn lane(&self, select: impl FnOnce(&Lanes) -> &Sender<Command>) -> Result<Sender<Command>> {
        self.lanes.lock().as_ref().map(select).cloned().ok_or_else(JournalError::closed)
    }
}

#[async_trait]
impl Reservation for LaneReservation {
    async fn apply_transition(
        self: Box<Self>,
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> Result<Change> {
        let (command, reply) =
            Command::transition(ApplyTransition { change_id: change, transition, now });
        let Self { permit, state } = *self;
        permit.send(command);
        await_reply(&state, JournalOperation::Transition, Instant::now(), reply).await
    }
}

/// Waits for a reply, and records the duration of the write.
async fn await_reply<T>(
    state: &WriterState,
    metric: JournalOperation,
    start: Instant,
    reply: ReplyReceiver<T>,
) -> Result<T> {
    let result = reply.await.map_err(|_| JournalError::closed())?;
    let is_failed =
        matches!(result, Err(JournalError::Unavailable(_) | JournalError::DispatchNotProtected(_)));
    state.instruments.journal_write(metric, start.elapsed(), is_failed);
    result
}

impl Worker {
    fn run(mut self) {
        // Only waits on the lanes.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "cannot start the journal writer"),
        };
        loop {
            let is_failing = self.state.is_failing.load(Ordering::Relaxed);
            let Some(first) = runtime.block_on(self.queue.next(is_failing)) else {
                break;
            };
            let commands = self.queue.collect_batch(first);
            let has_callbacks =
                commands.iter().any(|command| command.kind == CommandKind::Callback);
            self.state.instruments.journal_batch(commands.len());
            self.state.commit_times.lock().begin_commit();
            self.commit(commands);
            let is_delaying_callbacks = self.queue.has_callbacks();
            self.state.commit_times.lock().end_commit(has_callbacks, is_delaying_callbacks);
            self.checkpoints.on_commit(&self.connection);
        }
        checkpoint::truncate(&self.connection);
    }

    /// Applies commands in one transaction, and sends the replies after the sync.
    fn commit(&mut self, mut commands: Vec<Command>) {
        let committed = self
            .transact(&mut commands)
            .inspect_err(|error| tracing::error!(%error, "journal commit failed"))
            .map_err(|error| JournalError::Unavailable(error.to_string()));
        self.state.is_failing.store(committed.is_err(), Ordering::Relaxed);
        let result = committed.as_ref().map(|_| ());
        let mut after_marker = Vec::new();
        for command in commands {
            if command.kind == CommandKind::Dispatch && result.is_ok() {
                after_marker.push(command.action);
            } else {
                command.action.reply(result);
            }
        }
        if let Ok(position) = committed {
            self.marker.on_commit(position, after_marker);
        }
    }

    /// Returns the newest position, if the commands appended an event.
    fn transact(&mut self, commands: &mut [Command]) -> rusqlite::Result<Option<u64>> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let counts = *self.state.counts.lock();
        let start = Start { last_position: self.last_position, counts };
        let mut set = unit_of_work::run(&transaction, commands, &mut self.cache, start)?;
        let commit = set.commit();
        let listeners = self.state.commit_listeners.read();
        listeners.iter().for_each(|listener| listener.before_commit(&commit));
        transaction.commit()?;
        let has_events = set.last_position > self.last_position;
        self.last_position = set.last_position;
        self.cache.keep(&set);
        *self.state.counts.lock() = set.counts;
        listeners.iter().for_each(|listener| listener.on_commit(&commit));
        Ok(has_events.then_some(self.last_position))
    }
}
