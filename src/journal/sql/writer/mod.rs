//! The writer: queues commands, and groups them into commits on a thread of its own.

mod command;
mod commit_times;
mod queue;
mod unit_of_work;

use std::{
    io, process,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc::{OwnedPermit, Sender, error::TrySendError},
    time::Instant,
};

use crate::{
    domain::change::Change,
    failpoints,
    journal::{
        Commit, CommitListener, JournalError, NewResult, ReceivedCallback, Reservation, Result,
        Step, Stored,
        apply::{ApplyTransition, Counts, StoreCallback, WorkingSet},
        sql::{
            error,
            tables::device_cache::DeviceCache,
            writer::{
                commit_times::CommitTimes,
                queue::{Lanes, Queue},
            },
        },
    },
    telemetry::{Instruments, JournalOperation},
};

pub(in crate::journal) use command::{Action, Command, CommandKind, ReplyReceiver};
pub(in crate::journal) use unit_of_work::{Start, Transaction, run};

/// Commits the batches of a writer, on the writer's thread.
pub(in crate::journal) trait CommitEngine: Send + 'static {
    /// Returns the runtime in which the thread waits for commands. Is called once, on the thread.
    fn runtime(&mut self) -> io::Result<Arc<Runtime>> {
        Builder::new_current_thread().enable_time().build().map(Arc::new)
    }

    /// Prepares for a batch, for example by connecting.
    fn prepare(&mut self) -> error::Result<Prepared> {
        Ok(Prepared::default())
    }

    /// Runs a batch in a transaction. `work` is called at most once, and its result is committed and synced
    /// when this returns.
    fn commit(&mut self, work: &mut dyn Work) -> error::Result<WorkingSet>;

    /// Is called after a commit that succeeded, with the commands that allow a POST. Replies to them once a
    /// POST can be sent.
    fn after_commit(&mut self, set: &WorkingSet, dispatches: Vec<Box<dyn Action>>) {
        let _ = set;
        dispatches.into_iter().for_each(|dispatch| dispatch.reply(Ok(())));
    }

    /// Is called between two batches.
    fn maintain(&mut self) {}

    /// Closes the database after the last commit.
    fn close(&mut self) {}
}

/// The state of an engine before a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::journal) struct Prepared {
    /// True if rows that were loaded before may have changed.
    pub(in crate::journal) is_new_connection: bool,
    /// True if the journal has a new epoch.
    pub(in crate::journal) is_new_epoch: bool,
}

/// The work of a batch.
pub(in crate::journal) trait Work {
    /// Collects, loads, applies and stores.
    fn run(&mut self, transaction: &dyn Transaction) -> error::Result<WorkingSet>;
}

pub(in crate::journal) struct Writer {
    /// `None` once the journal is closed.
    lanes: Mutex<Option<Lanes>>,
    pub(in crate::journal) state: Arc<WriterState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State that the writer shares with its thread.
pub(in crate::journal) struct WriterState {
    pub(in crate::journal) commit_listeners: RwLock<Vec<Arc<dyn CommitListener>>>,
    /// The counts after the last commit.
    pub(in crate::journal) counts: Mutex<Counts>,
    /// The error of the last commit, if it has failed.
    failure: Mutex<Option<String>>,
    commit_times: Mutex<CommitTimes>,
    instruments: Instruments,
}

/// The writer's thread.
struct Worker<E> {
    engine: E,
    queue: Queue,
    cache: DeviceCache,
    state: Arc<WriterState>,
}

/// The commands of a batch, and the effects of their commit.
struct Batch<'w> {
    commands: &'w mut [Command],
    cache: &'w mut DeviceCache,
    state: &'w WriterState,
    commit: Commit,
}

/// A permit in the reserved lane.
struct LaneReservation {
    permit: OwnedPermit<Command>,
    state: Arc<WriterState>,
}

impl Writer {
    /// Starts the thread. `counts` are those of the journal.
    pub(in crate::journal) fn start(
        engine: impl CommitEngine,
        counts: Counts,
        instruments: Instruments,
    ) -> io::Result<Self> {
        let (lanes, queue) = Queue::new();
        let state = Arc::new(WriterState::new(counts, instruments));
        let cache = DeviceCache::default();
        let worker = Worker { engine, queue, cache, state: Arc::clone(&state) };
        let thread = thread::Builder::new().name("journal-writer".into());
        let thread = thread.spawn(move || worker.run())?;
        Ok(Self { lanes: Mutex::new(Some(lanes)), state, thread: Mutex::new(Some(thread)) })
    }

    /// Sends a command through the lane for all other commands. Waits for queue space and for the reply.
    pub(in crate::journal) async fn send<T>(
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

    /// Sends a write that does nothing, unless the queue is full: then there are other writes.
    pub(in crate::journal) fn send_heartbeat(&self) {
        if let Ok(lane) = self.lane(|lanes| &lanes.other) {
            let (heartbeat, _reply) = Command::modify_tables(0, |_, _| Ok(()));
            let _full_or_closed = lane.try_send(heartbeat);
        }
    }

    pub(in crate::journal) async fn reserve(&self) -> Result<Box<dyn Reservation>> {
        let lane = self.lane(|lanes| &lanes.reserved)?;
        let permit = lane.reserve_owned().await.map_err(|_| JournalError::closed())?;
        Ok(Box::new(LaneReservation { permit, state: Arc::clone(&self.state) }))
    }

    pub(in crate::journal) async fn store_callback(
        &self,
        callback: ReceivedCallback,
    ) -> Result<Stored> {
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

    pub(in crate::journal) fn expected_wait(&self) -> Duration {
        let queued = self.lanes.lock().as_ref().map_or(0, Lanes::queued_callbacks);
        self.state.commit_times.lock().expected_wait(queued)
    }

    pub(in crate::journal) fn is_writable(&self) -> bool {
        let lanes = self.lanes.lock();
        // The lanes are closed if the thread has ended.
        let is_open = lanes.as_ref().is_some_and(|lanes| !lanes.callbacks.is_closed());
        is_open && self.state.failure.lock().is_none()
    }

    /// True if the thread has ended.
    pub(in crate::journal) fn has_stopped(&self) -> bool {
        self.lanes.lock().as_ref().is_none_or(|lanes| lanes.callbacks.is_closed())
    }

    /// Returns the error of the last commit, if it has failed.
    pub(in crate::journal) fn write_error(&self) -> Option<String> {
        self.state.failure.lock().clone()
    }

    pub(in crate::journal) async fn close(&self) {
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
    async fn apply(self: Box<Self>, step: Step) -> Result<Change> {
        let (command, reply) = Command::transition(ApplyTransition(step));
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
        matches!(result, Err(JournalError::Unavailable(_) | JournalError::MayBeStored(_)));
    state.instruments.journal_write(metric, start.elapsed(), is_failed);
    result
}

/// Ends the process if the writer panics: it would serve, and store nothing. All acknowledged data is on disk.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("journal writer thread panicked; the process ends");
            process::abort();
        }
    }
}

impl<E: CommitEngine> Worker<E> {
    fn run(mut self) {
        let _guard = AbortOnPanic;
        let runtime = match self.engine.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "cannot start the journal writer"),
        };
        loop {
            let is_failing = self.state.failure.lock().is_some();
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
            self.engine.maintain();
        }
        self.engine.close();
    }

    /// Applies commands in one transaction, and sends the replies after the sync.
    fn commit(&mut self, mut commands: Vec<Command>) {
        let committed = self
            .transact(&mut commands)
            .inspect_err(|error| tracing::error!(%error, "journal commit failed"))
            .map_err(JournalError::from);
        *self.state.failure.lock() = committed.as_ref().err().map(ToString::to_string);
        let result = committed.as_ref().map(|_| ());
        let mut dispatches = Vec::new();
        for command in commands {
            if command.kind == CommandKind::Dispatch && result.is_ok() {
                dispatches.push(command.action);
            } else {
                command.action.reply(result);
            }
        }
        if let Ok(set) = committed {
            self.engine.after_commit(&set, dispatches);
        }
    }

    fn transact(&mut self, commands: &mut [Command]) -> error::Result<WorkingSet> {
        let Prepared { is_new_connection, is_new_epoch } = self.engine.prepare()?;
        if is_new_connection {
            self.cache = DeviceCache::default();
        }
        if is_new_epoch {
            self.state.notify_of_new_epoch();
        }
        let (cache, state) = (&mut self.cache, &*self.state);
        let mut batch = Batch { commands, cache, state, commit: Commit::default() };
        let set = self.engine.commit(&mut batch)?;
        let commit = batch.commit;
        self.cache.keep(&set);
        *self.state.counts.lock() = set.counts;
        self.state.notify(&commit);
        Ok(set)
    }
}

impl WriterState {
    /// A state without listeners. `counts` are those of the journal.
    pub(in crate::journal) fn new(counts: Counts, instruments: Instruments) -> Self {
        Self {
            commit_listeners: RwLock::default(),
            counts: Mutex::new(counts),
            failure: Mutex::new(None),
            commit_times: Mutex::default(),
            instruments,
        }
    }

    /// Notifies the listeners of a commit.
    pub(in crate::journal) fn notify(&self, commit: &Commit) {
        self.commit_listeners.read().iter().for_each(|listener| listener.on_commit(commit));
    }

    /// Notifies the listeners that the journal has a new epoch.
    pub(in crate::journal) fn notify_of_new_epoch(&self) {
        self.commit_listeners.read().iter().for_each(|listener| listener.on_new_epoch());
    }

    /// Sets the counts, after a commit of another writer.
    pub(in crate::journal) fn set_counts(&self, counts: Counts) {
        *self.counts.lock() = counts;
    }
}

impl Work for Batch<'_> {
    fn run(&mut self, transaction: &dyn Transaction) -> error::Result<WorkingSet> {
        let mut set = run(transaction, self.commands, self.cache)?;
        self.commit = set.commit();
        let listeners = self.state.commit_listeners.read();
        listeners.iter().for_each(|listener| listener.before_commit(&self.commit));
        Ok(set)
    }
}
